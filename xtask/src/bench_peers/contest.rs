//! Starts the servers, puts load on them in turn, and reads what it cost them.

use super::Effort;
use super::outcome::{Outcome, Sample, Side, Spread};
use super::peer::Peer;
use super::relay::Relay;
use super::rows::{Against, IDLE_CONNECTIONS, Measure, Row};
use bench::{BenchArgs, BenchError, Moment, Report, run_observed};
use clap::Parser;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};
use testbed::larder::Larder;
use testbed::memcached::Memcached;
use testbed::process::Process;

const SERVER_CPU: usize = 0;
pub(super) const GENERATOR_CPU: usize = 1;

/// Where and against what the figures were taken.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Setting {
    pub(super) memcached: String,
    pub(super) processor: String,
    pub(super) kernel: String,
    pub(super) rounds: u8,
    pub(super) seconds_per_run: f64,
    pub(super) is_quick: bool,
    /// Programs that wanted to run in the minute before, beside ours.
    pub(super) load_before: f64,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "memcached {} with one thread; {}, Linux {}; {} rounds of {} s, server on core \
             {SERVER_CPU}, generator on core {GENERATOR_CPU}",
            self.memcached, self.processor, self.kernel, self.rounds, self.seconds_per_run
        )
    }
}

/// Holds one row after the other; keeps the servers as long as rows want the same items.
pub(super) struct Contest {
    effort: Effort,
    setting: Setting,
    pair: Option<Pair>,
    /// Kept from the first row that wants it to the last.
    relay: Option<Relay>,
}

/// Both servers, with the same items in them.
struct Pair {
    larder: Larder,
    username: String,
    password: String,
    memcached: Peer,
    /// The same with TLS, and with the certificate that Larder made for itself.
    memcached_tls: Peer,
    /// Ordinary items; with few, every load fills in its own.
    items: u64,
    is_filled: bool,
}

/// What one load cost one server.
struct Cost {
    report: Report,
    cpu: Duration,
}

/// The load's words, as on the command line of `larder bench`.
#[derive(Parser)]
pub(super) struct Load {
    #[command(flatten)]
    pub(super) bench: BenchArgs,
}

impl Contest {
    pub(super) fn new(effort: Effort) -> Result<Contest, Box<dyn Error>> {
        if thread::available_parallelism()?.get() < 2 {
            return Err("one core for the server and one for the generator are needed".into());
        }
        let (major, minor, patch) = Memcached::version();
        let setting = Setting {
            memcached: format!("{major}.{minor}.{patch}"),
            processor: processor(),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            rounds: effort.rounds,
            seconds_per_run: effort.duration.as_secs_f64(),
            is_quick: effort.quick,
            load_before: load_average(),
        };
        Ok(Contest { effort, setting, pair: None, relay: None })
    }

    pub(super) fn setting(&self) -> &Setting {
        &self.setting
    }

    pub(super) fn hold(&mut self, row: &'static Row) -> Result<Outcome, Box<dyn Error>> {
        let effort = self.effort;
        match &row.measure {
            Measure::Cpu { load, against, at_most, items } => {
                let pair = self.pair(*items)?;
                pair.fill_many(load)?;
                pair.cpu(row, load, *against, *at_most, effort)
            }
            Measure::Relayed { load, compared, at_most } => {
                if self.relay.is_none() {
                    self.relay = Some(Relay::start()?);
                }
                let relay = self.relay.as_ref().expect("it was made just above");
                relay.hold(row, load, *compared, *at_most, effort)
            }
            Measure::Logins { load, at_least } => {
                self.pair(0)?.logins(row, load, *at_least, effort)
            }
            Measure::IdleBytes { load, at_most } => {
                // A fresh pair: memory that an earlier row left free would hide the cost.
                self.pair = None;
                let outcome = self.pair(0)?.idle_bytes(row, load, *at_most);
                self.pair = None;
                outcome
            }
            Measure::StartSeconds { at_most } => {
                let seconds =
                    (0..effort.rounds).map(|_| start_seconds()).collect::<Result<Vec<f64>, _>>()?;
                Ok(Outcome::at_most(row, Spread::of(&seconds), None, *at_most, "s"))
            }
            Measure::OverheadBytes { load, key_and_value_bytes, at_most, items } => {
                self.pair = None;
                self.pair(*items)?.overhead(row, load, *key_and_value_bytes, *at_most)
            }
        }
    }

    /// The servers for so many items; 0 takes any.
    fn pair(&mut self, items: u64) -> Result<&mut Pair, Box<dyn Error>> {
        let fits = self.pair.as_ref().is_some_and(|pair| items == 0 || pair.items == items);
        if !fits {
            self.pair = None;
        }
        if self.pair.is_none() {
            self.pair = Some(Pair::start(items)?);
        }
        Ok(self.pair.as_mut().expect("it was made just above"))
    }
}

/// The memory that memcached may use, and that our cache is promised: one of our plans.
fn memory_mib(items: u64) -> u64 {
    if items > ITEMS_FILLED_EACH_TIME { 5000 } else { 1000 }
}

