//! Plays seeds and says what was seen: `cargo xtask sim --seeds 1000`.

#![expect(clippy::print_stdout, reason = "a command line speaks to its user")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use cluster::mistake::{Mistake, make};
use simulator::counts::Counts;
use simulator::laws::Violation;
use simulator::mistakes::{CASES, ONLY_BY_MODEL, SEEDS_MAX};
use simulator::naive::{Change, Scheme, judge};
use simulator::play::{play, play_twice};
use simulator::scenario::{Scenario, Swarm};
use simulator::shrink::shrink;
use simulator::story::Story;
use simulator::time::{MILLISECOND, SECOND};

/// Plays whole clusters under faults, and holds what clients saw against the laws.
#[derive(Parser)]
struct Arguments {
    /// How many seeds are played, or from which to which: `1000`, or `500..1000`
    #[arg(long, default_value = "100", value_parser = read_seeds)]
    seeds: Range<u64>,
    /// Play on after a failure, and name every seed that failed
    #[arg(long)]
    all: bool,
    /// Simulated minutes of faults in each, instead of ten seconds
    #[arg(long)]
    minutes: Option<u64>,
    /// Mean pause of a client between two batches, in milliseconds
    #[arg(long, default_value_t = 30)]
    pause_ms: u64,
    /// Play this seed only, and tell its story
    #[arg(long)]
    seed: Option<u64>,
    /// How many lines of a story are told
    #[arg(long, default_value_t = 100)]
    lines: usize,
    /// For how many seconds a failure is made smaller
    #[arg(long, default_value_t = 60)]
    shrink_seconds: u64,
    /// Only these kinds of faults, by the names that the figures give them
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Let every engine make this mistake, to see it found; `list` names them all
    #[arg(long)]
    mistake: Option<String>,
    /// Find every mistake that can be built in, and say how many seeds each took
    #[arg(long)]
    mistakes: bool,
    /// Show how the simple ways to move keys fail, instead of playing seeds
    #[arg(long)]
    naive: bool,
    /// Seeds that are played at the same time; as many as there are cores unless told
    #[arg(long)]
    threads: Option<usize>,
}

/// Simulated seconds of faults, unless told otherwise: with the healing after it, long enough for
/// several epochs.
const SECONDS: u64 = 10;
/// One seed of so many is played twice, to see that it tells the same story: often enough to notice that
/// something is left to chance, and seldom enough to cost little.
const TWICE_EVERY: u64 = 16;
/// How often it is said how far it got.
const PROGRESS_EVERY: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of an engine is a violation, which is told below with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    if arguments.naive {
        return tell_naive();
    }
    if arguments.mistakes {
        return tell_mistakes();
    }
    let mistake = match arguments.mistake.as_deref().map(|name| (name, Mistake::named(name))) {
        Some((_, None)) => {
            for (_, name) in Mistake::ALL {
                println!("{name}");
            }
            return ExitCode::from(2);
        }
        Some((_, mistake)) => mistake,
        None => None,
    };
    make(mistake);
    match arguments.seed {
        Some(seed) => tell_one(&arguments, seed),
        None => play_many(&arguments, mistake),
    }
}

fn read_seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").unwrap_or(("0", text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from <= to => Ok(from..to),
        _ => Err("wanted a number, or two as in 500..1000".to_owned()),
    }
}

