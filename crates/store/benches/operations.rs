//! What the commonest operations cost the store, with ten thousand items of 100 bytes.
//!
//! `cargo bench -p store`. Times are only comparable on an idle machine; instructions are always, and
//! `cargo xtask instructions` counts them: with `COUNTED` and `TIMES` in the environment this program
//! does that one thing so many times and nothing else. How the store stands to its goals is told by
//! `cargo bench -p testbed`.

use std::env;
use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use store::operation::{
    ArithmeticArgs, ArithmeticOutcome, Direction, Expiry, GetArgs, Seconds, StoreArgs, StoreOutcome,
};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;

const ITEMS: u32 = 10_000;
const VALUE: [u8; 100] = [b'v'; 100];
/// Keys of one batch: what a session looks up together.
const BATCH: usize = 32;
const NOW: Seconds = Seconds(100);

/// A full cache and the next thing to do with it.
struct Bench {
    // The cache's memory belongs to it.
    _store: Store,
    cache: Arc<Cache>,
    keys: Vec<[u8; 16]>,
    next: usize,
}

/// One operation by name, and whether the cache is watched meanwhile.
type Operation = (&'static str, fn(&mut Bench), bool);

/// `get_batch` does [`BATCH`] gets.
const OPERATIONS: &[Operation] = &[
    ("get", Bench::get, false),
    ("get_batch", Bench::get_batch, false),
    ("get_miss", Bench::get_miss, false),
    ("set", Bench::set, false),
    ("incr", Bench::incr, false),
    ("get_watched", Bench::get, true),
    ("get_batch_watched", Bench::get_batch, true),
    ("set_watched", Bench::set, true),
];

impl Bench {
    fn new() -> Self {
        let store = Store::new(Settings { memory_bytes: 64 << 20, seed: 7 });
        let limits = CacheLimits { memory_bytes: 16 << 20, item_bytes_max: 1 << 20 };
        let cache = store.create_cache(CacheId::new(1), limits).expect("it is the only cache");
        let keys = (0..ITEMS).map(key).collect();
        let mut bench = Bench { _store: store, cache, keys, next: 0 };
        (0..ITEMS).for_each(|_| bench.set());
        let number = StoreArgs::set(b"1000000000", 0, Expiry::Never);
        let stored = bench.cache.store(&bench.cache.locate(b"number"), number, NOW);
        assert!(matches!(stored, StoreOutcome::Stored { .. }));
        bench
    }

    /// The next key, far from the last one, so that no two share a line of the processor's cache.
    fn step(&mut self) -> [u8; 16] {
        self.next = (self.next + 7_919) % self.keys.len();
        self.keys[self.next]
    }

    fn get(&mut self) {
        let key = self.step();
        let at = self.cache.locate(black_box(&key));
        let read = |hit: Option<store::operation::Hit<'_>>| hit.map(|hit| hit.value.len());
        assert_eq!(self.cache.get(&at, GetArgs::default(), NOW, read), Some(VALUE.len()));
    }

    fn get_batch(&mut self) {
        let keys: [[u8; 16]; BATCH] = std::array::from_fn(|_| self.step());
        let places = keys.each_ref().map(|key| self.cache.locate(black_box(key)));
        let mut turn = self.cache.turn();
        turn.warm(&places);
        for at in &places {
            let read = |hit: Option<store::operation::Hit<'_>>| hit.map(|hit| hit.value.len());
            assert_eq!(turn.get(at, GetArgs::default(), NOW, read), Some(VALUE.len()));
        }
    }

    fn get_miss(&mut self) {
        let at = self.cache.locate(black_box(b"nobody's key"));
        let found = self.cache.get(&at, GetArgs::default(), NOW, |hit| hit.is_some());
        assert!(!found);
    }

    /// The first time it stores an item anew, later over the old one.
    fn set(&mut self) {
        let key = self.step();
        let at = self.cache.locate(black_box(&key));
        let stored = self.cache.store(&at, StoreArgs::set(&VALUE, 0, Expiry::Never), NOW);
        assert!(matches!(stored, StoreOutcome::Stored { .. }));
    }

    fn incr(&mut self) {
        let at = self.cache.locate(black_box(b"number"));
        let up = ArithmeticArgs::plain(Direction::Increment, 1);
        let counted = self.cache.arithmetic(&at, up, NOW);
        assert!(matches!(counted, ArithmeticOutcome::Counted { .. }));
    }
}

fn key(number: u32) -> [u8; 16] {
    let mut key = *b"user:profile:000";
    let digits = format!("{number:08}");
    key[8..].copy_from_slice(digits.as_bytes());
    key
}

fn main() {
    let word = |name| env::var(name).ok();
    let mut bench = Bench::new();
    match (word("COUNTED"), word("TIMES").and_then(|times| times.parse::<u32>().ok())) {
        (Some(name), Some(times)) => {
            let found = OPERATIONS.iter().find(|(known, ..)| *known == name);
            let (_, operation, is_watched) = found.expect("a name from the list above");
            bench.cache.watch(*is_watched);
            (0..times).for_each(|_| operation(&mut bench));
        }
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            for (name, operation, is_watched) in OPERATIONS {
                bench.cache.watch(*is_watched);
                criterion.bench_function(name, |bencher| bencher.iter(|| operation(&mut bench)));
            }
            criterion.final_summary();
        }
    }
}
