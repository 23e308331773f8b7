//! Removes what is left of slots that were given away, a little at a time.
//!
//! Items are not kept by slot, so the sweep looks at all of them; it runs in idle time, and whoever
//! needs memory meanwhile evicts these items like any others. A slot that comes back before the
//! sweep is over is not served until it is.

use std::sync::Arc;

use cluster::ownership::Dirty;
use cluster::slot::SlotHasher;
use store::operation::Seconds;
use store::scan::Cursor;
use store::store::{Cache, Store};

/// Items looked at in one step; about 20 µs, in which one lock of one cache is held.
const ITEMS_PER_STEP: usize = 128;

pub(crate) struct Sweep {
    dirty: Dirty,
    hasher: SlotHasher,
    /// Caches still to be seen. Those made later have nothing of these slots.
    caches: Vec<Arc<Cache>>,
    cursor: Cursor,
}

impl Sweep {
    pub(crate) fn new(store: &Store, hasher: SlotHasher, dirty: Dirty) -> Self {
        Sweep { dirty, hasher, caches: store.caches(), cursor: Cursor::default() }
    }

    pub(crate) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    /// `false` when nothing is left to look at.
    pub(crate) fn step(&mut self, now: Seconds) -> bool {
        let Some(cache) = self.caches.last() else { return false };
        let mut doomed: Vec<Box<[u8]>> = Vec::new();
        let more = cache.scan(&mut self.cursor, ITEMS_PER_STEP, now, |key, _| {
            if self.dirty.contains(self.hasher.slot(cache.id(), key)) {
                doomed.push(key.into());
            }
        });
        for key in &doomed {
            cache.forget(&cache.locate(key));
        }
        if !more {
            self.caches.pop();
            self.cursor = Cursor::default();
        }
        true
    }
}
