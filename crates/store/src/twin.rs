//! The engine and its safe twin answer alike, and the engine's accounts are true at every step.
//!
//! Random operations on a few caches, with a clock, resizes, flushes, deletions and maintenance.
//! Each runs on the engine and on one [`Model`] per cache that never evicts. What the engine has
//! evicted is forgotten in the model too; anything else that differs is a wrong answer.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRunner};
use tenancy::id::CacheId;

use crate::model::Model;
use crate::operation::{
    ArithmeticArgs, DeleteArgs, Direction, Expiry, GetArgs, Hit, Initial, Lease, Seconds,
    StoreArgs, StoreMode, StoreOutcome,
};
use crate::scan::Cursor;
use crate::stats::CacheStats;
use crate::store::{Cache, CacheLimits, Settings, Store};
use crate::stream::{Event, Stream};

/// One step of a run. Keys, caches and lifetimes are small numbers, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Get {
        cache: u8,
        key: u16,
        touch: Option<u8>,
        vivify: Option<u8>,
        recache: Option<u8>,
        leases: bool,
        unseen: bool,
    },
    Peek {
        cache: u8,
        key: u16,
    },
    Store {
        cache: u8,
        key: u16,
        value: Value,
        flags: u32,
        life: u8,
        how: How,
    },
    Delete {
        cache: u8,
        key: u16,
        compare: Compare,
        invalidate: bool,
        strip: bool,
        touch: Option<u8>,
    },
    Count {
        cache: u8,
        key: u16,
        down: bool,
        delta: u64,
        initial: Option<u64>,
        compare: Compare,
    },
    Touch {
        cache: u8,
        key: u16,
        life: u8,
    },
    Flush {
        cache: u8,
        delay: u8,
    },
    Resize {
        cache: u8,
        size: u8,
    },
    Recreate {
        cache: u8,
    },
    Wait {
        seconds: u8,
    },
    Maintain {
        budget: u8,
    },
}

/// Steps in which one cache is busier than the others, in the long run: enough to fill it.
const TURN_STEPS: usize = 2_000;

impl Step {
    /// The cache of a step about one item.
    fn item_cache(&mut self) -> Option<&mut u8> {
        match self {
            Step::Get { cache, .. }
            | Step::Peek { cache, .. }
            | Step::Store { cache, .. }
            | Step::Delete { cache, .. }
            | Step::Count { cache, .. }
            | Step::Touch { cache, .. } => Some(cache),
            Step::Flush { .. }
            | Step::Resize { .. }
            | Step::Recreate { .. }
            | Step::Wait { .. }
            | Step::Maintain { .. } => None,
        }
    }
}

#[derive(Debug, Clone)]
struct How {
    mode: StoreMode,
    compare: Compare,
    chosen: Option<u64>,
    invalidate: bool,
    vivify: Option<u8>,
}

/// Which CAS value a request brings.
#[derive(Debug, Clone, Copy)]
enum Compare {
    Not,
    Current,
    Older,
    Newer,
}

#[derive(Debug, Clone)]
enum Value {
    Filled { byte: u8, bytes: usize },
    Number(u64),
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Filled { byte, bytes } => {
                let mut value = vec![0; *bytes];
                for (number, run) in value.chunks_mut(97).enumerate() {
                    run.fill(byte.wrapping_add(number as u8));
                }
                value
            }
            Value::Number(number) => number.to_string().into_bytes(),
        }
    }
}

/// Runs of each property, and how much shorter they are, because Miri is a thousand times slower.
const CASES: u32 = if cfg!(miri) { 1 } else { 48 };
const SHORTER: usize = if cfg!(miri) { 20 } else { 1 };
/// Chance for proptest: the usual one would take nine tenths of Miri's time.
const CHANCE: RngAlgorithm = if cfg!(miri) { RngAlgorithm::XorShift } else { RngAlgorithm::ChaCha };
/// How much smaller caches of small items are then, and how much larger the items, so that a short
/// run fills them all the same.
const SMALLER: u16 = if cfg!(miri) { 4 } else { 1 };
const LARGER: usize = if cfg!(miri) { 6 } else { 1 };

