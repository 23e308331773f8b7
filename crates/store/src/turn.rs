//! One thread's operations on one cache, with as few locks as may be.
//!
//! A request alone takes the lock of its key's shard and lets it go. Requests that came together keep
//! the lock of the shard they used last, so a batch on a cache of one shard takes one lock. A lock
//! that nobody else wants is about 14 ns.

use crate::operation::{
    ArithmeticArgs, ArithmeticOutcome, DeleteArgs, DeleteOutcome, Expiry, GetArgs, Hit, Seconds,
    StoreArgs, StoreOutcome, TouchOutcome,
};
use crate::slice::{Claim, Slice};
use crate::store::{Cache, Located, Shard};
use crate::sync::MutexGuard;

/// Key and value bytes of a slice below which warming is not worth its instructions: such a slice
/// stays in a core's own caches. Measured: at 64 gets in flight, warming 1 MiB of items cost 15 % of
/// the time, and warming 10 million items saved a fifth.
const WARM_BYTES_MIN: u64 = 4 << 20;

/// Value bytes moved under one lock before others have their turn at it: copying as many takes some
/// ten microseconds, as a batch of small requests does.
const LOCKED_BYTES_MAX: usize = 64 << 10;

/// Operations that follow one another at once. Whoever holds one holds a lock that others wait for,
/// so it should live for some microseconds, and its thread must ask the same cache for nothing by
/// another way meanwhile: it would wait for itself. After large values the lock is let go in between.
pub struct Turn<'c> {
    cache: &'c Cache,
    held: Option<Held<'c>>,
}

/// The shard used last.
struct Held<'c> {
    shard: &'c Shard,
    number: usize,
    slice: MutexGuard<'c, Slice>,
    /// Value bytes that may still be moved under this lock.
    bytes_left: usize,
}

impl<'c> Turn<'c> {
    #[inline]
    pub(crate) fn new(cache: &'c Cache) -> Self {
        Turn { cache, held: None }
    }

    /// Begins to fetch the items of a batch from memory, if they are not likely to be near already.
    /// The fetches overlap, so what would be two waits for each item is two for the batch: worth it
    /// from four keys on.
    pub fn warm(&mut self, batch: &[Located<'_>]) {
        let cache = self.cache;
        for number in 0..cache.shards().len() {
            let mine = || batch.iter().filter(|at| cache.shard_number(at.hash) == number);
            if mine().next().is_none() {
                continue;
            }
            let slice = &self.hold(number).slice;
            if slice.stats.bytes >= WARM_BYTES_MIN {
                mine().for_each(|at| slice.contents.index.prefetch(at.hash));
                for place in mine().filter_map(|at| slice.contents.index.guess(at.hash)) {
                    slice.contents.logs.prefetch(place);
                }
            }
        }
    }

    /// Reads an item. `visit` sees it under a lock of the cache, so it should copy and return, and
    /// must not come back to the same cache.
    #[inline]
    pub fn get<R>(
        &mut self,
        at: &Located<'_>,
        args: GetArgs,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        if args.is_plain() {
            let mut bytes = 0;
            let result = self.read(at, |slice| {
                slice.get_plain(at.parts(), args.leases, now, |hit| {
                    bytes = hit.as_ref().map_or(0, |hit| hit.value.len());
                    visit(hit)
                })
            });
            self.moved(bytes);
            return result;
        }
        self.get_with(at, args, now, visit)
    }

    fn get_with<R>(
        &mut self,
        at: &Located<'_>,
        args: GetArgs,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        let mut bytes = 0;
        let visit = |hit: Option<Hit<'_>>| {
            bytes = hit.as_ref().map_or(0, |hit| hit.value.len());
            visit(hit)
        };
        let operation = |slice: &mut Slice| slice.get(at.parts(), args, now, visit);
        // A reader who wins a miss writes an item.
        let result = match args.vivify {
            Some(_) => self.write(at, at.key().len(), now, operation),
            None => self.read(at, operation),
        };
        self.moved(bytes);
        result
    }

