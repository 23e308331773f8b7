//! `/api/v1/{cache}/…`: the API before, for old scripts. Its credentials are named by number or by
//! username, and its only refusal is 403.

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tenancy::capability::{Capabilities, Capability};
use tenancy::id::Username;

use super::super::Api;
use super::caches::{Answer, CapabilitySet, NO_STORE, flush_as, managing, parse, statistics_of};
use super::denied::Denied;
use super::owner::{Owner, Someone, path_parameter};
use crate::error::ControlError;
use crate::model::{CapabilityChange, Credential, Issued};

const NOT_AUTHORIZED: &str = "You are not authorized to perform this action.";

pub(super) fn routes() -> Router<Api> {
    let cache = Router::new()
        .route("/stats", get(statistics))
        .route("/flush", post(flush))
        .route("/credentials", get(list_credentials).post(add_credential))
        .route(
            "/credentials/{credential}",
            post(change_capabilities).patch(change_capabilities).delete(remove_credential),
        )
        .route("/credentials/primary/{credential}", post(promote).delete(remove_credential));
    Router::new()
        .route("/api/login", get(login))
        .route("/api/v1/login", get(login))
        .nest("/api/v1/{cache}", cache)
}

/// An owner, refused as it was then.
struct OldOwner(Owner);

impl FromRequestParts<Api> for OldOwner {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        Owner::from_request_parts(parts, api).await.map(OldOwner).map_err(refused)
    }
}

fn refused(denied: Denied) -> Denied {
    match denied {
        Denied::BadUser | Denied::Forbidden(_) => Denied::Forbidden(NOT_AUTHORIZED),
        Denied::Wrong(_) | Denied::TooMany { .. } | Denied::NoCache | Denied::Other(_) => denied,
    }
}

/// The credential that the path names.
struct Which(String);

impl FromRequestParts<Api> for Which {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        path_parameter(parts, api, "credential").await.map(Which)
    }
}

impl Which {
    /// By number or by username; usernames may be digits, too, and then win.
    async fn username(self, api: &Api, owner: &Owner) -> Result<Username, Denied> {
        let cache = owner.cache_ref();
        let (_, credentials) = api.call(move |control| control.credentials(&cache)).await?;
        let by_name = credentials.iter().find(|one| one.username.as_str() == self.0);
        let by_number = || {
            let number: u64 = self.0.parse().ok()?;
            credentials.iter().find(|one| one.id == number)
        };
        let found = by_name.or_else(by_number);
        found.map(|one| one.username).ok_or(Denied::Forbidden(NOT_AUTHORIZED))
    }
}

async fn login(State(_): State<Api>, who: Result<Someone, Denied>) -> Answer<Value> {
    let Someone { cache, credential } = who.map_err(refused)?;
    if !credential.may(Capability::Api) {
        return Err(Denied::Forbidden(NOT_AUTHORIZED));
    }
    Ok((NO_STORE, Json(json!({ "cache_id": cache.id.get() }))))
}

/// Under each server's name what the whole cache has: every proxy of a cluster sees all of it.
async fn statistics(
    State(api): State<Api>,
    OldOwner(owner): OldOwner,
) -> Answer<Map<String, Value>> {
    let statistics = Value::Object(statistics_of(&api, &owner).await?);
    let server = api.servers().into_iter().next().unwrap_or_else(|| "larder".to_owned());
    Ok((NO_STORE, Json(Map::from_iter([(server, statistics)]))))
}

async fn flush(State(api): State<Api>, OldOwner(owner): OldOwner) -> Result<StatusCode, Denied> {
    flush_as(&api, &owner).await.map_err(refused)?;
    Ok(StatusCode::OK)
}

/// A credential without its password.
fn view(credential: &Credential, id: Option<u64>) -> Value {
    json!({
        "cache_id": credential.cache.get(),
        "id": id,
        "sasl_username": credential.username.as_str(),
        "uuid": null,
        "flush_capability": credential.may(Capability::Flush),
        "write_capability": credential.may(Capability::Write),
        "api_capability": credential.may(Capability::Api),
        "primary": credential.primary,
    })
}

async fn list_credentials(State(api): State<Api>, OldOwner(owner): OldOwner) -> Answer<Value> {
    let cache = owner.cache_ref();
    let (_, credentials) = api.call(move |control| control.credentials(&cache)).await?;
    Ok((NO_STORE, Json(credentials.iter().map(|one| view(one, Some(one.id))).collect())))
}

async fn add_credential(
    State(api): State<Api>,
    OldOwner(owner): OldOwner,
) -> Result<([(HeaderName, &'static str); 1], Json<Value>), Denied> {
    managing(&owner).map_err(refused)?;
    let (by, cache) = (owner.by(), owner.cache_ref());
    let added =
        api.call(move |control| control.add_credential(by, &cache, Capabilities::ALL)).await?;
    let (_, Issued { credential, secret }) = added.value;
    // The documentation's answer has no number here, though the list has.
    let mut made = view(&credential, None);
    made["sasl_password"] = secret.reveal().into();
    Ok((NO_STORE, Json(made)))
}

/// Here, what is left out stays.
async fn change_capabilities(
    State(api): State<Api>,
    OldOwner(owner): OldOwner,
    which: Which,
    body: Bytes,
) -> Answer<CapabilitySet> {
    managing(&owner).map_err(refused)?;
    let username = which.username(&api, &owner).await?;
    let said: Map<String, Value> = parse(&body)?;
    let wish = parse::<CapabilitySet>(&body)?.change();
    let names = Capability::ALL.into_iter();
    let said = names.filter(|one| said.contains_key(&format!("{one}_capability"))).collect();
    let only = |some: Capabilities, said: Capabilities| -> Capabilities {
        some.iter().filter(|one| said.has(*one)).collect()
    };
    let change = CapabilityChange { allow: only(wish.allow, said), deny: only(wish.deny, said) };
    let (by, cache) = (owner.by(), owner.cache_ref());
    let changed =
        api.call(move |control| control.change_capabilities(by, &cache, &username, change)).await?;
    Ok((NO_STORE, Json(CapabilitySet::new(changed.value.capabilities))))
}

async fn promote(State(api): State<Api>, OldOwner(owner): OldOwner, which: Which) -> Answer<Value> {
    managing(&owner).map_err(refused)?;
    let username = which.username(&api, &owner).await?;
    let (by, cache) = (owner.by(), owner.cache_ref());
    let promoted = api.call(move |control| control.promote(by, &cache, &username)).await?;
    Ok((NO_STORE, Json(view(&promoted.value, None))))
}

async fn remove_credential(
    State(api): State<Api>,
    OldOwner(owner): OldOwner,
    which: Which,
) -> Result<StatusCode, Denied> {
    managing(&owner).map_err(refused)?;
    let username = which.username(&api, &owner).await?;
    let (by, cache) = (owner.by(), owner.cache_ref());
    let removed = api
        .call(move |control| match control.remove_credential(by, &cache, &username) {
            Err(ControlError::PrimaryStays { .. }) => Ok(false),
            removed => removed.map(|_| true),
        })
        .await?;
    if removed { Ok(StatusCode::OK) } else { Err(Denied::Forbidden(NOT_AUTHORIZED)) }
}