/// How large everything is.
#[derive(Debug, Clone, Copy)]
struct Scale {
    store_bytes: u64,
    lending_percent: u64,
    /// Guarantee of each cache.
    cache_bytes: u64,
    caches: u8,
    keys: u16,
    value_bytes: usize,
}

/// Nothing is ever evicted, so that every answer must be the model's.
const AMPLE: Scale = Scale {
    store_bytes: 64 << 20,
    lending_percent: 100,
    cache_bytes: 16 << 20,
    caches: 2,
    keys: 60,
    value_bytes: 40_000,
};

/// Caches are full most of the time, each within its own guarantee.
const TIGHT: Scale = Scale {
    store_bytes: 1 << 20,
    lending_percent: 100,
    cache_bytes: 150_000 / SMALLER as u64,
    caches: 3,
    keys: 900 / SMALLER,
    value_bytes: 5_000 * LARGER,
};

/// All memory is promised and lent, so that caches take it from one another.
const LENT: Scale = Scale {
    store_bytes: LARGE.store_bytes / SMALLER as u64,
    cache_bytes: LARGE.cache_bytes / SMALLER as u64,
    keys: 1_500 / SMALLER,
    value_bytes: 6_000 * LARGER,
    ..LARGE
};

/// Whoever is busy may borrow nearly everything.
const TURNS: Scale = Scale { lending_percent: 2_000, ..LENT };

/// The same, with values that are often longer than a block.
const LARGE: Scale = Scale {
    store_bytes: 1 << 20,
    lending_percent: 400,
    cache_bytes: 200_000,
    caches: 3,
    keys: 60,
    value_bytes: 40_000,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, rng_algorithm: CHANCE, max_shrink_iters: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn with_ample_memory_every_answer_is_the_models(steps in steps(AMPLE, 300)) {
        let run = Run::of(AMPLE, &steps);
        prop_assert_eq!(run.stats().evictions, 0);
    }

    #[test]
    fn full_caches_never_answer_wrongly(steps in steps(TIGHT, 2_500)) {
        Run::of(TIGHT, &steps);
    }

    #[test]
    fn caches_that_lend_never_answer_wrongly(steps in steps(LENT, 2_500)) {
        Run::of(LENT, &steps);
    }

    #[test]
    fn long_values_never_answer_wrongly(steps in steps(LARGE, 600)) {
        Run::of(LARGE, &steps);
    }
}

/// A long run, so that everything there is does happen, and is seen to. Caches take turns at being
/// busy, so that each lends while it rests and claims what is its own when it is back.
#[test]
#[cfg_attr(miri, ignore = "it would take days there")]
fn a_long_run_evicts_lends_expires_and_remembers() {
    let mut runner = TestRunner::deterministic();
    let long = steps(TURNS, 40_000).prop_filter("long", |steps| steps.len() > 20_000);
    let mut steps = long.new_tree(&mut runner).expect("every other one is long").current();
    for (number, step) in steps.iter_mut().enumerate() {
        if let Some(cache) = step.item_cache()
            && number % 8 != 0
        {
            *cache = (number / TURN_STEPS) as u8 % TURNS.caches;
        }
    }
    let run = Run::of(TURNS, &steps);
    let sum = run.stats();
    for (what, count, least) in [
        ("evictions", sum.evictions, 500),
        ("evictions for others", sum.evictions_lent, 50),
        ("expired items", sum.expired, 500),
        ("ghost hits", sum.ghost_hits, 20),
        ("compare hits", sum.cas_hits, 100),
        ("items", sum.items, 100),
    ] {
        assert!(count >= least, "only {count} {what}: {sum:?}");
    }
}