/// `larder up` gets twice the memory of the measured cache: a plan promises room for keys and
/// values, and the overhead of small items, the development cache and lists of free memory come on
/// top. No load here stores more than a fraction of either.
const LARDER_MEMORY_FACTOR: u64 = 2;

impl Pair {
    fn start(items: u64) -> Result<Pair, Box<dyn Error>> {
        let mib = memory_mib(items);
        let (larder, memcached, memcached_tls) = on_server_cpu(|| {
            let larder = Larder::options()
                .argument("--threads")
                .argument("1")
                .argument("--memory")
                .argument(&format!("{}MiB", mib * LARDER_MEMORY_FACTOR))
                .start();
            let memcached = Peer::start(mib, None);
            let memcached_tls = Peer::start(mib, larder.tls_ca.parent());
            (larder, memcached, memcached_tls)
        })?;
        larder.run(&["cache", "create", CACHE, "--plan", &mib.to_string()]);
        let made = larder.run(&["credential", "add", CACHE]);
        let word = |name: &str| {
            made[name].as_str().map(str::to_owned).ok_or(format!("a credential has no {name}"))
        };
        let (username, password) = (word("username")?, word("password")?);
        larder.run(&["credential", "allow", &username, "write"]);
        Ok(Pair { larder, username, password, memcached, memcached_tls, items, is_filled: false })
    }

    /// The process that answers such a load.
    fn process(&self, side: Side, words: &str) -> &Process {
        match side {
            Side::Larder => &self.larder.process,
            Side::Memcached if wants_tls(words) => &self.memcached_tls.process,
            Side::Memcached => &self.memcached.process,
        }
    }

    /// Stores many items in both servers, once.
    fn fill_many(&mut self, load: &str) -> Result<(), Box<dyn Error>> {
        if self.is_filled || self.items <= ITEMS_FILLED_EACH_TIME {
            return Ok(());
        }
        for side in [Side::Larder, Side::Memcached] {
            self.fill(side, load)?;
        }
        self.is_filled = true;
        Ok(())
    }

    fn fill(&self, side: Side, load: &str) -> Result<(), Box<dyn Error>> {
        let words = format!("{load} --keys {} --requests 1 -c 50", self.items);
        self.load(side, &words, |_| ()).map(drop)
    }

    fn cpu(
        &self,
        row: &'static Row,
        load: &str,
        against: Against,
        at_most: f64,
        effort: Effort,
    ) -> Result<Outcome, Box<dyn Error>> {
        let fill = if self.is_filled { "--no-fill" } else { "" };
        let words = format!(
            "{load} {fill} --keys {} --distribution uniform --warm-up {}ms --duration {}ms",
            self.items,
            effort.warm_up.as_millis(),
            effort.duration.as_millis()
        );
        let (their_side, their_words) = match against {
            Against::Memcached => (Side::Memcached, words.clone()),
            // A flag may stand there only once, so the other dialect must go.
            Against::OurText => {
                let plain = words.replace("--dialect binary", "").replace("--dialect meta", "");
                (Side::Larder, plain)
            }
        };
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for round in 0..effort.rounds {
            // Whoever comes second may find a warmer machine: they take turns at it.
            if round % 2 == 0 {
                ours.push(self.sample(Side::Larder, &words)?);
                theirs.push(self.sample(their_side, &their_words)?);
            } else {
                theirs.push(self.sample(their_side, &their_words)?);
                ours.push(self.sample(Side::Larder, &words)?);
            }
        }
        Ok(Outcome::ratio(row, ours, theirs, at_most))
    }

    fn sample(&self, side: Side, words: &str) -> Result<Sample, Box<dyn Error>> {
        let Cost { report, cpu } = self.cost(side, words)?;
        if !report.is_clean() {
            return Err(format!("{side} did not serve {words}:\n{report}").into());
        }
        if report.misses > 0 {
            return Err(format!("{side} lost items that fit: {report}").into());
        }
        Ok(Sample {
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / report.requests as f64,
            requests_per_second: report.requests_per_second,
            p50_us: report.latency_us.p50,
            p99_us: report.latency_us.p99,
            generator_percent: report.generator.utilisation_percent,
        })
    }

    fn cost(&self, side: Side, words: &str) -> Result<Cost, Box<dyn Error>> {
        let process = self.process(side, words);
        let mut before = Duration::ZERO;
        let mut after = Duration::ZERO;
        let report = self.load(side, words, |moment| match moment {
            Moment::Connected => (),
            Moment::Measuring => before = process.cpu_time(),
            Moment::Measured => after = process.cpu_time(),
        })?;
        Ok(Cost { report, cpu: after.saturating_sub(before) })
    }

    fn logins(
        &self,
        row: &'static Row,
        load: &str,
        at_least: f64,
        effort: Effort,
    ) -> Result<Outcome, Box<dyn Error>> {
        let words = format!("{load} --duration {}ms", effort.duration.as_millis());
        let mut per_second = Vec::new();
        for _ in 0..effort.rounds {
            let Cost { report, cpu } = self.cost(Side::Larder, &words)?;
            per_second.push(report.requests as f64 / cpu.as_secs_f64());
        }
        Ok(Outcome::at_least(row, Spread::of(&per_second), at_least, "per s"))
    }