/// Every mistake, the law that finds it, and after how many seeds: rows of a table.
fn tell_mistakes() -> ExitCode {
    let name = |mistake| Mistake::ALL.iter().find(|(it, _)| *it == mistake).map_or("?", |it| it.1);
    let mut blind = 0;
    for case in CASES {
        let faults = case.faults.join(", ");
        match case.find(0, SEEDS_MAX) {
            Some((seed, violation)) => println!(
                "| `{}` | {faults} | *{}* | {} |",
                name(case.mistake),
                violation.law,
                seed + 1
            ),
            None => {
                blind += 1;
                println!("| `{}` | {faults} | nothing | not in {SEEDS_MAX} |", name(case.mistake));
            }
        }
    }
    for (mistake, why) in ONLY_BY_MODEL {
        println!("| `{}` | | {why} | |", name(*mistake));
    }
    if blind == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every simple scheme, and the shortest story of its failure.
fn tell_naive() -> ExitCode {
    for change in [Change::AtOneInstant, Change::OneByOne] {
        for scheme in Scheme::ALL {
            let verdict = judge(scheme, change, false);
            println!("{scheme:?}, views change {change:?}: {} states", verdict.states);
            for (what, story) in [("STALE", &verdict.stale), ("LOST", &verdict.lost)] {
                match story {
                    None => println!("  never {what}"),
                    Some(lines) => println!("  {what}:\n    {}", lines.join("\n    ")),
                }
            }
        }
    }
    let verdict = judge(Scheme::FallbackReadAndInvalidate, Change::AtOneInstant, true);
    let lines = verdict.stale.unwrap_or_default();
    println!("FallbackReadAndInvalidate, when the new owner may evict:\n  STALE:");
    println!("    {}", lines.join("\n    "));
    ExitCode::SUCCESS
}

fn draw(arguments: &Arguments, seed: u64) -> Scenario {
    let seconds = arguments.minutes.map_or(SECONDS, |minutes| 60 * minutes);
    let only: Vec<&str> = arguments.only.iter().map(String::as_str).collect();
    let swarm = if only.is_empty() { Swarm::ByLot } else { Swarm::Only(&only) };
    Scenario::with(swarm, seed, seconds * SECOND, arguments.pause_ms * MILLISECOND)
}

/// How far playing many seeds has come.
struct Progress {
    counts: Counts,
    played: u64,
    /// The next seed that nobody plays yet, and those that are being played.
    next: u64,
    under_way: BTreeSet<u64>,
    failures: Vec<(u64, Violation)>,
    told_at: Instant,
}

impl Progress {
    /// Every seed below this one was played: who begins again here misses none.
    fn played_to(&self) -> u64 {
        self.under_way.first().copied().unwrap_or(self.next)
    }

    fn take(&mut self, end: u64, plays_on: bool) -> Option<u64> {
        let is_over = end <= self.next || !plays_on && !self.failures.is_empty();
        (!is_over).then(|| {
            self.next += 1;
            self.under_way.insert(self.next - 1);
            self.next - 1
        })
    }
}

fn play_many(arguments: &Arguments, mistake: Option<Mistake>) -> ExitCode {
    let began = Instant::now();
    let end = arguments.seeds.end;
    let progress = Mutex::new(Progress {
        counts: Counts::default(),
        played: 0,
        next: arguments.seeds.start,
        under_way: BTreeSet::new(),
        failures: Vec::new(),
        told_at: began,
    });
    let lock = || progress.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        make(mistake);
        loop {
            let Some(seed) = lock().take(end, arguments.all) else { return };
            let scenario = draw(arguments, seed);
            let played = if seed.is_multiple_of(TWICE_EVERY) {
                play_twice(&scenario)
            } else {
                play(scenario, Story::silent())
            };
            let mut progress = lock();
            progress.counts.add(&played.counts);
            progress.played += 1;
            progress.under_way.remove(&seed);
            if let Some(violation) = played.violation {
                if arguments.all {
                    println!("seed {seed} breaks a law: {violation}");
                }
                progress.failures.push((seed, violation));
            }
            if PROGRESS_EVERY <= progress.told_at.elapsed() {
                progress.told_at = Instant::now();
                let seconds = began.elapsed().as_secs();
                println!("after {} seeds and {seconds} s:", progress.played);
                println!("{}", progress.counts);
                println!("the rest: --seeds {}..{end}", progress.played_to());
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.unwrap_or(cores) {
            scope.spawn(work);
        }
    });
    let mut progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("seeds       {} in {:.1} s", progress.played, began.elapsed().as_secs_f64());
    println!("{}", progress.counts);
    progress.failures.sort_by_key(|(seed, _)| *seed);
    if arguments.all && !progress.failures.is_empty() {
        let seeds: Vec<u64> = progress.failures.iter().map(|(seed, _)| *seed).collect();
        println!("{} seeds break laws: {seeds:?}", seeds.len());
        return ExitCode::FAILURE;
    }
    match progress.failures.into_iter().next() {
        None => ExitCode::SUCCESS,
        Some((seed, violation)) => {
            tell_failure(arguments, seed, violation);
            ExitCode::FAILURE
        }
    }
}

/// Makes the failure small, and tells the story of what is left.
fn tell_failure(arguments: &Arguments, seed: u64, violation: Violation) {
    println!("seed {seed} breaks a law: {violation}");
    let time_max = Duration::from_secs(arguments.shrink_seconds);
    let shrunk = shrink(draw(arguments, seed), violation, time_max);
    let played = play(shrunk.scenario.clone(), Story::told());
    println!("\nthe same with less of everything, after {} tries:", shrunk.tries);
    for line in played.story.last(arguments.lines) {
        println!("  {line}");
    }
    println!("\nseed {seed}: {}", shrunk.violation);
    println!("  {} faults are needed:", shrunk.scenario.faults.len());
    for timed in &shrunk.scenario.faults {
        println!("    {timed:?}");
    }
    println!("  whole: cargo xtask sim --seed {seed} --lines 1000000");
}

fn tell_one(arguments: &Arguments, seed: u64) -> ExitCode {
    let played = play(draw(arguments, seed), Story::told());
    for line in played.story.last(arguments.lines) {
        println!("{line}");
    }
    println!("{}", played.counts);
    match played.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("seed {seed} breaks a law: {violation}");
            ExitCode::FAILURE
        }
    }
}
