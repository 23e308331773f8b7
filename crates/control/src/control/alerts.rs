//! Alerts of caches: keeping them, looking at what was measured, and writing messages.

use std::collections::HashSet;

use tenancy::id::CacheId;
use tenancy::secret::Secret;

use super::Control;
use crate::alerts::{Alert, AlertWish, Delivery, HIT_RATE_SECONDS, Verdict, Way};
use crate::database::{StoredDelivery, StoredWay, delivery_context};
use crate::error::ControlError;
use crate::model::{Actor, Cache, CacheRef};

impl Control {
    pub fn alerts(&self, cache: &CacheRef) -> Result<Vec<Alert>, ControlError> {
        self.about(cache, |database, cache| database.alerts(cache.id))
    }

    pub fn alert(&self, cache: &CacheRef, id: u64) -> Result<Alert, ControlError> {
        let found = self.alerts(cache)?.into_iter().find(|alert| alert.id == id);
        found.ok_or(ControlError::UnknownAlert(id))
    }

    /// Adds an alert, or gives the one with this id another wish; then it may be raised anew.
    pub fn put_alert(
        &self,
        actor: Actor,
        cache: &CacheRef,
        id: Option<u64>,
        wish: AlertWish,
    ) -> Result<Alert, ControlError> {
        let now = self.environment.now();
        self.about(cache, |database, cache| database.put_alert(actor, now, cache, id, wish))
    }

    pub fn delete_alert(
        &self,
        actor: Actor,
        cache: &CacheRef,
        id: u64,
    ) -> Result<(), ControlError> {
        let now = self.environment.now();
        self.about(cache, |database, cache| database.delete_alert(actor, now, cache, id))
    }

    /// Sends a message as the alert would, to see that it arrives.
    pub fn try_alert(&self, actor: Actor, cache: &CacheRef, id: u64) -> Result<(), ControlError> {
        let alert = self.alert(cache, id)?;
        let key = format!("larder-try-{id}-{:016x}", self.chance()?);
        let now = self.environment.now();
        self.about(cache, |database, cache| {
            let message = alert.wish.message(cache.name.as_str(), None);
            database.try_alert(actor, now, cache, &alert, &key, &message)
        })?;
        self.outbox_bell.ring();
        Ok(())
    }

    pub fn deliveries(&self, cache: &CacheRef) -> Result<Vec<Delivery>, ControlError> {
        let stored = self.about(cache, |database, cache| database.deliveries(cache.id))?;
        stored.into_iter().map(|stored| self.open_delivery(stored)).collect()
    }

    pub fn add_delivery(
        &self,
        actor: Actor,
        cache: &CacheRef,
        way: Way,
    ) -> Result<Delivery, ControlError> {
        let (nonce, now) = (self.environment.random()?, self.environment.now());
        let (id, cache) = self.about(cache, |database, cache| {
            let stored = match &way {
                Way::Email { address } => StoredWay::Email { address: address.clone() },
                Way::Slack { url, channel } => StoredWay::Slack {
                    sealed_url: self.sealer.seal_for(&delivery_context(cache.id), url, nonce),
                    channel: channel.clone(),
                },
            };
            let id = database.add_delivery(actor, now, cache, &stored)?;
            Ok((id, cache.id))
        })?;
        Ok(Delivery { id, cache, way })
    }

    pub fn delete_delivery(
        &self,
        actor: Actor,
        cache: &CacheRef,
        id: u64,
    ) -> Result<(), ControlError> {
        let now = self.environment.now();
        self.about(cache, |database, cache| database.delete_delivery(actor, now, cache, id))
    }

    pub(crate) fn open_delivery(&self, stored: StoredDelivery) -> Result<Delivery, ControlError> {
        let StoredDelivery { id, cache, way } = stored;
        let way = match way {
            StoredWay::Email { address } => Way::Email { address },
            StoredWay::Slack { sealed_url, channel } => {
                let url: Secret = self
                    .sealer
                    .open_for(&delivery_context(cache), &sealed_url)
                    .map_err(|source| ControlError::SealedDelivery { delivery: id, source })?;
                Way::Slack { url, channel }
            }
        };
        Ok(Delivery { id, cache, way })
    }

    /// Looks at the alerts of these caches, which are those of which anything has changed.
    pub(super) fn watch_alerts(&self, changed: &HashSet<CacheId>) -> Result<(), ControlError> {
        if changed.is_empty() {
            return Ok(());
        }
        let alerts = self.lock().enabled_alerts()?;
        for alert in alerts.iter().filter(|alert| changed.contains(&alert.cache)) {
            // The cache may have been deleted since.
            if let Err(error) = self.watch_alert(alert)
                && !matches!(error, ControlError::UnknownCache(_))
            {
                return Err(error);
            }
        }
        Ok(())
    }

    fn watch_alert(&self, alert: &Alert) -> Result<(), ControlError> {
        // Until the minute that was just written has ended, whenever within it this is.
        let now = self.environment.now();
        let from = now.0.saturating_sub(HIT_RATE_SECONDS);
        let (cache, series) = self.series(&CacheRef::Id(alert.cache), from, now.0)?;
        let value = alert.wish.trigger.measure(&series.points, memory_bytes(&cache));
        match alert.judge(value) {
            Verdict::Same => return Ok(()),
            Verdict::Quiet => {
                self.lock().note_alert(now, alert, false, None)?;
            }
            Verdict::Raise { percent } => {
                let message = alert.wish.message(cache.name.as_str(), Some(percent));
                self.lock().note_alert(now, alert, true, Some(&message))?;
                self.outbox_bell.ring();
            }
        }
        Ok(())
    }
}

fn memory_bytes(cache: &Cache) -> u64 {
    cache.plan.limits.memory_bytes
}
