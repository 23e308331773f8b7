//! One fault after the other on one cluster under load (`docs/faults.md`, fault matrix): in every cell
//! nothing is stale, and all is well soon after the fault has ended.
//!
//! ```text
//!   clients ──▶ n0, n1 (the victim), n2, each at a place of its own ── bad network ── each other
//!                           control here                                              (or control,
//!                                                                                      or clients)
//! ```

mod changes;
mod clients;
mod control;

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use self::changes::Changes;
use super::ground::{Disks, Far, cluster_on};
use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere};
use crate::cgroup::Cgroup;
use crate::connection::{Connection, Login};
use crate::eventually::eventually;
use crate::fleet::{Cluster, SETTLED_TIME_MAX};
use crate::freshness::{Freshness, Seen};
use crate::keys;
use crate::network::{Network, Weather};
use crate::process::Process;
use crate::relay::Relay;

const NODES: usize = 3;
/// The node that things happen to.
const VICTIM: usize = 1;
/// The node whose disk can be filled: one whose clients are looked at.
const DISK: usize = 2;
/// Enough for the records of a cluster, and full at once.
const DISK_KILOBYTES: u32 = 4_096;
/// Keys that are read through every proxy when a fault has ended.
const KEYS: u64 = 2_000;
/// What a provider's network does to packets for hours, without losing any.
const LATE: Weather = Weather { lost: 0.0, ..Weather::STORM };
/// From the end of a fault until every key is answered through every proxy.
const HEALED: Bar = Bar::AtMost(5.0);

pub(super) const NODES_ROW: Experiment = Experiment {
    name: "matrix-nodes",
    goals: "6.3",
    what: "the matrix: one fault of a node after the other on one cluster under load",
    is_quick: false,
    run: |report, length| matrix(report, length, Far::Nobody, NODE_CELLS),
};

pub(super) const CONTROL_ROW: Experiment = Experiment {
    name: "matrix-control",
    goals: "6.3",
    what: "the matrix: faults of the control plane and of its ways to the nodes",
    is_quick: false,
    run: |report, length| matrix(report, length, Far::Control, control::CELLS),
};

pub(super) const LINKS_ROW: Experiment = Experiment {
    name: "matrix-links",
    goals: "6.3",
    what: "the matrix: faults of what is between nodes",
    is_quick: false,
    run: |report, length| matrix(report, length, Far::Nobody, LINK_CELLS),
};

pub(super) const CLIENTS_ROW: Experiment = Experiment {
    name: "matrix-clients",
    goals: "6.3",
    what: "the matrix: faults of clients and of their way to a node",
    is_quick: false,
    run: |report, length| matrix(report, length, Far::Clients, clients::CELLS),
};

/// One fault of one victim.
struct Cell {
    victim: &'static str,
    fault: &'static str,
    /// Begins it, lets it last so long, and ends it.
    act: fn(&mut Bed, Duration) -> Result<Done, String>,
}

const NODE_CELLS: &[Cell] = &[
    Cell { victim: "node", fault: "SIGKILL", act: |bed, time| bed.end_node(Signal::KILL, time) },
    Cell { victim: "node", fault: "SIGTERM", act: |bed, time| bed.end_node(Signal::TERM, time) },
    Cell { victim: "node", fault: "SIGSTOP 1 s", act: |bed, _| bed.stop_node(1) },
    Cell { victim: "node", fault: "SIGSTOP 5 s", act: |bed, _| bed.stop_node(5) },
    Cell {
        victim: "node",
        fault: "SIGSTOP 30 s",
        act: |bed, time| bed.stop_node(if time < Duration::from_secs(10) { 3 } else { 30 }),
    },
    Cell {
        victim: "node",
        fault: "cpu 5 %",
        act: |bed, time| {
            let process = bed.cluster.nodes[VICTIM].process.id();
            let group = Cgroup::cpu(0.05, &[process]).map_err(|error| error.to_string())?;
            thread::sleep(time);
            drop(group);
            Ok(Done::default())
        },
    },
    Cell {
        victim: "node",
        fault: "descriptors",
        act: |bed, time| {
            let node = &bed.cluster.nodes[VICTIM];
            exhaust_descriptors(&node.process, &[node.addr], time)?;
            Ok(Done::default())
        },
    },
    Cell { victim: "node", fault: "disk full", act: |bed, time| bed.fill_disk(time) },
];

