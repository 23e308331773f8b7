//! Alerts of a cache, and where their messages go.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::{CacheFrame, Done, Question, ask, back, frame};
use crate::alerts::{
    Alert, AlertWish, CHANNEL_BYTES_MAX, DESCRIPTION_BYTES_MAX, Delivery, EMAIL_BYTES_MAX, Trigger,
    Way, WrongWish,
};
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::{Fields, Owner, Sent};

const TAB: &str = "alerts";
/// Proposed for a new alert, in percent: of either figure worth knowing.
const THRESHOLD_USUAL: u8 = 80;

#[derive(Template)]
#[template(path = "alerts.html")]
struct AlertsPage {
    frame: Frame,
    cache: CacheFrame,
    alerts: Vec<AlertRow>,
    deliveries: Vec<DeliveryRow>,
    form: Form,
    slack_prefix: String,
    email_bytes_max: usize,
    channel_bytes_max: usize,
}

struct AlertRow {
    id: u64,
    rule: String,
    to: String,
    description: String,
    enabled: bool,
    raised: bool,
}

struct DeliveryRow {
    id: u64,
    kind: &'static str,
    name: String,
    /// An alert goes there, so it stays.
    in_use: bool,
}

/// For a new alert, or one that is being changed.
struct Form {
    id: Option<u64>,
    triggers: Vec<Choice<&'static str>>,
    threshold: u8,
    deliveries: Vec<Choice<u64>>,
    description: String,
    description_bytes_max: usize,
    enabled: bool,
}

struct Choice<Value> {
    value: Value,
    label: String,
    chosen: bool,
}

/// As people call a delivery. Of a Slack webhook's URL, which is a secret, only the end.
fn name(way: &Way) -> String {
    match way {
        Way::Email { address } => address.clone(),
        Way::Slack { url, channel } => {
            let end: String = url.reveal().chars().rev().take(4).collect();
            let end: String = end.chars().rev().collect();
            match channel.as_str() {
                "" => format!("webhook …{end}"),
                channel => format!("{channel} by webhook …{end}"),
            }
        }
    }
}

fn kind(way: &Way) -> &'static str {
    match way {
        Way::Email { .. } => "E-mail",
        Way::Slack { .. } => "Slack",
    }
}

impl Form {
    fn new(changed: Option<&Alert>, deliveries: &[Delivery]) -> Self {
        let wish = changed.map(|alert| &alert.wish);
        let trigger = |trigger: Trigger| {
            let side = match trigger {
                Trigger::HitRate => "falls below",
                Trigger::MemoryUsage => "reaches",
            };
            Choice {
                value: trigger.name(),
                label: format!("{} {side}", trigger.words()),
                chosen: wish.is_some_and(|wish| wish.trigger == trigger),
            }
        };
        let delivery = |delivery: &Delivery| Choice {
            value: delivery.id,
            label: format!("{}: {}", kind(&delivery.way), name(&delivery.way)),
            chosen: wish.is_some_and(|wish| wish.delivery == delivery.id),
        };
        Form {
            id: changed.map(|alert| alert.id),
            triggers: Trigger::ALL.into_iter().map(trigger).collect(),
            threshold: wish.map_or(THRESHOLD_USUAL, |wish| wish.threshold),
            deliveries: deliveries.iter().map(delivery).collect(),
            description: wish.map(|wish| wish.description.clone()).unwrap_or_default(),
            description_bytes_max: DESCRIPTION_BYTES_MAX,
            enabled: wish.is_none_or(|wish| wish.enabled),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// The alert that is to be changed.
    change: Option<u64>,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    owner: Owner,
    Query(asked): Query<Asked>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let cache = owner.cache_ref();
    let (alerts, deliveries) = dashboard
        .call(move |control| Ok((control.alerts(&cache)?, control.deliveries(&cache)?)))
        .await?;
    let row = |alert: &Alert| {
        let to = deliveries.iter().find(|delivery| delivery.id == alert.wish.delivery);
        AlertRow {
            id: alert.id,
            rule: alert.wish.rule(),
            to: to.map(|to| name(&to.way)).unwrap_or_default(),
            description: alert.wish.description.clone(),
            enabled: alert.wish.enabled,
            raised: alert.raised,
        }
    };
    let delivery = |delivery: &Delivery| DeliveryRow {
        id: delivery.id,
        kind: kind(&delivery.way),
        name: name(&delivery.way),
        in_use: alerts.iter().any(|alert| alert.wish.delivery == delivery.id),
    };
    let changed = alerts.iter().find(|alert| Some(alert.id) == asked.change);
    Ok(render(&AlertsPage {
        frame: frame(&owner, "Alerts", done.done.as_deref()),
        cache: CacheFrame::new(&owner, TAB),
        form: Form::new(changed, &deliveries),
        alerts: alerts.iter().map(row).collect(),
        deliveries: deliveries.iter().map(delivery).collect(),
        slack_prefix: dashboard.api.settings.slack_prefix.clone(),
        email_bytes_max: EMAIL_BYTES_MAX,
        channel_bytes_max: CHANNEL_BYTES_MAX,
    }))
}

/// Adds an alert, or changes the one whose number comes along.
pub(super) async fn put(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let id = if fields.has("id") { Some(fields.number("id")?) } else { None };
    let wish = wish(&fields)?;
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.put_alert(actor, &cache, id, wish)).await?;
    Ok(back(&owner, TAB, "alert"))
}

fn wish(fields: &Fields) -> Result<AlertWish, Failure> {
    let percent = fields.get("threshold").parse().map_err(|_| WrongWish::Threshold)?;
    Ok(AlertWish {
        trigger: Trigger::named(fields.get("trigger")).ok_or(WrongWish::Trigger)?,
        threshold: AlertWish::threshold_of(percent)?,
        delivery: fields.number("delivery")?,
        description: AlertWish::description_of(fields.get("description").to_owned())?,
        enabled: fields.has("enabled"),
    })
}

pub(super) async fn remove(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let id = fields.number("id")?;
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    if !fields.has("confirmed") {
        let alert = dashboard.call(move |control| control.alert(&cache, id)).await?;
        let question = Question {
            title: "Delete an alert",
            text: &format!("Delete the alert when the {}?", alert.wish.rule()),
            consequences: &["Nobody is told any more when that happens."],
            tab: TAB,
            act: "remove",
            fields: &[("id", &id.to_string())],
            button: "Delete it",
        };
        return Ok(ask(&owner, question));
    }
    dashboard.call(move |control| control.delete_alert(actor, &cache, id)).await?;
    Ok(back(&owner, TAB, "unalert"))
}

/// Sends a message as the alert would.
pub(super) async fn try_out(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let id = fields.number("id")?;
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.try_alert(actor, &cache, id)).await?;
    Ok(back(&owner, TAB, "tested"))
}

pub(super) async fn add_delivery(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let way = if fields.has("email") {
        Way::email(fields.get("email").to_owned())?
    } else {
        let channel = fields.get("channel").to_owned();
        Way::slack(fields.get("url"), channel, &dashboard.api.settings.slack_prefix)?
    };
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.add_delivery(actor, &cache, way)).await?;
    Ok(back(&owner, TAB, "delivery"))
}

pub(super) async fn remove_delivery(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let id = fields.number("id")?;
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.delete_delivery(actor, &cache, id)).await?;
    Ok(back(&owner, TAB, "undelivery"))
}
