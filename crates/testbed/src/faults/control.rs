//! Without the control plane nothing changes for clients (R10, F28); with it, a change is felt at every
//! proxy within a second (R11). How long ten thousand changes to seventy nodes take:
//! `cargo xtask bench-control`.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::report::{Amount, Bar, Report};
use super::steady::Steady;
use super::{Experiment, Length, NotHere};
use crate::connection::Login;
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::{Cluster, log_in};
use crate::freshness::Freshness;
use crate::keys::{self, Ended};
use crate::kill_control::api::Api;

const KEYS: u64 = 1_000;

pub(super) const AWAY: Experiment = Experiment {
    name: "without-control",
    goals: "R10, F28",
    what: "SIGKILL of the control plane for minutes; a node restarts meanwhile",
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

fn away(report: &mut Report, length: Length) -> Result<(), NotHere> {
    // An hour by the goal; nothing in it changes after the first seconds.
    let time = length.pick(Duration::from_secs(2), Duration::from_secs(120));
    let mut cluster = Cluster::start(3, 1);
    let login = cluster.create_cache("shop", "dev");
    keys::set(&mut cluster.connect(0, &login), 0..KEYS);
    (1..3).for_each(|node| drop(cluster.connect(node, &login)));
    let start =
        |cluster: &Cluster| Steady::start(cluster.nodes[0].addr, &login, (0..KEYS).collect(), 500);
    let before = {
        let steady = start(&cluster);
        thread::sleep(time.min(Duration::from_secs(10)));
        steady.finish()
    };
    let fresh = Freshness::start(&[cluster.nodes[0].addr, cluster.nodes[1].addr], &login, 1);
    let steady = start(&cluster);
    cluster.control.signal(Signal::KILL);
    cluster.control.wait_for_end(DEADLINE);
    thread::sleep(time);
    let meanwhile = steady.finish();
    // From here on a part of the keys is gone with the node.
    cluster.kill(2);
    let began = Instant::now();
    cluster.restart(2);
    drop(cluster.connect(2, &login));
    let serves_after = began.elapsed();
    let found = eventually("every key can be asked for again", DEADLINE, || {
        let found = keys::get(&mut cluster.connect(2, &login), 0..KEYS).expect("it answers");
        (found.failures == 0).then_some(found)
    });
    let control_back = Instant::now();
    cluster.restart_control();
    cluster.wait_until_settled(3);
    let settled_after = control_back.elapsed();
    fresh.wait_for_rounds(1);
    let seen = fresh.finish();

    report.never("lost meanwhile", meanwhile.count(Ended::Miss));
    report.never("stale reads", seen.stale.len() as u64);
    let what = format!("failed in {} s without control", time.as_secs());
    report.figure(&what, Amount::count(meanwhile.count(Ended::Failure)), Bar::AtMost(0.0));
    report.figure("p99 before", Amount::ms(before.p99()), Bar::None);
    report.figure("p99 without control", Amount::ms(meanwhile.p99()), Bar::None);
    report.figure("a node that starts without control serves after", Amount::s(serves_after), {
        Bar::AtMost(1.0)
    });
    let kept = found.hits as f64 / KEYS as f64;
    report.law("found of what the others own", Amount::percent(kept), kept > 0.5);
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
    let api = Api::new(&url, cluster.control_folder());
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
