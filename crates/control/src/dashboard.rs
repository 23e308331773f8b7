//! The dashboard: pages for the owners of caches, and for operators. Server-rendered; a little script
//! only keeps them fresh.
//!
//! | | |
//! |---|---|
//! | `GET /` | says where to go |
//! | `GET /sso/{cache}/{secret}` | the persistent URL of a cache's dashboard: begins a session |
//! | `/dashboard/{cache}/…` | the pages of one cache, for whoever has a session of it ([`owner`]) |
//! | `/operator/…` | login and pages of operators ([`operator`]) |
//! | `GET /assets/…` | style, script and icon, compiled in |
//!
//! ```text
//!  request ─▶ limits, headers ─▶ session from the cookie ─▶ form and its token ─▶ one call of Control
//!                                     │ wrong or over               │ missing            │
//!                                     └──▶ a page that says so ◀────┴────────────────────┴─▶ page or redirect
//! ```
//!
//! Who is let in: [`session`]. What a page may load and do: [`headers`]. Pages are askama templates in
//! `templates/`, which escape all they are given. Everything works without the script, and an act that
//! loses something asks first, on a page of its own.

mod assets;
mod chart;
mod failure;
mod headers;
mod operator;
mod owner;
mod page;
mod session;
mod units;

use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::middleware::from_fn;
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::api::Api;
use crate::control::Control;
use crate::error::ControlError;
use failure::Failure;

/// Passwords that are checked at one time: each takes 19 MiB and a core for some 30 ms.
const LOGINS_MAX: usize = 2;

/// What every handler has.
#[derive(Clone)]
struct Dashboard {
    api: Api,
    control: Arc<Control>,
    logins: Arc<Semaphore>,
}

/// Every page. Mounted beside `/v1` and `/api`, within their limits of time and size, and without the
/// bearer token that those ask for.
pub(crate) fn routes(api: &Api) -> Router<Api> {
    let dashboard = Dashboard {
        api: api.clone(),
        control: Arc::clone(&api.control),
        logins: Arc::new(Semaphore::new(LOGINS_MAX)),
    };
    let pages = Router::new()
        .route("/", get(owner::entrance))
        .route("/sso/{cache}/{secret}", get(owner::enter))
        .nest("/dashboard", owner::routes().fallback(unknown))
        .nest("/operator", operator::routes().fallback(unknown))
        .layer(from_fn(headers::protect))
        .with_state(dashboard);
    pages.nest("/assets", assets::routes())
}

async fn unknown(_: Uri) -> Failure {
    Failure::NoPage
}

impl Dashboard {
    /// Runs one call of [`Control`] where it may block.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Control) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Failure> {
        Ok(self.api.call(call).await?)
    }

    /// Whether browsers reach us over TLS: then cookies go no other way.
    fn is_secure(&self) -> bool {
        self.api.settings.public_url.starts_with("https://")
    }
}

#[cfg(test)]
mod tests;
