//! What is reported of one backend's part of a cache, from which its share is worked out.

use store::stats::CacheStats;
use wire::control::usage::PartReport;

/// Part of what was last reported by which a figure must have changed to be reported again: with the
/// shares of one in 256 a cache is shared as well as with exact ones, and idle caches say nothing.
const CHANGE_PART: u64 = 256;

/// What was last reported of one part.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reported {
    bytes: u64,
    /// As counted since the cache was made, or its figures reset.
    evictions: u64,
    was_evicting: bool,
}

impl Reported {
    /// How the part stands, when that must be reported: it has changed by more than a little since
    /// the last time, or evicts, or did. `backend` is its number at its node.
    pub fn changed(&mut self, backend: u8, stats: &CacheStats) -> Option<PartReport> {
        // A reset counts from 0 again.
        let evicted_items = match stats.evictions.checked_sub(self.evictions) {
            Some(evicted) => evicted,
            None => stats.evictions,
        };
        let change = stats.bytes.abs_diff(self.bytes);
        let is_evicting = evicted_items > 0;
        if change <= self.bytes / CHANGE_PART && !is_evicting && !self.was_evicting {
            return None;
        }
        let (bytes, evictions) = (stats.bytes, stats.evictions);
        *self = Reported { bytes, evictions, was_evicting: is_evicting };
        Some(PartReport { backend, bytes, items: stats.items, evicted_items })
    }

    /// Has what is held told anew, to someone who takes it for nothing.
    pub fn forget(&mut self) {
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(bytes: u64, evictions: u64) -> CacheStats {
        CacheStats { bytes, items: bytes / 100, evictions, ..CacheStats::default() }
    }

    #[test]
    fn only_what_has_changed_is_reported() {
        let mut reported = Reported::default();
        let mut evicted = |bytes, evictions| {
            reported.changed(0, &stats(bytes, evictions)).map(|part| part.evicted_items)
        };
        assert_eq!(evicted(0, 0), None, "an empty part needs no report");
        assert_eq!(evicted(25_600, 0), Some(0));
        assert_eq!(evicted(25_700, 0), None, "a little");
        assert_eq!(evicted(25_701, 0), Some(0));
        assert_eq!(evicted(25_701, 5), Some(5));
        assert_eq!(evicted(25_701, 5), Some(0), "that it evicts no more");
        assert_eq!(evicted(25_701, 5), None);
        assert_eq!(evicted(25_701, 2), Some(2), "counted from 0 again");
        reported.forget();
        assert_eq!(reported.changed(3, &stats(25_701, 2)).map(|part| part.backend), Some(3));
    }
}
