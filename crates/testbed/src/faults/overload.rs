//! More requests than there is time for (R15, F27): what can be answered is, and afterwards all is as
//! before.
//!
//! ```text
//!   crowd ─▶ as many requests as are due, whatever the service does ─▶ one proxy ─▶ three nodes with a
//!            part of a core together, so that one generator can ask for three times what they can do
//! ```
//!
//! What is answered too late is work for nothing, and giving up makes more work: what brings services
//! down and keeps them down (Bronson et al., "Metastable failures", HotOS 2021). It is done with so few
//! clients that they cannot all give up, as the queue of all their requests is short, and with so many
//! that the queue alone is longer than their patience.
//!
//! How much can be answered changes with the machine from one minute to the next. So it is measured
//! anew before each overload, and each is compared with its own. What clients cost that come, ask once
//! and go, and what memcached does with the same part of a core and the same crowd, says how much of it
//! is in the nature of such a crowd.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::impatient::{Asked, Crowd, Ended, KEYS, PATIENCE, Stay};
use super::report::{Amount, Bar, Report, middle};
use super::{Experiment, Length, NotHere, memcached_with};
use crate::cgroup::Cgroup;
use crate::connection::Login;
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::{Cluster, log_in};
use crate::keys;

/// What all nodes together have of one core, and of how short a time: a slow machine, and not a fast one
/// that stands still most of the time.
const CORE_PART: f64 = 0.1;
const CORE_PERIOD: Duration = Duration::from_millis(10);
/// So few that the queue of all their requests is a part of their patience.
const FEW: u32 = 200;
/// How many times as many as would keep the nodes busy for as long as they have patience; and no more
/// than this process has descriptors for.
const MANY: f64 = 3.0;
const MANY_MAX: f64 = 12_000.0;
/// Clients that ask one after the other, enough to keep the nodes busy.
const BUSY: u32 = 64;
/// Of the most: what is asked before and after.
const COMMON: f64 = 0.6;
const OVER: f64 = 3.0;
/// Times that the most and an overload take turns; of whom we compare with, and of figures that bars
/// are not about.
const PAIRS: usize = 5;
const PAIRS_BESIDE: usize = 3;
/// Until a crowd is in its stride.
const STRIDE: Duration = Duration::from_secs(1);
/// A part of the time afterwards that is looked at as a whole.
const LOOK: Duration = Duration::from_millis(500);
/// Parts that are looked at: for longer than it may take.
const LOOKS: u32 = 12;
/// Names the one crowd that there shall be, [`FEWS_NAME`] or [`MANYS_NAME`]; both where it is not set.
const ONLY: &str = "LARDER_OVERLOAD";
const FEWS_NAME: &str = "few";
const MANYS_NAME: &str = "many";

pub(super) const OVERLOAD: Experiment = Experiment {
    name: "overload",
    goals: "R15, F27",
    what: "three times what a cluster with a tenth of a core can answer, offered to one proxy",
    is_quick: false,
    run: overload,
};

fn overload(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(1), Duration::from_secs(3));
    let only = std::env::var(ONLY).ok();
    if only.as_ref().is_some_and(|it| ![FEWS_NAME, MANYS_NAME].contains(&it.as_str())) {
        return Err(NotHere(format!("{ONLY} is neither {FEWS_NAME} nor {MANYS_NAME}")));
    }
    larder(report, time, only.as_deref())?;
    memcached(report, time, only.as_deref())
}

fn larder(report: &mut Report, time: Duration, only: Option<&str>) -> Result<(), NotHere> {
    let mut cluster = Cluster::start_control("127.0.0.1:0", 1, &[("threads", "1")]);
    for number in 0..3 {
        // Enough for what the largest plan guarantees, for its connections.
        cluster.add_node(&format!("n{number}"), &["--memory", "2GiB"]);
    }
    cluster.wait_until_settled(3);
    let login = cluster.create_cache("shop", "1000");
    keys::set(&mut cluster.connect(0, &login), 0..KEYS);
    let nodes: Vec<u32> = cluster.nodes.iter().map(|node| node.process.id()).collect();
    let _slow = slow(&nodes)?;
    Service { name: "", addr: cluster.nodes[0].addr, login: login.of_any_key() }
        .overload(report, time, only);
    Ok(())
}

fn memcached(report: &mut Report, time: Duration, only: Option<&str>) -> Result<(), NotHere> {
    let (memcached, login) = memcached_with(KEYS)?;
    let _slow = slow(&[memcached.process.id()])?;
    Service { name: "memcached, ", addr: memcached.addr, login }.overload(report, time, only);
    Ok(())
}

fn slow(processes: &[u32]) -> Result<Cgroup, NotHere> {
    let group = Cgroup::cpu_each(CORE_PERIOD, CORE_PART, processes);
    group.map_err(|error| NotHere(format!("no limit of CPU time: {error}")))
}

/// Whom crowds ask.
struct Service {
    /// Before each of its rows; empty for who is judged by them.
    name: &'static str,
    addr: SocketAddr,
    login: Login,
}

/// What can be answered, and what was answered of three times as much.
struct Pair {
    most: f64,
    before: Asked,
    over: Asked,
    lasted: Duration,
    recovered: Duration,
}

impl Service {
    fn is_judged(&self) -> bool {
        self.name.is_empty()
    }

