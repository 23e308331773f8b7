//! What one request may make the store do at most, in counted steps, where it is made to do the most:
//! these hold on any machine, however slow or busy.

use std::sync::Arc;

use store::operation::{DeleteArgs, Expiry, GetArgs, Seconds, StoreArgs, StoreOutcome};
use store::store::{Cache, CacheLimits, Settings, Store};
use store::work::Work;
use tenancy::id::CacheId;

const NOW: Seconds = Seconds(9);

fn key(number: u32) -> Vec<u8> {
    format!("key:{number:08}").into_bytes()
}

/// Stores an item and tells what that took.
fn set(cache: &Cache, number: u32, value_bytes: usize) -> Work {
    let before = Work::of_this_thread();
    let value = vec![1; value_bytes];
    let key = key(number);
    let outcome = cache.store(&cache.locate(&key), StoreArgs::set(&value, 0, Expiry::Never), NOW);
    assert!(matches!(outcome, StoreOutcome::Stored { .. }), "{outcome:?}");
    Work::of_this_thread() - before
}

fn read(cache: &Cache, number: u32) -> bool {
    let key = key(number);
    cache.get(&cache.locate(&key), GetArgs::default(), NOW, |hit| hit.is_some())
}

fn delete(cache: &Cache, number: u32) {
    let key = key(number);
    cache.delete(&cache.locate(&key), DeleteArgs::default(), NOW);
}

fn create(store: &Store, id: u64, memory_bytes: u64) -> Arc<Cache> {
    let limits = CacheLimits { memory_bytes, item_bytes_max: 1 << 20 };
    store.create_cache(CacheId::new(id), limits).expect("there is room")
}

/// A full cache in which everything has been read more often than is counted.
fn hot(store: &Store, memory_bytes: u64) -> (Arc<Cache>, u32) {
    let cache = create(store, 1, memory_bytes);
    let items = (0..).find(|&number| {
        set(&cache, number, 100);
        cache.stats().evictions > 0
    });
    let items = items.expect("it is full at some time");
    for _ in 0..4 {
        (0..items).for_each(|number| _ = read(&cache, number));
    }
    (cache, items)
}

#[test]
#[cfg_attr(
    miri,
    ignore = "hundreds of thousands of requests take too long there; no `unsafe` is near"
)]
fn a_small_item_among_hot_ones_moves_a_dozen_blocks() {
    let store = Store::new(Settings { memory_bytes: 32 << 20, seed: 7 });
    let (cache, items) = hot(&store, 8 << 20);
    let works = (items..items + 1_000).map(|number| set(&cache, number, 100));
    let most = works.reduce(Work::max).expect("there are a thousand");
    // Three rounds of patience, and one block that is evicted whatever is in it.
    assert!((2..=13).contains(&most.blocks), "{most:?}");
    assert!(most.moved_bytes <= 13 * 8_192, "{most:?}");
}

#[test]
#[cfg_attr(
    miri,
    ignore = "hundreds of thousands of requests take too long there; no `unsafe` is near"
)]
fn a_large_item_among_hot_small_ones_moves_some_thousand() {
    let store = Store::new(Settings { memory_bytes: 32 << 20, seed: 7 });
    let (cache, items) = hot(&store, 8 << 20);
    let work = set(&cache, items, 1_000_000);
    // The item's own 123 blocks' worth has to go, with overhead, and 2,048 items may survive.
    assert!((100..=220).contains(&work.blocks), "{work:?}");
    assert!(work.moved_bytes <= 2_048 * 130, "{work:?}");
    assert!(cache.stats().bytes <= 8 << 20);
}

/// The oldest blocks hold next to nothing, so that emptying one gives next to nothing.
#[test]
#[cfg_attr(
    miri,
    ignore = "hundreds of thousands of requests take too long there; no `unsafe` is near"
)]
fn nearly_dead_blocks_are_emptied_a_few_at_a_time() {
    const LIMIT: u64 = 8 << 20;
    let store = Store::new(Settings { memory_bytes: 32 << 20, seed: 7 });
    let cache = create(&store, 1, LIMIT);
    let mut number = 0;
    // Read at once, so that they move to the main queue.
    let mut add = |cache: &Cache, value_bytes| {
        let work = set(cache, number, value_bytes);
        read(cache, number);
        number += 1;
        work
    };
    let mut items = 0;
    while cache.stats().evictions == 0 {
        add(&cache, 20);
        items += 1;
    }
    (0..items / 7).filter(|number| number % 150 != 0).for_each(|number| delete(&cache, number));
    while cache.stats().bytes + 8_200 < LIMIT {
        add(&cache, 20);
    }
    let mut most = Work::default();
    for _ in 0..32 {
        most = most.max(add(&cache, 8_000));
        assert!(cache.stats().bytes <= LIMIT + LIMIT / 64, "{:?}", cache.stats());
    }
    assert!((2..=64).contains(&most.blocks), "{most:?}");
    assert!(cache.stats().bytes <= LIMIT, "later writes make up for it: {:?}", cache.stats());
}

#[test]
#[cfg_attr(
    miri,
    ignore = "hundreds of thousands of requests take too long there; no `unsafe` is near"
)]
fn one_borrower_among_many_is_found_at_once_the_second_time() {
    const CACHES: u64 = 2_000;
    const BORROWER: u64 = 1_000;
    let memory_bytes = 64 << 20;
    let store = Store::new(Settings { memory_bytes, seed: 7 }).lending(10_000_000);
    let caches: Vec<Arc<Cache>> = (0..CACHES).map(|id| create(&store, id, 1_000)).collect();
    let borrower = &caches[BORROWER as usize];
    for number in 0.. {
        set(borrower, number, 900);
        if borrower.stats().evictions > 0 {
            break;
        }
    }
    let mut works = caches.iter().filter(|cache| cache.id() != borrower.id()).map(|cache| {
        let work = set(cache, 1, 100);
        assert!(read(cache, 1));
        work
    });
    let first = works.by_ref().find(|work| work.shards > 0).expect("memory is scarce");
    assert!(first.shards <= CACHES, "{first:?}");
    let most = works.reduce(Work::max).expect("there are many");
    // A sample, for each of the blocks that a write may need, and who gave last.
    assert!((1..=4 * 25).contains(&most.shards), "{most:?}");
}
