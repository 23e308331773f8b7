//! Goal 3: how much of what a tenant pays for it can hold before anything is evicted, when its keys
//! are spread over several backends.

use std::sync::Arc;

use store::operation::{Expiry, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;
use testbed::workload::chance::Random;

use crate::keys::key;
use crate::report::{Report, median};

const PAID: u64 = 25 << 20;
/// Slots of the placement table, dealt out evenly as Maglev does.
const SLOTS: u64 = 65_537;
/// A tenant is on no more backends than leave each this much of its plan.
const SHARE_FLOOR: u64 = 8 << 20;
/// Items between two rounds of the controller: at 10,000 sets a second, a second.
const ROUND: u64 = 1_000;
const RUNS: u64 = 5;
/// Log-normal medians and sigmas of the study: a mean of 616 B and one of 6.2 KB.
const SIZES: [(&str, f64, f64, f64); 2] =
    [("~1 KB", 300.0, 1.2, 0.98), ("~10 KB", 3_000.0, 1.2, 0.95)];

pub(crate) fn run(report: &mut Report) {
    for (name, median_bytes, sigma, target) in SIZES {
        for backends in [3, 12, 50] {
            let held = |backends, elastic| {
                let run = |seed| first_eviction(backends, median_bytes, sigma, elastic, seed);
                median((1..=RUNS).map(run).collect())
            };
            let fixed = held(backends, false);
            let elastic = held(backends, true);
            let floor = held(backends.min(PAID / SHARE_FLOOR), true);
            report.figure(
                &format!("3: share of 25 MB held at the first eviction, {name}, {backends} backends"),
                format!(
                    "{elastic:.3} by elastic shares, {floor:.3} on {} of them; {fixed:.3} by fixed shares",
                    backends.min(PAID / SHARE_FLOOR)
                ),
                "Maglev fixed .985 / .94 / .85 (~1 KB)",
                &format!(">= {target}"),
                elastic.max(floor) >= target,
            );
        }
    }
}

/// Fills a plan spread over so many backends, each its own store with memory to spare, until any of
/// them evicts. With `elastic` shares a controller moves shares to where the bytes are, the sum
/// staying what was paid.
fn first_eviction(backends: u64, median_bytes: f64, sigma: f64, elastic: bool, seed: u64) -> f64 {
    let mut random = Random::new(seed);
    let share = PAID / backends;
    let limits = |memory_bytes| CacheLimits { memory_bytes, item_bytes_max: 1 << 20 };
    // Neighbours do not fill theirs, so there is memory, but a share is a share.
    let nodes: Vec<(Store, Arc<Cache>)> = (0..backends)
        .map(|_| {
            let store = Store::new(Settings { memory_bytes: 4 * PAID, seed });
            let cache = store.create_cache(CacheId::new(1), limits(share)).expect("there is room");
            (store, cache)
        })
        .collect();
    let value = vec![7; 1 << 20];
    let now = Seconds(1);
    let mut bytes = 0;
    for number in 0.. {
        let node = (random.below(SLOTS) * backends / SLOTS) as usize;
        let size = random.log_normal(median_bytes, sigma).clamp(1.0, 200_000.0) as usize;
        let key = key(number);
        let cache = &nodes[node].1;
        let set = StoreArgs::set(&value[..size], 0, Expiry::Never);
        cache.store(&cache.locate(&key), set, now);
        if cache.stats().evictions > 0 || bytes >= PAID {
            break;
        }
        bytes += (key.len() + size) as u64;
        if elastic && number % ROUND == ROUND - 1 {
            balance(&nodes, now);
        }
    }
    bytes as f64 / PAID as f64
}

/// Gives each backend what it holds, and an equal part of what is left of the plan.
fn balance(nodes: &[(Store, Arc<Cache>)], now: Seconds) {
    let held: Vec<u64> = nodes.iter().map(|(_, cache)| cache.stats().bytes).collect();
    let left = PAID.saturating_sub(held.iter().sum()) / nodes.len() as u64;
    for ((store, cache), held) in nodes.iter().zip(held) {
        let limits = CacheLimits { memory_bytes: held + left, item_bytes_max: 1 << 20 };
        store.resize_cache(cache.id(), limits, now).expect("there is memory to spare");
    }
}
