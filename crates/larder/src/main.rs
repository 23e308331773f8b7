//! The `larder` binary: puts the roles together, and the command line.

mod client;
#[cfg(test)]
mod cluster_tests;
mod commands;
mod development_tls;
mod local_data_plane;
mod metrics;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Where `larder up` keeps its state unless told otherwise; the other commands look there too.
const DATA_DIR_DEFAULT: &str = "larder-data";

/// Memcached as a service: many password-protected caches, for any memcached client.
#[derive(Parser)]
#[command(name = "larder", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(commands::up::UpArgs),
    Control(commands::control::ControlArgs),
    Node(commands::node::NodeArgs),
    Cluster(commands::cluster::ClusterArgs),
    Cache(commands::cache::CacheArgs),
    Credential(commands::credential::CredentialArgs),
    Rule(commands::rule::RuleArgs),
    Webhook(commands::webhook::WebhookArgs),
    Outbox(commands::outbox::OutboxArgs),
    Audit(commands::audit::AuditArgs),
    Operator(commands::operator::OperatorArgs),
    Bench(bench::BenchArgs),
    Simulate(commands::simulate::SimulateArgs),
    /// Print a settings file with every setting, its default and the reason for it
    Settings,
}

fn main() -> ExitCode {
    // A wrong command line is told by clap, with exit code 2.
    let ended: Result<(), Box<dyn Error>> = match Arguments::parse().command {
        Command::Up(args) => commands::up::run(&args).map_err(Into::into),
        Command::Control(args) => commands::control::run(&args).map_err(Into::into),
        Command::Node(args) => commands::node::run(&args).map_err(Into::into),
        Command::Cluster(args) => commands::cluster::run(&args).map_err(Into::into),
        Command::Cache(args) => commands::cache::run(&args).map_err(Into::into),
        Command::Credential(args) => commands::credential::run(&args).map_err(Into::into),
        Command::Rule(args) => commands::rule::run(&args).map_err(Into::into),
        Command::Webhook(args) => commands::webhook::run(&args).map_err(Into::into),
        Command::Outbox(args) => commands::outbox::run(&args).map_err(Into::into),
        Command::Audit(args) => commands::audit::run(&args).map_err(Into::into),
        Command::Operator(args) => commands::operator::run(&args).map_err(Into::into),
        Command::Bench(args) => commands::bench::run(&args).map_err(Into::into),
        Command::Simulate(args) => commands::simulate::run(&args).map_err(Into::into),
        Command::Settings => commands::settings::run().map_err(Into::into),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&*error);
            ExitCode::FAILURE
        }
    }
}

/// Tells an error and what caused it, a line each.
#[expect(clippy::print_stderr, reason = "a command line talks to people there")]
fn tell(error: &dyn Error) {
    eprintln!("larder: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}
