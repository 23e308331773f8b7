//! A cache's accounts under the names that memcached gives them.

use store::stats::CacheStats;

/// The general statistics of one cache, in memcached's order where it has the same figure
/// (`doc/protocol.txt`, "General-purpose statistics").
pub(crate) fn figures(stats: &CacheStats) -> Vec<(&'static str, u64)> {
    vec![
        ("cmd_get", stats.cmd_get),
        ("cmd_set", stats.cmd_set),
        ("cmd_flush", stats.cmd_flush),
        ("cmd_touch", stats.cmd_touch),
        ("get_hits", stats.get_hits),
        ("get_misses", stats.get_misses),
        ("get_expired", stats.get_expired),
        ("delete_misses", stats.delete_misses),
        ("delete_hits", stats.delete_hits),
        ("incr_misses", stats.incr_misses),
        ("incr_hits", stats.incr_hits),
        ("decr_misses", stats.decr_misses),
        ("decr_hits", stats.decr_hits),
        ("cas_misses", stats.cas_misses),
        ("cas_hits", stats.cas_hits),
        ("cas_badval", stats.cas_badval),
        ("touch_hits", stats.touch_hits),
        ("touch_misses", stats.touch_misses),
        ("store_too_large", stats.store_too_large),
        ("store_no_memory", stats.store_no_memory),
        ("limit_maxbytes", stats.limit_maxbytes),
        ("bytes", stats.bytes),
        ("curr_items", stats.items),
        ("total_items", stats.total_items),
        ("evictions", stats.evictions),
        ("evicted_unfetched", stats.evicted_unread),
        ("expired", stats.expired),
        ("expired_unfetched", stats.expired_unread),
        ("ghost_hits", stats.ghost_hits),
        ("held_bytes", stats.held_bytes),
    ]
}
