//! What clients may ask of a slice, as memcached 1.6 answers it (its `items.c`, `memcached.c` and
//! `proto_parser.c` were read for the facts; `model.rs` says the same in the plainest way).

use crate::item::{Cas, Head, Marks, raw_expiry};
use crate::number;
use crate::operation::{
    ArithmeticArgs, ArithmeticOutcome, DeleteArgs, DeleteOutcome, Direction, Expiry, GetArgs, Hit,
    Lease, Seconds, StoreArgs, StoreMode, StoreOutcome, TouchOutcome,
};
use crate::slice::{Found, Key, New, NoMemory, Slice, with_scratch};

impl Slice {
    /// A [plain](GetArgs::is_plain) read, as nearly all are: nothing of the item changes but when it
    /// was read and, if it is stale, who was told to refill it.
    #[inline]
    pub(crate) fn get_plain<R>(
        &mut self,
        key: Key<'_>,
        leases: bool,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        let Some(found) = self.look_up(key, now) else {
            self.stats.get_misses += 1;
            return visit(None);
        };
        self.stats.get_hits += 1;
        self.contents.index.bump(found.slot);
        let marks = found.head.marks;
        let mut seen = marks;
        seen.access(now);
        seen.read = true;
        let won = leases && marks.stale && !marks.won;
        if won {
            seen.won = true;
            self.note(key.bytes);
        }
        if seen != marks {
            self.contents.logs.write_marks(found.place, seen);
        }
        let lease = Lease { won, stale: marks.stale, taken: marks.won };
        self.visit(&found, found.head, found.head.expiry, lease, now, visit)
    }

    pub(crate) fn get<R>(
        &mut self,
        key: Key<'_>,
        args: GetArgs,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        self.stats.cmd_touch += u64::from(args.touch.is_some());
        let Some(found) = self.look_up(key, now) else {
            return match args.vivify {
                Some(expiry) => self.vivify(key, expiry, args, now, visit),
                None => {
                    *self.gets(args.touch.is_some(), false) += 1;
                    visit(None)
                }
            };
        };
        *self.gets(args.touch.is_some(), true) += 1;
        if !args.unseen {
            self.contents.index.bump(found.slot);
        }

        let before = found.head;
        let recache = args.recache_before.is_some_and(|limit| before.expiry.is_before(limit));
        let won = args.leases && !before.marks.won && (recache || before.marks.stale);
        let lease = Lease { won, stale: before.marks.stale, taken: before.marks.won };
        let mut after = before;
        if !args.unseen {
            after.marks.access(now);
            after.marks.read = true;
        }
        after.marks.won |= won;
        if let Some(expiry) = args.touch {
            self.touch_found(&found, &mut after, expiry);
        }
        if (after.expiry, after.marks.won) != (before.expiry, before.marks.won) {
            self.note(key.bytes);
        }
        if after != before {
            self.contents.logs.write_head(found.place, &after);
        }
        self.visit(&found, before, after.expiry, lease, now, visit)
    }

    /// Counts a read and finds its item, if that is alive.
    #[inline]
    fn look_up(&mut self, key: Key<'_>, now: Seconds) -> Option<Found> {
        self.settle(now);
        self.stats.cmd_get += 1;
        let found = match self.find(key) {
            Some(found) if found.head.expiry.has_passed(now) => {
                self.expire(&found);
                self.stats.get_expired += 1;
                None
            }
            found => found,
        };
        if let Some(watch) = self.watching.watch() {
            let value_bytes = found.as_ref().map(|found| found.head.value_bytes);
            watch.see_read(key.bytes, key.hash, value_bytes);
        }
        found
    }

