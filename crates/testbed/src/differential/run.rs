//! Many seeds, several pairs of servers at once, and a report.

use crate::connection::Login;
use crate::differential::batch::{Batch, SEQUENCES_PER_BATCH, SEQUENCES_PER_PAUSE};
use crate::differential::judge::{Figures, Judge, Subject};
use crate::differential::login::Logins;
use crate::differential::random::Vocabulary;
use crate::differential::sequence::{Dialect, Door};
use crate::larder::{Larder, program};
use crate::memcached::Memcached;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub struct Run {
    /// Each seed is one sequence per dialect.
    pub seeds: Range<u64>,
    pub dialects: Vec<Dialect>,
    pub time_max: Option<Duration>,
    /// Pairs of servers; each has its own, because a flush empties a whole memcached. Every second
    /// Larder has one event loop, the others two.
    pub workers: u64,
    /// One more pair of servers, for sequences in which times come to pass.
    pub pauses: bool,
    pub differences_max: usize,
    /// Compared with memcached instead of a Larder that is started.
    pub subject: Option<Subject>,
}

pub struct Report {
    /// One text per difference, as small as it could be made.
    pub differences: Vec<String>,
    pub figures: Figures,
    pub took: Duration,
}

/// The version of memcached whose answers Larder gives where versions differ.
const FOLLOWED: (u32, u32, u32) = (1, 6, 45);

/// # Panics
///
/// When a server cannot be started or dies.
pub fn run(run: &Run) -> Report {
    if run.subject.is_none() {
        // Where it must be built first, that is no part of the time.
        program();
    }
    let shared = Shared { run, start: Instant::now(), found: AtomicUsize::new(0) };
    let mut report =
        Report { differences: Vec::new(), figures: Figures::default(), took: Duration::ZERO };
    thread::scope(|scope| {
        let shared = &shared;
        let mut workers: Vec<_> =
            (0..run.workers).map(|worker| scope.spawn(move || shared.work(worker))).collect();
        if run.pauses {
            workers.push(scope.spawn(|| shared.work_with_pauses()));
        }
        for worker in workers {
            let (differences, figures) = worker.join().expect("a worker ends well");
            report.differences.extend(differences);
            report.figures.add(&figures);
        }
    });
    report.took = shared.start.elapsed();
    report
}

/// What the workers have in common.
struct Shared<'a> {
    run: &'a Run,
    start: Instant,
    found: AtomicUsize,
}

impl Shared<'_> {
    fn work(&self, worker: u64) -> (Vec<String>, Figures) {
        let mut pairs = Pairs::new(self.run, 1 + worker % 2);
        let mut differences = Vec::new();
        let batches = self.seeds().div_ceil(SEQUENCES_PER_BATCH);
        for number in (worker..batches).step_by(usize::try_from(self.run.workers).unwrap_or(1)) {
            // Counted by each worker for itself, so that each meets every kind of batch.
            let turn = number / self.run.workers;
            for dialect in self.run.dialects.iter().filter(|dialect| self.has_turn(**dialect, turn))
            {
                if self.is_over() {
                    return (differences, pairs.figures());
                }
                let seeds = self.part(number, SEQUENCES_PER_BATCH);
                let batch = Batch::brisk(turn, *dialect, pairs.vocabulary, seeds);
                let more = pairs.play(&batch);
                self.found.fetch_add(more.len(), Ordering::Relaxed);
                differences.extend(more);
            }
        }
        (differences, pairs.figures())
    }

    fn work_with_pauses(&self) -> (Vec<String>, Figures) {
        let mut pairs = Pairs::new(self.run, 2);
        let mut differences = Vec::new();
        let open: Vec<Dialect> = self
            .run
            .dialects
            .iter()
            .copied()
            .filter(|dialect| dialect.door() == Door::Open)
            .collect();
        for number in 0..self.seeds().div_ceil(SEQUENCES_PER_PAUSE) {
            for dialect in &open {
                if self.is_over() {
                    return (differences, pairs.figures());
                }
                let batch = Batch::paused(number, *dialect, self.part(number, SEQUENCES_PER_PAUSE));
                let more = pairs.play(&batch);
                self.found.fetch_add(more.len(), Ordering::Relaxed);
                differences.extend(more);
            }
        }
        (differences, pairs.figures())
    }

    /// Logins have few words, and a connection each; beside other dialects they come more rarely.
    fn has_turn(&self, dialect: Dialect, turn: u64) -> bool {
        const LOGINS_EVERY: u64 = 8;
        let alone = self.run.dialects.iter().all(|dialect| dialect.door() != Door::Open);
        alone || dialect.door() == Door::Open || turn.is_multiple_of(LOGINS_EVERY)
    }

    fn seeds(&self) -> u64 {
        self.run.seeds.end - self.run.seeds.start
    }

    /// The seeds of one batch.
    fn part(&self, number: u64, count: u64) -> Range<u64> {
        let first = self.run.seeds.start + number * count;
        first..(first + count).min(self.run.seeds.end)
    }

    fn is_over(&self) -> bool {
        self.run.time_max.is_some_and(|time_max| self.start.elapsed() > time_max)
            || self.found.load(Ordering::Relaxed) >= self.run.differences_max
    }
}

