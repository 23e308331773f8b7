//! Statistics over time, in the shape of an InfluxDB answer: J13 to J15 and J19 of the contracts.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::Api;
use super::caches::{Answer, NO_STORE};
use super::denied::Denied;
use super::owner::{Owner, OwnerOr404};
use crate::series::latency::LatencyPoint;
use crate::series::processed::Name;
use crate::series::sample::Figure;
use crate::series::{Point, Series};
use crate::usage::LOCAL;

/// What is told when a request does not say: the last 24 hours.
const RANGE_SECONDS: u64 = 24 * 60 * 60;

#[derive(Debug, Serialize)]
pub(super) struct Table {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Tags>,
    columns: Vec<&'static str>,
    /// The time as text, and then a number for each column, or nothing.
    values: Vec<Vec<Value>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Tags {
    server: String,
}

#[derive(Debug, Deserialize)]
struct Parameters {
    names: Option<String>,
    #[serde(rename = "startTime")]
    start_time: Option<String>,
    #[serde(rename = "endTime")]
    end_time: Option<String>,
}

/// From when to when, in Unix time, and which names were asked for.
pub(super) struct Asked {
    pub(super) from: u64,
    pub(super) to: u64,
    names: Option<String>,
}

impl FromRequestParts<Api> for Asked {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        let Query(asked) = Query::<Parameters>::from_request_parts(parts, api)
            .await
            .map_err(|rejection| Denied::Wrong(rejection.body_text()))?;
        let moment = |text: Option<&str>| -> Result<Option<u64>, Denied> {
            let Some(text) = text else { return Ok(None) };
            let wrong = || Denied::Wrong(format!("{text:?} is not a time as 2023-01-08T15:20:00Z"));
            let moment: Timestamp = text.parse().map_err(|_| wrong())?;
            u64::try_from(moment.as_second()).map(Some).map_err(|_| wrong())
        };
        let to = moment(asked.end_time.as_deref())?.unwrap_or(api.control.now().0);
        let from = moment(asked.start_time.as_deref())?.unwrap_or(to.saturating_sub(RANGE_SECONDS));
        if to < from {
            return Err(Denied::Wrong("startTime is after endTime".to_owned()));
        }
        Ok(Asked { from, to, names: asked.names })
    }
}

impl Asked {
    /// The names, in the order they were asked for.
    fn names(&self) -> Result<Vec<Name>, Denied> {
        let required = || Denied::Wrong("query parameter names is required".to_owned());
        let names = self.names.as_deref().filter(|names| !names.is_empty()).ok_or_else(required)?;
        let mut found = Vec::new();
        for name in names.split(',') {
            let unknown = || Denied::Wrong(format!("there are no stats named {name:?}"));
            found.push(Name::named(name.trim()).ok_or_else(unknown)?);
            if found.len() > Name::all().count() {
                return Err(Denied::Wrong("names are repeated".to_owned()));
            }
        }
        Ok(found)
    }
}

/// One row for each point: its time and the values that `of` makes of it.
fn table(
    name: &'static str,
    server: Option<String>,
    columns: impl IntoIterator<Item = &'static str>,
    series: &Series,
    of: impl Fn(&Point) -> Vec<Value>,
) -> Table {
    let row = |point: &Point| {
        let mut row = vec![Value::from(time(point.at))];
        row.extend(of(point));
        row
    };
    Table {
        name,
        tags: server.map(|server| Tags { server }),
        columns: ["time"].into_iter().chain(columns).collect(),
        values: series.points.iter().map(row).collect(),
    }
}

pub(super) fn time(at: u64) -> String {
    let moment = i64::try_from(at).ok().and_then(|at| Timestamp::from_second(at).ok());
    moment.unwrap_or(Timestamp::MAX).to_string()
}

fn processed(series: &Series, server: Option<String>, names: &[Name], limit: u64) -> Table {
    let columns = names.iter().map(|name| name.text());
    table("processed_stats", server, columns, series, |point| {
        let value = |name: &Name| Value::from(name.value(&point.sample, series.step, limit));
        names.iter().map(value).collect()
    })
}

