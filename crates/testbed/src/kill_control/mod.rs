//! Kills the control plane with SIGKILL, again and again, while clients change things through its API;
//! and looks afterwards whether what it said was so.
//!
//! Each client works on caches of its own, so it knows what must be there. A request that got no answer
//! is repeated after the restart, under the same idempotency key, until it has one. After each restart
//! the laws are looked at:
//!
//! 1. *Nothing acknowledged is lost*: what the API lists of each client's caches is what that client did.
//! 2. *Nothing is done twice*: the log has one change for each request, however often it was sent.
//! 3. *No gap, no other order*: revisions are 1, 2, 3, …, and a change's answer told its revision.

pub mod api;
mod client;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use self::api::Api;
use self::client::Client;
use crate::differential::random::Random;
use crate::eventually::eventually;
use crate::larder::program;
use crate::postgres::Postgres;
use crate::process::Process;

/// What to do, and how often.
#[derive(Debug, Clone)]
pub struct Plan {
    pub kills: u32,
    pub seed: u64,
    /// Clients that change things at the same time.
    pub clients: usize,
    /// A PostgreSQL server's URL, to keep the rows there; else SQLite.
    pub postgres: Option<String>,
}

/// How long clients work between a start and the kill: up to so much.
const WORK_MAX: Duration = Duration::from_millis(120);
/// One kill in so many comes while the process is starting.
const EARLY_KILL_EVERY: usize = 8;
/// Such a kill comes at most so long after the process was begun.
const START_MAX: Duration = Duration::from_millis(150);
/// Lines of the audit log that are asked for at one time.
const PAGE: usize = 1_000;

/// What was done and seen.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub kills: u32,
    /// Of these, while the process was starting.
    pub early_kills: u32,
    /// Requests that were answered, each counted once.
    pub changes: u64,
    /// Requests that were sent more than once, because a kill took their answer.
    pub repeated: u64,
    /// Of these, requests that had been carried out before the kill, so that only the answer was
    /// missing.
    pub already_done: u64,
    pub revision: u64,
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} kills ({} while starting) in {:.0?}: {} changes acknowledged, {} asked for again, {} \
             of which had been done; newest revision {}; nothing lost, doubled or reordered",
            self.kills,
            self.early_kills,
            self.took,
            self.changes,
            self.repeated,
            self.already_done,
            self.revision
        )
    }
}

/// Kills as often as the plan says.
///
/// # Panics
///
/// When a law is broken, with the seed and what was seen.
pub fn run(plan: &Plan) -> Report {
    let begun = Instant::now();
    let dir = TempDir::new().expect("the temporary folder is writable");
    let mut random = Random::new(plan.seed);
    let mut clients: Vec<Client> =
        (0..plan.clients).map(|number| Client::new(number, plan.seed)).collect();
    let mut report = Report::default();
    let mut log = Log::default();
    while report.kills < plan.kills {
        let mut process = start(dir.path(), plan);
        if random.once_in(EARLY_KILL_EVERY) {
            thread::sleep(up_to(&mut random, START_MAX));
            kill(process);
            report.kills += 1;
            report.early_kills += 1;
            continue;
        }
        let url = process.wait_for_line("LARDER_CONTROL=");
        let api = Api::new(&url, dir.path());
        settle(&mut clients, &api);
        log.read(&api, plan.seed);
        check(&mut clients, &api, &log, plan.seed);
        let work = up_to(&mut random, WORK_MAX);
        thread::scope(|threads| {
            for client in &mut clients {
                let api = &api;
                // Until the process is gone.
                threads.spawn(move || client.work(api));
            }
            thread::sleep(work);
            kill(process);
        });
        report.kills += 1;
    }
    let mut process = start(dir.path(), plan);
    let api = Api::new(&process.wait_for_line("LARDER_CONTROL="), dir.path());
    settle(&mut clients, &api);
    log.read(&api, plan.seed);
    check(&mut clients, &api, &log, plan.seed);
    report.count(&clients, &log, begun);
    report
}

impl Report {
    fn count(&mut self, clients: &[Client], log: &Log, begun: Instant) {
        self.changes = clients.iter().map(|client| client.changes.len() as u64).sum();
        self.repeated = clients.iter().map(|client| client.repeated).sum();
        self.already_done = clients.iter().map(|client| client.already_done).sum();
        self.revision = log.revision;
        self.took = begun.elapsed();
    }
}

