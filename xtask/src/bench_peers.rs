//! `cargo xtask bench-peers`: Larder beside memcached, on the same work, in the same run.
//!
//! ```text
//! core 0   memcached -t 1   or   larder up --threads 1      (only one of them has work)
//! core 1   the load generator of `larder bench`, as a library
//!
//! round 1:  ours theirs   round 2:  theirs ours   round 3:  ours theirs   ...
//! ```
//!
//! The first figure is CPU time per request: user and system time of the server process, from the
//! kernel's own accounting, over the requests answered. It survives a noisy neighbour and a
//! generator that is slower than the server. Figures are medians with their extremes; ratios are
//! taken within a round, so that a slow minute hurts both sides alike.

mod chart;
mod contest;
mod curves;
pub(crate) mod instructions;
mod many_caches;
mod outcome;
mod peer;
mod publish;
mod relay;
mod rows;

use crate::root;
use clap::Parser;
use contest::Contest;
use outcome::Outcome;
use rows::{ROWS, Row};
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Measures Larder beside memcached and writes docs/benchmarks.md.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench-peers", after_help = EXAMPLES)]
struct Arguments {
    /// One short round instead of five long ones; leaves out what takes long to prepare
    #[arg(long)]
    quick: bool,

    /// The memcached to compare with; default: the one in PATH
    #[arg(long, value_name = "PATH")]
    memcached: Option<PathBuf>,

    /// A larder program to measure; default: built from this tree
    #[arg(long, value_name = "PATH")]
    larder: Option<PathBuf>,

    /// Only these rows, and no charts
    #[arg(long, value_name = "P1,P2,...", value_delimiter = ',')]
    rows: Vec<String>,

    /// Rounds per row
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=50))]
    rounds: Option<u8>,

    /// Also write all figures here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the table here; a part between two markers is replaced, the rest stays
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    markdown: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench-peers --quick                       under two minutes, a first look
  cargo xtask bench-peers --memcached ~/src/memcached/memcached
  cargo xtask bench-peers --rows P1,P2 --json figures.json --markdown /tmp/table.md

Needs a machine with two cores and nothing else to do. Of Debian's packages it installs memcached,
nutcracker and valgrind where they are missing, as root or with sudo.
";

/// How long and how often each row is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: u8,
    warm_up: Duration,
    duration: Duration,
    quick: bool,
}

impl Effort {
    /// For what has no target: enough to see how it is.
    fn shorter(self) -> Effort {
        Effort { rounds: self.rounds.min(3), duration: self.duration / 2, ..self }
    }
}

impl Arguments {
    fn effort(&self) -> Effort {
        let quick = self.quick;
        // Kernel accounting counts hundredths of a second: below half a second they are too coarse.
        let (rounds, warm_up, duration) = if quick { (1, 100, 400) } else { (5, 250, 1_300) };
        Effort {
            rounds: self.rounds.unwrap_or(rounds),
            warm_up: Duration::from_millis(warm_up),
            duration: Duration::from_millis(duration),
            quick,
        }
    }

    fn chosen(&self) -> Result<Vec<&'static Row>, String> {
        for name in &self.rows {
            if !ROWS.iter().any(|row| row.id == name) {
                let mut known: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
                known.dedup();
                return Err(format!("there is no row {name}; there are {}", known.join(", ")));
            }
        }
        let is_chosen = |row: &&Row| match self.rows.is_empty() {
            true => !(self.quick && row.is_long()),
            false => self.rows.iter().any(|name| name == row.id),
        };
        Ok(ROWS.iter().filter(is_chosen).collect())
    }
}

/// Runs the task with the words after its name.
#[expect(clippy::print_stderr, reason = "a command line tool speaks to its user")]
pub(crate) fn run(words: impl Iterator<Item = String>) -> ExitCode {
    let words: Vec<String> = words.collect();
    let name = "cargo xtask bench-peers".to_owned();
    let arguments = Arguments::parse_from([name].iter().chain(&words));
    let result = match env::var_os(IS_INNER) {
        None => prepare(&arguments, &words),
        Some(_) => measure(&arguments).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("bench-peers: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprintln!("  because: {error}");
            cause = error.source();
        }
        ExitCode::from(2)
    })
}

/// Set for the second start of this program: see [`prepare`].
const IS_INNER: &str = "LARDER_BENCH_PEERS";

