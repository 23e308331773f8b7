//! What CI runs, in the order in which a mistake is found soonest.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::metadata::metadata;
use crate::step::{Outcome, Step, carry_out, command, count_tests, is_there};
use crate::{instructions, root, tidy as checks};

pub(crate) fn all() -> Vec<Step> {
    let mut steps = vec![fmt(), tidy(), deny(), clippy()];
    steps.extend(test());
    steps
}

pub(crate) fn test() -> Vec<Step> {
    let mut steps = vec![
        install(),
        build(),
        tests(),
        interleavings(),
        simulate(),
        faults(),
        instructions(false),
    ];
    // `cargo test` runs the examples of the documentation as well; nextest cannot.
    if has_nextest() {
        steps.push(examples());
    }
    steps
}

fn fmt() -> Step {
    Step::new("fmt", || {
        if !is_there("cargo", &["fmt", "--version"]) {
            return Outcome::Skipped("rustfmt is not installed".to_owned());
        }
        carry_out(command("cargo", &["fmt", "--all", "--check"]))
    })
}

fn deny() -> Step {
    Step::new("deny", || {
        if !is_there("cargo", &["deny", "--version"]) {
            return Outcome::Skipped("cargo-deny is not installed".to_owned());
        }
        carry_out(command("cargo", &words("deny --locked check bans licenses sources")))
    })
}

fn clippy() -> Step {
    Step::new("clippy", || {
        if !is_there("cargo", &["clippy", "--version"]) {
            return Outcome::Skipped("clippy is not installed".to_owned());
        }
        let arguments =
            "clippy --workspace --all-targets --locked --quiet --keep-going -- -D warnings";
        carry_out(command("cargo", &words(arguments)))
    })
}

pub(crate) fn tidy() -> Step {
    Step::new("tidy", || match checks::problems(&root()) {
        problems if problems.is_empty() => Outcome::Done,
        problems => {
            let lines: Vec<_> = problems.iter().map(|problem| format!("    {problem}")).collect();
            Outcome::Failed(format!("{} problems\n{}", problems.len(), lines.join("\n")))
        }
    })
}

/// How often installing is tried: a mirror or a network that fails three times is down.
const INSTALL_TRIES: u32 = 3;
/// Waited after the first failure, and twice as long after each further one.
const INSTALL_WAIT: Duration = Duration::from_secs(10);

/// Installs the clients that the tests drive. Quick when all of it is there.
fn install() -> Step {
    Step::new("install what the tests need", || {
        let mut outcome = Outcome::Done;
        for tried in 0..INSTALL_TRIES {
            if 0 < tried {
                sleep(INSTALL_WAIT * 2_u32.pow(tried - 1));
            }
            outcome = carry_out(command("bash", &["clients/install.sh"]));
            if outcome == Outcome::Done {
                break;
            }
        }
        outcome
    })
}

/// Builds all at once, so that no test has to build the `larder` that it starts, with other features
/// and against its own deadline.
fn build() -> Step {
    Step::new("build", || {
        carry_out(command("cargo", &words("build --workspace --locked --bins --tests")))
    })
}

fn tests() -> Step {
    Step::new("test", || {
        let arguments = if has_nextest() {
            "nextest run --workspace --locked --no-fail-fast --color=never"
        } else {
            "test --workspace --locked --no-fail-fast"
        };
        let mut tests = command("cargo", &words(arguments));
        match built("larder") {
            // The testbed starts this one.
            Ok(path) => count_tests(tests.env("LARDER_BIN", path)),
            Err(why) => Outcome::Failed(why),
        }
    })
}

/// What the store's threads share, in thousands of orders. Apart from the rest, because there every
/// lock is exchanged for one that the test commands.
fn interleavings() -> Step {
    Step::new("test all orders of threads", || {
        let arguments = "test -p store --locked --features shuttle --test interleavings";
        count_tests(&mut command("cargo", &words(arguments)))
    })
}

/// A thousand clusters under faults. What was built with all the rest is run, because for one package
/// alone cargo would build much of it again.
fn simulate() -> Step {
    Step::new("simulate 1000 seeds", || match built("simulator") {
        Ok(path) => {
            let path = path.to_string_lossy().into_owned();
            carry_out(command(&path, &["--seeds", "1000"]))
        }
        Err(why) => Outcome::Failed(why),
    })
}

/// Faults of real processes that show something within seconds; laws only, for this machine is busy.
fn faults() -> Step {
    Step::new("faults", || match (built("faults"), built("larder")) {
        (Ok(path), Ok(larder)) => {
            let mut faults = command(&path.to_string_lossy(), &["--quick"]);
            faults.env("LARDER_BIN", larder);
            carry_out(faults)
        }
        (Err(why), _) | (_, Err(why)) => Outcome::Failed(why),
    })
}

/// Plays seeds as the developer says.
pub(crate) fn sim(arguments: &[&str]) -> Step {
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    Step::new("simulate", move || {
        let run = ["run", "--quiet", "--package", "simulator", "--"];
        let arguments = arguments.iter().map(String::as_str);
        let all: Vec<&str> = run.into_iter().chain(arguments).collect();
        carry_out(command("cargo", &all))
    })
}

/// A program that [`build`] has built.
fn built(name: &str) -> Result<PathBuf, String> {
    let metadata = metadata()?;
    let target = metadata["target_directory"].as_str().ok_or("cargo names no target directory")?;
    Ok(Path::new(target).join("debug").join(name))
}

/// With the `larder` that was built for the tests.
pub(crate) fn instructions(keep: bool) -> Step {
    instructions::check(
        || {
            let build = command("cargo", &words("build --quiet --locked --package larder"));
            let is_built = carry_out(build) == Outcome::Done;
            if is_built { built("larder") } else { Err("larder does not build".to_owned()) }
        },
        keep,
    )
}

fn examples() -> Step {
    Step::new("examples of the documentation", || {
        count_tests(&mut command("cargo", &words("test --workspace --locked --doc --no-fail-fast")))
    })
}

fn has_nextest() -> bool {
    is_there("cargo", &["nextest", "--version"])
}

fn words(arguments: &str) -> Vec<&str> {
    arguments.split_whitespace().collect()
}
