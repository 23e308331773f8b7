//! Hit ratios: of the real traces, of an item size that changes, of lifetimes, and of a cache that
//! comes back to memory it had lent. All by a virtual clock, so that load does not matter.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use store::operation::{Expiry, GetArgs, Seconds, StoreArgs};
use store::scan::Cursor;
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;
use testbed::workload::chance::{Random, Zipf};

use crate::keys::key;
use crate::report::Report;

const MIB: u64 = 1 << 20;

/// Goals 4 and 5: the two traces, with equal and with log-normal sizes.
pub(crate) fn traces(report: &mut Report) {
    let Ok(folder) = std::env::var("TRACES") else {
        println!("(TRACES names no folder, so nothing is replayed)");
        return;
    };
    let names = ["web12", "orm-busy"];
    let traces = names.map(|name| trace(&Path::new(&folder).join(format!("{name}.trace.xz"))));
    // Entries of the cache, and the miss ratios of LRU and of S3-FIFO by the item.
    for (name, entries, lru, s3fifo) in [
        ("web12", 137, 0.603, 0.590),
        ("web12", 412, 0.468, 0.419),
        ("web12", 1_375, 0.315, 0.278),
        ("web12", 4_126, 0.207, 0.195),
        ("orm-busy", 229, 0.400, 0.406),
        ("orm-busy", 763, 0.230, 0.244),
        ("orm-busy", 2_290, 0.182, 0.174),
        ("orm-busy", 7_634, 0.120, 0.111),
        ("orm-busy", 22_904, 0.057, 0.052),
    ] {
        let trace = &traces[usize::from(name == "orm-busy")];
        let misses = replay(trace, entries * 316, |_| 300);
        report.figure(
            &format!("4: miss ratio of {name}, room for {entries} items of 300 B"),
            format!("{misses:.4}"),
            &format!("LRU {lru}, S3-FIFO {s3fifo}"),
            "<= S3-FIFO + .02, mean + .005",
            misses <= s3fifo + 0.02,
        );
    }
    for (name, bytes, bar, target) in [
        ("web12", 812 << 10, "LRU .318, item S3-FIFO .284", 0.287),
        ("orm-busy", 4_608 << 10, "LRU .1199, item S3-FIFO .1122", 0.1140),
    ] {
        let trace = &traces[usize::from(name == "orm-busy")];
        // The size belongs to the key, whenever it is written.
        let size = |id: u32| {
            let mut random = Random(u64::from(id) * 2 + 1);
            random.word();
            random.log_normal(300.0, 1.2).clamp(1.0, 100_000.0) as usize
        };
        let misses = replay(trace, bytes, size);
        report.figure(
            &format!("5: miss ratio of {name}, log-normal sizes, {} KB", bytes >> 10),
            format!("{misses:.4}"),
            &format!("{bar} (with the study's own sizes)"),
            &format!("<= {target}"),
            misses <= target,
        );
    }
}

/// Goal 6: 200 B values fill the cache, then 25,000 values of 2,000 B are wanted, which fit.
pub(crate) fn shift(report: &mut Report) {
    const KEYS: u64 = 25_000;
    /// Requests of a pass: four for each key.
    const REQUESTS: u64 = 4 * KEYS;
    let (_store, cache) = one_cache(64 * MIB, 128 * MIB);
    let now = Seconds(1);
    for number in 0..400_000 {
        set(&cache, number, &[1; 200], Expiry::Never, now);
    }
    let zipf = Zipf::new(KEYS as usize, 0.6);
    let mut random = Random(6);
    let mut passes = Vec::new();
    // What a cache that never evicts would hit: each key misses once.
    let (mut seen, mut ideal) = (vec![false; KEYS as usize], 0.0);
    for pass in 1..=7 {
        let (mut hits, mut known) = (0, 0);
        for _ in 0..REQUESTS {
            let rank = zipf.rank(&mut random);
            known += u32::from(std::mem::replace(&mut seen[rank], true));
            let number = 1_000_000 + rank as u64;
            if get(&cache, number, now) {
                hits += 1;
            } else {
                set(&cache, number, &[2; 2_000], Expiry::Never, now);
            }
        }
        passes.push(f64::from(hits) / REQUESTS as f64);
        if pass == 4 {
            ideal = f64::from(known) / REQUESTS as f64;
        }
    }
    let fourth = passes[3];
    let all: Vec<String> = passes.iter().map(|share| format!("{share:.3}")).collect();
    report.figure(
        "6: hits after items grew from 200 B to 2,000 B, pass 4",
        format!("{fourth:.3}, unlimited {ideal:.3} (passes: {})", all.join(" ")),
        "memcached .64 after 24 passes; automove=2 .96",
        ">= .98",
        fourth >= 0.98,
    );
}

