//! Many threads on the same caches: no torn value, no lost account, no deadlock.
//!
//! Every value says which key and version it is and fills itself with that, so a reader can tell a
//! whole value from a mixture. Caches lend, so that threads take memory from one another all the
//! time, while others resize, flush, delete and maintain.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use store::operation::{
    ArithmeticArgs, ArithmeticOutcome, DeleteArgs, Direction, Expiry, GetArgs, Seconds, StoreArgs,
    StoreOutcome,
};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;

const CACHES: u64 = if cfg!(miri) { 2 } else { 6 };
const KEYS: u64 = if cfg!(miri) { 20 } else { 400 };
/// Of each worker. Miri is some thousand times slower, but watches every access.
const STEPS: u64 = if cfg!(miri) { 40 } else { 40_000 };
const WORKERS: u64 = 4;
const LIMITS: CacheLimits = CacheLimits { memory_bytes: 120_000, item_bytes_max: 60_000 };

/// The requests of a batch share the lock; after a large one others have their turn.
#[test]
fn a_batch_lets_others_in_after_a_large_value() {
    let store = Store::new(Settings { memory_bytes: 8 << 20, seed: 5 });
    let limits = CacheLimits { memory_bytes: 1 << 20, item_bytes_max: 200_000 };
    let cache = store.create_cache(CacheId::new(1), limits).expect("it fits");
    let set = |bytes| StoreArgs::set(&[7; 100_000][..bytes], 0, Expiry::Never);
    let mut batch = cache.turn();
    batch.store(&cache.locate(b"small"), set(10), Seconds(1));
    batch.store(&cache.locate(b"large"), set(100_000), Seconds(1));
    let found = |key: &[u8]| {
        cache.get(&cache.locate(key), GetArgs::default(), Seconds(1), |hit| hit.is_some())
    };
    assert!(found(b"large"), "the lock was let go, else this thread would wait for itself");
    batch.get(&cache.locate(b"large"), GetArgs::default(), Seconds(1), |_| ());
    assert!(found(b"small"), "a read of much lets go as well");
}

#[test]
fn values_are_whole_whatever_other_threads_do() {
    let store = Store::new(Settings { memory_bytes: 1 << 20, seed: 5 }).lending(500);
    for id in 0..CACHES {
        store.create_cache(CacheId::new(id), LIMITS).expect("all fit");
    }
    let done = AtomicBool::new(false);
    let hits = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..=WORKERS)
            .map(|seed| {
                scope.spawn({
                    let store = &store;
                    move || work(store, seed)
                })
            })
            .collect();
        let upheaval = scope.spawn(|| disturb(&store, &done));
        let hits: u64 = workers.into_iter().map(|worker| worker.join().expect("a law broke")).sum();
        done.store(true, Relaxed);
        upheaval.join().expect("a law broke");
        hits
    });
    assert!(hits > STEPS / 10, "only {hits} hits, so little was seen");

    // With everything at rest the accounts must be exact.
    for id in 0..CACHES {
        let cache = store.cache(CacheId::new(id)).expect("recreated at the latest");
        let (mut items, mut bytes) = (0, 0);
        for number in 0..KEYS {
            let key = key(number);
            cache.peek(&cache.locate(&key), Seconds(1), |hit| {
                if let Some(hit) = hit {
                    items += 1;
                    bytes += (key.len() + hit.value.len()) as u64;
                }
            });
        }
        let stats = cache.stats();
        assert_eq!((stats.items, stats.bytes), (items, bytes));
        assert!(store.remove_cache(CacheId::new(id)));
    }
    while store.maintain(Seconds(1), 1_000) {}
    assert_eq!(store.stats().used_bytes, 0, "every block came back");
}

/// Each count happens exactly once, however many threads count.
#[test]
fn no_count_is_lost() {
    let store = Store::new(Settings { memory_bytes: 4 << 20, seed: 5 });
    let cache = store.create_cache(CacheId::new(1), LIMITS).expect("it fits");
    cache.store(&cache.locate(b"n"), StoreArgs::set(b"0", 0, Expiry::Never), Seconds(1));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for _ in 0..STEPS / 4 {
                    let one = ArithmeticArgs::plain(Direction::Increment, 1);
                    let counted = cache.arithmetic(&cache.locate(b"n"), one, Seconds(1));
                    assert!(matches!(counted, ArithmeticOutcome::Counted { .. }), "{counted:?}");
                }
            });
        }
    });
    let text = cache.get(&cache.locate(b"n"), GetArgs::default(), Seconds(1), |hit| {
        hit.map(|hit| hit.value.to_vec())
    });
    assert_eq!(text, Some((WORKERS * (STEPS / 4)).to_string().into_bytes()));
}

