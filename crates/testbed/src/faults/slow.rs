//! Nodes that stop or crawl (R8, F9, F25): what others own must not wait for them, what they own fails
//! fast, and all is well as soon as they go on.
//!
//! Two clients of one proxy read at the same rates: one what the victim owns, one what the others own.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::report::{Amount, Bar, Report};
use super::steady::{Answers, Steady};
use super::{Experiment, Length, NotHere};
use crate::cgroup::Cgroup;
use crate::connection::Login;
use crate::eventually::{DEADLINE, eventually};
use crate::fleet::Cluster;
use crate::keys::{self, Ended};

/// Keys that are looked at; over five nodes each has hundreds of them.
const KEYS: u64 = 2_000;
/// Of each of the two clients.
const PER_SECOND: u32 = 1_000;
/// A silent backend is known as one by then; before, a request waits for it.
const NOTICED: Duration = Duration::from_secs(1);

pub(super) const STOPPED: Experiment = Experiment {
    name: "stopped-node",
    goals: "R8, F9, F25",
    what: "SIGSTOP of one of five nodes, then SIGCONT",
    is_quick: true,
    run: stopped,
};

pub(super) const CRAWLING: Experiment = Experiment {
    name: "crawling-nodes",
    goals: "R8, F9",
    what: "two of five nodes have a twentieth of a core each",
    is_quick: false,
    run: crawling,
};

/// A cluster, and who owns what.
struct Bed {
    cluster: Cluster,
    login: Login,
    /// Keys that the victims own, and those of the others.
    victims: Vec<u64>,
    others: Vec<u64>,
}

fn stopped(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(2), Duration::from_secs(20));
    let bed = Bed::of(length.pick(3, 5), &[1]);
    let calm = bed.steady(&bed.others, time);
    let proxy = &bed.cluster.nodes[0].process;
    let memory = proxy.memory_bytes();

    let (victims, others) = (bed.start(&bed.victims), bed.start(&bed.others));
    let from = victims.now();
    bed.signal(&[1], Signal::STOP);
    thread::sleep(NOTICED + time);
    let to = victims.now();
    let grown = proxy.memory_bytes().saturating_sub(memory);
    bed.signal(&[1], Signal::CONT);
    let back = bed.wait_until_whole();
    let after = victims.now();
    let (victims, others) = (victims.finish(), others.finish());

    let first = victims.between(from, from + NOTICED);
    let later = victims.between(from + NOTICED, to);
    report.never("lost by a pause", victims.count(Ended::Miss) + others.count(Ended::Miss));
    report.law("its keys fail while it stands", later.count(Ended::Failure), {
        later.count(Ended::Failure) > 0
    });
    report.figure(
        "its first failures, slowest",
        Amount::ms(first.quantile(Ended::Failure, 1.0)),
        Bar::AtMost(250.0),
    );
    report.figure("its later failures, p99", Amount::ms(later.quantile(Ended::Failure, 0.99)), {
        Bar::AtMost(1.0)
    });
    tell_others(report, &calm, &others.between(from, to));
    report.figure("the proxy's memory grew by", Amount(grown as f64 / MIB, "MiB"), {
        Bar::AtMost(32.0)
    });
    let last = victims.between(to, after).last(Ended::Failure);
    let recovered = last.map_or(Duration::ZERO, |at| at.saturating_sub(to));
    report.figure("its last failure, after it went on", Amount::s(recovered), Bar::AtMost(2.0));
    report.figure("all keys found again after", Amount::s(back), Bar::None);
    Ok(())
}

