//! The charts of a cache: which figures they show, over which time.

use crate::control::Control;
use crate::dashboard::chart::{Chart, ChartView, Line, POINTS_MAX, Unit};
use crate::dashboard::units;
use crate::error::ControlError;
use crate::model::{Cache, CacheRef, UnixSeconds};
use crate::series::Series;
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
    let chart = |(id, title, unit, lines, at_least)| {
        Chart { id, title, unit, lines, times: times.clone(), at_least }.view()
    };
    all.into_iter().map(chart).collect()
}
