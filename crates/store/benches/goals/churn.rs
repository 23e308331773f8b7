//! Ten million small items in ten thousand caches, and then churn: memory stays, and no request
//! waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use store::operation::{DeleteArgs, Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;

use crate::report::{Report, cpu_time, resident_bytes};
use crate::workload::{Random, key};

const CACHES: u64 = 10_000;
const ITEMS: u64 = 1_000;
/// Key and value are 16 and up to 100 bytes, so a cache holds about a thousand and is full.
const LIMITS: CacheLimits = CacheLimits { memory_bytes: 66_000, item_bytes_max: 1 << 20 };
/// Operations between two looks at the clock, which costs as much as they do.
const STEP: usize = 16;

/// Time of churn: `CHURN_SECONDS`, or 20.
fn churn_time() -> Duration {
    let seconds = std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

pub(crate) fn run(report: &mut Report) {
    let store = Store::new(Settings { memory_bytes: 2 << 30, seed: 4 });
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

    let mut longest = Duration::ZERO;
    let mut slow = 0_u64;
    let mut steps = 0_u64;
    let begin = Instant::now();
    let time = churn_time();
    while begin.elapsed() < time {
        let now = Seconds(2 + begin.elapsed().as_secs() as u32);
        let before = cpu_time();
        for _ in 0..STEP {
            let cache = &caches[random.below(CACHES) as usize];
            let key = key(random.below(2 * ITEMS));
            let at = cache.locate(&key);
            match random.below(10) {
                0..6 => {
                    std::hint::black_box(
                        cache.get(&at, GetArgs::default(), now, |hit| hit.is_some()),
                    );
                }
                6..9 => {
                    let life = Seconds(now.0 + random.below(60) as u32);
                    let expiry =
                        if random.below(2) == 0 { Expiry::Never } else { Expiry::At(life) };
                    let value = &value[..random.below(100) as usize];
                    cache.store(&at, StoreArgs::set(value, 0, expiry), now);
                }
                _ => {
                    cache.delete(&at, DeleteArgs::default(), now);
                }
            }
        }
        let took = cpu_time() - before;
        longest = longest.max(took);
        slow += u64::from(took > Duration::from_millis(1));
        steps += 1;
        if resident == 0 && begin.elapsed() > time / 2 {
            resident = resident_bytes();
        }
        if steps.is_multiple_of(64) {
            store.maintain(now, 64);
        }
        if steps.is_multiple_of(1_024) {
            // A cache goes and another comes.
            let number = random.below(CACHES) as usize;
            let id = caches[number].id();
            store.remove_cache(id);
            caches[number] = store.create_cache(id, LIMITS).expect("its memory came back");
        }
    }
    let (idle_longest, idle_slow) = idle(steps, begin.elapsed() / steps as u32);
    println!(
        "(of as many steps that only count, {idle_slow} took above 1 ms, the longest {:.0} us)",
        idle_longest.as_nanos() as f64 / 1_000.0
    );
    let growth = resident_bytes() as f64 / resident as f64;
    println!(
        "({items} items in {} MB of blocks; resident {} MB at half-time; after {} s and {} M operations: {} MB, resident x {growth:.3})",
        used >> 20,
        resident >> 20,
        time.as_secs(),
        steps * STEP as u64 / 1_000_000,
        store.stats().used_bytes >> 20,
    );
    report.figure(
        "longest CPU time of 16 requests under churn of 10,000 caches",
        format!("{:.0} us, {slow} of {steps} above 1 ms", longest.as_nanos() as f64 / 1_000.0),
        "-",
        "<= 1 ms",
        longest <= Duration::from_millis(1),
    );
    report.figure(
        "memory at the end of the churn against half-time",
        format!("x {growth:.3}"),
        "-",
        "<= 1.02",
        growth <= 1.02,
    );
}

/// The same measurement of steps that do nothing but count: what of the pauses is the machine's.
fn idle(steps: u64, step: Duration) -> (Duration, u64) {
    let (mut longest, mut slow) = (Duration::ZERO, 0);
    // A tenth of the steps, so that it does not take long.
    for _ in 0..steps / 10 {
        let before = cpu_time();
        let begin = Instant::now();
        while begin.elapsed() < step / 4 {
            std::hint::spin_loop();
        }
        let took = cpu_time() - before;
        longest = longest.max(took);
        slow += u64::from(took > Duration::from_millis(1));
    }
    (longest, slow * 10)
}
