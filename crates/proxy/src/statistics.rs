//! The answer to `stats`: the proxy's own figures, then those of whoever holds the items.
//!
//! Names and order follow memcached (`doc/protocol.txt`, "General-purpose statistics"), because
//! tools parse them. Everything is about the session's own cache: a tenant learns nothing of others.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use protocol::reply::Reply;

use crate::link::BackendLink;
use crate::session::Turn;
use crate::usage::CacheUsage;

/// What `version` answers. Clients of memcached read a version of memcached out of it, so it begins
/// with the release whose protocol we speak.
pub(crate) const VERSION: &str = concat!("1.6.40-larder-", env!("CARGO_PKG_VERSION"));

/// Answers `stats <argument>`.
pub(crate) fn answer<L: BackendLink>(
    argument: &[u8],
    reply: &Reply<'_>,
    out: &mut Vec<u8>,
    usage: &CacheUsage,
    connections: u32,
    cache: &L::Cache,
    turn: &Turn<'_, L>,
) {
    match argument {
        b"reset" => {
            turn.link.reset_stats(cache);
            reset(usage);
            reply.stats_reset(out);
        }
        b"" => {
            general(usage, connections, turn, &mut |name, value| reply.stat(out, name, value));
            turn.link.stats(cache, b"", turn.now, &mut |name, value| reply.stat(out, name, value));
            reply.stats_end(out);
        }
        kind => {
            // A kind that nobody knows has no statistics.
            turn.link.stats(cache, kind, turn.now, &mut |name, value| reply.stat(out, name, value));
            reply.stats_end(out);
        }
    }
}

fn general<L: BackendLink>(
    usage: &CacheUsage,
    connections: u32,
    turn: &Turn<'_, L>,
    stat: &mut dyn FnMut(&str, &str),
) {
    let total = |counter: &AtomicU64| counter.load(Relaxed).to_string();
    stat("pid", &std::process::id().to_string());
    stat("uptime", &turn.now.since_start.to_string());
    stat("time", &turn.now.unix.to_string());
    stat("version", VERSION);
    stat("pointer_size", &usize::BITS.to_string());
    stat("curr_connections", &connections.to_string());
    stat("total_connections", &total(&usage.connections_total));
    stat("bytes_read", &total(&usage.bytes_read_total));
    stat("bytes_written", &total(&usage.bytes_written_total));
}

fn reset(usage: &CacheUsage) {
    for counter in [&usage.connections_total, &usage.bytes_read_total, &usage.bytes_written_total] {
        counter.store(0, Relaxed);
    }
}
