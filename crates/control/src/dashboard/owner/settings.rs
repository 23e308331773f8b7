//! Settings of a cache: enabled or not, its plan, its items, and the dashboard's own URL.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use tenancy::plan::{PLANS, Plan};

use super::{CacheFrame, Done, Question, ask, back, frame};
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::{Owner, Sent};
use crate::dashboard::units;

const TAB: &str = "settings";

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    cache: CacheFrame,
    created: String,
    item_bytes_max: String,
    connections_max: String,
    servers: Vec<String>,
    plans: Vec<PlanChoice>,
    /// Of development caches, which are disabled when nobody uses them.
    sleeps: bool,
}

struct PlanChoice {
    name: &'static str,
    label: String,
    current: bool,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    owner: Owner,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let limits = owner.cache.plan.limits;
    let choice = |plan: &'static Plan| PlanChoice {
        name: plan.name,
        label: format!(
            "{} ({} connections)",
            super::plan(plan),
            units::grouped(plan.limits.connections_max.into())
        ),
        current: plan == owner.cache.plan,
    };
    Ok(render(&SettingsPage {
        frame: frame(&owner, "Settings", done.done.as_deref()),
        cache: CacheFrame::new(&owner, TAB),
        created: units::time(owner.cache.created_at),
        item_bytes_max: units::bytes(limits.item_bytes_max.into()),
        connections_max: units::grouped(limits.connections_max.into()),
        servers: dashboard.api.servers(),
        plans: PLANS.iter().map(choice).collect(),
        sleeps: owner.cache.plan == Plan::DEVELOPMENT,
    }))
}

pub(super) async fn set_enabled(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let enabled = fields.has("enable");
    if !enabled && !fields.has("confirmed") {
        let question = Question {
            title: "Disable the cache",
            text: &format!("Disable {}?", owner.cache.name),
            consequences: &[
                "Every client is cut off and refused until you enable it again.",
                "Its items stay.",
            ],
            tab: TAB,
            act: "enabled",
            fields: &[],
            button: "Disable it",
        };
        return Ok(ask(&owner, question));
    }
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.set_enabled(actor, &cache, enabled)).await?;
    Ok(back(&owner, TAB, if enabled { "enabled" } else { "disabled" }))
}

pub(super) async fn change_plan(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let plan = Plan::named(fields.get("plan"))
        .ok_or_else(|| Failure::Wrong("There is no such plan.".to_owned()))?;
    let shrinks = plan.limits.memory_bytes < owner.cache.plan.limits.memory_bytes;
    if shrinks && !fields.has("confirmed") {
        let memory = units::bytes(plan.limits.memory_bytes);
        let question = Question {
            title: "Change the plan",
            text: &format!("Change {} to the smaller plan {}?", owner.cache.name, plan.name),
            consequences: &[&format!(
                "What does not fit {memory} is evicted, the least used first."
            )],
            tab: TAB,
            act: "plan",
            fields: &[("plan", plan.name)],
            button: "Change the plan",
        };
        return Ok(ask(&owner, question));
    }
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.change_plan(actor, &cache, plan)).await?;
    Ok(back(&owner, TAB, "plan"))
}

pub(super) async fn flush(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    if !fields.has("confirmed") {
        let question = Question {
            title: "Flush the cache",
            text: &format!("Forget all items of {}?", owner.cache.name),
            consequences: &[
                "Every key misses from now on, until your applications store it again.",
                "That may load what stands behind the cache. It cannot be undone.",
            ],
            tab: TAB,
            act: "flush",
            fields: &[],
            button: "Forget all items",
        };
        return Ok(ask(&owner, question));
    }
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.flush_cache(actor, &cache)).await?;
    Ok(back(&owner, TAB, "flushed"))
}

/// Asks first, then sends the browser to the new URL, where another session begins.
pub(super) async fn rotate(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    if !fields.has("confirmed") {
        let question = Question {
            title: "Rotate the SSO secret",
            text: "Give this dashboard another URL?",
            consequences: &[
                "The URL that it has now opens nothing any more, in bookmarks and elsewhere.",
                "Everyone who has this dashboard open is let out. You are taken to the new URL.",
                "Usernames and passwords of the cache stay as they are.",
            ],
            tab: TAB,
            act: "rotate",
            fields: &[],
            button: "Rotate SSO secret",
        };
        return Ok(ask(&owner, question));
    }
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    let (cache, secret) =
        dashboard.call(move |control| control.rotate_dashboard_secret(actor, &cache)).await?;
    let to = format!("/sso/{}/{}?done=rotated", cache.id, secret.reveal());
    Ok(Redirect::to(&to).into_response())
}
