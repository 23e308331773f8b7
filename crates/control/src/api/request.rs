//! From the parts of an HTTP request to checked values; what is wrong becomes a [`Refusal`].

use axum::RequestExt;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use tenancy::id::Username;

use super::BODY_BYTES_MAX;
use super::problem::Refusal;
use crate::model::CacheRef;

/// A JSON body. An absent one counts as `{}`, so that a `POST` without wishes needs none. The
/// content type does not matter: whoever has the token means it.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let bytes = request.extract::<Bytes, _>().await.map_err(unread_body)?;
        let json = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
        serde_json::from_slice(json)
            .map(Body)
            .map_err(|error| Refusal::BadRequest(format!("the body is not what is asked: {error}")))
    }
}

pub(super) fn unread_body(rejection: BytesRejection) -> Refusal {
    if let BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) = rejection {
        return Refusal::TooLarge { max: BODY_BYTES_MAX };
    }
    Refusal::BadRequest(format!("the body could not be read: {rejection}"))
}

/// The cache that the path names.
pub(super) struct OfCache(pub(super) CacheRef);

impl<S: Send + Sync> FromRequestParts<S> for OfCache {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "cache").await?;
        CacheRef::parse(&text).map(OfCache).map_err(|error| Refusal::BadRequest(error.to_string()))
    }
}

/// The credential that the path names.
pub(super) struct OfUser(pub(super) Username);

impl<S: Send + Sync> FromRequestParts<S> for OfUser {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "username").await?;
        parse_username(&text).map(OfUser)
    }
}

pub(super) fn parse_username(text: &str) -> Result<Username, Refusal> {
    Username::parse(text).map_err(|error| Refusal::BadRequest(error.to_string()))
}

/// The number that the path names something by.
pub(super) struct OfId(pub(super) u64);

impl<S: Send + Sync> FromRequestParts<S> for OfId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "id").await?;
        let wrong = |_| Refusal::BadRequest(format!("{text:?} is not a number"));
        text.parse().map(OfId).map_err(wrong)
    }
}

async fn path_parameter<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<String, Refusal> {
    let parameters = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|error| Refusal::BadRequest(error.to_string()))?;
    let found = parameters.iter().find(|(key, _)| *key == name);
    Ok(found.map(|(_, value)| value.to_owned()).unwrap_or_default())
}

/// The parameters after the `?`.
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(rejection) => Err(Refusal::BadRequest(rejection.body_text())),
        }
    }
}
