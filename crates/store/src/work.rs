//! What requests have made a thread do beyond themselves, in counted steps: emptying blocks, moving
//! survivors, growing an index, looking for a cache that gives memory.
//!
//! How long a request takes depends on the machine, and on a shared one the longest of a hundred
//! million requests tells of the machine alone. How many steps it takes depends on the store alone,
//! so that is what bounds are set to: by `tests/bounds.rs` where a request is made to do the most, and by
//! `cargo bench -p testbed -- churn lent` under churn of ten thousand caches. Only steps that few requests
//! have are counted, so that counting costs the others nothing.

use std::cell::Cell;
use std::ops::Sub;

/// Steps of one thread so far, or between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Blocks emptied: evicted, expired, or gathered because much in them was dead.
    pub blocks: u64,
    /// Items walked over in them, dead or alive.
    pub items: u64,
    /// Bytes of items that survived and were copied, heads and all.
    pub moved_bytes: u64,
    /// Slots of an index looked at to make it grow.
    pub slots: u64,
    /// Shards looked at to find one that gives memory.
    pub shards: u64,
}

struct Counters {
    blocks: Cell<u64>,
    items: Cell<u64>,
    moved_bytes: Cell<u64>,
    slots: Cell<u64>,
    shards: Cell<u64>,
}

thread_local! {
    static DONE: Counters = const {
        Counters {
            blocks: Cell::new(0),
            items: Cell::new(0),
            moved_bytes: Cell::new(0),
            slots: Cell::new(0),
            shards: Cell::new(0),
        }
    };
}

impl Work {
    /// What the calling thread has done so far, in all stores and caches.
    pub fn of_this_thread() -> Self {
        DONE.with(|done| Work {
            blocks: done.blocks.get(),
            items: done.items.get(),
            moved_bytes: done.moved_bytes.get(),
            slots: done.slots.get(),
            shards: done.shards.get(),
        })
    }

    /// Of each kind the more of the two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Work {
            blocks: self.blocks.max(other.blocks),
            items: self.items.max(other.items),
            moved_bytes: self.moved_bytes.max(other.moved_bytes),
            slots: self.slots.max(other.slots),
            shards: self.shards.max(other.shards),
        }
    }
}

impl Sub for Work {
    type Output = Work;

    fn sub(self, before: Work) -> Work {
        Work {
            blocks: self.blocks - before.blocks,
            items: self.items - before.items,
            moved_bytes: self.moved_bytes - before.moved_bytes,
            slots: self.slots - before.slots,
            shards: self.shards - before.shards,
        }
    }
}

pub(crate) fn emptied_block() {
    DONE.with(|done| done.blocks.update(|count| count + 1));
}

pub(crate) fn walked_items(items: usize) {
    DONE.with(|done| done.items.update(|count| count + items as u64));
}

pub(crate) fn moved_item(bytes: usize) {
    DONE.with(|done| done.moved_bytes.update(|count| count + bytes as u64));
}

pub(crate) fn grew_index(slots: usize) {
    DONE.with(|done| done.slots.update(|count| count + slots as u64));
}

pub(crate) fn looked_at_shard() {
    DONE.with(|done| done.shards.update(|count| count + 1));
}
