//! The answer to `stats`: the proxy's own figures, then those of whoever holds the items.
//!
//! Names and order follow memcached (`doc/protocol.txt`, "General-purpose statistics"), because
//! tools parse them. Everything is about the session's own cache: a tenant learns nothing of others.

use std::fmt::Display;

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
            usage.reset();
            reply.stats_reset(out);
            return;
        }
        b"" => {
            let mut stat = |name: &str, value: &dyn Display| {
                reply.stat(out, name, &value.to_string());
            };
            stat("pid", &std::process::id());
            stat("uptime", &turn.now.since_start);
            stat("time", &turn.now.unix);
            stat("version", &VERSION);
            stat("pointer_size", &usize::BITS);
            stat("curr_connections", &connections);
            for (name, figure) in usage.figures().into_iter().chain(turn.link.figures(cache)) {
                stat(name, &figure);
            }
        }
        // What memcached tells of its insides has no counterpart here: it is told empty.
        b"settings" | b"items" | b"slabs" | b"sizes" | b"conns" | b"threads" => (),
        _ => {
            reply.stats_unknown(out);
            return;
        }
    }
    reply.stats_end(out);
}
