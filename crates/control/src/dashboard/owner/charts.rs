//! The charts of a cache: which figures they show, over which time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use wire::control::latency::Histogram;

use crate::control::Control;
use crate::dashboard::chart::{Chart, ChartView, Line, POINTS_MAX, Unit};
use crate::dashboard::units;
use crate::error::ControlError;
use crate::model::{Cache, CacheRef, UnixSeconds};
use crate::series::Series;
use crate::series::latency::{Fineness, LatencyPoint};
use crate::series::sample::{Figure, Sample};

/// How far back the charts go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// As the page's address says it.
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    seconds: u64,
}

/// Every range; the first is shown when none was chosen.
pub(super) const RANGES: &[Range] = &[
    Range { name: "hour", label: "1 hour", seconds: 3_600 },
    Range { name: "day", label: "24 hours", seconds: 86_400 },
    Range { name: "week", label: "7 days", seconds: 7 * 86_400 },
    Range { name: "quarter", label: "90 days", seconds: 90 * 86_400 },
];

impl Range {
    pub(super) fn named(name: Option<&str>) -> &'static Range {
        RANGES.iter().find(|range| Some(range.name) == name).unwrap_or(&RANGES[0])
    }

    fn say(self, at: u64) -> String {
        let at = UnixSeconds(at);
        if self.seconds <= 86_400 { units::clock(at) } else { units::day_and_clock(at) }
    }
}

pub(super) fn charts(
    control: &Control,
    cache: &Cache,
    range: &Range,
) -> Result<Vec<ChartView>, ControlError> {
    let to = control.now().0;
    let from = to.saturating_sub(range.seconds);
    let (_, series) = control.series(&CacheRef::Id(cache.id), from, to)?;
    Ok(draw(cache, &spans(&series, cache.created_at.0), range))
}

/// Some points of a series taken together.
struct Span {
    at: u64,
    seconds: f64,
    /// `None` from before there was the cache.
    sample: Option<Sample>,
}

/// At most [`POINTS_MAX`] spans.
fn spans(series: &Series, created_at: u64) -> Vec<Span> {
    let together = series.points.len().div_ceil(POINTS_MAX).max(1);
    let step = series.step.seconds();
    let span = |points: &[crate::series::Point]| {
        let mut sample = points[0].sample;
        points[1..].iter().for_each(|point| sample.then(&point.sample));
        let (at, seconds) = (points[0].at, step * points.len() as u64);
        let is_there = created_at < at + seconds;
        Span { at, seconds: seconds as f64, sample: is_there.then_some(sample) }
    };
    series.points.chunks(together).map(span).collect()
}

fn draw(cache: &Cache, spans: &[Span], range: &Range) -> Vec<ChartView> {
    use Figure::{
        Bytes, CmdGet, CmdSet, CurrConnections, DeleteHits, DeleteMisses, Evictions, GetHits,
        GetMisses,
    };
    let line = |name: &str, value: &dyn Fn(&Span, &Sample) -> Option<f64>| Line {
        name: name.to_owned(),
        values: spans.iter().map(|span| value(span, span.sample.as_ref()?)).collect(),
    };
    let rate = |name: &str, figures: &[Figure]| {
        line(name, &|span, sample| {
            let count: u64 = figures.iter().map(|figure| sample.get(*figure)).sum();
            Some(count as f64 / span.seconds)
        })
    };
    let gauge =
        |name: &str, figure: Figure| line(name, &|_, sample| Some(sample.get(figure) as f64));
    let hit_rate = line("hit rate", &|_, sample| {
        let (hits, misses) = (sample.get(GetHits), sample.get(GetMisses));
        (hits + misses != 0).then(|| hits as f64 / (hits + misses) as f64)
    });
    let limit = cache.plan.limits.memory_bytes as f64;
    let deletes = [DeleteHits, DeleteMisses];
    let requests =
        vec![rate("gets", &[CmdGet]), rate("sets", &[CmdSet]), rate("deletes", &deletes)];
    let all = [
        ("hits", "Hit rate", Unit::Fraction, vec![hit_rate], 1.0),
        ("requests", "Requests", Unit::PerSecond, requests, 1.0),
        ("memory", "Memory", Unit::Bytes, vec![gauge("used", Bytes)], limit),
        ("evictions", "Evictions", Unit::PerSecond, vec![rate("evictions", &[Evictions])], 1.0),
        ("connections", "Connections", Unit::Count, vec![gauge("open", CurrConnections)], 4.0),
    ];
    let times: Vec<String> = spans.iter().map(|span| range.say(span.at)).collect();
    let chart = |(id, title, unit, lines, at_least): (&str, &str, _, _, _)| {
        let (id, title) = (id.to_owned(), title.to_owned());
        Chart { id, title, unit, lines, times: times.clone(), at_least }.view()
    };
    all.into_iter().map(chart).collect()
}

/// Proxies whose latency has a chart: more than these nobody looks through, so they are the slowest.
const PROXIES_MAX: usize = 6;
/// What is drawn of how long requests took.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// How long requests took at each proxy, all caches together, as far as it has been sampled.
pub(super) struct LatencyCharts {
    pub(super) charts: Vec<ChartView>,
    /// Proxies that have no chart because others are slower.
    pub(super) left_out: usize,
}

