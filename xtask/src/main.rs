//! The one door to every developer task: `cargo xtask ci` runs what CI runs.

mod bench_peers;
mod ci;
mod fuzz;
mod instructions;
mod metadata;
mod miri;
mod step;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask <task>

  ci                     all that CI runs: fmt, clippy, tidy, test
  test                   install what the tests need, then run all tests
  tidy                   check what no compiler checks: arrows, documents, leftovers
  bench-peers [--quick]  measure Larder beside memcached; --help tells more
  instructions [--keep]  count the instructions of the hot paths; --keep accepts them
  miri                   run the store's tests under Miri, by both rules of references; needs Miri
  sanitize               run the store's tests under the address sanitizer
  kill-control […]       SIGKILL the control plane under load; --help tells more
  bench-control […]      how long a change takes to reach 70 nodes; --help tells more
  faults [--quick] […]   stop, hold up and kill parts of a cluster, and print what clients notice; --list
  sim [--seeds N] […]    play whole clusters under faults in one thread; --help tells more
  fuzz [--minutes N]     run every fuzz target for N minutes (1) each; needs nightly and cargo-fuzz
";

#[expect(clippy::print_stderr, reason = "a command line tool speaks to its user")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let steps = match words.as_slice() {
        ["ci"] => ci::all(),
        ["test"] => ci::test(),
        ["tidy"] => vec![ci::tidy()],
        ["instructions"] => vec![ci::instructions(false)],
        ["instructions", "--keep"] => vec![ci::instructions(true)],
        ["miri"] => miri::miri(),
        ["sanitize"] => vec![miri::sanitize()],
        ["bench-peers", rest @ ..] => {
            return bench_peers::run(rest.iter().map(|&word| word.to_owned()));
        }
        ["sim", rest @ ..] => vec![ci::sim(rest)],
        ["kill-control", rest @ ..] => vec![testbed("kill-control", &[], rest)],
        ["bench-control", rest @ ..] => vec![testbed("bench-control", &["--release"], rest)],
        ["faults", rest @ ..] => {
            // Figures are of the program as it is used.
            let has_figures = !rest.contains(&"--quick") && !rest.contains(&"--list");
            vec![testbed("faults", if has_figures { &["--release"] } else { &[] }, rest)]
        }
        ["fuzz", rest @ ..] => match fuzz::minutes(rest) {
            Ok(minutes) => fuzz::steps(minutes),
            Err(problem) => {
                eprintln!("{problem}\n\n{USAGE}");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    step::run(steps)
}

/// Runs one of the bench's own programs.
fn testbed(program: &'static str, how: &[&str], arguments: &[&str]) -> step::Step {
    let run = ["run", "--quiet", "--package", "testbed", "--bin", program];
    let words = [&run, how, &["--"], arguments].concat();
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    step::Step::new(program, move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        step::carry_out(step::command("cargo", &words))
    })
}

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
        .to_owned()
}