    fn idle_bytes(
        &self,
        row: &'static Row,
        load: &str,
        at_most: f64,
    ) -> Result<Outcome, Box<dyn Error>> {
        let ours = self.idle_bytes_of(Side::Larder, load)?;
        let theirs = self.idle_bytes_of(Side::Memcached, load)?;
        Ok(Outcome::at_most(row, Spread::one(ours), Some(theirs), at_most, "B"))
    }

    fn idle_bytes_of(&self, side: Side, load: &str) -> Result<f64, Box<dyn Error>> {
        let process = self.process(side, load);
        let words = |count: u64| format!("{load} -c 0 --idle {count} --duration 100ms");
        // A first visit takes what is allocated once, whatever the number of connections.
        self.load(side, &words(10), |_| ())?;
        let before = process.memory_bytes();
        let mut during = before;
        let report = self.load(side, &words(IDLE_CONNECTIONS), |moment| {
            if moment == Moment::Measured {
                during = process.memory_bytes();
            }
        })?;
        if report.connections_lost > 0 {
            return Err(format!("{side} closed silent connections: {report}").into());
        }
        Ok(during.saturating_sub(before) as f64 / IDLE_CONNECTIONS as f64)
    }

    fn overhead(
        &mut self,
        row: &'static Row,
        load: &str,
        key_and_value_bytes: u64,
        at_most: f64,
    ) -> Result<Outcome, Box<dyn Error>> {
        let overhead = |side| -> Result<f64, Box<dyn Error>> {
            let process = self.process(side, load);
            let before = process.memory_bytes();
            self.fill(side, load)?;
            let taken = process.memory_bytes().saturating_sub(before);
            Ok(taken as f64 / self.items as f64 - key_and_value_bytes as f64)
        };
        let ours = overhead(Side::Larder)?;
        let theirs = overhead(Side::Memcached)?;
        self.is_filled = true;
        Ok(Outcome::at_most(row, Spread::one(ours), Some(theirs), at_most, "B"))
    }

    /// Puts a load on one of the servers; `words` as on the command line of `larder bench`.
    fn load(
        &self,
        side: Side,
        words: &str,
        mut observe: impl FnMut(Moment),
    ) -> Result<Report, Box<dyn Error>> {
        let (address, auth) = match (side, wants_tls(words)) {
            (Side::Larder, false) => (self.larder.addr, "auto"),
            (Side::Larder, true) => (self.larder.tls_addr, "auto"),
            // Its authentication is per connection as well, and costs a request nothing.
            (Side::Memcached, false) => (self.memcached.addr, "none"),
            (Side::Memcached, true) => (self.memcached_tls.addr, "none"),
        };
        let authority = match wants_tls(words) {
            true => format!("--ca {}", self.larder.tls_ca.display()),
            false => String::new(),
        };
        let fixed = format!(
            "load --servers {address} --auth {auth} --username {} --password {} --pin \
             {GENERATOR_CPU} {authority}",
            self.username, self.password
        );
        let all = fixed.split_whitespace().chain(words.split_whitespace());
        let load = Load::try_parse_from(all)?;
        run_observed(&load.bench, &mut observe).map_err(|source| {
            Box::from(Unserved { side, log: self.process(side, words).log(), source })
        })
    }
}

/// A load that a server did not bear.
#[derive(Debug, thiserror::Error)]
#[error("{side} did not serve to the end; it wrote:\n{log}")]
struct Unserved {
    side: Side,
    log: String,
    source: BenchError,
}

fn wants_tls(words: &str) -> bool {
    words.split_whitespace().any(|word| word == "--tls")
}

/// The time from the start of `larder up` until it has served its first request, built and without
/// any state.
fn start_seconds() -> Result<f64, Box<dyn Error>> {
    let begin = Instant::now();
    let larder = Larder::options().argument("--threads").argument("1").start();
    let words = format!(
        "load --servers {} --username {} --password {} -c 1 -n 1 --keys 1",
        larder.addr, larder.login.username, larder.login.password
    );
    run_observed(&Load::try_parse_from(words.split_whitespace())?.bench, &mut |_| ())?;
    Ok(begin.elapsed().as_secs_f64())
}

const CACHE: &str = "peers";

/// Up to so many items each load stores its own, which takes a moment; more are stored once.
const ITEMS_FILLED_EACH_TIME: u64 = 1_000_000;

/// Starts what `start` starts on the servers' core: a child inherits the place of its parent.
pub(super) fn on_server_cpu<T: Send>(
    start: impl FnOnce() -> T + Send,
) -> Result<T, Box<dyn Error>> {
    let mut cpus = CpuSet::new();
    cpus.set(SERVER_CPU);
    thread::scope(|scope| {
        let starter = scope.spawn(|| sched_setaffinity(None, &cpus).map(|()| start()));
        let started = starter.join().map_err(|_| "a server did not start; its log is above")?;
        Ok(started?)
    })
}

/// How many programs wanted to run, over the last minute; 0 if nobody says.
fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// What the processor calls itself.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("an unknown processor", |(_, name)| name.trim()).to_owned()
}