    /// Looks at an item without leaving a trace: neither counted nor marked as read.
    pub(crate) fn peek<R>(
        &mut self,
        key: Key<'_>,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        match self.find_live(key, now) {
            Some(found) => {
                let marks = found.head.marks;
                let lease = Lease { won: false, stale: marks.stale, taken: marks.won };
                self.visit(&found, found.head, found.head.expiry, lease, now, visit)
            }
            None => visit(None),
        }
    }

    pub(crate) fn store(
        &mut self,
        key: Key<'_>,
        args: StoreArgs<'_>,
        now: Seconds,
    ) -> StoreOutcome {
        self.settle(now);
        let size = (key.bytes.len() + args.value.len()) as u64;
        if size > u64::from(self.quota.item_bytes_max) {
            self.stats.store_too_large += 1;
            return self.refuse(key, args.mode, StoreOutcome::TooLarge);
        }
        if size > self.quota.guaranteed {
            self.stats.store_no_memory += 1;
            return self.refuse(key, args.mode, StoreOutcome::OutOfMemory);
        }
        self.stats.cmd_set += 1;
        if let Some(watch) = self.watching.watch() {
            watch.see_write(key.bytes, key.hash, args.value.len());
        }
        match (args.mode, self.find_live(key, now)) {
            (StoreMode::Set | StoreMode::Replace, None) if args.compare_cas.is_some() => {
                self.stats.cas_misses += 1;
                StoreOutcome::NotFound
            }
            (StoreMode::Set | StoreMode::Add, None) => {
                self.store_new(key, None, args, args.expiry, now)
            }
            (StoreMode::Append | StoreMode::Prepend, None) if args.vivify.is_some() => {
                let expiry = args.vivify.expect("just looked at");
                self.store_new(key, None, args, expiry, now)
            }
            (StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, None) => {
                StoreOutcome::NotStored
            }
            (StoreMode::Add, Some(found)) => {
                // Whoever wanted to add it will read it: as good as a read of it.
                let mut head = found.head;
                head.marks.access(now);
                self.contents.logs.write_head(found.place, &head);
                StoreOutcome::NotStored
            }
            (StoreMode::Set | StoreMode::Replace, Some(found)) => {
                self.store_over(key, args, &found, now)
            }
            (StoreMode::Append | StoreMode::Prepend, Some(found)) => {
                self.join(key, args, &found, now)
            }
        }
    }

    pub(crate) fn forget(&mut self, key: Key<'_>) {
        if let Some(found) = self.find(key) {
            self.remove(&found);
            self.note(key.bytes);
        }
    }

    pub(crate) fn delete(&mut self, key: Key<'_>, args: DeleteArgs, now: Seconds) -> DeleteOutcome {
        let Some(found) = self.find_live(key, now) else {
            self.stats.delete_misses += 1;
            return DeleteOutcome::NotFound;
        };
        if args.compare_cas.is_some_and(|cas| cas != found.head.cas.value()) {
            self.stats.delete_misses += 1;
            return DeleteOutcome::Exists;
        }
        if !args.invalidate {
            self.stats.delete_hits += 1;
        }
        if !args.invalidate && !args.remove_value {
            self.remove(&found);
            self.note(key.bytes);
            return DeleteOutcome::Deleted;
        }
        let mut new = New::of(&found.head);
        if args.remove_value {
            let marks = Marks::fresh(now);
            new = New { flags: 0, expiry: Expiry::Never, marks, ..new };
            if let Some(chosen) = args.new_cas {
                new.cas = Cas::Chosen(chosen);
            }
        }
        if args.invalidate {
            new.cas = self.next_cas(args.new_cas);
            new.marks.stale = true;
            new.marks.won = false;
        }
        new.expiry = args.touch.unwrap_or(new.expiry);
        let written = if args.remove_value {
            self.stats.total_items += 1;
            self.put(key, Some(found), new, [&[], &[]], now)
        } else {
            self.rewrite(key, &found, new, now)
        };
        // What stays is no larger than what was there, but for a chosen CAS value; if even that
        // finds no memory, the item goes, which is what the client wanted most.
        if written.is_err()
            && let Some(found) = self.find(key)
        {
            self.remove(&found);
            self.note(key.bytes);
        }
        DeleteOutcome::Deleted
    }

    pub(crate) fn arithmetic(
        &mut self,
        key: Key<'_>,
        args: ArithmeticArgs,
        now: Seconds,
    ) -> ArithmeticOutcome {
        let Some(found) = self.find_live(key, now) else {
            let Some(initial) = args.initial else {
                *self.counts(args.direction, false) += 1;
                return ArithmeticOutcome::NotFound;
            };
            let marks = Marks::fresh(now);
            let cas = self.next_cas(args.new_cas);
            let new = New { flags: 0, expiry: initial.expiry, cas, marks };
            let text = number::Digits::of(initial.number);
            self.stats.total_items += 1;
            return self.count_outcome(key, None, new, text.text(), initial.number, now);
        };
        if !number::may_be_number(found.head.value_bytes) {
            return ArithmeticOutcome::NotNumeric;
        }
        let compare = args.compare_cas.filter(|&cas| cas != 0);
        if compare.is_some_and(|cas| cas != found.head.cas.value()) {
            return ArithmeticOutcome::Exists;
        }
        let logs = &self.contents.logs;
        let number =
            with_scratch(|scratch| number::parse(logs.value(found.place, &found.head, scratch)));
        let Some(number) = number else { return ArithmeticOutcome::NotNumeric };
        let number = number::count(number, args.direction, args.delta);
        *self.counts(args.direction, true) += 1;
        let mut new = New::of(&found.head);
        new.cas = self.next_cas(args.new_cas);
        new.expiry = args.touch.unwrap_or(new.expiry);
        let text = number::Digits::of(number);
        if text.text().len() > found.head.value_bytes {
            // A longer text is a new item, without the old one's lease and history.
            new.marks = Marks::fresh(now);
            self.stats.total_items += 1;
            return self.count_outcome(key, Some(found), new, text.text(), number, now);
        }
        new.marks.access(now);
        with_scratch(|padded| {
            padded.clear();
            padded.extend_from_slice(text.text());
            padded.resize(found.head.value_bytes, b' ');
            self.count_outcome(key, Some(found), new, padded, number, now)
        })
    }

    pub(crate) fn touch(&mut self, key: Key<'_>, expiry: Expiry, now: Seconds) -> TouchOutcome {
        self.stats.cmd_touch += 1;
        let Some(found) = self.find_live(key, now) else {
            self.stats.touch_misses += 1;
            return TouchOutcome::NotFound;
        };
        self.stats.touch_hits += 1;
        self.contents.index.bump(found.slot);
        let mut head = found.head;
        head.marks.read = true;
        head.marks.access(now);
        self.touch_found(&found, &mut head, expiry);
        self.contents.logs.write_head(found.place, &head);
        self.note(key.bytes);
        TouchOutcome::Touched { cas: head.cas.value(), flags: head.flags }
    }

    /// Forgets everything at `at`; a later flush replaces one that is still to come.
    pub(crate) fn flush(&mut self, at: Seconds, now: Seconds) {
        self.settle(now);
        self.flush_at = Some(at);
        self.settle(now);
    }

    /// Carries out a flush whose time has come.
    #[inline]
    pub(crate) fn settle(&mut self, now: Seconds) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.flush_now();
        }
    }

    pub(crate) fn find_live(&mut self, key: Key<'_>, now: Seconds) -> Option<Found> {
        self.settle(now);
        let found = self.find(key)?;
        if found.head.expiry.has_passed(now) {
            self.expire(&found);
            return None;
        }
        Some(found)
    }

    /// Shows an item as it was `before`, but for its expiry.
    #[inline]
    pub(crate) fn visit<R>(
        &self,
        found: &Found,
        before: Head,
        expiry: Expiry,
        lease: Lease,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        let show = |value: &[u8]| {
            visit(Some(Hit {
                value,
                flags: before.flags,
                cas: before.cas.value(),
                ttl_seconds: expiry.remaining(now),
                read_before: before.marks.read,
                idle_seconds: before.marks.idle_seconds(now),
                lease,
            }))
        };
        match self.contents.logs.whole_value(found.place, &before) {
            Some(value) => show(value),
            None => with_scratch(|scratch| {
                show(self.contents.logs.value(found.place, &before, scratch))
            }),
        }
    }

    /// Creates the empty item that a reader won by missing it.
    fn vivify<R>(
        &mut self,
        key: Key<'_>,
        expiry: Expiry,
        args: GetArgs,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        let cas = self.next_cas(args.new_cas);
        let marks = Marks { won: true, read: true, ..Marks::fresh(now) };
        let stored = self.put(key, None, New { flags: 0, expiry, cas, marks }, [&[], &[]], now);
        *self.gets(args.touch.is_some(), stored.is_ok()) += 1;
        if stored.is_err() {
            return visit(None);
        }
        self.stats.total_items += 1;
        let found = self.find(key).expect("put has just stored it");
        let mut before = found.head;
        before.marks.read = false;
        let lease = Lease { won: true, stale: false, taken: false };
        self.visit(&found, before, expiry, lease, now, visit)
    }

    fn touch_found(&mut self, found: &Found, head: &mut Head, expiry: Expiry) {
        head.expiry = expiry;
        self.contents.logs.note_expiry(found.place, head, raw_expiry(expiry));
    }

    fn store_new(
        &mut self,
        key: Key<'_>,
        old: Option<Found>,
        args: StoreArgs<'_>,
        expiry: Expiry,
        now: Seconds,
    ) -> StoreOutcome {
        let cas = self.next_cas(args.new_cas);
        let new = New { flags: args.flags, expiry, cas, marks: Marks::fresh(now) };
        self.store_outcome(key, old, new, [args.value, &[]], now)
    }

    fn store_over(
        &mut self,
        key: Key<'_>,
        args: StoreArgs<'_>,
        found: &Found,
        now: Seconds,
    ) -> StoreOutcome {
        let Some(compare) = args.compare_cas else {
            return self.store_new(key, Some(*found), args, args.expiry, now);
        };
        let current = found.head.cas.value();
        if compare == current {
            self.stats.cas_hits += 1;
            return self.store_new(key, Some(*found), args, args.expiry, now);
        }
        if !args.invalidate || compare == 0 || compare > current {
            self.stats.cas_badval += 1;
            return StoreOutcome::Exists;
        }
        // An older value than the item's: better than nothing, so it is stored, but as stale, and
        // whoever was to refill the item still is.
        self.stats.cas_hits += 1;
        let won = found.head.marks.won;
        let marks = Marks { stale: true, won, ..Marks::fresh(now) };
        let cas = self.next_cas(args.new_cas);
        let new = New { flags: args.flags, expiry: found.head.expiry, cas, marks };
        self.store_outcome(key, Some(*found), new, [args.value, &[]], now)
    }

    fn join(
        &mut self,
        key: Key<'_>,
        args: StoreArgs<'_>,
        found: &Found,
        now: Seconds,
    ) -> StoreOutcome {
        let compare = args.compare_cas.filter(|&cas| cas != 0);
        if compare.is_some_and(|cas| cas != found.head.cas.value()) {
            return StoreOutcome::Exists;
        }
        let size = found.head.charged_bytes() + args.value.len() as u64;
        if size > u64::from(self.quota.item_bytes_max).min(self.quota.guaranteed) {
            return StoreOutcome::NotStored;
        }
        let cas = self.next_cas(args.new_cas);
        let Head { flags, expiry, .. } = found.head;
        let new = New { flags, expiry, cas, marks: Marks::fresh(now) };
        with_scratch(|old| {
            old.clear();
            self.contents.logs.copy_value(found.place, &found.head, old);
            let parts: [&[u8]; 2] =
                if args.mode == StoreMode::Append { [old, args.value] } else { [args.value, old] };
            self.store_outcome(key, Some(*found), new, parts, now)
        })
    }

    fn store_outcome(
        &mut self,
        key: Key<'_>,
        old: Option<Found>,
        new: New,
        parts: [&[u8]; 2],
        now: Seconds,
    ) -> StoreOutcome {
        let value_bytes = (parts[0].len() + parts[1].len()) as u32;
        match self.put(key, old, new, parts, now) {
            Ok(()) => {
                self.stats.total_items += 1;
                StoreOutcome::Stored { cas: new.cas.value(), value_bytes }
            }
            Err(NoMemory) => {
                self.stats.store_no_memory += 1;
                StoreOutcome::OutOfMemory
            }
        }
    }

    fn count_outcome(
        &mut self,
        key: Key<'_>,
        old: Option<Found>,
        new: New,
        text: &[u8],
        number: u64,
        now: Seconds,
    ) -> ArithmeticOutcome {
        match self.put(key, old, new, [text, &[]], now) {
            Ok(()) => ArithmeticOutcome::Counted {
                number,
                cas: new.cas.value(),
                ttl_seconds: new.expiry.remaining(now),
            },
            Err(NoMemory) => {
                self.stats.store_no_memory += 1;
                ArithmeticOutcome::OutOfMemory
            }
        }
    }

    /// Writes an item anew with its old value.
    fn rewrite(
        &mut self,
        key: Key<'_>,
        found: &Found,
        new: New,
        now: Seconds,
    ) -> Result<(), NoMemory> {
        with_scratch(|value| {
            value.clear();
            self.contents.logs.copy_value(found.place, &found.head, value);
            self.put(key, Some(*found), new, [value, &[]], now)
        })
    }

    /// An oversize `set` must not leave the old value behind as if it were the new one.
    fn refuse(&mut self, key: Key<'_>, mode: StoreMode, outcome: StoreOutcome) -> StoreOutcome {
        if mode == StoreMode::Set
            && let Some(found) = self.find(key)
        {
            self.remove(&found);
            self.note(key.bytes);
        }
        outcome
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

impl New {
    /// As the item is.
    fn of(head: &Head) -> Self {
        New { flags: head.flags, expiry: head.expiry, cas: head.cas, marks: head.marks }
    }
}
