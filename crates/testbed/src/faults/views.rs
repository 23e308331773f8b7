//! Nodes that do not see what the others see (F11, F12): one whose view is held back, one at a wrong
//! address, one link that is blocked. Nothing may be stale, somebody is told within seconds, and
//! `larder cluster diagnose` names the fault and says what to do.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere};
use crate::eventually::eventually;
use crate::fleet::{Cluster, SETTLED_TIME_MAX};
use crate::freshness::{Freshness, Seen};
use crate::relay::Relay;

/// From a fault until `diagnose` names it.
const ALARM: Bar = Bar::AtMost(3.0);
/// What a name server that answers with the public address would lead to (RFC 5737).
pub const PUBLIC: &str = "203.0.113.5";
/// Nobody listens there; another machine of the same network would be as wrong.
pub const WRONG: &str = "127.0.0.9";

pub(super) const HELD_BACK: Experiment = Experiment {
    name: "held-back-view",
    goals: "F11, F12",
    what: "one of three nodes does not hear of a change of the topology; 60 s",
    is_quick: false,
    run: |report, length| {
        let time = length.pick(Duration::from_secs(10), Duration::from_secs(60));
        held_back_view(time).tell(report);
        Ok(())
    },
};

pub(super) const PUBLIC_ADDRESS: Experiment = Experiment {
    name: "public-address",
    goals: "F11",
    what: "a node says for a minute that it is at an address outside the cluster's networks",
    is_quick: false,
    run: |report, length| misplaced(report, length, PUBLIC),
};

pub(super) const WRONG_ADDRESS: Experiment = Experiment {
    name: "wrong-address",
    goals: "F11",
    what: "a node says for a minute that it is where nobody listens",
    is_quick: false,
    run: |report, length| misplaced(report, length, WRONG),
};

pub(super) const BROKEN_LINK: Experiment = Experiment {
    name: "broken-link",
    goals: "6.3, F22, F23",
    what: "the ways to one of three nodes are reset each second, then a bit of them is flipped ten times a second",
    is_quick: false,
    run: |report, length| {
        let time = length.pick(Duration::from_secs(2), Duration::from_secs(30));
        for (what, every, act) in [
            ("reset each second", Duration::from_secs(1), Relay::reset as fn(&Relay)),
            (
                "a bit flipped ten times a second",
                Duration::from_millis(100),
                Relay::damage as fn(&Relay),
            ),
        ] {
            broken_link(report, what, time, every, act);
        }
        Ok(())
    },
};

pub(super) const BLOCKED_LINK: Experiment = Experiment {
    name: "blocked-link",
    goals: "F11",
    what: "one node does not reach one other that all others reach",
    is_quick: true,
    run: |report, length| {
        blocked_link(length.pick(Duration::ZERO, Duration::from_secs(60))).tell(report);
        Ok(())
    },
};

fn misplaced(report: &mut Report, length: Length, address: &str) -> Result<(), NotHere> {
    let time = length.pick(Duration::ZERO, Duration::from_secs(60));
    misplaced_node(address, time).tell(report);
    Ok(())
}

/// What clients and operators noticed of a wrong view.
#[derive(Debug)]
pub struct Noticed {
    /// From the fault until `diagnose` named it.
    pub told_after: Duration,
    pub seen: Seen,
}

impl Noticed {
    fn tell(&self, report: &mut Report) {
        let Noticed { told_after, seen } = self;
        report.never("stale reads", seen.stale.len() as u64);
        report.figure("named by diagnose after", Amount::s(*told_after), ALARM);
        report.figure("reads and writes", Amount::count(seen.reads + seen.writes), Bar::None);
        let failed = seen.failures as f64 / (seen.reads + seen.writes) as f64;
        report.figure("of them failed", Amount::percent(failed), Bar::None);
    }
}

/// One of three nodes hears nothing of control for so long, while a third of what another owns moves.
#[track_caller]
pub fn held_back_view(held_for: Duration) -> Noticed {
    let mut cluster = Cluster::start(2, 2);
    let relay = Relay::to(cluster.control_address());
    cluster.add_node("n2", &["--control", &relay.addr.to_string()]);
    cluster.wait_until_settled(3);
    let fresh = clients(&cluster, 2);

    relay.hold();
    let began = Instant::now();
    let told_after = eventually("someone is told that n2 is not heard", SETTLED_TIME_MAX, || {
        let is_of_it = |fault: &str| ["deaf", "away", "stale", "held-back-view"].contains(&fault);
        let findings = cluster.findings();
        let is_named = findings
            .iter()
            .any(|it| it.node == "n2" && is_of_it(&it.fault) && !it.advice.is_empty());
        is_named.then(|| began.elapsed())
    });
    eventually(
        "control has given the connection up, and goes on without it",
        SETTLED_TIME_MAX,
        || cluster.is_named("away", "n2").then_some(()),
    );
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
    go_on_until(&fresh, began + held_for);
    relay.release();
    cluster.wait_until_settled(3);
    fresh.wait_for_rounds(2);
    Noticed { told_after, seen: fresh.finish() }
}

