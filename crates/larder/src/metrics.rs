//! `/metrics`, for Prometheus: what a node or a control plane counts anyway, read when it is asked for.
//!
//! ```text
//!   GET /metrics ─▶ source (reads counters) ─▶ readings by name ─▶ catalogue: help, kind, label ─▶ text
//! ```
//!
//! Names are `larder_<component>_<what>`; a counter ends in `_total`. Labels are members, backends, states
//! and faults, all of them few. Caches are none, but for as many as `metrics_caches_max` says.

mod control;
mod node;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::control::server::{self, ServerLimits};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use daemon::shutdown::Shutdown;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use wire::control::latency::{self, Histogram};

use crate::commands::up::reachable;

pub(crate) use control::of_control;
pub(crate) use node::{NodeParts, of_node};

/// One metric as it is told of.
#[derive(Debug)]
pub(crate) struct Metric {
    /// Without the `_total` of a counter.
    name: String,
    help: String,
    kind: Kind,
    /// What its one label is called.
    label: Option<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Metric {
    fn gauge(name: &str, help: &str) -> Self {
        Metric { name: name.to_owned(), help: help.to_owned(), kind: Kind::Gauge, label: None }
    }

    fn counter(name: &str, help: &str) -> Self {
        Metric { kind: Kind::Counter, ..Metric::gauge(name, help) }
    }

    /// Of seconds.
    fn histogram(name: &str, help: &str) -> Self {
        Metric { kind: Kind::Histogram, ..Metric::gauge(name, help) }
    }

    fn by(self, label: &'static str) -> Self {
        Metric { label: Some(label), ..self }
    }
}

/// What was read for one answer: values by metric and by the value of its label (empty without one).
#[derive(Debug, Default)]
pub(crate) struct Readings {
    numbers: BTreeMap<String, Vec<(String, u64)>>,
    histograms: BTreeMap<String, Seconds>,
}

/// How long things took.
#[derive(Debug)]
struct Seconds {
    sum: f64,
    count: u64,
    /// Upper bounds in seconds, and how many lay between that and the one before.
    buckets: Vec<(f64, u64)>,
}

impl Seconds {
    /// In coarser ranges than were counted: Prometheus keeps a series for each.
    fn new(histogram: &Histogram, nanoseconds: u64) -> Self {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for (number, counts) in histogram.counts().chunks(RANGES_AT_ONCE).enumerate() {
            let end = latency::begin_of((number + 1) * RANGES_AT_ONCE);
            buckets.push((end as f64 / 1e9, counts.iter().sum()));
        }
        // Whatever took longer was counted in the last one.
        if let Some((end, _)) = buckets.last_mut() {
            *end = f64::INFINITY;
        }
        Seconds { sum: nanoseconds as f64 / 1e9, count: histogram.total(), buckets }
    }
}

/// Ranges of a doubling.
const RANGES_AT_ONCE: usize = 4;

impl Readings {
    /// `nanoseconds` is the sum of all that was counted.
    fn put_histogram(&mut self, name: &str, histogram: &Histogram, nanoseconds: u64) {
        self.histograms.insert(name.to_owned(), Seconds::new(histogram, nanoseconds));
    }

    fn put(&mut self, name: &str, value: u64) {
        self.put_for(name, "", value);
    }

    fn put_for(&mut self, name: &str, label: &str, value: u64) {
        self.numbers.entry(name.to_owned()).or_default().push((label.to_owned(), value));
    }
}

type Read = dyn Fn(&mut Readings) + Send + Sync;

/// Reads everything at once when Prometheus asks.
struct Source {
    metrics: Vec<Metric>,
    read: Box<Read>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("metrics", &self.metrics).finish_non_exhaustive()
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut readings = Readings::default();
        (self.read)(&mut readings);
        for metric in &self.metrics {
            let Metric { name, help, .. } = metric;
            if metric.kind == Kind::Histogram {
                let Some(seconds) = readings.histograms.remove(name) else { continue };
                let Seconds { sum, count, buckets } = seconds;
                let kind = MetricType::Histogram;
                let mut encoder = encoder.encode_descriptor(name, help, None, kind)?;
                encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
                continue;
            }
            let Some(values) = readings.numbers.remove(name) else { continue };
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge | Kind::Histogram => MetricType::Gauge,
            };
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            let Some(name) = metric.label else {
                // Without a label there is one value, and no braces.
                values.first().map_or(Ok(()), |&(_, value)| tell(metric.kind, value, family))?;
                continue;
            };
            for (label, value) in &values {
                let labels = [(name, label.as_str())];
                tell(metric.kind, *value, family.encode_family(&labels)?)?;
            }
        }
        let is_told = readings.numbers.is_empty() && readings.histograms.is_empty();
        debug_assert!(is_told, "not in the catalogue: {readings:?}");
        Ok(())
    }
}

fn tell(kind: Kind, value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => ConstCounter::new(value).encode(encoder),
        Kind::Gauge | Kind::Histogram => {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
        }
    }
}

fn registry(
    metrics: Vec<Metric>,
    read: impl Fn(&mut Readings) + Send + Sync + 'static,
) -> Registry {
    let read = move |readings: &mut Readings| {
        of_process(readings);
        read(readings);
    };
    let metrics = process_catalogue().into_iter().chain(metrics).collect();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Source { metrics, read: Box::new(read) }));
    registry
}

