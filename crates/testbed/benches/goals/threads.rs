//! What locks cost: threads on caches of their own, and on one they share.

use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::time::Duration;

use store::operation::{Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;
use testbed::workload::chance::Random;

use crate::keys::key;
use crate::report::{Report, cpu_time, median};

const OPERATIONS: u64 = 2_000_000;
const KEYS: u64 = 200_000;
const RUNS: usize = 3;
const NOW: Seconds = Seconds(1);

/// Goal 16, and the measurement behind `docs/decisions/0009-shards-of-a-cache-have-locks.md`.
pub(crate) fn run(report: &mut Report) {
    let store = Store::new(Settings { memory_bytes: 1 << 30, seed: 1 });
    let create = |id, megabytes: u64| {
        let limits = CacheLimits { memory_bytes: megabytes << 20, item_bytes_max: 1 << 20 };
        let cache = store.create_cache(CacheId::new(id), limits).expect("there is room");
        for number in 0..KEYS {
            let key = key(number);
            cache.store(&cache.locate(&key), StoreArgs::set(&[7; 100], 0, Expiry::Never), NOW);
        }
        cache
    };
    let own = [create(1, 40), create(2, 40)];
    let small = create(3, 40);
    let large = create(4, 512);
    let figures: Vec<f64> =
        [vec![&own[0]], vec![&own[0], &own[1]], vec![&small, &small], vec![&large, &large]]
            .into_iter()
            .map(|caches| median((0..RUNS).map(|_| nanoseconds(&caches)).collect()))
            .collect();
    let [alone, apart, one_lock, many_locks] = figures[..] else { return };
    println!(
        "(CPU per operation: one thread {alone:.0} ns, two apart {apart:.0} ns, two on one lock {one_lock:.0} ns, two on {} locks {many_locks:.0} ns)",
        8
    );
    println!(
        "(a lock taken and let go: {:.0} ns; a request and its answer over a queue to another thread: {:.0} ns of CPU)",
        lock_nanoseconds(),
        hop_nanoseconds()
    );
    let scaling = 2.0 * alone / apart;
    report.figure(
        "16: two threads on caches of their own, against one",
        format!("{scaling:.2} x by CPU time"),
        "segcache about linear",
        ">= 1.9 x",
        scaling >= 1.9,
    );
}

/// CPU time of a lock that nobody else wants.
fn lock_nanoseconds() -> f64 {
    const TIMES: u64 = 10_000_000;
    let lock = Mutex::new(0_u64);
    let begin = cpu_time();
    for _ in 0..TIMES {
        *std::hint::black_box(&lock).lock().expect("no thread panics") += 1;
    }
    (cpu_time() - begin).as_nanos() as f64 / TIMES as f64
}

/// CPU time, of both sides, of asking another thread and hearing from it, 32 requests at a time.
fn hop_nanoseconds() -> f64 {
    const BATCHES: u64 = 20_000;
    const BATCH: u64 = 32;
    let (ask, asked) = mpsc::sync_channel::<u64>(BATCH as usize);
    let (answer, answered) = mpsc::sync_channel::<u64>(BATCH as usize);
    let total = std::thread::scope(|scope| {
        let owner = scope.spawn(move || {
            let begin = cpu_time();
            for number in asked {
                answer.send(number + 1).expect("the asker waits for it");
            }
            cpu_time() - begin
        });
        let begin = cpu_time();
        for batch in 0..BATCHES {
            (0..BATCH).for_each(|number| ask.send(batch + number).expect("the owner listens"));
            (0..BATCH).for_each(|_| {
                std::hint::black_box(answered.recv().expect("the owner answers"));
            });
        }
        drop(ask);
        cpu_time() - begin + owner.join().expect("no thread panics")
    });
    total.as_nanos() as f64 / (BATCHES * BATCH) as f64
}

/// CPU nanoseconds per operation, with one thread on each of the caches.
fn nanoseconds(caches: &[&Arc<Cache>]) -> f64 {
    let barrier = Barrier::new(caches.len());
    let total: Duration = std::thread::scope(|scope| {
        let threads: Vec<_> = caches
            .iter()
            .enumerate()
            .map(|(number, cache)| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    work(cache, number as u64 + 1)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    });
    total.as_nanos() as f64 / (OPERATIONS * caches.len() as u64) as f64
}

fn work(cache: &Cache, seed: u64) -> Duration {
    let mut random = Random(seed);
    let begin = cpu_time();
    let mut sum = 0_u64;
    for _ in 0..OPERATIONS {
        let key = key(random.below(KEYS));
        let at = cache.locate(&key);
        if random.below(100) < 10 {
            cache.store(&at, StoreArgs::set(&[8; 100], 0, Expiry::Never), NOW);
        } else {
            sum += cache.get(&at, GetArgs::default(), NOW, |hit| {
                hit.map_or(0, |hit| u64::from(hit.value[99]))
            });
        }
    }
    std::hint::black_box(sum);
    cpu_time() - begin
}
