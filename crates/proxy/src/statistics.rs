//! The answer to `stats`: what is asked for, and the proxy's own figures. Those of whoever holds the
//! items follow, summed over all backends.
//!
//! Names and order follow memcached (`doc/protocol.txt`, "General-purpose statistics"), because
//! tools parse them. Everything is about the session's own cache: a tenant learns nothing of others.

use std::fmt::Display;

use daemon::clock::Now;
use protocol::reply::Reply;
use tenancy::directory::CacheEntry;

use crate::usage::CacheUsage;

/// What `version` answers. Clients of memcached read a version of memcached out of it, so it begins
/// with the release whose protocol we speak.
pub(crate) const VERSION: &str = concat!("1.6.40-larder-", env!("CARGO_PKG_VERSION"));

/// What `stats <argument>` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Argument {
    Figures,
    Reset,
    /// Something that memcached tells of its insides and that has no counterpart here.
    Nothing,
    Unknown,
}

impl Argument {
    pub(crate) fn read(argument: &[u8]) -> Self {
        match argument {
            b"" => Argument::Figures,
            b"reset" => Argument::Reset,
            b"settings" | b"items" | b"slabs" | b"sizes" | b"conns" | b"threads" => {
                Argument::Nothing
            }
            _ => Argument::Unknown,
        }
    }
}

/// Says what the proxy itself knows; the figures of those who hold the items follow.
pub(crate) fn say_own(
    reply: &Reply<'_>,
    out: &mut Vec<u8>,
    entry: &CacheEntry,
    usage: &CacheUsage,
    now: Now,
) {
    let mut stat = |name: &str, value: &dyn Display| {
        reply.stat(out, name, &value.to_string());
    };
    stat("pid", &std::process::id());
    stat("uptime", &now.since_start);
    stat("time", &now.unix);
    stat("version", &VERSION);
    stat("pointer_size", &usize::BITS);
    stat("curr_connections", &entry.connections());
    for (figure, count) in usage.figures() {
        stat(figure.name(), &count);
    }
    // Of all backends together, which only know what each of them is to hold.
    stat("limit_maxbytes", &entry.memory_bytes());
}
