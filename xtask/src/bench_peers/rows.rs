//! What is measured, and what must be reached: the table behind `docs/benchmarks.md`.

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    /// The target's name; several rows may belong to one target.
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    pub(super) measure: Measure,
}

#[derive(Debug)]
pub(super) enum Measure {
    /// Our CPU time per request over theirs.
    Cpu { load: &'static str, against: Against, at_most: f64, items: u64 },
    /// CPU time per request of Larder in two processes, or one, beside nutcracker and memcached.
    Relayed { load: &'static str, compared: Relayed, at_most: f64 },
    /// Authentications per second of the server's CPU time.
    Logins { load: &'static str, at_least: f64 },
    /// Memory of the server per connection that is authenticated and silent.
    IdleBytes { load: &'static str, at_most: f64 },
    /// From the start of the program to the first request it has served.
    StartSeconds { at_most: f64 },
    /// Memory of the server per item beyond its key and value.
    OverheadBytes { load: &'static str, key_and_value_bytes: u64, at_most: f64, items: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Against {
    /// The same words said to memcached.
    Memcached,
    /// The same load on Larder in the text dialect.
    OurText,
}

/// What is compared where a proxy stands before the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relayed {
    /// A node that has the items, with nutcracker and memcached together.
    OneProcess,
    /// A proxy and the node that has the items, with memcached asked directly.
    WholePath,
    /// A proxy whose items are on another node, with nutcracker alone.
    Proxy,
}

impl Row {
    /// Whether the row needs minutes to prepare.
    pub(super) fn is_long(&self) -> bool {
        match &self.measure {
            Measure::Cpu { items, .. } | Measure::OverheadBytes { items, .. } => *items > ITEMS_FEW,
            Measure::Relayed { .. }
            | Measure::Logins { .. }
            | Measure::IdleBytes { .. }
            | Measure::StartSeconds { .. } => false,
        }
    }
}

/// Few enough to stay in the caches of the processor: then the server's own work is seen.
const ITEMS_FEW: u64 = 10_000;
/// Far more than any cache of a processor holds: every look-up goes to memory.
const ITEMS_MANY: u64 = 10_000_000;

/// Connections opened for the rows of silent connections.
pub(super) const IDLE_CONNECTIONS: u64 = 10_000;

const fn cpu(
    id: &'static str,
    what: &'static str,
    load: &'static str,
    against: Against,
    at_most: f64,
) -> Row {
    Row { id, what, measure: Measure::Cpu { load, against, at_most, items: ITEMS_FEW } }
}

const fn relayed(
    id: &'static str,
    what: &'static str,
    load: &'static str,
    compared: Relayed,
    at_most: f64,
) -> Row {
    Row { id, what, measure: Measure::Relayed { load, compared, at_most } }
}

const fn cold(id: &'static str, what: &'static str, load: &'static str, at_most: f64) -> Row {
    let against = Memcached;
    Row { id, what, measure: Measure::Cpu { load, against, at_most, items: ITEMS_MANY } }
}

use Against::{Memcached, OurText};
use Relayed::{OneProcess, Proxy, WholePath};

const ONE: &str = "--mix get -c 50 -i 1";
const SIXTEEN: &str = "--mix get -c 50 -i 16";
const TEN_KEYS: &str = "--mix get --multiget 10 -c 50 -i 1";
const HUNDRED_KEYS: &str = "--mix get --multiget 100 -c 50 -i 1";

/// In the order in which they are measured: rows with the same items share their servers.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    cpu("P1", "get 100 B, 50 connections × 1 in flight", "--mix get -c 50 -i 1", Memcached, 0.86),
    cpu("P1", "get 100 B, 1,000 × 1", "--mix get -c 1000 -i 1", Memcached, 0.80),
    cpu("P1", "get 100 B, 50 × 16", "--mix get -c 50 -i 16", Memcached, 0.42),
    cpu("P1", "get 100 B, 50 × 64", "--mix get -c 50 -i 64", Memcached, 0.15),
    cpu("P2", "set 32 B, 50 × 1", "--mix set -v 32 -c 50 -i 1", Memcached, 0.87),
    cpu("P2", "set 32 B, 50 × 16", "--mix set -v 32 -c 50 -i 16", Memcached, 0.55),
    cpu("P3", "get of 10 keys, 50 × 1", "--mix get --multiget 10 -c 50 -i 1", Memcached, 0.48),
    cpu("P3", "get of 100 keys, 50 × 1", "--mix get --multiget 100 -c 50 -i 1", Memcached, 0.16),
    cpu("P5", "binary get, 50 × 1", "--dialect binary --mix get -c 50 -i 1", OurText, 1.1),
    cpu("P5", "binary get, 1,000 × 1", "--dialect binary --mix get -c 1000 -i 1", OurText, 1.1),
    cpu("P5", "binary get, 50 × 16", "--dialect binary --mix get -c 50 -i 16", OurText, 1.1),
    cpu("P5", "binary get, 50 × 64", "--dialect binary --mix get -c 50 -i 64", OurText, 1.1),
    cpu("P5", "meta get, 50 × 1", "--dialect meta --mix get -c 50 -i 1", OurText, 1.1),
    cpu("P5", "meta get, 1,000 × 1", "--dialect meta --mix get -c 1000 -i 1", OurText, 1.1),
    cpu("P5", "meta get, 50 × 16", "--dialect meta --mix get -c 50 -i 16", OurText, 1.1),
    cpu("P5", "meta get, 50 × 64", "--dialect meta --mix get -c 50 -i 64", OurText, 1.1),
    relayed("P6", "a node ÷ nutcracker and memcached, get, 50 × 1", ONE, OneProcess, 0.65),
    relayed("P6", "the same, 50 × 16", SIXTEEN, OneProcess, 0.25),
    relayed("P6", "the same, get of 10 keys, 50 × 1", TEN_KEYS, OneProcess, 0.36),
    relayed("P6", "the same, get of 100 keys, 50 × 1", HUNDRED_KEYS, OneProcess, 0.10),
    relayed("P7", "a proxy and another node ÷ memcached, get, 50 × 1", ONE, WholePath, 0.97),
    relayed("P7", "the same, 50 × 16", SIXTEEN, WholePath, 0.55),
    relayed("P8", "a proxy before another node ÷ nutcracker, get, 50 × 1", ONE, Proxy, 0.75),
    relayed("P8", "the same, 50 × 16", SIXTEEN, Proxy, 0.55),
    relayed("P8", "the same, get of 10 keys, 50 × 1", TEN_KEYS, Proxy, 0.65),
    relayed("P8", "the same, get of 100 keys, 50 × 1", HUNDRED_KEYS, Proxy, 0.40),
    cpu(
        "P9", "get 100 B, 60,000 per second on 50 connections",
        "--mix get -c 50 -i 64 --rate 60000 --poisson --spin", Memcached, 0.92,
    ),
    cpu("P13", "get 100 B over TLS, 50 × 1", "--tls --mix get -c 50 -i 1", Memcached, 0.9),
    cpu("P13", "get 100 B over TLS, 50 × 16", "--tls --mix get -c 50 -i 16", Memcached, 0.9),
    Row {
        id: "P14", what: "idle authenticated connection",
        measure: Measure::IdleBytes { load: "", at_most: 300.0 },
    },
    Row {
        id: "P14", what: "idle authenticated connection, TLS",
        measure: Measure::IdleBytes { load: "--tls", at_most: 16.0 * 1024.0 },
    },
    Row {
        id: "P16", what: "connect, SASL PLAIN, close",
        measure: Measure::Logins {
            load: "--dialect binary --handshakes connect -c 50", at_least: 60_000.0,
        },
    },
    Row {
        id: "P16", what: "SASL PLAIN again and again, 50 × 1",
        measure: Measure::Logins {
            load: "--dialect binary --handshakes repeat -c 50", at_least: 60_000.0,
        },
    },
    Row {
        id: "P19", what: "`larder up` to the first served request, new state",
        measure: Measure::StartSeconds { at_most: 0.1 },
    },
    Row {
        id: "P15", what: "overhead of an item, 16 B + 32 B, 10 M of them",
        measure: Measure::OverheadBytes {
            load: "--key-size 16 -v 32", key_and_value_bytes: 48, at_most: 24.0, items: ITEMS_MANY,
        },
    },
    cold("P4", "get among 10 M items, 50 × 16", "--mix get -v 32 -c 50 -i 16", 0.33),
    cold("P4", "get among 10 M items, 50 × 64", "--mix get -v 32 -c 50 -i 64", 0.16),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_with_the_same_items_stand_together() {
        let long: Vec<bool> = ROWS.iter().map(Row::is_long).collect();
        assert!(long.is_sorted(), "servers would be filled twice");
    }
}
