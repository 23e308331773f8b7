//! Which caches weigh most: by memory, requests and connections.

use std::cmp::Reverse;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use tenancy::id::CacheId;
use wire::control::usage::Figure;

use super::{OperatorFrame, frame};
use crate::control::Control;
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::LoggedIn;
use crate::dashboard::units;
use crate::error::ControlError;
use crate::model::{Cache, CacheRef};
use crate::usage::CacheUsage;

/// Caches in each list.
const TOP: usize = 20;

const REQUESTS: &[Figure] = &[
    Figure::CmdGet,
    Figure::CmdSet,
    Figure::CmdTouch,
    Figure::DeleteHits,
    Figure::DeleteMisses,
    Figure::IncrHits,
    Figure::IncrMisses,
    Figure::DecrHits,
    Figure::DecrMisses,
];

#[derive(Template)]
#[template(path = "operator_top.html")]
struct TopPage {
    frame: Frame,
    operator: OperatorFrame,
    lists: Vec<List>,
}

struct List {
    title: &'static str,
    column: &'static str,
    rows: Vec<Row>,
}

struct Row {
    id: u64,
    name: String,
    plan: String,
    amount: String,
}

impl Row {
    fn new(cache: &Cache, amount: String) -> Self {
        Row {
            id: cache.id.get(),
            name: cache.name.to_string(),
            plan: crate::dashboard::owner::plan(cache.plan),
            amount,
        }
    }
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: LoggedIn,
) -> Result<Response, Failure> {
    let lists = dashboard.call(lists).await?;
    let (frame, operator) = (frame(&who, "Top caches"), OperatorFrame::new(&who, "top"));
    Ok(render(&TopPage { frame, operator, lists }))
}

fn lists(control: &Control) -> Result<Vec<List>, ControlError> {
    let usages = control.usages()?;
    let list = |title, column, figures, say: fn(u64) -> String| {
        let mut rows = Vec::with_capacity(TOP);
        for (id, amount) in top(&usages, figures) {
            match control.cache(&CacheRef::Id(id)) {
                Ok(cache) => rows.push(Row::new(&cache, say(amount))),
                // Deleted since it was used.
                Err(ControlError::UnknownCache(_)) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(List { title, column, rows })
    };
    Ok(vec![
        list("By memory", "Memory", &[Figure::Bytes], units::bytes)?,
        list("By requests", "Requests", REQUESTS, units::count)?,
        list("By connections", "Connections", &[Figure::CurrConnections], units::count)?,
    ])
}

/// The caches with most of these figures together, the first with most.
fn top(usages: &[(CacheId, CacheUsage)], figures: &[Figure]) -> Vec<(CacheId, u64)> {
    let amount = |usage: &CacheUsage| figures.iter().map(|it| usage.figures.get(*it)).sum::<u64>();
    let mut all: Vec<_> = usages.iter().map(|(id, usage)| (*id, amount(usage))).collect();
    all.retain(|(_, amount)| *amount > 0);
    all.sort_unstable_by_key(|(id, amount)| (Reverse(*amount), *id));
    all.truncate(TOP);
    all
}