pub(super) async fn processed_stats(
    State(api): State<Api>,
    OwnerOr404(owner): OwnerOr404,
    asked: Asked,
) -> Answer<[Table; 1]> {
    let (names, cache) = (asked.names()?, owner.cache_ref());
    let (cache, series) =
        api.call(move |control| control.series(&cache, asked.from, asked.to)).await?;
    let limit = cache.plan.limits.memory_bytes;
    Ok((NO_STORE, Json([processed(&series, None, &names, limit)])))
}

/// Of each server; where there is only one, it has done everything.
pub(super) async fn processed_stats_per_server(
    State(api): State<Api>,
    OwnerOr404(owner): OwnerOr404,
    asked: Asked,
) -> Answer<Vec<Table>> {
    let (names, cache) = (asked.names()?, owner.cache_ref());
    let (from, to) = (asked.from, asked.to);
    let ((cache, whole), (_, servers)) = api
        .call(move |control| {
            Ok((control.series(&cache, from, to)?, control.series_by_server(&cache, from, to)?))
        })
        .await?;
    let limit = cache.plan.limits.memory_bytes;
    let mut tables: Vec<Table> = servers
        .into_iter()
        .map(|of| processed(&of.series, Some(api.server(&of.server)), &names, limit))
        .collect();
    if tables.is_empty() {
        tables.push(processed(&whole, Some(api.server(LOCAL)), &names, limit));
    }
    Ok((NO_STORE, Json(tables)))
}

/// The median of how long requests took at each server, in nanoseconds; of the times in which any did.
pub(super) async fn latency(
    State(api): State<Api>,
    OwnerOr404(_): OwnerOr404,
    asked: Asked,
) -> Answer<Vec<Value>> {
    let series = api.call(move |control| control.latency(asked.from, asked.to)).await?;
    let mut servers: BTreeMap<String, Vec<Value>> =
        api.servers().into_iter().map(|server| (server, Vec::new())).collect();
    for (server, points) in series.servers {
        let median = |point: &LatencyPoint| json!([time(point.at), point.histogram.quantile(0.5)]);
        servers.insert(api.server(&server), points.iter().map(median).collect());
    }
    let table = |(server, values): (String, Vec<Value>)| {
        json!({
            "name": "latency",
            "tags": { "server": server },
            "columns": ["time", "duration"],
            "values": values,
        })
    };
    Ok((NO_STORE, Json(servers.into_iter().map(table).collect())))
}

const COMPOUND: [&str; 5] =
    ["num_keys", "total_size", "total_hits_rate", "total_misses_rate", "total_mutations_rate"];

/// Lookups that found something, those that did not, and what changed items.
const HITS: [Figure; 2] = [Figure::GetHits, Figure::TouchHits];
const MISSES: [Figure; 2] = [Figure::GetMisses, Figure::TouchMisses];
const MUTATIONS: [Figure; 4] =
    [Figure::CmdSet, Figure::DeleteHits, Figure::IncrHits, Figure::DecrHits];

pub(super) async fn compound_stats(
    State(api): State<Api>,
    owner: Owner,
    asked: Asked,
) -> Answer<[Table; 1]> {
    let cache = owner.cache_ref();
    let (_, series) = api.call(move |control| control.series(&cache, asked.from, asked.to)).await?;
    Ok((NO_STORE, Json([compound("compound_stats", &series)])))
}

/// What is held, and how it is asked for.
pub(super) fn compound(name: &'static str, series: &Series) -> Table {
    table(name, None, COMPOUND, series, |point| {
        let rate = |figures: &[Figure]| {
            let sum: u64 = figures.iter().map(|figure| point.sample.get(*figure)).sum();
            Value::from(sum as f64 / series.step.seconds() as f64)
        };
        vec![
            Value::from(point.sample.get(Figure::CurrItems)),
            Value::from(point.sample.get(Figure::Bytes)),
            rate(&HITS),
            rate(&MISSES),
            rate(&MUTATIONS),
        ]
    })
}