    /// Looks at an item without leaving a trace (meta `me`): neither counted nor marked as read.
    pub fn peek<R>(
        &mut self,
        at: &Located<'_>,
        now: Seconds,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        self.read(at, |slice| slice.peek(at.parts(), now, visit))
    }

    pub fn store(&mut self, at: &Located<'_>, args: StoreArgs<'_>, now: Seconds) -> StoreOutcome {
        let item_bytes = at.key().len() + args.value.len();
        let outcome = self.write(at, item_bytes, now, |slice| slice.store(at.parts(), args, now));
        self.moved(args.value.len());
        outcome
    }

    /// Removes an item that no client asked to be removed, and counts nothing.
    pub fn forget(&mut self, at: &Located<'_>) {
        self.read(at, |slice| slice.forget(at.parts()));
    }

    pub fn delete(&mut self, at: &Located<'_>, args: DeleteArgs, now: Seconds) -> DeleteOutcome {
        self.write(at, 0, now, |slice| slice.delete(at.parts(), args, now))
    }

    pub fn arithmetic(
        &mut self,
        at: &Located<'_>,
        args: ArithmeticArgs,
        now: Seconds,
    ) -> ArithmeticOutcome {
        self.write(at, at.key().len(), now, |slice| slice.arithmetic(at.parts(), args, now))
    }

    pub fn touch(&mut self, at: &Located<'_>, expiry: Expiry, now: Seconds) -> TouchOutcome {
        self.read(at, |slice| slice.touch(at.parts(), expiry, now))
    }

    #[inline]
    fn hold(&mut self, number: usize) -> &mut Held<'c> {
        if self.held.as_ref().is_some_and(|held| held.number != number) {
            // Nobody ever holds two locks.
            self.held = None;
        }
        let shard = &self.cache.shards()[number];
        self.held.get_or_insert_with(|| Held {
            shard,
            number,
            slice: shard.lock(),
            bytes_left: LOCKED_BYTES_MAX,
        })
    }

    /// Lets go of the lock when much was done under it.
    #[inline]
    fn moved(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            held.bytes_left = held.bytes_left.saturating_sub(bytes);
            if held.bytes_left == 0 {
                self.held = None;
            }
        }
    }

    #[inline]
    fn hold_for(&mut self, at: &Located<'_>) -> &mut Held<'c> {
        self.hold(self.cache.shard_number(at.hash))
    }

    /// Runs an operation that takes no memory, though it may drop an item that has expired.
    #[inline]
    fn read<R>(&mut self, at: &Located<'_>, operation: impl FnOnce(&mut Slice) -> R) -> R {
        let Held { shard, slice, .. } = self.hold_for(at);
        let result = operation(slice);
        if slice.has_spares() {
            slice.return_spares();
            shard.publish(slice);
        }
        result
    }

    /// Runs an operation that may take memory. If the shard is below its guarantee and memory is
    /// scarce, it has what it may need before it begins; others give what is not free, while no lock
    /// of a shard is held.
    #[inline]
    fn write<R>(
        &mut self,
        at: &Located<'_>,
        item_bytes: usize,
        now: Seconds,
        operation: impl FnOnce(&mut Slice) -> R,
    ) -> R {
        if let Some(claim) = self.hold_for(at).slice.claims(item_bytes, now) {
            let arbiter = &self.cache.arbiter;
            let mut blocks = arbiter.memory.take_many(claim.blocks);
            let missing = claim.blocks - blocks.len() as u32;
            if missing > 0 {
                self.held = None;
                blocks.extend(arbiter.reclaim(Claim { blocks: missing, ..claim }, now));
            }
            self.hold_for(at).slice.receive(claim, blocks, now);
        }
        let Held { shard, slice, .. } = self.hold_for(at);
        let result = operation(slice);
        slice.return_spares();
        shard.publish(slice);
        result
    }
}
