//! Plays seeds and says what was seen: `cargo xtask sim --seeds 1000`.

#![expect(clippy::print_stdout, reason = "a command line speaks to its user")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use clap::Parser;
use cluster::mistake::{Mistake, make};
use simulator::counts::Counts;
use simulator::laws::Violation;
use simulator::naive::{Change, Scheme, judge};
use simulator::play::play;
use simulator::scenario::{Scenario, Swarm};
use simulator::shrink::shrink;
use simulator::story::Story;
use simulator::time::{MILLISECOND, SECOND};

/// Plays whole clusters under faults, and holds what clients saw against the laws.
#[derive(Parser)]
struct Arguments {
    /// How many seeds are played
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
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
/// How often it is said how far it got.
const PROGRESS_EVERY: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic of an engine is a violation, which is told below with its seed.
    std::panic::set_hook(Box::new(|_| ()));
    if arguments.naive {
        return tell_naive();
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

fn play_many(arguments: &Arguments, mistake: Option<Mistake>) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from + arguments.seeds;
    let all = Mutex::new((Counts::default(), None::<(u64, Violation)>, 0_u64, Instant::now()));
    let work = || {
        make(mistake);
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if end <= seed {
                return;
            }
            let played = play(draw(arguments, seed), Story::silent());
            let Ok(mut all) = all.lock() else { return };
            all.0.add(&played.counts);
            all.2 += 1;
            if PROGRESS_EVERY <= all.3.elapsed() {
                all.3 = Instant::now();
                println!("after {} seeds and {} s:\n{}", all.2, began.elapsed().as_secs(), all.0);
            }
            if let Some(violation) = played.violation {
                // The first one ends it all; the lowest seed is told.
                next.store(end, Relaxed);
                if all.1.as_ref().is_none_or(|(known, _)| seed < *known) {
                    all.1 = Some((seed, violation));
                }
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.unwrap_or(cores) {
            scope.spawn(work);
        }
    });
    let (counts, violation, seeds, _) = all.into_inner().unwrap_or_else(|all| all.into_inner());
    println!("seeds       {seeds} in {:.1} s", began.elapsed().as_secs_f64());
    println!("{counts}");
    match violation {
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
