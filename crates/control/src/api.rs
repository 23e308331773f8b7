//! The HTTP API under `/v1`: from a request to one call of [`Control`], and back to JSON or a problem.
//!
//! | | |
//! |---|---|
//! | `GET /healthz`, `GET /readyz` | the process lives; its database answers (no token) |
//! | `GET /v1/plans` | what can be had |
//! | `GET /v1/caches?after=&limit=` | a page of caches |
//! | `POST /v1/caches` | create one, with its first credential |
//! | `GET`, `DELETE /v1/caches/{cache}` | one cache, by id or name |
//! | `PUT /v1/caches/{cache}/plan`, `/enabled`, `/primary` | change the plan; disable, enable; promote |
//! | `POST /v1/caches/{cache}/flush` | forget all items |
//! | `GET /v1/caches/{cache}/stats` | counters and gauges |
//! | `GET /v1/caches/{cache}/series?names=&from=&to=` | figures over time |
//! | `GET /v1/caches/{cache}/latency?from=&to=` | how long requests take at its proxies |
//! | `GET /v1/caches/{cache}/sizes` | what it would hit with more memory, or less |
//! | `GET /v1/openapi.json` | all of this for programs (no token) |
//! | `GET /v1/credentials/{username}` | which cache a credential belongs to |
//! | `GET`, `POST /v1/caches/{cache}/credentials` | list, add; `?passwords=true` shows passwords |
//! | `DELETE /v1/caches/{cache}/credentials/{username}` | remove |
//! | `PATCH /v1/caches/{cache}/credentials/{username}` | give and take capabilities |
//! | `GET`, `POST /v1/clusters` | list, create |
//! | `GET`, `POST /v1/rules`, `DELETE /v1/rules/{id}` | which addresses may come in |
//! | `POST /v1/rules/preview`, `GET /v1/rules/{id}/preview` | whom a rule, or removing one, would cut off |
//! | `GET /v1/audit?after=&limit=` | who did what, oldest first; `?newest=true` for the last lines |
//! | `GET`, `POST /v1/operators`, `DELETE /v1/operators/{username}` | who may log in at the dashboard |
//! | `GET`, `POST /v1/webhooks`, `DELETE /v1/webhooks/{id}` | who hears of changes |
//! | `POST /v1/webhooks/{id}/test` | call it with a body of type `test`; answers the call |
//! | `GET /v1/outbox?state=&limit=` | calls to webhooks: `waiting`, `sent`, `dead` (when not said) |
//! | `GET /v1/outbox/{id}` | one call |
//! | `POST /v1/outbox/{id}/retry` | give a dead call all its attempts again |
//!
//! Owners may use what concerns their own cache, too ([`admission`]); for the scripts they have there are
//! `/api/v2` and `/api/v1` ([`v2`]), people have pages
//! ([`crate::dashboard`]).
//!
//! Requests that change a cache take an `Idempotency-Key` and `?wait=applied`: see [`write`].

mod admission;
mod cluster;
mod handlers;
mod openapi;
mod operators;
pub(crate) mod problem;
mod request;
mod rules;
mod v2;
mod write;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use tenancy::id::CacheId;
use tenancy::secret::Secret;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::applied::{Applied, AppliedHere};
use crate::control::Control;
use crate::dashboard;
use crate::error::ControlError;
use crate::push::PushControl;
use problem::Refusal;

/// The largest request is a list of a few words; this leaves room for white space.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;
/// Requests that may be in the database's queue or in the data plane. Changes run one at a time
/// within milliseconds, so more than these would only wait longer.
pub(crate) const REQUESTS_MAX: usize = 64;
/// When a client hears that its answer does not come: ten times what a busy disk needs.
pub(crate) const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Caches on one page: some 500 KB of JSON.
const PAGE_CACHES_MAX: usize = 1_000;
/// Lines of the audit log on one page.
const PAGE_AUDIT_MAX: usize = 1_000;
/// Calls that are listed at most, and when the client does not say how many.
const CALLS_MAX: usize = 1_000;
/// Longest URL of a webhook in bytes.
const URL_BYTES_MAX: usize = 2_048;
/// Caches on a page when the client does not say.
const PAGE_CACHES: usize = 100;

/// Where Slack's incoming webhooks are.
pub const SLACK_PREFIX: &str = "https://hooks.slack.com/";

/// What the API says about the installation.
#[derive(Clone)]
pub struct ApiSettings {
    /// `host:port` of each proxy, as clients reach it.
    pub servers: Vec<String>,
    /// Who knows how far the nodes have come.
    pub applied: Arc<dyn Applied>,
    /// The nodes of this control plane; `None` where this process serves by itself.
    pub push: Option<Arc<PushControl>>,
    /// How browsers reach the dashboard, such as `https://cache.example`, without a slash at its end.
    pub public_url: String,
    /// How every Slack URL that an owner gives must begin.
    pub slack_prefix: String,
}

impl ApiSettings {
    /// The persistent URL of a cache's dashboard. Whoever has it is its owner.
    pub fn dashboard_url(&self, cache: CacheId, secret: &Secret) -> String {
        format!("{}/sso/{cache}/{}", self.public_url, secret.reveal())
    }
}

