//! `/api/v2/caches/{cache}/…` and, before it, `/api/v1/{cache}/…`: what owners' scripts know from the
//! service that Larder is modelled on. Paths, JSON, codes and oddities are those of its documentation
//! ("Analytics API V2", "Analytics API"); only the test of an alert is new.
//!
//! An owner proves himself by HTTP Basic with a credential of the cache that has the `api` capability.
//!
//! | | |
//! |---|---|
//! | `GET info` | the cache, its servers and its credentials with passwords |
//! | `GET`, `POST credentials` | list, add (201); development caches cannot (403) |
//! | `PATCH`, `DELETE credentials/{username}` | what is omitted from a `PATCH` becomes false |
//! | `POST credentials/primary/{username}` | promote |
//! | `POST rotate_sso` | the new URL of the dashboard |
//! | `POST enable_cache`, `switch_cluster` | |
//! | `POST flush`, `reset_stats` (204), `GET stats` | |
//! | `GET`, `POST alerts`, `GET`, `PUT`, `DELETE alerts/{id}` | the latter two answer 201 |
//! | `POST alerts/{id}/test` | send a message as the alert would (202) |
//! | `GET`, `POST alerts/configs`, `DELETE alerts/configs/{id}` | where messages go |
//! | `GET insight/processed_stats`, `…/per_server`, `insight/latency`, `introspection/compound_stats` | over time |
//! | `GET introspection/popular_items`, `key_stats`, `recent_logs`, `prefixes/…` | what the cache is asked for |
//!
//! `GET /api/v2/openapi.json` tells all of this to programs.
//!
//! Refusals are `code=401, message=Bad user` as text; a wrong number is 400, a wrong password 401, a
//! credential without the capability or of another cache 403. Where the documentation has a 404 for
//! caches that are not there, there is one.

mod alerts;
mod aliases;
mod caches;
mod denied;
mod insight;
mod introspection;
mod openapi;
mod owner;

use axum::Router;
use axum::routing::{delete, get, patch, post};

use super::Api;

pub(in crate::api) use owner::basic;

pub(super) fn routes() -> Router<Api> {
    let cache = Router::new()
        .route("/info", get(caches::info))
        .route("/credentials", get(caches::list_credentials).post(caches::add_credential))
        .route(
            "/credentials/{username}",
            patch(caches::change_capabilities).delete(caches::remove_credential),
        )
        .route("/credentials/primary/{username}", post(caches::promote))
        .route("/rotate_sso", post(caches::rotate_sso))
        .route("/enable_cache", post(caches::enable))
        .route("/switch_cluster", post(caches::switch_cluster))
        .route("/flush", post(caches::flush))
        .route("/reset_stats", post(caches::reset_statistics))
        .route("/stats", get(caches::statistics))
        .route("/alerts", get(alerts::list).post(alerts::add))
        .route("/alerts/configs", get(alerts::list_deliveries).post(alerts::add_delivery))
        .route("/alerts/configs/{id}", delete(alerts::remove_delivery))
        .route("/alerts/{id}", get(alerts::show).put(alerts::change).delete(alerts::remove))
        .route("/alerts/{id}/test", post(alerts::try_out))
        .route("/insight/processed_stats", get(insight::processed_stats))
        .route("/insight/processed_stats/per_server", get(insight::processed_stats_per_server))
        .route("/insight/latency", get(insight::latency))
        .route("/introspection/compound_stats", get(insight::compound_stats))
        .route("/introspection/recent_logs", get(introspection::recent_logs))
        .route("/introspection/popular_items", get(introspection::popular_items))
        .route("/introspection/key_stats", get(introspection::key_stats))
        .route(
            "/introspection/prefixes",
            get(introspection::list_prefixes).post(introspection::watch_prefix),
        )
        .route("/introspection/prefixes/{id}", delete(introspection::unwatch_prefix))
        .route("/introspection/prefixes/{id}/stats", get(introspection::prefix_stats))
        .route(
            "/introspection/prefixes/{id}/popular_items",
            get(introspection::prefix_popular_items),
        );
    Router::new()
        .nest("/api/v2/caches/{cache}", cache)
        // Says nothing that is not in the source.
        .route("/api/v2/openapi.json", get(openapi::serve))
        .merge(aliases::routes())
}
