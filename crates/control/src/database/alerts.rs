//! Alerts of caches and where their messages go.

use tenancy::id::CacheId;

use super::Database;
use super::change::{Belonging, Change, natural};
use super::outbox;
use super::rows::corrupt;
use super::sql::Row;
use crate::alerts::{Alert, AlertWish, Message, Trigger};
use crate::error::ControlError;
use crate::model::{Actor, Cache, UnixSeconds};

/// Far more than two figures need.
const ALERTS_PER_CACHE_MAX: usize = 50;
const DELIVERIES_PER_CACHE_MAX: usize = 20;

const ALERT: Belonging =
    Belonging { table: "alerts", removed: "alert removed", unknown: ControlError::UnknownAlert };
const DELIVERY: Belonging = Belonging {
    table: "alert_deliveries",
    removed: "alert delivery removed",
    unknown: ControlError::UnknownDelivery,
};

/// A delivery as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredDelivery {
    pub(crate) id: u64,
    pub(crate) cache: CacheId,
    pub(crate) way: StoredWay,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoredWay {
    Email { address: String },
    Slack { sealed_url: Vec<u8>, channel: String },
}

const SELECT_ALERT: &str = "SELECT id, cache_id, trigger_type, threshold, delivery_id, description, \
    enabled, raised FROM alerts";

fn alert(row: &Row) -> Result<Alert, ControlError> {
    Ok(Alert {
        id: row.natural(0)?,
        cache: CacheId::new(row.natural(1)?),
        wish: AlertWish {
            trigger: Trigger::named(row.text(2)?).ok_or(corrupt("trigger"))?,
            threshold: u8::try_from(row.int(3)?).map_err(|_| corrupt("threshold"))?,
            delivery: row.natural(4)?,
            description: row.text(5)?.to_owned(),
            enabled: row.bool(6)?,
        },
        raised: row.bool(7)?,
    })
}

pub(super) const SELECT_DELIVERY: &str =
    "SELECT id, cache_id, email, slack_channel, sealed_slack_url FROM alert_deliveries";

pub(super) fn delivery(row: &Row, from: usize) -> Result<StoredDelivery, ControlError> {
    let way = match row.optional_text(from + 2)? {
        Some(address) => StoredWay::Email { address: address.to_owned() },
        None => StoredWay::Slack {
            sealed_url: row.bytes(from + 4)?.to_vec(),
            channel: row.text(from + 3)?.to_owned(),
        },
    };
    let (id, cache) = (row.natural(from)?, CacheId::new(row.natural(from + 1)?));
    Ok(StoredDelivery { id, cache, way })
}

impl Database {
    pub(crate) fn alerts(&mut self, cache: CacheId) -> Result<Vec<Alert>, ControlError> {
        let select = format!("{SELECT_ALERT} WHERE cache_id = $1 ORDER BY id");
        self.sql.rows(&select, &[cache.get().into()])?.iter().map(alert).collect()
    }

    /// Every alert that is to be looked at.
    pub(crate) fn enabled_alerts(&mut self) -> Result<Vec<Alert>, ControlError> {
        let select = format!("{SELECT_ALERT} WHERE enabled ORDER BY id");
        self.sql.rows(&select, &[])?.iter().map(alert).collect()
    }

