//! A cache, its credentials and its commands: J01 to J12 of the contracts.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderName, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use tenancy::capability::{Capabilities, Capability};

use super::super::Api;
use super::denied::Denied;
use super::owner::{Named, Owner, OwnerOr404};
use crate::model::{Actor, Cache, CapabilityChange, Issued};

/// Answers hold passwords.
pub(super) const NO_STORE: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

pub(super) type Answer<T> = Result<([(HeaderName, &'static str); 1], Json<T>), Denied>;

#[derive(Debug, Serialize)]
pub(super) struct Info {
    id: u64,
    name: String,
    label: String,
    cache_type: &'static str,
    /// Bytes.
    plan: u64,
    provider: &'static str,
    enabled: bool,
    cluster_name: String,
    servers: Vec<String>,
    credentials: Vec<CredentialSet>,
    can_switch: bool,
    can_manage_credentials: bool,
    can_update_capabilities: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct CredentialSet {
    id: u64,
    cache_id: u64,
    sasl_username: String,
    sasl_password: String,
    write_capability: bool,
    flush_capability: bool,
    api_capability: bool,
    primary: bool,
}

impl CredentialSet {
    fn new(issued: &Issued) -> Self {
        let credential = &issued.credential;
        CredentialSet {
            id: credential.id,
            cache_id: credential.cache.get(),
            sasl_username: credential.username.to_string(),
            sasl_password: issued.secret.reveal().to_owned(),
            write_capability: credential.may(Capability::Write),
            flush_capability: credential.may(Capability::Flush),
            api_capability: credential.may(Capability::Api),
            primary: credential.primary,
        }
    }
}

pub(super) async fn info(State(api): State<Api>, owner: Owner) -> Answer<Info> {
    let (cache, cluster) = (owner.cache_ref(), owner.cache.cluster);
    let ((cache, issued), cluster) =
        api.call(move |control| Ok((control.issued(&cache)?, control.cluster(cluster)?))).await?;
    let may_manage = cache.may_manage_credentials();
    let info = Info {
        id: cache.id.get(),
        name: cache.name.to_string(),
        label: cache.name.to_string(),
        cache_type: "memcachier",
        plan: cache.plan.limits.memory_bytes,
        provider: "larder",
        enabled: cache.enabled,
        cluster_name: cluster.name.to_string(),
        servers: api.servers(),
        credentials: issued.iter().map(CredentialSet::new).collect(),
        can_switch: can_switch(&cache),
        can_manage_credentials: may_manage,
        can_update_capabilities: may_manage,
    };
    Ok((NO_STORE, Json(info)))
}

pub(super) async fn list_credentials(
    State(api): State<Api>,
    owner: Owner,
) -> Answer<Vec<CredentialSet>> {
    let cache = owner.cache_ref();
    let (_, issued) = api.call(move |control| control.issued(&cache)).await?;
    Ok((NO_STORE, Json(issued.iter().map(CredentialSet::new).collect())))
}

pub(super) async fn add_credential(
    State(api): State<Api>,
    owner: Owner,
) -> Result<(StatusCode, [(HeaderName, &'static str); 1], Json<CredentialSet>), Denied> {
    managing(&owner)?;
    let (by, cache) = (owner.by(), owner.cache_ref());
    let added =
        api.call(move |control| control.add_credential(by, &cache, Capabilities::ALL)).await?;
    let (_, issued) = added.value;
    Ok((StatusCode::CREATED, NO_STORE, Json(CredentialSet::new(&issued))))
}

/// What an owner may say of capabilities: what he leaves out is false.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct CapabilitySet {
    #[serde(default, deserialize_with = "truth")]
    flush_capability: bool,
    #[serde(default, deserialize_with = "truth")]
    write_capability: bool,
    #[serde(default, deserialize_with = "truth")]
    api_capability: bool,
}

/// A truth value, or its name as text: the documentation's own examples send `"false"`.
pub(super) fn truth<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    match Value::deserialize(from)? {
        Value::Bool(truth) => Ok(truth),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(serde::de::Error::custom("a capability is true or false"))
        }
    }
}

impl CapabilitySet {
    pub(super) fn new(capabilities: Capabilities) -> Self {
        CapabilitySet {
            flush_capability: capabilities.has(Capability::Flush),
            write_capability: capabilities.has(Capability::Write),
            api_capability: capabilities.has(Capability::Api),
        }
    }

    pub(super) fn change(&self) -> CapabilityChange {
        let those = |given: bool| {
            let said = [
                (Capability::Flush, self.flush_capability),
                (Capability::Write, self.write_capability),
                (Capability::Api, self.api_capability),
            ];
            said.into_iter().filter(|(_, is)| *is == given).map(|(one, _)| one).collect()
        };
        CapabilityChange { allow: those(true), deny: those(false) }
    }
}

pub(super) async fn change_capabilities(
    State(api): State<Api>,
    owner: Owner,
    Named(username): Named,
    body: Bytes,
) -> Answer<CapabilitySet> {
    managing(&owner)?;
    let change = parse::<CapabilitySet>(&body)?.change();
    let (by, cache) = (owner.by(), owner.cache_ref());
    let changed =
        api.call(move |control| control.change_capabilities(by, &cache, &username, change)).await?;
    Ok((NO_STORE, Json(CapabilitySet::new(changed.value.capabilities))))
}

pub(super) async fn remove_credential(
    State(api): State<Api>,
    owner: Owner,
    Named(username): Named,
) -> Result<StatusCode, Denied> {
    managing(&owner)?;
    let (by, cache) = (owner.by(), owner.cache_ref());
    api.call(move |control| control.remove_credential(by, &cache, &username)).await?;
    Ok(StatusCode::OK)
}

pub(super) async fn promote(
    State(api): State<Api>,
    owner: Owner,
    Named(username): Named,
) -> Answer<CredentialSet> {
    managing(&owner)?;
    let (by, cache) = (owner.by(), owner.cache_ref());
    let issued = api
        .call(move |control| {
            control.promote(by, &cache, &username)?;
            let (_, issued) = control.issued(&cache)?;
            Ok(issued.into_iter().find(|one| one.credential.username == username))
        })
        .await?;
    // Someone may have removed it in between.
    let issued = issued.ok_or_else(|| Denied::Wrong("No such credentials".to_owned()))?;
    Ok((NO_STORE, Json(CredentialSet::new(&issued))))
}

/// Answers with the new URL of the dashboard; the one before opens nothing any more.
pub(super) async fn rotate_sso(State(api): State<Api>, owner: Owner) -> Answer<String> {
    let cache = owner.cache_ref();
    let (cache, secret) =
        api.call(move |control| control.rotate_dashboard_secret(Actor::Owner, &cache)).await?;
    Ok((NO_STORE, Json(api.settings.dashboard_url(cache.id, &secret))))
}

pub(super) async fn enable(State(api): State<Api>, owner: Owner) -> Result<StatusCode, Denied> {
    let (by, cache) = (owner.by(), owner.cache_ref());
    api.call(move |control| control.set_enabled(by, &cache, true)).await?;
    Ok(StatusCode::OK)
}

/// No cache can: moving one to another cluster with its items is the operators' business.
const fn can_switch(_: &Cache) -> bool {
    false
}

pub(super) async fn switch_cluster(owner: Owner) -> Result<StatusCode, Denied> {
    debug_assert!(!can_switch(&owner.cache));
    Err(Denied::Forbidden("This cache cannot switch clusters"))
}

pub(super) async fn flush(
    State(api): State<Api>,
    OwnerOr404(owner): OwnerOr404,
) -> Result<StatusCode, Denied> {
    flush_as(&api, &owner).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn flush_as(api: &Api, owner: &Owner) -> Result<(), Denied> {
    if !owner.credential.may(Capability::Flush) {
        return Err(Denied::Forbidden("These credentials do not have the flush capability"));
    }
    let (by, cache) = (owner.by(), owner.cache_ref());
    api.call(move |control| control.flush_cache(by, &cache)).await?;
    Ok(())
}

pub(super) async fn reset_statistics(
    State(api): State<Api>,
    OwnerOr404(owner): OwnerOr404,
) -> Result<StatusCode, Denied> {
    let cache = owner.cache_ref();
    api.call(move |control| control.reset_statistics(&cache)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Every name that `stats` tells, in the documentation's order.
const STATISTICS: [&str; 31] = [
    "auth_cmds",
    "auth_errors",
    "bytes",
    "bytes_read",
    "bytes_written",
    "cas_badval",
    "cas_hits",
    "cas_misses",
    "cmd_delete",
    "cmd_flush",
    "cmd_get",
    "cmd_set",
    "cmd_touch",
    "curr_connections",
    "curr_items",
    "decr_hits",
    "decr_misses",
    "delete_hits",
    "delete_misses",
    "evictions",
    "expired",
    "get_hits",
    "get_misses",
    "incr_hits",
    "incr_misses",
    "limit_maxbytes",
    "time",
    "total_connections",
    "total_items",
    "touch_hits",
    "touch_misses",
];

pub(super) async fn statistics(
    State(api): State<Api>,
    OwnerOr404(owner): OwnerOr404,
) -> Answer<Map<String, Value>> {
    Ok((NO_STORE, Json(statistics_of(&api, &owner).await?)))
}

pub(super) async fn statistics_of(api: &Api, owner: &Owner) -> Result<Map<String, Value>, Denied> {
    let cache = owner.cache_ref();
    let (now, found) =
        api.call(move |control| Ok((control.now(), control.statistics(&cache)?.1))).await?;
    let figure = |name: &str| found.get(name).copied();
    let of = |name: &str| match name {
        "time" => now.0,
        "cmd_delete" => figure("delete_hits").unwrap_or(0) + figure("delete_misses").unwrap_or(0),
        // Every login that succeeded opened a connection of this cache.
        "auth_cmds" => {
            figure("total_connections").unwrap_or(0) + figure("auth_errors").unwrap_or(0)
        }
        name => figure(name).unwrap_or(0),
    };
    Ok(STATISTICS.iter().map(|name| ((*name).to_owned(), Value::from(of(name)))).collect())
}

/// Development caches keep their one credential as it is.
pub(super) fn managing(owner: &Owner) -> Result<(), Denied> {
    if owner.cache.may_manage_credentials() {
        Ok(())
    } else {
        Err(Denied::Forbidden("Not allowed to manage credentials"))
    }
}

/// The JSON of a body; an absent one counts as `{}`. Unknown fields are left alone, as in the service
/// that this is modelled on.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Denied> {
    let json = if body.is_empty() { &b"{}"[..] } else { body };
    serde_json::from_slice(json)
        .map_err(|error| Denied::Wrong(format!("The body is not what is asked: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_becomes_false() {
        let change = parse::<CapabilitySet>(b"{}").expect("good").change();
        assert_eq!(change.apply(Capabilities::ALL), Capabilities::NONE);
        let text = br#"{"write_capability": true, "flush_capability": "false"}"#;
        let change = parse::<CapabilitySet>(text).expect("good").change();
        assert_eq!(change.apply(Capabilities::ALL).to_string(), "write");
        assert!(parse::<CapabilitySet>(br#"{"api_capability": 1}"#).is_err());
    }

    #[test]
    fn the_names_are_sorted_and_no_two_are_alike() {
        assert!(STATISTICS.is_sorted());
        assert!(STATISTICS.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
