//! What a backend reports of its parts of caches, from which their shares are worked out.

use std::collections::HashMap;

use cluster::shares::Part;
use cluster::slot::SLOTS;
use tenancy::id::CacheId;

use crate::Backend;

/// Part of what was last reported by which a figure must have changed to be reported again: with the
/// shares of one in 256 a cache is shared as well as with exact ones, and idle caches say nothing.
const CHANGE_PART: u64 = 256;
/// Parts in one report: more have changed in a second only after a start, and those left out come
/// with the next.
pub const REPORT_PARTS_MAX: usize = 4_096;

/// Remembers what it has reported, so that it reports changes only. One for each backend.
#[derive(Default)]
pub struct Reporter {
    reported: HashMap<CacheId, Reported>,
}

#[derive(Clone, Copy, Default)]
struct Reported {
    bytes: u64,
    /// As counted since the cache was made, or its figures reset.
    evictions: u64,
    was_evicting: bool,
}

impl Reporter {
    /// What has changed since the last call, at most [`REPORT_PARTS_MAX`] parts.
    pub fn report(&mut self, backend: &Backend) -> Vec<(CacheId, Part)> {
        let slots = backend.slots().standing().map_or(SLOTS as usize, |standing| standing.owned);
        let slots = u32::try_from(slots).expect("at most SLOTS");
        let caches = backend.store.caches();
        let mut parts = Vec::new();
        for cache in &caches {
            if parts.len() == REPORT_PARTS_MAX {
                break;
            }
            let stats = cache.stats();
            let known = self.reported.get(&cache.id()).copied();
            let before = known.unwrap_or_default();
            // A reset counts from 0 again.
            let evicted_items = match stats.evictions.checked_sub(before.evictions) {
                Some(evicted) => evicted,
                None => stats.evictions,
            };
            let change = stats.bytes.abs_diff(before.bytes);
            let is_evicting = evicted_items > 0;
            if known.is_none()
                || change > before.bytes / CHANGE_PART
                || is_evicting
                || before.was_evicting
            {
                let (bytes, items) = (stats.bytes, stats.items);
                parts.push((cache.id(), Part { bytes, items, evicted_items, slots }));
                let evictions = stats.evictions;
                let now = Reported { bytes, evictions, was_evicting: is_evicting };
                self.reported.insert(cache.id(), now);
            }
        }
        if caches.len() < self.reported.len() {
            self.reported.retain(|id, _| backend.cache(*id).is_some());
        }
        parts
    }
}
