//! Starts the servers, puts load on them in turn, and reads what it cost them.

use super::curves::{self, Curve, Sides};
use super::many_caches::ManyCaches;
use super::outcome::{Of, Outcome, Sample, Side, Spread};
use super::peer::Peer;
use super::relay::Relay;
use super::rows::{Against, Bed, IDLE_CONNECTIONS, ITEMS_FEW, Measure, Row};
use super::{Effort, instructions};
use bench::{BenchArgs, BenchError, Moment, Report, run_observed};
use clap::Parser;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};
use testbed::larder::{self, Larder};
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
            "memcached {} with one thread; {}, Linux {}; {} rounds of {} s (rows without a target: \
             shorter), server on core {SERVER_CPU}, generator on core {GENERATOR_CPU}",
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
    /// Kept from the first row or curve that wants it to the last.
    many: Option<ManyCaches>,
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
    bed: Bed,
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
        Ok(Contest { effort, setting, pair: None, relay: None, many: None })
    }

    pub(super) fn setting(&self) -> &Setting {
        &self.setting
    }

    pub(super) fn hold(&mut self, row: &'static Row) -> Result<Outcome, Box<dyn Error>> {
        self.safely(|contest| contest.measure(row))
    }

    /// What helpers of the tests panic about costs one row, not all; and the next begins with servers
    /// of its own.
    fn safely<T>(
        &mut self,
        act: impl FnOnce(&mut Contest) -> Result<T, Box<dyn Error>>,
    ) -> Result<T, Box<dyn Error>> {
        let done = catch_unwind(AssertUnwindSafe(|| act(self)))
            .unwrap_or_else(|_| Err("it panicked; its words are above".into()));
        if done.is_err() {
            (self.pair, self.relay, self.many) = (None, None, None);
        }
        done
    }

    fn measure(&mut self, row: &'static Row) -> Result<Outcome, Box<dyn Error>> {
        let effort = if row.is_width() { self.effort.shorter() } else { self.effort };
        match &row.measure {
            Measure::Cpu { load, against, at_most, items, bed } => {
                let pair = self.pair(*items, *bed)?;
                pair.fill_many(load)?;
                pair.compare(row, load, *against, Of::Cpu, *at_most, effort)
            }
            Measure::Lone { load, at_most } => {
                let pair = self.pair(ITEMS_FEW, Bed::Spinning)?;
                pair.compare(row, load, Against::Memcached, Of::Median, Some(*at_most), effort)
            }
            Measure::Relayed { load, compared, of, at_most } => {
                if self.relay.is_none() {
                    self.relay = Some(Relay::start(1)?);
                }
                let relay = self.relay.as_ref().expect("it was made just above");
                relay.hold(row, load, *compared, *of, *at_most, effort)
            }
            Measure::Caches { load, caches, at_most } => {
                self.pair = None;
                self.relay = None;
                let many = self.many(*caches)?;
                let (mut ours, mut with_one) = (Vec::new(), Vec::new());
                for _ in 0..effort.rounds {
                    with_one.push(many.sample(1, load, effort)?);
                    ours.push(many.sample(*caches, load, effort)?);
                }
                Ok(Outcome::ratio(row, Of::Cpu, ours, with_one, Some(*at_most)))
            }
            Measure::Instructions { load, requests, at_most } => {
                let load = instructions::Load { words: load, requests: *requests };
                let ours = instructions::of_larder(larder::program(), &[load])?[0];
                let theirs = instructions::of_memcached(&load)?;
                Ok(Outcome::at_most(row, Spread::one(ours), Some(theirs), *at_most, ""))
            }
            Measure::Logins { load, at_least } => {
                self.pair(0, Bed::OneThread)?.logins(row, load, *at_least, effort)
            }
            Measure::IdleBytes { load, at_most } => {
                // A fresh pair: memory that an earlier row left free would hide the cost.
                self.pair = None;
                let outcome = self.pair(0, Bed::OneThread)?.idle_bytes(row, load, *at_most);
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
                self.pair(*items, Bed::OneThread)?.overhead(
                    row,
                    load,
                    *key_and_value_bytes,
                    *at_most,
                )
            }
        }
    }

    /// How the cost of a request changes as there is more of something, one curve after the other;
    /// and what could not be measured.
    #[expect(clippy::print_stderr, reason = "progress")]
    pub(super) fn curves(&mut self) -> (Vec<Curve>, Vec<String>) {
        type Measured = fn(&mut Contest, Effort, &mut Curve) -> Result<(), Box<dyn Error>>;
        // That of items first: of the rows before, the most of them may still be there.
        let wanted: [(Curve, Measured); 4] = [
            (curves::items(), Contest::along_items),
            (curves::connections(), Contest::along_connections),
            (curves::backends(), Contest::along_backends),
            (curves::caches(), Contest::along_caches),
        ];
        self.relay = None;
        let effort = self.effort.shorter();
        let (mut curves, mut failures) = (Vec::new(), Vec::new());
        for (mut curve, measure) in wanted {
            eprintln!("chart: {}, {}", curve.along, curve.title);
            if let Err(error) = self.safely(|contest| measure(contest, effort, &mut curve)) {
                failures.push(format!("{} along {}: {error}", curve.title, curve.along));
            }
            curves.push(curve);
        }
        (curves, failures)
    }

    fn along_items(&mut self, effort: Effort, curve: &mut Curve) -> Result<(), Box<dyn Error>> {
        let words = "--mix get -v 32 -c 50 -i 16";
        let counts = curves::counts(&[100_000, 1_000_000, 10_000_000], effort.quick, 2);
        for &items in counts.iter().rev() {
            let pair = self.pair(items, Bed::OneThread)?;
            pair.fill_many(words)?;
            curve.add(items, pair.rounds(words, effort)?);
        }
        curve.turn_round();
        Ok(())
    }

    fn along_connections(
        &mut self,
        effort: Effort,
        curve: &mut Curve,
    ) -> Result<(), Box<dyn Error>> {
        for &connections in curves::counts(&[50, 200, 1_000, 5_000], effort.quick, 3) {
            let words = format!("--mix get -c {connections} -i 1");
            let pair = self.pair(ITEMS_FEW, Bed::OneThread)?;
            curve.add(connections, pair.rounds(&words, effort)?);
        }
        self.pair = None;
        Ok(())
    }

    fn along_backends(&mut self, effort: Effort, curve: &mut Curve) -> Result<(), Box<dyn Error>> {
        for &backends in curves::counts(&[1, 2, 4, 8, 16], effort.quick, 3) {
            let relay = Relay::start(usize::try_from(backends)?)?;
            curve.add(backends, relay.rounds("--mix get -c 50 -i 16", effort)?);
        }
        Ok(())
    }

    fn along_caches(&mut self, effort: Effort, curve: &mut Curve) -> Result<(), Box<dyn Error>> {
        let counts = curves::counts(&[1, 10, 100, 1_000, 4_000], effort.quick, 3);
        let most = usize::try_from(counts.last().copied().unwrap_or(1))?;
        for &caches in counts {
            let many = self.many(most)?;
            let ours: Result<Vec<Sample>, _> = (0..effort.rounds)
                .map(|_| many.sample(usize::try_from(caches)?, "--mix get -i 1", effort))
                .collect();
            curve.add(caches, Sides { ours: ours?, theirs: Vec::new() });
        }
        self.many = None;
        Ok(())
    }

    fn many(&mut self, caches: usize) -> Result<&mut ManyCaches, Box<dyn Error>> {
        if self.many.is_none() {
            let made = on_server_cpu(|| ManyCaches::start(caches))?;
            self.many = Some(made.map_err(|error| -> Box<dyn Error> { error })?);
        }
        Ok(self.many.as_mut().expect("it was made just above"))
    }

    /// The servers for so many items; 0 takes any.
    fn pair(&mut self, items: u64, bed: Bed) -> Result<&mut Pair, Box<dyn Error>> {
        let fits = self
            .pair
            .as_ref()
            .is_some_and(|pair| (items == 0 || pair.items == items) && pair.bed == bed);
        if !fits {
            self.pair = None;
        }
        if self.pair.is_none() {
            self.pair = Some(Pair::start(items, bed)?);
        }
        Ok(self.pair.as_mut().expect("it was made just above"))
    }
}