const LINK_CELLS: &[Cell] = &[
    Cell {
        victim: "links",
        fault: "15 % of packets 5 to 15 ms late",
        act: |bed, time| bed.all_links(&LATE, time),
    },
    Cell {
        victim: "links",
        fault: "1 % of packets lost",
        act: |bed, time| bed.all_links(&lost(0.01), time),
    },
    Cell {
        victim: "links",
        fault: "5 % of packets lost",
        act: |bed, time| bed.all_links(&lost(0.05), time),
    },
    Cell {
        victim: "link",
        fault: "cut one way",
        act: |bed, time| {
            bed.network.set(0, VICTIM, &Weather::NONE);
            thread::sleep(time);
            bed.network.set(0, VICTIM, &Weather::GOOD);
            Ok(Done::default())
        },
    },
    Cell {
        victim: "link",
        fault: "cut the other way",
        act: |bed, time| {
            bed.network.set(VICTIM, 0, &Weather::NONE);
            thread::sleep(time);
            bed.network.set(VICTIM, 0, &Weather::GOOD);
            Ok(Done::default())
        },
    },
    Cell {
        victim: "link",
        fault: "cut both ways",
        act: |bed, time| {
            bed.network.set(0, VICTIM, &Weather::NONE);
            bed.network.set(VICTIM, 0, &Weather::NONE);
            thread::sleep(time);
            bed.network.set_all(&Weather::GOOD);
            Ok(Done::default())
        },
    },
    Cell {
        victim: "node",
        fault: "all its links cut",
        act: |bed, time| {
            for other in (0..NODES).filter(|&place| place != VICTIM) {
                bed.network.set(other, VICTIM, &Weather::NONE);
                bed.network.set(VICTIM, other, &Weather::NONE);
            }
            thread::sleep(time);
            bed.network.set_all(&Weather::GOOD);
            Ok(Done::default())
        },
    },
];

const fn lost(part: f64) -> Weather {
    Weather { lost: part, ..Weather::GOOD }
}

/// What a fault has left behind.
#[derive(Default)]
struct Done {
    /// Clients that it was done to, still at work, and what they go through.
    theirs: Option<Freshness>,
    relay: Option<Relay>,
    /// What else is to be told of it.
    told: Vec<(&'static str, Amount)>,
}

struct Bed {
    // Its nodes end before their places do.
    cluster: Cluster,
    network: Network,
    login: Login,
}

fn matrix(report: &mut Report, length: Length, far: Far, cells: &[Cell]) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(1), Duration::from_secs(10));
    let network = if far == Far::Nobody { Network::new(NODES) } else { Network::with_here(NODES) };
    let network = network.map_err(NotHere)?;
    let disks = Disks {
        node: (far == Far::Nobody).then_some((DISK, DISK_KILOBYTES)),
        control: (far == Far::Control).then_some(control::DISK_KILOBYTES),
    };
    let cluster = cluster_on(&network, NODES, 2, far, disks)?;
    let login = cluster.create_cache("shop", "dev");
    let mut bed = Bed { cluster, network, login };
    for (number, cell) in cells.iter().enumerate() {
        bed.wait_until_every_key_is_answered();
        bed.cluster.wait_until_settled(NODES);
        let changes =
            (far == Far::Control).then(|| Changes::start(bed.cluster.control_folder(), number));
        bed.play(report, cell, time, changes);
    }
    Ok(())
}

fn words(seen: &Seen) -> String {
    let all = seen.reads + seen.writes;
    let failed = 100.0 * seen.failures as f64 / all as f64;
    format!("{} stale of {all}, {failed:.2} % failed", seen.stale.len())
}

