//! A cache's accounts under the names that memcached gives them.

use store::stats::CacheStats;
use wire::control::usage::Figure;

/// What is counted of a cache here, in memcached's order where it has the same figure.
pub fn counted(stats: &CacheStats) -> [(Figure, u64); 29] {
    [
        (Figure::CmdGet, stats.cmd_get),
        (Figure::CmdSet, stats.cmd_set),
        (Figure::CmdFlush, stats.cmd_flush),
        (Figure::CmdTouch, stats.cmd_touch),
        (Figure::GetHits, stats.get_hits),
        (Figure::GetMisses, stats.get_misses),
        (Figure::GetExpired, stats.get_expired),
        (Figure::DeleteMisses, stats.delete_misses),
        (Figure::DeleteHits, stats.delete_hits),
        (Figure::IncrMisses, stats.incr_misses),
        (Figure::IncrHits, stats.incr_hits),
        (Figure::DecrMisses, stats.decr_misses),
        (Figure::DecrHits, stats.decr_hits),
        (Figure::CasMisses, stats.cas_misses),
        (Figure::CasHits, stats.cas_hits),
        (Figure::CasBadval, stats.cas_badval),
        (Figure::TouchHits, stats.touch_hits),
        (Figure::TouchMisses, stats.touch_misses),
        (Figure::StoreTooLarge, stats.store_too_large),
        (Figure::StoreNoMemory, stats.store_no_memory),
        (Figure::Bytes, stats.bytes),
        (Figure::CurrItems, stats.items),
        (Figure::TotalItems, stats.total_items),
        (Figure::Evictions, stats.evictions),
        (Figure::EvictedUnfetched, stats.evicted_unread),
        (Figure::Expired, stats.expired),
        (Figure::ExpiredUnfetched, stats.expired_unread),
        (Figure::GhostHits, stats.ghost_hits),
        (Figure::HeldBytes, stats.held_bytes),
    ]
}

/// The same by name, as `stats` tells them.
pub(crate) fn figures(stats: &CacheStats) -> Vec<(&'static str, u64)> {
    counted(stats).into_iter().map(|(figure, count)| (figure.name(), count)).collect()
}