/// The memory that memcached may use, and that our cache is promised: one of our plans.
fn memory_mib(items: u64, bed: Bed) -> u64 {
    if bed == Bed::Small {
        return 100;
    }
    if items > ITEMS_FILLED_EACH_TIME { 5000 } else { 1000 }
}

/// `larder up` gets twice the memory of the measured cache: a plan promises room for keys and
/// values, and the overhead of small items, the development cache and lists of free memory come on
/// top. No load here stores more than a fraction of either.
const LARDER_MEMORY_FACTOR: u64 = 2;

impl Pair {
    fn start(items: u64, bed: Bed) -> Result<Pair, Box<dyn Error>> {
        let mib = memory_mib(items, bed);
        let threads = if bed == Bed::TwoThreads { 2 } else { 1 };
        let start = || {
            let mut options = Larder::options()
                .argument("--threads")
                .argument(&threads.to_string())
                .argument("--memory")
                .argument(&format!("{}MiB", mib * LARDER_MEMORY_FACTOR));
            if bed == Bed::Spinning {
                options = options.setting("spin_us", SPIN_US);
            }
            let larder = options.start();
            let memcached = Peer::start(mib, threads, None);
            let memcached_tls = Peer::start(mib, threads, larder.tls_ca.parent());
            (larder, memcached, memcached_tls)
        };
        let (larder, memcached, memcached_tls) =
            if bed == Bed::TwoThreads { start() } else { on_server_cpu(start)? };
        larder.run(&["cache", "create", CACHE, "--plan", &mib.to_string()]);
        let made = larder.run(&["credential", "add", CACHE]);
        let word = |name: &str| {
            made[name].as_str().map(str::to_owned).ok_or(format!("a credential has no {name}"))
        };
        let (username, password) = (word("username")?, word("password")?);
        larder.run(&["credential", "allow", &username, "write"]);
        Ok(Pair {
            larder,
            username,
            password,
            memcached,
            memcached_tls,
            items,
            bed,
            is_filled: false,
        })
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
        let words = format!("{} --keys {} --requests 1 -c 50", sizes(load), self.items);
        self.load(side, &words, |_| ()).map(drop)
    }

