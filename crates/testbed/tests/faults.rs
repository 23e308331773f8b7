//! What goes wrong between the processes of a cluster, and what clients notice of it.
//!
//! Some of these need minutes and a machine of their own, and print their figures:
//! `cargo xtask faults`, or `cargo xtask faults --quick` for a shorter time of each fault.

#![expect(clippy::print_stdout, reason = "figures are for whoever runs it with --nocapture")]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use testbed::connection::Connection;
use testbed::eventually::{DEADLINE, eventually};
use testbed::fleet::{Cluster, SETTLED_TIME_MAX};
use testbed::freshness::Freshness;
use testbed::keys;
use testbed::larder::{DataDir, program};
use testbed::process::Process;
use testbed::relay::Relay;

#[test]
fn a_view_that_is_held_back_is_never_stale_and_is_named() {
    held_back_view(Duration::from_secs(3));
}

#[test]
#[ignore = "takes minutes: cargo xtask faults"]
fn a_view_that_is_held_back_for_a_minute() {
    held_back_view(if is_quick() { Duration::from_secs(10) } else { Duration::from_secs(60) });
}

fn held_back_view(held_for: Duration) {
    let mut cluster = Cluster::start(2, 2);
    let relay = Relay::to(cluster.control_address());
    cluster.add_node("n2", &["--control", &relay.addr.to_string()]);
    cluster.wait_until_settled(3);
    let login = cluster.create_cache("shop", "dev");
    let proxies: Vec<_> = cluster.nodes.iter().map(|node| node.addr).collect();
    (0..3).for_each(|node| drop(cluster.connect(node, &login)));
    let fresh = Freshness::start(&proxies, &login, 2);

    relay.hold();
    let began = Instant::now();
    let told_after = eventually("someone is told that n2 is not heard", DEADLINE, || {
        let is_named = |(fault, node): &(String, String)| {
            node == "n2" && ["deaf", "away", "stale", "held-back-view"].contains(&fault.as_str())
        };
        cluster.findings().iter().any(is_named).then(|| began.elapsed())
    });
    // A third of what one node owns moves while one proxy does not hear of it.
    eventually("control has given the connection up, and goes on without it", DEADLINE, || {
        cluster.findings().iter().any(|it| it.0 == "away" && it.1 == "n2").then_some(())
    });
    cluster.run(&["cluster", "reweight", "n0", "64", "--yes", "--no-wait"]);
    let before = cluster.status()["settled_epoch"].clone();
    eventually("the others route by another epoch", SETTLED_TIME_MAX, || {
        let status = cluster.status();
        let nodes = status["nodes"].as_array()?;
        let follows = |name: &str| {
            nodes.iter().any(|it| it["name"] == name && it["epoch"] == status["epoch"])
        };
        (status["epoch"] != before && follows("n0") && follows("n1")).then_some(())
    });
    while began.elapsed() < held_for {
        fresh.wait_for_rounds(1);
    }
    fresh.wait_for_rounds(2);
    relay.release();
    cluster.wait_until_settled(3);
    fresh.wait_for_rounds(2);
    let seen = fresh.finish();
    println!("view held back {held_for:?}: told after {told_after:.1?}; {seen:?}");
}

#[test]
fn a_node_at_a_public_address_is_named_and_nobody_connects_to_it() {
    let mut cluster = Cluster::start(2, 1);
    let login = cluster.create_cache("shop", "dev");
    let proxies: Vec<_> = cluster.nodes.iter().map(|node| node.addr).collect();
    (0..2).for_each(|node| drop(cluster.connect(node, &login)));
    let fresh = Freshness::start(&proxies, &login, 1);
    let epoch = cluster.status()["settled_epoch"].clone();
    // What a name server that answers with the public address would lead to (RFC 5737).
    cluster.add_node("n2", &["--peers-listen", "0.0.0.0:0", "--advertise", "203.0.113.5"]);
    let came_at = Instant::now();
    let told_after = eventually("n2's address is named", DEADLINE, || {
        let finding = ("wrong-address".to_owned(), "n2".to_owned());
        cluster.findings().contains(&finding).then(|| came_at.elapsed())
    });
    fresh.wait_for_rounds(3);
    assert_eq!(cluster.status()["epoch"], epoch, "the members stay who they were");
    println!("wrong address: named after {told_after:.1?}; {:?}", fresh.finish());
}

