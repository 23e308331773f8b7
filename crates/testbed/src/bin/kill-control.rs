//! Kills the control plane under load: `kill-control --kills 1000`.
//!
//! Ends with what was done, or with the law that was broken.

use std::process::ExitCode;

use clap::Parser;
use testbed::kill_control::{Plan, run};

/// Kills the control plane with SIGKILL while clients change things through its API, and looks after
/// each restart that nothing is lost, doubled or reordered.
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000)]
    kills: u32,
    /// Of the clients' wishes and the moments of the kills; the machine adds chance of its own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients that change things at the same time.
    #[arg(long, default_value_t = 4)]
    clients: usize,
    /// Keep the rows on this PostgreSQL server, in an empty database; clients/postgres.sh starts one.
    #[arg(long)]
    postgres: Option<String>,
}

#[expect(clippy::print_stdout, reason = "a command prints its result")]
fn main() -> ExitCode {
    let Arguments { kills, seed, clients, postgres } = Arguments::parse();
    let report = run(&Plan { kills, seed, clients, postgres });
    println!("{report}");
    ExitCode::SUCCESS
}
