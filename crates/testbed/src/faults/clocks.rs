//! Wall clocks that jump (F31): by an hour, forth and back, of one node and then of control. Nothing
//! expires that should not, nothing stale is read, and all stay together, also when they have to meet
//! anew under another clock.
//!
//! A process cannot be given a wall clock of its own by the kernel (time_namespaces(7) have none), so
//! libfaketime stands between it and the C library.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere};
use crate::connection::Connection;
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::{Cluster, SETTLED_TIME_MAX};
use crate::freshness::Freshness;
use crate::larder::DataDir;

const NODES: usize = 3;
/// The node whose clock jumps.
const VICTIM: usize = 1;
/// Items that shall live for ten minutes, as said by how long and by until when.
const KEYS: u64 = 200;
const LIFE_SECONDS: u64 = 600;
/// Half of a step, in seconds: what is nearer than that to where a clock should be is there.
const STEP_SEEN: u64 = 1_800;
/// As far as a clock is that was set to the wrong zone, or to summer.
const STEPS: [(&str, i64); 3] =
    [("an hour on", 3_600), ("an hour back", -3_600), ("right again", 0)];

pub(super) const CLOCKS: Experiment = Experiment {
    name: "clock-steps",
    goals: "F31, 6.3",
    what: "the wall clock of a node, and of control, is an hour too late and an hour too early",
    is_quick: true,
    run: clocks,
};

fn clocks(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::ZERO, Duration::from_secs(10));
    let node_clock = WallClock::new()?;
    let control_clock = WallClock::new()?;
    let settings = [("hold_down_seconds", "3600")];
    let mut cluster =
        Cluster::start_control_under(&control_clock.under(), "127.0.0.1:0", 1, &settings);
    for node in 0..NODES {
        let under = if node == VICTIM { node_clock.under() } else { Vec::new() };
        cluster.add_node_under(&under, &format!("n{node}"), &[]);
    }
    cluster.wait_until_settled(NODES);
    let login = cluster.create_cache("shop", "dev");
    let proxies = [0, VICTIM].map(|node| cluster.nodes[node].addr);
    let mut clients = [0, VICTIM].map(|node| cluster.connect(node, &login));
    clients.iter_mut().for_each(|client| client.set_patience(DEADLINE));
    let fresh = Freshness::start(&proxies, &login, 1);
    let until = unix_now() + LIFE_SECONDS;
    for number in 0..KEYS {
        set(&mut clients[0], &format!("for-{number}"), LIFE_SECONDS);
        set(&mut clients[0], &format!("until-{number}"), until);
    }

    let victims = [("node", &node_clock), ("control", &control_clock)];
    for (whose, clock) in &victims[..length.pick(1, 2)] {
        for (words, seconds) in STEPS {
            clock.set(seconds);
            let client = &mut clients[0];
            eventually("the clock has jumped", DEADLINE, || {
                let is_there = match *whose {
                    "node" => has_jumped(client, seconds),
                    _ => control_has_jumped(&cluster, seconds),
                };
                is_there.then_some(())
            });
            thread::sleep(time);
            fresh.wait_for_rounds(1);
            let gone: u64 = clients.iter_mut().map(gone).sum();
            report.never(&format!("{whose}'s clock {words}: expired by it"), gone);
            if seconds != 0 && length == Length::Full {
                // Certificates are looked at when they meet.
                cluster.restart_control();
            }
            let began = std::time::Instant::now();
            cluster.wait_until_settled(NODES);
            let what = format!("{whose}'s clock {words}: all are together after");
            report.figure(&what, Amount::s(began.elapsed()), Bar::AtMost(10.0));
        }
    }
    let seen = fresh.finish();
    report.never("stale reads", seen.stale.len() as u64);
    let all = seen.reads + seen.writes;
    report.figure("reads and writes", Amount::count(all), Bar::None);
    let failed = seen.failures as f64 / all as f64;
    report.figure("of them failed", Amount::percent(failed), Bar::None);
    Ok(())
}

/// Whether the node's clock is wrong by so much: told by items that live until half an hour from now, and
/// until half an hour ago, of which the node's backend has some.
fn has_jumped(client: &mut Connection, by: i64) -> bool {
    /// Of three nodes one has none of so many once in ten thousand million times.
    const KEYS: u64 = 60;
    let mut found = |until: u64| {
        let is_found = |number: &u64| {
            let name = format!("clock-{number}");
            set(client, &name, until);
            !is_gone(client, &name)
        };
        (0..KEYS).filter(is_found).count() as u64
    };
    let (later, earlier) = (found(unix_now() + STEP_SEEN), found(unix_now() - STEP_SEEN));
    match by.signum() {
        1 => later < KEYS,
        -1 => 0 < earlier,
        _ => (later, earlier) == (KEYS, 0),
    }
}

/// The same of control's: told by what it says of when a credential was made.
fn control_has_jumped(cluster: &Cluster, by: i64) -> bool {
    let made = cluster.run(&["credential", "add", "shop"]);
    let at = made["created_at"].as_u64().expect("a time in seconds");
    let username = made["username"].as_str().expect("a word");
    cluster.run(&["credential", "remove", username]);
    at.abs_diff(unix_now().saturating_add_signed(by)) < STEP_SEEN
}

fn set(client: &mut Connection, key: &str, exptime: u64) {
    eventually("a key is stored", SETTLED_TIME_MAX, || {
        client.send(format!("set {key} 0 {exptime} 5\r\nvalue\r\n").as_bytes());
        (client.line() == "STORED\r\n").then_some(())
    });
}

/// How many keys are not there any more.
fn gone(client: &mut Connection) -> u64 {
    let names = (0..KEYS).flat_map(|number| [format!("for-{number}"), format!("until-{number}")]);
    names.filter(|name| is_gone(client, name)).count() as u64
}

fn is_gone(client: &mut Connection, name: &str) -> bool {
    // A busy machine may let one time out, which is no loss.
    eventually("a key is answered", SETTLED_TIME_MAX, || {
        client.send(format!("get {name}\r\n").as_bytes());
        let line = client.line();
        if line.starts_with("VALUE") {
            client.expect(b"value\r\nEND\r\n");
            return Some(false);
        }
        (line == "END\r\n").then_some(true)
    })
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("it is after 1970").as_secs()
}

/// The wall clock of one process, as far as it is wrong.
struct WallClock {
    library: PathBuf,
    dir: DataDir,
}

impl WallClock {
    fn new() -> Result<WallClock, NotHere> {
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok);
        let mut found = folders.map(|it| it.path().join("faketime/libfaketimeMT.so.1"));
        let library = found.find(|it| it.exists());
        let library = library.ok_or_else(|| NotHere("libfaketime is not installed".to_owned()))?;
        let clock = WallClock { library, dir: DataDir::new() };
        clock.set(0);
        Ok(clock)
    }

    /// Words before a program's name that give it this clock, and leave it the time since it began.
    fn under(&self) -> Vec<String> {
        let words = [
            "env".to_owned(),
            format!("LD_PRELOAD={}", self.library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file().display()),
            // It looks into the file once in a second, and not each time that somebody asks.
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        words.to_vec()
    }

    /// From within a second on it is wrong by so much.
    fn set(&self, seconds: i64) {
        // Whole or not at all, because it may be read at any moment.
        let new = self.dir.path().join("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("the temporary folder is writable");
        std::fs::rename(new, self.file()).expect("the temporary folder is writable");
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }
}
