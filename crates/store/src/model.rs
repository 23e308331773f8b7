//! One cache as a map: the plainest code that does what the store promises.
//!
//! It is the safe twin of the engine: property tests run both on the same operations and compare
//! every answer. So it favours being evidently right over everything else.

use std::collections::{HashMap, VecDeque};

use crate::number;
use crate::operation::{
    ArithmeticArgs, ArithmeticOutcome, DeleteArgs, DeleteOutcome, Direction, Expiry, GetArgs, Hit,
    Lease, Seconds, StoreArgs, StoreMode, StoreOutcome, TouchOutcome,
};
use crate::stats::CacheStats;
use crate::store::CacheLimits;

/// One cache's items, order of eviction and accounts.
pub struct Model {
    limits: CacheLimits,
    items: HashMap<Box<[u8]>, Item>,
    /// Who is dropped next. Entries whose `born` differs from the item's are left-overs.
    order: VecDeque<(Box<[u8]>, u64)>,
    /// Births so far: tells an item from an earlier one of the same key.
    births: u64,
    cas_last: u64,
    /// A flush that was asked for a later second.
    flush_at: Option<Seconds>,
    stats: CacheStats,
}

#[derive(Debug, Clone)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    expiry: Expiry,
    cas: u64,
    accessed: Seconds,
    read: bool,
    stale: bool,
    won: bool,
    /// Read since it last survived an eviction.
    second_chance: bool,
    born: u64,
}

impl Item {
    fn new(value: Vec<u8>, flags: u32, expiry: Expiry, cas: u64, now: Seconds) -> Self {
        Item {
            value,
            flags,
            expiry,
            cas,
            accessed: now,
            read: false,
            stale: false,
            won: false,
            second_chance: false,
            born: 0,
        }
    }

    fn hit(&self, now: Seconds, lease: Lease) -> Hit<'_> {
        Hit {
            value: &self.value,
            flags: self.flags,
            cas: self.cas,
            ttl_seconds: self.expiry.remaining(now),
            read_before: self.read,
            idle_seconds: now.0.saturating_sub(self.accessed.0),
            lease,
        }
    }
}

impl Model {
    /// `cas_before` is the value before the first one that it gives.
    pub fn new(limits: CacheLimits, cas_before: u64) -> Self {
        Model {
            limits,
            items: HashMap::new(),
            order: VecDeque::new(),
            births: 0,
            cas_last: cas_before,
            flush_at: None,
            stats: CacheStats::default(),
        }
    }

    pub fn get<R>(
        &mut self,
        key: &[u8],
        args: GetArgs,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        self.settle(now);
        self.stats.cmd_get += 1;
        self.stats.cmd_touch += u64::from(args.touch.is_some());
        if self.drop_expired(key, now) {
            self.stats.get_expired += 1;
        }
        let Some(item) = self.items.get_mut(key) else {
            return match args.vivify {
                Some(expiry) => self.vivify(key, expiry, args, now, visit),
                None => {
                    *self.gets(args.touch.is_some(), false) += 1;
                    visit(None)
                }
            };
        };
        let before = item.clone();
        let recache = args.recache_before.is_some_and(|limit| item.expiry.is_before(limit));
        let won = args.leases && !item.won && (recache || item.stale);
        let lease = Lease { won, stale: item.stale, taken: item.won };
        if let Some(expiry) = args.touch {
            item.expiry = expiry;
        }
        item.won |= won;
        if !args.unseen {
            item.read = true;
            item.second_chance = true;
            item.accessed = now;
        }
        let hit = Hit { ttl_seconds: item.expiry.remaining(now), ..before.hit(now, lease) };
        *self.gets(args.touch.is_some(), true) += 1;
        visit(Some(hit))
    }

    /// Creates the empty item that a reader won by missing it.
    fn vivify<R>(
        &mut self,
        key: &[u8],
        expiry: Expiry,
        args: GetArgs,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        let cas = self.next_cas(args.new_cas);
        let item = Item { won: true, ..Item::new(Vec::new(), 0, expiry, cas, now) };
        if !self.put(key, item, now) {
            *self.gets(args.touch.is_some(), false) += 1;
            return visit(None);
        }
        *self.gets(args.touch.is_some(), true) += 1;
        let lease = Lease { won: true, stale: false, taken: false };
        let item = self.items.get_mut(key).expect("put has just stored it");
        let before = item.clone();
        item.read = true;
        item.second_chance = true;
        visit(Some(before.hit(now, lease)))
    }

