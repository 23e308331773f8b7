//! How finely latency is kept, and for how long; and what was measured between two readings. Pure.

use std::collections::BTreeMap;

use wire::control::latency::Histogram;

use super::step::Step;

/// How much time one point of latency stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fineness {
    /// As often as is sampled: [`SAMPLE_SECONDS`].
    Sample,
    Coarse(Step),
}

/// How often latency is sampled, as the documentation of the service has it that Larder is modelled on.
pub(crate) const SAMPLE_SECONDS: u64 = 20;

impl Fineness {
    pub(crate) const ALL: [Fineness; 4] = [
        Fineness::Sample,
        Fineness::Coarse(Step::TenMinutes),
        Fineness::Coarse(Step::Hour),
        Fineness::Coarse(Step::Day),
    ];

    pub(crate) const fn seconds(self) -> u64 {
        match self {
            Fineness::Sample => SAMPLE_SECONDS,
            Fineness::Coarse(step) => step.seconds(),
        }
    }

    /// When the step began that this moment is in.
    pub(crate) const fn begin(self, at: u64) -> u64 {
        at - at % self.seconds()
    }

    /// Samples are told where other figures are told in minutes, and kept as long as these.
    pub(crate) const fn kept_seconds(self) -> u64 {
        match self {
            Fineness::Sample => Step::Minute.kept_seconds(),
            Fineness::Coarse(step) => step.kept_seconds(),
        }
    }

    /// The finest in which so long a time has no more points than these.
    pub(crate) fn for_points(seconds: u64, points_max: usize) -> Self {
        let fits = |fineness: &Fineness| seconds / fineness.seconds() <= points_max as u64;
        Fineness::ALL.into_iter().find(fits).unwrap_or(Fineness::Coarse(Step::Day))
    }

    pub(crate) fn for_range(from: u64, to: u64, now: u64) -> Self {
        match Step::for_range(from, to, now) {
            Step::Minute => Fineness::Sample,
            step @ (Step::TenMinutes | Step::Hour | Step::Day) => Fineness::Coarse(step),
        }
    }
}

/// How long requests took at each server over a range of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencySeries {
    /// What each point stands for.
    pub step_seconds: u64,
    /// By the server's name.
    pub servers: BTreeMap<String, Vec<LatencyPoint>>,
}

/// Of a time in which anything was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyPoint {
    /// Unix time in seconds at which it begins.
    pub at: u64,
    pub histogram: Histogram,
}

/// Remembers what every server has said last.
#[derive(Debug, Default)]
pub(crate) struct LatencyReadings(BTreeMap<String, Histogram>);

impl LatencyReadings {
    /// What servers have measured since they were read last. What one had measured before it was ever
    /// read may be long ago, and is left out; `local` is the server of this very process, of which all
    /// is news. With `keep`, this was the last reading from now on.
    pub(crate) fn news(
        &mut self,
        read: BTreeMap<String, Histogram>,
        local: &str,
        keep: bool,
    ) -> Vec<(String, Histogram)> {
        let mut news = Vec::new();
        for (server, now) in read {
            let nothing = || if server == local { Histogram::default() } else { now.clone() };
            let before = self.0.entry(server.clone()).or_insert_with(nothing);
            let between = now.since(before);
            if keep {
                *before = now;
            }
            if between.total() != 0 {
                news.push((server, between));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(times: u64) -> Histogram {
        let mut histogram = Histogram::default();
        (0..times).for_each(|_| histogram.note(5_000));
        histogram
    }

    fn read(readings: &mut LatencyReadings, server: &str, times: u64, keep: bool) -> u64 {
        let read = BTreeMap::from([(server.to_owned(), noted(times))]);
        readings.news(read, "local", keep).first().map_or(0, |(_, news)| news.total())
    }

    #[test]
    fn every_turn_is_told_once() {
        let mut readings = LatencyReadings::default();
        assert_eq!(read(&mut readings, "local", 5, false), 5);
        assert_eq!(read(&mut readings, "local", 7, true), 7);
        assert_eq!(read(&mut readings, "local", 7, true), 0);
        assert_eq!(read(&mut readings, "local", 9, true), 2);
        assert_eq!(read(&mut readings, "n0", 100, false), 0, "who knows when that was");
        assert_eq!(read(&mut readings, "n0", 103, true), 3);
        assert_eq!(read(&mut readings, "n0", 4, true), 4, "its process began anew");
    }

    #[test]
    fn a_longer_range_is_told_in_longer_steps() {
        let (now, day) = (2_000_000_000, 86_400);
        for (days, seconds) in [(1, 20), (2, 600), (30, 3_600), (300, 86_400)] {
            assert_eq!(Fineness::for_range(now - days * day, now, now).seconds(), seconds);
        }
    }
}