fn steps(scale: Scale, count: usize) -> impl Strategy<Value = Vec<Step>> {
    let at = move || (0..scale.caches, 0..scale.keys);
    let life = || prop_oneof![6 => Just(0_u8), 2 => 1_u8..30, 1 => 1_u8..=255];
    let maybe = move || proptest::option::weighted(0.1, life());
    let value = prop_oneof![
        6 => (any::<u8>(), 0..scale.value_bytes / 4)
            .prop_map(|(byte, bytes)| Value::Filled { byte, bytes }),
        1 => (any::<u8>(), 0..scale.value_bytes)
            .prop_map(|(byte, bytes)| Value::Filled { byte, bytes }),
        2 => prop_oneof![0_u64..120, any::<u64>()].prop_map(Value::Number),
    ];
    let compare = || {
        prop_oneof![
            6 => Just(Compare::Not),
            2 => Just(Compare::Current),
            1 => Just(Compare::Older),
            1 => Just(Compare::Newer),
        ]
    };
    let mode = prop_oneof![
        6 => Just(StoreMode::Set),
        1 => Just(StoreMode::Add),
        1 => Just(StoreMode::Replace),
        1 => Just(StoreMode::Append),
        1 => Just(StoreMode::Prepend),
    ];
    let chosen = proptest::option::weighted(0.05, 1..u64::MAX);
    let how = (mode, compare(), chosen, any::<bool>(), maybe()).prop_map(
        |(mode, compare, chosen, invalidate, vivify)| How {
            mode,
            compare,
            chosen,
            invalidate,
            vivify,
        },
    );
    let flags = prop_oneof![Just(0_u32), 1_u32..300, any::<u32>()];
    let step = prop_oneof![
        30 => (at(), maybe(), maybe(), maybe(), any::<bool>(), any::<u8>()).prop_map(
            |((cache, key), touch, vivify, recache, leases, chance)| {
                Step::Get { cache, key, touch, vivify, recache, leases, unseen: chance < 20 }
            },
        ),
        2 => at().prop_map(|(cache, key)| Step::Peek { cache, key }),
        50 => (at(), value, flags, life(), how).prop_map(|((cache, key), value, flags, life, how)| {
            Step::Store { cache, key, value, flags, life, how }
        }),
        8 => (at(), compare(), proptest::bool::weighted(0.3), proptest::bool::weighted(0.3), maybe())
            .prop_map(|((cache, key), compare, invalidate, strip, touch)| {
                Step::Delete { cache, key, compare, invalidate, strip, touch }
            }),
        8 => (at(), any::<bool>(), 0_u64..200, proptest::option::weighted(0.4, 0_u64..200), compare())
            .prop_map(|((cache, key), down, delta, initial, compare)| {
                Step::Count { cache, key, down, delta, initial, compare }
            }),
        3 => (at(), life()).prop_map(|((cache, key), life)| Step::Touch { cache, key, life }),
        // These empty caches, so they are rare, or nothing would ever fill.
        1 => (at(), any::<u8>()).prop_map(|((cache, key), size)| match key % 48 {
            0 => Step::Recreate { cache },
            1 => Step::Flush { cache, delay: 0 },
            2 => Step::Flush { cache, delay: size },
            3..12 => Step::Resize { cache, size },
            _ => Step::Wait { seconds: u8::from(size < 64) },
        }),
        1 => (0_u8..2).prop_map(|seconds| Step::Wait { seconds }),
        4 => any::<u8>().prop_map(|budget| Step::Maintain { budget }),
    ];
    let most = count / SHORTER;
    let least = if cfg!(miri) { most / 2 } else { 1 };
    proptest::collection::vec(step, least..most)
}

/// Engine and models under the same steps.
struct Run {
    scale: Scale,
    store: Store,
    now: Seconds,
    caches: Vec<Pair>,
    /// Of caches that were recreated.
    past: CacheStats,
    /// The first cache as a receiver of its stream knows it.
    replica: HashMap<Vec<u8>, (Owned, Expiry)>,
    stream: Stream,
}

struct Pair {
    engine: Arc<Cache>,
    model: Model,
    limits: CacheLimits,
    /// Evictions that the model has been told of.
    evictions_known: u64,
}

impl Run {
    fn of(scale: Scale, steps: &[Step]) -> Run {
        let settings = Settings { memory_bytes: scale.store_bytes, seed: 11 };
        let store = Store::new(settings).lending(scale.lending_percent);
        let caches: Vec<Pair> =
            (0..scale.caches).map(|number| create(&store, scale, number)).collect();
        let stream = caches[0].engine.stream().expect("it is the first");
        assert!(caches[0].engine.stream().is_none(), "one stream at a time");
        let mut run = Run {
            scale,
            store,
            now: Seconds(1_000),
            caches,
            past: CacheStats::default(),
            replica: HashMap::new(),
            stream,
        };
        for (number, step) in steps.iter().enumerate() {
            run.step(step);
            if number % 64 == 0 {
                run.check();
                run.follow();
            }
        }
        run.check();
        run.check_contents();
        while run.follow() {}
        run.check_replica();
        run
    }