    /// Looks at an item without leaving a trace: neither counted nor marked as read.
    pub fn peek<R>(
        &mut self,
        key: &[u8],
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        self.settle(now);
        self.drop_expired(key, now);
        visit(self.items.get(key).map(|item| {
            let lease = Lease { won: false, stale: item.stale, taken: item.won };
            item.hit(now, lease)
        }))
    }

    pub fn store(&mut self, key: &[u8], args: StoreArgs<'_>, now: Seconds) -> StoreOutcome {
        self.settle(now);
        let size = key.len() + args.value.len();
        if size > self.limits.item_bytes_max as usize {
            self.stats.store_too_large += 1;
            return self.refuse_size(key, args.mode, StoreOutcome::TooLarge);
        }
        if size as u64 > self.limits.memory_bytes {
            self.stats.store_no_memory += 1;
            return self.refuse_size(key, args.mode, StoreOutcome::OutOfMemory);
        }
        self.stats.cmd_set += 1;
        self.drop_expired(key, now);
        let fresh = |cas| Item::new(args.value.to_vec(), args.flags, args.expiry, cas, now);

        let Some(old) = self.items.get_mut(key) else {
            return match (args.mode, args.compare_cas, args.vivify) {
                (StoreMode::Set | StoreMode::Replace, Some(_), _) => {
                    self.stats.cas_misses += 1;
                    StoreOutcome::NotFound
                }
                (StoreMode::Set, None, _) | (StoreMode::Add, _, _) => {
                    let item = fresh(self.next_cas(args.new_cas));
                    self.put_or_fail(key, item, now)
                }
                (StoreMode::Append | StoreMode::Prepend, _, Some(expiry)) => {
                    let item = Item { expiry, ..fresh(self.next_cas(args.new_cas)) };
                    self.put_or_fail(key, item, now)
                }
                (StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, _, _) => {
                    StoreOutcome::NotStored
                }
            };
        };

        let old = match args.mode {
            StoreMode::Add => {
                old.accessed = now;
                return StoreOutcome::NotStored;
            }
            StoreMode::Set | StoreMode::Replace | StoreMode::Append | StoreMode::Prepend => {
                old.clone()
            }
        };
        match (args.mode, args.compare_cas) {
            (StoreMode::Append | StoreMode::Prepend, compare) => {
                // A compare with 0 is none here, as in memcached.
                if compare.is_some_and(|cas| cas != 0 && cas != old.cas) {
                    return StoreOutcome::Exists;
                }
                let joined = if args.mode == StoreMode::Append {
                    [&old.value, args.value].concat()
                } else {
                    [args.value, &old.value].concat()
                };
                if !self.fits(key.len() + joined.len()) {
                    return StoreOutcome::NotStored;
                }
                let cas = self.next_cas(args.new_cas);
                self.put_or_fail(key, Item::new(joined, old.flags, old.expiry, cas, now), now)
            }
            (_, None) => {
                let item = fresh(self.next_cas(args.new_cas));
                self.put_or_fail(key, item, now)
            }
            (_, Some(cas)) if cas == old.cas => {
                self.stats.cas_hits += 1;
                let item = fresh(self.next_cas(args.new_cas));
                self.put_or_fail(key, item, now)
            }
            (_, Some(cas)) if cas != 0 && args.invalidate && cas < old.cas => {
                self.stats.cas_hits += 1;
                let item = fresh(self.next_cas(args.new_cas));
                let stale = Item { expiry: old.expiry, stale: true, won: old.won, ..item };
                self.put_or_fail(key, stale, now)
            }
            (_, Some(_)) => {
                self.stats.cas_badval += 1;
                StoreOutcome::Exists
            }
        }
    }

    pub fn delete(&mut self, key: &[u8], args: DeleteArgs, now: Seconds) -> DeleteOutcome {
        self.settle(now);
        self.drop_expired(key, now);
        let Some(item) = self.items.get(key) else {
            self.stats.delete_misses += 1;
            return DeleteOutcome::NotFound;
        };
        if args.compare_cas.is_some_and(|cas| cas != item.cas) {
            self.stats.delete_misses += 1;
            return DeleteOutcome::Exists;
        }
        if args.remove_value {
            let cas = args.new_cas.unwrap_or(item.cas);
            let expiry = args.touch.unwrap_or(Expiry::Never);
            let emptied = Item::new(Vec::new(), 0, expiry, cas, now);
            assert!(self.put(key, emptied, now), "an empty item is no larger than what was there");
        }
        if args.invalidate {
            let cas = self.next_cas(args.new_cas);
            let item = self.items.get_mut(key).expect("found above");
            item.expiry = args.touch.unwrap_or(item.expiry);
            item.stale = true;
            item.won = false;
            item.cas = cas;
            return DeleteOutcome::Deleted;
        }
        self.stats.delete_hits += 1;
        if !args.remove_value {
            self.take(key);
        }
        DeleteOutcome::Deleted
    }

