//! All nodes restarted one after another while clients ask (R3, F15, F16, F42), as for an upgrade, and with
//! one: nothing is stale, and no more is lost than what each restarted process held, as long as slots do
//! not carry their items along. An older program that this one cannot speak with is turned away and named.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::loss::{SIGMAS, deviation};
use super::report::{Amount, Bar, Report};
use super::{Experiment, NotHere};
use crate::connection::Login;
use crate::eventually::eventually;
use crate::fleet::{Cluster, SETTLED_TIME_MAX};
use crate::freshness::Freshness;
use crate::keys::{self, Found};

const NODES: usize = 3;
/// Names an older program, to upgrade from and to go back to.
const OLDER: &str = "LARDER_OLDER_BIN";

pub(super) const RESTART: Experiment = Experiment {
    name: "rolling-restart",
    goals: "R3, F15, F16",
    what: "every node is told to end and started again, one after another, under load",
    is_quick: true,
    run: |report, length| {
        let mut bed = Bed::start(length.pick(2_000, 30_000));
        let fresh = bed.clients();
        let began = Instant::now();
        for node in 0..NODES {
            let what = format!("n{node}");
            bed.restart(report, &fresh, node, &Step { what, is_heard: true, bar: WHOLE_AGAIN });
        }
        let took = began.elapsed();
        bed.finish(report, fresh);
        report.figure("all were restarted after", Amount::s(took), Bar::None);
        Ok(())
    },
};

pub(super) const UPGRADE: Experiment = Experiment {
    name: "rolling-upgrade",
    goals: "R3, F42, 6.3",
    what: "from an older program to this one and back, control first; LARDER_OLDER_BIN names it",
    is_quick: false,
    run: |report, length| {
        let older = std::env::var_os(OLDER).map(PathBuf::from);
        let older = older.ok_or_else(|| NotHere(format!("{OLDER} names no older program")))?;
        upgrade(report, &older, length.pick(2_000, 30_000));
        Ok(())
    },
};

/// Control first and then every node, and back in the other order; between two steps every proxy reads
/// what every other one wrote.
fn upgrade(report: &mut Report, older: &Path, count: u64) {
    let mut bed = Bed::start_as(Some(older), count);
    // Nodes that control cannot speak with are not told of another one.
    (0..NODES).for_each(|node| bed.cluster.keep_peers_address(node));
    let fresh = bed.clients();
    bed.restart_control(report, None, "control up");
    let is_spoken_with = bed.is_settled_or_named(report);
    for node in 0..NODES {
        bed.cluster.become_program(node, None);
        let what = format!("n{node} up");
        // The older program takes its own time to end.
        let step = Step { what, is_heard: is_spoken_with, bar: Bar::None };
        bed.restart(report, &fresh, node, &step);
        if is_spoken_with {
            bed.ask_each_through_each();
        }
    }
    bed.cluster.wait_until_settled(NODES);
    bed.ask_each_through_each();
    if is_spoken_with {
        for node in 0..NODES {
            bed.cluster.become_program(node, Some(older));
            let what = format!("n{node} back");
            bed.restart(report, &fresh, node, &Step { what, is_heard: true, bar: WHOLE_AGAIN });
            bed.ask_each_through_each();
        }
        bed.restart_control(report, Some(older), "control back");
        bed.cluster.wait_until_settled(NODES);
    }
    bed.finish(report, fresh);
}

/// One node ended and started again.
struct Step {
    what: String,
    /// Whether control hears every node afterwards.
    is_heard: bool,
    /// Of the time from the end of the process until all is whole again.
    bar: Bar,
}

const WHOLE_AGAIN: Bar = Bar::AtMost(5.0);

struct Bed {
    cluster: Cluster,
    login: Login,
    count: u64,
}

impl Bed {
    /// A cluster with so many keys, none of whose nodes is given up while it restarts.
    fn start(count: u64) -> Bed {
        Bed::start_as(None, count)
    }

    fn start_as(program: Option<&Path>, count: u64) -> Bed {
        let settings = [("hold_down_seconds", "3600")];
        let cluster = Cluster::start_as(program, NODES, 1, &settings);
        let login = cluster.create_cache("shop", "100");
        (0..NODES).for_each(|node| drop(cluster.connect(node, &login)));
        Bed { cluster, login, count }
    }

