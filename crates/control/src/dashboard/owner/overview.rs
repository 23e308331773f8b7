//! The first page of a cache: how it does, now and over time.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::charts::{RANGES, Range, charts, latency_charts};
use super::{CacheFrame, Done, frame};
use crate::control::Control;
use crate::dashboard::Dashboard;
use crate::dashboard::chart::ChartView;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::Owner;
use crate::dashboard::units;
use crate::error::ControlError;
use crate::model::{Cache, UnixSeconds};

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    cache: CacheFrame,
    range: &'static Range,
    ranges: &'static [Range],
    panel: LivePanel,
}

/// The part of the page that is kept fresh.
#[derive(Template)]
#[template(path = "live.html")]
struct LivePanel {
    tiles: Vec<Tile>,
    memory: Option<Gauge>,
    advice: Vec<&'static str>,
    /// Why there are no figures.
    silent: Option<&'static str>,
    charts: Vec<ChartView>,
    /// Proxies whose latency has no chart.
    left_out: usize,
    at: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    range: Option<String>,
}

struct Tile {
    label: &'static str,
    value: String,
    note: String,
}

/// A part of a whole, as a bar.
struct Gauge {
    used: String,
    limit: String,
    percent: u64,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    owner: Owner,
    Query(done): Query<Done>,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let range = Range::named(asked.range.as_deref());
    let panel = panel(&dashboard, &owner, range).await?;
    Ok(render(&OverviewPage {
        frame: frame(&owner, "Overview", done.done.as_deref()),
        cache: CacheFrame::new(&owner, "overview"),
        range,
        ranges: RANGES,
        panel,
    }))
}

/// Only the panel: what the script asks for every few seconds.
pub(super) async fn live(
    State(dashboard): State<Dashboard>,
    owner: Owner,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let range = Range::named(asked.range.as_deref());
    Ok(render(&panel(&dashboard, &owner, range).await?))
}

async fn panel(
    dashboard: &Dashboard,
    owner: &Owner,
    range: &'static Range,
) -> Result<LivePanel, Failure> {
    let (cache, api) = (owner.cache.clone(), dashboard.api.clone());
    dashboard
        .call(move |control| {
            let mut charts = charts(control, &cache, range)?;
            let latency = latency_charts(control, range, |proxy| api.server(proxy))?;
            charts.extend(latency.charts);
            Ok(LivePanel { charts, left_out: latency.left_out, ..look(control, &cache)? })
        })
        .await
}

fn look(control: &Control, cache: &Cache) -> Result<LivePanel, ControlError> {
    let now = control.now();
    match control.statistics(&crate::model::CacheRef::Id(cache.id)) {
        Ok((_, statistics)) => Ok(LivePanel::new(cache, &Figures(statistics), now)),
        Err(ControlError::DataPlane(_)) => Ok(LivePanel::silent(now)),
        Err(error) => Err(error),
    }
}

/// Counters and gauges under memcached's names; what is not counted is 0.
struct Figures(BTreeMap<String, u64>);

impl Figures {
    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

impl LivePanel {
    fn silent(now: UnixSeconds) -> Self {
        LivePanel {
            tiles: Vec::new(),
            memory: None,
            advice: Vec::new(),
            silent: Some("The nodes that serve this cache have not reported yet."),
            charts: Vec::new(),
            left_out: 0,
            at: units::time(now),
        }
    }

    fn new(cache: &Cache, figures: &Figures, now: UnixSeconds) -> Self {
        let (hits, misses) = (figures.get("get_hits"), figures.get("get_misses"));
        let (used, limit) = (figures.get("bytes"), cache.plan.limits.memory_bytes);
        let tile = |label, value, note: String| Tile { label, value, note };
        let tiles = vec![
            tile(
                "Hit rate",
                units::percent(hits, hits + misses),
                format!("{} hits, {} misses", units::count(hits), units::count(misses)),
            ),
            tile(
                "Gets",
                units::count(figures.get("cmd_get")),
                "since the cache was last started".to_owned(),
            ),
            tile(
                "Sets",
                units::count(figures.get("cmd_set")),
                format!("{} deletes", units::count(figures.get("delete_hits"))),
            ),
            tile("Items", units::count(figures.get("curr_items")), String::new()),
            tile(
                "Evictions",
                units::count(figures.get("evictions")),
                "items that made room for others".to_owned(),
            ),
            tile(
                "Connections",
                units::count(figures.get("curr_connections")),
                format!("of {} at most", units::count(cache.plan.limits.connections_max.into())),
            ),
        ];
        let memory = Gauge {
            used: units::bytes(used),
            limit: units::bytes(limit),
            percent: used.saturating_mul(100).checked_div(limit).unwrap_or(0).min(100),
        };
        LivePanel {
            tiles,
            advice: advice(figures, memory.percent),
            memory: Some(memory),
            silent: None,
            charts: Vec::new(),
            left_out: 0,
            at: units::time(now),
        }
    }
}

/// Gets before a rate says anything.
const GETS_MIN: u64 = 1_000;
/// Below this share of hits a full cache is probably too small, in percent.
const HIT_RATE_LOW_PERCENT: u64 = 80;
/// From here on a cache counts as full, in percent.
const FULL_PERCENT: u64 = 90;
/// Connections per hundred requests from which on applications seem to connect anew for each.
const CONNECTIONS_MANY_PERCENT: u64 = 50;

/// What the figures suggest.
fn advice(figures: &Figures, memory_percent: u64) -> Vec<&'static str> {
    let mut advice = Vec::new();
    let (hits, gets) = (figures.get("get_hits"), figures.get("cmd_get"));
    let low = gets >= GETS_MIN && hits * 100 < gets * HIT_RATE_LOW_PERCENT;
    if low && memory_percent >= FULL_PERCENT {
        advice.push(
            "Many gets miss and the cache is full: a larger plan may help. You can try it without \
             losing an item, and go back.",
        );
    }
    let requests = gets + figures.get("cmd_set");
    let connections = figures.get("total_connections");
    if requests >= GETS_MIN && connections * 100 > requests * CONNECTIONS_MANY_PERCENT {
        advice.push(
            "Your applications open a connection for almost every request, which makes each of them \
             several times slower. Let them keep their connections open.",
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advised(figures: &[(&str, u64)], memory_percent: u64) -> usize {
        let figures = figures.iter().map(|(name, count)| ((*name).to_owned(), *count));
        advice(&Figures(figures.collect()), memory_percent).len()
    }

    #[test]
    fn advice_is_given_only_where_the_figures_say_something() {
        let misses = [("cmd_get", 10_000), ("get_hits", 5_000)];
        assert_eq!(advised(&misses, 95), 1);
        assert_eq!(advised(&misses, 50), 0, "there is room");
        assert_eq!(advised(&[("cmd_get", 100), ("get_hits", 1)], 95), 0, "too few gets");
        let connects = [("cmd_get", 10_000), ("get_hits", 9_999), ("total_connections", 9_000)];
        assert_eq!(advised(&connects, 10), 1);
        assert_eq!(advised(&[], 100), 0);
    }
}
