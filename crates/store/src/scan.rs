//! Reads through all of a cache in order of age, a little at a time, while it is in use.
//!
//! Each log is read from its oldest item to its newest. Items are written at ends of logs only, and
//! moving one is writing it at an end, so what a reader has not passed still lies before it. The
//! scan is over when it stands at the ends of all logs at the same moment; then every item that was
//! there all the time has been seen at least once. An item that is moved or written while the scan
//! goes on may be seen twice, and one that is rewritten in place may be seen as it was before.

use crate::log::{LOGS, LogId, Position};
use crate::operation::{Hit, Lease, Seconds};
use crate::slice::Slice;

/// How far a scan of one cache has come. The default is the beginning.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    pub(crate) shard: usize,
    positions: [Position; LOGS],
    /// Flushes the shard had seen: after another one the old positions mean nothing.
    epoch: Option<u32>,
}

impl Cursor {
    /// Whether the shard was flushed since the scan began.
    pub(crate) fn is_of_another_epoch(&self, epoch: u32) -> bool {
        self.epoch.is_some_and(|begun| begun != epoch)
    }

    /// To the beginning of the next shard.
    pub(crate) fn next_shard(&mut self) {
        *self = Cursor { shard: self.shard + 1, ..Cursor::default() };
    }
}

impl Slice {
    /// Shows living items, at most about `items`, and moves the cursor past them. True when there
    /// is more.
    pub(crate) fn scan(
        &self,
        cursor: &mut Cursor,
        items: usize,
        now: Seconds,
        mut visit: impl FnMut(&[u8], Hit<'_>),
    ) -> bool {
        if cursor.epoch != Some(self.epoch()) {
            cursor.positions = Default::default();
            cursor.epoch = Some(self.epoch());
        }
        let mut left = items.max(1);
        for log in LogId::all() {
            let position = &mut cursor.positions[log.number()];
            loop {
                let batch = self.fetch(left, || self.contents.logs.advance(log, position));
                if batch.is_empty() {
                    break;
                }
                // Dead items cost time too.
                left -= batch.len();
                for (place, hash) in batch {
                    if let Some(found) = self.living(place, hash)
                        && !found.head.expiry.has_passed(now)
                    {
                        let head = found.head;
                        let marks = head.marks;
                        let lease = Lease { won: false, stale: marks.stale, taken: marks.won };
                        let key = self.contents.logs.key(place);
                        self.visit(&found, head, head.expiry, lease, now, |hit| {
                            hit.into_iter().for_each(|hit| visit(key, hit));
                        });
                    }
                }
                if left == 0 {
                    return true;
                }
            }
        }
        false
    }
}