    pub(crate) fn put_alert(
        &mut self,
        actor: Actor,
        now: UnixSeconds,
        cache: &Cache,
        id: Option<u64>,
        wish: AlertWish,
    ) -> Result<Alert, ControlError> {
        let mut change = self.begin(actor, now)?;
        let (of, to) = (cache.id.get(), wish.delivery);
        let count = "SELECT count(*) FROM alert_deliveries WHERE id = $1 AND cache_id = $2";
        if change.count(count, &[to.into(), of.into()])? == 0 {
            return Err(ControlError::UnknownDelivery(to));
        }
        let values = [
            of.into(),
            wish.trigger.name().into(),
            i64::from(wish.threshold).into(),
            to.into(),
            wish.description.as_str().into(),
            wish.enabled.into(),
            false.into(),
        ];
        let id = match id {
            None => {
                let count = "SELECT count(*) FROM alerts WHERE cache_id = $1";
                if change.count(count, &[of.into()])? >= ALERTS_PER_CACHE_MAX {
                    return Err(ControlError::TooManyAlerts { max: ALERTS_PER_CACHE_MAX });
                }
                let insert = "INSERT INTO alerts (cache_id, trigger_type, threshold, delivery_id,
                        description, enabled, raised)
                    VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";
                natural(change.sql.number(insert, &values)?)?
            }
            Some(id) => {
                // What was raised under the rule before says nothing about this one.
                let update = "UPDATE alerts SET trigger_type = $2, threshold = $3,
                        delivery_id = $4, description = $5, enabled = $6, raised = $7
                    WHERE cache_id = $1 AND id = $8";
                let values = [values.as_slice(), &[id.into()]].concat();
                if change.sql.execute(update, &values)? == 0 {
                    return Err(ControlError::UnknownAlert(id));
                }
                id
            }
        };
        let detail = format!("{} of {}: {} %", wish.trigger.name(), cache.name, wish.threshold);
        change.audit("alert put", Some(cache.cluster), &detail)?;
        change.commit()?;
        Ok(Alert { id, cache: cache.id, wish, raised: false })
    }

    pub(crate) fn delete_alert(
        &mut self,
        actor: Actor,
        now: UnixSeconds,
        cache: &Cache,
        id: u64,
    ) -> Result<(), ControlError> {
        self.begin(actor, now)?.remove(&ALERT, cache, id)
    }

    pub(crate) fn deliveries(
        &mut self,
        cache: CacheId,
    ) -> Result<Vec<StoredDelivery>, ControlError> {
        let select = format!("{SELECT_DELIVERY} WHERE cache_id = $1 ORDER BY id");
        let rows = self.sql.rows(&select, &[cache.get().into()])?;
        rows.iter().map(|row| delivery(row, 0)).collect()
    }

    pub(crate) fn add_delivery(
        &mut self,
        actor: Actor,
        now: UnixSeconds,
        cache: &Cache,
        way: &StoredWay,
    ) -> Result<u64, ControlError> {
        let mut change = self.begin(actor, now)?;
        let of = cache.id.get();
        let count = "SELECT count(*) FROM alert_deliveries WHERE cache_id = $1";
        if change.count(count, &[of.into()])? >= DELIVERIES_PER_CACHE_MAX {
            return Err(ControlError::TooManyAlerts { max: DELIVERIES_PER_CACHE_MAX });
        }
        let (email, channel, url) = match way {
            StoredWay::Email { address } => (Some(address.as_str()), None, None),
            StoredWay::Slack { sealed_url, channel } => {
                (None, Some(channel.as_str()), Some(sealed_url.as_slice()))
            }
        };
        let insert = "INSERT INTO alert_deliveries
                (cache_id, email, slack_channel, sealed_slack_url)
            VALUES ($1, $2, $3, $4) RETURNING id";
        let values = [of.into(), email.into(), channel.into(), url.into()];
        let id = natural(change.sql.number(insert, &values)?)?;
        change.audit("alert delivery added", Some(cache.cluster), &format!("of {}", cache.name))?;
        change.commit()?;
        Ok(id)
    }

    /// Refuses while an alert uses it.
    pub(crate) fn delete_delivery(
        &mut self,
        actor: Actor,
        now: UnixSeconds,
        cache: &Cache,
        id: u64,
    ) -> Result<(), ControlError> {
        let mut change = self.begin(actor, now)?;
        let count = "SELECT count(*) FROM alerts WHERE delivery_id = $1 AND cache_id = $2";
        let values = [id.into(), cache.id.get().into()];
        if change.count(count, &values)? > 0 {
            return Err(ControlError::DeliveryInUse(id));
        }
        change.remove(&DELIVERY, cache, id)
    }

    /// Notes that an alert is raised or quiet again, and writes its message. Returns whether that was
    /// any news: of two that say so at the same time only one writes a message.
    pub(crate) fn note_alert(
        &mut self,
        now: UnixSeconds,
        alert: &Alert,
        raised: bool,
        message: Option<&Message>,
    ) -> Result<bool, ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        let update = "UPDATE alerts SET raised = $1 WHERE id = $2 AND raised <> $1 AND enabled";
        let news = change.sql.execute(update, &[raised.into(), alert.id.into()])? == 1;
        if news && let Some(message) = message {
            let key = format!("larder-alert-{}-{}", alert.id, now.0);
            outbox::send(change.sql, now, alert.wish.delivery, &key, message)?;
        }
        change.commit()?;
        Ok(news)
    }

    /// Writes a message that someone wants to see arrive.
    pub(crate) fn try_alert(
        &mut self,
        actor: Actor,
        now: UnixSeconds,
        cache: &Cache,
        alert: &Alert,
        key: &str,
        message: &Message,
    ) -> Result<(), ControlError> {
        let mut change: Change<'_> = self.begin(actor, now)?;
        outbox::send(change.sql, now, alert.wish.delivery, key, message)?;
        change.audit("alert tried", Some(cache.cluster), &format!("of {}", cache.name))?;
        change.commit()
    }
}

/// What a Slack URL is sealed for. No username has a colon in it.
pub(crate) fn delivery_context(cache: CacheId) -> Vec<u8> {
    format!("delivery:{cache}").into_bytes()
}