/// What every process tells, under the names that Prometheus' own clients use.
fn process_catalogue() -> Vec<Metric> {
    vec![
        Metric::gauge(
            "process_resident_memory_bytes",
            "Memory of the process that is not swapped out",
        ),
        Metric::gauge("process_open_fds", "Descriptors that the process has open"),
        Metric::gauge("process_start_time_seconds", "When the process began, in Unix time"),
    ]
}

fn of_process(readings: &mut Readings) {
    const PAGE_BYTES: u64 = 4_096;
    const TICKS_PER_SECOND: u64 = 100;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // proc(5): resident pages are the second number of statm; the start, in ticks since the machine's,
    // is the 22nd of stat, which are the 20th after the name in brackets.
    let pages = read("/proc/self/statm").split(' ').nth(1).and_then(|it| it.parse::<u64>().ok());
    readings.put("process_resident_memory_bytes", pages.unwrap_or(0) * PAGE_BYTES);
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        readings.put("process_open_fds", open.count() as u64);
    }
    let stat = read("/proc/self/stat");
    let ticks =
        stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(20)?.parse::<u64>().ok());
    let up = read("/proc/uptime");
    let up = up.split('.').next().and_then(|it| it.parse::<u64>().ok());
    if let (Some(ticks), Some(up)) = (ticks, up) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        readings.put("process_start_time_seconds", now + ticks / TICKS_PER_SECOND - up);
    }
}

/// The line that says where it is.
pub(crate) fn line(address: SocketAddr) -> String {
    format!("LARDER_METRICS=http://{}/metrics\n", reachable(address))
}

/// Serves a registry on a thread of its own, until the process is told to stop. Returns the address.
pub(crate) fn serve(
    address: SocketAddr,
    registry: Registry,
    shutdown: &Shutdown,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let registry = Arc::new(registry);
    let answer = move || {
        let registry = Arc::clone(&registry);
        async move {
            let mut told = String::new();
            text::encode(&mut told, &registry).expect("a string takes everything");
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], told).into_response()
        }
    };
    let router = Router::new().route("/metrics", get(answer));
    let shutdown = shutdown.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        runtime.block_on(async {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let limits = ServerLimits::default();
                    server::serve_router(listener, router, limits, shutdown.draining()).await;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "metrics are not served");
                }
            }
        });
    };
    std::thread::Builder::new().name("metrics".to_owned()).spawn(serve)?;
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name as it is shown, without what a query may add to it.
    fn shown(metric: &Metric) -> String {
        match metric.kind {
            Kind::Counter => format!("{}_total", metric.name),
            Kind::Gauge => metric.name.clone(),
            Kind::Histogram => format!("{}_bucket", metric.name),
        }
    }

    fn catalogue() -> Vec<Metric> {
        let all = [process_catalogue(), node::catalogue(), control::catalogue()];
        all.into_iter().flatten().collect()
    }

    #[test]
    fn names_follow_the_conventions_and_are_each_told_once() {
        let mut seen = std::collections::BTreeSet::new();
        for metric in catalogue() {
            let name = &metric.name;
            assert!(name.starts_with("larder_") || name.starts_with("process_"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert!(!name.ends_with("_total"), "{name}: the suffix is added");
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}");
            assert!(seen.insert(shown(&metric)), "{name} is there twice");
        }
    }

    #[test]
    fn the_dashboard_asks_for_nothing_that_is_not_there() {
        let names: Vec<String> = catalogue().iter().map(shown).collect();
        let text = include_str!("../../../contrib/grafana/larder.json");
        let dashboard: serde_json::Value = serde_json::from_str(text).expect("it is JSON");
        let panels = dashboard["panels"].as_array().expect("it has panels");
        let mut asked = 0;
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array()).flatten() {
            let query = target["expr"].as_str().expect("a target has a query");
            let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for name in words.filter(|it| it.starts_with("larder_") || it.starts_with("process_")) {
                assert!(names.iter().any(|known| known == name), "{name} in {query}");
                asked += 1;
            }
        }
        assert!(asked > 10, "it asks for {asked} metrics only");
    }

    #[test]
    fn what_is_read_is_told_with_its_label() {
        let metrics = vec![
            Metric::counter("larder_some_requests", "Some").by("member"),
            Metric::gauge("larder_some_bytes", "More"),
            Metric::histogram("larder_some_seconds", "Time"),
        ];
        let registry = registry(metrics, |readings| {
            let mut histogram = Histogram::default();
            [3_000, 3_500, 9_000].into_iter().for_each(|it| histogram.note(it));
            readings.put_histogram("larder_some_seconds", &histogram, 15_500);
            readings.put_for("larder_some_requests", "n0.b0", 7);
            readings.put_for("larder_some_requests", "n0.b1", 8);
            readings.put("larder_some_bytes", 9);
        });
        let mut told = String::new();
        text::encode(&mut told, &registry).expect("a string takes everything");
        for line in [
            "larder_some_requests_total{member=\"n0.b0\"} 7",
            "larder_some_requests_total{member=\"n0.b1\"} 8",
            "larder_some_bytes 9",
            "# TYPE larder_some_seconds histogram",
            "larder_some_seconds_bucket{le=\"0.000004096\"} 2",
            "larder_some_seconds_bucket{le=\"+Inf\"} 3",
            "larder_some_seconds_count 3",
            "# TYPE larder_some_requests counter",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is not in\n{told}");
        }
        assert!(told.contains("process_open_fds "), "{told}");
    }
}
