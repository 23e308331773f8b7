//! What a cache is asked for: J18 and J20 to J23 of the contracts, as far as it is sampled.
//!
//! A cache is looked at from the first question on, for as long as there is another one now and then; so
//! the first answer may be empty. A watched prefix is counted from when it is watched.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use wire::control::inquiry::{Command, Popular, Popularity};

use super::super::Api;
use super::caches::{Answer, NO_STORE, parse};
use super::denied::Denied;
use super::insight::{Asked, Table, compound, time};
use super::owner::{Numbered, Owner};
use crate::model::Actor;

/// Keys of a list at most.
const KEYS_MAX: usize = 20;

/// One command of a client, without its value.
#[derive(Debug, Serialize)]
pub(super) struct Log {
    timestamp: String,
    key: String,
    command: String,
    status: &'static str,
    /// Of the value that was found or stored, in bytes.
    size: u32,
}

impl Log {
    fn new(command: Command) -> Self {
        Log {
            timestamp: time(command.at),
            key: String::from_utf8_lossy(&command.key).into_owned(),
            command: command.name,
            status: command.status.name(),
            size: command.value_bytes,
        }
    }
}

/// The last commands at each server, the oldest first.
pub(super) async fn recent_logs(
    State(api): State<Api>,
    owner: Owner,
) -> Answer<BTreeMap<String, Vec<Log>>> {
    let cache = owner.cache_ref();
    let recent = api.call(move |control| control.recent(&cache)).await?;
    let mut logs: BTreeMap<String, Vec<Log>> =
        api.servers().into_iter().map(|server| (server, Vec::new())).collect();
    for (server, commands) in recent {
        logs.insert(api.server(&server), commands.into_iter().map(Log::new).collect());
    }
    Ok((NO_STORE, Json(logs)))
}

