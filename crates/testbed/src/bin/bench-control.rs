//! How long a change takes to reach every node: `bench-control`, by way of `cargo xtask bench-control`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use testbed::push::measure::{Plan, run};

/// Plays a control plane and many nodes in one process, over real sockets, TLS and files, and measures
/// how long a commit takes until all of them have acknowledged it.
///
/// The goals: p99 of 10 ms for 70 nodes with 100,000 caches and 1,000,000 credentials, which is what is
/// played unless told otherwise; and 1 s with --round-trip-ms 150. Needs some 12 GB of memory, of which
/// 4 for the nodes' disks when they are in memory.
#[derive(Parser)]
#[command(name = "cargo xtask bench-control")]
struct Arguments {
    #[arg(long, default_value_t = 70)]
    nodes: usize,
    #[arg(long, default_value_t = 100_000)]
    caches: u64,
    /// Of each cache.
    #[arg(long, default_value_t = 10)]
    credentials: u64,
    #[arg(long, default_value_t = 1_000)]
    commits: usize,
    /// Distance between control and each node.
    #[arg(long, default_value_t = 0)]
    round_trip_ms: u64,
    /// How soon each node sums up all of its records again, to find flipped bits. A node does that every
    /// second, for 30 ms of a processor; seventy on one machine would do nothing else.
    #[arg(long, default_value_t = 60)]
    check_seconds: u64,
    /// The folder of all nodes' disks. One in memory is fair: real nodes have a disk each.
    #[arg(long, default_value = "/dev/shm")]
    disks: PathBuf,
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
fn main() -> ExitCode {
    let Arguments { nodes, caches, credentials, commits, round_trip_ms, check_seconds, disks } =
        Arguments::parse();
    let plan = Plan {
        nodes: nodes.max(1),
        caches: caches.max(1),
        credentials_of_each: credentials,
        commits: commits.max(1),
        round_trip: Duration::from_millis(round_trip_ms),
        check_all_within: Duration::from_secs(check_seconds),
        disks: Some(disks),
    };
    println!("{}", run(&plan));
    ExitCode::SUCCESS
}
