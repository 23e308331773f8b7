//! Without the control plane nothing changes for clients (R10, F28); with it, a change is felt at every
//! proxy within a second (R11). How long ten thousand changes to seventy nodes take:
//! `cargo xtask bench-control`.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::report::{Amount, Bar, Report};
use super::steady::Steady;
use super::{Experiment, Length, NotHere};
use crate::connection::Login;
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::{Cluster, SETTLED_TIME_MAX, log_in};
use crate::freshness::Freshness;
use crate::keys::{self, Ended};
use crate::kill_control::api::Api;

const KEYS: u64 = 1_000;
const NODES: usize = 3;
/// Names for how many seconds control shall be away; by the goal it is an hour.
const AWAY_SECONDS: &str = "LARDER_AWAY_SECONDS";

pub(super) const AWAY: Experiment = Experiment {
    name: "without-control",
    goals: "R10, F28",
    what: "SIGKILL of the control plane for minutes, or LARDER_AWAY_SECONDS; nodes restart meanwhile",
    is_quick: true,
    run: away,
};

pub(super) const CHANGES: Experiment = Experiment {
    name: "changes",
    goals: "R11",
    what: "new credentials are let in, and removed ones refused, at each of three proxies",
    is_quick: false,
    run: changes,
};

/// For how long control is away, and what clients ask meanwhile.
struct Absence {
    time: Duration,
    reads_per_second: u32,
    /// Between two writes of the oracle.
    pause: Duration,
}

impl Absence {
    fn of(length: Length) -> Result<Absence, NotHere> {
        let Some(said) = std::env::var_os(AWAY_SECONDS) else {
            let time = length.pick(Duration::from_secs(2), Duration::from_secs(120));
            return Ok(Absence { time, reads_per_second: 500, pause: Duration::ZERO });
        };
        let seconds = said.to_str().and_then(|it| it.parse().ok());
        let seconds = seconds.ok_or_else(|| NotHere(format!("{AWAY_SECONDS} is no number")))?;
        // So little that an hour of it takes nothing from what else this machine does.
        let pause = Duration::from_millis(200);
        Ok(Absence { time: Duration::from_secs(seconds), reads_per_second: 10, pause })
    }
}