    pub fn arithmetic(
        &mut self,
        key: &[u8],
        args: ArithmeticArgs,
        now: Seconds,
    ) -> ArithmeticOutcome {
        self.settle(now);
        self.drop_expired(key, now);
        let Some(old) = self.items.get(key) else {
            let Some(initial) = args.initial else {
                *self.counts(args.direction, false) += 1;
                return ArithmeticOutcome::NotFound;
            };
            let cas = self.next_cas(args.new_cas);
            let text = number::Digits::of(initial.number).text().to_vec();
            if !self.put(key, Item::new(text, 0, initial.expiry, cas, now), now) {
                self.stats.store_no_memory += 1;
                return ArithmeticOutcome::OutOfMemory;
            }
            return ArithmeticOutcome::Counted {
                number: initial.number,
                cas,
                ttl_seconds: initial.expiry.remaining(now),
            };
        };
        if !number::may_be_number(old.value.len()) {
            return ArithmeticOutcome::NotNumeric;
        }
        if args.compare_cas.is_some_and(|cas| cas != 0 && cas != old.cas) {
            return ArithmeticOutcome::Exists;
        }
        let Some(number) = number::parse(&old.value) else {
            return ArithmeticOutcome::NotNumeric;
        };
        let number = number::count(number, args.direction, args.delta);
        let mut text = number::Digits::of(number).text().to_vec();
        let mut item = old.clone();
        *self.counts(args.direction, true) += 1;
        let cas = self.next_cas(args.new_cas);
        let expiry = args.touch.unwrap_or(item.expiry);
        if text.len() <= item.value.len() {
            // Rewritten in place, so that it keeps its length, its lease and its history.
            text.resize(item.value.len(), b' ');
            item = Item { value: text, cas, expiry, accessed: now, ..item };
            *self.items.get_mut(key).expect("found above") = item;
        } else {
            let longer = Item::new(text, item.flags, expiry, cas, now);
            if !self.put(key, longer, now) {
                return ArithmeticOutcome::OutOfMemory;
            }
        }
        ArithmeticOutcome::Counted { number, cas, ttl_seconds: expiry.remaining(now) }
    }

    pub fn touch(&mut self, key: &[u8], expiry: Expiry, now: Seconds) -> TouchOutcome {
        self.settle(now);
        self.drop_expired(key, now);
        self.stats.cmd_touch += 1;
        let Some(item) = self.items.get_mut(key) else {
            self.stats.touch_misses += 1;
            return TouchOutcome::NotFound;
        };
        item.expiry = expiry;
        item.read = true;
        item.second_chance = true;
        item.accessed = now;
        let (cas, flags) = (item.cas, item.flags);
        self.stats.touch_hits += 1;
        TouchOutcome::Touched { cas, flags }
    }

    /// Forgets everything at `at`; a later flush replaces one that is still to come.
    pub fn flush(&mut self, at: Seconds, now: Seconds) {
        self.settle(now);
        self.stats.cmd_flush += 1;
        self.flush_at = Some(at);
        self.settle(now);
    }

    pub fn resize(&mut self, limits: CacheLimits, now: Seconds) {
        self.limits = limits;
        self.stats.first_eviction = None;
        self.make_room(0, now);
    }

    pub fn stats(&self) -> CacheStats {
        CacheStats {
            items: self.items.len() as u64,
            limit_maxbytes: self.limits.memory_bytes,
            held_bytes: self.stats.bytes,
            ..self.stats
        }
    }

    pub fn reset_stats(&mut self) {
        self.stats = CacheStats { bytes: self.stats.bytes, ..CacheStats::default() };
    }

    /// Every live item's key and value, for tests that compare whole contents.
    pub fn contents(&self, now: Seconds) -> Vec<(Vec<u8>, Vec<u8>)> {
        let flushed = self.flush_at.is_some_and(|at| at <= now);
        let mut all: Vec<_> = self
            .items
            .iter()
            .filter(|(_, item)| !flushed && !item.expiry.has_passed(now))
            .map(|(key, item)| (key.to_vec(), item.value.clone()))
            .collect();
        all.sort();
        all
    }

