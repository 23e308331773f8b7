//! The same on other engines, in the same run: memcached over a socket, the segcache crate in
//! process.

use std::time::Duration;

use segcache::{Policy, Segcache};
use testbed::connection::Connection;
use testbed::memcached::Memcached;
use testbed::workload::chance::{Random, Zipf};

use crate::keys::key;
use crate::report::{Report, resident_bytes};

const MIB: u64 = 1 << 20;

/// Bars of the goals 1, 2, 6 and 12.
pub(crate) fn run(report: &mut Report) {
    let (major, minor, patch) = Memcached::version();
    println!("(memcached {major}.{minor}.{patch}, segcache 0.4)");
    for value_bytes in [100, 200, 300, 500] {
        let (held, resident) = memcached_overhead(value_bytes);
        let segcache = segcache_overhead(value_bytes);
        let figure =
            format!("memcached {held:.1} B (RSS {resident:.1} B), segcache {segcache:.1} B");
        let what = format!("1 (others): overhead per item, 16 B keys and {value_bytes} B values");
        report.figure(&what, figure, "-", "-", true);
    }
    for median in [200.0, 1_200.0] {
        let figure = format!(
            "memcached {:.3}, segcache {:.3}",
            memcached_usable(median),
            segcache_usable(median)
        );
        let what = format!("2 (others): usable memory, sizes around {median} B, 64 MB");
        report.figure(&what, figure, "-", "-", true);
    }
    let (empty, heap) = segcache_empty();
    report.figure(
        "12 (segcache): memory of an empty engine",
        format!("{} KB, with the smallest heap it takes, {} KB", empty >> 10, heap >> 10),
        "study: 575 KB",
        "-",
        true,
    );
    let passes: Vec<String> = memcached_shift().iter().map(|share| format!("{share:.3}")).collect();
    report.figure(
        "6 (memcached, defaults): hits after items grew, passes 1 to 7",
        passes.join(" "),
        "-",
        "-",
        true,
    );
}

/// A memcached of so many megabytes and a connection to it.
struct Peer {
    server: Memcached,
    connection: Connection,
    /// Requests not yet sent.
    pending: Vec<u8>,
}

impl Peer {
    fn start(megabytes: u64) -> Self {
        let server = Memcached::start_with_memory(megabytes);
        let connection = Connection::open(server.addr);
        Peer { server, connection, pending: Vec::new() }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.pending.extend_from_slice(b"set ");
        self.pending.extend_from_slice(key);
        self.pending.extend_from_slice(format!(" 0 0 {} noreply\r\n", value.len()).as_bytes());
        self.pending.extend_from_slice(value);
        self.pending.extend_from_slice(b"\r\n");
        if self.pending.len() > 64 * 1_024 {
            self.flush();
        }
    }

    /// Sends what is pending and waits until it is done.
    fn flush(&mut self) {
        self.pending.extend_from_slice(b"mn\r\n");
        self.connection.send(&self.pending);
        self.connection.expect(b"MN\r\n");
        self.pending.clear();
    }

    /// Which of these keys are there.
    fn has(&mut self, keys: &[[u8; 16]]) -> Vec<bool> {
        self.flush();
        let mut request = Vec::new();
        for key in keys {
            request.extend_from_slice(b"mg ");
            request.extend_from_slice(key);
            request.extend_from_slice(b" s\r\n");
        }
        self.connection.send(&request);
        keys.iter().map(|_| self.connection.line().starts_with("HD")).collect()
    }

    /// One figure of `stats <of>`.
    fn figure(&mut self, of: &str, name: &str) -> u64 {
        self.flush();
        self.connection.send(format!("stats{of}\r\n").as_bytes());
        let mut figure = 0;
        loop {
            let line = self.connection.line();
            if line.trim_end() == "END" {
                return figure;
            }
            let mut words = line.split_whitespace().skip(1);
            if words.next() == Some(name) {
                figure = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            }
        }
    }
}

/// Bytes per item over key and value: what it counts against its limit and the table beside, and
/// what the process grew by.
fn memcached_overhead(value_bytes: usize) -> (f64, f64) {
    let mut peer = Peer::start(1_024);
    let before = peer.server.process.memory_bytes();
    let value = vec![b'v'; value_bytes];
    let items = 64 * MIB / (16 + value_bytes as u64);
    (0..items).for_each(|number| peer.set(&key(number), &value));
    let held = peer.figure(" slabs", "total_malloced") + peer.figure("", "hash_bytes");
    assert_eq!(peer.figure("", "curr_items"), items);
    let grown = peer.server.process.memory_bytes() - before;
    let over = |bytes: u64| bytes as f64 / items as f64 - (16 + value_bytes) as f64;
    (over(held), over(grown))
}

