//! Rules for addresses, with real processes: who is blocked is cut off and kept out everywhere, whether
//! control is there or not, and nobody else notices.

#![expect(clippy::print_stdout, reason = "figures are for whoever runs it with --nocapture")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use testbed::connection::{Connection, Login};
use testbed::eventually::{DEADLINE, eventually};
use testbed::fleet::{Cluster, SETTLED_TIME_MAX};
use testbed::larder::Larder;

/// What a client hears whose address may not connect at all.
const REFUSED: &str = "ERROR address is blocked\r\n";
/// What one hears that may not use its cache from there.
const REFUSED_BY_CACHE: &str = "SERVER_ERROR address is blocked\r\n";

/// Where the client is that is to be blocked; all others are at 127.0.0.1.
fn suspect() -> IpAddr {
    Ipv4Addr::new(127, 0, 0, 66).into()
}

/// What a client hears that logs in from an address.
fn log_in_from(from: IpAddr, addr: SocketAddr, login: &Login) -> (Connection, String) {
    let mut connection = Connection::try_open_from(from, addr).expect("the proxy listens");
    // Who is refused at the door may be gone before this is sent.
    drop(connection.try_send(login.text().as_bytes()));
    let heard = connection.try_line().unwrap_or_default();
    (connection, heard)
}

/// The same, as soon as it is let in.
fn let_in_from(from: IpAddr, addr: SocketAddr, login: &Login) -> Connection {
    eventually("the client was let in", SETTLED_TIME_MAX, || {
        let (connection, heard) = log_in_from(from, addr, login);
        (heard == "STORED\r\n").then_some(connection)
    })
}

/// What it hears at a door that is closed to it. Said before the client says anything.
fn at_the_door(from: IpAddr, addr: SocketAddr) -> String {
    let mut connection = Connection::try_open_from(from, addr).expect("the proxy listens");
    String::from_utf8(connection.until_closed()).expect("a line of text")
}

fn still_serves(connection: &mut Connection) {
    // About no key: whose slots are where is not the question.
    connection.ask("mn\r\n", "MN\r\n");
}

fn names(rules: &Value) -> Vec<&str> {
    let rules = rules.as_array().expect("a list of rules");
    rules.iter().map(|rule| rule["network"].as_str().expect("a network is text")).collect()
}

#[test]
fn a_blocked_address_is_cut_off_at_every_node_with_and_without_control() {
    let mut cluster = Cluster::start(3, 1);
    let login = cluster.create_cache("shop", "100");
    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.addr).collect();
    let here: IpAddr = Ipv4Addr::LOCALHOST.into();
    let mut suspects: Vec<Connection> =
        addresses.iter().map(|&addr| let_in_from(suspect(), addr, &login)).collect();
    let mut others: Vec<Connection> =
        addresses.iter().map(|&addr| let_in_from(here, addr, &login)).collect();

    // Asking first: three connections of one cache from one address, and nothing has happened.
    let block = ["rule", "add", "127.0.0.66", "--reason", "a test"];
    let with = |more: &'static str| [&block[..], &[more]].concat();
    let preview = eventually("every node answered", SETTLED_TIME_MAX, || {
        let preview = cluster.run(&with("--dry-run"));
        (preview["nodes"] == 3).then_some(preview)
    });
    assert_eq!(preview["connections"], 3, "{preview}");
    assert_eq!(preview["caches"][0]["name"], "shop", "{preview}");
    assert_eq!(preview["clients"][0]["address"], "127.0.0.66", "{preview}");
    assert_eq!(preview["silent_nodes"].as_array().map(Vec::len), Some(0), "{preview}");
    let refused = cluster.try_run(&block);
    assert!(!refused.status.success(), "it cuts off open connections");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("3 open connections") && said.contains("--force"), "{said}");
    suspects.iter_mut().for_each(still_serves);

    // Insisted on, it is felt at every node.
    let began = Instant::now();
    let made = cluster.run(&with("--force"));
    assert_eq!(made["applied"]["applied"], 3, "{made}");
    suspects.iter_mut().for_each(Connection::expect_close);
    println!("a blocked address was cut off everywhere after {:.1?}", began.elapsed());
    for &addr in &addresses {
        assert_eq!(at_the_door(suspect(), addr), REFUSED);
    }
    others.iter_mut().for_each(still_serves);

    // Without control it goes on, also at a node that knows it from its disk only.
    cluster.control.signal(Signal::KILL);
    cluster.control.wait_for_end(DEADLINE);
    cluster.kill(0);
    cluster.restart(0);
    let mut again = let_in_from(here, cluster.nodes[0].addr, &login);
    for node in &cluster.nodes {
        assert_eq!(at_the_door(suspect(), node.addr), REFUSED, "{}", node.name);
    }
    others.iter_mut().skip(1).for_each(still_serves);

    // Control comes back, knows it, and takes it away.
    cluster.restart_control();
    cluster.wait_until_settled(3);
    assert_eq!(names(&cluster.run(&["rule", "list"])), ["127.0.0.66"]);
    let id = made["id"].to_string();
    cluster.run(&["rule", "remove", &id]);
    for node in &cluster.nodes {
        still_serves(&mut let_in_from(suspect(), node.addr, &login));
    }
    still_serves(&mut again);
    let log = cluster.run(&["audit"]).to_string();
    assert!(log.contains("rule added") && log.contains("rule removed"), "{log}");
}

#[test]
fn a_rule_of_one_cache_leaves_the_others_alone_and_outlives_a_restart() {
    let larder = Larder::start();
    let other = {
        let made = larder.run(&["cache", "create", "blog"]);
        Login::told(&made["credentials"][0])
    };
    let (mut mine, heard) = log_in_from(suspect(), larder.addr, &larder.login);
    assert_eq!(heard, "STORED\r\n");
    let (mut blog, _) = log_in_from(suspect(), larder.addr, &other);
    let cache = larder.cache();
    let block = ["rule", "add", "127.0.0.66", "--cache", &cache, "--reason", "a test"];

    let preview = larder.run(&[&block[..], &["--dry-run"]].concat());
    assert_eq!(preview["connections"], 1, "{preview}");
    // A day is more than a rule for everyone may last, and not more than one for a cache.
    let long = ["--minutes", "1440", "--force"];
    assert!(!larder.try_run(&[&block[..3], &block[5..], &long].concat()).status.success());
    let made = larder.run(&[&block[..], &long].concat());
    assert_eq!(made["cache_name"], cache.as_str(), "{made}");

    mine.expect_close();
    still_serves(&mut blog);
    assert_eq!(log_in_from(suspect(), larder.addr, &larder.login).1, REFUSED_BY_CACHE);
    assert_eq!(log_in_from(suspect(), larder.addr, &other).1, "STORED\r\n");
    still_serves(&mut larder.connect());

    // Nobody is locked out by a slip of the finger.
    let everyone = ["rule", "add", "0.0.0.0/0", "--reason", "a slip"];
    let refused = larder.try_run(&everyone);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("0.0.0.0/0"), "{refused:?}");

    let dir = larder.dir();
    drop((larder, blog));
    let larder = Larder::options().dir(&dir).start();
    assert_eq!(log_in_from(suspect(), larder.addr, &larder.login).1, REFUSED_BY_CACHE);
    assert_eq!(log_in_from(suspect(), larder.addr, &other).1, "STORED\r\n");
    larder.run(&["rule", "remove", &made["id"].to_string()]);
    assert_eq!(log_in_from(suspect(), larder.addr, &larder.login).1, "STORED\r\n");
}
