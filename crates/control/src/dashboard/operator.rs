//! The operators' pages: login, and what concerns the whole installation.

mod caches;
mod log;
mod login;
mod nodes;
mod rules;
mod top;

use axum::Router;
use axum::response::Redirect;
use axum::routing::{get, post};

use super::Dashboard;
use super::page::Frame;
use super::session::LoggedIn;

/// The paths below `/operator`.
pub(super) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/", get(home))
        .route("/login", get(login::show).post(login::enter))
        .route("/leave", post(login::leave))
        .route("/caches", get(caches::list))
        .route("/caches/{cache}", get(caches::show))
        .route("/caches/{cache}/visit", post(caches::visit))
        .route("/top", get(top::show))
        .route("/nodes", get(nodes::show))
        .route("/rules", get(rules::list).post(rules::put))
        .route("/rules/{rule}/remove", post(rules::remove))
        .route("/log", get(log::show))
}

async fn home(_: LoggedIn) -> Redirect {
    Redirect::to("/operator/caches")
}

/// What the operators' pages have in common, beside the frame.
pub(super) struct OperatorFrame {
    name: String,
    /// Where in the navigation this page is.
    tab: &'static str,
}

impl OperatorFrame {
    fn new(operator: &LoggedIn, tab: &'static str) -> Self {
        OperatorFrame { name: operator.name.to_string(), tab }
    }
}

fn frame(operator: &LoggedIn, title: &str) -> Frame {
    Frame::new(format!("{title} – Larder operators"), &operator.token, None)
}
