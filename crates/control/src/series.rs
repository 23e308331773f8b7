//! Statistics over time: what every cache did in each minute, and, for longer, in each ten minutes, hour
//! and day.
//!
//! ```text
//!   data plane ── readings ──▶ sampler ── what changed in this minute ──▶ rows of a minute
//!                              (pure)                                        │ when ten are complete
//!                                                                            ▼
//!   processed.rs ◀── points ◀── rows of a day ◀── rows of an hour ◀── rows of ten minutes
//! ```
//!
//! A cache that did nothing has no row; so idle caches cost a comparison in memory each minute. Counters
//! are kept as what was added in the row's time, so rows add up and a process that begins anew counts
//! nothing twice: it adds to the minute it was stopped in.

pub mod latency;
pub(crate) mod prefixes;
pub(crate) mod processed;
pub(crate) mod sample;
pub(crate) mod sampler;
pub(crate) mod sampling;
pub(crate) mod step;

use sample::Sample;
use step::Step;

/// What a cache did over a range of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    pub step: Step,
    /// One for each step of the range, the oldest first; also for those in which nothing happened.
    pub points: Vec<Point>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Unix time in seconds at which it begins.
    pub at: u64,
    /// What was counted in it, and how things stood at its end.
    pub sample: Sample,
}

/// What one server had part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSeries {
    pub server: String,
    pub series: Series,
}

/// Fills the steps without a row: nothing was counted, and things stood as they did before. Before the
/// first row they stood as at its end, as near as is known; without any row as in `latest`.
pub(crate) fn fill(
    step: Step,
    from: u64,
    to: u64,
    rows: &[(u64, Sample)],
    latest: Option<Sample>,
) -> Series {
    let mut gauges =
        rows.first().map(|(_, sample)| *sample).or(latest).unwrap_or_default().gauges();
    let mut rows = rows.iter().peekable();
    let mut points = Vec::new();
    let mut at = step.begin(from);
    while at < to {
        let sample = match rows.next_if(|(row, _)| *row == at) {
            Some((_, sample)) => {
                gauges = sample.gauges();
                *sample
            }
            None => gauges,
        };
        points.push(Point { at, sample });
        at += step.seconds();
    }
    Series { step, points }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sample::Figure;

    fn sample(gets: u64, items: u64) -> Sample {
        let mut sample = Sample::default();
        sample.set(Figure::CmdGet, gets);
        sample.set(Figure::CurrItems, items);
        sample
    }

    #[test]
    fn a_time_without_a_row_counts_nothing_and_keeps_what_stood() {
        let rows = [(120, sample(5, 2)), (240, sample(7, 3))];
        let series = fill(Step::Minute, 60, 360, &rows, None);
        let seen: Vec<_> = series
            .points
            .iter()
            .map(|it| (it.at, it.sample.get(Figure::CmdGet), it.sample.get(Figure::CurrItems)))
            .collect();
        assert_eq!(seen, [(60, 0, 2), (120, 5, 2), (180, 0, 2), (240, 7, 3), (300, 0, 3)]);
    }

    #[test]
    fn a_cache_without_rows_stands_as_it_was_seen_last() {
        let series = fill(Step::Hour, 0, 7_200, &[], Some(sample(9, 4)));
        let seen: Vec<_> = series
            .points
            .iter()
            .map(|it| (it.sample.get(Figure::CmdGet), it.sample.get(Figure::CurrItems)))
            .collect();
        assert_eq!(seen, [(0, 4), (0, 4)]);
    }
}
