//! Times requests one by one, and notes of the slowest what they did and what the system did.
//!
//! By CPU time, because on a machine that others use the wall clock tells of them. But CPU time has
//! noise of its own: interrupts count as the thread's, and on a virtual machine so does whatever the
//! host does while it seems to run, as bringing memory back that it has taken. So pauses of a store
//! are held against those of plain memory, of [`Plain`], in the same minutes.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memmap2::{Advice, MmapMut};
use testbed::workload::chance::Random;

use crate::report::cpu_time;

/// Slow enough to be told of.
const SLOW: Duration = Duration::from_micros(100);
/// Slow requests that are told of, the slowest.
const TOLD_MAX: usize = 32;
/// Time for which what the system counts is not looked at again: looking takes some ten microseconds.
const COUNTED_FOR: Duration = Duration::from_millis(10);

/// Something that was done and timed.
pub(crate) trait Did {
    /// Whether it had more to do than most.
    fn is_hard(&self) -> bool;
    /// What is known of it, for the list of the slowest.
    fn told(&self) -> String;
}

/// How long things of one kind took.
pub(crate) struct Pauses {
    what: &'static str,
    wall: Histogram<u64>,
    cpu: Histogram<u64>,
    /// Of `cpu` those that were hard.
    pub(crate) hard: Histogram<u64>,
    /// CPU time of all of them.
    pub(crate) spent: Duration,
    slowest: Vec<Slow>,
    /// What the system had counted not long ago.
    counted: Counted,
    /// What the second clock of two takes, which is part of each figure.
    clock: Duration,
    begin: Instant,
}

struct Slow {
    at: Duration,
    wall: Duration,
    cpu: Duration,
    met: String,
}

impl Pauses {
    pub(crate) fn new(what: &'static str, begin: Instant) -> Self {
        Pauses {
            what,
            wall: histogram(),
            cpu: histogram(),
            hard: histogram(),
            spent: Duration::ZERO,
            slowest: Vec::new(),
            counted: Counted::now(),
            clock: clock_cost(),
            begin,
        }
    }

    /// Does and times something so many times.
    pub(crate) fn time<D: Did>(&mut self, times: u64, mut request: impl FnMut() -> D) {
        if self.counted.at.elapsed() > COUNTED_FOR {
            self.counted = Counted::now();
        }
        let (mut wall_before, mut cpu_before) = (Instant::now(), cpu_time());
        let cpu_at_first = cpu_before;
        for _ in 0..times {
            let did = request();
            let (wall_after, cpu_after) = (Instant::now(), cpu_time());
            let wall = (wall_after - wall_before).saturating_sub(self.clock);
            let cpu = (cpu_after - cpu_before).saturating_sub(self.clock);
            record(&mut self.wall, wall);
            record(&mut self.cpu, cpu);
            if did.is_hard() {
                record(&mut self.hard, cpu);
            }
            (wall_before, cpu_before) = (wall_after, cpu_after);
            if cpu > SLOW {
                // Looking takes longer than the request may have taken, so it is not timed.
                let now = Counted::now();
                let met = format!("{}; {}", did.told(), now.since(self.counted));
                let at = wall_after - self.begin;
                self.remember(Slow { at, wall, cpu, met });
                self.counted = now;
                (wall_before, cpu_before) = (Instant::now(), cpu_time());
            }
        }
        self.spent += cpu_time() - cpu_at_first;
    }

    fn remember(&mut self, slow: Slow) {
        self.slowest.push(slow);
        if self.slowest.len() > TOLD_MAX {
            let order = |slow: &(usize, &Slow)| slow.1.cpu;
            let least = self.slowest.iter().enumerate().min_by_key(order);
            let (least, _) = least.expect("one has just been put in");
            self.slowest.swap_remove(least);
        }
    }

    pub(crate) fn above(&self, limit: Duration) -> u64 {
        above(&self.cpu, limit)
    }

    /// What a table tells of the long ones.
    pub(crate) fn told(&self, limit: Duration) -> String {
        let (longest, slow, wall) =
            (longest(&self.cpu), self.above(SLOW), above(&self.wall, limit));
        format!(
            "longest {longest:?}; {slow} above {SLOW:?}; {wall} above {limit:?} by the wall clock"
        )
    }

    pub(crate) fn print(&mut self) {
        let what = self.what;
        println!("({what}, by the wall clock: {})", told(&self.wall));
        println!("({what}, by CPU time: {})", told(&self.cpu));
        if !self.hard.is_empty() {
            println!("({what}, those with work beside: {})", told(&self.hard));
        }
        self.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.cpu));
        for Slow { at, wall, cpu, met } in &self.slowest {
            println!("  {what}: {cpu:?} of CPU, {wall:?} of time, at {at:.3?}: {met}");
        }
    }
}

