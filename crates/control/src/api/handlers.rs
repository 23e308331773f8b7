//! One function per row of the table in [`super`].

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tenancy::capability::{Capabilities, Capability};
use tenancy::id::CacheId;
use tenancy::plan::{PLANS, Plan};

use super::problem::Refusal;
use super::request::{Asked, Body, OfCache, OfUser, parse_username};
use super::{Api, PAGE_CACHES, PAGE_CACHES_MAX};
use crate::contract::{
    AddCredential, CacheView, CachesView, ChangeCapabilities, ChangePlan, CreateCache,
    CredentialView, CredentialsView, OwnerView, PlanView, PlansView, SetEnabled, SetPrimary,
    StatisticsView,
};
use crate::model::{Actor, Cache, CacheName, CacheRef, CapabilityChange};

type Answer<T> = Result<Json<T>, Refusal>;

pub(super) async fn plans() -> Json<PlansView> {
    Json(PlansView { plans: PLANS.iter().map(PlanView::new).collect() })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn list_caches(
    State(api): State<Api>,
    Asked(page): Asked<Page>,
) -> Answer<CachesView> {
    let limit = page.limit.unwrap_or(PAGE_CACHES);
    if !(1..=PAGE_CACHES_MAX).contains(&limit) {
        return Err(Refusal::BadRequest(format!("limit must be 1 to {PAGE_CACHES_MAX}")));
    }
    let after = CacheId::new(page.after.unwrap_or(0));
    // One more than asked for tells whether there are more.
    let mut caches = api.call(move |control| control.caches(after, limit + 1)).await?;
    let more = caches.len() > limit;
    caches.truncate(limit);
    let next_after = caches.last().filter(|_| more).map(|cache| cache.id.get());
    let caches = caches.iter().map(|cache| api.view(cache)).collect();
    Ok(Json(CachesView { caches, next_after }))
}

pub(super) async fn create_cache(
    State(api): State<Api>,
    Body(wish): Body<CreateCache>,
) -> Result<(StatusCode, Json<CacheView>), Refusal> {
    let name = wish
        .name
        .map(|name| CacheName::parse(&name))
        .transpose()
        .map_err(|error| Refusal::BadRequest(error.to_string()))?;
    let plan = wish.plan.map_or(Ok(Plan::DEVELOPMENT), |name| parse_plan(&name))?;
    let (cache, issued) =
        api.call(move |control| control.create_cache(Actor::Operator, name, plan)).await?;
    let view = api.view(&cache).with(vec![CredentialView::with_password(&issued)]);
    Ok((StatusCode::CREATED, Json(view)))
}

pub(super) async fn show_cache(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Asked(asked): Asked<Passwords>,
) -> Answer<CacheView> {
    let (cache, credentials) = api.credentials(cache, asked.passwords).await?;
    Ok(Json(api.view(&cache).with(credentials)))
}

pub(super) async fn delete_cache(
    State(api): State<Api>,
    OfCache(cache): OfCache,
) -> Result<StatusCode, Refusal> {
    api.call(move |control| control.delete_cache(Actor::Operator, &cache)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn change_plan(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Body(wish): Body<ChangePlan>,
) -> Answer<CacheView> {
    let plan = parse_plan(&wish.plan)?;
    let cache = api.call(move |control| control.change_plan(Actor::Operator, &cache, plan)).await?;
    Ok(Json(api.view(&cache)))
}

pub(super) async fn set_enabled(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Body(wish): Body<SetEnabled>,
) -> Answer<CacheView> {
    let cache =
        api.call(move |control| control.set_enabled(Actor::Operator, &cache, wish.enabled)).await?;
    Ok(Json(api.view(&cache)))
}

pub(super) async fn promote(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Body(wish): Body<SetPrimary>,
) -> Answer<CredentialView> {
    let username = parse_username(&wish.username)?;
    let credential =
        api.call(move |control| control.promote(Actor::Operator, &cache, &username)).await?;
    Ok(Json(CredentialView::without_password(&credential)))
}

pub(super) async fn flush_cache(
    State(api): State<Api>,
    OfCache(cache): OfCache,
) -> Result<StatusCode, Refusal> {
    api.call(move |control| control.flush_cache(Actor::Operator, &cache)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn statistics(
    State(api): State<Api>,
    OfCache(cache): OfCache,
) -> Answer<StatisticsView> {
    let (cache, statistics) = api.call(move |control| control.statistics(&cache)).await?;
    let statistics: BTreeMap<String, u64> = statistics.into_iter().collect();
    let name = cache.name.to_string();
    Ok(Json(StatisticsView { cache: cache.id.get(), name, statistics }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Passwords {
    #[serde(default)]
    passwords: bool,
}

pub(super) async fn list_credentials(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Asked(asked): Asked<Passwords>,
) -> Answer<CredentialsView> {
    let (_, credentials) = api.credentials(cache, asked.passwords).await?;
    Ok(Json(CredentialsView { credentials }))
}

pub(super) async fn find_credential(
    State(api): State<Api>,
    OfUser(username): OfUser,
) -> Answer<OwnerView> {
    let (cache, credential) = api.call(move |control| control.credential(&username)).await?;
    let (cache, name) = (cache.id.get(), cache.name.to_string());
    Ok(Json(OwnerView { cache, name, credential: CredentialView::without_password(&credential) }))
}

pub(super) async fn add_credential(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Body(wish): Body<AddCredential>,
) -> Result<(StatusCode, Json<CredentialView>), Refusal> {
    let capabilities = match wish.capabilities {
        None => Capabilities::ALL,
        Some(names) => names.into_iter().map(Capability::from).collect(),
    };
    let (_, issued) = api
        .call(move |control| control.add_credential(Actor::Operator, &cache, capabilities))
        .await?;
    Ok((StatusCode::CREATED, Json(CredentialView::with_password(&issued))))
}

pub(super) async fn remove_credential(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    OfUser(username): OfUser,
) -> Result<StatusCode, Refusal> {
    api.call(move |control| control.remove_credential(Actor::Operator, &cache, &username)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn change_capabilities(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    OfUser(username): OfUser,
    Body(ChangeCapabilities(wish)): Body<ChangeCapabilities>,
) -> Answer<CredentialView> {
    let those = |given: bool| -> Capabilities {
        wish.iter().filter(|(_, is)| **is == given).map(|(one, _)| Capability::from(*one)).collect()
    };
    let asked = CapabilityChange { allow: those(true), deny: those(false) };
    let credential = api
        .call(move |control| control.change_capabilities(Actor::Operator, &cache, &username, asked))
        .await?;
    Ok(Json(CredentialView::without_password(&credential)))
}

fn parse_plan(name: &str) -> Result<&'static Plan, Refusal> {
    Plan::named(name).ok_or_else(|| {
        let names: Vec<&str> = PLANS.iter().map(|plan| plan.name).collect();
        Refusal::BadRequest(format!("there is no plan {name:?}; there are {}", names.join(", ")))
    })
}

impl Api {
    fn view(&self, cache: &Cache) -> CacheView {
        CacheView::new(cache, &self.settings.servers)
    }

    async fn credentials(
        &self,
        cache: CacheRef,
        passwords: bool,
    ) -> Result<(Cache, Vec<CredentialView>), Refusal> {
        if passwords {
            let (cache, issued) = self.call(move |control| control.issued(&cache)).await?;
            Ok((cache, issued.iter().map(CredentialView::with_password).collect()))
        } else {
            let (cache, credentials) =
                self.call(move |control| control.credentials(&cache)).await?;
            Ok((cache, credentials.iter().map(CredentialView::without_password).collect()))
        }
    }
}