fn crawling(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_secs(2), Duration::from_secs(20));
    let victims = [1, 2];
    let bed = Bed::of(5, &victims);
    // Beside the same client of theirs as later: that a machine has more to do is no fault of theirs.
    let beside = bed.start(&bed.victims);
    let calm = bed.steady(&bed.others, time);
    beside.finish();
    let (slow, others) = (bed.start(&bed.victims), bed.start(&bed.others));
    let groups: Result<Vec<Cgroup>, _> = victims
        .iter()
        .map(|&node| Cgroup::cpu(0.05, &[bed.cluster.nodes[node].process.id()]))
        .collect();
    let groups = groups.map_err(|error| NotHere(format!("no limit of CPU time: {error}")))?;
    let from = slow.now();
    thread::sleep(time);
    let to = slow.now();
    drop(groups);
    let back = bed.wait_until_whole();
    let (slow, others) = (slow.finish().between(from, to), others.finish().between(from, to));
    report.never("lost", slow.count(Ended::Miss) + others.count(Ended::Miss));
    tell_others(report, &calm, &others);
    report.figure("theirs, p99", Amount::ms(slow.p99()), Bar::None);
    let failed = slow.count(Ended::Failure) as f64 / slow.0.len().max(1) as f64;
    report.figure("theirs, failed", Amount::percent(failed), Bar::None);
    report.figure("all keys found again after", Amount::s(back), Bar::AtMost(2.0));
    Ok(())
}

const MIB: f64 = (1 << 20) as f64;

/// What they noticed of it who asked for nothing of it.
fn tell_others(report: &mut Report, calm: &Answers, meanwhile: &Answers) {
    report.figure("others, p99 before", Amount::ms(calm.p99()), Bar::None);
    report.figure("others, p99 meanwhile", Amount::ms(meanwhile.p99()), Bar::None);
    let times = Amount::times(meanwhile.p99(), calm.p99());
    report.figure("others, p99 as a multiple", times, Bar::AtMost(1.5));
    report.figure(
        "others, failed",
        Amount::count(meanwhile.count(Ended::Failure)),
        Bar::AtMost(0.0),
    );
}

impl Bed {
    /// Nobody is given up meanwhile, so that every key keeps its owner.
    fn of(nodes: usize, victims: &[usize]) -> Bed {
        let cluster = Cluster::start_with(nodes, 1, &[("hold_down_seconds", "3600")]);
        let login = cluster.create_cache("shop", "dev");
        let mut client = cluster.connect(0, &login);
        keys::set(&mut client, 0..KEYS);
        let mut bed = Bed { cluster, login, victims: Vec::new(), others: Vec::new() };
        // Who owns what shows in what fails.
        bed.signal(victims, Signal::STOP);
        let each = eventually("some keys fail", DEADLINE, || {
            let each = keys::get_each(&mut client, 0..KEYS).expect("it answers");
            let failed = each.iter().filter(|(_, ended)| *ended == Ended::Failure).count();
            (failed > 0).then_some(each)
        });
        bed.signal(victims, Signal::CONT);
        for (number, ended) in each {
            match ended {
                Ended::Failure => bed.victims.push(number),
                Ended::Hit | Ended::Miss => bed.others.push(number),
            }
        }
        bed.wait_until_whole();
        bed
    }

    fn signal(&self, nodes: &[usize], signal: Signal) {
        nodes.iter().for_each(|&node| self.cluster.nodes[node].process.signal(signal));
    }

    /// Until every key is found; how long that took.
    fn wait_until_whole(&self) -> Duration {
        let began = std::time::Instant::now();
        eventually("all keys are found again", DEADLINE, || {
            let mut client = self.cluster.connect(0, &self.login);
            let found = keys::get(&mut client, 0..KEYS).expect("it answers");
            (found.hits == KEYS).then(|| began.elapsed())
        })
    }

    fn start(&self, numbers: &[u64]) -> Steady {
        Steady::start(self.cluster.nodes[0].addr, &self.login, numbers.to_vec(), PER_SECOND)
    }

    fn steady(&self, numbers: &[u64], time: Duration) -> Answers {
        let addr = self.cluster.nodes[0].addr;
        Steady::of(addr, &self.login, numbers.to_vec(), PER_SECOND, time)
    }
}
