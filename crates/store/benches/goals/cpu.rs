//! CPU time per operation, with one cache and with 4,000.

use std::sync::Arc;

use store::operation::{Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Located, Settings, Store};
use tenancy::id::CacheId;

use crate::report::{Report, cpu_time, median};
use crate::workload::{Random, Zipf, key};

const KEYS: usize = 2_000_000;
const VALUE_BYTES: usize = 300;
const MEMORY_BYTES: u64 = 256 << 20;
const OPERATIONS: usize = 6_000_000;
const SETS_PERCENT: u64 = 15;
/// Requests that arrive together from pipelining clients.
const BATCH: usize = 32;
const RUNS: usize = 3;
const NOW: Seconds = Seconds(1);

pub(crate) fn run(report: &mut Report) {
    let mut random = Random(42);
    let zipf = Zipf::new(KEYS, 0.99);
    // Ranks are spread over the keys, so that hot keys are no neighbours in memory.
    let ranks: Vec<u64> = (0..OPERATIONS)
        .map(|_| (zipf.rank(&mut random) as u64).wrapping_mul(0x9e37_79b1) % KEYS as u64)
        .collect();
    let sets: Vec<bool> = ranks.iter().map(|_| random.below(100) < SETS_PERCENT).collect();
    for (caches, mixed_target, get_target, bars) in [
        (1, 300.0, 200.0, ["segcache 341-387", "segcache 208-278"]),
        (4_000, 450.0, 250.0, ["prototype 325-442", "prototype 179-225"]),
    ] {
        let setup = Setup::new(caches);
        // Fill, and let the queues find their balance.
        for _ in 0..2 {
            setup.run(&ranks, |_| true, BATCH);
        }
        let (mut mixed, mut gets, mut single) = (Vec::new(), Vec::new(), Vec::new());
        let mut hits = 0;
        for _ in 0..RUNS {
            mixed.push(setup.run(&ranks, |at| sets[at], BATCH).0);
            let (time, found) = setup.run(&ranks, |_| false, BATCH);
            gets.push(time);
            hits = found;
            single.push(setup.run(&ranks, |_| false, 1).0);
        }
        let share = hits * 100 / OPERATIONS;
        let (mixed, gets, single) = (median(mixed), median(gets), median(single));
        let name = |what: &str| format!("11: ns per {what}, {caches} caches");
        let figure = |time: f64| format!("{time:.0} ns");
        report.figure(
            &name("operation, 15 % sets"),
            figure(mixed),
            bars[0],
            &format!("<= {mixed_target} ns"),
            mixed <= mixed_target,
        );
        report.figure(
            &name(&format!("get in batches, {share} % hits")),
            figure(gets),
            bars[1],
            &format!("<= {get_target} ns"),
            gets <= get_target,
        );
        report.figure(
            &name("get one at a time"),
            figure(single),
            bars[1],
            &format!("<= {get_target} ns"),
            single <= get_target,
        );
    }
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
            if batch > 1 {
                let batch: Vec<Located<'_>> = located.iter().flatten().copied().collect();
                cache.warm(&batch);
            }
            for (number, at) in located.iter().flatten().enumerate() {
                if is_set(start * batch + number) {
                    cache.store(at, StoreArgs::set(&value, 0, Expiry::Never), NOW);
                } else {
                    hits += cache.get(at, GetArgs::default(), NOW, |hit| {
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