/// The servers of one worker, started when they are first needed.
struct Pairs {
    subject: Option<Subject>,
    threads: u64,
    vocabulary: Vocabulary,
    pairs: HashMap<Door, Pair>,
}

struct Pair {
    judge: Judge,
    logins: Logins,
    _memcached: Memcached,
    _larder: Option<Larder>,
}

impl Pairs {
    fn new(run: &Run, threads: u64) -> Pairs {
        let newest = Memcached::version() >= FOLLOWED;
        let vocabulary = if newest { Vocabulary::Newest } else { Vocabulary::Common };
        Pairs { subject: run.subject.clone(), threads, vocabulary, pairs: HashMap::new() }
    }

    fn play(&mut self, batch: &Batch) -> Vec<String> {
        let (subject, threads) = (self.subject.as_ref(), self.threads);
        let door = batch.dialect.door();
        let pair = self.pairs.entry(door).or_insert_with(|| Pair::start(door, subject, threads));
        batch.play(&mut pair.judge, self.vocabulary, &pair.logins)
    }

    fn figures(&self) -> Figures {
        let mut sum = Figures::default();
        self.pairs.values().for_each(|pair| sum.add(&pair.judge.figures));
        sum
    }
}

impl Pair {
    fn start(door: Door, subject: Option<&Subject>, threads: u64) -> Pair {
        let login = Login { username: "somebody".into(), password: "a-password".into() };
        let (memcached, login) = match door {
            Door::Open => (Memcached::start_exact(), Login::default()),
            Door::Login => (Memcached::start_with_password(&login), login),
            Door::Sasl => Memcached::start_with_sasl(&login),
        };
        // Where sequences do not log in, another Larder may take the place of ours.
        let (subject, larder) = match subject.filter(|_| door == Door::Open) {
            Some(subject) => (subject.clone(), None),
            None => {
                let larder = larder(door, threads);
                (Subject { addrs: vec![larder.addr], login: None }, Some(larder))
            }
        };
        let logins = Logins {
            memcached: login,
            larder: larder.as_ref().map(|larder| larder.login.clone()).unwrap_or_default(),
        };
        let judge = Judge::new(memcached.addr, subject);
        Pair { judge, logins, _memcached: memcached, _larder: larder }
    }
}

/// A Larder with a cache about as large as the memcached, so that neither evicts what the other keeps.
fn larder(door: Door, threads: u64) -> Larder {
    let mut options = Larder::options().setting("memory_bytes", "2 GiB");
    options = options.setting("threads", &threads.to_string());
    if door == Door::Open {
        options = options.argument("--no-auth");
    }
    let larder = options.start();
    larder.run(&["cache", "change-plan", &larder.cache(), "1000"]);
    larder
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { sequences, commands, replies, explained, rounds_too_long, slowest } =
            &self.figures;
        let seconds = self.took.as_secs_f64();
        let [memcached, larder] = slowest.map(|slowest| slowest.as_secs_f64());
        let differences = self.differences.len();
        writeln!(f, "{sequences} sequences, {commands} commands, {replies} answers compared")?;
        writeln!(f, "in {seconds:.1} s; {differences} differences")?;
        write!(f, "  slowest round: memcached {memcached:.2} s, Larder {larder:.2} s")?;
        for (reason, count) in explained {
            write!(f, "\n  explained, {count} times: {reason}")?;
        }
        if 0 < *rounds_too_long {
            write!(f, "\n  not judged: {rounds_too_long} rounds with pauses that took too long")?;
        }
        Ok(())
    }
}
