//! Goal 15: what it costs to watch a cache, and what is seen.

use std::sync::Arc;

use store::operation::{GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;
use testbed::workload::chance::{Random, Zipf};

use crate::keys::key;
use crate::report::{Report, cpu_time, median};

const KEYS: usize = 200_000;
const OPERATIONS: usize = 1_000_000;
/// Pairs of runs, each on and off: the difference is a few nanoseconds.
const PAIRS: usize = 15;
/// Requests of a second of the virtual clock.
const PER_SECOND: usize = 100_000;

pub(crate) fn run(report: &mut Report) {
    let store = Store::new(Settings { memory_bytes: 256 << 20, seed: 3 });
    let limits = CacheLimits { memory_bytes: 32 << 20, item_bytes_max: 1 << 20 };
    let cache = store.create_cache(CacheId::new(1), limits).expect("there is room");
    let zipf = Zipf::new(KEYS, 0.99);
    let mut random = Random::new(42);
    let ranks: Vec<u64> = (0..OPERATIONS).map(|_| zipf.rank(&mut random) as u64).collect();
    // No maintenance, so that nothing is watched by itself, and then seconds that pass.
    let mut second = 1;
    work(&store, &cache, &ranks, &mut second, false);
    let (mut off, mut on) = (Vec::new(), Vec::new());
    let mut watched_bytes = 0;
    for _ in 0..PAIRS {
        off.push(work(&store, &cache, &ranks, &mut second, false));
        let before = cache.stats().held_bytes;
        cache.watch(true);
        on.push(work(&store, &cache, &ranks, &mut second, true));
        watched_bytes = cache.stats().held_bytes.saturating_sub(before);
        check(report, &cache, &ranks, on.len() == PAIRS);
        cache.watch(false);
        rest(&store, &mut second);
    }
    let shares: Vec<f64> = off.iter().zip(&on).map(|(off, on)| (on / off - 1.0) * 100.0).collect();
    let share = median(shares);
    report.figure(
        "15: CPU of watching a cache",
        format!("{share:+.1} % of {:.0} ns per request", median(off)),
        "-",
        "<= 3 %",
        share <= 3.0,
    );
    report.figure(
        "15: memory of watching a cache",
        format!("{watched_bytes} B"),
        "-",
        "<= 8,192 B",
        watched_bytes <= 8_192,
    );
}

/// Nanoseconds of CPU per request.
fn work(store: &Store, cache: &Arc<Cache>, ranks: &[u64], second: &mut u32, tick: bool) -> f64 {
    let begin = cpu_time();
    for (number, &rank) in ranks.iter().enumerate() {
        let now = Seconds(*second);
        let key = key(rank);
        let at = cache.locate(&key);
        if !cache.get(&at, GetArgs::default(), now, |hit| hit.is_some()) {
            let set = StoreArgs::set(&[7; 100], 0, store::operation::Expiry::Never);
            cache.store(&at, set, now);
        }
        if tick && number % PER_SECOND == 0 {
            *second += 1;
            store.maintain(Seconds(*second), 1_000);
        }
    }
    (cpu_time() - begin).as_nanos() as f64 / ranks.len() as f64
}

/// Seconds without a request, after which no cache counts as busy.
fn rest(store: &Store, second: &mut u32) {
    for _ in 0..40_000 {
        *second += 1;
    }
    while store.maintain(Seconds(*second), 1_000) {}
}

/// Every key that makes 1 % is shown, and prefixes are counted right.
fn check(report: &mut Report, cache: &Cache, ranks: &[u64], tell: bool) {
    if !tell {
        return;
    }
    let mut counts = std::collections::HashMap::new();
    // Counts fade by halves each thirty seconds, which no run lasts.
    ranks.iter().for_each(|rank| *counts.entry(*rank).or_insert(0_u64) += 1);
    let tops = cache.top_keys();
    let frequent: Vec<_> =
        counts.iter().filter(|(_, count)| **count * 100 >= ranks.len() as u64).collect();
    let seen =
        frequent.iter().filter(|(rank, _)| tops.iter().any(|top| top.text == key(**rank))).count();
    report.figure(
        "15: keys that make 1 % or more, after 10 s of 100,000 requests",
        format!("{seen} of {}", frequent.len()),
        "memcached detail: exact, but costly",
        "all",
        seen == frequent.len(),
    );
    let prefix = cache.top_prefixes().first().map_or(0, |top| top.requests);
    let stats = cache.stats();
    let asked = ranks.len() as f64;
    let error = (prefix as f64 / asked - 1.0) * 100.0;
    report.figure(
        "15: error of a prefix's count",
        format!("{error:+.1} % (writes after misses count too; {} sets in all)", stats.cmd_set),
        "-",
        "within 5 %",
        error.abs() <= 5.0,
    );
}