    fn overload(&self, report: &mut Report, time: Duration, only: Option<&str>) {
        let newcomers = (0..PAIRS_BESIDE).map(|_| {
            let stay = self.most(Stay::WhileServed, time);
            (stay, self.most(Stay::ForOne, time))
        });
        let newcomers: Vec<(f64, f64)> = newcomers.collect();
        let (most, all) = middle(newcomers.iter().map(|&(most, _)| most));
        let what = format!("{}answered at most, per second, {all}", self.name);
        report.figure(&what, Amount(most, ""), Bar::None);
        let (part, all) = middle(newcomers.iter().map(|&(most, anew)| anew / most * 100.0));
        let what = format!("{}of that with a login for each request, {all}", self.name);
        report.figure(&what, Amount(part, "%"), Bar::None);

        let descriptors =
            daemon::descriptors::raise().saturating_sub(daemon::descriptors::RESERVED);
        let many = most * PATIENCE.as_secs_f64() * MANY;
        let many = many.min(MANY_MAX).min(descriptors as f64 / 2.0) as u32;
        for (words, clients) in [(FEWS_NAME, FEW), (MANYS_NAME, many)] {
            if only.is_some_and(|only| only != words) {
                continue;
            }
            let crowd = Crowd::start(self.addr, &self.login, clients, Stay::WhileServed);
            let count = if self.is_judged() { PAIRS } else { PAIRS_BESIDE };
            let pairs: Vec<Pair> = (0..count).map(|_| self.pair(&crowd, time)).collect();
            let whose = format!("{}{clients} clients ({words}): ", self.name);
            report.never(&format!("{whose}wrong values"), crowd.wrong());
            self.tell(report, &whose, &pairs);
        }
    }

    fn tell(&self, report: &mut Report, whose: &str, pairs: &[Pair]) {
        let bar = |bar| if self.is_judged() { bar } else { Bar::None };
        let what = |of: &str| format!("{whose}{of}");
        let of_most =
            |pair: &Pair, count: u64| count as f64 / pair.lasted.as_secs_f64() / pair.most;
        let (offered, _) = middle(pairs.iter().map(|pair| of_most(pair, pair.over.len())));
        let of = what("offered, as a multiple of the most");
        report.figure(&of, Amount(offered, "×"), bar(Bar::AtLeast(OVER * 0.9)));
        let answered = |pair: &Pair| of_most(pair, pair.over.count(Ended::Answered)) * 100.0;
        let (share, all) = middle(pairs.iter().map(answered));
        let of = what(&format!("answered in time of what can be, {all}"));
        report.figure(&of, Amount(share, "%"), bar(Bar::AtLeast(90.0)));
        let p99 = |of: fn(&Pair) -> &Asked| {
            let times = pairs.iter().map(|pair| of(pair).quantile(0.99).as_secs_f64() * 1e3);
            Amount(middle(times).0, "ms")
        };
        report.figure(&what("p99 of these"), p99(|pair| &pair.over), Bar::None);
        report.figure(&what("p99 before"), p99(|pair| &pair.before), Bar::None);
        let failed = pairs.iter().map(|pair| pair.before.count(Ended::Failed)).sum();
        report.figure(&what("failed before"), Amount::count(failed), Bar::None);
        let slowest = pairs.iter().map(|pair| pair.recovered).max().unwrap_or_default();
        let of = what("all as before after, slowest");
        report.figure(&of, Amount::s(slowest), bar(Bar::AtMost(5.0)));
    }

    /// What is answered per second to clients who always ask.
    fn most(&self, stay: Stay, time: Duration) -> f64 {
        // So that what others left behind is not charged to these.
        eventually("it answers as ever", DEADLINE, || {
            let began = Instant::now();
            log_in(self.addr, &self.login).ok()?.ask("mn\r\n", "MN\r\n");
            (began.elapsed() < LOOK).then_some(())
        });
        let crowd = Crowd::start(self.addr, &self.login, BUSY, stay);
        crowd.asking(f64::INFINITY, STRIDE / 2);
        per_second(&crowd, crowd.asking(f64::INFINITY, time / 2))
    }

    fn pair(&self, crowd: &Crowd, time: Duration) -> Pair {
        let most = self.most(Stay::WhileServed, time);
        let before = crowd.asking(most * COMMON, time / 2);
        crowd.asking(most * OVER, STRIDE);
        let over = crowd.asking(most * OVER, time);
        let before = crowd.asked(before);
        crowd.ask(most * COMMON);
        let recovered = recovered(crowd, &before);
        crowd.ask(0.0);
        let (from, to) = over;
        Pair { most, before, over: crowd.asked(over), lasted: to - from, recovered }
    }
}

fn per_second(crowd: &Crowd, (from, to): (Instant, Instant)) -> f64 {
    crowd.asked((from, to)).count(Ended::Answered) as f64 / (to - from).as_secs_f64()
}

/// From now, as the overload is over, until a part of the time in which nothing failed and 99 of 100 were
/// answered within twice of what it took before, or within patience's tenth.
fn recovered(crowd: &Crowd, before: &Asked) -> Duration {
    let common = (before.quantile(0.99) * 2).max(PATIENCE / 10);
    let from = Instant::now();
    let parts = (0..LOOKS).map(|number| (from + LOOK * number, from + LOOK * (number + 1)));
    let is_common = |part: &(Instant, Instant)| {
        let part = crowd.asked(*part);
        part.count(Ended::Failed) == 0 && part.quantile(0.99) <= common
    };
    parts.into_iter().find(is_common).map_or(LOOK * (LOOKS + 1), |(_, to)| to - from)
}
