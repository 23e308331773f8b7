//! The load generator alone, as a program: `cargo run --release -p bench --example load -- --help`.
//! Users have it as `larder bench`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks")]

use bench::{BenchArgs, run};
use clap::Parser;
use std::error::Error;
use std::process::ExitCode;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    bench: BenchArgs,
}

fn main() -> ExitCode {
    let args = Cli::parse().bench;
    match run(&args) {
        Ok(report) => {
            if args.json {
                println!("{}", report.to_json());
            } else {
                print!("{report}");
            }
            if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::from(2)
        }
    }
}