    fn step(&mut self, step: &Step) {
        let now = self.now;
        let life = |life: u8| match life {
            0 => Expiry::Never,
            life => Expiry::At(Seconds(now.0 + u32::from(life) - 1)),
        };
        match *step {
            Step::Get { cache, key, touch, vivify, recache, leases, unseen } => {
                let args = GetArgs {
                    touch: touch.map(life),
                    vivify: vivify.map(life),
                    recache_before: recache.map(|limit| Seconds(now.0 + u32::from(limit))),
                    new_cas: None,
                    leases,
                    unseen,
                };
                self.compare(cache, key, |pair, key| {
                    let at = pair.engine.locate(key);
                    // Warming must change nothing.
                    pair.engine.warm(&[at]);
                    (pair.engine.get(&at, args, now, own), pair.model.get(key, args, now, own))
                });
            }
            Step::Peek { cache, key } => self.compare(cache, key, |pair, key| {
                let at = pair.engine.locate(key);
                (pair.engine.peek(&at, now, own), pair.model.peek(key, now, own))
            }),
            Step::Store { cache, key, ref value, flags, life: seconds, ref how } => {
                let value = value.bytes();
                let paid = self.is_paid_for(cache, &value);
                let evictions = self.caches[usize::from(cache)].engine.stats().evictions;
                self.compare(cache, key, |pair, key| {
                    let args = StoreArgs {
                        value: &value,
                        flags,
                        expiry: life(seconds),
                        mode: how.mode,
                        compare_cas: pair.cas(key, how.compare, now),
                        new_cas: how.chosen,
                        invalidate: how.invalidate,
                        vivify: how.vivify.map(life),
                    };
                    let at = pair.engine.locate(key);
                    let outcome = pair.engine.store(&at, args, now);
                    assert_ne!(outcome, StoreOutcome::OutOfMemory);
                    (outcome, pair.model.store(key, args, now))
                });
                if paid {
                    let after = self.caches[usize::from(cache)].engine.stats().evictions;
                    assert_eq!(after, evictions, "a write within the guarantee evicted");
                }
            }
            Step::Delete { cache, key, compare, invalidate, strip, touch } => {
                self.compare(cache, key, |pair, key| {
                    let args = DeleteArgs {
                        compare_cas: pair.cas(key, compare, now),
                        new_cas: None,
                        invalidate,
                        touch: touch.map(life),
                        remove_value: strip,
                    };
                    let at = pair.engine.locate(key);
                    (pair.engine.delete(&at, args, now), pair.model.delete(key, args, now))
                });
            }
            Step::Count { cache, key, down, delta, initial, compare } => {
                self.compare(cache, key, |pair, key| {
                    let args = ArithmeticArgs {
                        direction: if down { Direction::Decrement } else { Direction::Increment },
                        delta,
                        initial: initial
                            .map(|number| Initial { number, expiry: life(number as u8 / 2) }),
                        compare_cas: pair.cas(key, compare, now),
                        new_cas: None,
                        touch: None,
                    };
                    let at = pair.engine.locate(key);
                    (pair.engine.arithmetic(&at, args, now), pair.model.arithmetic(key, args, now))
                });
            }
            Step::Touch { cache, key, life: seconds } => self.compare(cache, key, |pair, key| {
                let at = pair.engine.locate(key);
                let expiry = life(seconds);
                (pair.engine.touch(&at, expiry, now), pair.model.touch(key, expiry, now))
            }),
            Step::Flush { cache, delay } => {
                let at = Seconds(now.0 + u32::from(delay));
                let pair = &mut self.caches[usize::from(cache)];
                pair.engine.flush(at, now);
                pair.model.flush(at, now);
            }
            Step::Resize { cache, size } => {
                // Between an eighth of the usual and all of it.
                let share = u64::from(size) % 8 + 1;
                let pair = &mut self.caches[usize::from(cache)];
                pair.limits.memory_bytes = self.scale.cache_bytes / 8 * share;
                pair.limits.memory_bytes = pair.limits.memory_bytes.max(largest(self.scale));
                let resized = self.store.resize_cache(pair.engine.id(), pair.limits, now);
                resized.expect("no more is promised than at first");
            }
            Step::Recreate { cache } => {
                let old = &self.caches[usize::from(cache)];
                self.past.add(&old.engine.stats());
                assert!(self.store.remove_cache(old.engine.id()));
                self.caches[usize::from(cache)] = create(&self.store, self.scale, cache);
                if cache == 0 {
                    self.replica.clear();
                    self.stream = self.caches[0].engine.stream().expect("it is new");
                }
            }
            Step::Wait { seconds } => self.now.0 += u32::from(seconds),
            Step::Maintain { budget } => {
                self.store.maintain(now, u32::from(budget));
            }
        }
        self.follow_evictions();
    }