    /// Oracles at all nodes.
    fn clients(&self) -> Freshness {
        let proxies: Vec<SocketAddr> = self.cluster.nodes.iter().map(|node| node.addr).collect();
        Freshness::start(&proxies, &self.login, 2)
    }

    /// Ends one node and starts it again; what is lost of all keys must be its share.
    fn restart(&mut self, report: &mut Report, fresh: &Freshness, node: usize, step: &Step) {
        let Step { what, is_heard, bar } = step;
        let other = (node + 1) % NODES;
        keys::set(&mut self.cluster.connect(other, &self.login), 0..self.count);
        let share = self.cluster.share_of(&self.cluster.nodes[node].name);
        let began = Instant::now();
        self.cluster.end(node);
        self.cluster.restart(node);
        fresh.moved(node, self.cluster.nodes[node].addr);
        if *is_heard {
            self.cluster.wait_until_settled(NODES);
        }
        let away = began.elapsed();
        let found = self.found(other);
        let lost = found.misses as f64 / self.count as f64;
        let apart_max = (SIGMAS * deviation(share, self.count as f64)).max(0.005);
        let holds = lost <= share + apart_max;
        let words = format!("{:.1} % of its {:.1} %", lost * 100.0, share * 100.0);
        report.law(&format!("{what}: lost"), words, holds);
        report.figure(&format!("{what}: whole again after"), Amount::s(away), *bar);
    }

    /// Ends control and starts it again as this program; nothing is lost by it.
    fn restart_control(&mut self, report: &mut Report, program: Option<&Path>, what: &str) {
        keys::set(&mut self.cluster.connect(0, &self.login), 0..self.count);
        self.cluster.restart_control_as(program);
        report.never(&format!("{what}: lost"), self.found(1).misses);
    }

    /// Whether control and nodes of the two programs have a version in common. Where they have none, every
    /// node must be told so by name, and nobody must be served wrongly meanwhile.
    fn is_settled_or_named(&self, report: &mut Report) -> bool {
        let names: Vec<&str> = self.cluster.nodes.iter().map(|node| node.name.as_str()).collect();
        let is_spoken_with = eventually("nodes are heard or turned away", SETTLED_TIME_MAX, || {
            let found = self.cluster.findings();
            let is_named = |name: &&str| {
                found.iter().any(|it| it.fault == "other-version" && it.node == **name)
            };
            match (found.is_empty(), names.iter().all(is_named)) {
                (true, _) => Some(true),
                (false, true) => Some(false),
                (false, false) => None,
            }
        });
        if !is_spoken_with {
            report.law("no version in common: diagnose names every node", "it does", true);
        }
        is_spoken_with
    }

    /// What is left, once every key is answered.
    fn found(&self, through: usize) -> Found {
        eventually("every key is answered", SETTLED_TIME_MAX, || {
            let mut client = self.cluster.connect(through, &self.login);
            let found = keys::get(&mut client, 0..self.count).ok()?;
            (found.failures == 0).then_some(found)
        })
    }

    /// Every proxy reads what every other one wrote.
    fn ask_each_through_each(&self) {
        for writer in 0..NODES {
            keys::set(&mut self.cluster.connect(writer, &self.login), 0..self.count);
            for reader in 0..NODES {
                let found = self.found(reader);
                assert_eq!(found.misses, 0, "what n{writer} wrote, n{reader} finds");
            }
        }
    }

    fn finish(self, report: &mut Report, fresh: Freshness) {
        // Also afterwards, through all of them.
        fresh.wait_for_rounds(1);
        let seen = fresh.finish();
        report.never("stale reads", seen.stale.len() as u64);
        let all = seen.reads + seen.writes;
        report.figure("reads and writes meanwhile", Amount::count(all), Bar::None);
        // By the goal none; a proxy that ends closes its clients' connections, and what it owned fails
        // until it is back.
        let failed = seen.failures as f64 / all as f64;
        report.figure("of them failed", Amount::percent(failed), Bar::None);
    }
}
