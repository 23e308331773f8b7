//! How long a commit takes until every node has it, and what a node costs.
//!
//! One machine plays many: all nodes' processors are its two cores, and their disks one folder, which
//! should be in memory (a fleet has a disk for each). What all of them would only have once each and
//! nobody looks at here is shared: the directory in which clients' passwords are looked up.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::control::record::Revision;

use super::pretend::Pretend;
use super::{Control, Manner, Node, empty_directory, unix_now};
use crate::distance::Distance;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    pub nodes: usize,
    pub caches: u64,
    pub credentials_of_each: u64,
    pub commits: usize,
    /// Between control and each node, there and back.
    pub round_trip: Duration,
    /// How soon each node sums up all of its records again. A node does that each second; seventy on
    /// the two processors of one machine would do nothing else.
    pub check_all_within: Duration,
    /// Where the nodes' disks are; the machine's folder for temporary files when nothing is said.
    pub disks: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Report {
    pub plan: Plan,
    /// From a node's start to its acknowledgement of the first copy, when it is alone.
    pub snapshot_of_one: Duration,
    /// The same for all others, who start together.
    pub snapshot_of_all: Duration,
    /// From each commit to the acknowledgement of the last node; sorted.
    pub commits: Vec<Duration>,
    /// Memory of the control plane with its copy, and of the pretended database.
    pub control_bytes: u64,
    /// The most that the process ever had, with all nodes in it.
    pub peak_bytes: u64,
    /// Memory of each further node, in bytes, without its directory.
    pub node_bytes: u64,
    /// On each node's disk.
    pub disk_bytes: u64,
    /// Of the whole process while nothing was committed, in processors: heartbeats, and every node
    /// summing up its records once a second.
    pub idle_processors: f64,
}

/// For the first copy of all nodes.
const FIRST_COPY_TIME_MAX: Duration = Duration::from_secs(900);
/// How long the process is looked at while nothing is committed.
const IDLE_TIME: Duration = Duration::from_secs(5);

/// Builds the fleet and measures it.
///
/// # Panics
/// When a node does not get a commit in time, or the machine does not let itself be looked at.
pub fn run(plan: &Plan) -> Report {
    let nothing_yet = resident_bytes();
    let dir = match &plan.disks {
        Some(path) => tempfile::tempdir_in(path),
        None => tempfile::tempdir(),
    };
    let dir = dir.expect("the folder of the disks can be written to");
    let pretend = Pretend::new(plan.caches, plan.credentials_of_each);
    let control = Control::start(Arc::new(pretend), dir.path(), unix_now());
    let control_bytes = resident_bytes().saturating_sub(nothing_yet);
    let distance = Distance::to(control.address, plan.round_trip / 2);
    let address = distance.address().to_string();
    let directory = empty_directory();
    let start = |number: usize| {
        let at = dir.path().join(format!("n{number}"));
        control.join(&at, &format!("n{number}"));
        let manner = Manner { damage: false, check_all_within: plan.check_all_within };
        Node::start_as(&address, &at, Arc::clone(&directory), manner)
    };
    let wait_first = || {
        let all = control.push.fleet.wait_applied(Revision::new(1), FIRST_COPY_TIME_MAX);
        let all = control.runtime.block_on(all);
        assert!(all.missing.is_empty(), "{all:?}");
    };

    let began = Instant::now();
    let mut nodes = vec![start(0)];
    wait_first();
    let snapshot_of_one = began.elapsed();
    let with_one = resident_bytes();
    let disk_bytes = folder_bytes(&dir.path().join("n0"));
    let began = Instant::now();
    nodes.extend((1..plan.nodes).map(start));
    wait_first();
    let snapshot_of_all = began.elapsed();
    let others = (plan.nodes as u64).saturating_sub(1).max(1);
    let node_bytes = resident_bytes().saturating_sub(with_one) / others;

    let (began, used) = (Instant::now(), processor_time());
    std::thread::sleep(IDLE_TIME);
    let idle_processors = (processor_time() - used).as_secs_f64() / began.elapsed().as_secs_f64();

    let mut commits: Vec<Duration> =
        (0..plan.commits).map(|n| control.commit_and_wait(&format!("new-{n}"))).collect();
    assert!(nodes.iter().all(|node| node.lets_in("new-0")));
    commits.sort();
    Report {
        plan: plan.clone(),
        snapshot_of_one,
        snapshot_of_all,
        commits,
        control_bytes,
        peak_bytes: status_bytes("VmHWM:"),
        node_bytes,
        disk_bytes,
        idle_processors,
    }
}

impl Report {
    /// So many of a thousand commits took no longer than this.
    pub fn commit_permille(&self, permille: usize) -> Duration {
        self.commits[(self.commits.len() - 1) * permille / 1_000]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan {
            nodes, caches, credentials_of_each, commits, round_trip, check_all_within, ..
        } = &self.plan;
        let credentials = caches * credentials_of_each;
        let mb = |bytes: u64| bytes / 1_000_000;
        writeln!(
            f,
            "{nodes} nodes, {caches} caches, {credentials} credentials, {commits} commits"
        )?;
        writeln!(f, "round trip added          {round_trip:?}")?;
        writeln!(f, "each node sums its records up once in {check_all_within:?}")?;
        writeln!(
            f,
            "commit to all acknowledged  p50 {:.1?}, p90 {:.1?}, p99 {:.1?}, max {:.1?}",
            self.commit_permille(500),
            self.commit_permille(900),
            self.commit_permille(990),
            self.commit_permille(1_000)
        )?;
        writeln!(f, "first copy of one node    {:.2?}", self.snapshot_of_one)?;
        writeln!(f, "first copy of the others  {:.2?}, all at once", self.snapshot_of_all)?;
        writeln!(f, "memory of a node          {} MB beside its directory", mb(self.node_bytes))?;
        writeln!(f, "disk of a node            {} MB", mb(self.disk_bytes))?;
        writeln!(
            f,
            "memory of control         {} MB with the pretended database",
            mb(self.control_bytes)
        )?;
        writeln!(f, "all in one process, peak  {} MB", mb(self.peak_bytes))?;
        write!(f, "processors while nothing is committed  {:.2}", self.idle_processors)
    }
}

fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

/// A line of the kernel's account of this process, which counts in KiB.
fn status_bytes(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has procfs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("the kernel writes this line") * 1_024
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    let files = fs::read_dir(folder).expect("the node has made it");
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

/// User and system time of this process.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