impl Default for ApiSettings {
    /// No proxies to tell of, and no node but this process.
    fn default() -> Self {
        ApiSettings {
            servers: Vec::new(),
            applied: Arc::new(AppliedHere),
            push: None,
            public_url: String::new(),
            slack_prefix: SLACK_PREFIX.to_owned(),
        }
    }
}

/// What every handler has.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) control: Arc<Control>,
    pub(crate) settings: Arc<ApiSettings>,
    requests: Arc<Semaphore>,
    request_time_max: Duration,
}

/// The API with the limits above.
pub(crate) fn router(control: Arc<Control>, settings: ApiSettings) -> Router {
    router_with(control, settings, REQUESTS_MAX, REQUEST_TIME_MAX)
}

pub(crate) fn router_with(
    control: Arc<Control>,
    settings: ApiSettings,
    requests_max: usize,
    request_time_max: Duration,
) -> Router {
    let requests = Arc::new(Semaphore::new(requests_max));
    let api = Api { control, settings: Arc::new(settings), requests, request_time_max };
    let v1 = Router::new()
        .route("/v1/plans", get(handlers::plans))
        .route("/v1/audit", get(handlers::list_audit))
        .route("/v1/webhooks", get(handlers::list_webhooks).post(handlers::put_webhook))
        .route("/v1/webhooks/{id}", delete(handlers::delete_webhook))
        .route("/v1/webhooks/{id}/test", post(handlers::test_webhook))
        .route("/v1/outbox/{id}", get(handlers::show_call))
        .route("/v1/outbox", get(handlers::list_calls))
        .route("/v1/outbox/{id}/retry", post(handlers::revive_call))
        .route("/v1/operators", get(operators::list).post(operators::put))
        .route("/v1/rules", get(rules::list).post(rules::put))
        .route("/v1/rules/preview", post(rules::preview))
        .route("/v1/rules/{id}", delete(rules::remove))
        .route("/v1/rules/{id}/preview", get(rules::preview_removal))
        .route("/v1/operators/{username}", delete(operators::remove))
        .route("/v1/clusters", get(handlers::list_clusters).post(handlers::create_cluster))
        .route("/v1/cluster/status", get(cluster::status))
        .route("/v1/cluster/snapshot", post(cluster::push_snapshot))
        .route("/v1/nodes/token", post(cluster::make_token))
        .route("/v1/cluster/members", post(cluster::change_members))
        .route("/v1/cluster/diagnosis", get(cluster::diagnose))
        .route("/v1/caches", get(handlers::list_caches).post(handlers::create_cache))
        .route("/v1/caches/{cache}", get(handlers::show_cache).delete(handlers::delete_cache))
        .route("/v1/caches/{cache}/plan", put(handlers::change_plan))
        .route("/v1/caches/{cache}/rates", put(handlers::limit_rates))
        .route("/v1/caches/{cache}/enabled", put(handlers::set_enabled))
        .route("/v1/caches/{cache}/primary", put(handlers::promote))
        .route("/v1/caches/{cache}/flush", post(handlers::flush_cache))
        .route("/v1/caches/{cache}/stats", get(handlers::statistics))
        .route("/v1/caches/{cache}/series", get(handlers::series))
        .route("/v1/caches/{cache}/latency", get(handlers::latency))
        .route("/v1/caches/{cache}/sizes", get(handlers::sizes))
        .route("/v1/credentials/{username}", get(handlers::find_credential))
        .route(
            "/v1/caches/{cache}/credentials",
            get(handlers::list_credentials).post(handlers::add_credential),
        )
        .route(
            "/v1/caches/{cache}/credentials/{username}",
            delete(handlers::remove_credential).patch(handlers::change_capabilities),
        )
        // Around all of `/v1`, unknown paths too: a stranger does not even learn what exists.
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(from_fn_with_state(api.clone(), admission::admit));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        // Says nothing that is not in the source.
        .route("/v1/openapi.json", get(openapi::serve))
        .merge(v1)
        .merge(v2::routes())
        .merge(dashboard::routes(&api))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(api.clone(), limit_time))
        .with_state(api)
}

/// Covers the body's arrival, too.
async fn limit_time(State(api): State<Api>, request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(api.request_time_max, next.run(request)).await;
    answer.unwrap_or_else(|_| Refusal::Timeout.into_response())
}

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal::UnknownPath { path: uri.path().to_owned() }
}

async fn unknown_method(method: Method, uri: Uri) -> Refusal {
    Refusal::UnknownMethod { method, path: uri.path().to_owned() }
}

async fn ready(State(api): State<Api>) -> Response {
    match api.call(|control| Ok(control.is_ready())).await {
        Ok(true) => "ready\n".into_response(),
        Ok(false) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

impl Api {
    /// Runs one call of [`Control`] where it may block. When the client's time is up the call still
    /// ends, and until then it counts as a request.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Control) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.requests).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let control = Arc::clone(&self.control);
        let called = spawn_blocking(move || {
            let answer = call(&control);
            drop(permit);
            answer
        });
        match called.await {
            Ok(answer) => Ok(answer?),
            Err(broken) => {
                tracing::error!(error = &broken as &dyn std::error::Error, "request panicked");
                Err(Refusal::Broken)
            }
        }
    }
}
