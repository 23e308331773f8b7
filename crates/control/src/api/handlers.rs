//! One function per row of the table in [`super`].

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use tenancy::capability::{Capabilities, Capability};
use tenancy::id::CacheId;
use tenancy::plan::{PLANS, Plan};
use tenancy::secret::Secret;

use super::problem::Refusal;
use super::request::{Asked, OfCache, OfId, OfUser, parse_username};
use super::write::{Told, Write};
use super::{Api, CALLS_MAX, PAGE_AUDIT_MAX, PAGE_CACHES, PAGE_CACHES_MAX, URL_BYTES_MAX};
use crate::contract::{
    AddCredential, AuditView, AuditsView, CacheView, CachesView, CallView, CallsView,
    ChangeCapabilities, ChangePlan, ClusterView, ClustersView, CreateCache, CreateCluster,
    CredentialView, CredentialsView, LatencyPointView, LatencyView, LimitRates, OwnerView,
    PlanView, PlansView, PointView, PutWebhook, SeriesView, ServerLatencyView, SetEnabled,
    SetPrimary, SizesView, StatisticsView, WebhookView, WebhooksView,
};
use crate::control::Control;
use crate::database::CallState;
use crate::model::{Cache, CacheName, CacheRef, CapabilityChange, ClusterId, Issued};
use crate::series::Point;
use crate::series::processed::Name;

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

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
    write: Write,
) -> Result<Response, Refusal> {
    let wish: CreateCache = write.wish()?;
    let name = wish.name.as_deref().map(parse_name).transpose()?;
    let plan = wish.plan.map_or(Ok(Plan::DEVELOPMENT), |name| parse_plan(&name))?;
    let cluster = match wish.cluster {
        Some(name) => {
            let name = parse_name(&name)?;
            api.call(move |control| control.cluster_named(&name)).await?.id
        }
        None => ClusterId::DEFAULT,
    };
    let change = move |control: &Control, by| {
        let made = control.create_cache(by, cluster, name, plan)?;
        let (_, secret) = control.dashboard_secret(&CacheRef::Id(made.value.0.id))?;
        Ok(made.map(|(cache, issued)| (cache, issued, secret)))
    };
    let tell = |(cache, issued, secret): (Cache, Issued, Secret)| {
        let credentials = vec![CredentialView::with_password(&issued)];
        let url = api.settings.dashboard_url(cache.id, &secret);
        Told::created(api.view(&cache).with(credentials).with_dashboard(url))
    };
    api.write(write, change, tell).await
}

pub(super) async fn show_cache(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Asked(asked): Asked<Passwords>,
) -> Answer<CacheView> {
    let (cache, credentials) = api.credentials(cache, asked.passwords).await?;
    let view = api.view(&cache).with(credentials);
    if !asked.passwords {
        return Ok(Json(view));
    }
    let id = CacheRef::Id(cache.id);
    let (_, secret) = api.call(move |control| control.dashboard_secret(&id)).await?;
    Ok(Json(view.with_dashboard(api.settings.dashboard_url(cache.id, &secret))))
}

pub(super) async fn delete_cache(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    write: Write,
) -> Result<Response, Refusal> {
    let change = move |control: &Control, by| control.delete_cache(by, &cache);
    api.write(write, change, |()| Told::nothing()).await
}

pub(super) async fn change_plan(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    write: Write,
) -> Result<Response, Refusal> {
    let plan = parse_plan(&write.wish::<ChangePlan>()?.plan)?;
    let change = move |control: &Control, by| control.change_plan(by, &cache, plan);
    api.write(write, change, |cache| Told::done(api.view(&cache))).await
}

