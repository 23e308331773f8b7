//! What TLS between nodes costs: CPU time per request, with and without, in one run.
//!
//! Two clusters of two nodes run beside each other, one with links in the clear and one with links under
//! TLS. The same load goes through the first node of one and then of the other, again and again, so that
//! what the machine does meanwhile hurts both alike. Half of the keys belong to the other node.

use std::time::Duration;

use bench::Moment;

use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere, load, seconds};
use crate::connection::Login;
use crate::fleet::Cluster;

/// Turns of each cluster for each load. The median of so few is no worse than the worst of them.
const TURNS: usize = 3;

pub(super) const LINK_TLS: Experiment = Experiment {
    name: "link-tls",
    goals: "5.2",
    what: "CPU time per request with links in the clear and under TLS, in one run",
    is_quick: false,
    run: link_tls,
};

fn link_tls(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(1), Duration::from_secs(5));
    let ways = ["off", "only"].map(|link_tls| {
        let settings = [("link_tls", link_tls), ("threads", "1")];
        let cluster = Cluster::start_with(2, 1, &settings);
        let login = cluster.create_cache("shop", "100");
        drop(cluster.connect(0, &login));
        (cluster, login)
    });
    // Rates that two cores carry with the generator beside them, so that neither way is overloaded.
    for (what, words) in [
        ("20,000/s of 100 B", "--connections 50 --rate 20000 --value-size 100"),
        ("2,000/s of 10 KB", "--connections 50 --rate 2000 --value-size 10000 --keys 4000"),
        ("2,000/s multi-gets of 20", "--connections 50 --rate 2000 --multiget 20 --value-size 100"),
    ] {
        let mut spent = [const { Vec::new() }; 2];
        for _ in 0..TURNS {
            for (way, (cluster, login)) in ways.iter().enumerate() {
                spent[way].push(Spent::of(cluster, login, words, time));
            }
        }
        let [plain, tls] = spent.map(Spent::median);
        let failed = plain.failed + tls.failed;
        report.never(&format!("{what}: wrong values"), plain.wrong + tls.wrong);
        report.figure(&format!("{what}: failed"), Amount::count(failed), Bar::AtMost(0.0));
        report.figure(&format!("{what}: CPU in the clear"), Amount(plain.cpu_us, "µs"), Bar::None);
        report.figure(&format!("{what}: CPU under TLS"), Amount(tls.cpu_us, "µs"), Bar::None);
        report.figure(
            &format!("{what}: TLS as a multiple"),
            Amount(tls.cpu_us / plain.cpu_us.max(1e-3), "×"),
            Bar::None,
        );
        report.figure(&format!("{what}: p99 in the clear"), Amount(plain.p99_ms, "ms"), Bar::None);
        report.figure(&format!("{what}: p99 under TLS"), Amount(tls.p99_ms, "ms"), Bar::None);
    }
    Ok(())
}

/// What one turn of a load came to.
struct Spent {
    /// Of both nodes, for each request; a multi-get is one.
    cpu_us: f64,
    p99_ms: f64,
    failed: u64,
    wrong: u64,
}

impl Spent {
    fn of(cluster: &Cluster, login: &Login, words: &str, time: Duration) -> Spent {
        let cpu = || cluster.nodes.iter().map(|node| node.process.cpu_time()).sum::<Duration>();
        let mut from = Duration::ZERO;
        let mut took = Duration::ZERO;
        let words = format!(
            "{words} --poisson --distribution uniform --warm-up 1s --duration {}",
            seconds(time)
        );
        let report = load(&[cluster.nodes[0].addr], login, &words, &mut |moment| match moment {
            Moment::Connected => (),
            Moment::Measuring => from = cpu(),
            Moment::Measured => took = cpu() - from,
        });
        let report = report.unwrap_or_else(|error| panic!("the load ended early: {error}"));
        Spent {
            cpu_us: took.as_secs_f64() * 1e6 / report.requests.max(1) as f64,
            p99_ms: report.latency_us.p99 / 1e3,
            failed: report.refused + report.unanswered + report.connections_lost,
            wrong: report.wrong_values,
        }
    }

    /// By what they cost; what must never be is of all of them.
    fn median(mut turns: Vec<Spent>) -> Spent {
        let failed = turns.iter().map(|turn| turn.failed).sum();
        let wrong = turns.iter().map(|turn| turn.wrong).sum();
        turns.sort_by(|a, b| a.cpu_us.total_cmp(&b.cpu_us));
        let Spent { cpu_us, p99_ms, .. } = turns.swap_remove(turns.len() / 2);
        Spent { cpu_us, p99_ms, failed, wrong }
    }
}
