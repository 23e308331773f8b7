//! The pages that people see, beside the API that programs use: on the same listener, with the same calls
//! of [`crate::control::Control`].

use axum::Router;

use crate::api::Api;

/// Every path of the dashboard. Mounted beside `/v1` and `/api`, without the bearer token that those
/// ask for: the pages have sessions of their own.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
}
