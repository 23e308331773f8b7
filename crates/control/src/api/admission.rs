//! Who may use `/v1`: operators with the installation's token, and owners with a credential of their
//! cache, for what the table of operations gives them.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tenancy::capability::Capability;

use super::Api;
use super::openapi::{OPERATIONS, Who};
use super::problem::Refusal;
use super::v2::basic;
use crate::control::LoggedIn;
use crate::model::{Actor, Cache, CacheRef, Credential};
use crate::server::Peer;

/// Answers to requests without a right token or credential say nothing about what there is.
pub(super) async fn admit(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let asked = Asked::of(&request);
    let actor = match asked.actor(&api).await {
        Ok(actor) => actor,
        Err(refusal) => return refusal.into_response(),
    };
    request.extensions_mut().insert(actor);
    let mut response = next.run(request).await;
    // Answers hold passwords.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What is looked at of a request; its body is left alone.
struct Asked {
    authorization: Option<HeaderValue>,
    method: Method,
    path: String,
    from: IpAddr,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let peer = request.extensions().get::<Peer>();
        Asked {
            authorization: request.headers().get(AUTHORIZATION).cloned(),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            from: peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0),
        }
    }

    async fn actor(self, api: &Api) -> Result<Actor, Refusal> {
        let header = self.authorization.ok_or(Refusal::NoToken)?;
        if let Some(token) = bearer(&header) {
            let is_ours = api.control.is_token(token);
            return if is_ours { Ok(Actor::Operator) } else { Err(Refusal::WrongToken) };
        }
        let (username, password) = basic(&header).ok_or(Refusal::NoToken)?;
        let from = self.from;
        match api.call(move |control| control.log_in(from, &username, &password)).await? {
            LoggedIn::As(found) => {
                let (cache, credential) = &*found;
                let may = owner_may(self.method.as_str(), &self.path, cache, credential);
                if may { Ok(Actor::Owner) } else { Err(Refusal::NotYours) }
            }
            LoggedIn::Wrong => Err(Refusal::WrongToken),
            LoggedIn::TooMany { wait_seconds } => Err(Refusal::TooManyGuesses { wait_seconds }),
        }
    }
}

/// The token of `Authorization: Bearer token`; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked(b"bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn owner_may(method: &str, path: &str, cache: &Cache, credential: &Credential) -> bool {
    let Some(of_cache) = path.strip_prefix("/v1/caches/") else { return false };
    let (named, rest) = of_cache.split_once('/').unwrap_or((of_cache, ""));
    let is_own = match CacheRef::parse(named) {
        Ok(CacheRef::Id(id)) => id == cache.id,
        Ok(CacheRef::Name(name)) => name == cache.name,
        Err(_) => false,
    };
    let is_offered = OPERATIONS.iter().any(|operation| {
        operation.who == Who::Owners
            && operation.method.eq_ignore_ascii_case(method)
            && fits(operation.path, path)
    });
    let manages = method != "GET" && (rest.starts_with("credentials") || rest == "primary");
    is_own
        && is_offered
        && credential.may(Capability::Api)
        && (!manages || cache.may_manage_credentials())
        && (rest != "flush" || credential.may(Capability::Flush))
}

/// Whether a path is of this form.
fn fits(form: &str, path: &str) -> bool {
    let (mut forms, mut parts) = (form.split('/'), path.split('/'));
    loop {
        match (forms.next(), parts.next()) {
            (None, None) => return true,
            (Some(form), Some(part)) if form.starts_with('{') || form == part => (),
            (Some(_) | None, Some(_) | None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_fits_its_form_only() {
        let form = "/v1/caches/{cache}/credentials/{username}";
        assert!(fits(form, "/v1/caches/1/credentials/ANN"));
        for other in
            ["/v1/caches/1/credentials", "/v1/caches/1/credentials/ANN/x", "/v1/caches/1/x/ANN"]
        {
            assert!(!fits(form, other), "{other}");
        }
    }
}
