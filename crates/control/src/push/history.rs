//! The newest deltas, kept for nodes that are a little behind, with the digest after each.

use std::collections::VecDeque;
use std::sync::Arc;

use wire::control::digest::SetDigest;
use wire::control::message::{FromControl, RULES_VERSION, VERSIONS};
use wire::control::record::{Delta, Revision};

/// Deltas kept: at a hundred changes a second, ten minutes of absence without a snapshot.
pub const DELTAS_MAX: usize = 65_536;
/// Their encoded bytes together. A delta has some hundred, so this rarely decides.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What happened up to the newest revision, as far back as the limits allow.
///
/// Invariant: the entries' revisions follow on `base` without a gap.
#[derive(Debug)]
pub struct History {
    /// The revision before the first entry, and the digest at it.
    base: (Revision, SetDigest),
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The oldest version in which all that nodes must know can be said to them.
    version_min: u8,
}

/// One transaction.
#[derive(Debug, Clone)]
pub struct Entry {
    pub delta: Arc<Delta>,
    /// The delta as a frame of the newest version of the protocol: encoded once for all nodes.
    pub frame: Arc<[u8]>,
    /// Of the whole set after it.
    pub digest: SetDigest,
}

impl History {
    /// A history that begins now.
    pub fn new(revision: Revision, digest: SetDigest) -> Self {
        // What is in every set can be said in every version that a session agrees on.
        History { base: (revision, digest), entries: VecDeque::new(), bytes: 0, version_min: 0 }
    }

    /// A history of a set that has rules for addresses in it, if it `has_rules`.
    #[must_use]
    pub fn with_rules(mut self, has_rules: bool) -> Self {
        if has_rules {
            self.version_min = self.version_min.max(RULES_VERSION);
        }
        self
    }

    /// See [`History::with_rules`]. It never falls: that there were rules is news, too.
    pub fn version_min(&self) -> u8 {
        self.version_min
    }

    /// The newest revision and the digest at it.
    pub fn head(&self) -> (Revision, SetDigest) {
        self.entries.back().map_or(self.base, |entry| (entry.delta.revision, entry.digest))
    }

    /// Adds the next delta.
    ///
    /// # Panics
    ///
    /// When it does not follow on the head, which its caller has checked.
    pub fn push(&mut self, delta: Delta, digest: SetDigest) {
        assert_eq!(delta.revision, self.head().0.next(), "history has no gap");
        if delta.has_rules() {
            self.version_min = self.version_min.max(RULES_VERSION);
        }
        let mut frame = Vec::new();
        let message = FromControl::Delta(delta);
        message.encode(VERSIONS.max, &mut frame);
        let FromControl::Delta(delta) = message else {
            unreachable!("it was made two lines above")
        };
        self.bytes += frame.len();
        self.entries.push_back(Entry { delta: Arc::new(delta), frame: frame.into(), digest });
        while self.entries.len() > DELTAS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.frame.len();
            self.base = (oldest.delta.revision, oldest.digest);
        }
    }

    /// The deltas that follow on `revision`, oldest first; `None` when they are not all here any
    /// more, or the revision has not been yet.
    pub fn after(&self, revision: Revision) -> Option<impl Iterator<Item = &Entry>> {
        let skip = revision.get().checked_sub(self.base.0.get())?;
        let skip = usize::try_from(skip).ok()?;
        (skip <= self.entries.len()).then(|| self.entries.iter().skip(skip))
    }

    /// The digest at a revision, as far as it is known.
    pub fn digest_at(&self, revision: Revision) -> Option<SetDigest> {
        let index = revision.get().checked_sub(self.base.0.get())?;
        match usize::try_from(index).ok()? {
            0 => Some(self.base.1),
            index => self.entries.get(index - 1).map(|entry| entry.digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_what_follows_and_knows_each_digest() {
        let mut history = History::new(Revision::new(5), SetDigest::from_number(50));
        (6..9).for_each(|n| history.push(delta(n), SetDigest::from_number(u128::from(n) * 10)));
        let after = |n| {
            let entries = history.after(Revision::new(n))?;
            Some(entries.map(|entry| entry.delta.revision.get()).collect::<Vec<_>>())
        };
        assert_eq!(after(4), None);
        assert_eq!(after(5), Some(vec![6, 7, 8]));
        assert_eq!(after(7), Some(vec![8]));
        assert_eq!(after(8), Some(vec![]));
        assert_eq!(after(9), None);
        let digest = |n| history.digest_at(Revision::new(n)).map(SetDigest::number);
        assert_eq!((digest(4), digest(5), digest(8), digest(9)), (None, Some(50), Some(80), None));
    }

    #[test]
    fn the_oldest_leave_when_there_are_too_many() {
        let mut history = History::new(Revision::ZERO, SetDigest::EMPTY);
        let count = DELTAS_MAX as u64 + 10;
        (1..=count).for_each(|n| history.push(delta(n), SetDigest::from_number(u128::from(n))));
        assert!(history.after(Revision::new(9)).is_none());
        let kept = history.after(Revision::new(10)).map(Iterator::count);
        assert_eq!(kept, Some(DELTAS_MAX));
        assert_eq!(history.digest_at(Revision::new(10)), Some(SetDigest::from_number(10)));
    }

    fn delta(revision: u64) -> Delta {
        Delta { revision: Revision::new(revision), puts: vec![], deletes: vec![] }
    }
}
