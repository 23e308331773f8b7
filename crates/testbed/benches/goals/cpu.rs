//! CPU time per operation, with one cache and with 4,000, beside the segcache crate.

use std::sync::Arc;
use std::time::Duration;

use segcache::{Policy, Segcache, Value};
use store::operation::{Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Located, Settings, Store};
use tenancy::id::CacheId;
use testbed::workload::chance::{Random, Zipf};

use crate::keys::key;
use crate::report::{Report, cpu_time, median};

const KEYS: usize = 2_000_000;
const VALUE_BYTES: usize = 300;
const MEMORY_BYTES: u64 = 256 << 20;
const OPERATIONS: usize = 3_000_000;
const SETS_PERCENT: u64 = 15;
/// Requests that arrive together from pipelining clients.
const BATCH: usize = 32;
const RUNS: usize = 5;
const NOW: Seconds = Seconds(1);

pub(crate) fn run(report: &mut Report) {
    let mut random = Random::new(42);
    let zipf = Zipf::new(KEYS, 0.99);
    // Ranks are spread over the keys, so that hot keys are no neighbours in memory.
    let ranks: Vec<u64> = (0..OPERATIONS)
        .map(|_| (zipf.rank(&mut random) as u64).wrapping_mul(0x9e37_79b1) % KEYS as u64)
        .collect();
    let sets: Vec<bool> = ranks.iter().map(|_| random.below(100) < SETS_PERCENT).collect();
    let segcache = segcache();
    for (caches, mixed_target, get_target) in [(1, 300.0, 200.0), (4_000, 450.0, 250.0)] {
        let setup = Setup::new(caches);
        // Fill, and let the queues find their balance.
        for _ in 0..2 {
            setup.run(&ranks, |_| true, BATCH);
            ask_segcache(&segcache, &ranks, |_| true);
        }
        // Turn by turn, so that what the machine does meanwhile falls on all alike.
        let mut times: [Vec<f64>; 5] = Default::default();
        let (mut hits, mut their_hits) = (0, 0);
        for _ in 0..RUNS {
            times[0].push(setup.run(&ranks, |at| sets[at], BATCH).0);
            times[1].push(ask_segcache(&segcache, &ranks, |at| sets[at]).0);
            let (time, found) = setup.run(&ranks, |_| false, BATCH);
            times[2].push(time);
            hits = found;
            let (time, found) = ask_segcache(&segcache, &ranks, |_| false);
            times[3].push(time);
            their_hits = found;
            times[4].push(setup.run(&ranks, |_| false, 1).0);
        }
        let percent = |hits: usize| hits * 100 / OPERATIONS;
        let [mixed, their_mixed, gets, their_gets, single] = times.map(median);
        let name = |what: &str| format!("11: ns per {what}, {caches} caches");
        let theirs = |time: f64| format!("segcache {time:.0} ns, as 1 cache");
        for (what, time, bar, target) in [
            ("operation, 15 % sets".to_owned(), mixed, their_mixed, mixed_target),
            (
                format!(
                    "get in batches, {} % hits (segcache {})",
                    percent(hits),
                    percent(their_hits)
                ),
                gets,
                their_gets,
                get_target,
            ),
            ("get one at a time".to_owned(), single, their_gets, get_target),
        ] {
            report.figure(
                &name(&what),
                format!("{time:.0} ns"),
                &theirs(bar),
                &format!("<= {target} ns"),
                time <= target,
            );
        }
    }
}

/// As much memory in one heap, and a table with room for all its items.
fn segcache() -> Segcache {
    Segcache::builder()
        .heap_size(MEMORY_BYTES as usize)
        .segment_size(1 << 20)
        .hash_power(21)
        .eviction(Policy::S3Fifo { admission_ratio: 0.1 })
        .build()
        .expect("there is memory")
}

/// The same requests to the segcache crate.
fn ask_segcache(cache: &Segcache, ranks: &[u64], is_set: impl Fn(usize) -> bool) -> (f64, usize) {
    let value = [7_u8; VALUE_BYTES];
    let mut output = Vec::with_capacity(64 * 1_024);
    let mut hits = 0;
    let begin = cpu_time();
    for (number, &rank) in ranks.iter().enumerate() {
        let key = key(rank);
        if is_set(number) {
            // It evicts what it must; a failure would be seen in the hits.
            let _evicted = cache.insert(&key, &value[..], None, Duration::from_secs(86_400));
        } else if let Some(item) = cache.get(&key) {
            if let Value::Bytes(value) = item.value() {
                output.extend_from_slice(value);
            }
            hits += 1;
        }
        if output.len() > 60_000 {
            output.clear();
        }
    }
    ((cpu_time() - begin).as_nanos() as f64 / ranks.len() as f64, hits)
}

struct Setup {
    _store: Store,
    caches: Vec<Arc<Cache>>,
}

impl Setup {
    fn new(caches: u64) -> Self {
        let store = Store::new(Settings { memory_bytes: MEMORY_BYTES * 3 / 2, seed: 3 });
        let limits = CacheLimits { memory_bytes: MEMORY_BYTES / caches, item_bytes_max: 1 << 20 };
        let caches = (0..caches)
            .map(|id| store.create_cache(CacheId::new(id), limits).expect("there is room"))
            .collect();
        Setup { _store: store, caches }
    }

    /// Nanoseconds per operation, and how many gets hit.
    fn run(&self, ranks: &[u64], is_set: impl Fn(usize) -> bool, batch: usize) -> (f64, usize) {
        let value = [7_u8; VALUE_BYTES];
        let mut output = Vec::with_capacity(64 * 1_024);
        let mut hits = 0;
        let begin = cpu_time();
        for (start, ranks) in ranks.chunks(batch).enumerate() {
            // A batch is what one connection sent, and a connection belongs to one cache.
            let caches = self.caches.len() as u64;
            let number = ranks[0] % caches;
            let cache = &self.caches[number as usize];
            let mut keys = [[0_u8; 16]; BATCH];
            for (key_of, &rank) in keys.iter_mut().zip(ranks) {
                *key_of = key(rank - rank % caches + number);
            }
            let mut located: [Option<Located<'_>>; BATCH] = [None; BATCH];
            for (at, key) in located.iter_mut().zip(&keys).take(ranks.len()) {
                *at = Some(cache.locate(key));
            }
            let mut turn = cache.turn();
            if batch > 1 {
                let batch: Vec<Located<'_>> = located.iter().flatten().copied().collect();
                turn.warm(&batch);
            }
            for (number, at) in located.iter().flatten().enumerate() {
                if is_set(start * batch + number) {
                    turn.store(at, StoreArgs::set(&value, 0, Expiry::Never), NOW);
                } else {
                    hits += turn.get(at, GetArgs::default(), NOW, |hit| {
                        hit.map_or(0, |hit| {
                            output.extend_from_slice(hit.value);
                            1
                        })
                    });
                }
                if output.len() > 60_000 {
                    output.clear();
                }
            }
        }
        ((cpu_time() - begin).as_nanos() as f64 / ranks.len() as f64, hits)
    }
}