/// Memory as any program has it, of which a request touches as much as one of the store does, and
/// nothing else.
pub(crate) struct Plain {
    memory: MmapMut,
    random: Random,
    /// What was read last: the next place depends on it, as in an index.
    read: u8,
}

/// Lines of memory that a request touches.
const LINES: usize = 8;

impl Plain {
    /// All of it there, in huge pages where the system gives them, as the store's.
    pub(crate) fn new(bytes: u64) -> Self {
        let mut memory = MmapMut::map_anon(bytes as usize).expect("the machine has as much again");
        let _works_without = memory.advise(Advice::HugePage);
        memory.fill(1);
        Plain { memory, random: Random::new(8), read: 0 }
    }

    pub(crate) fn touch(&mut self) -> Touched {
        for _ in 0..LINES {
            let at = self.random.below(self.memory.len() as u64 - 1);
            let byte = &mut self.memory[at as usize + usize::from(self.read & 1)];
            self.read = *byte;
            *byte = byte.wrapping_add(1);
        }
        Touched
    }
}

/// A request to [`Plain`].
pub(crate) struct Touched;

impl Did for Touched {
    fn is_hard(&self) -> bool {
        false
    }

    fn told(&self) -> String {
        format!("{LINES} lines touched")
    }
}

/// What the system has counted so far: of this thread, and of the machine what its host took.
#[derive(Clone, Copy)]
pub(crate) struct Counted {
    at: Instant,
    /// How often the thread had to wait for the system to give it memory, and to read it.
    minor_faults: u64,
    major_faults: u64,
    /// How often it was given a core.
    switches: u64,
    /// All cores' time in interrupts, and that the host kept from them.
    interrupts: Duration,
    stolen: Duration,
}

impl Counted {
    pub(crate) fn now() -> Self {
        let stat = read("/proc/thread-self/stat");
        // The name may have spaces in it, but no bracket comes after it.
        let stat = stat.rsplit(')').next().unwrap_or_default();
        let machine = read("/proc/stat");
        let ticks = |field| Duration::from_millis(number(&machine, field) * TICK_MS);
        Counted {
            at: Instant::now(),
            minor_faults: number(stat, 7),
            major_faults: number(stat, 9),
            switches: number(&read("/proc/thread-self/schedstat"), 2),
            interrupts: ticks(6) + ticks(7),
            stolen: ticks(8),
        }
    }

    pub(crate) fn since(self, before: Counted) -> String {
        format!(
            "within {:.1?} {} page faults, {} of them from disk, {} times given a core, machine: {:?} in interrupts, {:?} stolen",
            self.at - before.at,
            self.minor_faults + self.major_faults - before.minor_faults - before.major_faults,
            self.major_faults - before.major_faults,
            self.switches - before.switches,
            self.interrupts - before.interrupts,
            self.stolen - before.stolen,
        )
    }
}

/// Unit of the times in `/proc/stat`.
const TICK_MS: u64 = 10;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn number(text: &str, field: usize) -> u64 {
    let number = text.split_whitespace().nth(field).and_then(|word| word.parse().ok());
    number.expect("Linux tells what it counts")
}

/// Nanoseconds, from one to ten seconds, to one percent.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 2).expect("the bounds are in order")
}

fn record(pauses: &mut Histogram<u64>, took: Duration) {
    pauses.saturating_record(took.as_nanos().max(1) as u64);
}

/// What the two clocks take that stand between two requests.
fn clock_cost() -> Duration {
    const TIMES: u32 = 10_000;
    let begin = cpu_time();
    for _ in 0..TIMES {
        std::hint::black_box((Instant::now(), cpu_time()));
    }
    (cpu_time() - begin) / TIMES
}

fn above(pauses: &Histogram<u64>, limit: Duration) -> u64 {
    pauses.count_between(limit.as_nanos() as u64, u64::MAX)
}

pub(crate) fn longest(pauses: &Histogram<u64>) -> Duration {
    Duration::from_micros(pauses.max() / 1_000)
}

fn told(pauses: &Histogram<u64>) -> String {
    let micros = |nanoseconds: u64| format!("{:.1} us", nanoseconds as f64 / 1_000.0);
    let quantiles = ["50", "99", "99.9", "99.99", "99.999", "100"].map(|percent| {
        let quantile = percent.parse::<f64>().expect("it is a number") / 100.0;
        format!("p{percent} {}", micros(pauses.value_at_quantile(quantile)))
    });
    let limits = [100, 200, 500, 1_000]
        .map(|limit| format!("> {limit} us: {}", above(pauses, Duration::from_micros(limit))));
    format!("{} in all, {}; {}", pauses.len(), quantiles.join(", "), limits.join(", "))
}
