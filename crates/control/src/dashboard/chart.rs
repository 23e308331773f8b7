//! A line chart as HTML: an SVG that stretches to any width, with its labels as text beside it, what the
//! lines say in a table, and the values for whoever points at it.
//!
//! Pure: values in, text out. No style in the page: colours are classes of the style sheet.

use std::fmt::Write as _;

use super::units;

/// The plot's own units; the page stretches them.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 160.0;
/// Points that a line has at most: what a wide screen can show.
pub(super) const POINTS_MAX: usize = 240;

/// How values are said, and what the axis does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// 0 to 1, on an axis of 0 to 100 %.
    Fraction,
    PerSecond,
    Bytes,
    Count,
    /// Nanoseconds, on a logarithmic axis.
    Latency,
}

impl Unit {
    fn say(self, value: f64) -> String {
        let value = value.max(0.0);
        match self {
            Unit::Fraction => format!("{} %", units::three_digits(value * 100.0)),
            Unit::PerSecond => format!("{}/s", units::three_digits_or_words(value)),
            Unit::Bytes => units::bytes(value as u64),
            Unit::Count => units::three_digits_or_words(value),
            Unit::Latency if value < 1e6 => format!("{} µs", units::three_digits(value / 1e3)),
            Unit::Latency if value < 1e9 => format!("{} ms", units::three_digits(value / 1e6)),
            Unit::Latency => format!("{} s", units::three_digits(value / 1e9)),
        }
    }
}

/// One line.
pub(super) struct Line {
    pub(super) name: String,
    /// Where nothing was measured the line has a gap.
    pub(super) values: Vec<Option<f64>>,
}

/// One chart with all it shows.
pub(super) struct Chart {
    /// Distinguishes it on its page.
    pub(super) id: String,
    pub(super) title: String,
    pub(super) unit: Unit,
    /// At most three, for there are three colours.
    pub(super) lines: Vec<Line>,
    /// What each point is called; as many as the lines have.
    pub(super) times: Vec<String>,
    /// The axis reaches at least this far up.
    pub(super) at_least: f64,
}

/// A line in the style sheet's colours.
struct Drawn {
    class: &'static str,
    name: String,
    path: String,
    now: String,
    least: String,
    mean: String,
    most: String,
}

#[derive(askama::Template)]
#[template(path = "chart.html")]
pub(super) struct ChartView {
    id: String,
    title: String,
    lines: Vec<Drawn>,
    /// Nothing was measured at all.
    is_empty: bool,
    top: String,
    middle: String,
    bottom: String,
    first: String,
    last: String,
    /// For the script: `a|b|c`.
    times: String,
    /// For the script: values of a line between `;`, lines between `|`.
    texts: String,
}

const CLASSES: [&str; 3] = ["one", "two", "three"];

impl Chart {
    pub(super) fn view(&self) -> ChartView {
        let axis = Axis::new(self);
        let lines = self.lines.iter().zip(CLASSES);
        let texts = self.lines.iter().map(|line| {
            let say = |value: &Option<f64>| {
                let value = value.map_or("–".to_owned(), |value| self.unit.say(value));
                if self.lines.len() > 1 { format!("{} {value}", line.name) } else { value }
            };
            line.values.iter().map(say).collect::<Vec<_>>().join(";")
        });
        ChartView {
            id: self.id.clone(),
            title: self.title.clone(),
            lines: lines.map(|(line, class)| self.draw(line, class, &axis)).collect(),
            is_empty: self.lines.iter().all(|line| line.values.iter().all(Option::is_none)),
            top: self.unit.say(axis.top),
            middle: self.unit.say(axis.value(0.5)),
            bottom: self.unit.say(axis.bottom),
            first: self.times.first().cloned().unwrap_or_default(),
            last: self.times.last().cloned().unwrap_or_default(),
            times: self.times.join("|"),
            texts: texts.collect::<Vec<_>>().join("|"),
        }
    }

    fn draw(&self, line: &Line, class: &'static str, axis: &Axis) -> Drawn {
        let known: Vec<f64> = line.values.iter().copied().flatten().collect();
        let say = |value: Option<f64>| value.map_or("–".to_owned(), |it| self.unit.say(it));
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        Drawn {
            class,
            name: line.name.clone(),
            path: path(&line.values, axis),
            now: say(line.values.last().copied().flatten()),
            least: say(known.iter().copied().reduce(f64::min)),
            mean: say(Some(mean).filter(|_| !known.is_empty())),
            most: say(known.iter().copied().reduce(f64::max)),
        }
    }
}

/// Between which values the plot lies.
struct Axis {
    bottom: f64,
    top: f64,
    is_logarithmic: bool,
}

impl Axis {
    fn new(chart: &Chart) -> Self {
        let values = chart.lines.iter().flat_map(|line| line.values.iter().copied().flatten());
        let most = values.clone().fold(chart.at_least, f64::max);
        match chart.unit {
            Unit::Fraction => Axis { bottom: 0.0, top: 1.0, is_logarithmic: false },
            Unit::Latency => {
                let least = values.filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
                let (least, most) = if least <= most { (least, most) } else { (1e5, 1e6) };
                // Whole powers of ten, and two of them at least.
                let bottom = least.log10().floor();
                let top = most.log10().ceil().max(bottom + 1.0);
                let (bottom, top) = (10_f64.powf(bottom), 10_f64.powf(top));
                Axis { bottom, top, is_logarithmic: true }
            }
            Unit::PerSecond | Unit::Count | Unit::Bytes => {
                Axis { bottom: 0.0, top: round_up(most, chart.unit), is_logarithmic: false }
            }
        }
    }

