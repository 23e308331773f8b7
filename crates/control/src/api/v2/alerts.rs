//! Alerts and where they go: J16 and J17 of the contracts. `PUT` and `DELETE` of an alert answer 201, as
//! documented.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use super::super::Api;
use super::caches::{Answer, NO_STORE, parse};
use super::denied::Denied;
use super::owner::{Numbered, Owner};
use crate::alerts::{Alert, AlertWish, Delivery, Trigger, Way, WrongWish};
use crate::model::Actor;

#[derive(Debug, Serialize)]
pub(super) struct AlertView {
    id: u64,
    trigger_type: &'static str,
    trigger_threshold: u8,
    delivery_config_id: u64,
    description: String,
    enabled: bool,
}

impl AlertView {
    fn new(alert: Alert) -> Self {
        AlertView {
            id: alert.id,
            trigger_type: alert.wish.trigger.name(),
            trigger_threshold: alert.wish.threshold,
            delivery_config_id: alert.wish.delivery,
            description: alert.wish.description,
            enabled: alert.wish.enabled,
        }
    }
}

/// What an owner says of an alert; what he leaves out stays, or is as usual for a new one.
#[derive(Debug, Default, Deserialize)]
struct AlertBody {
    id: Option<u64>,
    trigger_type: Option<String>,
    trigger_threshold: Option<i64>,
    delivery_config_id: Option<u64>,
    description: Option<String>,
    enabled: Option<bool>,
}

impl AlertBody {
    fn wish(self, before: Option<AlertWish>) -> Result<AlertWish, Denied> {
        let wrong = |what: &str| Denied::Wrong(what.to_owned());
        let trigger = match self.trigger_type.as_deref() {
            Some(name) => Some(Trigger::named(name).ok_or(WrongWish::Trigger)?),
            None => before.as_ref().map(|before| before.trigger),
        };
        let threshold = match self.trigger_threshold {
            Some(percent) => Some(AlertWish::threshold_of(percent)?),
            None => before.as_ref().map(|before| before.threshold),
        };
        let delivery = self.delivery_config_id.or(before.as_ref().map(|before| before.delivery));
        let enabled = self.enabled.or(before.as_ref().map(|before| before.enabled));
        let description = self.description.or(before.map(|before| before.description));
        Ok(AlertWish {
            trigger: trigger.ok_or_else(|| wrong("An alert requires a type"))?,
            threshold: threshold.ok_or_else(|| wrong("An alert requires a threshold"))?,
            delivery: delivery.ok_or_else(|| wrong("An alert requires a delivery config"))?,
            description: AlertWish::description_of(description.unwrap_or_default())?,
            enabled: enabled.unwrap_or(true),
        })
    }
}

pub(super) async fn list(State(api): State<Api>, owner: Owner) -> Answer<Vec<AlertView>> {
    let cache = owner.cache_ref();
    let alerts = api.call(move |control| control.alerts(&cache)).await?;
    Ok((NO_STORE, Json(alerts.into_iter().map(AlertView::new).collect())))
}

