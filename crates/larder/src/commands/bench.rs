//! `larder bench`: measures a memcached server, ours or another.

use std::io::{self, Write};

use bench::{BenchArgs, BenchError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchCommandError {
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error("cannot write the report")]
    Write(#[from] io::Error),
    #[error("the server answered, but not always right: see the report above")]
    Unclean,
}

pub(crate) fn run(args: &BenchArgs) -> Result<(), BenchCommandError> {
    let report = bench::run(args)?;
    let mut stdout = io::stdout().lock();
    if args.json {
        writeln!(stdout, "{}", report.to_json())?;
    } else {
        write!(stdout, "{report}")?;
    }
    if report.is_clean() { Ok(()) } else { Err(BenchCommandError::Unclean) }
}