    /// How high a value is, 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let part = if self.is_logarithmic {
            let value = value.max(self.bottom);
            (value / self.bottom).log10() / (self.top / self.bottom).log10()
        } else {
            (value - self.bottom) / (self.top - self.bottom)
        };
        part.clamp(0.0, 1.0)
    }

    /// The value at a height of 0 to 1.
    fn value(&self, part: f64) -> f64 {
        if self.is_logarithmic {
            self.bottom * (self.top / self.bottom).powf(part)
        } else {
            self.bottom + (self.top - self.bottom) * part
        }
    }
}

/// The next number that reads well, with a half that does, too.
fn round_up(most: f64, unit: Unit) -> f64 {
    if most <= 0.0 {
        return if unit == Unit::Bytes { 1024.0 } else { 1.0 };
    }
    let base = match unit {
        Unit::Bytes => {
            let power = (most.log2() / 10.0).floor();
            2_f64.powf(10.0 * power)
        }
        Unit::Fraction | Unit::PerSecond | Unit::Count | Unit::Latency => 1.0,
    };
    let scaled = most / base;
    let ten = 10_f64.powf(scaled.log10().floor());
    let steps = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    let fitting = steps.into_iter().find(|step| scaled <= step * ten);
    fitting.unwrap_or(10.0) * ten * base
}

fn path(values: &[Option<f64>], axis: &Axis) -> String {
    let across = WIDTH / values.len().saturating_sub(1).max(1) as f64;
    let mut path = String::new();
    let mut is_drawing = false;
    for (at, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_drawing = false;
            continue;
        };
        let (x, y) = (at as f64 * across, (1.0 - axis.part(*value)) * HEIGHT);
        let letter = if is_drawing { 'L' } else { 'M' };
        // A point between gaps would be no line; so long a one is a dot.
        let dot = if is_drawing { "" } else { "h0.1" };
        write!(path, "{letter}{x:.1} {y:.1}{dot}").expect("a String takes all");
        is_drawing = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use askama::Template as _;

    use super::*;

    fn chart(unit: Unit, values: &[Option<f64>]) -> Chart {
        let lines = vec![Line { name: "gets".to_owned(), values: values.to_vec() }];
        let times = (0..values.len()).map(|at| format!("12:0{at}")).collect();
        Chart { id: "x".to_owned(), title: "X".to_owned(), unit, lines, times, at_least: 0.0 }
    }

    #[test]
    fn axes_end_at_numbers_that_read_well() {
        for (unit, most, top) in [
            (Unit::PerSecond, 0.0, "1/s"),
            (Unit::PerSecond, 7.3, "8/s"),
            (Unit::PerSecond, 1_234.0, "2,000/s"),
            (Unit::PerSecond, 2_345_678.0, "3 million/s"),
            (Unit::Bytes, 26_214_400.0, "30 MiB"),
            (Unit::Bytes, 900.0 * 1024.0, "1000 KiB"),
            (Unit::Count, 41.0, "50"),
            (Unit::Fraction, 0.2, "100 %"),
            (Unit::Latency, 234_000.0, "1 ms"),
        ] {
            assert_eq!(chart(unit, &[Some(most)]).view().top, top, "{most}");
        }
    }

    #[test]
    fn a_logarithmic_axis_gives_each_power_of_ten_its_room() {
        let values = [Some(1e4), Some(1e5), Some(1e6), Some(1e7), None, Some(0.0)];
        let chart = chart(Unit::Latency, &values);
        let axis = Axis::new(&chart);
        let parts: Vec<f64> = values[..4].iter().flatten().map(|it| axis.part(*it)).collect();
        for pair in parts.windows(2) {
            assert!((pair[1] - pair[0] - 1.0 / 3.0).abs() < 1e-9, "{parts:?}");
        }
        assert_eq!(axis.part(0.0), 0.0);
        assert_eq!((chart.view().bottom.as_str(), chart.view().top.as_str()), ("10 µs", "10 ms"));
    }

    #[test]
    fn where_nothing_was_measured_the_line_has_a_gap() {
        let path = chart(Unit::Count, &[Some(1.0), None, Some(1.0), Some(0.0)]).view();
        assert_eq!(path.lines[0].path, "M0.0 0.0h0.1M400.0 0.0h0.1L600.0 160.0");
        assert_eq!(path.lines[0].mean, "0.667");
        assert_eq!(path.texts, "1;–;1;0");
    }

    #[test]
    fn nothing_at_all_is_said_in_words() {
        let view = chart(Unit::Fraction, &[None, None]).view();
        assert!(view.is_empty);
        let html = view.render().expect("it renders");
        assert!(html.contains("Nothing yet") && !html.contains("NaN"), "{html}");
        let none = Chart { lines: Vec::new(), ..chart(Unit::Bytes, &[]) }.view();
        assert!(none.render().expect("it renders").contains("Nothing yet"));
    }
}