/// `server` is what clients call a proxy.
pub(super) fn latency_charts(
    control: &Control,
    range: &Range,
    server: impl Fn(&str) -> String,
) -> Result<LatencyCharts, ControlError> {
    let to = control.now().0;
    let from = to.saturating_sub(range.seconds);
    let step = Fineness::for_points(range.seconds, POINTS_MAX);
    let series = control.latency_sampled(step, from, to)?;
    let times: Vec<u64> = (step.begin(from)..to).step_by(step.seconds() as usize).collect();
    Ok(draw_latency(series.servers, &times, range, server))
}

fn draw_latency(
    proxies: BTreeMap<String, Vec<LatencyPoint>>,
    times: &[u64],
    range: &Range,
    server: impl Fn(&str) -> String,
) -> LatencyCharts {
    let said: Vec<String> = times.iter().map(|at| range.say(*at)).collect();
    let draw = |id: String, title: String, points: &[LatencyPoint]| {
        let of: HashMap<u64, &Histogram> =
            points.iter().map(|point| (point.at, &point.histogram)).collect();
        let line = |(name, part): (&str, f64)| {
            let value = |at: &u64| of.get(at)?.quantile(part).map(|nanoseconds| nanoseconds as f64);
            Line { name: name.to_owned(), values: times.iter().map(value).collect() }
        };
        let (unit, lines) = (Unit::Latency, QUANTILES.into_iter().map(line).collect());
        Chart { id, title, unit, lines, times: said.clone(), at_least: 0.0 }.view()
    };
    if proxies.is_empty() {
        let charts = vec![draw("latency".to_owned(), "Latency".to_owned(), &[])];
        return LatencyCharts { charts, left_out: 0 };
    }
    let left_out = proxies.len().saturating_sub(PROXIES_MAX);
    let is_one = proxies.len() == 1;
    let mut chosen: Vec<(u64, String, Vec<LatencyPoint>)> = proxies
        .into_iter()
        .map(|(name, points)| {
            let mut all = Histogram::default();
            points.iter().for_each(|point| all.add(&point.histogram));
            (all.quantile(0.99).unwrap_or(0), name, points)
        })
        .collect();
    chosen.sort_by_key(|(slowness, ..)| Reverse(*slowness));
    chosen.truncate(PROXIES_MAX);
    // In the same order from one look to the next.
    chosen.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
    let chart = |(_, name, points): &(u64, String, Vec<LatencyPoint>)| {
        let title =
            if is_one { "Latency".to_owned() } else { format!("Latency at {}", server(name)) };
        draw(format!("latency-{name}"), title, points)
    };
    LatencyCharts { charts: chosen.iter().map(chart).collect(), left_out }
}

#[cfg(test)]
mod tests {
    use askama::Template as _;

    use super::*;

    fn points(at: u64, nanoseconds: &[u64]) -> Vec<LatencyPoint> {
        let mut histogram = Histogram::default();
        nanoseconds.iter().for_each(|it| histogram.note(*it));
        vec![LatencyPoint { at, histogram }]
    }

    fn drawn(proxies: &[(&str, Vec<LatencyPoint>)]) -> (Vec<String>, usize) {
        let proxies = proxies.iter().map(|(name, points)| ((*name).to_owned(), points.clone()));
        let times: Vec<u64> = (0..5).map(|at| 6_000 + at * 20).collect();
        let drawn = draw_latency(proxies.collect(), &times, &RANGES[0], |name| format!("{name}:1"));
        let html = |view: &ChartView| view.render().expect("it renders");
        (drawn.charts.iter().map(html).collect(), drawn.left_out)
    }

    #[test]
    fn a_proxy_alone_has_three_lines_on_a_logarithmic_axis() {
        let took: Vec<u64> = (1..=100).map(|part| part * 10_000).collect();
        let (charts, left_out) = drawn(&[("local", points(6_040, &took))]);
        assert_eq!((charts.len(), left_out), (1, 0));
        let html = &charts[0];
        assert!(html.contains("<h2>Latency</h2>"), "{html}");
        for part in ["p50", "p95", "p99", "line three", ">100 µs<"] {
            assert!(html.contains(part), "{part} in {html}");
        }
        // Measured at the third of five times only.
        assert_eq!(html.matches("p50 –").count(), 4, "{html}");
        assert!(html.contains("p50 –;p50 –;p50 "), "{html}");
    }

    #[test]
    fn of_many_proxies_the_slowest_are_drawn_in_the_order_of_their_names() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let of = |(at, name): (usize, &&'static str)| (*name, points(6_000, &[1 << (12 + at)]));
        let all: Vec<(&str, Vec<LatencyPoint>)> =
            names.iter().enumerate().map(|(at, it)| of((at, it))).collect();
        let (charts, left_out) = drawn(&all);
        assert_eq!((charts.len(), left_out), (PROXIES_MAX, 2));
        assert!(charts[0].contains("Latency at c:1") && charts[5].contains("Latency at h:1"));
    }

    #[test]
    fn before_anything_was_measured_it_is_said() {
        let (charts, _) = drawn(&[]);
        assert!(charts[0].contains("Nothing yet"), "{}", charts[0]);
    }
}
