//! Nodes that stop or crawl (R8, F9, F25): what others own must not wait for them, what they own fails
//! fast, and all is well as soon as they go on.
//!
//! Two clients of one proxy read all the time: one what the victims own, one what the others own. The fault
//! comes and goes, so that what else the machine does falls on the time with it and on that without alike.

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
/// Of who reads what the others own, and of who reads what a stopped node owns.
const PER_SECOND: u32 = 1_000;
/// Of who reads what crawling nodes own: more than they can, or they would not crawl.
const PER_SECOND_TOO_MUCH: u32 = 6_000;
/// How often the fault comes.
const TIMES: u32 = 5;
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
    let time = length.pick(Duration::from_millis(500), Duration::from_secs(5));
    let bed = Bed::of(length.pick(3, 5), &[1]);
    let (victims, others) = (bed.start(&bed.victims, PER_SECOND), bed.start_others());
    let proxy = &bed.cluster.nodes[0].process;
    let memory = proxy.memory_bytes();
    let mut parts = Parts::default();
    let (mut grown, mut back) = (0, Duration::ZERO);
    for _ in 0..TIMES {
        parts.calm.push(of(&others, time));
        let from = victims.now();
        bed.signal(&[1], Signal::STOP);
        parts.with_fault.push(of(&others, NOTICED + time));
        let to = victims.now();
        grown = grown.max(proxy.memory_bytes().saturating_sub(memory));
        bed.signal(&[1], Signal::CONT);
        back = back.max(bed.wait_until_whole());
        parts.of_victims.push((from, to, victims.now()));
    }
    let (victims, others) = (victims.finish(), others.finish());

    let failed = |from, to| victims.between(from, to);
    let first = parts
        .of_victims
        .iter()
        .map(|&(from, ..)| failed(from, from + NOTICED).quantile(Ended::Failure, 1.0));
    let first = first.max().unwrap_or_default();
    let later: Vec<Answers> =
        parts.of_victims.iter().map(|&(from, to, _)| failed(from + NOTICED, to)).collect();
    let recovered = parts.of_victims.iter().map(|&(_, to, after)| {
        let last = failed(to, after).last(Ended::Failure);
        last.map_or(Duration::ZERO, |at| at.saturating_sub(to))
    });
    let recovered = recovered.max().unwrap_or_default();
    report.never("lost by a pause", victims.count(Ended::Miss) + others.count(Ended::Miss));
    report.law(
        "its keys fail while it stands",
        later.iter().map(|part| part.count(Ended::Failure)).sum::<u64>(),
        later.iter().all(|part| 0 < part.count(Ended::Failure)),
    );
    report.figure("its first failures, slowest", Amount::ms(first), Bar::AtMost(250.0));
    let later = middle(later.iter().map(|part| part.quantile(Ended::Failure, 0.99)));
    report.figure("its later failures, p99", Amount::ms(later), Bar::AtMost(1.0));
    parts.tell_others(report, &others);
    report.figure("the proxy's memory grew by", Amount(grown as f64 / MIB, "MiB"), {
        Bar::AtMost(32.0)
    });
    report.figure("its last failure, after it went on", Amount::s(recovered), Bar::AtMost(2.0));
    report.figure("all keys found again after", Amount::s(back), Bar::None);
    Ok(())
}

fn crawling(report: &mut Report, length: Length) -> Result<(), NotHere> {
    let time = length.pick(Duration::from_millis(500), Duration::from_secs(5));
    let victims = [1, 2];
    let bed = Bed::of(5, &victims);
    let (slow, others) = (bed.start(&bed.victims, PER_SECOND_TOO_MUCH), bed.start_others());
    let mut parts = Parts::default();
    let mut back = Duration::ZERO;
    for _ in 0..TIMES {
        parts.calm.push(of(&others, time));
        let from = slow.now();
        let groups: Result<Vec<Cgroup>, _> = victims
            .iter()
            .map(|&node| Cgroup::cpu(0.05, &[bed.cluster.nodes[node].process.id()]))
            .collect();
        let groups = groups.map_err(|error| NotHere(format!("no limit of CPU time: {error}")))?;
        parts.with_fault.push(of(&others, time));
        let to = slow.now();
        drop(groups);
        back = back.max(bed.wait_until_whole());
        parts.of_victims.push((from, to, slow.now()));
    }
    let (slow, others) = (slow.finish(), others.finish());
    report.never("lost", slow.count(Ended::Miss) + others.count(Ended::Miss));
    parts.tell_others(report, &others);
    let theirs: Vec<Answers> =
        parts.of_victims.iter().map(|&(from, to, _)| slow.between(from, to)).collect();
    let p99 = middle(theirs.iter().map(Answers::p99));
    report.figure("theirs, p99", Amount::ms(p99), Bar::None);
    let failed: u64 = theirs.iter().map(|part| part.count(Ended::Failure)).sum();
    let asked: usize = theirs.iter().map(|part| part.0.len()).sum();
    let failed = failed as f64 / asked.max(1) as f64;
    report.figure("theirs, failed", Amount::percent(failed), Bar::None);
    report.figure("all keys found again after", Amount::s(back), Bar::AtMost(2.0));
    Ok(())
}

const MIB: f64 = (1 << 20) as f64;

/// When the fault was there and when not.
#[derive(Default)]
struct Parts {
    /// In the time of who reads what the others own.
    calm: Vec<(Duration, Duration)>,
    with_fault: Vec<(Duration, Duration)>,
    /// In the time of the other client: it comes, it goes, all is well.
    of_victims: Vec<(Duration, Duration, Duration)>,
}

impl Parts {
    /// What they noticed of it who asked for nothing of it.
    fn tell_others(&self, report: &mut Report, others: &Answers) {
        let p99 = |parts: &[(Duration, Duration)]| {
            middle(parts.iter().map(|&(from, to)| others.between(from, to).p99()))
        };
        let (calm, meanwhile) = (p99(&self.calm), p99(&self.with_fault));
        report.figure("others, p99 before", Amount::ms(calm), Bar::None);
        report.figure("others, p99 meanwhile", Amount::ms(meanwhile), Bar::None);
        let times = Amount::times(meanwhile, calm);
        report.figure("others, p99 as a multiple", times, Bar::AtMost(1.5));
        let with_fault = self.with_fault.iter().map(|&(from, to)| others.between(from, to));
        let with_fault = Answers(with_fault.flat_map(|part| part.0).collect());
        with_fault.report_failed(report, "others, failed");
    }
}

/// This part of a client's time, which it waits for.
fn of(client: &Steady, time: Duration) -> (Duration, Duration) {
    let from = client.now();
    thread::sleep(time);
    (from, client.now())
}

/// The one that as many are above as below.
fn middle(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
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

    fn start(&self, numbers: &[u64], per_second: u32) -> Steady {
        let addr = self.cluster.nodes[0].addr;
        let steady = Steady::start(addr, &self.login, numbers.to_vec(), per_second);
        steady.wait_until_at_work();
        steady
    }

    fn start_others(&self) -> Steady {
        self.start(&self.others, PER_SECOND)
    }
}
