//! Style, script and icon: compiled into the program, and named by their content, so that a browser may
//! keep them for good.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::headers::put_always;

struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static [u8],
}

/// Every asset there is.
const ASSETS: &[Asset] = &[
    Asset {
        name: "larder.css",
        kind: "text/css; charset=utf-8",
        content: include_bytes!("../../assets/larder.css"),
    },
    Asset {
        name: "larder.js",
        kind: "text/javascript; charset=utf-8",
        content: include_bytes!("../../assets/larder.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        content: include_bytes!("../../assets/icon.svg"),
    },
];

/// Changes whenever an asset does; part of their URLs.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut digest = Sha256::new();
    ASSETS.iter().for_each(|asset| digest.update(asset.content));
    digest.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
});

pub(super) fn version() -> &'static str {
    &VERSION
}

/// `/{version}/{name}`. Any version finds the asset there is: a page of another process may ask.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/{version}/{name}", get(serve))
}

async fn serve(Path((asked, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "no such asset\n").into_response();
    };
    let mut response = asset.content.into_response();
    let headers = response.headers_mut();
    put_always(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    let keep = if asked == version() { "public, max-age=31536000, immutable" } else { "no-store" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    response
}
