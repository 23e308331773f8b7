//! Runs every fuzz target for a while.

use std::process::Stdio;

use crate::root;
use crate::step::{Outcome, Step, carry_out, command};

/// Reads `--minutes N`.
pub(crate) fn minutes(arguments: &[&str]) -> Result<u64, String> {
    match arguments {
        [] => Ok(1),
        ["--minutes", minutes] => match minutes.parse() {
            Ok(minutes @ 1..=MINUTES_MAX) => Ok(minutes),
            _ => Err(format!("--minutes must be from 1 to {MINUTES_MAX}, not {minutes:?}")),
        },
        other => Err(format!("unknown arguments: {}", other.join(" "))),
    }
}

/// A week: whoever wants more begins again.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// One step for each target of `fuzz/`, or one that says why there is none.
pub(crate) fn steps(minutes: u64) -> Vec<Step> {
    match targets() {
        Ok(targets) => targets.into_iter().map(|target| step(target, minutes)).collect(),
        Err(why) => vec![Step::new("fuzz", || Outcome::Failed(why))],
    }
}

fn targets() -> Result<Vec<String>, String> {
    let listed = command("cargo", &["+nightly", "fuzz", "list"])
        .current_dir(root().join("fuzz"))
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("could not start cargo: {error}"))?;
    if !listed.status.success() {
        return Err("needs the nightly toolchain and `cargo install cargo-fuzz`".to_owned());
    }
    Ok(String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect())
}

fn step(target: String, minutes: u64) -> Step {
    Step::new(&format!("fuzz {target}"), move || {
        let seconds = format!("-max_total_time={}", minutes * 60);
        let arguments = ["+nightly", "fuzz", "run", &target, "--", &seconds];
        let mut fuzz = command("cargo", &arguments);
        fuzz.current_dir(root().join("fuzz"));
        carry_out(fuzz)
    })
}

#[cfg(test)]
mod tests {
    use super::minutes;

    #[test]
    fn a_minute_each_unless_told_otherwise() {
        assert_eq!(minutes(&[]), Ok(1));
        assert_eq!(minutes(&["--minutes", "90"]), Ok(90));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in [&["--minutes", "0"][..], &["--minutes", "x"], &["--minutes"], &["5"]] {
            assert!(minutes(wrong).is_err(), "{wrong:?}");
        }
    }
}
