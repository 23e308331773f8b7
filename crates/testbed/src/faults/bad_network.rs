//! A network that holds back and loses packets on every way between nodes (R9, F1): clients shall
//! hardly notice, and nothing may fail.

use std::net::SocketAddr;
use std::time::Duration;

use super::ground::{Disks, Far, cluster_on};
use super::report::{Amount, Bar, Report};
use super::{Experiment, Length, NotHere, load, seconds};
use crate::connection::Login;
use crate::fleet::Cluster;
use crate::network::{Network, Weather};

const NODES: usize = 3;
/// Requests per second, through one proxy.
const RATE: u32 = 5_000;
/// What the kernel waits at least before it sends a packet again, in microseconds: its default, and what
/// the design asks operators to set between nodes.
const RTO_MIN_US: &str = "net.ipv4.tcp_rto_min_us";
const RTO_DEFAULT: &str = "200000";
const RTO_SHORT: &str = "5000";

pub(super) const BAD_NETWORK: Experiment = Experiment {
    name: "bad-network",
    goals: "R9, F1",
    what: "15 % of packets between nodes come 5 to 15 ms late and 1 % not at all; 5,000 requests/s",
    is_quick: false,
    run: bad_network,
};

fn bad_network(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(3), Duration::from_secs(60));
    let network = Network::new(NODES).map_err(NotHere)?;
    let cluster = cluster_on(&network, NODES, 1, Far::Nobody, Disks::default())?;
    let login = cluster.create_cache("shop", "100");
    drop(cluster.connect(0, &login));

    let calm = Asked::of(&cluster, &login, time);
    report.figure("p99 without a fault", Amount(calm.p99_ms, "ms"), Bar::None);
    for (rto, words, bar) in [
        (RTO_DEFAULT, "200 ms before a packet is sent again", Bar::None),
        (RTO_SHORT, "5 ms before a packet is sent again", Bar::AtMost(30.0)),
    ] {
        for place in 0..NODES {
            network.place(place).set_kernel(RTO_MIN_US, rto).map_err(NotHere)?;
        }
        // The kernel looks at it when a connection is made.
        cluster.run(&["cluster", "refresh-links", "--yes"]);
        cluster.wait_until_settled(NODES);
        let packets = network.packets();
        network.set_all(&Weather::STORM);
        let bad = Asked::of(&cluster, &login, time);
        network.set_all(&Weather::GOOD);
        report.figure(&format!("p50, {words}"), Amount(bad.p50_ms, "ms"), Bar::None);
        report.figure(&format!("p99, {words}"), Amount(bad.p99_ms, "ms"), bar);
        report.figure(&format!("p99.9, {words}"), Amount(bad.p999_ms, "ms"), Bar::None);
        report.figure(&format!("failed, {words}"), Amount::count(bad.failed), Bar::AtMost(0.0));
        report.never(&format!("wrong values, {words}"), bad.wrong);
        let extra = bad.hedges as f64 / bad.requests.max(1) as f64;
        report.figure(&format!("asked twice, {words}"), Amount::percent(extra), Bar::AtMost(10.0));
        let packets = network.packets() - packets;
        report.figure(&format!("packets, {words}"), Amount::count(packets), Bar::None);
        cluster.wait_until_settled(NODES);
    }
    Ok(())
}

/// What a load through the first node came to.
struct Asked {
    requests: u64,
    failed: u64,
    wrong: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// Requests that its proxy sent to a backend a second time.
    hedges: u64,
}

impl Asked {
    fn of(cluster: &Cluster, login: &Login, time: Duration) -> Asked {
        let before = hedges(cluster);
        let words = format!(
            "--connections 50 --rate {RATE} --poisson --keys 10000 --distribution uniform \
             --duration {}",
            seconds(time)
        );
        let report = load(&[cluster.nodes[0].addr], login, &words, &mut |_| ());
        let report = report.unwrap_or_else(|error| panic!("the load ended early: {error}"));
        Asked {
            requests: report.requests,
            failed: report.refused + report.unanswered + report.connections_lost,
            wrong: report.wrong_values,
            p50_ms: report.latency_us.p50 / 1e3,
            p99_ms: report.latency_us.p99 / 1e3,
            p999_ms: report.latency_us.p999 / 1e3,
            hedges: hedges(cluster) - before,
        }
    }
}

/// As the first node's metrics say, over all members.
fn hedges(cluster: &Cluster) -> u64 {
    let node = &cluster.nodes[0];
    let url = node.process.line_after("LARDER_METRICS=").expect("it serves metrics");
    let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port");
    let addr = SocketAddr::new(node.addr.ip(), port.parse().expect("a port is a number"));
    // Whatever proxy this process is told to use is not for it.
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let answer = agent.get(format!("http://{addr}/metrics")).call().expect("it serves metrics");
    let text = answer.into_body().read_to_string().expect("metrics are text");
    let is_one = |line: &&str| line.contains("link_hedges_total") && !line.starts_with('#');
    let values = text.lines().filter(is_one).filter_map(|line| line.rsplit_once(' '));
    values.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
}