pub(super) async fn limit_rates(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    write: Write,
) -> Result<Response, Refusal> {
    let wish: LimitRates = write.wish()?;
    for rate in [wish.operations_per_second, wish.bytes_per_second].into_iter().flatten() {
        if PER_SECOND_MAX < rate {
            let most = format!("a rate is at most {PER_SECOND_MAX} per second; 0 is no limit");
            return Err(Refusal::BadRequest(most));
        }
    }
    let change = move |control: &Control, by| {
        control.limit_rates(by, &cache, wish.operations_per_second, wish.bytes_per_second)
    };
    api.write(write, change, |cache| Told::done(api.view(&cache))).await
}

/// Far beyond what any proxy can do, and what every database can hold.
const PER_SECOND_MAX: u64 = 1_000_000_000_000;

pub(super) async fn set_enabled(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    write: Write,
) -> Result<Response, Refusal> {
    let SetEnabled { enabled } = write.wish()?;
    let change = move |control: &Control, by| control.set_enabled(by, &cache, enabled);
    api.write(write, change, |cache| Told::done(api.view(&cache))).await
}

pub(super) async fn promote(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    write: Write,
) -> Result<Response, Refusal> {
    let username = parse_username(&write.wish::<SetPrimary>()?.username)?;
    let change = move |control: &Control, by| control.promote(by, &cache, &username);
    let tell = |credential| Told::done(CredentialView::without_password(&credential));
    api.write(write, change, tell).await
}

pub(super) async fn flush_cache(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    write: Write,
) -> Result<Response, Refusal> {
    let change = move |control: &Control, by| control.flush_cache(by, &cache);
    api.write(write, change, |_| Told::nothing()).await
}

