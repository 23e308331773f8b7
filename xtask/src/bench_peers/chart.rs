//! A curve as a picture, in SVG written by hand: two axes and a line for each server need no library.

use super::curves::{Curve, Series};
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Room for the numbers beside the axes, and for the words above and below.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 48.0;

/// Ours first. Told apart also by those who see no colours: one is dark, the other light.
const COLOURS: [&str; 2] = ["#1b4f8a", "#e08a2e"];

/// Lines across the picture, beside the axis itself.
const STEPS: u32 = 4;

/// The costs begin at 0, so that flat looks flat; the numbers along the other axis stand at equal
/// distances by their logarithm.
pub(super) fn svg(curve: &Curve) -> String {
    let points = || curve.series().flat_map(|series| &series.points);
    let most = points().map(|point| point.cost.max).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let step = round_up(most / f64::from(STEPS));
    let top = step * f64::from(STEPS);
    let ends =
        points().fold((u64::MAX, 1), |(low, high), point| (low.min(point.at), high.max(point.at)));
    let place = Place { low: (ends.0 as f64).ln(), high: (ends.1 as f64).ln(), top };

    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-weight=\"bold\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"36\" fill=\"#555\">µs of CPU per request; bars from least to most</text>\n",
        curve.title, curve.title
    );
    for line in 0..=STEPS {
        let cost = step * f64::from(line);
        let (y, x) = (place.y(cost), LEFT - 6.0);
        put(
            &mut text,
            &format!(
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{x}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                y + 4.0,
                plain(cost)
            ),
        );
    }
    let longest = curve.series().max_by_key(|series| series.points.len());
    for point in longest.into_iter().flat_map(|series| &series.points) {
        put(
            &mut text,
            &format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                place.x(point.at),
                HEIGHT - BOTTOM + 18.0,
                grouped(point.at)
            ),
        );
    }
    put(
        &mut text,
        &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 10.0,
            curve.along
        ),
    );
    for (number, series) in curve.series().enumerate() {
        draw(&mut text, series, COLOURS[number], &place);
        let x = WIDTH - RIGHT - 190.0 * (2 - number) as f64 + 20.0;
        put(
            &mut text,
            &format!(
                "<rect x=\"{x:.1}\" y=\"42\" width=\"14\" height=\"4\" fill=\"{0}\"/>\
             <text x=\"{1:.1}\" y=\"49\">{2}</text>",
                COLOURS[number],
                x + 20.0,
                series.who
            ),
        );
    }
    text.push_str("</svg>\n");
    text
}

/// Where a number and a cost stand in the picture.
struct Place {
    low: f64,
    high: f64,
    top: f64,
}

impl Place {
    fn x(&self, at: u64) -> f64 {
        let width = WIDTH - LEFT - RIGHT - 2.0 * MARGIN;
        let share = (at as f64).ln() - self.low;
        let whole = self.high - self.low;
        LEFT + MARGIN + if whole > 0.0 { width * share / whole } else { width / 2.0 }
    }

    fn y(&self, cost: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * cost / self.top
    }
}

/// Between the axes and the first and last point.
const MARGIN: f64 = 20.0;

fn draw(text: &mut String, series: &Series, colour: &str, place: &Place) {
    let corners: Vec<String> = series
        .points
        .iter()
        .map(|point| format!("{:.1},{:.1}", place.x(point.at), place.y(point.cost.median)))
        .collect();
    put(
        text,
        &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            corners.join(" ")
        ),
    );
    for point in &series.points {
        let (x, y) = (place.x(point.at), place.y(point.cost.median));
        put(
            text,
            &format!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\
             <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>",
                place.y(point.cost.min),
                place.y(point.cost.max)
            ),
        );
    }
}

fn put(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes all that is written");
}

/// The next number that people like to read: 1, 2 or 5 of some power of ten.
fn round_up(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    let round = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power);
    round.into_iter().find(|round| number <= *round).unwrap_or(10.0 * power)
}

/// Without digits that say nothing.
fn plain(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `4,000`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| str::from_utf8(group).expect("digits are ASCII"))
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_peers::curves::{Sides, connections};
    use crate::bench_peers::outcome::Sample;

    fn sample(cpu_us_per_request: f64) -> Sample {
        Sample {
            cpu_us_per_request,
            requests_per_second: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            generator_percent: 1.0,
        }
    }

    #[test]
    fn a_curve_has_a_line_for_each_server_and_a_number_for_each_point() {
        let mut curve = connections();
        for at in [50, 5_000] {
            curve.add(at, Sides { ours: vec![sample(3.0)], theirs: vec![sample(4.5)] });
        }
        let text = svg(&curve);
        assert_eq!(text.matches("<polyline").count(), 2);
        assert!(text.contains(">5,000</text>"), "{text}");
        assert!(text.contains(">memcached</text>"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn steps_are_numbers_that_people_like() {
        assert_eq!([0.7, 1.0, 1.1, 0.03, 60.0].map(round_up), [1.0, 1.0, 2.0, 0.05, 100.0]);
        assert_eq!(
            [plain(0.5), plain(2.0), grouped(1), grouped(10_000_000)],
            ["0.5", "2", "1", "10,000,000"]
        );
    }
}