/// Kills the database instead of the control plane, which is never started again: once for each of these
/// times, for which the server stays away.
///
/// # Panics
///
/// When a law is broken, with the seed and what was seen.
pub fn kill_database(seed: u64, clients: usize, away: &[Duration]) -> Report {
    let begun = Instant::now();
    let mut postgres = Postgres::start();
    let dir = TempDir::new().expect("the temporary folder is writable");
    let plan = Plan { kills: 0, seed, clients, postgres: Some(postgres.url.clone()) };
    let mut random = Random::new(seed);
    let mut clients: Vec<Client> = (0..clients).map(|number| Client::new(number, seed)).collect();
    let (mut report, mut log) = (Report::default(), Log::default());
    let process = start(dir.path(), &plan);
    let answers = || {
        eventually("the control plane answers", ANSWERS_AGAIN_MAX, || Api::announced(dir.path()))
    };
    for &away in away {
        let api = answers();
        let work = up_to(&mut random, WORK_MAX);
        thread::scope(|threads| {
            for client in &mut clients {
                let api = &api;
                // Until the database is gone.
                threads.spawn(move || client.work(api));
            }
            thread::sleep(work);
            postgres.kill();
        });
        thread::sleep(away);
        postgres.start_again();
        let api = answers();
        settle(&mut clients, &api);
        log.read(&api, seed);
        check(&mut clients, &api, &log, seed);
        report.kills += 1;
    }
    drop(process);
    report.count(&clients, &log, begun);
    report
}

/// After the database has come back: it recovers, leases are looked at, a control plane starts anew.
const ANSWERS_AGAIN_MAX: Duration = Duration::from_secs(30);

fn start(dir: &Path, plan: &Plan) -> Process {
    let mut command = Command::new(program());
    match &plan.postgres {
        None => {
            command.args(["up", "--listen", "127.0.0.1:0", "--threads", "1"]);
            command.args(["--control", "127.0.0.1:0"]);
        }
        Some(url) => {
            command.args(["control", "--listen", "127.0.0.1:0", "--nodes-listen", "127.0.0.1:0"]);
            command.args(["--postgres", url]);
        }
    }
    command.arg("--data").arg(PathBuf::from(dir));
    Process::start(&mut command)
}

fn kill(mut process: Process) {
    process.signal(Signal::KILL);
    process.wait_for_end(Duration::from_secs(20));
}

fn up_to(random: &mut Random, most: Duration) -> Duration {
    Duration::from_micros(random.word() % u64::try_from(most.as_micros()).expect("a short time"))
}

/// Has every client repeat the request that it got no answer to.
fn settle(clients: &mut [Client], api: &Api) {
    for client in clients {
        client.settle(api);
    }
}

/// The audit log as far as it was read: what each change was, by its revision.
#[derive(Default)]
struct Log {
    last_id: u64,
    revision: u64,
    changes: HashMap<u64, (String, String)>,
}

impl Log {
    /// Reads on, and looks at the third law.
    fn read(&mut self, api: &Api, seed: u64) {
        loop {
            let page = api.get(&format!("/v1/audit?after={}&limit={PAGE}", self.last_id));
            let lines = page["audit"].as_array().expect("a list").clone();
            for line in &lines {
                self.add(line, seed);
            }
            if lines.len() < PAGE {
                break;
            }
        }
        let clusters = api.get("/v1/clusters");
        let newest = clusters["clusters"][0]["revision"].as_u64();
        assert_eq!(newest, Some(self.revision), "seed {seed}: the log ends elsewhere");
    }

    fn add(&mut self, line: &Value, seed: u64) {
        let id = line["id"].as_u64().expect("a number");
        assert!(self.last_id < id, "seed {seed}: line {id} after {}", self.last_id);
        self.last_id = id;
        let Some(revision) = line["revision"].as_u64() else { return };
        assert_eq!(revision, self.revision + 1, "seed {seed}: a gap or a double at {line}");
        self.revision = revision;
        let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        self.changes.insert(revision, (word("action"), word("cache_name")));
    }
}

/// Looks at the first two laws.
fn check(clients: &mut [Client], api: &Api, log: &Log, seed: u64) {
    let mut told = 0;
    for client in clients.iter_mut() {
        client.check(api, seed);
        for change in &client.changes {
            let logged = log.changes.get(&change.revision);
            let expected = (change.action.to_owned(), change.cache.clone());
            assert_eq!(logged, Some(&expected), "seed {seed}: revision {}", change.revision);
        }
        let in_order = client.changes.windows(2).all(|pair| pair[0].revision < pair[1].revision);
        assert!(in_order, "seed {seed}: a client's changes are in another order");
        told += client.changes.len();
    }
    // The first start makes the development cache; all else was asked for by a client.
    let own = log.changes.values().filter(|(_, cache)| cache == "development").count();
    assert_eq!(log.changes.len(), told + own, "seed {seed}: changes that nobody asked for");
    assert!(own <= 1, "seed {seed}: the development cache was made {own} times");
}