/// Goal 9: lifetimes of Twitter's cluster 4.
pub(crate) fn expiry(report: &mut Report) {
    for (memory, per_second, target) in [(16 * MIB, 300_u64, 15.0), (300 << 10, 6, 25.0)] {
        let (store, cache) = one_cache(memory, 4 * memory + 4 * MIB);
        let mut random = Random(8);
        let zipf = Zipf::new((memory / 300) as usize * 3, 0.9);
        let (mut resident, mut samples) = (0.0, 0);
        for second in 1..6_000 {
            let now = Seconds(second);
            for _ in 0..per_second {
                let number = zipf.rank(&mut random) as u64;
                if !get(&cache, number, now) {
                    let life = match random.below(100) {
                        0..39 => 60,
                        39..63 => 300,
                        63..76 => 3_600,
                        76..88 => 600,
                        88..97 => 14_400,
                        _ => 86_400,
                    };
                    set(&cache, number, &[3; 284], Expiry::At(Seconds(second + life)), now);
                }
            }
            while store.maintain(now, 1_000) {}
            if second > 3_000 && second % 100 == 0 {
                let living = living_bytes(&cache, now);
                resident += 100.0 - living as f64 * 100.0 / cache.stats().bytes as f64;
                samples += 1;
            }
        }
        let resident = resident / f64::from(samples);
        report.figure(
            &format!("9: expired bytes among those held, six lifetimes, {} KB", memory >> 10),
            format!("{resident:.1} %"),
            "LRU 4-60 %",
            &format!("<= {target} %"),
            resident <= target,
        );
    }
}

/// Goal 8: a cache whose memory was lent comes back for all of it at once.
pub(crate) fn guarantee(report: &mut Report) {
    const BORROWERS: u64 = 7;
    let store = Store::new(Settings { memory_bytes: 160 * MIB, seed: 2 }).lending(400);
    let limits = CacheLimits { memory_bytes: 16 * MIB, item_bytes_max: MIB as u32 };
    let caches: Vec<Arc<Cache>> = (0..=BORROWERS)
        .map(|id| store.create_cache(CacheId::new(id), limits).expect("all are promised"))
        .collect();
    let now = Seconds(1);
    // The others fill all there is, and read what they wrote, so that it seems worth keeping.
    for number in 0..60_000 {
        for cache in &caches[1..] {
            set(cache, number, &[4; 1_000], Expiry::Never, now);
            get(cache, number, now);
        }
    }
    let borrowed: u64 = caches[1..].iter().map(|cache| cache.stats().bytes).sum();
    println!(
        "(the others hold {:.0} % of their guarantee)",
        borrowed as f64 * 100.0 / (7.0 * 16.0 * MIB as f64)
    );
    let victim = &caches[0];
    let mut refused = 0;
    let items = 16 * MIB / 1_016 - 1;
    for number in 0..items {
        refused += u64::from(!set(victim, number, &[5; 1_000], Expiry::Never, now));
        for cache in &caches[1..] {
            set(cache, 100_000 + number, &[4; 1_000], Expiry::Never, now);
        }
    }
    let stats = victim.stats();
    report.figure(
        "8: writes of a cache below its guarantee that failed or evicted, all memory lent",
        format!("{refused} failed, {} evicted, of {items}", stats.evictions),
        "nobody offers it",
        "0",
        refused == 0 && stats.evictions == 0,
    );
    let least = caches[1..].iter().map(|cache| cache.stats().bytes).min().unwrap_or(0);
    report.figure(
        "8: guarantee held by the cache that was squeezed most",
        format!("{:.1} %", least as f64 * 100.0 / (16 * MIB) as f64),
        "greedy LRU: no bound",
        ">= 97 %",
        least * 100 >= 97 * 16 * MIB,
    );
}

/// Key and value bytes of what has not expired.
fn living_bytes(cache: &Cache, now: Seconds) -> u64 {
    let (mut cursor, mut bytes) = (Cursor::default(), 0);
    while cache
        .scan(&mut cursor, 1_000, now, |key, hit| bytes += (key.len() + hit.value.len()) as u64)
    {
    }
    bytes
}

fn one_cache(memory_bytes: u64, store_bytes: u64) -> (Store, Arc<Cache>) {
    let store = Store::new(Settings { memory_bytes: store_bytes, seed: 9 });
    let limits = CacheLimits { memory_bytes, item_bytes_max: MIB as u32 };
    let cache = store.create_cache(CacheId::new(1), limits).expect("there is room");
    (store, cache)
}

fn get(cache: &Cache, number: u64, now: Seconds) -> bool {
    let key = key(number);
    cache.get(&cache.locate(&key), GetArgs::default(), now, |hit| hit.is_some())
}

fn set(cache: &Cache, number: u64, value: &[u8], expiry: Expiry, now: Seconds) -> bool {
    use store::operation::StoreOutcome;
    let key = key(number);
    let outcome = cache.store(&cache.locate(&key), StoreArgs::set(value, 0, expiry), now);
    matches!(outcome, StoreOutcome::Stored { .. })
}

/// The ids of a trace: big-endian 32-bit numbers, packed by xz.
fn trace(path: &Path) -> Vec<u32> {
    let output = Command::new("xz").arg("-dc").arg(path).output().expect("xz is installed");
    let words = output.stdout.chunks_exact(4);
    words.map(|word| u32::from_be_bytes(word.try_into().expect("four bytes"))).collect()
}

/// Miss ratio of a look-aside cache of so many bytes of keys and values.
fn replay(trace: &[u32], bytes: u64, size: impl Fn(u32) -> usize) -> f64 {
    let (_store, cache) = one_cache(bytes, 4 * bytes + 4 * MIB);
    let value = vec![6; 100_000];
    let now = Seconds(1);
    let mut misses = 0;
    for &id in trace {
        if !get(&cache, u64::from(id), now) {
            misses += 1;
            set(&cache, u64::from(id), &value[..size(id)], Expiry::Never, now);
        }
    }
    f64::from(misses) / trace.len() as f64
}
