//! Many seeds, several pairs of servers at once, and a report.

use crate::differential::exchange::Split;
use crate::differential::judge::{Difference, Figures, Judge};
use crate::differential::random::{Random, Vocabulary};
use crate::differential::sequence::{Dialect, Sequence};
use crate::larder::Larder;
use crate::memcached::Memcached;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub struct Run {
    /// Each seed is one sequence per dialect.
    pub seeds: Range<u64>,
    pub dialects: Vec<Dialect>,
    pub time_max: Option<Duration>,
    /// Pairs of servers; each has its own, because a flush empties a whole memcached.
    pub workers: u64,
    pub differences_max: usize,
    /// Compared with memcached instead of a Larder that is started.
    pub subject: Option<SocketAddr>,
}

pub struct Report {
    /// One text per difference, as small as it could be made.
    pub differences: Vec<String>,
    pub figures: Figures,
    pub took: Duration,
}

/// Sequences that travel on one connection: enough that a write carries thousands of commands.
const SEQUENCES_PER_BATCH: u64 = 64;

/// The version of memcached whose answers Larder gives where versions differ.
const FOLLOWED: (u32, u32, u32) = (1, 6, 45);

/// Every so many batches, one has only sequences that get out of step, each on its own connection.
const BROKEN_EVERY: u64 = 4;

/// # Panics
///
/// When a server cannot be started or dies.
pub fn run(run: &Run) -> Report {
    let start = Instant::now();
    let found = AtomicUsize::new(0);
    let mut report =
        Report { differences: Vec::new(), figures: Figures::default(), took: Duration::ZERO };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..run.workers)
            .map(|worker| {
                scope.spawn({
                    let found = &found;
                    move || work(run, worker, start, found)
                })
            })
            .collect();
        for worker in workers {
            let (differences, figures) = worker.join().expect("a worker ends well");
            report.differences.extend(differences);
            report.figures.add(&figures);
        }
    });
    report.took = start.elapsed();
    report
}

fn work(run: &Run, worker: u64, start: Instant, found: &AtomicUsize) -> (Vec<String>, Figures) {
    let memcached = Memcached::start();
    let larder = run.subject.is_none().then(start_larder);
    let subject = run.subject.or(larder.as_ref().map(|larder| larder.addr));
    let mut judge = Judge::new(memcached.addr, subject.expect("one of the two is there"));
    let newest = Memcached::version() >= FOLLOWED;
    let vocabulary = if newest { Vocabulary::Newest } else { Vocabulary::Common };
    let mut differences = Vec::new();
    let batches = (run.seeds.end - run.seeds.start).div_ceil(SEQUENCES_PER_BATCH);
    for batch in (worker..batches).step_by(usize::try_from(run.workers).unwrap_or(1)) {
        let first = run.seeds.start + batch * SEQUENCES_PER_BATCH;
        let seeds = first..(first + SEQUENCES_PER_BATCH).min(run.seeds.end);
        for dialect in &run.dialects {
            let late = run.time_max.is_some_and(|time_max| start.elapsed() > time_max);
            if late || found.load(Ordering::Relaxed) >= run.differences_max {
                return (differences, judge.figures);
            }
            let more = one_batch(&mut judge, *dialect, vocabulary, seeds.clone(), batch);
            found.fetch_add(more.len(), Ordering::Relaxed);
            differences.extend(more);
        }
    }
    (differences, judge.figures)
}

/// A Larder with a cache about as large as the memcached, so that neither evicts what the other keeps.
fn start_larder() -> Larder {
    let larder = Larder::options().argument("--no-auth").setting("memory_bytes", "2 GiB").start();
    larder.run(&["cache", "change-plan", &larder.cache(), "1000"]);
    larder
}

/// Plays a batch and returns its differences, made small.
fn one_batch(
    judge: &mut Judge,
    dialect: Dialect,
    vocabulary: Vocabulary,
    seeds: Range<u64>,
    batch: u64,
) -> Vec<String> {
    const REACHABLE: &str = "both servers accept connections on loopback";
    // What is out of step becomes wrong lines, and on the words for those the versions differ.
    let comparable = vocabulary == Vocabulary::Newest || dialect == Dialect::Binary;
    let broken = comparable && batch % BROKEN_EVERY == BROKEN_EVERY - 1;
    let sequences: Vec<(u64, Sequence)> = seeds
        .map(|seed| {
            let make = if broken { Sequence::broken } else { Sequence::in_step };
            (seed, make(dialect, vocabulary, seed))
        })
        .collect();
    let mut together = None;
    if !broken {
        let all: Vec<&Sequence> = sequences.iter().map(|(_, sequence)| sequence).collect();
        let split = if batch.is_multiple_of(2) { Split::Whole } else { Split::Random(batch) };
        if judge.play(&all, split).expect(REACHABLE).is_none() {
            return Vec::new();
        }
        // What depends on when a second began is not seen twice.
        together = judge.play(&all, split).expect(REACHABLE);
        if together.is_none() {
            *judge.figures.explained.entry(ONCE).or_default() += 1;
        }
    }
    // Each alone, which also splits at every byte what is short enough for it.
    let mut differences = Vec::new();
    for (seed, sequence) in &sequences {
        let split = match Random::new(*seed).below(3) {
            0 => Split::Whole,
            1 => Split::Random(*seed),
            _ => Split::EveryByte,
        };
        let Some(difference) = judge.play(&[sequence], split).expect(REACHABLE) else { continue };
        let (smallest, difference) =
            judge.shrink(sequence.clone(), difference, split).expect(REACHABLE);
        let described = Judge::describe(&smallest, &difference);
        differences.push(format!("{dialect:?} seed {seed}, written {split:?}:\n{described}"));
        if differences.len() >= DIFFERENCES_PER_BATCH_MAX {
            return differences;
        }
    }
    if differences.is_empty()
        && let Some(Difference { memcached, larder, .. }) = together
    {
        let first = sequences.first().map_or(0, |(seed, _)| *seed);
        differences.push(format!(
            "{dialect:?} batch of seed {first}, only when played together:\n  \
             memcached: {memcached}\n  larder:    {larder}"
        ));
    }
    differences
}

/// Counted, so that a rise shows.
const ONCE: &str = "seen once and not again: memcached flushes by whole seconds, Larder exactly";

/// One mistake shows in many sequences; a few are enough to see it.
const DIFFERENCES_PER_BATCH_MAX: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { sequences, commands, replies, explained } = &self.figures;
        let seconds = self.took.as_secs_f64();
        let differences = self.differences.len();
        writeln!(f, "{sequences} sequences, {commands} commands, {replies} answers compared")?;
        write!(f, "in {seconds:.1} s; {differences} differences")?;
        for (reason, count) in explained {
            write!(f, "\n  explained, {count} times: {reason}")?;
        }
        Ok(())
    }
}
