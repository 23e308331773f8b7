//! What can happen to control and to its ways to the nodes. Clients must not notice any of it; whoever
//! changes something hears a clear word, and what was acknowledged stays.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::changes::{Changes, Told, listed};
use super::{Bed, Cell, Done, LATE, NODES, exhaust_descriptors, lost};
use crate::cgroup::Cgroup;
use crate::eventually::{DEADLINE, eventually};
use crate::faults::report::{Amount, Report};
use crate::fleet::log_in;
use crate::kill_control::api::Api;
use crate::network::Weather;

/// A database of a few caches, its log and what else control keeps; full at once.
pub(super) const DISK_KILOBYTES: u32 = 8_192;
/// What control may take more than it has, in bytes, and how many read long lists meanwhile.
const MORE_MEMORY: u64 = 4 << 20;
const READERS: usize = 8;

pub(super) const CELLS: &[Cell] = &[
    Cell {
        victim: "control",
        fault: "SIGKILL",
        act: |bed, time| {
            bed.cluster.control.signal(Signal::KILL);
            bed.cluster.control.wait_for_end(DEADLINE);
            thread::sleep(time);
            bed.cluster.restart_control();
            Ok(Done::default())
        },
    },
    Cell {
        victim: "control",
        fault: "SIGSTOP",
        act: |bed, time| {
            bed.cluster.control.signal(Signal::STOP);
            thread::sleep(time);
            bed.cluster.control.signal(Signal::CONT);
            Ok(Done::default())
        },
    },
    Cell {
        victim: "control",
        fault: "cpu 5 %",
        act: |bed, time| {
            let process = bed.cluster.control.id();
            let group = Cgroup::cpu(0.05, &[process]).map_err(|error| error.to_string())?;
            thread::sleep(time);
            drop(group);
            Ok(Done::default())
        },
    },
    Cell { victim: "control", fault: "memory limit", act: |bed, time| bed.limit_memory(time) },
    Cell {
        victim: "control",
        fault: "descriptors",
        act: |bed, time| {
            let addresses = [bed.cluster.control_api(), bed.cluster.control_address()];
            exhaust_descriptors(&bed.cluster.control, &addresses, time)?;
            Ok(Done::default())
        },
    },
    Cell {
        victim: "control",
        fault: "disk full",
        act: |bed, time| {
            let disk = bed.cluster.control_disk().ok_or("control has no disk of its own")?;
            disk.fill()?;
            thread::sleep(time);
            disk.empty()?;
            Ok(Done::default())
        },
    },
    Cell {
        victim: "control's links",
        fault: "15 % of packets 5 to 15 ms late",
        act: |bed, time| bed.control_links(&LATE, &LATE, time),
    },
    Cell {
        victim: "control's links",
        fault: "1 % of packets lost",
        act: |bed, time| bed.control_links(&lost(0.01), &lost(0.01), time),
    },
    Cell {
        victim: "control's links",
        fault: "5 % of packets lost",
        act: |bed, time| bed.control_links(&lost(0.05), &lost(0.05), time),
    },
    Cell {
        victim: "control's links",
        fault: "cut towards nodes",
        act: |bed, time| bed.control_links(&Weather::NONE, &Weather::GOOD, time),
    },
    Cell {
        victim: "control's links",
        fault: "cut towards control",
        act: |bed, time| bed.control_links(&Weather::GOOD, &Weather::NONE, time),
    },
    Cell {
        victim: "control's links",
        fault: "cut both ways",
        act: |bed, time| bed.control_links(&Weather::NONE, &Weather::NONE, time),
    },
];

impl Bed {
    /// On all ways between control and nodes.
    fn control_links(
        &self,
        forth: &Weather,
        back: &Weather,
        time: Duration,
    ) -> Result<Done, String> {
        let here = self.network.here();
        for node in 0..NODES {
            self.network.set(here, node, forth);
            self.network.set(node, here, back);
        }
        thread::sleep(time);
        self.network.set_all(&Weather::GOOD);
        Ok(Done::default())
    }

    /// Lets control have little more memory than it has, while many read long lists. The kernel may kill
    /// it for it; whoever supervises it starts it again.
    fn limit_memory(&mut self, time: Duration) -> Result<Done, String> {
        let control = &self.cluster.control;
        let group = Cgroup::memory(MORE_MEMORY, &[control.id()]);
        let group = group.map_err(|error| error.to_string())?;
        let folder = self.cluster.control_folder();
        thread::scope(|threads| {
            for _ in 0..READERS {
                threads.spawn(|| {
                    let end = Instant::now() + time;
                    while Instant::now() < end {
                        match Api::announced(&folder) {
                            Some(api) => drop(api.try_get("/v1/audit?limit=1000")),
                            None => thread::sleep(Duration::from_millis(50)),
                        }
                    }
                });
            }
        });
        drop(group);
        let is_killed = self.cluster.control.has_ended();
        if is_killed {
            self.cluster.restart_control();
        }
        let killed = Amount::count(u64::from(is_killed));
        Ok(Done { told: vec![("killed by the kernel", killed)], ..Done::default() })
    }

    /// Until one is acknowledged and every proxy acts by it; then it is undone.
    #[track_caller]
    pub(super) fn wait_until_a_change_is_felt(&self, changes: &Changes) {
        let login = changes.add_one();
        for node in &self.cluster.nodes {
            eventually("a change is felt", DEADLINE, || log_in(node.addr, &login).ok().map(drop));
        }
        changes.remove_one(&login);
    }

    /// What is listed must be what was acknowledged; also after another SIGKILL, as control's memory
    /// could know what its disk does not.
    #[track_caller]
    pub(super) fn check_changes(&mut self, report: &mut Report, cell: &str, changes: Changes) {
        let (told, wanted) = changes.finish();
        let is_kept = listed(&self.cluster.control_folder()) == wanted;
        self.cluster.restart_control();
        self.cluster.wait_until_settled(NODES);
        let is_durable = listed(&self.cluster.control_folder()) == wanted;
        let Told { acknowledged, refused, unanswered, unclear, .. } = &told;
        let words = format!(
            "{acknowledged} acknowledged, {refused} refused, {unanswered} without an answer at first"
        );
        report.law(&format!("{cell}: changes kept"), words, is_kept && is_durable);
        for why in unclear.iter().take(3) {
            report.say(&format!("refused with {why}"));
        }
        report.never(&format!("{cell}: refusals that do not say why"), unclear.len() as u64);
        // The next cell begins with what there was.
        for username in told.own {
            self.cluster.run(&["credential", "remove", &username]);
        }
    }
}