/// A third of the time with all nodes as they were, one after a node was killed and came back, and one
/// after another node was told to end and came back.
fn away(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let Absence { time, reads_per_second, pause } = Absence::of(length)?;
    let mut cluster = Cluster::start_control("127.0.0.1:0", 1, &[]);
    for node in 0..NODES {
        // Each at an address of its own, so that nobody else takes its port while it restarts.
        let peers = format!("127.0.0.{}:0", 2 + node);
        cluster.add_node(&format!("n{node}"), &["--peers-listen", &peers]);
    }
    cluster.wait_until_settled(NODES);
    (0..NODES).for_each(|node| cluster.keep_peers_address(node));
    let login = cluster.create_cache("shop", "dev");
    keys::set(&mut cluster.connect(0, &login), 0..KEYS);
    (1..NODES).for_each(|node| drop(cluster.connect(node, &login)));
    let reads = |cluster: &Cluster, time| {
        let numbers = (0..KEYS).collect();
        Steady::of(cluster.nodes[0].addr, &login, numbers, reads_per_second, time)
    };
    let before = reads(&cluster, time.min(Duration::from_secs(10)));
    let proxies = [0, 1].map(|node| cluster.nodes[node].addr);
    let fresh = Freshness::start_slowly(&proxies, &login, 1, pause);
    cluster.control.signal(Signal::KILL);
    cluster.control.wait_for_end(DEADLINE);
    let (began, cpu_before) = (Instant::now(), cluster.nodes[0].process.cpu_time());
    let mut meanwhile = reads(&cluster, time / 3);
    for (node, signal, words) in [(2, Signal::KILL, "killed"), (1, Signal::TERM, "ended")] {
        cluster.nodes[node].process.signal(signal);
        cluster.nodes[node].process.wait_for_end(SETTLED_TIME_MAX);
        let again = Instant::now();
        cluster.restart(node);
        drop(cluster.connect(node, &login));
        let serves_after = Amount::s(again.elapsed());
        if node == 1 {
            fresh.moved(1, cluster.nodes[1].addr);
        }
        let [found, ..] = [node, 0].map(|through| {
            eventually("every key can be asked for again", DEADLINE, || {
                let found = keys::get(&mut cluster.connect(through, &login), 0..KEYS).ok()?;
                (found.failures == 0).then_some(found)
            })
        });
        let what = format!("a node that was {words} serves without control after");
        report.figure(&what, serves_after, Bar::AtMost(1.0));
        let kept = found.hits as f64 / KEYS as f64;
        let what = format!("a node was {words}: found of what the others own");
        report.law(&what, Amount::percent(kept), kept > 0.5);
        // What was lost with it is written anew, so that what is missed from now on is a loss.
        keys::set(&mut cluster.connect(node, &login), 0..KEYS);
        let later = began.elapsed();
        meanwhile.append(reads(&cluster, time / 3), later);
    }
    let cpu = (cluster.nodes[0].process.cpu_time() - cpu_before).as_secs_f64();
    let cpu = cpu / began.elapsed().as_secs_f64();
    let control_back = Instant::now();
    cluster.restart_control();
    cluster.wait_until_settled(NODES);
    let settled_after = control_back.elapsed();
    fresh.wait_for_rounds(1);
    let seen = fresh.finish();

    report.never("lost meanwhile", meanwhile.count(Ended::Miss));
    report.never("stale reads", seen.stale.len() as u64);
    let what = format!("failed in {} s without control", time.as_secs());
    meanwhile.report_failed(report, &what);
    report.figure("reads meanwhile", Amount::count(meanwhile.0.len() as u64), Bar::None);
    report.figure("p99 before", Amount::ms(before.p99()), Bar::None);
    report.figure("p99 without control", Amount::ms(meanwhile.p99()), Bar::None);
    report.figure("CPU of a node meanwhile, of one core", Amount::percent(cpu), Bar::None);
    report.figure("control is back, and all nodes with it, after", Amount::s(settled_after), {
        Bar::None
    });
    Ok(())
}

fn changes(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let count = length.pick(5, 200);
    let cluster = Cluster::start(3, 1);
    cluster.create_cache("shop", "dev");
    let url = cluster.control.line_after("LARDER_CONTROL=").expect("it is written first");
    let api = Api::new(&url, &cluster.control_folder());
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for number in 0..count {
        let path = "/v1/caches/shop/credentials";
        let answer = api.change("POST", path, &format!("add-{number}"), &Value::Null);
        let made = Login::told(&answer.expect("it answers").body);
        added.push(felt(&cluster, &made, true));
        let path = format!("{path}/{}", made.username);
        let answer = api.change("DELETE", &path, &format!("remove-{number}"), &Value::Null);
        let status = answer.expect("it answers").status;
        assert!((200..300).contains(&status), "removing a credential was answered {status}");
        removed.push(felt(&cluster, &made, false));
    }
    for (what, mut times) in [("let in", added), ("refused", removed)] {
        times.sort_unstable();
        let at = |part: f64| Amount::ms(times[((times.len() - 1) as f64 * part) as usize]);
        report.figure(&format!("{what} at all proxies, median of {count}"), at(0.5), Bar::None);
        report.figure(&format!("{what} at all proxies, p99"), at(0.99), Bar::AtMost(1_000.0));
    }
    Ok(())
}

/// From the answer to a change until every proxy acts by it.
fn felt(cluster: &Cluster, login: &Login, is_let_in: bool) -> Duration {
    let began = Instant::now();
    for node in &cluster.nodes {
        eventually("a proxy acts by a change", DEADLINE, || {
            (log_in(node.addr, login).is_ok() == is_let_in).then_some(())
        });
    }
    began.elapsed()
}
