//! Three nodes with two backends each, as processes: every cache is served through every proxy, and what
//! one node's end costs is that node's share.

#![expect(clippy::print_stdout, reason = "figures are for whoever runs it with --nocapture")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use testbed::client_scripts;
use testbed::eventually::eventually;
use testbed::fleet::{Cluster, SETTLED_TIME_MAX};
use testbed::freshness::Freshness;
use testbed::keys;

/// `LARDER_CLUSTER_KEYS=100000` for the figure that is published; fewer say the same in less time.
fn keys_count() -> u64 {
    std::env::var("LARDER_CLUSTER_KEYS").map_or(20_000, |text| text.parse().expect("a number"))
}

#[test]
fn what_is_set_through_one_proxy_is_found_through_all_and_a_killed_node_loses_its_share_only() {
    let mut cluster = Cluster::start(3, 2);
    let login = cluster.create_cache("shop", "100");
    let count = keys_count();
    let again = keys::set(&mut cluster.connect(0, &login), 0..count);
    for node in 0..3 {
        let found = keys::get(&mut cluster.connect(node, &login), 0..count).expect("it answers");
        assert_eq!(found.misses, 0, "through node {node}: {found:?}");
        // An answer that came too late on a busy machine is no loss; all of them would be.
        assert!(found.failures * 100 <= count, "through node {node}: {found:?}");
    }
    println!("{count} keys set ({again} again), all found through 3 proxies");

    let share = share_of(&cluster, "n2");
    // Half a point, or what the choice of keys makes of it: four standard deviations.
    let deviation = (share * (1.0 - share) / count as f64).sqrt();
    let apart_max = (4.0 * deviation).max(0.005);
    let fresh = Freshness::start(&[cluster.nodes[0].addr, cluster.nodes[1].addr], &login, 2);
    cluster.kill(2);
    let killed_at = Instant::now();
    for node in 0..2 {
        let found = keys::get(&mut cluster.connect(node, &login), 0..count).expect("it answers");
        let lost = 1.0 - found.hits as f64 / count as f64;
        assert!(
            (lost - share).abs() <= apart_max,
            "lost {lost:.4}, its share is {share:.4}: {found:?}"
        );
        println!(
            "through n{node}: lost {:.2} %, its share is {:.2} %",
            lost * 100.0,
            share * 100.0
        );
    }

    // Its process is known to have ended, so its slots go to the others once the hold-down is over.
    cluster.wait_until_settled(2);
    let served_after = killed_at.elapsed();
    let found = eventually("every slot is served again", SETTLED_TIME_MAX, || {
        let found = keys::get(&mut cluster.connect(0, &login), 0..count).expect("it answers");
        (found.failures == 0).then_some(found)
    });
    let lost = 1.0 - found.hits as f64 / count as f64;
    assert!((lost - share).abs() <= apart_max, "no other key was lost: {lost:.4} of {share:.4}");
    println!("slots of a killed node served again, empty, after {served_after:.1?}");

    fresh.wait_for_rounds(2);
    println!("{:?}", fresh.finish());
}

#[test]
fn a_client_with_two_servers_goes_on_with_the_other_and_finds_what_that_one_owns() {
    let mut cluster = Cluster::start(2, 1);
    let login = cluster.create_cache("shop", "dev");
    let servers: Vec<String> = cluster.nodes.iter().map(|node| node.addr.to_string()).collect();
    for node in 0..2 {
        keys::set(&mut cluster.connect(node, &login), 0..10);
    }
    let mut client = Command::new(client_scripts::python())
        .arg(client_scripts::script("pymemcache/failover.py"))
        .env("LARDER_SERVERS", servers.join(","))
        .env("LARDER_USERNAME", &login.username)
        .env("LARDER_PASSWORD", &login.password)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the clients are installed");
    let mut said = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let ready = said.next().and_then(Result::ok);
    assert_eq!(ready.as_deref(), Some("ready"), "pymemcache stored its keys");
    let share = share_of(&cluster, "n1");
    cluster.kill(1);
    let mut go_on = client.stdin.take().expect("it is piped");
    go_on.write_all(b"go on\n").expect("it reads");
    let kept = said.next().and_then(Result::ok).expect("it went on with the other server");
    assert!(client.wait().expect("a child can be waited for").success());
    println!("pymemcache with two servers, one killed with {share:.3} of all slots: {kept}");
    let words: Vec<f64> = kept.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [kept, all] = words[..] else { panic!("it said {kept:?}") };
    // 300 keys are a small sample of all slots: four standard deviations.
    assert!((kept / all - (1.0 - share)).abs() < 0.12, "kept {kept} of {all}");
}

/// The part of all slots that a node's backends own, as the status says.
fn share_of(cluster: &Cluster, node: &str) -> f64 {
    let status = cluster.status();
    let members = status["members"].as_array().expect("there is a list of members");
    let own = members.iter().filter(|member| member["node"] == node);
    own.map(|member| member["share"].as_f64().expect("a share is a number")).sum()
}
