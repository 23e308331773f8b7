//! Ten million small items in ten thousand caches, and then churn: memory stays, and no request
//! waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use store::operation::{DeleteArgs, Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;
use testbed::workload::chance::Random;

use crate::keys::key;
use crate::report::{Report, cpu_time, resident_bytes};

const CACHES: u64 = 10_000;
const ITEMS: u64 = 1_000;
/// Key and value are 16 and up to 100 bytes, so a cache holds about a thousand and is full.
const LIMITS: CacheLimits = CacheLimits { memory_bytes: 66_000, item_bytes_max: 1 << 20 };
/// Requests between two looks at the end of the time.
const STEP: u64 = 16;
/// No request may take longer.
const PAUSE_MAX: Duration = Duration::from_millis(1);

/// Time of churn: `CHURN_SECONDS`, or 20.
fn churn_time() -> Duration {
    let seconds = std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

pub(crate) fn run(report: &mut Report) {
    let store = Store::new(Settings { memory_bytes: 2 << 30, seed: 4 });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // As the served product has it.
        scope.spawn(|| {
            while !done.load(Relaxed) {
                while store.prepare() {}
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        churn(report, &store);
        done.store(true, Relaxed);
    });
}

fn churn(report: &mut Report, store: &Store) {
    let mut caches: Vec<Arc<Cache>> = (0..CACHES)
        .map(|id| store.create_cache(CacheId::new(id), LIMITS).expect("all are promised"))
        .collect();
    let value = [1_u8; 100];
    let mut random = Random(3);
    for number in 0..ITEMS {
        for cache in &caches {
            let key = key(number);
            let value = &value[..random.below(100) as usize];
            cache.store(&cache.locate(&key), StoreArgs::set(value, 0, Expiry::Never), Seconds(1));
        }
    }
    let items: u64 = caches.iter().map(|cache| cache.stats().items).sum();
    let used = store.stats().used_bytes;
    // Taken at half-time, when the caches have reached the balance of living and dead bytes.
    let mut resident = 0;

    let (mut wall, mut cpu) = (histogram(), histogram());
    // What the second clock of two takes, which is part of each figure.
    let clock = clock_cost();
    let faults_before = faults();
    let mut idle = histogram();
    let begin = Instant::now();
    let time = churn_time();
    let (mut operations, mut idled) = (0_u64, Duration::ZERO);
    while begin.elapsed() < time {
        // A tenth of the time nothing is done, all along, so that what the machine does meanwhile
        // falls on both alike.
        if idled < begin.elapsed() / 10 {
            let from = Instant::now();
            do_nothing(&mut idle, clock);
            idled += from.elapsed();
        }
        let now = Seconds(2 + begin.elapsed().as_secs() as u32);
        let (mut wall_before, mut cpu_before) = (Instant::now(), cpu_time());
        for _ in 0..STEP {
            operate(&caches, &value, &mut random, now);
            let (wall_after, cpu_after) = (Instant::now(), cpu_time());
            record(&mut wall, wall_after - wall_before, clock);
            record(&mut cpu, cpu_after - cpu_before, clock);
            (wall_before, cpu_before) = (wall_after, cpu_after);
        }
        operations += STEP;
        if resident == 0 && begin.elapsed() > time / 2 {
            resident = resident_bytes();
        }
        if operations.is_multiple_of(64 * STEP) {
            // As event loops do, between requests.
            store.maintain(now, 64);
        }
        if operations.is_multiple_of(1_024 * STEP) {
            // A cache goes and another comes.
            let number = random.below(CACHES) as usize;
            let id = caches[number].id();
            store.remove_cache(id);
            caches[number] = store.create_cache(id, LIMITS).expect("its memory came back");
        }
    }
    let faults = faults() - faults_before;
    for (what, pauses) in [("wall clock", &wall), ("CPU", &cpu), ("CPU of doing nothing", &idle)] {
        println!("({what} per request: {})", told(pauses));
    }
    let growth = resident_bytes() as f64 / resident as f64;
    println!(
        "({items} items in {} MB of blocks; resident {} MB at half-time; after {} s and {} M operations: {} MB, resident x {growth:.3})",
        used >> 20,
        resident >> 20,
        time.as_secs(),
        operations / 1_000_000,
        store.stats().used_bytes >> 20,
    );
    println!("({faults} page faults of the measuring thread while it churned)");
    // The machine takes its time from both alike: so many of the requests it would have struck.
    let share = (begin.elapsed() - idled).as_secs_f64() / idled.as_secs_f64();
    for limit in [PAUSE_MAX / 10, PAUSE_MAX] {
        let slow = above(&cpu, limit);
        let struck = above(&idle, limit) as f64 * share;
        report.figure(
            &format!("requests of more than {limit:?} of CPU under churn of 10,000 caches"),
            format!("{slow} of {operations}, longest {:?}", longest(&cpu)),
            &format!("doing nothing as long: {struck:.0}, longest {:?}", longest(&idle)),
            // Of counts that are equal on the average one is rarely more than this above the other.
            "<= 1 ms, but for as many as doing nothing has",
            limit < PAUSE_MAX || slow as f64 <= struck + 3.0 * (struck + share).sqrt(),
        );
    }
    report.figure(
        "memory at the end of the churn against half-time",
        format!("x {growth:.3}"),
        "-",
        "<= 1.02",
        growth <= 1.02,
    );
}

/// One request.
fn operate(caches: &[Arc<Cache>], value: &[u8], random: &mut Random, now: Seconds) {
    let cache = &caches[random.below(CACHES) as usize];
    let key = key(random.below(2 * ITEMS));
    let at = cache.locate(&key);
    match random.below(10) {
        0..6 => {
            std::hint::black_box(cache.get(&at, GetArgs::default(), now, |hit| hit.is_some()));
        }
        6..9 => {
            let life = Seconds(now.0 + random.below(60) as u32);
            let expiry = if random.below(2) == 0 { Expiry::Never } else { Expiry::At(life) };
            let value = &value[..random.below(100) as usize];
            cache.store(&at, StoreArgs::set(value, 0, expiry), now);
        }
        _ => {
            cache.delete(&at, DeleteArgs::default(), now);
        }
    }
}

/// The same clocks around nothing for some milliseconds: what of the pauses is the machine's. Thread
/// CPU time does not count time in which others ran, but interrupts and a host that took the core it
/// does.
fn do_nothing(cpu: &mut Histogram<u64>, clock: Duration) {
    let mut before = cpu_time();
    for _ in 0..10_000 {
        // About as long as a request.
        let until = Instant::now() + Duration::from_nanos(500);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let after = cpu_time();
        record(cpu, after - before, clock);
        before = after;
    }
}

/// How often this thread had to wait for the system to give it memory.
fn faults() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // The name may have spaces in it, but no bracket comes after it.
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let faults = after_name.split_whitespace().nth(7).and_then(|count| count.parse().ok());
    faults.expect("Linux tells a thread's page faults")
}

fn longest(pauses: &Histogram<u64>) -> Duration {
    Duration::from_micros(pauses.max() / 1_000)
}

/// Nanoseconds, from one to ten seconds, to one percent.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 10_000_000_000, 2).expect("the bounds are in order")
}

fn record(pauses: &mut Histogram<u64>, took: Duration, clock: Duration) {
    pauses.saturating_record(took.saturating_sub(clock).as_nanos().max(1) as u64);
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

fn told(pauses: &Histogram<u64>) -> String {
    let micros = |nanoseconds: u64| format!("{:.1} us", nanoseconds as f64 / 1_000.0);
    let quantiles: Vec<String> = [0.5, 0.99, 0.999, 0.9999, 0.99999, 1.0]
        .iter()
        .map(|&quantile| {
            format!("p{} {}", quantile * 100.0, micros(pauses.value_at_quantile(quantile)))
        })
        .collect();
    let limits = [100, 200, 500, 1_000]
        .map(|limit| format!("> {limit} us: {}", above(pauses, Duration::from_micros(limit))));
    format!("{} requests, {}; {}", pauses.len(), quantiles.join(", "), limits.join(", "))
}
