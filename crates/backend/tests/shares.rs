//! A cache of 25 MB over many real backends, filled while shares are worked out from what they
//! report, a second late as in a cluster: when does the first eviction come, and is the limit kept?
//!
//! `cargo test -p backend --test shares -- --nocapture` prints the table of
//! `docs/decisions/0022-shares-follow-what-is-held.md`.

#![expect(clippy::print_stderr, reason = "prints the table that a decision shows")]

use std::sync::Arc;

use backend::Backend;
use backend::parts::Reported;
use cluster::member::{Member, MemberName, Members, Weight};
use cluster::scheme::Scheme;
use cluster::shares::{Part, first_share, shares};
use cluster::slot::{SLOTS, SlotHasher, SlotKey};
use cluster::table::Table;
use daemon::clock::Now;
use protocol::operation::{Exptime, Get, Key, Store, StoreMode, StoreOutcome};
use store::store::Cache;
use tenancy::id::CacheId;

const CACHE: CacheId = CacheId::new(1);
const LIMIT: u64 = 25 << 20;
const ITEM_MAX: u32 = 1 << 20;

/// A cluster in miniature: no network, and seconds that pass when they are told to.
struct Cluster {
    backends: Vec<Backend>,
    parts: Vec<Arc<Cache>>,
    told: Vec<Reported>,
    reported: Vec<Part>,
    /// Worked out last second, handed out in this one.
    coming: Option<Vec<u64>>,
    table: Table,
    hasher: SlotHasher,
    seconds: u32,
    keys: u64,
    random: u64,
    elastic: bool,
}

/// What a fill showed.
#[derive(Debug)]
struct Filled {
    /// Of the limit, when the first item was evicted anywhere.
    first_eviction: f64,
    /// The most that was ever held, of the limit, at the end of a second.
    most: f64,
    /// What was held in the end, after so long with the cache full.
    steady: f64,
}

impl Cluster {
    fn new(count: u32, elastic: bool, seed: u64) -> Self {
        let member = |number| Member {
            name: MemberName::parse(&format!("n{number}.b0")).expect("a good name"),
            weight: Weight::new(1),
        };
        let members = Members::new((0..count).map(member)).expect("they differ");
        let table = Scheme::Maglev.place(&members);
        let slots = table.slot_counts();
        let backends: Vec<Backend> =
            (0..count).map(|number| Backend::new(64 << 20, seed ^ u64::from(number))).collect();
        let mut reported = Vec::new();
        for (backend, &slots) in backends.iter().zip(&slots) {
            let share = first_share(LIMIT, slots, SLOTS);
            backend.create_part(CACHE, share, ITEM_MAX, now(1)).expect("there is room");
            if !elastic {
                let fixed = LIMIT / u64::from(count);
                backend.share_cache(CACHE, fixed, ITEM_MAX, now(1)).expect("there is room");
            }
            reported.push(Part { slots, ..Part::default() });
        }
        Cluster {
            parts: backends.iter().filter_map(|backend| backend.cache(CACHE)).collect(),
            told: vec![Reported::default(); backends.len()],
            backends,
            reported,
            coming: None,
            table,
            hasher: SlotHasher::new(&SlotKey::new([seed as u8; 16])),
            seconds: 1,
            keys: 0,
            random: seed | 1,
            elastic,
        }
    }

    /// A new item under a new key.
    fn store(&mut self, value_bytes: usize) -> StoreOutcome {
        self.keys += 1;
        let key = format!("user:{}:profile", self.keys);
        let owner = self.table.owner(self.hasher.slot(CACHE, key.as_bytes())).index();
        let value = vec![b'x'; value_bytes];
        let store = Store {
            key: Key::new(key.as_bytes()).expect("a good key"),
            value: &value,
            flags: 0,
            exptime: Exptime(0),
            mode: StoreMode::Set,
            compare_cas: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
        };
        let cache = &self.parts[owner];
        backend::store(&mut cache.turn(), &cache.locate(key.as_bytes()), &store, now(self.seconds))
    }

    /// A second passes: reports go out, and the shares of the second before come in.
    fn second(&mut self) {
        self.seconds += 1;
        let now = now(self.seconds);
        if let Some(shares) = self.coming.take() {
            for (backend, share) in self.backends.iter().zip(shares) {
                backend.share_cache(CACHE, share, ITEM_MAX, now).expect("there is room");
            }
        }
        for (at, backend) in self.backends.iter().enumerate() {
            while backend.maintain(now) {}
            if self.elastic {
                backend.keep_shares();
            }
            if let Some(told) = self.told[at].changed(0, &self.parts[at].stats()) {
                let (bytes, items, evicted_items) = (told.bytes, told.items, told.evicted_items);
                self.reported[at] = Part { bytes, items, evicted_items, ..self.reported[at] };
            }
        }
        if self.elastic {
            self.coming = Some(shares(LIMIT, &self.reported));
        }
    }

    fn held(&self) -> u64 {
        self.parts.iter().map(|part| part.stats().bytes).sum()
    }

