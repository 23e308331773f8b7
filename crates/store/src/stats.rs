//! What a cache and the whole store count.

use crate::operation::Seconds;

/// One cache's accounts. Counters count since the cache was created or
/// [`crate::Cache::reset_stats`]; the last group is how things stand now. Named as in memcached's
/// `stats`, where it has the same figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub cmd_get: u64,
    pub cmd_set: u64,
    pub cmd_touch: u64,
    pub cmd_flush: u64,
    pub get_hits: u64,
    pub get_misses: u64,
    /// Misses that found an expired item.
    pub get_expired: u64,
    pub touch_hits: u64,
    pub touch_misses: u64,
    pub delete_hits: u64,
    pub delete_misses: u64,
    pub incr_hits: u64,
    pub incr_misses: u64,
    pub decr_hits: u64,
    pub decr_misses: u64,
    pub cas_hits: u64,
    pub cas_misses: u64,
    /// Compares that found another value.
    pub cas_badval: u64,
    pub store_too_large: u64,
    pub store_no_memory: u64,
    /// Items that ever became part of the cache.
    pub total_items: u64,
    /// Live items dropped because memory was needed.
    pub evictions: u64,
    /// Those of `evictions` that had never been read.
    pub evicted_unread: u64,
    /// Those of `evictions` that happened because another cache claimed its guarantee.
    pub evictions_lent: u64,
    /// Items dropped after they had expired.
    pub expired: u64,
    /// Those of `expired` that had never been read.
    pub expired_unread: u64,
    /// Writes of a key that was evicted not long ago: more memory would have kept it.
    pub ghost_hits: u64,
    /// When the first eviction happened, since creation or the last flush, resize or reset.
    pub first_eviction: Option<Seconds>,

    /// Items held, among them expired ones not yet dropped.
    pub items: u64,
    /// Key and value bytes of those items: what the limit counts.
    pub bytes: u64,
    /// The guaranteed memory, in the same bytes.
    pub limit_maxbytes: u64,
    /// Memory truly taken, with all overhead.
    pub held_bytes: u64,
}

/// What was written, by size and by lifetime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histograms {
    /// `sizes[n]`: items of key plus value from 2^(n-1) up to, not including, 2^n bytes; the last
    /// also larger ones.
    pub sizes: [u64; 24],
    /// `lifetimes[n]`: items with less than 4^n seconds to live that are in none before; the last
    /// but one also longer, the last for ever. `lifetimes[0]` had expired when they were written.
    pub lifetimes: [u64; 12],
}

impl Histograms {
    /// Counts one write.
    #[inline]
    pub(crate) fn add(&mut self, bytes: u64, seconds: Option<u32>) {
        let bits = (u64::BITS - bytes.leading_zeros()) as usize;
        self.sizes[bits.min(self.sizes.len() - 1)] += 1;
        let last = self.lifetimes.len() - 1;
        let lifetime = match seconds {
            None => last,
            Some(seconds) => {
                let bits = (u32::BITS - seconds.leading_zeros()) as usize;
                bits.div_ceil(2).min(last - 1)
            }
        };
        self.lifetimes[lifetime] += 1;
    }

    /// Adds what another shard of the same cache counted.
    pub(crate) fn merge(&mut self, other: &Histograms) {
        self.sizes.iter_mut().zip(&other.sizes).for_each(|(sum, more)| *sum += more);
        self.lifetimes.iter_mut().zip(&other.lifetimes).for_each(|(sum, more)| *sum += more);
    }
}

/// How the memory of the whole store stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub caches: u64,
    /// Memory the store may take.
    pub memory_bytes: u64,
    /// Memory promised to caches, with allowance for overhead.
    pub guaranteed_bytes: u64,
    /// Memory taken by items and indexes.
    pub used_bytes: u64,
}

impl CacheStats {
    /// Adds what another shard of the same cache counted.
    pub(crate) fn add(&mut self, other: &CacheStats) {
        let CacheStats {
            cmd_get,
            cmd_set,
            cmd_touch,
            cmd_flush,
            get_hits,
            get_misses,
            get_expired,
            touch_hits,
            touch_misses,
            delete_hits,
            delete_misses,
            incr_hits,
            incr_misses,
            decr_hits,
            decr_misses,
            cas_hits,
            cas_misses,
            cas_badval,
            store_too_large,
            store_no_memory,
            total_items,
            evictions,
            evicted_unread,
            evictions_lent,
            expired,
            expired_unread,
            ghost_hits,
            first_eviction,
            items,
            bytes,
            limit_maxbytes,
            held_bytes,
        } = other;
        let sums = [
            (&mut self.cmd_get, cmd_get),
            (&mut self.cmd_set, cmd_set),
            (&mut self.cmd_touch, cmd_touch),
            (&mut self.cmd_flush, cmd_flush),
            (&mut self.get_hits, get_hits),
            (&mut self.get_misses, get_misses),
            (&mut self.get_expired, get_expired),
            (&mut self.touch_hits, touch_hits),
            (&mut self.touch_misses, touch_misses),
            (&mut self.delete_hits, delete_hits),
            (&mut self.delete_misses, delete_misses),
            (&mut self.incr_hits, incr_hits),
            (&mut self.incr_misses, incr_misses),
            (&mut self.decr_hits, decr_hits),
            (&mut self.decr_misses, decr_misses),
            (&mut self.cas_hits, cas_hits),
            (&mut self.cas_misses, cas_misses),
            (&mut self.cas_badval, cas_badval),
            (&mut self.store_too_large, store_too_large),
            (&mut self.store_no_memory, store_no_memory),
            (&mut self.total_items, total_items),
            (&mut self.evictions, evictions),
            (&mut self.evicted_unread, evicted_unread),
            (&mut self.evictions_lent, evictions_lent),
            (&mut self.expired, expired),
            (&mut self.expired_unread, expired_unread),
            (&mut self.ghost_hits, ghost_hits),
            (&mut self.items, items),
            (&mut self.bytes, bytes),
            (&mut self.limit_maxbytes, limit_maxbytes),
            (&mut self.held_bytes, held_bytes),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        self.first_eviction = [self.first_eviction, *first_eviction].into_iter().flatten().min();
    }
}
