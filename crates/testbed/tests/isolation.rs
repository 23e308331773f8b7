//! What caches of one process do to each other: one that floods is held to its rate, and one that asks
//! little hardly notices.
//!
//! The short test runs in CI, and only says what takes how long at least, because its machine is shared.
//! The long one prints figures and judges them:
//!
//! ```text
//! cargo test --release -p testbed --test isolation -- --ignored --nocapture
//! ```

#![expect(clippy::print_stdout, reason = "prints its figures")]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::connection::{Connection, Login};
use testbed::cores::{giving_way, pin};
use testbed::eventually::DEADLINE;
use testbed::larder::{Larder, program};

/// An operation on each of a hundred keys, none of which is there, in one request.
fn hundred_operations() -> String {
    format!("get{}\r\n", " nothing".repeat(100))
}

#[test]
fn a_cache_is_held_to_its_rate_until_the_limit_is_lifted() {
    let larder = Larder::start();
    let cache = larder.cache();
    let limit = |operations: &str, bytes: &str| {
        let rates = ["--ops-per-second", operations, "--bytes-per-second", bytes];
        larder.run(&[&["cache", "limit", &cache][..], &rates].concat())
    };
    let quiet = quiet_login(&larder);
    // Connections that have authenticated before a limit was set are held as well.
    let mut clients = [larder.connect(), larder.connect()];

    // What a limit allows takes its time, however fast or slow the machine is.
    assert_eq!(limit("1000", "0")["operations_per_second"], 1_000);
    let begun = Instant::now();
    for _ in 0..7 {
        for client in &mut clients {
            client.ask(&hundred_operations(), "END\r\n");
        }
    }
    let took = begun.elapsed();
    // Of 1,400 a hundred may have been saved up, and the last one of each client be owed.
    assert!(Duration::from_secs(1) < took, "1,400 operations at 1,000 a second took {took:?}");

    // Bytes are counted in both directions.
    limit("0", "500000");
    let value = "x".repeat(50_000);
    let begun = Instant::now();
    for _ in 0..7 {
        clients[0].ask(&format!("set big 0 0 50000\r\n{value}\r\n"), "STORED\r\n");
        clients[0].ask("get big\r\n", &format!("VALUE big 0 50000\r\n{value}\r\nEND\r\n"));
    }
    let took = begun.elapsed();
    // Of 700 kB a tenth of a second's may have been saved up, and the last ones be owed.
    assert!(Duration::from_secs(1) < took, "700 kB at 500 kB a second took {took:?}");

    // A hundred operations at one a second: the cache owes for longer than anything here waits.
    limit("1", "0");
    clients[0].ask(&hundred_operations(), "END\r\n");
    clients[1].send(b"get nothing\r\n");
    clients[1].set_patience(Duration::from_millis(500));
    assert!(clients[1].try_line().is_err(), "it was answered although its cache owes");
    Connection::open_as(larder.addr, &quiet).ask("get nothing\r\n", "END\r\n");
    // Lifted, it goes on at once and not when the debt is paid.
    limit("0", "0");
    clients[1].set_patience(DEADLINE);
    clients[1].expect(b"END\r\n");
}