    /// Runs one request on both and demands the same answer.
    #[track_caller]
    fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        cache: u8,
        key: u16,
        request: impl FnOnce(&mut Pair, &[u8]) -> (T, T),
    ) {
        let key = key_bytes(key);
        let (engine, model) = request(&mut self.caches[usize::from(cache)], &key);
        assert_eq!(engine, model, "engine and model differ at {}", String::from_utf8_lossy(&key));
    }

    /// Whether a write leaves the cache within what it was promised; then nothing may be evicted.
    /// Overhead is promised for items of usual size only, so small ones count for more.
    fn is_paid_for(&self, cache: u8, value: &[u8]) -> bool {
        let pair = &self.caches[usize::from(cache)];
        let stats = pair.engine.stats();
        let overhead = (stats.items + 1) * 45;
        // A joined value is twice as long at most, and the old one is there until the new one is.
        let bytes = stats.bytes + 2 * value.len() as u64 + largest(self.scale) + overhead;
        bytes + 3 * 8_192 < pair.limits.memory_bytes * 110 / 100
    }

    /// Lets the models forget what the engine has evicted.
    fn follow_evictions(&mut self) {
        for pair in &mut self.caches {
            let evictions = pair.engine.stats().evictions;
            if evictions == pair.evictions_known {
                continue;
            }
            pair.evictions_known = evictions;
            for (key, _) in pair.model.contents(self.now) {
                let at = pair.engine.locate(&key);
                if !pair.engine.peek(&at, self.now, |hit| hit.is_some()) {
                    pair.model.forget(&key);
                }
            }
        }
    }

    fn check(&self) {
        let mut held = 0;
        for pair in &self.caches {
            pair.engine.check();
            held += pair.engine.shards().iter().map(|shard| shard.blocks()).sum::<u64>();
            // Clients' counters agree, whoever dropped what was expired.
            assert_eq!(comparable(pair.engine.stats()), comparable(pair.model.stats()));
        }
        let stats = self.store.stats();
        assert_eq!(stats.used_bytes, held * 8_192, "blocks held are the memory in use");
        assert!(stats.guaranteed_bytes <= stats.memory_bytes);
    }

    /// Takes a few steps of the stream of the first cache. True when there is more.
    fn follow(&mut self) -> bool {
        let (replica, now) = (&mut self.replica, self.now);
        self.caches[0].engine.follow(&mut self.stream, 20, now, |event| match event {
            Event::Item { key, hit } => {
                let at = |left| Expiry::At(Seconds(now.0 + left));
                let expiry = hit.ttl_seconds.map_or(Expiry::Never, at);
                replica.insert(key.to_vec(), (own(Some(hit)).expect("it is a hit"), expiry));
            }
            Event::Gone { key } => {
                replica.remove(key);
            }
            Event::Restart => replica.clear(),
        })
    }

    /// What the receiver holds is what the engine holds, but for what was evicted.
    fn check_replica(&mut self) {
        let now = self.now;
        let pair = &mut self.caches[0];
        let forgot = pair.engine.stats().evictions > 0;
        for key in (0..self.scale.keys).map(key_bytes) {
            let at = pair.engine.locate(&key);
            let sent = self.replica.get(&key).filter(|(_, expiry)| !expiry.has_passed(now));
            let sent = sent.map(|(item, _)| item.lasting());
            let held = pair.engine.peek(&at, now, own);
            if held.is_some() || !forgot {
                assert_eq!(sent, held.as_ref().map(Owned::lasting), "what a stream told");
            }
        }
    }

    /// The engine holds exactly what the models hold.
    fn check_contents(&mut self) {
        let now = self.now;
        for pair in &mut self.caches {
            let contents: HashMap<_, _> = pair.model.contents(now).into_iter().collect();
            let (mut cursor, mut scanned) = (Cursor::default(), HashMap::new());
            while pair.engine.scan(&mut cursor, 7, now, |key, hit| {
                let before = scanned.insert(key.to_vec(), hit.value.to_vec());
                assert_eq!(before, None, "at rest each item is seen once");
            }) {}
            assert_eq!(scanned, contents, "a scan sees what is there");
            for key in (0..self.scale.keys).map(key_bytes) {
                let at = pair.engine.locate(&key);
                let value = pair.engine.peek(&at, now, |hit| hit.map(|hit| hit.value.to_vec()));
                assert_eq!(value.as_ref(), contents.get(&key));
            }
        }
    }

    /// What all caches counted together.
    fn stats(&self) -> CacheStats {
        let mut sum = self.past;
        self.caches.iter().for_each(|pair| sum.add(&pair.engine.stats()));
        sum
    }
}

