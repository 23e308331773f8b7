//! What experiments found: laws and figures beside their bars, printed as they come and as one table at
//! the end.

use std::fmt::{self, Display};
use std::time::Duration;

/// Everything that a run found.
#[derive(Debug, Default)]
pub struct Report {
    sections: Vec<Section>,
    is_silent: bool,
}

#[derive(Debug)]
struct Section {
    name: &'static str,
    /// Programs that wanted to run in the minute before it began.
    load: f64,
    took: Duration,
    verdict: Verdict,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    what: String,
    figure: String,
    bar: String,
    came_out: CameOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CameOut {
    /// A law that held.
    Kept,
    /// A law that did not.
    Broken,
    Reached,
    Missed,
    /// There is no bar.
    Told,
}

/// How an experiment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// This machine cannot do it, or the rest of it; why.
    Skipped(String),
    /// It could not be carried through: what it panicked with.
    Broke(String),
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// From, to.
    Within(f64, f64),
    /// Told for its own sake.
    None,
}

/// A figure with its unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amount(pub f64, pub &'static str);

impl Amount {
    pub fn ms(time: Duration) -> Amount {
        Amount(time.as_secs_f64() * 1e3, "ms")
    }

    pub fn s(time: Duration) -> Amount {
        Amount(time.as_secs_f64(), "s")
    }

    /// One figure as a multiple of another.
    pub fn times(time: Duration, of: Duration) -> Amount {
        Amount(time.as_secs_f64() / of.as_secs_f64().max(1e-9), "×")
    }

    pub fn percent(part: f64) -> Amount {
        Amount(part * 100.0, "%")
    }

    pub fn count(number: u64) -> Amount {
        Amount(number as f64, "")
    }
}

/// The middle one of figures of the same thing, and all of them in words: what a machine whose pace changes
/// by the minute shows of it.
pub fn middle(figures: impl Iterator<Item = f64>) -> (f64, String) {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    let all: Vec<String> = figures.iter().map(|&it| Amount(it, "").to_string()).collect();
    let middle = figures.get(figures.len() / 2).copied().unwrap_or_default();
    (middle, format!("middle of {}", all.join(", ")))
}

impl Report {
    /// One that prints nothing while it is made, for tests.
    pub fn silent() -> Report {
        Report { is_silent: true, ..Report::default() }
    }

    pub(super) fn begin(&mut self, name: &'static str, load: f64) {
        let took = Duration::ZERO;
        self.sections.push(Section { name, load, took, verdict: Verdict::Done, rows: Vec::new() });
    }

    pub(super) fn end(&mut self, verdict: Verdict, took: Duration) {
        match &verdict {
            Verdict::Done => (),
            Verdict::Skipped(why) => self.say(&format!("skipped: {why}")),
            Verdict::Broke(why) => self.say(&format!("BROKE: {why}")),
        }
        let section = self.section();
        (section.verdict, section.took) = (verdict, took);
        self.say(&format!("took {:.1} s", took.as_secs_f64()));
    }

    /// Something that must hold, however busy the machine is.
    pub fn law(&mut self, what: &str, figure: impl Display, holds: bool) {
        let came_out = if holds { CameOut::Kept } else { CameOut::Broken };
        self.push(what, figure.to_string(), "law".to_owned(), came_out);
    }

    /// Something that must never be.
    pub fn never(&mut self, what: &str, count: u64) {
        self.law(what, count, count == 0);
    }

    /// Something measured.
    pub fn figure(&mut self, what: &str, amount: Amount, bar: Bar) {
        let Amount(value, unit) = amount;
        let (bar, came_out) = match bar {
            Bar::AtMost(most) => (format!("≤ {}", Amount(most, unit)), reached(value <= most)),
            Bar::AtLeast(least) => (format!("≥ {}", Amount(least, unit)), reached(least <= value)),
            Bar::Within(from, to) => (
                format!("{} to {}", Amount(from, ""), Amount(to, unit)),
                reached((from..=to).contains(&value)),
            ),
            Bar::None => (String::new(), CameOut::Told),
        };
        self.push(what, amount.to_string(), bar, came_out);
    }

    /// What somebody said.
    pub fn words(&mut self, what: &str, words: &str) {
        // A column's end would be taken for one of the table.
        let words = words.trim_end().replace('|', "/");
        self.push(what, words, String::new(), CameOut::Told);
    }

    /// A word on what is being done.
    pub fn say(&self, words: &str) {
        if !self.is_silent {
            #[expect(clippy::print_stdout, reason = "progress is for whoever waits for it")]
            {
                println!("    {words}");
            }
        }
    }

    pub fn laws_broken(&self) -> usize {
        let broken = self.rows().filter(|row| row.came_out == CameOut::Broken).count();
        let is_broken = |it: &&Section| matches!(it.verdict, Verdict::Broke(_));
        broken + self.sections.iter().filter(is_broken).count()
    }

    pub fn figures_missed(&self) -> usize {
        self.rows().filter(|row| row.came_out == CameOut::Missed).count()
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sections.iter().flat_map(|section| &section.rows)
    }

