//! How full a cache gets that is divided over many backends, before anything is evicted (R16): as full
//! as it may be, and not as the first of its parts is.

use std::time::{Duration, Instant};

use super::Experiment;
use super::report::{Amount, Bar};
use crate::connection::Connection;
use crate::eventually::eventually;
use crate::fleet::{Cluster, SETTLED_TIME_MAX};

/// Of the plan that [`fill`] uses.
pub const LIMIT: u64 = 25 << 20;
/// The cache that [`fill`] makes.
pub const NAME: &str = "shop";
/// Looks at the cache while it is filled.
const STEPS: u64 = 200;

pub(super) const FIRST_EVICTION: Experiment = Experiment {
    name: "first-eviction",
    goals: "R16",
    what: "a cache of 25 MB is filled over 12 and over 50 backends, with items of 1 KB and 10 KB",
    is_quick: false,
    run: |report, length| {
        for (nodes, backends, item_bytes, goal) in
            [(3, 4, 1_000, 97.0), (3, 4, 10_000, 95.0), (5, 10, 1_000, 97.0), (5, 10, 10_000, 95.0)]
        {
            let cluster = Cluster::start(nodes, backends);
            let time = length.pick(Duration::from_secs(5), Duration::from_secs(40));
            let filled = fill(&cluster, item_bytes, time);
            let what = format!("{} backends, items of {item_bytes} B", nodes * backends);
            report.figure(
                &format!("{what}: held at the first eviction"),
                Amount::percent(filled.first_eviction),
                Bar::AtLeast(goal),
            );
            report.figure(&format!("{what}: held when full"), Amount::percent(filled.held), {
                Bar::AtMost(103.0)
            });
        }
        Ok(())
    },
};

/// What a fill showed, as parts of the limit.
#[derive(Debug)]
pub struct Filled {
    /// Held when the first item had been evicted anywhere.
    pub first_eviction: f64,
    /// Held in the end, with the cache full and quiet.
    pub held: f64,
    pub sets: u64,
}

/// Fills a cache with items around this size (a fifth to nine fifths of it) in so long, and goes on for
/// as long as that again to a quarter.
///
/// # Panics
/// When the largest value there may be does not fit.
#[track_caller]
pub fn fill(cluster: &Cluster, item_bytes: u64, time: Duration) -> Filled {
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
    let figures = client.statistics();
    (figures["bytes"], figures["evictions"])
}
