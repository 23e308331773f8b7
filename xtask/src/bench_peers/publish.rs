//! Writes the figures down: a table for people, JSON for programs.

use super::contest::Setting;
use super::outcome::Outcome;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

/// The part of the document that belongs to this task stands between these two lines.
const BEGIN: &str = "<!-- bench-peers: begin; written by `cargo xtask bench-peers` -->";
const END: &str = "<!-- bench-peers: end -->";

/// Above this the generator may have been what was slow; CPU per request is still right.
const GENERATOR_BUSY_PERCENT: f64 = 95.0;

/// Below this the machine had next to nothing else to do.
const LOAD_QUIET_MAX: f64 = 0.5;

pub(super) fn markdown(setting: &Setting, outcomes: &[Outcome]) -> String {
    let mut text = format!("## Larder beside memcached\n\n{setting}.\n\n");
    text.push_str(
        "CPU is user and system time of the server process per request, in µs; figures are medians \
         (min–max), ratios are taken within each round. Larder runs with authentication, tenancy and \
         statistics; its generator checked every value.\n\n",
    );
    if setting.is_quick {
        text.push_str("A quick run: a first look, not a result to quote.\n\n");
    }
    if setting.load_before > LOAD_QUIET_MAX {
        let load = setting.load_before;
        writeln!(text, "The machine had other work (load average {load:.0} before the run).\n")
            .expect("a string takes all that is written");
    }
    text.push_str("| id | measure | Larder | peer | ratio | target | reached |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for outcome in outcomes {
        let unit = if outcome.unit == "µs of CPU" { "" } else { outcome.unit };
        let figure = |spread: super::outcome::Spread| format!("{} {unit}", spread.text());
        let cells = [
            outcome.id.to_owned(),
            mark(outcome),
            figure(outcome.ours).trim().to_owned(),
            outcome.theirs.map_or("–".to_owned(), |spread| figure(spread).trim().to_owned()),
            outcome.ratio.map_or("–".to_owned(), super::outcome::Spread::text),
            outcome.target.to_string(),
            if outcome.is_reached { "yes" } else { "**no**" }.to_owned(),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).expect("a string takes all that is written");
    }
    text.push_str(
        "\nP5 compares with our own text dialect. * The generator was busy above 95 %: the server \
         could have done more per second.\n",
    );
    text
}

fn mark(outcome: &Outcome) -> String {
    let is_busy = outcome.generator_percent() > GENERATOR_BUSY_PERCENT;
    format!("{}{}", outcome.what, if is_busy { " *" } else { "" })
}

pub(super) fn json(setting: &Setting, outcomes: &[Outcome]) -> String {
    let whole = serde_json::json!({ "setting": setting, "rows": outcomes });
    format!("{whole:#}\n")
}

/// Puts the text between the markers of the file, or at its end with new ones.
pub(super) fn replace_part(path: &Path, text: &str) -> io::Result<()> {
    let old = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "# Benchmarks\n".to_owned(),
        other => other?,
    };
    fs::write(path, with_part(&old, text))
}

fn with_part(old: &str, text: &str) -> String {
    let part = format!("{BEGIN}\n\n{text}\n{END}");
    match (old.find(BEGIN), old.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{part}{}", &old[..begin], &old[end + END.len()..])
        }
        _ => format!("{}\n\n{part}\n", old.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_the_markers_changes() {
        let first = with_part("# Benchmarks\n\nBefore.\n", "one");
        let all = format!("{first}\nAfter.\n");
        let second = with_part(&all, "two");
        assert!(second.starts_with("# Benchmarks\n\nBefore.\n\n<!--"), "{second}");
        assert!(second.ends_with("-->\n\nAfter.\n"), "{second}");
        assert!(second.contains("two") && !second.contains("one"), "{second}");
        assert_eq!(with_part(&second, "two"), second, "twice changes nothing");
    }
}
