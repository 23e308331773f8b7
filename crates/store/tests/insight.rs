//! What the store tells of a cache beside its items, and what it gives back.

use std::sync::Arc;

use store::operation::{Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use store::working_set::SIZES_PERCENT;
use tenancy::id::CacheId;

const MIB: u64 = 1 << 20;

fn store_with(memory_bytes: u64, cache_bytes: u64) -> (Store, Arc<Cache>) {
    let store = Store::new(Settings { memory_bytes, seed: 7 });
    let limits = CacheLimits { memory_bytes: cache_bytes, item_bytes_max: 1 << 20 };
    let cache = store.create_cache(CacheId::new(1), limits).expect("it is the only cache");
    (store, cache)
}

fn set(cache: &Cache, key: &str, value: &[u8], expiry: Expiry, now: Seconds) {
    cache.store(&cache.locate(key.as_bytes()), StoreArgs::set(value, 0, expiry), now);
}

fn get(cache: &Cache, key: &str, now: Seconds) -> bool {
    cache.get(&cache.locate(key.as_bytes()), GetArgs::default(), now, |hit| hit.is_some())
}

/// Maintenance of one second.
fn maintain(store: &Store, now: Seconds) {
    while store.maintain(now, 1_000) {}
}

#[test]
fn sizes_and_lifetimes_are_counted_as_they_are_written() {
    let (_store, cache) = store_with(8 * MIB, MIB);
    let now = Seconds(100);
    set(&cache, "k", &[1; 98], Expiry::Never, now);
    set(&cache, "k", &[1; 62], Expiry::At(Seconds(100)), now);
    set(&cache, "k", &[1; 63], Expiry::At(Seconds(103)), now);
    set(&cache, "k", &[1; 30_000], Expiry::At(Seconds(100 + 86_400)), now);
    let histograms = cache.histograms();
    let sizes: Vec<_> = (0..24).filter(|&n| histograms.sizes[n] > 0).collect();
    assert_eq!(sizes, [6, 7, 15], "63 B; 64 and 99 B; 30,001 B");
    assert_eq!(histograms.sizes[7], 2);
    let lifetimes: Vec<_> = (0..12).filter(|&n| histograms.lifetimes[n] > 0).collect();
    assert_eq!(lifetimes, [0, 1, 9, 11], "none, 3 s, a day, for ever");
    cache.reset_stats();
    assert_eq!(cache.histograms(), store::stats::Histograms::default());
}

#[test]
fn a_busy_cache_is_watched_by_itself() {
    let (store, cache) = store_with(8 * MIB, MIB);
    for second in 1..6 {
        maintain(&store, Seconds(second));
        for request in 0..2_000 {
            let key =
                if request % 4 == 0 { "user:1".to_owned() } else { format!("page/{request}") };
            get(&cache, &key, Seconds(second));
        }
    }
    let keys = cache.top_keys();
    assert_eq!(keys.first().map(|top| top.text.as_slice()), Some(&b"user:1"[..]));
    assert_eq!(cache.top_prefixes().first().map(|top| top.text.as_slice()), Some(&b"page/"[..]));
    // Some seconds of silence.
    (6..10).for_each(|second| maintain(&store, Seconds(second)));
    assert!(cache.top_keys().is_empty() && cache.working_set().requests == 0);
}

/// The estimate of a cache against caches of the other sizes.
#[test]
#[cfg_attr(miri, ignore = "millions of requests take hours there")]
fn the_working_set_tells_what_other_sizes_hit() {
    const KEYS: u64 = 20_000;
    const REQUESTS: u64 = 400_000;
    let limit = 3 * MIB;
    let hits_percent = |cache: &Cache| {
        let mut random = 88_172_645_463_325_252_u64;
        let (mut hits, mut asked) = (0, 0);
        for request in 0..REQUESTS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The cube of an even chance: the lower a key's number, the more it is asked for.
            let even = (random >> 40) as f64 / (1 << 24) as f64;
            let key = format!("key:{:08}", (even * even * even * KEYS as f64) as u64);
            let hit = get(cache, &key, Seconds(1));
            if !hit {
                set(cache, &key, &[5; 600], Expiry::Never, Seconds(1));
            }
            if request >= REQUESTS / 2 {
                hits += u64::from(hit);
                asked += 1;
            }
        }
        hits as f64 * 100.0 / f64::from(asked)
    };
    let (_store, cache) = store_with(64 * MIB, limit);
    cache.watch(true);
    hits_percent(&cache);
    let curve = cache.working_set();
    for (percent, told) in SIZES_PERCENT.iter().zip(curve.hits_percent()) {
        let (_store, other) = store_with(64 * MIB, limit * u64::from(*percent) / 100);
        let truth = hits_percent(&other);
        assert!((told - truth).abs() < 6.0, "{percent} %: {told} told, {truth} true");
    }
    let touched = KEYS as f64 * 612.0;
    let share = curve.touched_bytes as f64 / touched;
    assert!((0.6..1.3).contains(&share), "{share} of {touched} bytes");
}