/// Builds everything with optimisation and starts this program again, so built: a generator built
/// for debugging would measure itself. The programs to measure are handed on as `testbed` wants
/// them.
fn prepare(arguments: &Arguments, words: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    install()?;
    build("larder", arguments.larder.is_none())?;
    build("xtask", true)?;
    let release = target_dir()?.join("release");
    let larder = arguments.larder.clone().unwrap_or_else(|| release.join("larder"));
    let mut command = Command::new(release.join("xtask"));
    command.arg("bench-peers").args(words).env(IS_INNER, "1");
    command.env("LARDER_BIN", absolute(&larder)?);
    if let Some(memcached) = &arguments.memcached {
        command.env("LARDER_MEMCACHED", absolute(memcached)?);
    }
    let status = command.status()?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2)))
}

/// Programs that are measured, or that measure, and their packages.
const NEEDED: [(&str, &str); 3] =
    [("memcached", "memcached"), ("nutcracker", "nutcracker"), ("valgrind", "valgrind")];

fn install() -> Result<(), Box<dyn Error>> {
    let has = |program: &str| {
        let folders = env::var_os("PATH").unwrap_or_default();
        // Where Debian keeps nutcracker, which is not in everybody's PATH.
        let more = [PathBuf::from("/usr/sbin")];
        env::split_paths(&folders).chain(more).any(|folder| folder.join(program).is_file())
    };
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|(program, _)| !has(program)).map(|(_, name)| name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let script = format!(
        "as_root=; [ $(id -u) = 0 ] || as_root=sudo; $as_root apt-get update -qq; \
         DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends {}",
        missing.join(" ")
    );
    let status = Command::new("sh").args(["-c", &script]).status()?;
    if status.success() { Ok(()) } else { Err(format!("no {}", missing.join(", ")).into()) }
}

fn build(package: &str, is_needed: bool) -> Result<(), Box<dyn Error>> {
    if !is_needed {
        return Ok(());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", package])
        .current_dir(root())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("{package} does not build").into()) }
}

fn target_dir() -> Result<PathBuf, Box<dyn Error>> {
    let this = env::current_exe()?;
    // <target>/<profile>/xtask
    let target =
        this.parent().and_then(Path::parent).ok_or("xtask runs outside a target folder")?;
    Ok(target.to_owned())
}

fn absolute(path: &Path) -> Result<PathBuf, Box<dyn Error>> {
    fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "progress and the table")]
fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let rows = arguments.chosen()?;
    let mut contest = Contest::new(arguments.effort())?;
    eprintln!("{}", contest.setting());
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut failures: Vec<String> = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        eprintln!("[{}/{}] {} {}", place + 1, rows.len(), row.id, row.what);
        match contest.hold(row) {
            Ok(outcome) => {
                eprintln!("        {}", outcome.line());
                outcomes.push(outcome);
            }
            // The others have taken minutes, or will; they are worth having.
            Err(error) => failures.push(format!("{} {}: {error}", row.id, row.what)),
        }
    }
    // Whoever wants a few rows does not want to wait for these.
    let curves = if arguments.rows.is_empty() {
        let (curves, more) = contest.curves();
        failures.extend(more);
        curves
    } else {
        Vec::new()
    };
    let table = publish::markdown(contest.setting(), &outcomes, &curves, &failures);
    println!("{table}");
    let document = root().join(&arguments.markdown);
    publish::replace_part(&document, &table)?;
    publish::draw(&document, &curves)?;
    if let Some(path) = &arguments.json {
        fs::write(path, publish::json(contest.setting(), &outcomes, &curves))?;
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str]) -> Result<Vec<&'static str>, String> {
        let name = ["bench-peers"];
        let arguments = Arguments::try_parse_from(name.iter().chain(words)).expect("good words");
        Ok(arguments.chosen()?.iter().map(|row| row.id).collect())
    }

    #[test]
    fn a_quick_run_leaves_out_the_long_rows_unless_they_are_named() {
        assert!(!chosen(&["--quick"]).expect("known").contains(&"P15"));
        assert_eq!(chosen(&["--quick", "--rows", "P15"]), Ok(vec!["P15"]));
    }

    #[test]
    fn an_unknown_row_is_named_beside_the_known_ones() {
        let problem = chosen(&["--rows", "P99"]).expect_err("there is no such row");
        assert!(problem.starts_with("there is no row P99; there are P1, P2"), "{problem}");
    }
}
