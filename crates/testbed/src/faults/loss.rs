//! Nodes that end: what of a cluster's keys is lost, for whom, and how soon every key is served again
//! (R8, F19).

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::report::{Amount, Bar};
use super::{Experiment, NotHere};
use crate::client_scripts;
use crate::connection::Login;
use crate::eventually::eventually;
use crate::fleet::{Cluster, SETTLED_TIME_MAX};
use crate::freshness::{Freshness, Seen};
use crate::keys::{self, Found};

/// How many standard deviations chance is allowed: it goes beyond once in five hundred million runs.
pub const SIGMAS: f64 = 6.0;

pub(super) const KILLED_NODE: Experiment = Experiment {
    name: "killed-node",
    goals: "R8, F19",
    what: "SIGKILL of one of 3 nodes x 2 backends that hold 100,000 keys",
    is_quick: false,
    run: |report, length| {
        let killed = killed_node(length.pick(10_000, 100_000));
        let apart = (killed.lost_at_once - killed.share).abs();
        report.law("lost beside the share of the killed node", Amount::percent(apart), {
            apart <= killed.apart_max
        });
        report.figure("keys", Amount::count(killed.count), Bar::None);
        report.figure(
            "written again, as the first answer was an error",
            Amount::count(killed.again),
            Bar::None,
        );
        report.figure("share of the killed node", Amount::percent(killed.share), Bar::None);
        report.figure("lost", Amount::percent(killed.lost_in_the_end), {
            let share = killed.share * 100.0;
            Bar::Within(share - 0.5, share + 0.5)
        });
        report.figure("its slots served again, empty, after", Amount::s(killed.served_after), {
            Bar::AtMost(12.0)
        });
        report.never("stale reads", killed.seen.stale.len() as u64);
        Ok(())
    },
};

pub(super) const FAILOVER: Experiment = Experiment {
    name: "failover",
    goals: "R2",
    what: "pymemcache with two servers, of which one is killed",
    is_quick: false,
    run: |report, _| {
        let Failover { kept, all, share } = failover()?;
        report.law("it goes on with the other", format!("{kept} of {all} keys kept"), true);
        report.figure("lost", Amount::percent(1.0 - kept / all), {
            // So few keys are a small sample of all slots.
            let apart = SIGMAS * deviation(share, all) * 100.0;
            Bar::Within(share * 100.0 - apart, share * 100.0 + apart)
        });
        Ok(())
    },
};

pub(super) const KILLED_PROXY: Experiment = Experiment {
    name: "killed-proxy",
    goals: "R2",
    what: "SIGKILL of a node that only is a proxy, as a drained one is",
    is_quick: true,
    run: |report, length| {
        let count = length.pick(5_000, 100_000);
        let Killed { found, seen } = killed_proxy(count);
        report.law("found of its keys through the others", found.hits, found.hits == count);
        report.never("lost", found.misses);
        report.never("stale reads", seen.stale.len() as u64);
        Ok(())
    },
};

/// What a killed node cost.
#[derive(Debug)]
pub struct KilledNode {
    pub count: u64,
    /// Keys that were answered with an error when they were first written.
    pub again: u64,
    /// Of all slots, that the killed node owned.
    pub share: f64,
    /// How far the part of the keys that is lost may be from that.
    pub apart_max: f64,
    /// Of the keys, when the others were asked at once; the worst of them.
    pub lost_at_once: f64,
    /// Of the keys, once every slot was served again.
    pub lost_in_the_end: f64,
    pub served_after: Duration,
    pub seen: Seen,
}