#[derive(Debug, Serialize)]
pub(super) struct Item {
    name: String,
    /// About so many requests of late.
    popularity: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct PopularItems {
    /// Unix time in seconds.
    time_slice: u64,
    most_hit_keys: Vec<Item>,
    most_missed_keys: Vec<Item>,
    most_mutated_keys: Vec<Item>,
    popular_prefixes: Vec<Item>,
}

impl PopularItems {
    fn new(now: u64, popular: &Popular, prefix: &[u8]) -> Self {
        let top = |of: &[Popularity], count: fn(&Popularity) -> u64| {
            let of = of.iter().filter(|one| one.text.starts_with(prefix) && count(one) > 0);
            let mut items: Vec<Item> = of
                .map(|one| Item {
                    name: String::from_utf8_lossy(&one.text).into_owned(),
                    popularity: count(one),
                })
                .collect();
            items.sort_by(|a, b| b.popularity.cmp(&a.popularity).then_with(|| a.name.cmp(&b.name)));
            items.truncate(KEYS_MAX);
            items
        };
        PopularItems {
            time_slice: now,
            most_hit_keys: top(&popular.keys, |key| key.hits),
            most_missed_keys: top(&popular.keys, |key| key.misses),
            most_mutated_keys: top(&popular.keys, |key| key.writes),
            popular_prefixes: top(&popular.prefixes, |it| it.hits + it.misses + it.writes),
        }
    }
}

pub(super) async fn popular_items(State(api): State<Api>, owner: Owner) -> Answer<PopularItems> {
    let cache = owner.cache_ref();
    let (now, popular) =
        api.call(move |control| Ok((control.now().0, control.popular(&cache)?))).await?;
    Ok((NO_STORE, Json(PopularItems::new(now, &popular, b""))))
}

#[derive(Debug, Deserialize)]
struct WhichKey {
    key: Option<String>,
}

/// The key that was asked about.
pub(super) struct AboutKey(String);

/// Longest key in bytes, as in memcached.
const KEY_BYTES_MAX: usize = 250;

impl FromRequestParts<Api> for AboutKey {
    type Rejection = Denied;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Denied> {
        let Query(which) = Query::<WhichKey>::from_request_parts(parts, api)
            .await
            .map_err(|rejection| Denied::Wrong(rejection.body_text()))?;
        let key = which.key.filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
        let wrong = || Denied::Wrong(format!("key is 1 to {KEY_BYTES_MAX} bytes"));
        key.map(AboutKey).ok_or_else(wrong)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct KeyStatistics {
    timestamp: String,
    name: String,
    /// Of the value, in bytes.
    size: u64,
    hit_count: u64,
    miss_count: u64,
    mutation_count: u64,
    in_cache: bool,
}

pub(super) async fn key_stats(
    State(api): State<Api>,
    owner: Owner,
    AboutKey(key): AboutKey,
) -> Answer<[KeyStatistics; 1]> {
    let (cache, asked) = (owner.cache_ref(), key.clone());
    let (now, found) = api
        .call(move |control| Ok((control.now().0, control.key(&cache, asked.as_bytes())?)))
        .await?;
    let counted = found.counted.unwrap_or_default();
    let statistics = KeyStatistics {
        timestamp: time(now),
        name: key,
        size: found.value_bytes.unwrap_or(0),
        hit_count: counted.hits,
        miss_count: counted.misses,
        mutation_count: counted.writes,
        in_cache: found.value_bytes.is_some(),
    };
    Ok((NO_STORE, Json([statistics])))
}

#[derive(Debug, Serialize)]
pub(super) struct Prefix {
    id: u64,
    name: String,
}

#[derive(Debug, Deserialize)]
struct PrefixBody {
    name: Option<String>,
}

pub(super) async fn list_prefixes(State(api): State<Api>, owner: Owner) -> Answer<Vec<Prefix>> {
    let cache = owner.cache_ref();
    let prefixes = api.call(move |control| control.prefixes(&cache)).await?;
    let prefixes = prefixes.into_iter().map(|(id, name)| Prefix { id, name });
    Ok((NO_STORE, Json(prefixes.collect())))
}

pub(super) async fn watch_prefix(
    State(api): State<Api>,
    owner: Owner,
    body: Bytes,
) -> Answer<Prefix> {
    let name = parse::<PrefixBody>(&body)?.name.unwrap_or_default();
    if !(1..=KEY_BYTES_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
        return Err(Denied::Wrong(format!("name is 1 to {KEY_BYTES_MAX} printable bytes")));
    }
    let (cache, wanted) = (owner.cache_ref(), name.clone());
    let id = api.call(move |control| control.watch_prefix(Actor::Owner, &cache, &wanted)).await?;
    Ok((NO_STORE, Json(Prefix { id, name })))
}

pub(super) async fn unwatch_prefix(
    State(api): State<Api>,
    owner: Owner,
    Numbered(id): Numbered,
) -> Result<StatusCode, Denied> {
    let cache = owner.cache_ref();
    api.call(move |control| control.unwatch_prefix(Actor::Owner, &cache, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was asked for under a prefix and is held of it, about: by what is sampled of the requests, and,
/// in a large cache, of the items.
pub(super) async fn prefix_stats(
    State(api): State<Api>,
    owner: Owner,
    Numbered(id): Numbered,
    asked: Asked,
) -> Answer<[Table; 1]> {
    prefix(&api, &owner, id).await?;
    let cache = owner.cache_ref();
    let (from, to) = (asked.from, asked.to);
    let series = api.call(move |control| control.prefix_series(&cache, id, from, to)).await?;
    Ok((NO_STORE, Json([compound("prefix_stats", &series)])))
}

pub(super) async fn prefix_popular_items(
    State(api): State<Api>,
    owner: Owner,
    Numbered(id): Numbered,
) -> Answer<PopularItems> {
    let prefix = prefix(&api, &owner, id).await?;
    let cache = owner.cache_ref();
    let (now, popular) =
        api.call(move |control| Ok((control.now().0, control.popular(&cache)?))).await?;
    Ok((NO_STORE, Json(PopularItems::new(now, &popular, prefix.as_bytes()))))
}

async fn prefix(api: &Api, owner: &Owner, id: u64) -> Result<String, Denied> {
    let cache = owner.cache_ref();
    let prefixes = api.call(move |control| control.prefixes(&cache)).await?;
    let found = prefixes.into_iter().find(|(known, _)| *known == id);
    found.map(|(_, name)| name).ok_or_else(|| Denied::Wrong("No such prefix".to_owned()))
}
