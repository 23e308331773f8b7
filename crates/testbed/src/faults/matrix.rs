//! One fault after the other on one cluster under load (`docs/faults.md`, fault matrix): in every cell
//! nothing is stale, and all is well soon after the fault has ended.
//!
//! ```text
//!   clients ──▶ n0, n1 (the victim), n2, each at a place of its own ── bad network ── each other
//!                           control here
//! ```

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::bad_network::cluster_on;
use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere};
use crate::cgroup::Cgroup;
use crate::connection::{Connection, Login};
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::{Cluster, SETTLED_TIME_MAX};
use crate::freshness::Freshness;
use crate::keys;
use crate::larder::program;
use crate::network::{Network, Weather};
use crate::relay::Relay;

const NODES: usize = 3;
/// The node that things happen to.
const VICTIM: usize = 1;
/// The node whose disk can be filled: not the victim, whose processes come and go, and with each of them
/// such a disk.
const DISK: usize = 2;
/// Enough for the records of a cluster, and full at once.
const DISK_KILOBYTES: u32 = 4_096;
/// Keys that are read through every proxy when a fault has ended.
const KEYS: u64 = 2_000;
/// From the end of a fault until every key is answered through every proxy.
const HEALED: Bar = Bar::AtMost(5.0);

pub(super) const NODES_ROW: Experiment = Experiment {
    name: "matrix-nodes",
    goals: "6.3",
    what: "the matrix: one fault of a node after the other on one cluster under load",
    is_quick: false,
    run: |report, length| matrix(report, length, NODE_CELLS),
};

pub(super) const CONTROL_ROW: Experiment = Experiment {
    name: "matrix-control",
    goals: "6.3",
    what: "the matrix: faults of the control plane",
    is_quick: false,
    run: |report, length| matrix(report, length, CONTROL_CELLS),
};

pub(super) const LINKS_ROW: Experiment = Experiment {
    name: "matrix-links",
    goals: "6.3",
    what: "the matrix: faults of what is between nodes",
    is_quick: false,
    run: |report, length| matrix(report, length, LINK_CELLS),
};

pub(super) const CLIENTS_ROW: Experiment = Experiment {
    name: "matrix-clients",
    goals: "6.3",
    what: "the matrix: faults of clients and of their way to a node",
    is_quick: false,
    run: |report, length| matrix(report, length, CLIENT_CELLS),
};

/// One fault of one victim.
struct Cell {
    victim: &'static str,
    fault: &'static str,
    /// Begins it, lets it last so long, and ends it.
    act: fn(&mut Bed, Duration) -> Result<(), String>,
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
            Ok(())
        },
    },
    Cell { victim: "node", fault: "descriptors", act: |bed, time| bed.exhaust_descriptors(time) },
    Cell { victim: "node", fault: "disk full", act: |bed, time| bed.fill_disk(time) },
];

const CONTROL_CELLS: &[Cell] = &[
    Cell {
        victim: "control",
        fault: "SIGKILL",
        act: |bed, time| {
            bed.cluster.control.signal(Signal::KILL);
            bed.cluster.control.wait_for_end(DEADLINE);
            thread::sleep(time);
            bed.cluster.restart_control();
            Ok(())
        },
    },
    Cell {
        victim: "control",
        fault: "SIGSTOP",
        act: |bed, time| {
            bed.cluster.control.signal(Signal::STOP);
            thread::sleep(time);
            bed.cluster.control.signal(Signal::CONT);
            Ok(())
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
            Ok(())
        },
    },
];

