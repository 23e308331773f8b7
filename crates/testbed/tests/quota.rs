//! One limit on the sum of all backends, as real processes: a small cache over many backends is full when
//! it is full, and not when the first of its parts is. What control counts of it is what clients did.
//!
//! `cargo test -p testbed --test quota -- --ignored --nocapture` fills over 50 backends, too, and prints
//! the figures of `docs/decisions/0032-nodes-say-totals-and-control-divides.md`.

#![expect(clippy::print_stdout, reason = "figures are for whoever runs it with --nocapture")]

use std::time::{Duration, Instant};

use testbed::connection::Connection;
use testbed::eventually::{DEADLINE, eventually};
use testbed::fleet::{Cluster, SETTLED_TIME_MAX};

const LIMIT: u64 = 25 << 20;
const NAME: &str = "shop";
/// Looks at the cache while it is filled.
const STEPS: u64 = 200;

#[test]
fn the_first_item_is_evicted_when_the_sum_is_full_and_control_counts_all_once() {
    let cluster = Cluster::start(3, 4);
    let filled = fill(&cluster, 1_000, Duration::from_secs(12));
    println!("12 backends, 1 KB: {filled:.3?}");
    assert!(0.97 <= filled.first_eviction, "{filled:?}");
    assert!(filled.held < 1.02, "{filled:?}");

    // All that was asked, however many nodes carried it out.
    eventually("control has heard of every set", DEADLINE, || {
        let counted = cluster.run(&["cache", "stats", NAME]);
        let is = |name: &str, value: u64| counted[name].as_u64() == Some(value);
        (is("cmd_set", filled.sets) && is("limit_maxbytes", LIMIT)).then_some(())
    });
}

#[test]
#[ignore = "takes minutes and a machine of its own: see above"]
fn also_over_fifty_backends_and_with_large_items() {
    for (nodes, backends, item_bytes, goal) in
        [(3, 4, 1_000, 0.97), (3, 4, 10_000, 0.95), (5, 10, 1_000, 0.97), (5, 10, 10_000, 0.95)]
    {
        let cluster = Cluster::start(nodes, backends);
        let filled = fill(&cluster, item_bytes, Duration::from_secs(40));
        println!("{} backends, {item_bytes} B: {filled:.3?}", nodes * backends);
        assert!(goal <= filled.first_eviction, "{filled:?}");
        assert!(filled.held < 1.03, "{filled:?}");
    }
}

/// What a fill showed, as parts of the limit.
#[derive(Debug)]
struct Filled {
    /// Held when the first item had been evicted anywhere.
    first_eviction: f64,
    /// Held in the end, with the cache full and quiet.
    held: f64,
    sets: u64,
}

/// Fills a cache with items around this size (a fifth to nine fifths of it) in so long, and goes on for
/// as long as that again to a quarter.
fn fill(cluster: &Cluster, item_bytes: u64, time: Duration) -> Filled {
    let login = cluster.create_cache(NAME, "dev");
    let mut client = cluster.connect(0, &login);
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let (mut sets, mut stored, mut first_eviction) = (0, 0, None);
    let began = Instant::now();
    for step in 1..=STEPS * 5 / 4 {
        let mut request = String::new();
        while stored < LIMIT * step / STEPS {
            // xorshift64 (Marsaglia 2003).
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let size = item_bytes / 5 + random % (item_bytes * 8 / 5);
            let key = format!("item:{sets:08}");
            stored += key.len() as u64 + size;
            let value = "x".repeat(size as usize);
            request.push_str(&format!("set {key} 0 0 {size} noreply\r\n{value}\r\n"));
            sets += 1;
        }
        client.send(request.as_bytes());
        let (bytes, evictions) = held(&mut client);
        if first_eviction.is_none() && 0 < evictions {
            first_eviction = Some(bytes as f64 / LIMIT as f64);
        }
        let due = began + time * u32::try_from(step).expect("few steps") / STEPS as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    // The largest value there may be fits, also into a cache that is full of small ones.
    let largest = "y".repeat((1 << 20) - 100);
    client.send(format!("set largest 0 0 {}\r\n{largest}\r\n", largest.len()).as_bytes());
    assert_eq!(client.line(), "STORED\r\n");
    sets += 1;
    client.send(b"mg largest s\r\n");
    assert_eq!(client.line().trim_end(), format!("HD s{}", largest.len()));
    // What is too much goes within the next rounds.
    let held = eventually("the cache is within its limit", SETTLED_TIME_MAX, || {
        let held = held(&mut client).0 as f64 / LIMIT as f64;
        (held < 1.02).then_some(held)
    });
    Filled { first_eviction: first_eviction.expect("more than fits was stored"), held, sets }
}

/// Bytes held and items evicted, over all backends. Comes after all that was sent before.
fn held(client: &mut Connection) -> (u64, u64) {
    client.send(b"stats\r\n");
    let (mut bytes, mut evictions) = (0, 0);
    loop {
        let line = client.line();
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["END"] => return (bytes, evictions),
            ["STAT", "bytes", count] => bytes = count.parse().expect("a number"),
            ["STAT", "evictions", count] => evictions = count.parse().expect("a number"),
            _ => (),
        }
    }
}