    fn compare(
        &self,
        row: &'static Row,
        load: &str,
        against: Against,
        of: Of,
        at_most: Option<f64>,
        effort: Effort,
    ) -> Result<Outcome, Box<dyn Error>> {
        let Sides { ours, theirs } = self.rounds_against(load, against, effort)?;
        Ok(Outcome::ratio(row, of, ours, theirs, at_most))
    }

    /// Samples of both servers under the same load.
    fn rounds(&self, load: &str, effort: Effort) -> Result<Sides, Box<dyn Error>> {
        self.rounds_against(load, Against::Memcached, effort)
    }

    fn rounds_against(
        &self,
        load: &str,
        against: Against,
        effort: Effort,
    ) -> Result<Sides, Box<dyn Error>> {
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
        Ok(Sides { ours, theirs })
    }

    fn sample(&self, side: Side, words: &str) -> Result<Sample, Box<dyn Error>> {
        let Cost { report, cpu } = self.cost(side, words)?;
        if !report.is_clean() {
            return Err(format!("{side} did not serve {words}:\n{report}").into());
        }
        if report.misses > 0 {
            return Err(format!("{side} lost items that fit: {report}").into());
        }
        Ok(Sample::new(&report, cpu))
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
        let pin = match self.bed {
            Bed::TwoThreads => String::new(),
            Bed::OneThread | Bed::Spinning | Bed::Small => format!("--pin {GENERATOR_CPU}"),
        };
        let fixed = format!(
            "load --servers {address} --auth {auth} --username {} --password {} {pin} {authority}",
            self.username, self.password
        );
        let all = fixed.split_whitespace().chain(words.split_whitespace());
        let load = Load::try_parse_from(all)?;
        run_observed(&load.bench, &mut observe).map_err(|source| {
            Box::from(Unserved { side, log: self.process(side, words).log(), source })
        })
    }
}

/// Puts a load, whose words say where to, on a server that these processes make up.
pub(super) fn sample(words: &str, processes: &[&Process]) -> Result<Sample, Box<dyn Error>> {
    let time = || processes.iter().map(|process| process.cpu_time()).sum::<Duration>();
    let (mut before, mut after) = (Duration::ZERO, Duration::ZERO);
    let load = Load::try_parse_from(words.split_whitespace())?;
    let report = run_observed(&load.bench, &mut |moment| match moment {
        Moment::Connected => (),
        Moment::Measuring => before = time(),
        Moment::Measured => after = time(),
    })?;
    if !report.is_clean() || report.misses > 0 {
        return Err(format!("not served: {words}\n{report}").into());
    }
    Ok(Sample::new(&report, after.saturating_sub(before)))
}

/// A load that a server did not bear.
#[derive(Debug, thiserror::Error)]
#[error("{side} did not serve to the end: {source}; it wrote:\n{log}")]
struct Unserved {
    side: Side,
    log: String,
    source: BenchError,
}

/// Of a load's words those that decide what the items are.
fn sizes(load: &str) -> String {
    let words: Vec<&str> = load.split_whitespace().collect();
    let pairs = words.windows(2).filter(|pair| ["-v", "--key-size"].contains(&pair[0]));
    pairs.flatten().copied().collect::<Vec<_>>().join(" ")
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
const ITEMS_FILLED_EACH_TIME: u64 = 100_000;

/// Longer than a round trip on loopback, shorter than what a sleep and a wake-up cost.
const SPIN_US: &str = "50";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fill_keeps_the_sizes_of_its_load() {
        assert_eq!(sizes("--mix get -v 32 -c 50 --key-size 16 -i 16"), "-v 32 --key-size 16");
        assert_eq!(sizes("--mix get -c 50"), "");
    }
}
