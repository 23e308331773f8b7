//! `larder simulate`: the experiments that show why slots are placed as they are.
//!
//! An experiment is a function from its arguments to an [`Outcome`]: a text that explains, rows for a
//! spreadsheet, a document for programs, and a picture. Only [`output`] writes.

mod maglev;
mod output;
mod plot;
mod ring;
mod weights;

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;

use cluster::member::InvalidMembers;
use indicatif::{ProgressBar, ProgressStyle};

/// Show by experiment how evenly keys are shared among back-ends, and how many move.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder simulate ring                             the skew of a hash ring, as it was published
  larder simulate ring --points 1,10,1000
  larder simulate maglev --png maglev.png          what Maglev does better, with a picture
  larder simulate weights --weights 4,4,16 --csv shares.csv")]
pub(crate) struct SimulateArgs {
    #[command(subcommand)]
    experiment: Experiment,
}

#[derive(Debug, clap::Subcommand)]
enum Experiment {
    /// How unevenly a hash ring shares keys, with one and with many points per back-end
    Ring(ring::RingArgs),
    /// How evenly Maglev shares them, and how few move when a back-end joins
    Maglev(maglev::MaglevArgs),
    /// How exactly shares follow the memory of back-ends of different sizes
    Weights(weights::WeightsArgs),
}

/// What every experiment can be told.
#[derive(Debug, clap::Args)]
struct Common {
    /// How often to repeat it, each time with back-ends of other names
    #[arg(long, value_name = "N", default_value = "100", value_parser = rounds)]
    rounds: NonZeroU32,

    /// Where chance begins; the same seed gives the same figures
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Write every single figure to this file
    #[arg(long, value_name = "PATH")]
    csv: Option<PathBuf>,

    /// Write the picture to this file as SVG
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,

    /// Write the picture to this file as PNG
    #[arg(long, value_name = "PATH")]
    png: Option<PathBuf>,

    /// Print the figures as JSON, without explanation
    #[arg(long)]
    json: bool,
}

/// Enough for any figure here to stand still in its third digit, and every share of every round is
/// kept until the end.
const ROUNDS_MAX: u32 = 100_000;

fn rounds(text: &str) -> Result<NonZeroU32, String> {
    let rounds = text.parse().ok().filter(|rounds: &NonZeroU32| rounds.get() <= ROUNDS_MAX);
    rounds.ok_or_else(|| format!("it takes a number from 1 to {ROUNDS_MAX}"))
}

/// What an experiment found, in every form it can be had.
struct Outcome {
    /// For people: what was done, what came out, why it matters.
    text: String,
    csv: String,
    json: serde_json::Value,
    picture: plot::Picture,
}

pub(crate) fn run(args: &SimulateArgs) -> Result<(), SimulateError> {
    let (outcome, common) = match &args.experiment {
        Experiment::Ring(args) => (ring::run(args)?, &args.common),
        Experiment::Maglev(args) => (maglev::run(args)?, &args.common),
        Experiment::Weights(args) => (weights::run(args)?, &args.common),
    };
    output::write(&outcome, common)
}

/// Shows on a terminal how far an experiment of so many rounds is; elsewhere, nothing.
fn progress(rounds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} rounds, {eta} left");
    ProgressBar::new(rounds).with_style(style.expect("a template that indicatif knows"))
}

fn percent(share: f64) -> f64 {
    share * 100.0
}

/// Why an experiment has no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SimulateError {
    #[error("there is no such cluster")]
    Members(#[from] InvalidMembers),
    #[error("{count} rings are more than the {} that fit one picture", ring::RINGS_MAX)]
    TooManyRings { count: usize },
    #[error("could not write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("could not print the outcome")]
    Print(#[source] io::Error),
    #[error("could not draw the picture: {reason}")]
    Draw { reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    #[test]
    fn an_experiment_writes_every_form_it_is_asked_for() {
        let dir = tempfile::tempdir().expect("a directory for tests");
        for experiment in ["ring", "maglev", "weights"] {
            let path = |form: &str| dir.path().join(format!("{experiment}.{form}"));
            let mut line = vec!["simulate".into(), experiment.into(), "--rounds=2".into()];
            line.push("--json".into());
            for form in ["csv", "svg", "png"] {
                line.push(format!("--{form}={}", path(form).display()));
            }
            run(&Line::parse_from(line).args).expect("a small experiment");
            let read = |form| std::fs::read(path(form)).expect("the file just written");
            assert!(read("csv").starts_with(b"figure,scheme,"));
            assert!(read("svg").windows(5).any(|five| five == b"<rect"));
            assert!(read("png").starts_with(b"\x89PNG"));
        }
    }

    #[test]
    fn what_no_cluster_could_be_is_refused() {
        for line in [
            "simulate ring --backends 0",
            "simulate ring --backends 656",
            "simulate ring --points 0",
            "simulate ring --points 1001",
            "simulate ring --rounds 0",
            "simulate ring --rounds 100001",
            "simulate weights --weights 1,x",
        ] {
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        let refused = |line: &str| run(&Line::parse_from(line.split(' ')).args);
        let weightless = refused("simulate weights --weights 0,0");
        assert!(matches!(weightless, Err(SimulateError::Members(_))));
        let many = refused("simulate ring --points 1,2,3,4,5,6,7,8,9");
        assert!(matches!(many, Err(SimulateError::TooManyRings { count: 9 })));
    }
}
