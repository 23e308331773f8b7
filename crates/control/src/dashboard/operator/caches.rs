//! All caches, to be looked through and searched; and one of them as operators see it.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::header::SET_COOKIE;
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use serde::Deserialize;
use tenancy::id::{CacheId, Username};

use super::{OperatorFrame, frame};
use crate::control::Control;
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::owner::plan;
use crate::dashboard::page::{Frame, in_query, render};
use crate::dashboard::session::{CookieFor, LoggedIn, Sent, parse_id, set_cookie};
use crate::dashboard::units;
use crate::error::ControlError;
use crate::model::{Cache, CacheRef, SessionOf, UnixSeconds};

/// Caches on a page: what one looks through before searching.
const PAGE_CACHES: usize = 50;

#[derive(Template)]
#[template(path = "operator_caches.html")]
struct CachesPage {
    frame: Frame,
    operator: OperatorFrame,
    asked: String,
    total: String,
    caches: Vec<Row>,
    next: Option<String>,
    first: Option<String>,
}

struct Row {
    id: u64,
    name: String,
    plan: String,
    enabled: bool,
    username: String,
    created: String,
    used: String,
}

impl Row {
    fn new(cache: &Cache, now: UnixSeconds) -> Self {
        Row {
            id: cache.id.get(),
            name: cache.name.to_string(),
            plan: plan(cache.plan),
            enabled: cache.enabled,
            username: cache.primary.to_string(),
            created: units::time(cache.created_at),
            used: units::ago(cache.used_at, now),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    search: String,
    after: Option<u64>,
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: LoggedIn,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let search = asked.search.trim().to_owned();
    let after = asked.after;
    let (mut found, total, now) = dashboard
        .call({
            let search = search.clone();
            move |control| {
                let found = find(control, &search, CacheId::new(after.unwrap_or(0)))?;
                Ok((found, control.count_caches()?, control.now()))
            }
        })
        .await?;
    let more = found.len() > PAGE_CACHES;
    found.truncate(PAGE_CACHES);
    let encoded = in_query(&search);
    let next = found.last().filter(|_| more);
    let next = next.map(|last| format!("/operator/caches?search={encoded}&after={}", last.id));
    Ok(render(&CachesPage {
        frame: frame(&who, "Caches"),
        operator: OperatorFrame::new(&who, "caches"),
        asked: search,
        total: units::grouped(total),
        caches: found.iter().map(|cache| Row::new(cache, now)).collect(),
        next,
        first: after.map(|_| format!("/operator/caches?search={encoded}")),
    }))
}

/// One more than a page, which tells whether there are more. A number is an id, a username finds its
/// cache, everything else is part of a name.
fn find(control: &Control, search: &str, after: CacheId) -> Result<Vec<Cache>, ControlError> {
    // In no name, and PostgreSQL takes no text with a NUL.
    if search.chars().any(char::is_control) {
        return Ok(Vec::new());
    }
    if let Some(id) = parse_id(search) {
        return match control.cache(&CacheRef::Id(id)) {
            Ok(cache) => Ok(vec![cache]),
            Err(ControlError::UnknownCache(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
    }
    if let Ok(username) = Username::parse(search)
        && let Ok((cache, _)) = control.credential(&username)
    {
        return Ok(vec![cache]);
    }
    control.find_caches(search, after, PAGE_CACHES + 1)
}

#[derive(Template)]
#[template(path = "operator_cache.html")]
struct CachePage {
    frame: Frame,
    operator: OperatorFrame,
    cache: Row,
    cluster: u64,
    servers: String,
    credentials: usize,
    flushes: u64,
    statistics: Vec<(String, String)>,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: LoggedIn,
    Path(cache): Path<String>,
) -> Result<Response, Failure> {
    let id = parse_id(&cache).ok_or(Failure::NoPage)?;
    let (cache, credentials, statistics, now) = dashboard
        .call(move |control| {
            let (cache, credentials) = control.credentials(&CacheRef::Id(id))?;
            let statistics = match control.statistics(&CacheRef::Id(id)) {
                Ok((_, statistics)) => statistics,
                Err(ControlError::DataPlane(_)) => BTreeMap::new(),
                Err(error) => return Err(error),
            };
            Ok((cache, credentials.len(), statistics, control.now()))
        })
        .await?;
    let statistics = statistics.into_iter().map(|(name, count)| (name, units::grouped(count)));
    Ok(render(&CachePage {
        frame: frame(&who, cache.name.as_str()),
        operator: OperatorFrame::new(&who, "caches"),
        cluster: cache.cluster.0,
        servers: dashboard.api.servers().join(", "),
        credentials,
        flushes: cache.flush_generation,
        statistics: statistics.collect(),
        cache: Row::new(&cache, now),
    }))
}

/// Lets an operator see the cache's dashboard as its owner does, under his own name.
pub(super) async fn visit(
    State(dashboard): State<Dashboard>,
    Path(cache): Path<String>,
    Sent { who, .. }: Sent<LoggedIn>,
) -> Result<Response, Failure> {
    let id = parse_id(&cache).ok_or(Failure::NoPage)?;
    let session = dashboard
        .call(move |control| {
            control.cache(&CacheRef::Id(id))?;
            control.begin_session(SessionOf::Visit(who.name, id))
        })
        .await?;
    let cookie = set_cookie(CookieFor::Visit(id), &session, dashboard.is_secure());
    let redirect = Redirect::to(&format!("/dashboard/{id}"));
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), redirect).into_response())
}
