//! Does things to real processes and says what their clients notice: `faults --quick`, `faults --list`,
//! `faults stopped-node matrix`.
//!
//! Ends with a table of everything that was looked at. The exit code is 1 when a law was broken, and
//! without `--quick` also when a figure was missed.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use testbed::faults::report::Report;
use testbed::faults::{ALL, Experiment, Length, load_average};

/// Stops, holds up and kills parts of clusters of real processes, and says what their clients notice.
///
/// Some faults need root, network namespaces, /dev/net/tun or cgroups; what this machine does not permit
/// is said and skipped.
#[derive(Parser)]
struct Arguments {
    /// Experiments by name; default: all
    names: Vec<String>,
    /// The few that are short, as shortly as they still show something; only laws count
    #[arg(long)]
    quick: bool,
    /// Say what there is, and do nothing
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout().lock()) {
        Ok(code) => code,
        // Nobody reads what we say.
        Err(_) => ExitCode::from(1),
    }
}

fn run(arguments: &Arguments, out: &mut impl Write) -> io::Result<ExitCode> {
    if arguments.list {
        for Experiment { name, goals, what, is_quick, .. } in ALL {
            let quick = if *is_quick { " [quick]" } else { "" };
            writeln!(out, "{name:<16} {goals:<22} {what}{quick}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let unknown: Vec<&str> = arguments
        .names
        .iter()
        .map(String::as_str)
        .filter(|name| !ALL.iter().any(|it| it.name == *name))
        .collect();
    if !unknown.is_empty() {
        writeln!(out, "there is no {}; --list says what there is", unknown.join(", no "))?;
        return Ok(ExitCode::from(2));
    }
    let length = if arguments.quick { Length::Quick } else { Length::Full };
    let is_wanted = |it: &&Experiment| match arguments.names.as_slice() {
        [] => it.is_quick || !arguments.quick,
        names => names.iter().any(|name| it.name == name),
    };
    let wanted: Vec<&Experiment> = ALL.iter().filter(is_wanted).collect();
    let mut report = Report::default();
    for (number, experiment) in wanted.iter().enumerate() {
        let Experiment { name, what, .. } = experiment;
        let load = load_average();
        writeln!(out, "\n{}/{} {name}: {what} (load {load:.1})", number + 1, wanted.len())?;
        out.flush()?;
        experiment.run(&mut report, length);
    }
    writeln!(out, "\n{report}")?;
    let is_bad =
        report.laws_broken() > 0 || (length == Length::Full && report.figures_missed() > 0);
    Ok(ExitCode::from(u8::from(is_bad)))
}
