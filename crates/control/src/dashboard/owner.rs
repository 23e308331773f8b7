//! The pages of one cache: what its owner sees and does.

mod alerts;
mod charts;
mod connect;
mod credentials;
mod introspection;
mod overview;
mod settings;
mod snippets;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::header::SET_COOKIE;
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tenancy::id::CacheId;

use super::Dashboard;
use super::failure::Failure;
use super::page::{Frame, render};
use super::session::{CookieFor, Owner, Sent, clear_cookie, parse_id, set_cookie};

/// The paths below `/dashboard`.
pub(super) fn routes() -> Router<Dashboard> {
    Router::new()
        .route("/{cache}", get(overview::show))
        .route("/{cache}/live", get(overview::live))
        .route("/{cache}/credentials", get(credentials::show))
        .route("/{cache}/credentials/add", post(credentials::add))
        .route("/{cache}/credentials/capabilities", post(credentials::change))
        .route("/{cache}/credentials/promote", post(credentials::promote))
        .route("/{cache}/credentials/remove", post(credentials::remove))
        .route("/{cache}/introspection", get(introspection::show))
        .route("/{cache}/introspection/live", get(introspection::live))
        .route("/{cache}/introspection/watch", post(introspection::watch))
        .route("/{cache}/introspection/unwatch", post(introspection::unwatch))
        .route("/{cache}/alerts", get(alerts::show))
        .route("/{cache}/alerts/put", post(alerts::put))
        .route("/{cache}/alerts/remove", post(alerts::remove))
        .route("/{cache}/alerts/test", post(alerts::try_out))
        .route("/{cache}/alerts/add-delivery", post(alerts::add_delivery))
        .route("/{cache}/alerts/remove-delivery", post(alerts::remove_delivery))
        .route("/{cache}/connect", get(connect::show))
        .route("/{cache}/settings", get(settings::show))
        .route("/{cache}/settings/enabled", post(settings::set_enabled))
        .route("/{cache}/settings/plan", post(settings::change_plan))
        .route("/{cache}/settings/flush", post(settings::flush))
        .route("/{cache}/settings/rotate", post(settings::rotate))
        .route("/{cache}/leave", post(leave))
}

/// What the pages of a cache have in common, beside the frame.
pub(super) struct CacheFrame {
    id: u64,
    name: String,
    plan: String,
    enabled: bool,
    /// Where in the navigation this page is.
    tab: &'static str,
    /// The operator who looks at the cache as its owner does.
    visitor: Option<String>,
}

impl CacheFrame {
    fn new(owner: &Owner, tab: &'static str) -> Self {
        CacheFrame {
            id: owner.cache.id.get(),
            name: owner.cache.name.to_string(),
            plan: plan(owner.cache.plan),
            enabled: owner.cache.enabled,
            tab,
            visitor: owner.operator.map(|name| name.to_string()),
        }
    }
}

/// `500 MiB`, or `development, 25 MiB`.
pub(super) fn plan(plan: &tenancy::plan::Plan) -> String {
    let memory = super::units::bytes(plan.limits.memory_bytes);
    if plan.name == "dev" { format!("development, {memory}") } else { memory }
}

/// After a form: what was done.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    done: Option<String>,
}

fn frame(owner: &Owner, title: &str, done: Option<&str>) -> Frame {
    Frame::new(format!("{title} – {}", owner.cache.name), &owner.token, done)
}

/// Back to a page of the cache, which says what was done.
fn back(owner: &Owner, page: &str, done: &str) -> Response {
    Redirect::to(&format!("/dashboard/{}/{page}?done={done}", owner.cache.id)).into_response()
}

/// What is asked before something is lost.
struct Question<'a> {
    /// Of the page.
    title: &'a str,
    text: &'a str,
    consequences: &'a [&'a str],
    /// The page that asks, to which one may go back; and where below it the form goes.
    tab: &'static str,
    act: &'static str,
    /// What the form says besides.
    fields: &'a [(&'a str, &'a str)],
    button: &'a str,
}

/// Asks on a page of its own. What its button sends has `confirmed`.
fn ask(owner: &Owner, question: Question<'_>) -> Response {
    #[derive(Template)]
    #[template(path = "confirm.html")]
    struct ConfirmPage<'a> {
        frame: Frame,
        cache: CacheFrame,
        question: Question<'a>,
    }
    render(&ConfirmPage {
        frame: frame(owner, question.title, None),
        cache: CacheFrame::new(owner, question.tab),
        question,
    })
}

/// `GET /`
pub(super) async fn entrance() -> Response {
    #[derive(Template)]
    #[template(path = "entrance.html")]
    struct EntrancePage {
        frame: Frame,
    }
    render(&EntrancePage { frame: Frame::outside("Larder") })
}

/// `GET /sso/{cache}/{secret}`
pub(super) async fn enter(
    State(dashboard): State<Dashboard>,
    Path((cache, secret)): Path<(String, String)>,
    Query(Done { done }): Query<Done>,
) -> Result<Response, Failure> {
    let cache = parse_id(&cache).ok_or(Failure::WrongUrl)?;
    let session = match enter_with(&dashboard, cache, secret).await {
        Err(Failure::Control(crate::error::ControlError::WrongDashboardSecret)) => {
            return Err(Failure::WrongUrl);
        }
        other => other?,
    };
    let cookie = set_cookie(CookieFor::Owner(cache), &session, dashboard.is_secure());
    // Sent here by the settings, whoever rotates the secret goes back there.
    let page = if done.as_deref() == Some("rotated") { "/settings?done=rotated" } else { "" };
    let redirect = Redirect::to(&format!("/dashboard/{cache}{page}"));
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), redirect).into_response())
}

async fn enter_with(
    dashboard: &Dashboard,
    cache: CacheId,
    secret: String,
) -> Result<tenancy::secret::Secret, Failure> {
    dashboard.call(move |control| control.enter_dashboard(cache, &secret)).await
}

/// Ends the session.
async fn leave(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, .. }: Sent<Owner>,
) -> Result<Response, Failure> {
    let id = owner.id.clone();
    dashboard.call(move |control| control.end_session(&id)).await?;
    let cookie = clear_cookie(CookieFor::Owner(owner.cache.id), dashboard.is_secure());
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to("/")).into_response())
}
