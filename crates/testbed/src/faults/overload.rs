//! More requests than there is time for (R15, F27): what can be answered is, and afterwards all is as
//! before.

use std::time::Duration;

use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere, load, seconds};
use crate::cgroup::Cgroup;
use crate::connection::Login;
use crate::fleet::Cluster;

/// What all nodes together have of one core: so little that one generator can ask for three times as much
/// as they can answer.
const CORE_PART: f64 = 0.15;

pub(super) const OVERLOAD: Experiment = Experiment {
    name: "overload",
    goals: "R15, F27",
    what: "three times what a cluster of three nodes with 15 % of a core can answer, offered to one proxy",
    is_quick: false,
    run: overload,
};

fn overload(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(2), Duration::from_secs(30));
    let cluster = Cluster::start(3, 1);
    let nodes: Vec<u32> = cluster.nodes.iter().map(|node| node.process.id()).collect();
    let group = Cgroup::cpu(CORE_PART, &nodes);
    let _group = group.map_err(|error| NotHere(format!("no limit of CPU time: {error}")))?;
    let login = cluster.create_cache("shop", "500");
    drop(cluster.connect(0, &login));
    let most = Asked::of(&cluster, &login, "--connections 200 --in-flight 16", time);
    let common = most.goodput * 0.3;
    let calm = Asked::of(&cluster, &login, &rate(common), time);
    let over = Asked::of(&cluster, &login, &rate(most.goodput * 3.0), time);
    // Begins as soon as the overload has ended: what it took to recover is in its latencies.
    let after = Asked::of(&cluster, &login, &rate(common), Duration::from_secs(5));
    let later = Asked::of(&cluster, &login, &rate(common), time);

    report.never("wrong values", most.wrong + over.wrong + after.wrong + later.wrong);
    report.figure("answered at most, per second", Amount(most.goodput, ""), Bar::None);
    report.figure(
        "answered when three times as many were offered, per second",
        Amount(over.goodput, ""),
        Bar::AtLeast((most.goodput * 0.9).round()),
    );
    report.figure("refused or not answered of those", Amount::count(over.failed), Bar::None);
    report.figure("p99 at 30 % before", Amount(calm.p99_ms, "ms"), Bar::None);
    report.figure("p99 at 30 % in the 5 s after", Amount(after.p99_ms, "ms"), Bar::None);
    report.figure(
        "p99 at 30 % later",
        Amount(later.p99_ms, "ms"),
        Bar::AtMost((calm.p99_ms * 200.0).round() / 100.0),
    );
    report.figure("failed after the overload", Amount::count(after.failed + later.failed), {
        Bar::AtMost(0.0)
    });
    Ok(())
}

/// Offered whatever the service does, by many clients.
fn rate(per_second: f64) -> String {
    format!("--connections 200 --in-flight 64 --rate {per_second:.0} --poisson")
}

struct Asked {
    /// Requests answered and not refused, per second.
    goodput: f64,
    failed: u64,
    wrong: u64,
    p99_ms: f64,
}

impl Asked {
    fn of(cluster: &Cluster, login: &Login, how: &str, time: Duration) -> Asked {
        let words =
            format!("{how} --keys 20000 --distribution uniform --duration {}", seconds(time));
        let report = load(&[cluster.nodes[0].addr], login, &words, &mut |_| ());
        let report = report.unwrap_or_else(|error| panic!("the load ended early: {error}"));
        Asked {
            goodput: (report.requests - report.refused) as f64 / report.seconds,
            failed: report.refused + report.unanswered + report.connections_lost,
            wrong: report.wrong_values,
            p99_ms: report.latency_us.p99 / 1e3,
        }
    }
}