#[test]
fn a_blocked_link_is_named_and_nothing_is_stale() {
    let mut cluster = Cluster::start(2, 1);
    // At an address of its own, behind a relay that can tell who calls.
    cluster.add_node("n2", &["--peers-listen", "127.0.0.1:0", "--advertise", "127.0.0.2"]);
    let advertised = cluster.nodes[2].process.line_after("LARDER_PEERS=").expect("it is written");
    let advertised: SocketAddr = advertised.parse().expect("a literal address");
    let relay = Relay::at(advertised, (Ipv4Addr::LOCALHOST, advertised.port()).into());
    cluster.wait_until_settled(3);
    let login = cluster.create_cache("shop", "dev");
    let proxies: Vec<_> = cluster.nodes.iter().map(|node| node.addr).collect();
    (0..3).for_each(|node| drop(cluster.connect(node, &login)));
    let fresh = Freshness::start(&proxies, &login, 2);

    relay.hold_from(cluster.nodes[0].process.id());
    let began = Instant::now();
    let told_after = eventually("the link from n0 is named", DEADLINE, || {
        let finding = ("blocked-link".to_owned(), "n0".to_owned());
        cluster.findings().contains(&finding).then(|| began.elapsed())
    });
    assert!(told_after < Duration::from_secs(if is_strict() { 3 } else { 15 }), "{told_after:?}");
    fresh.wait_for_rounds(2);
    relay.release();
    eventually("nothing is wrong any more", DEADLINE, || {
        cluster.findings().is_empty().then_some(())
    });
    println!("blocked link: named after {told_after:.1?}; {:?}", fresh.finish());
}

#[test]
fn a_node_at_a_wrong_private_address_is_named_and_owns_nothing() {
    let mut cluster = Cluster::start(2, 1);
    let login = cluster.create_cache("shop", "dev");
    let proxies: Vec<_> = cluster.nodes.iter().map(|node| node.addr).collect();
    (0..2).for_each(|node| drop(cluster.connect(node, &login)));
    let fresh = Freshness::start(&proxies, &login, 1);
    let epoch = cluster.status()["settled_epoch"].clone();
    // Nobody listens there; another machine of the same network would be as wrong.
    cluster.add_node("n2", &["--peers-listen", "127.0.0.1:0", "--advertise", "127.0.0.9"]);
    let came_at = Instant::now();
    let told_after = eventually("n2's address is named", DEADLINE, || {
        let finding = ("wrong-address".to_owned(), "n2".to_owned());
        cluster.findings().contains(&finding).then(|| came_at.elapsed())
    });
    assert!(told_after < Duration::from_secs(if is_strict() { 3 } else { 15 }), "{told_after:?}");
    fresh.wait_for_rounds(3);
    assert_eq!(cluster.status()["epoch"], epoch, "the members stay who they were");
    println!("wrong private address: named after {told_after:.1?}; {:?}", fresh.finish());
}

#[test]
fn another_machine_takes_the_place_of_a_node_and_no_slot_moves() {
    // Nobody shall be given up meanwhile.
    let mut cluster = Cluster::start_with(3, 1, &[("hold_down_seconds", "3600")]);
    let login = cluster.create_cache("shop", "dev");
    let count = 600;
    keys::set(&mut cluster.connect(0, &login), 0..count);
    let slots = |status: &serde_json::Value| {
        let members = status["members"].as_array().expect("a list of members").clone();
        members.into_iter().map(|it| (it["name"].clone(), it["share"].clone())).collect::<Vec<_>>()
    };
    let before = slots(&cluster.status());
    cluster.kill(1);
    cluster.replace(1);
    cluster.wait_until_settled(3);
    assert_eq!(slots(&cluster.status()), before);
    let mut client = cluster.connect(0, &login);
    let found = eventually("every key can be asked for again", DEADLINE, || {
        let found = keys::get(&mut client, 0..count).expect("it answers");
        (found.failures == 0).then_some(found)
    });
    let lost = found.misses as f64 / count as f64;
    assert!((lost - 1.0 / 3.0).abs() < 0.1, "its share is lost and nothing else: {found:?}");
    keys::set(&mut client, 0..count);
    println!("replaced node: {found:?}");
}

#[test]
fn a_stopped_node_fails_its_share_fast_and_nothing_else() {
    let cluster = Cluster::start(3, 1);
    let login = cluster.create_cache("shop", "dev");
    let count = 600;
    let mut client = cluster.connect(0, &login);
    keys::set(&mut client, 0..count);
    let calm = Timed::of(&mut client, count);
    let stopped = &cluster.nodes[1].process;
    stopped.signal(Signal::STOP);
    let first = Timed::of(&mut client, count);
    let later = Timed::of(&mut client, count);
    stopped.signal(Signal::CONT);
    let went_on_at = Instant::now();
    let back_after = eventually("all keys are found again", DEADLINE, || {
        let found = keys::get(&mut client, 0..count).expect("it answers");
        (found.hits == count).then(|| went_on_at.elapsed())
    });
    println!(
        "stopped node: first failures {:?}, later ones p99 {:?}; others p99 {:?} (before {:?}); \
         back after {back_after:.1?}",
        first.failures.iter().max(),
        p99(&later.failures),
        p99(&later.hits),
        p99(&calm.hits),
    );
    assert_eq!(first.misses + later.misses, 0, "nothing is lost by a pause");
    let share = later.failures.len() as f64 / count as f64;
    assert!((share - 1.0 / 3.0).abs() < 0.1, "only its share fails: {share}");
    let slowest = first.failures.iter().max().expect("its share is asked for");
    // 250 ms by design; the machine that runs all tests at once has other worries.
    assert!(*slowest < Duration::from_secs(2), "clients wait {slowest:?}");
    assert!(p99(&later.failures) < Duration::from_millis(if is_strict() { 1 } else { 100 }));
}

