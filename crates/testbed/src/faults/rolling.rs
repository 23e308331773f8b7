//! All nodes restarted one after another while clients ask (R3, F15, F16, F42), as for an upgrade: nothing
//! is stale, and no more is lost than what each restarted process held, as long as slots do not carry
//! their items along.

use std::net::SocketAddr;
use std::path::PathBuf;
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
            bed.restart(report, &fresh, node, &format!("n{node}"));
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
    what: "nodes become an older program one after another and are upgraded again; LARDER_OLDER_BIN names it",
    is_quick: false,
    run: |report, length| {
        let older = std::env::var_os(OLDER).map(PathBuf::from);
        let older = older.ok_or_else(|| NotHere(format!("{OLDER} names no older program")))?;
        let mut bed = Bed::start(length.pick(2_000, 30_000));
        let fresh = bed.clients();
        // After each step some nodes speak an older version than the others, at last all but control.
        for (words, program) in [("back", Some(older.as_path())), ("up again", None)] {
            for node in 0..NODES {
                bed.cluster.become_program(node, program);
                bed.restart(report, &fresh, node, &format!("n{node} {words}"));
                bed.ask_each_through_each();
            }
        }
        bed.finish(report, fresh);
        Ok(())
    },
};

struct Bed {
    cluster: Cluster,
    login: Login,
    count: u64,
}

impl Bed {
    /// A cluster with so many keys, none of whose nodes is given up while it restarts.
    fn start(count: u64) -> Bed {
        let cluster = Cluster::start_with(NODES, 1, &[("hold_down_seconds", "3600")]);
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
    fn restart(&mut self, report: &mut Report, fresh: &Freshness, node: usize, what: &str) {
        let other = (node + 1) % NODES;
        keys::set(&mut self.cluster.connect(other, &self.login), 0..self.count);
        let share = self.cluster.share_of(&self.cluster.nodes[node].name);
        let began = Instant::now();
        self.cluster.end(node);
        self.cluster.restart(node);
        fresh.moved(node, self.cluster.nodes[node].addr);
        self.cluster.wait_until_settled(NODES);
        let away = began.elapsed();
        let found = self.found(other);
        let lost = found.misses as f64 / self.count as f64;
        let apart_max = (SIGMAS * deviation(share, self.count as f64)).max(0.005);
        let holds = lost <= share + apart_max;
        let words = format!("{:.1} % of its {:.1} %", lost * 100.0, share * 100.0);
        report.law(&format!("{what}: lost"), words, holds);
        report.figure(&format!("{what}: whole again after"), Amount::s(away), Bar::AtMost(5.0));
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
