//! Who asks, and for which cache: checked before any handler runs.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tenancy::capability::Capability;
use tenancy::id::{CacheId, Username};

use super::super::Api;
use super::denied::Denied;
use crate::control::LoggedIn;
use crate::error::ControlError;
use crate::model::{Actor, By, Cache, CacheRef, Credential};
use crate::server::Peer;

/// A credential with the `api` capability, of the cache that the path names.
pub(super) struct Owner {
    pub(super) cache: Cache,
    pub(super) credential: Credential,
}

/// The same, where the documentation has a 404 for a cache that is not there.
pub(super) struct OwnerOr404(pub(super) Owner);

/// A good credential of any cache, with the `api` capability or not.
pub(super) struct Someone {
    pub(super) cache: Cache,
    pub(super) credential: Credential,
}

/// Longest `Authorization` that is looked at: a username and a password of ours fill 220 characters.
const AUTHORIZATION_BYTES_MAX: usize = 1_024;

pub(super) const NOT_YOURS: &str = "Forbidden to access cache with this ID";
const NO_API: &str = "These credentials do not have the API capability";

impl Owner {
    pub(super) fn by(&self) -> By {
        Actor::Owner.into()
    }

    pub(super) fn cache_ref(&self) -> CacheRef {
        CacheRef::Id(self.cache.id)
    }
}

impl FromRequestParts<Api> for Owner {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        let asked = cache_id(parts, api).await?;
        let Someone { cache, credential } = Someone::from_request_parts(parts, api).await?;
        if cache.id != asked {
            return Err(Denied::Forbidden(NOT_YOURS));
        }
        if !credential.may(Capability::Api) {
            return Err(Denied::Forbidden(NO_API));
        }
        Ok(Owner { cache, credential })
    }
}

impl FromRequestParts<Api> for OwnerOr404 {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        match Owner::from_request_parts(parts, api).await {
            Ok(owner) => Ok(OwnerOr404(owner)),
            Err(Denied::Forbidden(NOT_YOURS)) => {
                let cache = CacheRef::Id(cache_id(parts, api).await?);
                match api.call(move |control| Ok(control.cache(&cache))).await? {
                    Err(ControlError::UnknownCache(_)) => Err(Denied::NoCache),
                    Ok(_) | Err(_) => Err(Denied::Forbidden(NOT_YOURS)),
                }
            }
            Err(denied) => Err(denied),
        }
    }
}

impl FromRequestParts<Api> for Someone {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        let header = parts.headers.get(AUTHORIZATION).ok_or(Denied::BadUser)?;
        let (username, password) = basic(header).ok_or(Denied::BadUser)?;
        let from =
            parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
        match api.call(move |control| control.log_in(from, &username, &password)).await? {
            LoggedIn::As(found) => {
                let (cache, credential) = *found;
                Ok(Someone { cache, credential })
            }
            LoggedIn::Wrong => Err(Denied::BadUser),
            LoggedIn::TooMany { wait_seconds } => Err(Denied::TooMany { wait_seconds }),
        }
    }
}

/// The cache that the path names; 400 when it is no number.
async fn cache_id(parts: &mut Parts, api: &Api) -> Result<CacheId, Denied> {
    let wrong = || Denied::Wrong("The specified cache ID is invalid (not a number)".to_owned());
    let text = path_parameter(parts, api, "cache").await.map_err(|_| wrong())?;
    text.parse().map(CacheId::new).map_err(|_| wrong())
}

/// The number that the path names something by.
pub(super) struct Numbered(pub(super) u64);

impl FromRequestParts<Api> for Numbered {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        let text = path_parameter(parts, api, "id").await?;
        let wrong = |_| Denied::Wrong("The specified ID is invalid (not a number)".to_owned());
        text.parse().map(Numbered).map_err(wrong)
    }
}

/// The credential that the path names, by username.
pub(super) struct Named(pub(super) Username);

impl FromRequestParts<Api> for Named {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        let text = path_parameter(parts, api, "username").await?;
        Username::parse(&text).map(Named).map_err(|error| Denied::Wrong(error.to_string()))
    }
}

pub(super) async fn path_parameter(
    parts: &mut Parts,
    api: &Api,
    name: &str,
) -> Result<String, Denied> {
    let parameters = RawPathParams::from_request_parts(parts, api)
        .await
        .map_err(|error| Denied::Wrong(error.to_string()))?;
    let found = parameters.iter().find(|(key, _)| *key == name);
    Ok(found.map(|(_, value)| value.to_owned()).unwrap_or_default())
}

/// Username and password of `Authorization: Basic …` (RFC 7617).
pub(in crate::api) fn basic(header: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let header = header.as_bytes();
    if header.len() > AUTHORIZATION_BYTES_MAX {
        return None;
    }
    let (scheme, encoded) = header.split_at_checked(b"basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = BASE64.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some((decoded[..colon].to_vec(), decoded[colon + 1..].to_vec()))
}