type Created<T> = Result<(StatusCode, [(HeaderName, &'static str); 1], Json<T>), Denied>;

pub(super) async fn add(State(api): State<Api>, owner: Owner, body: Bytes) -> Created<AlertView> {
    let wish = parse::<AlertBody>(&body)?.wish(None)?;
    let cache = owner.cache_ref();
    let added =
        api.call(move |control| control.put_alert(Actor::Owner, &cache, None, wish)).await?;
    Ok((StatusCode::CREATED, NO_STORE, Json(AlertView::new(added))))
}

pub(super) async fn show(
    State(api): State<Api>,
    owner: Owner,
    Numbered(id): Numbered,
) -> Answer<AlertView> {
    let cache = owner.cache_ref();
    let alert = api.call(move |control| control.alert(&cache, id)).await?;
    Ok((NO_STORE, Json(AlertView::new(alert))))
}

pub(super) async fn change(
    State(api): State<Api>,
    owner: Owner,
    Numbered(id): Numbered,
    body: Bytes,
) -> Created<AlertView> {
    let said: AlertBody = parse(&body)?;
    if said.id.is_some_and(|said| said != id) {
        return Err(Denied::Wrong("The id in the body is another alert's".to_owned()));
    }
    let cache = owner.cache_ref();
    let before = api.call(move |control| control.alert(&cache, id)).await?;
    let (wish, cache) = (said.wish(Some(before.wish))?, owner.cache_ref());
    let changed =
        api.call(move |control| control.put_alert(Actor::Owner, &cache, Some(id), wish)).await?;
    Ok((StatusCode::CREATED, NO_STORE, Json(AlertView::new(changed))))
}

pub(super) async fn remove(
    State(api): State<Api>,
    owner: Owner,
    Numbered(id): Numbered,
) -> Result<StatusCode, Denied> {
    let cache = owner.cache_ref();
    api.call(move |control| control.delete_alert(Actor::Owner, &cache, id)).await?;
    Ok(StatusCode::CREATED)
}

/// Sends a message as the alert would: what a test button does. An addition of ours.
pub(super) async fn try_out(
    State(api): State<Api>,
    owner: Owner,
    Numbered(id): Numbered,
) -> Result<StatusCode, Denied> {
    let cache = owner.cache_ref();
    api.call(move |control| control.try_alert(Actor::Owner, &cache, id)).await?;
    Ok(StatusCode::ACCEPTED)
}

#[derive(Debug, Serialize)]
pub(super) struct DeliveryView {
    id: u64,
    delivery_type: &'static str,
    email: String,
    slack_url: String,
    slack_channel: String,
}

impl DeliveryView {
    fn new(delivery: Delivery) -> Self {
        let id = delivery.id;
        let empty = String::new;
        match delivery.way {
            Way::Email { address } => DeliveryView {
                id,
                delivery_type: "email",
                email: address,
                slack_url: empty(),
                slack_channel: empty(),
            },
            Way::Slack { url, channel } => DeliveryView {
                id,
                delivery_type: "slack",
                email: empty(),
                slack_url: url.reveal().to_owned(),
                slack_channel: channel,
            },
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct DeliveryBody {
    delivery_type: Option<String>,
    email: Option<String>,
    slack_url: Option<String>,
    slack_channel: Option<String>,
}

impl DeliveryBody {
    fn way(self, slack_prefix: &str) -> Result<Way, Denied> {
        match self.delivery_type.as_deref() {
            Some("email") => Ok(Way::email(self.email.unwrap_or_default())?),
            Some("slack") => {
                let (url, channel) = (self.slack_url.unwrap_or_default(), self.slack_channel);
                Ok(Way::slack(&url, channel.unwrap_or_default(), slack_prefix)?)
            }
            Some(_) | None => Err(Denied::Wrong(
                "An alert delivery config requires a type: email or slack".to_owned(),
            )),
        }
    }
}

pub(super) async fn list_deliveries(
    State(api): State<Api>,
    owner: Owner,
) -> Answer<Vec<DeliveryView>> {
    let cache = owner.cache_ref();
    let deliveries = api.call(move |control| control.deliveries(&cache)).await?;
    Ok((NO_STORE, Json(deliveries.into_iter().map(DeliveryView::new).collect())))
}

pub(super) async fn add_delivery(
    State(api): State<Api>,
    owner: Owner,
    body: Bytes,
) -> Created<DeliveryView> {
    let way = parse::<DeliveryBody>(&body)?.way(&api.settings.slack_prefix)?;
    let cache = owner.cache_ref();
    let added = api.call(move |control| control.add_delivery(Actor::Owner, &cache, way)).await?;
    Ok((StatusCode::CREATED, NO_STORE, Json(DeliveryView::new(added))))
}

pub(super) async fn remove_delivery(
    State(api): State<Api>,
    owner: Owner,
    Numbered(id): Numbered,
) -> Result<StatusCode, Denied> {
    let cache = owner.cache_ref();
    api.call(move |control| control.delete_delivery(Actor::Owner, &cache, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}