/// A third node says for so long that it is at this address, where it is not.
#[track_caller]
pub fn misplaced_node(address: &str, time: Duration) -> Noticed {
    let mut cluster = Cluster::start(2, 1);
    let fresh = clients(&cluster, 1);
    let epoch = cluster.status()["settled_epoch"].clone();
    cluster.add_node("n2", &["--peers-listen", "127.0.0.1:0", "--advertise", address]);
    let came_at = Instant::now();
    let told_after = eventually("n2's address is named", SETTLED_TIME_MAX, || {
        cluster.is_named("wrong-address", "n2").then(|| came_at.elapsed())
    });
    go_on_until(&fresh, came_at + time);
    fresh.wait_for_rounds(3);
    assert_eq!(cluster.status()["epoch"], epoch, "the members stay who they were");
    Noticed { told_after, seen: fresh.finish() }
}

/// One of three nodes does not reach one other for so long.
#[track_caller]
pub fn blocked_link(time: Duration) -> Noticed {
    let (cluster, relay) = with_a_node_behind_a_relay();
    let fresh = clients(&cluster, 2);

    relay.hold_from(cluster.nodes[0].process.id());
    let began = Instant::now();
    let told_after = eventually("the link from n0 is named", SETTLED_TIME_MAX, || {
        cluster.is_named("blocked-link", "n0").then(|| began.elapsed())
    });
    go_on_until(&fresh, began + time);
    fresh.wait_for_rounds(2);
    relay.release();
    eventually("nothing is wrong any more", SETTLED_TIME_MAX, || {
        cluster.findings().is_empty().then_some(())
    });
    Noticed { told_after, seen: fresh.finish() }
}

/// Something happens to all ways to one of three nodes again and again, for so long.
#[track_caller]
fn broken_link(report: &mut Report, what: &str, time: Duration, every: Duration, act: fn(&Relay)) {
    let (cluster, relay) = with_a_node_behind_a_relay();
    let fresh = clients(&cluster, 2);
    let end = Instant::now() + time;
    while Instant::now() < end {
        act(&relay);
        std::thread::sleep(every);
    }
    let began = Instant::now();
    cluster.wait_until_settled(3);
    eventually("nothing is wrong any more", SETTLED_TIME_MAX, || {
        cluster.findings().is_empty().then_some(())
    });
    let healed = began.elapsed();
    let seen = fresh.finish();
    let all = seen.reads + seen.writes;
    report.never(&format!("{what}: stale or wrong of {all}"), seen.stale.len() as u64);
    let failed = Amount::percent(seen.failures as f64 / all as f64);
    report.figure(&format!("{what}: failed"), failed, Bar::None);
    report.figure(&format!("{what}: all is well after"), Amount::s(healed), Bar::AtMost(5.0));
}

/// Two nodes, and a third at an address of its own, behind a relay that can tell who calls.
#[track_caller]
fn with_a_node_behind_a_relay() -> (Cluster, Relay) {
    let mut cluster = Cluster::start(2, 1);
    cluster.add_node("n2", &["--peers-listen", "127.0.0.1:0", "--advertise", "127.0.0.2"]);
    let advertised = cluster.nodes[2].process.line_after("LARDER_PEERS=").expect("it is written");
    let advertised: SocketAddr = advertised.parse().expect("a literal address");
    let relay = Relay::at(advertised, (Ipv4Addr::LOCALHOST, advertised.port()).into());
    cluster.wait_until_settled(3);
    (cluster, relay)
}

/// Clients of all nodes, which know the credential by then.
fn clients(cluster: &Cluster, writers: usize) -> Freshness {
    let login = cluster.create_cache("shop", "dev");
    let proxies: Vec<_> = cluster.nodes.iter().map(|node| node.addr).collect();
    (0..proxies.len()).for_each(|node| drop(cluster.connect(node, &login)));
    Freshness::start(&proxies, &login, writers)
}

fn go_on_until(fresh: &Freshness, end: Instant) {
    while Instant::now() < end {
        fresh.wait_for_rounds(1);
    }
}