/// Key and value bytes per byte of its limit at the first eviction.
fn memcached_usable(median: f64) -> f64 {
    let mut peer = Peer::start(64);
    let mut random = Random::new(5);
    let value = vec![b'v'; 100_000];
    let mut bytes = 0;
    for number in 0.. {
        let size = random.log_normal(median, 1.0).clamp(1.0, 100_000.0) as usize;
        peer.set(&key(number), &value[..size]);
        bytes += 16 + size as u64;
        if number % 256 == 0 && peer.figure("", "evictions") > 0 {
            break;
        }
    }
    bytes as f64 / (64 * MIB) as f64
}

/// Goal 6: items of 200 B fill it, then 25,000 of 2,000 B are wanted.
fn memcached_shift() -> Vec<f64> {
    const KEYS: u64 = 25_000;
    const BATCH: usize = 50;
    let mut peer = Peer::start(64);
    (0..400_000).for_each(|number| peer.set(&key(number), &[b'v'; 200]));
    let zipf = Zipf::new(KEYS as usize, 0.6);
    let mut random = Random::new(6);
    let mut pass = || {
        let mut hits = 0;
        for _ in 0..4 * KEYS / BATCH as u64 {
            let keys: Vec<_> =
                (0..BATCH).map(|_| key(1_000_000 + zipf.rank(&mut random) as u64)).collect();
            for (key, hit) in keys.iter().zip(peer.has(&keys)) {
                hits += u64::from(hit);
                if !hit {
                    peer.set(key, &[b'w'; 2_000]);
                }
            }
        }
        hits as f64 / (4 * KEYS) as f64
    };
    (0..7).map(|_| pass()).collect()
}

/// An engine with that much for items, and a table that has room for all of them.
fn segcache_of(heap_bytes: u64, items: u64) -> (Segcache, u64) {
    // An eighth of the table holds something else.
    let slots = (items * 8 / 7).next_power_of_two();
    let cache = Segcache::builder()
        .heap_size(heap_bytes as usize)
        .segment_size(1 << 20)
        .hash_power(slots.ilog2() as u8)
        // A write fails when it is full, so the first that does is where it would evict.
        .eviction(Policy::None)
        .build()
        .expect("there is memory");
    (cache, slots * 8)
}

/// What a segcache of its own takes for a tenant that holds nothing, and the heap it was given: the
/// smallest of segments of 4 KB that it can be built with and that takes one item.
fn segcache_empty() -> (u64, u64) {
    const ENGINES: u64 = 50;
    let build = |heap: u64| {
        let cache = Segcache::builder()
            .heap_size(heap as usize)
            .segment_size(4 << 10)
            .hash_power(10)
            .eviction(Policy::S3Fifo { admission_ratio: 0.1 })
            .build()
            .ok()?;
        insert(&cache, 1, &[7; 100]).then_some(cache)
    };
    let mut heaps = (3..14).map(|power| (4 << 10) << power);
    let heap = heaps.find(|&heap| build(heap).is_some()).expect("it takes some heap");
    let before = resident_bytes();
    let engines: Vec<_> = (0..ENGINES).filter_map(|_| build(heap)).collect();
    let bytes = (resident_bytes() - before) / engines.len() as u64;
    (bytes, heap)
}

fn segcache_overhead(value_bytes: usize) -> f64 {
    let items = 64 * MIB / (16 + value_bytes as u64);
    let value = vec![b'v'; value_bytes];
    let takes_all = |heap: u64, slots: u64| {
        let (cache, table) = segcache_of(heap, slots);
        let fits = (0..items).all(|number| insert(&cache, number, &value));
        fits.then_some(heap + table)
    };
    // The smallest table that has room for them in the largest heap, because its buckets fill before
    // it is full; and with it the smallest heap, to 2 %.
    let slots = [1, 2, 4].map(|times| items * times);
    let slots = slots.into_iter().find(|&slots| takes_all(128 * MIB, slots).is_some());
    let heaps = (64 * MIB..=128 * MIB).step_by(MIB as usize);
    let held = slots.and_then(|slots| heaps.into_iter().find_map(|heap| takes_all(heap, slots)));
    held.map_or(f64::INFINITY, |held| held as f64 / items as f64 - (16 + value_bytes) as f64)
}

fn insert(cache: &Segcache, number: u64, value: &[u8]) -> bool {
    cache.insert(&key(number), value, None, Duration::from_secs(3_600)).is_ok()
}

/// Key and value bytes per byte of heap and table when it first has no room.
fn segcache_usable(median: f64) -> f64 {
    let heap = 64 * MIB;
    let (cache, table) = segcache_of(heap, 2 * (heap as f64 / (median * 1.65 + 20.0)) as u64);
    let mut random = Random::new(5);
    let value = vec![b'v'; 100_000];
    let mut bytes = 0;
    for number in 0.. {
        let size = random.log_normal(median, 1.0).clamp(1.0, 100_000.0) as usize;
        if !insert(&cache, number, &value[..size]) {
            break;
        }
        bytes += 16 + size as u64;
    }
    bytes as f64 / (heap + table) as f64
}
