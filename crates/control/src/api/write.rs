//! Requests that change something: what they have in common, and how they are answered.
//!
//! Each takes an `Idempotency-Key` header, under which it is carried out once however often it is sent.
//! What nodes hear of takes `?wait=applied[&timeout=ms]` as well, which holds the answer back until they
//! have it, and is answered with its revision in the header `Larder-Revision`.

use std::time::Duration;

use axum::Json;
use axum::RequestExt;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Api;
use super::problem::Refusal;
use super::request::{Asked, unread_body};
use crate::contract::AppliedView;
use crate::error::ControlError;
use crate::model::{Actor, By, Committed, IDEMPOTENCY_KEY_BYTES_MAX, Once};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REVISION: HeaderName = HeaderName::from_static("larder-revision");
/// What `?wait=applied` waits when it does not say: five times what a node far away needs.
const WAIT: Duration = Duration::from_secs(5);
/// Below the time after which a request is given up as a whole.
const WAIT_MAX: Duration = Duration::from_secs(8);

const _: () = assert!(WAIT_MAX.as_secs() < super::REQUEST_TIME_MAX.as_secs());

/// A request that changes something.
pub(super) struct Write {
    pub(super) by: By,
    wait: Option<Duration>,
    body: Bytes,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    wait: Option<WaitFor>,
    /// Milliseconds.
    timeout: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WaitFor {
    Applied,
}

impl FromRequest<Api> for Write {
    type Rejection = Refusal;

    async fn from_request(mut request: Request, api: &Api) -> Result<Self, Refusal> {
        let Asked(parameters) =
            request.extract_parts_with_state::<Asked<Parameters>, _>(api).await?;
        let wait = parameters.wait()?;
        let key = key(&request)?;
        let actor = request.extensions().get().copied().unwrap_or(Actor::Operator);
        let mut digest = Sha256::new();
        // A method and a path hold no NUL, so no two requests run into one another.
        for part in [request.method().as_str(), request.uri().path()] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        let body = request.extract::<Bytes, _>().await.map_err(unread_body)?;
        digest.update(&body);
        let request_digest = digest.finalize().into();
        let once = key.map(|key| Once { key, request_digest });
        Ok(Write { by: By { actor, once }, wait, body })
    }
}

impl Parameters {
    fn wait(self) -> Result<Option<Duration>, Refusal> {
        let most = WAIT_MAX.as_millis();
        match (self.wait, self.timeout.map(Duration::from_millis)) {
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err(Refusal::BadRequest("timeout is for wait=applied only".to_owned()))
            }
            (Some(WaitFor::Applied), Some(timeout)) if timeout > WAIT_MAX => {
                Err(Refusal::BadRequest(format!("timeout is at most {most} ms")))
            }
            (Some(WaitFor::Applied), timeout) => Ok(Some(timeout.unwrap_or(WAIT))),
        }
    }
}

fn key(request: &Request) -> Result<Option<String>, Refusal> {
    let Some(key) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match key.to_str() {
        Ok(key) if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key.to_owned())),
        Ok(_) | Err(_) => Err(Refusal::BadRequest(format!(
            "an idempotency key is 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable characters"
        ))),
    }
}

impl Write {
    /// On whose behalf a change is made that nodes need not hear of, so that there is nothing to wait
    /// for.
    pub(super) fn of_the_installation(self) -> Result<By, Refusal> {
        match self.wait {
            None => Ok(self.by),
            Some(_) => Err(Refusal::BadRequest(
                "nodes do not hear of this: nothing to wait for".to_owned(),
            )),
        }
    }

    /// The JSON body. An absent one counts as `{}`, so that a `POST` without wishes needs none. The
    /// content type does not matter: whoever has the token means it.
    pub(super) fn wish<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let json = if self.body.is_empty() { &b"{}"[..] } else { &self.body };
        serde_json::from_slice(json)
            .map_err(|error| Refusal::BadRequest(format!("the body is not what is asked: {error}")))
    }
}

/// What the caller is told of a change, apart from how far the nodes have come with it.
pub(super) struct Told<T> {
    status: StatusCode,
    view: Option<T>,
}

impl<T> Told<T> {
    pub(super) fn created(view: T) -> Self {
        Told { status: StatusCode::CREATED, view: Some(view) }
    }

    pub(super) fn done(view: T) -> Self {
        Told { status: StatusCode::OK, view: Some(view) }
    }
}

impl Told<()> {
    pub(super) fn nothing() -> Self {
        Told { status: StatusCode::NO_CONTENT, view: None }
    }
}

impl Api {
    /// Answers a change that was made: `view` is made of what it left behind. With `?wait=applied`
    /// the answer is an object with a field `applied`, also where it otherwise has no body.
    pub(super) async fn written<T, V: Serialize>(
        &self,
        wait: Option<Duration>,
        committed: Committed<T>,
        tell: impl FnOnce(T) -> Told<V>,
    ) -> Result<Response, Refusal> {
        let Committed { value, cluster, revision } = committed;
        let Told { mut status, view } = tell(value);
        let mut body = match view {
            Some(view) => serde_json::to_value(view).map_err(|_| Refusal::Broken)?,
            None => Value::Null,
        };
        if let Some(timeout) = wait {
            let progress = self.settings.applied.wait(cluster, revision, timeout).await;
            if status == StatusCode::NO_CONTENT {
                (status, body) = (StatusCode::OK, json!({}));
            }
            body["applied"] = serde_json::to_value(AppliedView::new(revision, &progress))
                .map_err(|_| Refusal::Broken)?;
        }
        let mut response = if body.is_null() {
            status.into_response()
        } else {
            (status, Json(body)).into_response()
        };
        response.headers_mut().insert(REVISION, HeaderValue::from(revision.get()));
        Ok(response)
    }

    /// Makes a change and answers it.
    pub(super) async fn write<T: Send + 'static, V: Serialize>(
        &self,
        write: Write,
        change: impl FnOnce(&crate::control::Control, By) -> Result<Committed<T>, ControlError>
        + Send
        + 'static,
        tell: impl FnOnce(T) -> Told<V>,
    ) -> Result<Response, Refusal> {
        let Write { by, wait, .. } = write;
        let committed = self.call(move |control| change(control, by)).await?;
        self.written(wait, committed, tell).await
    }
}