    fn push(&mut self, what: &str, figure: String, bar: String, came_out: CameOut) {
        let row = Row { what: what.to_owned(), figure, bar, came_out };
        self.say(&row.to_string());
        self.section().rows.push(row);
    }

    /// The one that is being made. Tests call parts of experiments without a beginning.
    fn section(&mut self) -> &mut Section {
        if self.sections.is_empty() {
            self.begin("", 0.0);
        }
        self.sections.last_mut().expect("it was made just above")
    }
}

fn reached(is_reached: bool) -> CameOut {
    if is_reached { CameOut::Reached } else { CameOut::Missed }
}

/// Few digits: what follows them is the machine's mood.
impl Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Amount(value, unit) = *self;
        let space = if unit.is_empty() { "" } else { " " };
        if value.fract() == 0.0 || value.abs() >= 1_000.0 {
            write!(f, "{value:.0}{space}{unit}")
        } else if value.abs() >= 10.0 {
            write!(f, "{value:.1}{space}{unit}")
        } else {
            write!(f, "{value:.2}{space}{unit}")
        }
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { what, figure, bar, came_out } = self;
        let bar = if bar.is_empty() { String::new() } else { format!(" ({bar})") };
        write!(f, "{:>7}  {what}: {figure}{bar}", came_out.word())
    }
}

impl CameOut {
    fn word(self) -> &'static str {
        match self {
            CameOut::Kept => "kept",
            CameOut::Broken => "BROKEN",
            CameOut::Reached => "reached",
            CameOut::Missed => "missed",
            CameOut::Told => "",
        }
    }
}

/// A table in Markdown, for the terminal and for `docs/faults.md`.
impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| experiment | what | figure | bar | | load before |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for Section { name, load, took, verdict, rows } in &self.sections {
            for Row { what, figure, bar, came_out } in rows {
                let word = came_out.word();
                writeln!(f, "| {name} | {what} | {figure} | {bar} | {word} | {load:.1} |")?;
            }
            match verdict {
                Verdict::Done => (),
                Verdict::Skipped(why) => {
                    writeln!(f, "| {name} | not done here: {why} | | | skipped | {load:.1} |")?;
                }
                Verdict::Broke(why) => {
                    let why = why.lines().next().unwrap_or_default();
                    let took = took.as_secs();
                    writeln!(f, "| {name} | {why} | after {took} s | law | BROKEN | {load:.1} |")?;
                }
            }
        }
        let count = |wanted| self.rows().filter(|row| row.came_out == wanted).count();
        let skipped = |it: &&Section| matches!(it.verdict, Verdict::Skipped(_));
        writeln!(
            f,
            "\n{} laws kept, {} broken; {} figures reached, {} missed; {} experiments not done here",
            count(CameOut::Kept),
            self.laws_broken(),
            count(CameOut::Reached),
            self.figures_missed(),
            self.sections.iter().filter(skipped).count()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, Bar, Report, Verdict, middle};
    use std::time::Duration;

    #[test]
    fn the_middle_of_figures_is_told_with_all_of_them() {
        let all = [3.0, 1.0, 120.25].into_iter();
        assert_eq!(middle(all), (3.0, "middle of 1, 3, 120.2".to_owned()));
    }

    #[test]
    fn what_is_broken_missed_and_skipped_is_counted_apart() {
        let mut report = Report::silent();
        report.begin("one", 0.5);
        report.never("stale reads", 0);
        report.never("wrong values", 2);
        report.figure("p99", Amount::ms(Duration::from_micros(1_500)), Bar::AtMost(2.0));
        report.figure("rate", Amount(12_345.6, "per s"), Bar::AtLeast(20_000.0));
        report.figure("share", Amount::percent(0.25), Bar::Within(20.0, 30.0));
        report.figure("memory", Amount(17.25, "MiB"), Bar::None);
        report.words("failed after 2 ms", "SERVER_ERROR one | other\r\n");
        report.end(Verdict::Done, Duration::from_secs(1));
        report.begin("two", 0.0);
        report.end(Verdict::Skipped("no permission".to_owned()), Duration::ZERO);
        report.begin("three", 0.0);
        report.end(Verdict::Broke("it\nfell".to_owned()), Duration::from_secs(3));
        assert_eq!((report.laws_broken(), report.figures_missed()), (2, 1));
        let table = report.to_string();
        for line in [
            "| one | stale reads | 0 | law | kept | 0.5 |",
            "| one | wrong values | 2 | law | BROKEN | 0.5 |",
            "| one | p99 | 1.50 ms | ≤ 2 ms | reached | 0.5 |",
            "| one | rate | 12346 per s | ≥ 20000 per s | missed | 0.5 |",
            "| one | share | 25 % | 20 to 30 % | reached | 0.5 |",
            "| one | memory | 17.2 MiB |  |  | 0.5 |",
            "| one | failed after 2 ms | SERVER_ERROR one / other |  |  | 0.5 |",
            "| two | not done here: no permission | | | skipped | 0.0 |",
            "| three | it | after 3 s | law | BROKEN | 0.0 |",
            "1 laws kept, 2 broken; 2 figures reached, 1 missed; 1 experiments not done here",
        ] {
            assert!(table.contains(line), "{line:?} is not in:\n{table}");
        }
    }
}
