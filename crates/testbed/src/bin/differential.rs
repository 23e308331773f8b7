//! Compares Larder with memcached on random commands: `differential --seeds 0..100000 --dialect all`.
//!
//! Prints each difference once it cannot be made smaller, and what was done; fails if there was one.

use clap::Parser;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;
use testbed::connection::Login;
use testbed::differential::judge::Subject;
use testbed::differential::run::{Run, run};
use testbed::differential::sequence::Dialect;

/// Compares Larder with memcached on random commands.
#[derive(Parser)]
struct Arguments {
    /// Seeds from A to before B, each a sequence of commands per dialect.
    #[arg(long, default_value = "0..20000", value_parser = seeds)]
    seeds: (u64, u64),
    /// text, meta, binary, login, sasl or all
    #[arg(long, default_value = "all", value_parser = dialects)]
    dialect: Dialects,
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Pairs of servers that work at the same time.
    #[arg(long, default_value_t = 2)]
    workers: u64,
    /// No sequences in which times come to pass, which have servers of their own.
    #[arg(long)]
    no_pauses: bool,
    /// Stop after this many differences.
    #[arg(long, default_value_t = 10)]
    differences: usize,
    /// Compare with this server instead of starting a Larder; several are the proxies of one cluster.
    /// Each worker flushes it, so there must be one, and no pauses.
    #[arg(long)]
    subject: Vec<SocketAddr>,
    /// What such a server wants, as USERNAME:PASSWORD.
    #[arg(long, value_parser = login, requires = "subject")]
    login: Option<Login>,
}

#[derive(Clone)]
struct Dialects(Vec<Dialect>);

#[expect(clippy::print_stdout, reason = "a command prints its result")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let subject = (!arguments.subject.is_empty())
        .then_some(Subject { addrs: arguments.subject, login: arguments.login });
    let report = run(&Run {
        seeds: arguments.seeds.0..arguments.seeds.1,
        dialects: arguments.dialect.0,
        time_max: arguments.seconds.map(Duration::from_secs),
        workers: arguments.workers,
        pauses: !arguments.no_pauses,
        differences_max: arguments.differences,
        subject,
    });
    for difference in &report.differences {
        println!("{difference}\n");
    }
    println!("{report}");
    if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let parsed = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parsed.filter(|(a, b)| a < b).ok_or_else(|| "wanted A..B, with A below B".to_owned())
}

fn login(text: &str) -> Result<Login, String> {
    let (username, password) = text.split_once(':').ok_or("wanted USERNAME:PASSWORD")?;
    Ok(Login { username: username.to_owned(), password: password.to_owned() })
}

fn dialects(text: &str) -> Result<Dialects, String> {
    Ok(Dialects(match text {
        "text" => vec![Dialect::Text],
        "meta" => vec![Dialect::Meta],
        "binary" => vec![Dialect::Binary],
        "login" => vec![Dialect::Login],
        "sasl" => vec![Dialect::Sasl],
        "all" => Dialect::ALL.to_vec(),
        other => return Err(format!("there is no dialect {other}")),
    }))
}