#[test]
fn a_cluster_without_control_serves_and_its_nodes_can_be_started_again() {
    let mut cluster = Cluster::start(3, 1);
    let login = cluster.create_cache("shop", "dev");
    let mut client = cluster.connect(0, &login);
    keys::set(&mut client, 0..1_000);
    for node in 1..3 {
        drop(cluster.connect(node, &login));
    }
    cluster.control.signal(Signal::KILL);
    cluster.control.wait_for_end(DEADLINE);
    let found = keys::get(&mut client, 0..1_000).expect("it answers");
    assert_eq!(found.hits, 1_000, "{found:?}");
    // Its own keys are gone with its memory; all others are served through it, by what is on disk.
    let at = Instant::now();
    cluster.kill(2);
    cluster.restart(2);
    let found = eventually("every key can be asked for again", DEADLINE, || {
        let found = keys::get(&mut cluster.connect(2, &login), 0..1_000).expect("it answers");
        (found.failures == 0).then_some(found)
    });
    println!("without control: a node serves again {:.1?} after its end, {found:?}", at.elapsed());
    assert!(found.hits > 500, "what the others own is found: {found:?}");
}

#[test]
fn a_killed_process_of_a_cluster_that_up_has_started_is_started_again() {
    let dir = DataDir::new();
    let mut command = Command::new(program());
    command.args(["up", "--nodes", "2", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
    command.args(["--memory", "128MiB", "--threads", "2", "--data"]).arg(dir.path());
    let mut up = Process::start(&mut command);
    up.wait_for_line("LARDER_CONTROL=");
    let is_whole = |status: &serde_json::Value| {
        let nodes = status["nodes"].as_array().expect("a list of nodes");
        status["settled_epoch"] == status["epoch"]
            && nodes.iter().filter(|it| it["connected"] == true && it["links"] == 2).count() == 2
    };
    let status = || {
        let output = Command::new(program())
            .args(["cluster", "status", "--json", "--data"])
            .arg(dir.path())
            .output()
            .expect("the program that serves can also be run as a command");
        serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()
    };
    eventually("all nodes are there", SETTLED_TIME_MAX, || status().filter(is_whole));
    // A node first, then control: each is killed and must be another process afterwards.
    for role in ["node", "control"] {
        let before = children(up.id(), role);
        let victim = *before.first().expect("it has such a child");
        let pid = rustix::process::Pid::from_raw(victim as i32).expect("a process has a number");
        rustix::process::kill_process(pid, Signal::KILL).expect("it is our child's child");
        eventually("it is started again", SETTLED_TIME_MAX, || {
            let now = children(up.id(), role);
            (now.len() == before.len() && !now.contains(&victim)).then_some(())
        });
        eventually("all nodes are there again", SETTLED_TIME_MAX, || status().filter(is_whole));
    }
    up.signal(Signal::TERM);
    assert!(up.wait_for_end(SETTLED_TIME_MAX).success());
}

/// Children of a process that run this command of ours.
fn children(of: u32, command: &str) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).expect("it runs");
    let lists = tasks
        .filter_map(Result::ok)
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let mut found: Vec<u32> = lists
        .flat_map(|list| list.split(' ').filter_map(|it| it.parse().ok()).collect::<Vec<u32>>())
        .filter(|child| {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.split(|&byte| byte == 0).nth(1) == Some(command.as_bytes())
        })
        .collect();
    found.sort_unstable();
    found
}

/// How long single reads took, by how they ended.
#[derive(Default)]
struct Timed {
    hits: Vec<Duration>,
    failures: Vec<Duration>,
    misses: u64,
}

impl Timed {
    #[track_caller]
    fn of(client: &mut Connection, count: u64) -> Timed {
        let mut timed = Timed::default();
        for number in 0..count {
            let began = Instant::now();
            let found = keys::get(client, number..number + 1).expect("it answers");
            let took = began.elapsed();
            if found.hits == 1 {
                timed.hits.push(took);
            } else if found.failures == 1 {
                timed.failures.push(took);
            } else {
                timed.misses += 1;
            }
        }
        timed
    }
}

fn p99(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default()
}

fn is_quick() -> bool {
    std::env::var_os("LARDER_FAULTS_QUICK").is_some()
}

/// Whether the machine has nothing else to do, so that times mean something.
fn is_strict() -> bool {
    std::env::var_os("LARDER_FAULTS_STRICT").is_some()
}