/// The quiet cache's 500 gets a second, alone and beside each flood, with and without a limit.
#[test]
#[ignore = "takes three minutes, and judges times, so it needs a machine that has nothing else to do"]
fn a_flood_hardly_hurts_a_quiet_cache() {
    // One loop for the one core that it gets: two would wait for one another's slices of it.
    let larder = Larder::options().setting("threads", "1").start();
    let noisy = larder.cache();
    let quiet = quiet_login(&larder);
    // Servers on one core, load on the other.
    pin(larder.process.id(), 0).expect("a first core");
    pin(std::process::id(), 1).expect("a second core");
    let alone = Latency::of(&larder, &quiet);
    println!("{:<28} {:>9} {:>9} {:>9} {:>14}", "", "p50 ms", "p99 ms", "worst ms", "flood per s");
    alone.print("alone", 0.0);
    let allowed = Duration::from_millis(2).max(alone.p99 * 3);
    let mut over = Vec::new();
    for (name, flood) in [
        ("200 × 64 gets of 100 B", &["--connections", "200", "--depth", "64"][..]),
        (
            "50 × 16 sets of 100 KB",
            &[
                "--connections",
                "50",
                "--depth",
                "16",
                "--mix",
                "set=1",
                "--value-size",
                "100000",
                "--keys",
                "100",
            ],
        ),
        ("200 multi-gets of 100", &["--connections", "200", "--multiget", "100"]),
        ("logins without end", &["--connections", "50", "--handshakes", "connect"]),
    ] {
        for (limits, how) in [(["0", "0"], ""), (["20000", "20000000"], ", limited")] {
            let [operations, bytes] = limits;
            larder.run(&[
                "cache",
                "limit",
                &noisy,
                "--ops-per-second",
                operations,
                "--bytes-per-second",
                bytes,
            ]);
            let Some(child) = start_flood(&larder, flood) else { continue };
            let beside = Latency::of(&larder, &quiet);
            let per_second = end_flood(child);
            beside.print(&format!("{name}{how}"), per_second);
            if allowed < beside.p99 {
                over.push(format!("{name}{how}: {:?}", beside.p99));
            }
        }
    }
    println!("allowed: {allowed:?}");
    assert!(over.is_empty(), "p99 of the quiet cache beyond {allowed:?}: {over:?}");
}

fn quiet_login(larder: &Larder) -> Login {
    let made = larder.run(&["cache", "create", "quiet"]);
    let word = |name: &str| {
        made["credentials"][0][name].as_str().expect("credentials are text").to_owned()
    };
    Login { username: word("username"), password: word("password") }
}

struct Latency {
    p50: Duration,
    p99: Duration,
    worst: Duration,
}

impl Latency {
    /// Of gets at a fixed rate, each counted from when it was due.
    fn of(larder: &Larder, login: &Login) -> Latency {
        const GETS: u32 = 4_000;
        const EVERY: Duration = Duration::from_millis(2);
        let mut client = Connection::open_as(larder.addr, login);
        client.ask("set k 0 0 5\r\nvalue\r\n", "STORED\r\n");
        let begun = Instant::now();
        let mut waits: Vec<Duration> = (0..GETS)
            .map(|number| {
                let due = begun + EVERY * number;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                // A sleeper that is woken late is the machine's doing, not the server's.
                let asked = due.max(Instant::now());
                client.ask("get k\r\n", "VALUE k 0 5\r\nvalue\r\nEND\r\n");
                asked.elapsed()
            })
            .collect();
        waits.sort_unstable();
        let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
        Latency { p50: at(0.5), p99: at(0.99), worst: at(1.0) }
    }

    fn print(&self, name: &str, flood_per_second: f64) {
        let ms = |wait: Duration| wait.as_secs_f64() * 1e3;
        let (p50, p99, worst) = (ms(self.p50), ms(self.p99), ms(self.worst));
        println!("{name:<38} {p50:>9.3} {p99:>9.3} {worst:>9.3} {flood_per_second:>14.0}");
    }
}

/// `None` where `larder bench` knows no such flood.
fn start_flood(larder: &Larder, arguments: &[&str]) -> Option<Child> {
    let mut child = giving_way(program())
        .args(["bench", "--json", "--duration", "10s"])
        .args(arguments)
        .env("MEMCACHIER_SERVERS", larder.addr.to_string())
        .env("MEMCACHIER_USERNAME", &larder.login.username)
        .env("MEMCACHIER_PASSWORD", &larder.login.password)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chrt is everywhere");
    // Filled and warmed up.
    std::thread::sleep(Duration::from_secs(2));
    let has_ended = child.try_wait().expect("it is our child").is_some();
    (!has_ended).then_some(child)
}

fn end_flood(child: Child) -> f64 {
    let output = child.wait_with_output().expect("it is our child");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    report["requests_per_second"].as_f64().unwrap_or(f64::NAN)
}