impl Pair {
    fn cas(&mut self, key: &[u8], compare: Compare, now: Seconds) -> Option<u64> {
        let current = self.model.peek(key, now, |hit| hit.map_or(5, |hit| hit.cas));
        match compare {
            Compare::Not => None,
            Compare::Current => Some(current),
            Compare::Older => Some(current.saturating_sub(1)),
            Compare::Newer => Some(current.saturating_add(1)),
        }
    }
}

fn create(store: &Store, scale: Scale, number: u8) -> Pair {
    let limits =
        CacheLimits { memory_bytes: scale.cache_bytes, item_bytes_max: largest(scale) as u32 };
    let created = store.create_cache(CacheId::new(u64::from(number)), limits);
    let engine = created.expect("the scale fits its memory");
    let model = Model::new(CacheLimits { memory_bytes: u64::MAX, ..limits }, store.cas_before());
    Pair { engine, model, limits, evictions_known: 0 }
}

/// Longest item that is accepted, so that some are not.
fn largest(scale: Scale) -> u64 {
    scale.value_bytes as u64 * 9 / 10
}

/// Keys of different lengths.
fn key_bytes(number: u16) -> Vec<u8> {
    format!("key:{number}:{}", "x".repeat(usize::from(number) % 7 * 5)).into_bytes()
}

/// What both sides count alike. Expired items are dropped at different times, and the rest is about
/// memory.
fn comparable(stats: CacheStats) -> CacheStats {
    CacheStats {
        get_expired: 0,
        evictions: 0,
        evicted_unread: 0,
        evictions_lent: 0,
        expired: 0,
        expired_unread: 0,
        ghost_hits: 0,
        first_eviction: None,
        items: 0,
        bytes: 0,
        limit_maxbytes: 0,
        held_bytes: 0,
        ..stats
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Owned {
    value: Vec<u8>,
    flags: u32,
    cas: u64,
    ttl_seconds: Option<u32>,
    read_before: bool,
    idle_seconds: u32,
    lease: Lease,
}

impl Owned {
    /// What does not change by itself or by being read.
    fn lasting(&self) -> (&[u8], u32, u64, bool, Lease) {
        (&self.value, self.flags, self.cas, self.ttl_seconds.is_some(), self.lease)
    }
}

fn own(hit: Option<Hit<'_>>) -> Option<Owned> {
    hit.map(|hit| Owned {
        value: hit.value.to_vec(),
        flags: hit.flags,
        cas: hit.cas,
        ttl_seconds: hit.ttl_seconds,
        read_before: hit.read_before,
        idle_seconds: hit.idle_seconds,
        lease: hit.lease,
    })
}