    fn evictions(&self) -> u64 {
        self.parts.iter().map(|part| part.stats().evictions).sum()
    }

    fn of_limit(&self) -> f64 {
        self.held() as f64 / LIMIT as f64
    }

    /// Stores items of these sizes, so many bytes a second, until the cache has been full for a
    /// while.
    fn fill(&mut self, sizes: Sizes, bytes_per_second: u64) -> Filled {
        let mut first_eviction = None;
        let mut most: f64 = 0.0;
        let mut stored = 0;
        for second in 0.. {
            let until = (second + 1) * bytes_per_second;
            while stored < until {
                let bytes = self.size(sizes);
                assert!(
                    matches!(self.store(bytes), StoreOutcome::Stored { .. }),
                    "an item within the limit was refused"
                );
                stored += bytes as u64;
                if first_eviction.is_none() && self.evictions() > 0 {
                    first_eviction = Some(self.of_limit());
                }
            }
            most = most.max(self.of_limit());
            self.second();
            if stored > 3 * LIMIT && first_eviction.is_some() {
                break;
            }
        }
        // Nothing more comes: what is too much goes.
        (0..5).for_each(|_| self.second());
        let steady = self.of_limit();
        Filled { first_eviction: first_eviction.expect("just waited for"), most, steady }
    }

    /// Lognormal, as sizes of cached items are.
    fn size(&mut self, sizes: Sizes) -> usize {
        let normal = {
            let (a, b) = (self.chance(), self.chance());
            (-2.0 * a.max(1e-12).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        };
        let size = sizes.median * (sizes.sigma * normal).exp();
        (size as usize).clamp(1, 500_000)
    }

    /// 0 to 1 (xorshift64*, Vigna 2014).
    fn chance(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    median: f64,
    sigma: f64,
}

/// The sizes of the study behind the goals: "about 1 KB" has a mean of 616 bytes, "about 10 KB" one
/// of 6.2 KB.
const ABOUT_1_KB: Sizes = Sizes { median: 300.0, sigma: 1.2 };
const ABOUT_10_KB: Sizes = Sizes { median: 3_000.0, sigma: 1.2 };

fn now(seconds: u32) -> Now {
    Now { since_start: seconds, unix: 1_800_000_000 + i64::from(seconds) }
}

/// Fills such a cache at two speeds and wants the first eviction no earlier than `goal`.
#[track_caller]
fn check(backends: u32, sizes: Sizes, goal: f64) {
    for bytes_per_second in [LIMIT / 60, LIMIT / 4] {
        for seed in 1..=3 {
            let filled = Cluster::new(backends, true, seed).fill(sizes, bytes_per_second);
            eprintln!(
                "{backends} backends, median {} B, {bytes_per_second} B/s: {filled:.3?}",
                sizes.median
            );
            assert!(goal <= filled.first_eviction, "{filled:?}");
            assert!(filled.most < 1.3, "{filled:?}");
            assert!((0.93..1.005).contains(&filled.steady), "{filled:?}");
        }
    }
}

#[test]
fn the_first_eviction_comes_when_the_sum_is_full() {
    check(12, ABOUT_1_KB, 0.97);
    check(50, ABOUT_1_KB, 0.97);
}

#[test]
fn also_with_few_items_per_backend() {
    check(12, ABOUT_10_KB, 0.95);
    check(50, ABOUT_10_KB, 0.95);
}

#[test]
fn fixed_shares_would_be_full_long_before() {
    let filled = Cluster::new(12, false, 1).fill(ABOUT_10_KB, LIMIT / 60);
    eprintln!("12 backends, fixed shares: {filled:.3?}");
    assert!(filled.first_eviction < 0.9, "{filled:?}");
    // And the limit is kept, although nobody weighs the shares.
    assert!(filled.most <= 1.0, "{filled:?}");
}

#[test]
fn a_value_as_large_as_the_limit_allows_always_fits_and_stays() {
    let mut cluster = Cluster::new(50, true, 5);
    let largest = ITEM_MAX as usize - 50;
    // Into a cache that is full of small ones.
    let filled = cluster.fill(ABOUT_1_KB, LIMIT / 10);
    assert!(filled.steady > 0.95, "{filled:?}");
    for round in 0..5 {
        assert!(matches!(cluster.store(largest), StoreOutcome::Stored { .. }), "{round}");
        let key = format!("user:{}:profile", cluster.keys);
        for _ in 0..5 {
            cluster.second();
            let owner = cluster.table.owner(cluster.hasher.slot(CACHE, key.as_bytes())).index();
            let cache = &cluster.parts[owner];
            let get = Get::plain(Key::new(key.as_bytes()).expect("a good key"));
            let at = cache.locate(key.as_bytes());
            let found = backend::get(&mut cache.turn(), &at, &get, now(cluster.seconds), |hit| {
                hit.map(|hit| hit.value.len())
            });
            assert_eq!(found, Some(largest), "round {round}");
        }
    }
    let held = cluster.of_limit();
    assert!((0.93..1.05).contains(&held), "{held}");
}