impl Bed {
    fn play(&mut self, report: &mut Report, cell: &Cell, time: Duration, changes: Option<Changes>) {
        let Cell { victim, fault, act } = cell;
        let name = format!("{victim}: {fault}");
        keys::set(&mut self.cluster.connect(0, &self.login), 0..KEYS);
        // A victim's own clients only wait with it; the others tell what it does to the rest.
        let proxies = [0, 2].map(|node| self.cluster.nodes[node].addr);
        let fresh = Freshness::start(&proxies, &self.login, 2);
        let done = act(self, time);
        let ended = Instant::now();
        self.wait_until_every_key_is_answered();
        let healed = ended.elapsed();
        if let Some(changes) = &changes {
            self.wait_until_a_change_is_felt(changes);
        }
        let felt = ended.elapsed();
        self.cluster.wait_until_settled(NODES);
        fresh.wait_for_rounds(1);
        let seen = fresh.finish();
        let Done { theirs, relay, told } = match done {
            Ok(done) => done,
            Err(why) => return report.say(&format!("{name}: not done here: {why}")),
        };
        report.law(&name, words(&seen), seen.stale.is_empty());
        if let Some(theirs) = theirs {
            theirs.wait_for_rounds(1);
            let seen = theirs.finish();
            report.law(&format!("{name}: its own clients"), words(&seen), seen.stale.is_empty());
        }
        drop(relay);
        for (what, amount) in told {
            report.figure(&format!("{name}: {what}"), amount, Bar::None);
        }
        report.figure(&format!("{name}: all is well after"), Amount::s(healed), HEALED);
        if let Some(changes) = changes {
            // Clients do not need control.
            let what = format!("{name}: requests of clients that failed");
            report.figure(&what, Amount::count(seen.failures), Bar::AtMost(0.0));
            let what = format!("{name}: a change is felt at all proxies after");
            report.figure(&what, Amount::s(felt), HEALED);
            self.check_changes(report, &name, changes);
        }
    }

    /// Through every proxy.
    #[track_caller]
    fn wait_until_every_key_is_answered(&self) {
        for node in 0..NODES {
            eventually("every key is answered", SETTLED_TIME_MAX, || {
                let mut client = self.cluster.connect(node, &self.login);
                let found = keys::get(&mut client, 0..KEYS).ok()?;
                (found.failures == 0).then_some(())
            });
        }
    }

    fn end_node(&mut self, signal: Signal, time: Duration) -> Result<Done, String> {
        let process = &mut self.cluster.nodes[VICTIM].process;
        process.signal(signal);
        process.wait_for_end(SETTLED_TIME_MAX);
        thread::sleep(time);
        self.cluster.restart(VICTIM);
        Ok(Done::default())
    }

    fn stop_node(&self, seconds: u64) -> Result<Done, String> {
        let process = &self.cluster.nodes[VICTIM].process;
        process.signal(Signal::STOP);
        thread::sleep(Duration::from_secs(seconds));
        process.signal(Signal::CONT);
        Ok(Done::default())
    }

    /// Lets nothing more fit, while there are things to be written.
    fn fill_disk(&self, time: Duration) -> Result<Done, String> {
        let disk = self.cluster.disk_of(DISK).ok_or("the node has no disk of its own")?;
        disk.fill()?;
        for _ in 0..3 {
            let made = Login::told(&self.cluster.run(&["credential", "add", "shop"]));
            drop(self.cluster.connect(DISK, &made));
        }
        thread::sleep(time);
        disk.empty()?;
        Ok(Done::default())
    }

    fn all_links(&self, weather: &Weather, time: Duration) -> Result<Done, String> {
        self.network.set_all(weather);
        thread::sleep(time);
        self.network.set_all(&Weather::GOOD);
        Ok(Done::default())
    }
}

/// Lets a process have hardly more descriptors than it has, while strangers come to all of its doors.
fn exhaust_descriptors(
    process: &Process,
    addresses: &[SocketAddr],
    time: Duration,
) -> Result<(), String> {
    let limit = |count: &str| {
        let pid = process.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, count]).status();
        let is_set = status.is_ok_and(|status| status.success());
        if is_set { Ok(()) } else { Err("prlimit is not permitted".to_owned()) }
    };
    let before = descriptor_limits(process.id())?;
    limit(&format!("--nofile={}:{}", process.descriptors() + 8, before.1))?;
    let strangers: Vec<Connection> = addresses
        .iter()
        .flat_map(|&addr| (0..64).filter_map(move |_| Connection::try_open(addr).ok()))
        .collect();
    thread::sleep(time);
    drop(strangers);
    limit(&format!("--nofile={}:{}", before.0, before.1))
}

/// Soft and hard (proc(5), `/proc/PID/limits`).
fn descriptor_limits(process: u32) -> Result<(String, String), String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/limits"))
        .map_err(|error| error.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut words = line.unwrap_or_default().split_whitespace().map(str::to_owned);
    words.next().zip(words.next()).ok_or_else(|| "no limit is listed".to_owned())
}
