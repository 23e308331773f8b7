//! What is measured, and what must be reached: the table behind `docs/benchmarks.md`.

use super::outcome::Of;

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
    /// CPU time per request, ours over theirs.
    Cpu { load: &'static str, against: Against, at_most: Option<f64>, items: u64, bed: Bed },
    /// The time within which half of a lone client's requests are answered, ours over theirs.
    Lone { load: &'static str, at_most: f64 },
    /// Larder in two processes, or one, beside nutcracker and memcached.
    Relayed { load: &'static str, compared: Relayed, of: Of, at_most: f64 },
    /// CPU time per request with many caches over that with one, both ours.
    Caches { load: &'static str, caches: usize, at_most: f64 },
    /// Instructions of the server per request, outside of the kernel.
    Instructions { load: &'static str, requests: u64, at_most: f64 },
    /// Authentications per second of the server's CPU time.
    Logins { load: &'static str, at_least: f64 },
    /// Memory of the server per connection that is authenticated and silent.
    IdleBytes { load: &'static str, at_most: f64 },
    /// From the start of the program to the first request it has served.
    StartSeconds { at_most: f64 },
    /// Memory of the server per item beyond its key and value.
    OverheadBytes { load: &'static str, key_and_value_bytes: u64, at_most: f64, items: u64 },
}

/// How the servers of a row are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bed {
    /// One thread on the servers' core, the generator on the other.
    OneThread,
    /// Two threads and the generator, wherever the system puts them.
    TwoThreads,
    /// As with one thread; Larder looks for requests without sleeping while that pays.
    Spinning,
    /// As with one thread, and a hundred megabytes: less than the items need.
    Small,
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
    /// Whether the row needs a minute to prepare.
    pub(super) fn is_long(&self) -> bool {
        match &self.measure {
            Measure::Cpu { items, .. } | Measure::OverheadBytes { items, .. } => {
                *items >= ITEMS_MANY
            }
            Measure::Caches { .. } => true,
            Measure::Lone { .. }
            | Measure::Relayed { .. }
            | Measure::Instructions { .. }
            | Measure::Logins { .. }
            | Measure::IdleBytes { .. }
            | Measure::StartSeconds { .. } => false,
        }
    }

    /// Whether it is there to be looked at only, and so measured more shortly.
    pub(super) fn is_width(&self) -> bool {
        self.id == WIDTH
    }
}

/// The id of rows without a target.
pub(super) const WIDTH: &str = "–";

/// Few enough to stay in the caches of the processor: then the server's own work is seen.
pub(super) const ITEMS_FEW: u64 = 10_000;
/// Far more than any cache of a processor holds: every look-up goes to memory.
pub(super) const ITEMS_MANY: u64 = 10_000_000;

/// Three times what a hundred megabytes hold of 300 B.
const ITEMS_TOO_MANY: u64 = 1_000_000;

/// Connections opened for the rows of silent connections.
pub(super) const IDLE_CONNECTIONS: u64 = 10_000;

const fn cpu(
    id: &'static str,
    what: &'static str,
    load: &'static str,
    against: Against,
    at_most: f64,
) -> Row {
    let (at_most, items, bed) = (Some(at_most), ITEMS_FEW, OneThread);
    Row { id, what, measure: Measure::Cpu { load, against, at_most, items, bed } }
}

/// Only shown, beside memcached.
const fn width(what: &'static str, load: &'static str, items: u64, bed: Bed) -> Row {
    let measure = Measure::Cpu { load, against: Memcached, at_most: None, items, bed };
    Row { id: WIDTH, what, measure }
}

const fn two_threads(what: &'static str, load: &'static str, at_most: f64) -> Row {
    let (at_most, items, bed) = (Some(at_most), ITEMS_FEW, Bed::TwoThreads);
    let measure = Measure::Cpu { load, against: Memcached, at_most, items, bed };
    Row { id: "P11", what, measure }
}

const fn relayed(
    id: &'static str,
    what: &'static str,
    load: &'static str,
    compared: Relayed,
    at_most: f64,
) -> Row {
    Row { id, what, measure: Measure::Relayed { load, compared, of: Of::Cpu, at_most } }
}

const fn cold(what: &'static str, load: &'static str, at_most: f64) -> Row {
    let (against, at_most, items) = (Memcached, Some(at_most), ITEMS_MANY);
    let bed = OneThread;
    Row { id: "P4", what, measure: Measure::Cpu { load, against, at_most, items, bed } }
}

use Against::{Memcached, OurText};
use Bed::{OneThread, Small};
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
    Row {
        id: "P9", what: "half answered: a node ÷ nutcracker and memcached, get, 5,000 per second",
        measure: Measure::Relayed {
            load: "--mix get -c 50 -i 16 --rate 5000 --poisson --spin", compared: OneProcess,
            of: Of::Median, at_most: 0.60,
        },
    },
    cpu(
        "P9", "get 100 B, 60,000 per second on 50 connections",
        "--mix get -c 50 -i 64 --rate 60000 --poisson --spin", Memcached, 0.92,
    ),
    width("get 32 B, 50 × 16", "--mix get -v 32 -c 50 -i 16", ITEMS_FEW, OneThread),
    width("get 1 KB, 50 × 16", "--mix get -v 1k -c 50 -i 16", ITEMS_FEW, OneThread),
    width("get 4 KB, 50 × 16", "--mix get -v 4k -c 50 -i 16", ITEMS_FEW, OneThread),
    width("set 1 KB, 50 × 16", "--mix set -v 1k -c 50 -i 16", ITEMS_FEW, OneThread),
    width("set 4 KB, 50 × 16", "--mix set -v 4k -c 50 -i 16", ITEMS_FEW, OneThread),
    width("90:10 of 32 B to 4 KB, 50 × 1", "--mix get=90,set=10 -v 32..4096 -c 50 -i 1", ITEMS_FEW, OneThread),
    width("the same, 50 × 16", "--mix get=90,set=10 -v 32..4096 -c 50 -i 16", ITEMS_FEW, OneThread),
    width("get 100 B, 1 × 1", "--mix get -c 1 -i 1", ITEMS_FEW, OneThread),
    width("get 100 B, 500 × 1", "--mix get -c 500 -i 1", ITEMS_FEW, OneThread),
    width("get 100 B, 5,000 × 1", "--mix get -c 5000 -i 1", ITEMS_FEW, OneThread),
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
        id: "P10", what: "lone client, half answered; Larder with `spin_us = 50`",
        measure: Measure::Lone { load: "--mix get -c 1 -i 1 --spin", at_most: 0.45 },
    },
    two_threads("two threads each, unpinned, get 100 B, 50 × 1", ONE, 0.92),
    two_threads("the same, 50 × 16", SIXTEEN, 0.40),
    width("set 300 B into a full cache of 100 MB, 50 × 16", "--mix set -v 300 -c 50 -i 16", ITEMS_TOO_MANY, Small),
    Row {
        id: "P17", what: "instructions per get 100 B outside of the kernel, 1 in flight",
        measure: Measure::Instructions {
            load: "--mix get -c 1 -i 1", requests: 10_000, at_most: 900.0,
        },
    },
    Row {
        id: "P17", what: "the same, 16 in flight",
        measure: Measure::Instructions {
            load: "--mix get -c 1 -i 16", requests: 10_000, at_most: 650.0,
        },
    },
    Row {
        id: "P12", what: "4,000 caches ÷ 1 cache, get 100 B, 4,000 × 1",
        measure: Measure::Caches { load: "--mix get -i 1", caches: 4_000, at_most: 1.10 },
    },
    Row {
        id: "P12", what: "the same, 4,000 × 16",
        measure: Measure::Caches { load: "--mix get -i 16", caches: 4_000, at_most: 1.10 },
    },
    Row {
        id: "P15", what: "overhead of an item, 16 B + 32 B, 10 M of them",
        measure: Measure::OverheadBytes {
            load: "--key-size 16 -v 32", key_and_value_bytes: 48, at_most: 24.0, items: ITEMS_MANY,
        },
    },
    cold("get among 10 M items, 50 × 16", "--mix get -v 32 -c 50 -i 16", 0.33),
    cold("get among 10 M items, 50 × 64", "--mix get -v 32 -c 50 -i 64", 0.16),
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