const LINK_CELLS: &[Cell] = &[
    Cell {
        victim: "links",
        fault: "15 % of packets 5 to 15 ms late",
        act: |bed, time| bed.all_links(&Weather { lost: 0.0, ..Weather::STORM }, time),
    },
    Cell {
        victim: "links",
        fault: "1 % of packets lost",
        act: |bed, time| bed.all_links(&Weather { lost: 0.01, ..Weather::GOOD }, time),
    },
    Cell {
        victim: "links",
        fault: "5 % of packets lost",
        act: |bed, time| bed.all_links(&Weather { lost: 0.05, ..Weather::GOOD }, time),
    },
    Cell {
        victim: "link",
        fault: "cut one way",
        act: |bed, time| {
            bed.network.set(0, VICTIM, &Weather::NONE);
            thread::sleep(time);
            bed.network.set(0, VICTIM, &Weather::GOOD);
            Ok(())
        },
    },
    Cell {
        victim: "link",
        fault: "cut the other way",
        act: |bed, time| {
            bed.network.set(VICTIM, 0, &Weather::NONE);
            thread::sleep(time);
            bed.network.set(VICTIM, 0, &Weather::GOOD);
            Ok(())
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
            Ok(())
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
            Ok(())
        },
    },
];

const CLIENT_CELLS: &[Cell] = &[
    Cell {
        victim: "client link",
        fault: "reset each 1 s",
        act: |bed, time| bed.reset_clients(time),
    },
    Cell { victim: "client link", fault: "cut both ways", act: |bed, time| bed.hold_clients(time) },
    Cell { victim: "client", fault: "SIGKILL", act: |bed, time| bed.stray(Signal::KILL, time) },
    Cell { victim: "client", fault: "SIGSTOP", act: |bed, time| bed.stray(Signal::STOP, time) },
];

struct Bed {
    // Its nodes end before their places do.
    cluster: Cluster,
    network: Network,
    login: Login,
}

fn matrix(report: &mut Report, length: Length, cells: &[Cell]) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(1), Duration::from_secs(10));
    let network = Network::new(NODES).map_err(NotHere)?;
    let cluster = cluster_on(&network, NODES, 2, Some((DISK, DISK_KILOBYTES)));
    let login = cluster.create_cache("shop", "dev");
    let mut bed = Bed { cluster, network, login };
    for Cell { victim, fault, act } in cells {
        let name = format!("{victim}: {fault}");
        bed.wait_until_whole();
        keys::set(&mut bed.cluster.connect(0, &bed.login), 0..KEYS);
        // A victim's own clients only wait with it; the others tell what it does to the rest.
        let proxies = [0, 2].map(|node| bed.cluster.nodes[node].addr);
        let fresh = Freshness::start(&proxies, &bed.login, 2);
        let done = act(&mut bed, time);
        let healed = bed.wait_until_whole();
        fresh.wait_for_rounds(1);
        let seen = fresh.finish();
        if let Err(why) = done {
            report.say(&format!("{name}: not done here: {why}"));
            continue;
        }
        let all = seen.reads + seen.writes;
        let failed = 100.0 * seen.failures as f64 / all as f64;
        let stale = seen.stale.len();
        report.law(&name, format!("{stale} stale of {all}, {failed:.2} % failed"), stale == 0);
        report.figure(&format!("{name}: all is well after"), Amount::s(healed), HEALED);
    }
    Ok(())
}

impl Bed {
    /// Until every key is answered through every proxy; how long that took.
    #[track_caller]
    fn wait_until_whole(&self) -> Duration {
        let began = Instant::now();
        for node in 0..NODES {
            eventually("every key is answered", SETTLED_TIME_MAX, || {
                let mut client = self.cluster.connect(node, &self.login);
                let found = keys::get(&mut client, 0..KEYS).ok()?;
                (found.failures == 0).then_some(())
            });
        }
        let took = began.elapsed();
        self.cluster.wait_until_settled(NODES);
        took
    }

    fn end_node(&mut self, signal: Signal, time: Duration) -> Result<(), String> {
        let process = &mut self.cluster.nodes[VICTIM].process;
        process.signal(signal);
        process.wait_for_end(SETTLED_TIME_MAX);
        thread::sleep(time);
        self.cluster.restart(VICTIM);
        Ok(())
    }

    fn stop_node(&self, seconds: u64) -> Result<(), String> {
        let process = &self.cluster.nodes[VICTIM].process;
        process.signal(Signal::STOP);
        thread::sleep(Duration::from_secs(seconds));
        process.signal(Signal::CONT);
        Ok(())
    }

