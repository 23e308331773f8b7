//! What threads share, in thousands of orders of their steps: `cargo test -p store --features
//! shuttle --test interleavings`.
//!
//! With that feature every lock and every atomic of the store is a point at which another thread
//! may go on; shuttle picks who, from a seed that a failure prints. `threads.rs` tests the same
//! laws on real threads, where far fewer orders happen, but many more steps.

use std::sync::Arc;

use shuttle::thread;
use store::operation::{
    ArithmeticArgs, DeleteArgs, Direction, Expiry, GetArgs, Seconds, StoreArgs, StoreOutcome,
};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;

/// Orders tried of each test, in each of two ways; all take about five seconds.
const ORDERS: usize = 2_000;
/// Changes of thread at the worst places, of which few are needed to show most mistakes (Burckhardt
/// et al., ASPLOS 2010).
const CHANGES: usize = 3;
const NOW: Seconds = Seconds(1);
const BLOCK_BYTES: u64 = 8_192;
/// Five blocks are promised for it: three for the bytes and two that are being filled.
const LIMITS: CacheLimits = CacheLimits { memory_bytes: 20_000, item_bytes_max: 16_000 };

/// Tries out orders drawn evenly, and orders that change seldom.
fn in_every_order(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(test, ORDERS);
    shuttle::check_pct(test, ORDERS, CHANGES);
}

fn store_of(blocks: u64, caches: u64) -> Arc<Store> {
    let settings = Settings { memory_bytes: blocks * BLOCK_BYTES, seed: 5 };
    let store = Store::new(settings).lending(400);
    for id in 0..caches {
        store.create_cache(CacheId::new(id), LIMITS).expect("all are promised");
    }
    Arc::new(store)
}

fn cache(store: &Store, id: u64) -> Arc<Cache> {
    store.cache(CacheId::new(id)).expect("nobody removes it")
}

fn set(cache: &Cache, key: &[u8], value: &[u8]) -> StoreOutcome {
    cache.store(&cache.locate(key), StoreArgs::set(value, 0, Expiry::Never), NOW)
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number}").into_bytes()
}

/// Every block is free again when all caches are gone.
fn assert_all_comes_back(store: &Store, caches: u64) {
    for id in 0..caches {
        store.remove_cache(CacheId::new(id));
    }
    while store.maintain(NOW, 1_000) {}
    assert_eq!((store.stats().used_bytes, store.stats().guaranteed_bytes), (0, 0));
}

/// The law of lending: all memory is lent, two borrowers want more of it, and a cache that returns
/// still gets what it was promised, at once and without evicting its own.
#[test]
fn a_guarantee_is_met_while_borrowers_grow() {
    in_every_order(|| {
        let store = store_of(20, 3);
        for number in 0..100 {
            set(&cache(&store, 1 + number % 2), &key(number), &[1; 1_500]);
        }
        // But for two blocks that only survivors of an eviction may take, and perhaps one.
        assert!(store.stats().used_bytes >= 17 * BLOCK_BYTES, "the memory is lent");
        let borrowers: Vec<_> = [1, 2]
            .map(|id| {
                let store = Arc::clone(&store);
                thread::spawn(move || {
                    for number in 200..206 {
                        set(&cache(&store, id), &key(number), &[2; 1_500]);
                    }
                })
            })
            .into();
        let quiet = cache(&store, 0);
        for number in 0..12 {
            let outcome = set(&quiet, &key(number), &[3; 1_500]);
            assert!(matches!(outcome, StoreOutcome::Stored { .. }), "{outcome:?}");
            assert_eq!(quiet.stats().evictions, 0, "it evicted what it pays for");
        }
        for number in 0..12 {
            let at = key(number);
            assert!(quiet.peek(&quiet.locate(&at), NOW, |hit| hit.is_some()));
        }
        borrowers.into_iter().for_each(|borrower| borrower.join().expect("a law broke"));
        assert_all_comes_back(&store, 3);
    });
}