/// Sets so many keys through one proxy, reads them through all, kills one node of three, and looks what
/// is left.
///
/// # Panics
/// When a key was lost before, or others than those of the killed node afterwards.
#[track_caller]
pub fn killed_node(count: u64) -> KilledNode {
    let mut cluster = Cluster::start(3, 2);
    let login = cluster.create_cache("shop", "100");
    let again = keys::set(&mut cluster.connect(0, &login), 0..count);
    for node in 0..3 {
        let found = eventually("every key was answered", SETTLED_TIME_MAX, || {
            // An answer that came too late on a busy machine is no loss.
            let found = read(&cluster, node, &login, count);
            (found.failures == 0).then_some(found)
        });
        assert_eq!(found.misses, 0, "through node {node}: {found:?}");
    }

    let share = cluster.share_of("n2");
    // Half a point, or what the choice of keys makes of it.
    let apart_max = (SIGMAS * deviation(share, count as f64)).max(0.005);
    let fresh = Freshness::start(&[cluster.nodes[0].addr, cluster.nodes[1].addr], &login, 2);
    cluster.kill(2);
    let killed_at = Instant::now();
    let mut lost_at_once: f64 = share;
    for node in 0..2 {
        let found =
            eventually("only the killed node's keys are not found", SETTLED_TIME_MAX, || {
                // More fail for a moment where the machine is busy; fewer never do.
                let found = read(&cluster, node, &login, count);
                (found.hits as f64 >= (1.0 - share - apart_max) * count as f64).then_some(found)
            });
        let lost = 1.0 - found.hits as f64 / count as f64;
        assert!((lost - share).abs() <= apart_max, "lost {lost:.4} of {share:.4}: {found:?}");
        if (lost_at_once - share).abs() < (lost - share).abs() {
            lost_at_once = lost;
        }
    }

    // Its process is known to have ended, so its slots go to the others once the hold-down is over.
    cluster.wait_until_settled(2);
    let served_after = killed_at.elapsed();
    let found = eventually("every slot is served again", SETTLED_TIME_MAX, || {
        let found = read(&cluster, 0, &login, count);
        (found.failures == 0).then_some(found)
    });
    let lost_in_the_end = 1.0 - found.hits as f64 / count as f64;
    let apart = (lost_in_the_end - share).abs();
    assert!(apart <= apart_max, "other keys were lost: {lost_in_the_end:.4} of {share:.4}");
    fresh.wait_for_rounds(2);
    let seen = fresh.finish();
    KilledNode { count, again, share, apart_max, lost_at_once, lost_in_the_end, served_after, seen }
}

/// What a client with two servers kept when one was killed.
#[derive(Debug)]
pub struct Failover {
    pub kept: f64,
    pub all: f64,
    /// Of all slots, that the killed node owned.
    pub share: f64,
}

/// # Panics
/// When the client did not go on.
#[track_caller]
pub fn failover() -> Result<Failover, NotHere> {
    let mut cluster = Cluster::start(2, 1);
    let login = cluster.create_cache("shop", "dev");
    let servers: Vec<String> = cluster.nodes.iter().map(|node| node.addr.to_string()).collect();
    for node in 0..2 {
        keys::set(&mut cluster.connect(node, &login), 0..10);
    }
    let client = Command::new(client_scripts::python())
        .arg(client_scripts::script("pymemcache/failover.py"))
        .env("LARDER_SERVERS", servers.join(","))
        .env("LARDER_USERNAME", &login.username)
        .env("LARDER_PASSWORD", &login.password)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut client = client.map_err(|error| NotHere(format!("pymemcache: {error}")))?;
    let mut said = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let ready = said.next().and_then(Result::ok);
    assert_eq!(ready.as_deref(), Some("ready"), "pymemcache stored its keys");
    let share = cluster.share_of("n1");
    cluster.kill(1);
    let mut go_on = client.stdin.take().expect("it is piped");
    go_on.write_all(b"go on\n").expect("it reads");
    let kept = said.next().and_then(Result::ok).expect("it went on with the other server");
    assert!(client.wait().expect("a child can be waited for").success());
    let words: Vec<f64> = kept.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [kept, all] = words[..] else { panic!("it said {kept:?}") };
    Ok(Failover { kept, all, share })
}

/// What a killed proxy cost.
#[derive(Debug)]
pub struct Killed {
    pub found: Found,
    pub seen: Seen,
}

/// Drains one node of three, sets so many keys through it, kills it, and reads them through the others.
#[track_caller]
pub fn killed_proxy(count: u64) -> Killed {
    let mut cluster = Cluster::start_with(3, 1, &[("hold_down_seconds", "3600")]);
    let login = cluster.create_cache("shop", "100");
    cluster.run(&["node", "drain", "n2", "--yes"]);
    cluster.wait_until_settled(3);
    assert!(cluster.share_of("n2") == 0.0, "it owns nothing");
    keys::set(&mut cluster.connect(2, &login), 0..count);
    for node in 0..2 {
        drop(cluster.connect(node, &login));
    }
    let fresh = Freshness::start(&[cluster.nodes[0].addr, cluster.nodes[1].addr], &login, 1);
    cluster.kill(2);
    let found = eventually("every key was answered", SETTLED_TIME_MAX, || {
        let through = [0, 1].map(|node| read(&cluster, node, &login, count));
        (through[0].failures + through[1].failures == 0).then(|| {
            assert_eq!(through[0], through[1], "both find the same");
            through[0]
        })
    });
    fresh.wait_for_rounds(2);
    Killed { found, seen: fresh.finish() }
}

#[track_caller]
fn read(cluster: &Cluster, node: usize, login: &Login, count: u64) -> Found {
    keys::get(&mut cluster.connect(node, login), 0..count).expect("it answers")
}

/// Of the part of so many keys that falls into a share of all slots.
pub fn deviation(share: f64, count: f64) -> f64 {
    (share * (1.0 - share) / count).sqrt()
}