    /// Lets the victim have no more descriptors than it has, while strangers come.
    fn exhaust_descriptors(&self, time: Duration) -> Result<(), String> {
        let process = &self.cluster.nodes[VICTIM].process;
        let limit = |count: &str| {
            let pid = process.id().to_string();
            let status = Command::new("prlimit").args(["--pid", &pid, count]).status();
            let is_set = status.is_ok_and(|status| status.success());
            if is_set { Ok(()) } else { Err("prlimit is not permitted".to_owned()) }
        };
        let before = descriptor_limits(process.id())?;
        limit(&format!("--nofile={}:{}", process.descriptors() + 8, before.1))?;
        let addr = self.cluster.nodes[VICTIM].addr;
        let strangers: Vec<Connection> =
            (0..64).filter_map(|_| Connection::try_open(addr).ok()).collect();
        thread::sleep(time);
        drop(strangers);
        limit(&format!("--nofile={}:{}", before.0, before.1))
    }

    /// Lets nothing more fit, while there are things to be written.
    fn fill_disk(&self, time: Duration) -> Result<(), String> {
        let filling = self.cluster.own_folder(DISK).join("filling");
        let full = std::fs::write(&filling, vec![1; DISK_KILOBYTES as usize * 1024]);
        if !full.is_err_and(|error| error.kind() == ErrorKind::StorageFull) {
            return Err("the disk does not get full".to_owned());
        }
        for _ in 0..3 {
            let made = Login::told(&self.cluster.run(&["credential", "add", "shop"]));
            drop(self.cluster.connect(DISK, &made));
        }
        thread::sleep(time);
        std::fs::remove_file(filling).map_err(|error| error.to_string())
    }

    fn all_links(&self, weather: &Weather, time: Duration) -> Result<(), String> {
        self.network.set_all(weather);
        thread::sleep(time);
        self.network.set_all(&Weather::GOOD);
        Ok(())
    }

    fn reset_clients(&self, time: Duration) -> Result<(), String> {
        self.beside(time, |relay| {
            relay.reset();
            thread::sleep(Duration::from_secs(1));
        })
    }

    fn hold_clients(&self, time: Duration) -> Result<(), String> {
        self.beside(time, |relay| {
            relay.hold();
            thread::sleep(Duration::from_secs(1));
            relay.release();
            thread::sleep(Duration::from_secs(1));
        })
    }

    /// More clients, whose way to the victim is disturbed again and again. They must not see anything
    /// old either.
    fn beside(&self, time: Duration, disturb: impl Fn(&Relay)) -> Result<(), String> {
        let relay = Relay::to(self.cluster.nodes[VICTIM].addr);
        let fresh = Freshness::start(&[relay.addr, self.cluster.nodes[0].addr], &self.login, 1);
        let end = Instant::now() + time;
        while Instant::now() < end {
            disturb(&relay);
        }
        relay.release();
        fresh.finish();
        Ok(())
    }

    /// A client in the midst of many requests ends, or stands and reads nothing any more.
    fn stray(&self, signal: Signal, time: Duration) -> Result<(), String> {
        let Login { username, password } = &self.login;
        let client = Command::new(program())
            .args(["bench", "--no-fill", "--connections", "50", "--in-flight", "64"])
            .args(["--value-size", "10000", "--duration", "10m"])
            .env("MEMCACHIER_SERVERS", self.cluster.nodes[0].addr.to_string())
            .envs([("MEMCACHIER_USERNAME", username), ("MEMCACHIER_PASSWORD", password)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut client = client.map_err(|error| error.to_string())?;
        thread::sleep(Duration::from_secs(1));
        let pid = rustix::process::Pid::from_child(&client);
        let sent = rustix::process::kill_process(pid, signal);
        thread::sleep(time);
        drop(client.kill());
        drop(client.wait());
        sent.map_err(|error| error.to_string())
    }
}

/// Soft and hard (proc(5), `/proc/PID/limits`).
fn descriptor_limits(process: u32) -> Result<(String, String), String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/limits"))
        .map_err(|error| error.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut words = line.unwrap_or_default().split_whitespace().map(str::to_owned);
    words.next().zip(words.next()).ok_or_else(|| "no limit is listed".to_owned())
}