/// Of several threads that compare and swap the same value, one wins.
#[test]
fn a_cas_value_is_used_once() {
    let store = Store::new(Settings { memory_bytes: 4 << 20, seed: 5 });
    let cache = store.create_cache(CacheId::new(1), LIMITS).expect("it fits");
    let winners = Mutex::new(Vec::new());
    let set = cache.store(&cache.locate(b"k"), StoreArgs::set(b"0", 0, Expiry::Never), Seconds(1));
    let StoreOutcome::Stored { cas: first, .. } = set else { panic!("{set:?}") };
    winners.lock().expect("no thread panics").push(first);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for _ in 0..STEPS / 8 {
                    let at = cache.locate(b"k");
                    let current = cache.get(&at, GetArgs::default(), Seconds(1), |hit| {
                        hit.expect("it never leaves").cas
                    });
                    let args = StoreArgs {
                        compare_cas: Some(current),
                        ..StoreArgs::set(b"1", 0, Expiry::Never)
                    };
                    if let StoreOutcome::Stored { cas, .. } = cache.store(&at, args, Seconds(1)) {
                        winners.lock().expect("no thread panics").push(cas);
                    }
                }
            });
        }
    });
    let mut winners = winners.into_inner().expect("no thread panics");
    let count = winners.len();
    winners.sort_unstable();
    winners.dedup();
    assert_eq!(winners.len(), count, "two threads won with one value");
    assert_eq!(cache.stats().cas_hits, count as u64 - 1);
}

/// Reads and writes; returns how often it read something.
fn work(store: &Store, seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut hits = 0;
    for step in 0..STEPS {
        let Some(cache) = store.cache(CacheId::new(random.below(CACHES))) else { continue };
        let number = random.below(KEYS);
        let key = key(number);
        let at = cache.locate(&key);
        let now = Seconds(1);
        match random.below(20) {
            0..12 => cache.get(&at, GetArgs::default(), now, |hit| {
                if let Some(hit) = hit {
                    assert_whole(number, hit.value);
                    hits += 1;
                }
            }),
            12..19 => {
                let bytes = if random.below(30) == 0 { 30_000 } else { 700 };
                let value = value(number, step, random.below(bytes));
                cache.store(&at, StoreArgs::set(&value, 0, Expiry::Never), now);
            }
            _ => {
                cache.delete(&at, DeleteArgs::default(), now);
            }
        }
    }
    hits
}

/// Resizes, flushes, deletes, recreates and maintains until the workers are done.
fn disturb(store: &Store, done: &AtomicBool) {
    let mut random = Random(99);
    while !done.load(Relaxed) {
        let id = CacheId::new(random.below(CACHES));
        let cache: Arc<Cache> = store.cache(id).expect("this thread alone removes caches");
        match random.below(200) {
            0 => {
                assert!(store.remove_cache(id));
                store.create_cache(id, LIMITS).expect("its memory was given back");
            }
            1 => cache.flush(Seconds(1), Seconds(1)),
            2..10 => {
                let memory_bytes = LIMITS.memory_bytes / (1 + random.below(2));
                let limits = CacheLimits { memory_bytes, ..LIMITS };
                store.resize_cache(id, limits, Seconds(1)).expect("never more than at first");
            }
            // Another second each time, so that maintenance does not rest.
            second => {
                store.maintain(Seconds(1 + second as u32 % 2), 50);
            }
        }
        let stats = store.stats();
        assert!(stats.used_bytes <= stats.memory_bytes);
        assert!(stats.guaranteed_bytes <= stats.memory_bytes);
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

/// Key and version, over and over.
fn value(number: u64, version: u64, bytes: u64) -> Vec<u8> {
    let unit = [number.to_le_bytes(), version.to_le_bytes()].concat();
    unit.iter().copied().cycle().take(16 + bytes as usize).collect()
}

#[track_caller]
fn assert_whole(number: u64, value: &[u8]) {
    assert_eq!(value[..8], number.to_le_bytes(), "another key's value");
    let (unit, rest) = value.split_at(16);
    assert!(
        rest.iter().zip(unit.iter().cycle()).all(|(byte, expected)| byte == expected),
        "a mixture of values"
    );
}

/// Chance from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.max(1)
    }
}
