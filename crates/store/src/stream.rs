//! Sends one cache elsewhere while it is in use: first what is there, then what changes.
//!
//! ```text
//!   stream() ─▶ follow, follow, … ─▶ caught up ─▶ (writes are stopped) ─▶ follow ─▶ end_stream()
//!                  │
//!                  ├─ Item     a key and all there is to it, as it is now
//!                  ├─ Gone     a key that was deleted
//!                  └─ Restart  all that was sent is void: the cache was flushed, or too much changed
//! ```
//!
//! A scan ([`crate::scan`]) finds what was there. Every key that is written, deleted or touched
//! meanwhile goes into a journal, which is looked up and told before the scan goes on. New items are
//! in it too, though the scan would come to them: one might be evicted before that, and then the
//! receiver would keep what it replaced. So the last word about a key is always about its newest
//! state, and a receiver that does as it is told holds what the sender holds, and perhaps some items
//! that the sender has evicted since.

use crate::item::KEY_BYTES_MAX;
use crate::operation::{Hit, Lease, Seconds};
use crate::scan::Cursor;
use crate::slice::{Key, Slice};

/// Most keys in a shard's journal between two calls. More changes than that mean that the receiver
/// does not keep up, and the stream starts again.
const JOURNAL_KEYS_MAX: usize = 16_384;

// A journal is small beside the blocks of the cache it belongs to.
const _: () = assert!(JOURNAL_KEYS_MAX * KEY_BYTES_MAX <= 4 << 20);

/// What a receiver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    Item { key: &'a [u8], hit: Hit<'a> },
    Gone { key: &'a [u8] },
    Restart,
}

/// How far the sending of one cache has come.
#[derive(Debug)]
pub struct Stream {
    /// One for each shard.
    pub(crate) cursors: Vec<Cursor>,
}

/// Keys that changed since they were last told of.
#[derive(Default)]
pub(crate) struct Journal {
    keys: Vec<Box<[u8]>>,
    overflowed: bool,
}

impl Journal {
    fn note(&mut self, key: &[u8]) {
        if self.keys.len() == JOURNAL_KEYS_MAX {
            self.overflowed = true;
            self.keys = Vec::new();
        }
        if !self.overflowed {
            self.keys.push(key.into());
        }
    }
}

/// How one shard's part of a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    More,
    CaughtUp,
    /// What was told cannot be mended: begin again.
    Lost,
}

impl Slice {
    /// Notes that a key is about to change or has changed.
    #[inline]
    pub(crate) fn note(&mut self, key: &[u8]) {
        if let Some(journal) = &mut self.journal {
            journal.note(key);
        }
    }

    /// Tells what has changed and about `items` of what is there.
    pub(crate) fn follow(
        &mut self,
        cursor: &mut Cursor,
        items: usize,
        now: Seconds,
        visit: &mut impl FnMut(Event<'_>),
    ) -> Followed {
        let lost = self.journal.as_ref().is_none_or(|journal| journal.overflowed);
        if lost || cursor.is_of_another_epoch(self.epoch()) {
            return Followed::Lost;
        }
        let changed = std::mem::take(&mut self.journal).unwrap_or_default().keys;
        self.journal = Some(Box::default());
        for key in &changed {
            let at = Key { bytes: key, hash: self.hash(key) };
            match self.find_live(at, now) {
                None => visit(Event::Gone { key }),
                Some(found) => {
                    let marks = found.head.marks;
                    let lease = Lease { won: false, stale: marks.stale, taken: marks.won };
                    self.visit(&found, found.head, found.head.expiry, lease, now, |hit| {
                        hit.into_iter().for_each(|hit| visit(Event::Item { key, hit }));
                    });
                }
            }
        }
        let more = self.scan(cursor, items, now, |key, hit| visit(Event::Item { key, hit }));
        if more { Followed::More } else { Followed::CaughtUp }
    }
}