pub(super) async fn statistics(
    State(api): State<Api>,
    OfCache(cache): OfCache,
) -> Answer<StatisticsView> {
    let (cache, statistics) = api.call(move |control| control.statistics(&cache)).await?;
    let name = cache.name.to_string();
    Ok(Json(StatisticsView { cache: cache.id.get(), name, statistics }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    /// Names with commas between.
    names: Option<String>,
    from: Option<u64>,
    to: Option<u64>,
}

/// What is told over time when a request does not say: a day of what people look at first.
const SERIES_SECONDS: u64 = 24 * 60 * 60;
const SERIES_NAMES: &str = "bytes,connections,eviction_rate,hit_rate,items,request_rate";

pub(super) async fn series(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Asked(range): Asked<Range>,
) -> Answer<SeriesView> {
    let mut names = Vec::new();
    for name in range.names.as_deref().unwrap_or(SERIES_NAMES).split(',') {
        let unknown = || Refusal::BadRequest(format!("there is no figure {name:?}"));
        names.push(Name::named(name).ok_or_else(unknown)?);
    }
    if names.len() > Name::all().count() {
        return Err(Refusal::BadRequest("names are repeated".to_owned()));
    }
    let to = range.to.unwrap_or(api.control.now().0);
    let from = range.from.unwrap_or(to.saturating_sub(SERIES_SECONDS));
    if to < from {
        return Err(Refusal::BadRequest("from is after to".to_owned()));
    }
    let (cache, series) = api.call(move |control| control.series(&cache, from, to)).await?;
    let limit = cache.plan.limits.memory_bytes;
    let value = |point: &Point, name: &Name| {
        (name.text().to_owned(), name.value(&point.sample, series.step, limit))
    };
    let point = |point: &Point| PointView {
        at: point.at,
        values: names.iter().map(|name| value(point, name)).collect(),
    };
    Ok(Json(SeriesView {
        cache: cache.id.get(),
        name: cache.name.to_string(),
        step_seconds: series.step.seconds(),
        points: series.points.iter().map(point).collect(),
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Times {
    from: Option<u64>,
    to: Option<u64>,
}

/// How long requests took at each proxy that serves the cache.
pub(super) async fn latency(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    Asked(times): Asked<Times>,
) -> Answer<LatencyView> {
    let to = times.to.unwrap_or(api.control.now().0);
    let from = times.from.unwrap_or(to.saturating_sub(SERIES_SECONDS));
    if to < from {
        return Err(Refusal::BadRequest("from is after to".to_owned()));
    }
    let (cache, series) =
        api.call(move |control| Ok((control.cache(&cache)?, control.latency(from, to)?))).await?;
    let servers = series.servers.iter().map(|(name, points)| ServerLatencyView {
        server: api.server(name),
        points: points.iter().map(LatencyPointView::new).collect(),
    });
    Ok(Json(LatencyView {
        cache: cache.id.get(),
        name: cache.name.to_string(),
        step_seconds: series.step_seconds,
        servers: servers.collect(),
    }))
}

/// What the cache would hit with more or less memory.
pub(super) async fn sizes(State(api): State<Api>, OfCache(cache): OfCache) -> Answer<SizesView> {
    let (cache, popular) =
        api.call(move |control| Ok((control.cache(&cache)?, control.popular(&cache)?))).await?;
    Ok(Json(SizesView::new(&cache, &popular.sizes)))
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
    write: Write,
) -> Result<Response, Refusal> {
    let capabilities = match write.wish::<AddCredential>()?.capabilities {
        None => Capabilities::ALL,
        Some(names) => names.into_iter().map(Capability::from).collect(),
    };
    let change = move |control: &Control, by| control.add_credential(by, &cache, capabilities);
    let tell = |(_, issued)| Told::created(CredentialView::with_password(&issued));
    api.write(write, change, tell).await
}

pub(super) async fn remove_credential(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    OfUser(username): OfUser,
    write: Write,
) -> Result<Response, Refusal> {
    let change = move |control: &Control, by| control.remove_credential(by, &cache, &username);
    api.write(write, change, |()| Told::nothing()).await
}

pub(super) async fn change_capabilities(
    State(api): State<Api>,
    OfCache(cache): OfCache,
    OfUser(username): OfUser,
    write: Write,
) -> Result<Response, Refusal> {
    let ChangeCapabilities(wish) = write.wish()?;
    let those = |given: bool| -> Capabilities {
        wish.iter().filter(|(_, is)| **is == given).map(|(one, _)| Capability::from(*one)).collect()
    };
    let asked = CapabilityChange { allow: those(true), deny: those(false) };
    let change =
        move |control: &Control, by| control.change_capabilities(by, &cache, &username, asked);
    let tell = |credential| Told::done(CredentialView::without_password(&credential));
    api.write(write, change, tell).await
}

pub(super) async fn list_clusters(State(api): State<Api>) -> Answer<ClustersView> {
    let clusters = api.call(|control| control.clusters()).await?;
    Ok(Json(ClustersView { clusters: clusters.iter().map(ClusterView::new).collect() }))
}

pub(super) async fn create_cluster(
    State(api): State<Api>,
    write: Write,
) -> Result<(StatusCode, Json<ClusterView>), Refusal> {
    let name = parse_name(&write.wish::<CreateCluster>()?.name)?;
    let by = write.of_the_installation()?;
    let cluster = api.call(move |control| control.create_cluster(by, name)).await?;
    Ok((StatusCode::CREATED, Json(ClusterView::new(&cluster))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichLines {
    after: Option<u64>,
    /// The last lines instead of those after some line.
    #[serde(default)]
    newest: bool,
    limit: Option<usize>,
}

pub(super) async fn list_audit(
    State(api): State<Api>,
    Asked(which): Asked<WhichLines>,
) -> Answer<AuditsView> {
    let limit = which.limit.unwrap_or(PAGE_AUDIT_MAX).min(PAGE_AUDIT_MAX);
    let audit = api.call(move |control| match (which.newest, which.after) {
        (true, _) => control.newest_audit(limit),
        (false, after) => control.audit(after.unwrap_or(0), limit),
    });
    let audit = audit.await?;
    Ok(Json(AuditsView { audit: audit.into_iter().map(AuditView::new).collect() }))
}

pub(super) async fn list_webhooks(State(api): State<Api>) -> Answer<WebhooksView> {
    let webhooks = api.call(|control| control.webhooks()).await?;
    let webhooks = webhooks.iter().map(|webhook| WebhookView::new(webhook, None)).collect();
    Ok(Json(WebhooksView { webhooks }))
}

pub(super) async fn put_webhook(
    State(api): State<Api>,
    write: Write,
) -> Result<(StatusCode, Json<WebhookView>), Refusal> {
    let PutWebhook { url } = write.wish()?;
    let by = write.of_the_installation()?;
    let is_good = url.parse().is_ok_and(|uri: Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if !is_good || URL_BYTES_MAX < url.len() {
        let problem = format!("url must be http or https and at most {URL_BYTES_MAX} bytes");
        return Err(Refusal::BadRequest(problem));
    }
    let (webhook, secret) = api.call(move |control| control.put_webhook(by, &url)).await?;
    Ok((StatusCode::CREATED, Json(WebhookView::new(&webhook, Some(&secret)))))
}

pub(super) async fn delete_webhook(
    State(api): State<Api>,
    OfId(webhook): OfId,
    write: Write,
) -> Result<StatusCode, Refusal> {
    let by = write.of_the_installation()?;
    api.call(move |control| control.delete_webhook(by, webhook)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn test_webhook(
    State(api): State<Api>,
    OfId(webhook): OfId,
    write: Write,
) -> Result<(StatusCode, Json<CallView>), Refusal> {
    let by = write.of_the_installation()?;
    let call = api.call(move |control| control.test_webhook(by, webhook)).await?;
    Ok((StatusCode::ACCEPTED, Json(CallView::new(call))))
}

pub(super) async fn show_call(State(api): State<Api>, OfId(call): OfId) -> Answer<CallView> {
    Ok(Json(CallView::new(api.call(move |control| control.call(call)).await?)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichCalls {
    state: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list_calls(
    State(api): State<Api>,
    Asked(which): Asked<WhichCalls>,
) -> Answer<CallsView> {
    let state = which.state.as_deref().unwrap_or(CallState::Dead.name());
    let state = CallState::named(state)
        .ok_or_else(|| Refusal::BadRequest("state must be waiting, sent or dead".to_owned()))?;
    let limit = which.limit.unwrap_or(CALLS_MAX).min(CALLS_MAX);
    let calls = api.call(move |control| control.calls(state, limit)).await?;
    Ok(Json(CallsView { calls: calls.into_iter().map(CallView::new).collect() }))
}

pub(super) async fn revive_call(
    State(api): State<Api>,
    OfId(call): OfId,
    write: Write,
) -> Result<StatusCode, Refusal> {
    let by = write.of_the_installation()?;
    api.call(move |control| control.revive_call(by, call)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parse_name(name: &str) -> Result<CacheName, Refusal> {
    CacheName::parse(name).map_err(|error| Refusal::BadRequest(error.to_string()))
}

fn parse_plan(name: &str) -> Result<&'static Plan, Refusal> {
    Plan::named(name).ok_or_else(|| {
        let names: Vec<&str> = PLANS.iter().map(|plan| plan.name).collect();
        Refusal::BadRequest(format!("there is no plan {name:?}; there are {}", names.join(", ")))
    })
}

impl Api {
    fn view(&self, cache: &Cache) -> CacheView {
        CacheView::new(cache, &self.servers())
    }

    /// `host:port` of each proxy, as clients reach it.
    pub(crate) fn servers(&self) -> Vec<String> {
        match &self.settings.push {
            Some(push) => push.fleet.servers(),
            None => self.settings.servers.clone(),
        }
    }

    /// What clients call a server, by the name that its figures have.
    pub(crate) fn server(&self, name: &str) -> String {
        let address = match &self.settings.push {
            Some(push) => push.fleet.server(name),
            None => self.settings.servers.first().cloned(),
        };
        address.unwrap_or_else(|| name.to_owned())
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
