//! Writes the figures down: a table for people, JSON for programs.

use super::chart::{grouped, svg};
use super::contest::Setting;
use super::curves::Curve;
use super::outcome::{CPU, Outcome, Spread};
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

pub(super) fn markdown(
    setting: &Setting,
    outcomes: &[Outcome],
    curves: &[Curve],
    failures: &[String],
) -> String {
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
        put(
            &mut text,
            &format!("The machine had other work (load average {load:.0} before the run).\n"),
        );
    }
    let mut targets: Vec<&Outcome> =
        outcomes.iter().filter(|outcome| outcome.target.is_some()).collect();
    targets.sort_by_key(|outcome| outcome.id[1..].parse::<u32>().unwrap_or(u32::MAX));
    put(&mut text, "| id | measure | Larder | peer | ratio | target | reached |");
    put(&mut text, "|---|---|---|---|---|---|---|");
    for outcome in targets {
        let target = outcome.target.map(|target| target.to_string()).unwrap_or_default();
        let verdict = if outcome.is_reached() == Some(true) { "yes" } else { "**no**" };
        put(&mut text, &format!("| {} | {} | {target} | {verdict} |", outcome.id, cells(outcome)));
    }
    text.push_str(NOTES);
    if !failures.is_empty() {
        text.push_str("\nNot measured:\n\n");
        // A report's own lines would end the list.
        let first = |failure: &String| failure.lines().next().unwrap_or_default().to_owned();
        failures.iter().for_each(|failure| put(&mut text, &format!("* {}", first(failure))));
    }
    let mut widths = outcomes.iter().filter(|outcome| outcome.target.is_none()).peekable();
    if widths.peek().is_some() {
        text.push_str("\n### Other loads\n\nNo target was set for these.\n\n");
        put(&mut text, "| measure | Larder | memcached | ratio |");
        put(&mut text, "|---|---|---|---|");
        widths.for_each(|outcome| put(&mut text, &format!("| {} |", cells(outcome))));
    }
    if !curves.is_empty() {
        text.push_str("\n### As there is more of it\n");
    }
    for curve in curves {
        let Curve { name, title, along, .. } = curve;
        put(&mut text, &format!("\n![µs of CPU per request: {title}](images/{name}.svg)\n"));
        let at: Vec<String> = (curve.ours.points.iter()).map(|point| grouped(point.at)).collect();
        put(&mut text, &format!("| {along} | {} |", at.join(" | ")));
        put(&mut text, &format!("|---|{}", "---|".repeat(at.len())));
        for series in curve.series() {
            let costs: Vec<String> = series.points.iter().map(|point| point.cost.text()).collect();
            put(&mut text, &format!("| {} | {} |", series.who, costs.join(" | ")));
        }
    }
    text
}

const NOTES: &str = "\nThe peer of P5 is our own text dialect, that of P12 ourselves with one cache. * The generator was busy \
above 95 %: the server could have done more per second. P18 is measured by \
`cargo xtask bench-control` (below), the scan of P20 by `cargo bench -p testbed -- memory` \
(`docs/benchmarks-store.md`); items do not move with their slots yet.\n";

/// What was measured, our figure, theirs, and the ratio.
fn cells(outcome: &Outcome) -> String {
    let unit = if outcome.unit == CPU { "" } else { outcome.unit };
    let figure = |spread: Spread| format!("{} {unit}", spread.text()).trim().to_owned();
    let none = || "–".to_owned();
    [
        mark(outcome),
        figure(outcome.ours),
        outcome.theirs.map_or_else(none, figure),
        outcome.ratio.map_or_else(none, Spread::text),
    ]
    .join(" | ")
}

fn put(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes all that is written");
}

fn mark(outcome: &Outcome) -> String {
    let is_busy = outcome.generator_percent() > GENERATOR_BUSY_PERCENT;
    format!("{}{}", outcome.what, if is_busy { " *" } else { "" })
}

pub(super) fn json(setting: &Setting, outcomes: &[Outcome], curves: &[Curve]) -> String {
    let whole = serde_json::json!({ "setting": setting, "rows": outcomes, "curves": curves });
    format!("{whole:#}\n")
}

/// Draws the curves into the folder `images` beside the document.
pub(super) fn draw(document: &Path, curves: &[Curve]) -> io::Result<()> {
    let images = document.parent().unwrap_or(Path::new(".")).join("images");
    fs::create_dir_all(&images)?;
    curves
        .iter()
        .try_for_each(|curve| fs::write(images.join(curve.name).with_extension("svg"), svg(curve)))
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
