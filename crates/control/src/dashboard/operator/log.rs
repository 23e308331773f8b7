//! The audit log: who did what, the newest first.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::{OperatorFrame, frame};
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::LoggedIn;
use crate::dashboard::units;

/// Lines on a page.
const PAGE_LINES: usize = 100;

#[derive(Template)]
#[template(path = "operator_log.html")]
struct LogPage {
    frame: Frame,
    operator: OperatorFrame,
    lines: Vec<Line>,
    older: Option<u64>,
    is_newest: bool,
}

struct Line {
    at: String,
    actor: String,
    action: String,
    cache: Option<(u64, String)>,
    username: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// Only lines with a smaller number than this.
    before: Option<u64>,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: LoggedIn,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let before = asked.before.unwrap_or(u64::MAX);
    let mut entries =
        dashboard.call(move |control| control.audit_before(before, PAGE_LINES + 1)).await?;
    let more = entries.len() > PAGE_LINES;
    entries.truncate(PAGE_LINES);
    let older = entries.last().filter(|_| more).map(|entry| entry.id);
    let line = |entry: crate::database::AuditEntry| Line {
        at: units::time(entry.at),
        actor: entry.actor,
        action: entry.action,
        cache: entry.cache.zip(entry.cache_name),
        username: entry.username.unwrap_or_default(),
        detail: entry.detail,
    };
    Ok(render(&LogPage {
        frame: frame(&who, "Audit log"),
        operator: OperatorFrame::new(&who, "log"),
        lines: entries.into_iter().map(line).collect(),
        older,
        is_newest: asked.before.is_none(),
    }))
}
