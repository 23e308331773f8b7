//! `/v1/rules`: which addresses may come in, and whom a rule would cut off.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use tenancy::id::CacheId;
use tenancy::rules::{Network, RuleChange, RuleId, Ruling};

use super::Api;
use super::handlers::Answer;
use super::problem::Refusal;
use super::request::{Asked, Body, OfId};
use super::write::{Told, Write};
use crate::contract::{CutCacheView, CutClientView, PutRule, RulePreviewView, RuleView, RulesView};
use crate::control::Control;
use crate::error::ControlError;
use crate::model::{CacheRef, ClusterId, ClusterName};
use crate::rules::{InvalidRule, KeptRule, Preview, RULE_SECONDS, RuleWish, Scope};

/// Rules on one page, at most and when the client does not say.
const PAGE_RULES_MAX: usize = 1_000;
/// Caches that a preview names.
const NAMED_CACHES_MAX: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn list(State(api): State<Api>, Asked(page): Asked<Page>) -> Answer<RulesView> {
    let limit = page.limit.unwrap_or(PAGE_RULES_MAX);
    if !(1..=PAGE_RULES_MAX).contains(&limit) {
        return Err(Refusal::BadRequest(format!("limit must be 1 to {PAGE_RULES_MAX}")));
    }
    let after = page.after.unwrap_or(0);
    // One more than asked for tells whether there are more.
    let mut rules = api.call(move |control| control.rules(after, limit + 1)).await?;
    let more = rules.len() > limit;
    rules.truncate(limit);
    let next_after = rules.last().filter(|_| more).map(|kept| kept.rule.id.0);
    Ok(Json(RulesView { rules: rules.iter().map(RuleView::new).collect(), next_after }))
}

/// Makes a rule, or changes the one for the same network and connections; unless it objects.
pub(super) async fn put(State(api): State<Api>, write: Write) -> Result<Response, Refusal> {
    let asked: PutRule = write.wish()?;
    let force = asked.force;
    let wish = api.rule_wish(asked).await?;
    if !force {
        wish.dare(&api.preview_rule(&wish).await?)?;
    }
    let change = move |control: &Control, by| control.put_rule(by, &wish);
    api.write(write, change, |kept| Told::created(RuleView::new(&kept))).await
}

/// What a rule would do; makes none.
pub(super) async fn preview(
    State(api): State<Api>,
    Body(asked): Body<PutRule>,
) -> Answer<RulePreviewView> {
    let wish = api.rule_wish(asked).await?;
    let preview = api.preview_rule(&wish).await?;
    let objection = wish.dare(&preview).err().map(|objection| objection.to_string());
    Ok(Json(RulePreviewView { objection, ..api.preview_view(preview).await? }))
}

/// What removing a rule would do; removes none.
pub(super) async fn preview_removal(
    State(api): State<Api>,
    OfId(id): OfId,
) -> Answer<RulePreviewView> {
    let (_, preview) = api.preview_removal(RuleId(id)).await?;
    Ok(Json(api.preview_view(preview).await?))
}

pub(super) async fn remove(
    State(api): State<Api>,
    OfId(id): OfId,
    write: Write,
) -> Result<Response, Refusal> {
    let change = move |control: &Control, by| control.remove_rule(by, RuleId(id));
    api.write(write, change, |()| Told::nothing()).await
}

impl Api {
    /// Whom a rule would cut off.
    pub(crate) async fn preview_rule(&self, wish: &RuleWish) -> Result<Preview, Refusal> {
        let wish = wish.clone();
        let (cluster, change) = self.call(move |control| control.rule_change(&wish)).await?;
        self.preview(cluster, change).await
    }

    /// The same for removing one: what it let in may be blocked by another one then.
    pub(crate) async fn preview_removal(&self, id: RuleId) -> Result<(KeptRule, Preview), Refusal> {
        let kept = self.call(move |control| control.rule(id)).await?;
        let preview = self.preview(kept.cluster, RuleChange::Remove(id)).await?;
        Ok((kept, preview))
    }

    async fn preview(&self, cluster: ClusterId, change: RuleChange) -> Result<Preview, Refusal> {
        self.call(move |control| Ok(control.preview(cluster, change))).await
    }

    /// From what was asked to what is checked.
    pub(crate) async fn rule_wish(&self, asked: PutRule) -> Result<RuleWish, Refusal> {
        let network = Network::parse(&asked.network)
            .map_err(|error| Refusal::BadRequest(error.to_string()))?;
        let ruling = match asked.ruling.as_deref() {
            None => Ruling::Block,
            Some(name) => Ruling::named(name).ok_or_else(|| {
                Refusal::BadRequest(format!("a ruling is block or allow, not {name:?}"))
            })?,
        };
        let scope = match (asked.cache, asked.cluster) {
            (Some(_), Some(_)) => {
                return Err(Refusal::BadRequest("name a cache or a cluster, not both".to_owned()));
            }
            (Some(cache), None) => {
                let cache = CacheRef::parse(&cache);
                Scope::Cache(cache.map_err(|error| Refusal::BadRequest(error.to_string()))?)
            }
            (None, Some(name)) => {
                let name = ClusterName::parse(&name)
                    .map_err(|error| Refusal::BadRequest(error.to_string()))?;
                Scope::Cluster(self.call(move |control| control.cluster_named(&name)).await?.id)
            }
            (None, None) => Scope::Cluster(ClusterId::DEFAULT),
        };
        let (reason, seconds) = (asked.reason, asked.seconds.unwrap_or(RULE_SECONDS));
        let wish = RuleWish { scope, network, ruling, reason, seconds };
        wish.check()?;
        Ok(wish)
    }

    /// What people and programs are told of a preview.
    pub(crate) async fn preview_view(&self, preview: Preview) -> Result<RulePreviewView, Refusal> {
        let Preview { cut, nodes, silent } = preview;
        let most: Vec<_> = cut.caches.iter().copied().take(NAMED_CACHES_MAX).collect();
        let named = move |control: &Control| {
            let one = |(cache, connections): (CacheId, u64)| {
                let name = name_of(control, cache)?;
                Ok(CutCacheView { cache: cache.get(), name, connections })
            };
            most.into_iter().map(one).collect::<Result<Vec<_>, ControlError>>()
        };
        let caches = self.call(named).await?;
        let clients = cut.clients.iter().map(CutClientView::new).collect();
        Ok(RulePreviewView {
            connections: cut.connections,
            caches_total: cut.caches.len(),
            caches,
            clients,
            nodes,
            silent_nodes: silent,
            objection: None,
        })
    }
}

impl From<InvalidRule> for Refusal {
    fn from(error: InvalidRule) -> Self {
        Refusal::BadRequest(error.to_string())
    }
}

/// `None` for a cache that was deleted just now.
fn name_of(control: &Control, cache: CacheId) -> Result<Option<String>, ControlError> {
    match control.cache(&CacheRef::Id(cache)) {
        Ok(cache) => Ok(Some(cache.name.to_string())),
        Err(ControlError::UnknownCache(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