    /// Forgets one item as an eviction would. For tests: what the engine dropped for want of
    /// memory is dropped here too.
    pub fn forget(&mut self, key: &[u8]) {
        self.take(key);
    }

    /// Carries out a flush whose time has come.
    fn settle(&mut self, now: Seconds) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.items.clear();
            self.order.clear();
            self.stats.bytes = 0;
            self.stats.first_eviction = None;
        }
    }

    /// Whether an expired item was there and has been dropped.
    fn drop_expired(&mut self, key: &[u8], now: Seconds) -> bool {
        if !self.items.get(key).is_some_and(|item| item.expiry.has_passed(now)) {
            return false;
        }
        let item = self.take(key).expect("found above");
        self.stats.expired += 1;
        self.stats.expired_unread += u64::from(!item.read);
        true
    }

    fn take(&mut self, key: &[u8]) -> Option<Item> {
        let item = self.items.remove(key)?;
        self.stats.bytes -= (key.len() + item.value.len()) as u64;
        Some(item)
    }

    /// Stores an item, replacing one of the same key and evicting others as needed.
    /// False when it can never fit; then the old one stays.
    fn put(&mut self, key: &[u8], mut item: Item, now: Seconds) -> bool {
        let size = key.len() + item.value.len();
        if !self.fits(size) {
            return false;
        }
        self.take(key);
        self.make_room(size as u64, now);
        self.births += 1;
        item.born = self.births;
        self.order.push_back((key.into(), item.born));
        self.items.insert(key.into(), item);
        self.stats.bytes += size as u64;
        self.stats.total_items += 1;
        true
    }

    fn put_or_fail(&mut self, key: &[u8], item: Item, now: Seconds) -> StoreOutcome {
        let cas = item.cas;
        let value_bytes = item.value.len() as u32;
        if self.put(key, item, now) {
            StoreOutcome::Stored { cas, value_bytes }
        } else {
            self.stats.store_no_memory += 1;
            StoreOutcome::OutOfMemory
        }
    }

    fn fits(&self, size: usize) -> bool {
        size <= self.limits.item_bytes_max as usize && size as u64 <= self.limits.memory_bytes
    }

    /// Evicts, oldest first and with a second chance for what was read, until `bytes` more fit.
    fn make_room(&mut self, bytes: u64, now: Seconds) {
        while self.stats.bytes + bytes > self.limits.memory_bytes {
            let (key, born) = self.order.pop_front().expect("bytes are held, so items are queued");
            let Some(item) = self.items.get_mut(&key).filter(|item| item.born == born) else {
                continue;
            };
            if item.second_chance && !item.expiry.has_passed(now) {
                item.second_chance = false;
                self.order.push_back((key, born));
                continue;
            }
            let item = self.take(&key).expect("found above");
            if item.expiry.has_passed(now) {
                self.stats.expired += 1;
                self.stats.expired_unread += u64::from(!item.read);
            } else {
                self.stats.evictions += 1;
                self.stats.evicted_unread += u64::from(!item.read);
                self.stats.first_eviction.get_or_insert(now);
            }
        }
    }

    /// An oversize `set` must not leave the old value behind as if it were the new one.
    fn refuse_size(&mut self, key: &[u8], mode: StoreMode, outcome: StoreOutcome) -> StoreOutcome {
        if mode == StoreMode::Set {
            self.take(key);
        }
        outcome
    }

    fn next_cas(&mut self, wanted: Option<u64>) -> u64 {
        wanted.unwrap_or_else(|| {
            self.cas_last += 1;
            self.cas_last
        })
    }

    fn gets(&mut self, touched: bool, hit: bool) -> &mut u64 {
        match (touched, hit) {
            (false, true) => &mut self.stats.get_hits,
            (false, false) => &mut self.stats.get_misses,
            (true, true) => &mut self.stats.touch_hits,
            (true, false) => &mut self.stats.touch_misses,
        }
    }

    fn counts(&mut self, direction: Direction, hit: bool) -> &mut u64 {
        match (direction, hit) {
            (Direction::Increment, true) => &mut self.stats.incr_hits,
            (Direction::Increment, false) => &mut self.stats.incr_misses,
            (Direction::Decrement, true) => &mut self.stats.decr_hits,
            (Direction::Decrement, false) => &mut self.stats.decr_misses,
        }
    }
}
