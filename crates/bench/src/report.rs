//! What a run found, for people and for programs.

use crate::mix::Act;
use crate::tally::Tally;
use crate::worker::Cost;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt;

/// The result of one run. Times are in microseconds unless their name says otherwise.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Wall-clock time of the measured part, with the answers to its last requests.
    pub seconds: f64,
    /// Requests answered, or authentications with `--handshakes`.
    pub requests: u64,
    pub requests_per_second: f64,
    /// Requests answered, by act; empty for authentications.
    pub acts: Vec<ActCount>,
    /// Keys that gets found.
    pub hits: u64,
    /// Keys that were not there.
    pub misses: u64,
    /// Values that nobody wrote under their key. Anything but 0 is a mistake of the server, or of
    /// another program that writes the same keys.
    pub wrong_values: u64,
    /// Requests that the server refused, and some of its words.
    pub refused: u64,
    pub refusals: Vec<String>,
    /// Requests without an answer: connection lost, or not answered in time.
    pub unanswered: u64,
    /// With a fixed rate: requests that were due and never sent, as no connection was free.
    pub unsent: u64,
    pub connections_lost: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// From when a request should have left until its reply was read.
    pub latency_us: Percentiles,
    /// With a fixed rate: how much later than due requests left.
    pub lateness_us: Option<Percentiles>,
    pub generator: GeneratorCost,
}

#[derive(Debug, Clone, Serialize)]
pub struct ActCount {
    pub act: &'static str,
    pub requests: u64,
}

/// A spread of times in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What the load itself cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct GeneratorCost {
    pub threads: usize,
    /// User and system time per request.
    pub cpu_us_per_request: f64,
    /// How much of its time the busiest thread had work to do.
    pub utilisation_percent: f64,
    /// Above 95 %: the figures may be the generator's, not the server's.
    pub is_bottleneck: bool,
}

/// Above this share of its time a thread cannot have kept up with everything.
const BOTTLENECK_PERCENT: f64 = 95.0;

impl Report {
    pub(crate) fn new(tally: &Tally, costs: &[Cost], spins: bool) -> Report {
        let seconds = costs.iter().map(|cost| cost.elapsed.as_secs_f64()).fold(0.0, f64::max);
        let requests = tally.requests() + tally.logins;
        let acts = Act::ALL
            .into_iter()
            .map(|act| ActCount { act: act.name(), requests: tally.answered[act as usize] })
            .filter(|count| count.requests > 0)
            .collect();
        Report {
            seconds,
            requests,
            requests_per_second: requests as f64 / seconds.max(f64::MIN_POSITIVE),
            acts,
            hits: tally.hits,
            misses: tally.misses,
            wrong_values: tally.wrong_values,
            refused: tally.refused,
            refusals: tally.refusals.clone(),
            unanswered: tally.unanswered,
            unsent: tally.unsent,
            connections_lost: tally.connections_lost,
            bytes_sent: tally.bytes_sent,
            bytes_received: tally.bytes_received,
            latency_us: Percentiles::of(&tally.latencies),
            lateness_us: (!tally.lateness.is_empty()).then(|| Percentiles::of(&tally.lateness)),
            generator: GeneratorCost::new(costs, requests, spins),
        }
    }

    /// Whether every request was sent, answered, not refused, and every value right.
    pub fn is_clean(&self) -> bool {
        self.wrong_values == 0
            && self.refused == 0
            && self.unanswered == 0
            && self.unsent == 0
            && self.connections_lost == 0
    }

    /// One JSON object, in one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings can always be written")
    }
}

impl Percentiles {
    fn of(nanoseconds: &Histogram<u64>) -> Percentiles {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles {
            min: nanoseconds.min() as f64 / 1e3,
            mean: nanoseconds.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: nanoseconds.max() as f64 / 1e3,
        }
    }
}

impl GeneratorCost {
    fn new(costs: &[Cost], requests: u64, spins: bool) -> GeneratorCost {
        let cpu_us: f64 = costs.iter().map(|cost| cost.cpu.as_secs_f64() * 1e6).sum();
        let utilisation = |cost: &Cost| {
            let worked = if spins { cost.busy } else { cost.cpu };
            100.0 * worked.as_secs_f64() / cost.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
        };
        let utilisation_percent = costs.iter().map(utilisation).fold(0.0, f64::max);
        GeneratorCost {
            threads: costs.len(),
            cpu_us_per_request: cpu_us / requests.max(1) as f64,
            utilisation_percent,
            is_bottleneck: utilisation_percent > BOTTLENECK_PERCENT,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seconds, requests, requests_per_second, hits, misses, .. } = self;
        writeln!(
            f,
            "requests    {requests} in {seconds:.2} s, {requests_per_second:.0} per second"
        )?;
        if self.acts.len() > 1 {
            let acts: Vec<String> =
                self.acts.iter().map(|count| format!("{} {}", count.act, count.requests)).collect();
            writeln!(f, "acts        {}", acts.join(", "))?;
        }
        let asked = hits + misses;
        if asked > 0 {
            let percent = 100.0 * *hits as f64 / asked as f64;
            writeln!(f, "hits        {hits} of {asked} ({percent:.2} %)")?;
        }
        writeln!(
            f,
            "bytes       {:.1} MB/s sent, {:.1} MB/s received",
            self.bytes_sent as f64 / 1e6 / seconds,
            self.bytes_received as f64 / 1e6 / seconds
        )?;
        writeln!(f, "latency     {}", self.latency_us)?;
        if let Some(lateness) = &self.lateness_us {
            writeln!(f, "sent late   {lateness}")?;
        }
        writeln!(f, "generator   {}", self.generator)?;
        self.write_troubles(f)
    }
}

impl Report {
    fn write_troubles(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let troubles = [
            (self.wrong_values, "values were WRONG: nobody wrote them under their keys"),
            (self.refused, "requests were refused"),
            (self.unanswered, "requests were never answered"),
            (self.connections_lost, "connections were lost"),
            (self.unsent, "requests were due and never sent, as no connection was free in time"),
        ];
        for (count, what) in troubles.iter().filter(|(count, _)| *count > 0) {
            writeln!(f, "trouble     {count} {what}")?;
        }
        for words in &self.refusals {
            writeln!(f, "            it said {words:?}")?;
        }
        if self.generator.is_bottleneck {
            writeln!(
                f,
                "note        the generator was busy all the time, so throughput and latency may be \
                 its own: give it more --threads"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Percentiles { mean, p50, p90, p99, p999, max, .. } = self;
        write!(
            f,
            "p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  p99.9 {p999:.1}  max {max:.1}  \
             mean {mean:.1} µs"
        )
    }
}

impl fmt::Display for GeneratorCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GeneratorCost { threads, cpu_us_per_request, utilisation_percent, .. } = self;
        let plural = if *threads == 1 { "" } else { "s" };
        write!(
            f,
            "{threads} thread{plural}, {cpu_us_per_request:.2} µs of CPU per request, busy \
             {utilisation_percent:.0} % of the time"
        )
    }
}