/// The same while the borrowers are only about to borrow what was left.
#[test]
fn a_guarantee_is_met_while_memory_is_being_lent() {
    in_every_order(|| {
        let store = store_of(17, 3);
        for number in 0..44 {
            set(&cache(&store, 1 + number % 2), &key(number), &[1; 1_500]);
        }
        let borrowers: Vec<_> = [1, 2]
            .map(|id| {
                let store = Arc::clone(&store);
                thread::spawn(move || {
                    set(&cache(&store, id), &key(100), &[2; 15_900]);
                })
            })
            .into();
        let quiet = cache(&store, 0);
        for number in 0..12 {
            let outcome = set(&quiet, &key(number), &[3; 1_500]);
            assert!(matches!(outcome, StoreOutcome::Stored { .. }), "{outcome:?}");
            assert_eq!(quiet.stats().evictions, 0, "it evicted what it pays for");
        }
        borrowers.into_iter().for_each(|borrower| borrower.join().expect("a law broke"));
        assert_all_comes_back(&store, 3);
    });
}

/// Threads read, write and delete while another resizes, flushes, recreates and maintains.
#[test]
fn values_are_whole_and_no_block_is_lost() {
    in_every_order(|| {
        let store = store_of(18, 3);
        let workers: Vec<_> = [1_u8, 2]
            .map(|worker| {
                let store = Arc::clone(&store);
                thread::spawn(move || {
                    for step in 0..8 {
                        let Some(cache) = store.cache(CacheId::new(step % 2)) else { continue };
                        // One value in four runs over several blocks.
                        let bytes = if step % 4 == 1 { 12_000 } else { 900 };
                        set(&cache, &key(step), &vec![worker; bytes]);
                        let (read, deleted) = (key(step ^ 1), key(step / 2));
                        cache.get(&cache.locate(&read), GetArgs::default(), NOW, |hit| {
                            if let Some(hit) = hit {
                                let first = hit.value[0];
                                assert!(hit.value.iter().all(|&byte| byte == first), "a mixture");
                            }
                        });
                        if worker == 2 {
                            cache.delete(&cache.locate(&deleted), DeleteArgs::default(), NOW);
                        }
                    }
                })
            })
            .into();
        let small = CacheLimits { memory_bytes: 10_000, ..LIMITS };
        store.resize_cache(CacheId::new(0), small, NOW).expect("less than before");
        cache(&store, 1).flush(NOW, NOW);
        store.maintain(NOW, 20);
        assert!(store.remove_cache(CacheId::new(0)));
        store.create_cache(CacheId::new(0), LIMITS).expect("its memory was given back");
        store.maintain(Seconds(2), 20);
        workers.into_iter().for_each(|worker| worker.join().expect("a law broke"));
        assert_all_comes_back(&store, 3);
    });
}

/// Each count happens once, and what statistics say is what was asked, while others look and watch.
#[test]
fn no_request_goes_uncounted() {
    in_every_order(|| {
        let store = store_of(18, 1);
        let counted = cache(&store, 0);
        set(&counted, b"n", b"0");
        let counters: Vec<_> = (0..2)
            .map(|_| {
                let cache = Arc::clone(&counted);
                thread::spawn(move || {
                    for _ in 0..4 {
                        let one = ArithmeticArgs::plain(Direction::Increment, 1);
                        cache.arithmetic(&cache.locate(b"n"), one, NOW);
                        cache.get(&cache.locate(b"n"), GetArgs::default(), NOW, |hit| {
                            assert!(hit.is_some());
                        });
                    }
                })
            })
            .collect();
        let mut before = 0;
        for step in 0..4 {
            counted.watch(step % 2 == 0);
            assert!(counted.top_keys().len() <= 1);
            let gets = counted.stats().cmd_get;
            assert!(before <= gets && gets <= 8, "{before} then {gets}");
            before = gets;
        }
        counters.into_iter().for_each(|counter| counter.join().expect("a law broke"));
        let stats = counted.stats();
        assert_eq!((stats.incr_hits, stats.cmd_get, stats.get_hits), (8, 8, 8));
        let text =
            counted.peek(&counted.locate(b"n"), NOW, |hit| hit.map(|hit| hit.value.to_vec()));
        assert_eq!(text, Some(b"8".to_vec()));
    });
}
