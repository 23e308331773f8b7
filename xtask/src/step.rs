//! Steps with a heading, a time and a verdict; and at the end how many tests passed.

#![expect(clippy::print_stdout, reason = "headings and verdicts are what a developer reads here")]

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::root;

/// One thing to do.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) act: Box<dyn FnOnce() -> Outcome>,
}

impl Step {
    pub(crate) fn new(name: &str, act: impl FnOnce() -> Outcome + 'static) -> Self {
        Step { name: name.to_owned(), act: Box::new(act) }
    }
}

/// What came of a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Done, and these tests ran.
    Tested(Tests),
    /// Not done, and that is no failure: something optional is not installed.
    Skipped(String),
    Failed(String),
    /// Some tests failed, or the runner did.
    TestsFailed(Tests, String),
}

/// How many tests ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tests {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tests {
    fn add(&mut self, more: Tests) {
        self.passed += more.passed;
        self.failed += more.failed;
    }
}

/// Runs all steps, also after one that failed, so that one run tells everything.
pub(crate) fn run(steps: Vec<Step>) -> ExitCode {
    let mut summary = Vec::new();
    let mut tests = None;
    let mut failed = false;
    for step in steps {
        println!("\n==> {}", step.name);
        let start = Instant::now();
        let outcome = (step.act)();
        if let Outcome::Tested(more) | Outcome::TestsFailed(more, _) = &outcome {
            tests.get_or_insert_with(Tests::default).add(*more);
        }
        failed |= matches!(outcome, Outcome::Failed(_) | Outcome::TestsFailed(..));
        let line = verdict(&step.name, start.elapsed(), &outcome);
        println!("{line}");
        summary.push(line);
    }
    println!("\n==> summary\n{}", summary.join("\n"));
    if let Some(Tests { passed, failed }) = tests {
        println!("{passed} passed, {failed} failed");
    }
    ExitCode::from(u8::from(failed))
}

fn verdict(name: &str, took: Duration, outcome: &Outcome) -> String {
    let (word, more) = match outcome {
        Outcome::Done => ("ok", String::new()),
        Outcome::Tested(tests) => ("ok", format!(": {} tests", tests.passed)),
        Outcome::Skipped(why) => ("skipped", format!(": {why}")),
        Outcome::Failed(why) | Outcome::TestsFailed(_, why) => ("FAILED", format!(": {why}")),
    };
    format!("{word:>7} {name} in {:.1} s{more}", took.as_secs_f64())
}

/// A command in the workspace, with nothing to read from.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Whether a program is there and answers.
pub(crate) fn is_there(program: &str, arguments: &[&str]) -> bool {
    command(program, arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command whose output goes to the developer as it comes.
pub(crate) fn carry_out(mut command: Command) -> Outcome {
    println!("    {}", written(&command));
    match command.status() {
        Ok(status) if status.success() => Outcome::Done,
        Ok(status) => Outcome::Failed(format!("`{}` ended with {status}", written(&command))),
        Err(error) => Outcome::Failed(format!("could not start `{}`: {error}", written(&command))),
    }
}

/// Runs a test runner, passing its output on and counting its tests.
pub(crate) fn count_tests(command: &mut Command) -> Outcome {
    println!("    {}", written(command));
    count_into(command, io::stdout(), io::stderr())
}

fn count_into(
    command: &mut Command,
    to_out: impl io::Write + Send,
    to_err: impl io::Write,
) -> Outcome {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            return Outcome::Failed(format!("could not start `{}`: {error}", written(command)));
        }
    };
    let out = child.stdout.take().expect("it is piped");
    let err = child.stderr.take().expect("it is piped");
    let tests = std::thread::scope(|scope| {
        let out = scope.spawn(|| pass_on(out, to_out));
        let mut tests = pass_on(err, to_err);
        tests.add(out.join().expect("passing lines on does not panic"));
        tests
    });
    match child.wait() {
        Ok(status) if status.success() => Outcome::Tested(tests),
        Ok(status) => {
            let why = format!("{} tests failed; the runner ended with {status}", tests.failed);
            Outcome::TestsFailed(tests, why)
        }
        Err(error) => Outcome::TestsFailed(tests, error.to_string()),
    }
}

/// Passes lines on as they come and counts the tests they tell of. A line that cannot be read ends
/// it, as the end does; one that cannot be written is counted all the same.
fn pass_on(from: impl Read, mut to: impl io::Write) -> Tests {
    let mut tests = Tests::default();
    let mut line = Vec::new();
    let mut from = BufReader::new(from);
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read != 0) {
        _ = to.write_all(&line);
        if let Some(more) = tests_in(&String::from_utf8_lossy(&line)) {
            tests.add(more);
        }
        line.clear();
    }
    tests
}

/// Reads the summary line of `cargo test` or of nextest.
fn tests_in(line: &str) -> Option<Tests> {
    // nextest repeats what a failed test said, indented; and that has a result of its own.
    let is_summary = line.starts_with("test result:")
        || (line.trim_start().starts_with("Summary [") && line.contains(" run: "));
    is_summary.then(|| Tests {
        passed: number_before("passed", line),
        failed: number_before("failed", line) + number_before("timed", line),
    })
}

/// The number before a word: 3 for "failed" in "5 passed, 3 failed".
fn number_before(word: &str, line: &str) -> u64 {
    let words: Vec<_> = line.split([' ', ',', ';', '(']).filter(|word| !word.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// A command as one would type it.
fn written(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Tests, command, count_into, tests_in};

    #[test]
    fn the_summary_of_cargo_test_is_read() {
        check(
            "test result: ok. 42 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.01s",
            Some((42, 0)),
        );
        check("test result: FAILED. 3 passed; 2 failed; 0 ignored", Some((3, 2)));
    }

    #[test]
    fn the_summary_of_nextest_is_read() {
        check("     Summary [   0.060s] 45 tests run: 45 passed, 0 skipped", Some((45, 0)));
        check(
            "     Summary [  61.060s] 9 tests run: 5 passed (1 slow), 3 failed, 1 timed out, 0 \
             skipped",
            Some((5, 4)),
        );
    }

    #[test]
    fn other_lines_are_no_summary() {
        check("test passed ... ok", None);
        check("5 passed, 3 failed", None);
        check("    test result: FAILED. 0 passed; 1 failed; 0 ignored", None);
    }

    #[test]
    fn a_runner_is_counted_on_both_its_outputs() {
        let script = "echo 'test result: ok. 2 passed; 0 failed;'; \
                      echo 'test result: FAILED. 1 passed; 4 failed;' >&2; exit 101";
        // Not to our own output, where whoever runs this test would count them as well.
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let outcome = count_into(&mut command("sh", &["-c", script]), &mut out, &mut err);
        let Outcome::TestsFailed(tests, why) = outcome else { panic!("{outcome:?}") };
        assert_eq!(tests, Tests { passed: 3, failed: 4 });
        assert!(why.contains("101"), "{why}");
        assert_eq!(out, b"test result: ok. 2 passed; 0 failed;\n");
        assert_eq!(err, b"test result: FAILED. 1 passed; 4 failed;\n");
    }

    #[track_caller]
    fn check(line: &str, expected: Option<(u64, u64)>) {
        let expected = expected.map(|(passed, failed)| Tests { passed, failed });
        assert_eq!(tests_in(line), expected, "{line}");
    }
}
