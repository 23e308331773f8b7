//! What a row came to, and whether that is enough.

use super::rows::Row;
use bench::Report;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Who served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Larder,
    Memcached,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Larder => "larder",
            Side::Memcached => "memcached",
        })
    }
}

/// One run of one load on one server.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    pub(super) cpu_us_per_request: f64,
    pub(super) requests_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) generator_percent: f64,
}

/// Which figure of a run is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// CPU time of the servers per request.
    Cpu,
    /// The time within which half of the requests were answered.
    Median,
}

impl Of {
    pub(super) fn figure(self, sample: &Sample) -> f64 {
        match self {
            Of::Cpu => sample.cpu_us_per_request,
            Of::Median => sample.p50_us,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Of::Cpu => CPU,
            Of::Median => "µs p50",
        }
    }
}

/// The unit of most rows, which the table therefore leaves out.
pub(super) const CPU: &str = "µs of CPU";

impl Sample {
    /// Of a load whose servers used so much CPU time.
    pub(super) fn new(report: &Report, cpu: Duration) -> Sample {
        Sample {
            cpu_us_per_request: cpu.as_secs_f64() * 1e6 / report.requests as f64,
            requests_per_second: report.requests_per_second,
            p50_us: report.latency_us.p50,
            p99_us: report.latency_us.p99,
            generator_percent: report.generator.utilisation_percent,
        }
    }
}

/// A median and its extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Of one figure or more.
    pub(super) fn of(figures: &[f64]) -> Spread {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Spread { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }

    pub(super) fn one(figure: f64) -> Spread {
        Spread::of(&[figure])
    }

    /// `0.52 (0.50–0.55)`; a lone figure stands alone.
    pub(super) fn text(self) -> String {
        let Spread { median, min, max } = self;
        if min == max {
            return number(median);
        }
        format!("{} ({}–{})", number(median), number(min), number(max))
    }
}

/// Three digits that matter.
fn number(figure: f64) -> String {
    match figure.abs() {
        large if large >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// A measured row.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    /// What our figure and theirs count, such as µs of CPU per request.
    pub(super) unit: &'static str,
    pub(super) ours: Spread,
    /// The peer's figure, where there is one.
    pub(super) theirs: Option<Spread>,
    /// Ours over theirs, within each round.
    pub(super) ratio: Option<Spread>,
    /// Where one was set; other rows only show how it is.
    pub(super) target: Option<Target>,
    pub(super) our_samples: Vec<Sample>,
    pub(super) their_samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Target {
    RatioAtMost(f64),
    AtMost(f64),
    AtLeast(f64),
}

impl Outcome {
    pub(super) fn ratio(
        row: &'static Row,
        of: Of,
        our_samples: Vec<Sample>,
        their_samples: Vec<Sample>,
        at_most: Option<f64>,
    ) -> Outcome {
        let figures = |samples: &[Sample]| -> Vec<f64> {
            samples.iter().map(|sample| of.figure(sample)).collect()
        };
        let (ours, theirs) = (figures(&our_samples), figures(&their_samples));
        let ratios: Vec<f64> =
            ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        let ratio = Spread::of(&ratios);
        Outcome {
            id: row.id,
            what: row.what,
            unit: of.unit(),
            ours: Spread::of(&ours),
            theirs: Some(Spread::of(&theirs)),
            ratio: Some(ratio),
            target: at_most.map(Target::RatioAtMost),
            our_samples,
            their_samples,
        }
    }

    pub(super) fn at_most(
        row: &'static Row,
        ours: Spread,
        theirs: Option<f64>,
        at_most: f64,
        unit: &'static str,
    ) -> Outcome {
        let mut outcome = Outcome::alone(row, ours, Some(Target::AtMost(at_most)), unit);
        outcome.theirs = theirs.map(Spread::one);
        outcome.ratio = theirs.map(|theirs| Spread::one(ours.median / theirs));
        outcome
    }

    pub(super) fn at_least(
        row: &'static Row,
        ours: Spread,
        at_least: f64,
        unit: &'static str,
    ) -> Outcome {
        Outcome::alone(row, ours, Some(Target::AtLeast(at_least)), unit)
    }

    fn alone(
        row: &'static Row,
        ours: Spread,
        target: Option<Target>,
        unit: &'static str,
    ) -> Outcome {
        Outcome {
            id: row.id,
            what: row.what,
            unit,
            ours,
            theirs: None,
            ratio: None,
            target,
            our_samples: Vec::new(),
            their_samples: Vec::new(),
        }
    }

    /// Whether the median is good enough; nothing where no target was set.
    pub(super) fn is_reached(&self) -> Option<bool> {
        Some(match self.target? {
            Target::RatioAtMost(at_most) => self.ratio.is_some_and(|ratio| ratio.median <= at_most),
            Target::AtMost(at_most) => self.ours.median <= at_most,
            Target::AtLeast(at_least) => self.ours.median >= at_least,
        })
    }

    /// The busiest that the generator was; 0 where nothing was sampled.
    pub(super) fn generator_percent(&self) -> f64 {
        let samples = self.our_samples.iter().chain(&self.their_samples);
        samples.map(|sample| sample.generator_percent).fold(0.0, f64::max)
    }

    /// One line for the terminal.
    pub(super) fn line(&self) -> String {
        let theirs =
            self.theirs.map_or(String::new(), |spread| format!(", peer {}", spread.text()));
        let ratio = self.ratio.map_or(String::new(), |spread| format!(", ratio {}", spread.text()));
        let verdict = match (self.target, self.is_reached()) {
            (Some(target), Some(true)) => format!("; target {target}: reached"),
            (Some(target), _) => format!("; target {target}: NOT reached"),
            (None, _) => String::new(),
        };
        format!("ours {} {}{theirs}{ratio}{verdict}", self.ours.text(), self.unit)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::RatioAtMost(at_most) => write!(f, "ratio ≤ {}", number(*at_most)),
            Target::AtMost(at_most) => write!(f, "≤ {}", number(*at_most)),
            Target::AtLeast(at_least) => write!(f, "≥ {}", number(*at_least)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_peers::rows::ROWS;

    fn samples(cpu: &[f64]) -> Vec<Sample> {
        let sample = |&cpu_us_per_request| Sample {
            cpu_us_per_request,
            requests_per_second: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            generator_percent: 50.0,
        };
        cpu.iter().map(sample).collect()
    }

    fn compared(ours: &[f64], theirs: &[f64], at_most: Option<f64>) -> Outcome {
        Outcome::ratio(&ROWS[0], Of::Cpu, samples(ours), samples(theirs), at_most)
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // Over all rounds the medians are equal; within each round ours is half of theirs.
        let outcome = compared(&[1.0, 2.0, 4.0], &[2.0, 4.0, 8.0], Some(0.6));
        assert_eq!(outcome.ratio, Some(Spread { median: 0.5, min: 0.5, max: 0.5 }));
        assert_eq!(outcome.is_reached(), Some(true));
    }

    #[test]
    fn the_median_decides() {
        let outcome = compared(&[0.5, 0.9, 0.9], &[1.0, 1.0, 1.0], Some(0.86));
        assert_eq!(outcome.is_reached(), Some(false));
        assert_eq!(compared(&[0.5], &[1.0], None).is_reached(), None);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(Spread::of(&[61_234.0]).text(), "61234");
        assert_eq!(Spread::of(&[0.5, 0.4, 0.7]).text(), "0.50 (0.40–0.70)");
        assert_eq!(Spread::of(&[1.0, 2.0]).median, 1.5);
    }
}
