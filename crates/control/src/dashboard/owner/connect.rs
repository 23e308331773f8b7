//! How to connect: the variables, and code for the usual languages.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::snippets::{SNIPPETS, Snippet};
use super::{CacheFrame, frame};
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::Owner;

#[derive(Template)]
#[template(path = "connect.html")]
struct ConnectPage {
    frame: Frame,
    cache: CacheFrame,
    servers: String,
    username: String,
    choices: Vec<Choice>,
    chosen: &'static Snippet,
    code: String,
}

struct Choice {
    id: &'static str,
    label: &'static str,
    current: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    client: Option<String>,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    owner: Owner,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let asked = asked.client.as_deref();
    let chosen = SNIPPETS.iter().find(|snippet| Some(snippet.id) == asked).unwrap_or(&SNIPPETS[0]);
    let servers = dashboard.api.servers();
    let username = owner.cache.primary.to_string();
    let choice = |snippet: &Snippet| Choice {
        id: snippet.id,
        label: snippet.label,
        current: snippet.id == chosen.id,
    };
    Ok(render(&ConnectPage {
        frame: frame(&owner, "Connect", None),
        cache: CacheFrame::new(&owner, "connect"),
        code: chosen.filled(&servers, &username),
        servers: servers.join(","),
        username,
        choices: SNIPPETS.iter().map(choice).collect(),
        chosen,
    }))
}
