//! Calls to others that must not be lost: written in the transaction of the change that causes them,
//! claimed one by one by the process that leads, and marked when they have been carried out.
//!
//! A claim moves the call's next attempt to a time when the claimer must have ended, and is itself a
//! fenced change; so no two processes make the same attempt. A process that dies between the call and
//! its mark leaves a call that is made once more: the receiver tells it by its idempotency key.

use serde_json::json;
use wire::control::record::Revision;

use super::Database;
use super::alerts::{SELECT_DELIVERY, StoredDelivery, delivery};
use super::change::{Change, Kind, natural};
use super::rows::corrupt;
use super::sql::{Row, Sql, Value};
use crate::alerts::Message;
use crate::couriers::COURIERS;
use crate::error::ControlError;
use crate::model::{Actor, Cache, UnixSeconds};

/// Few enough that a change writes them all in its own transaction.
const WEBHOOKS_MAX: usize = 20;
/// Calls that wait at most. Beyond it a receiver has been away for so long that the oldest news is
/// the least of its worries: further ones are written as dead.
const WAITING_MAX: u64 = 100_000;

/// Someone who wants to hear of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Webhook {
    pub(crate) id: u64,
    pub(crate) url: String,
    pub(crate) sealed_secret: Vec<u8>,
    pub(crate) created_at: UnixSeconds,
}

/// Whom a call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Receiver {
    Webhook(Webhook),
    /// Where the alerts of a cache go.
    Delivery(StoredDelivery),
}

impl Receiver {
    /// Tells receivers apart; 0 is nobody.
    pub(crate) fn number(&self) -> i64 {
        let number = |id: u64| i64::try_from(id).unwrap_or(i64::MAX);
        match self {
            Receiver::Webhook(webhook) => number(webhook.id),
            Receiver::Delivery(delivery) => -number(delivery.id),
        }
    }
}

/// A call that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) receiver: Receiver,
    pub(crate) idempotency_key: String,
    pub(crate) body: String,
    /// This one included.
    pub(crate) attempts: u32,
}

/// A call as the API lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutboxEntry {
    pub(crate) id: u64,
    pub(crate) url: String,
    pub(crate) idempotency_key: String,
    pub(crate) state: CallState,
    pub(crate) attempts: u32,
    pub(crate) created_at: UnixSeconds,
    pub(crate) problem: Option<String>,
    pub(crate) body: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallState {
    Waiting,
    Sent,
    /// Given up: only someone's wish tries it again.
    Dead,
}

impl CallState {
    const ALL: [CallState; 3] = [CallState::Waiting, CallState::Sent, CallState::Dead];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            CallState::Waiting => "waiting",
            CallState::Sent => "sent",
            CallState::Dead => "dead",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        CallState::ALL.into_iter().find(|state| state.name() == name)
    }
}

const SELECT_WEBHOOK: &str = "SELECT id, url, sealed_secret, created_at FROM webhooks";

fn webhook(row: &Row, from: usize) -> Result<Webhook, ControlError> {
    Ok(Webhook {
        id: row.natural(from)?,
        url: row.text(from + 1)?.to_owned(),
        sealed_secret: row.bytes(from + 2)?.to_vec(),
        created_at: UnixSeconds(row.natural(from + 3)?),
    })
}

fn attempts(row: &Row, at: usize) -> Result<u32, ControlError> {
    u32::try_from(row.int(at)?).map_err(|_| corrupt("number of attempts"))
}

/// Reads two columns: the webhook's id or the delivery's.
fn receiver(sql: &mut dyn Sql, row: &Row, from: usize) -> Result<Receiver, ControlError> {
    let gone = || corrupt("receiver");
    if let Some(id) = row.optional_natural(from)? {
        let found = sql.row(&format!("{SELECT_WEBHOOK} WHERE id = $1"), &[id.into()])?;
        return webhook(&found.ok_or_else(gone)?, 0).map(Receiver::Webhook);
    }
    let id = row.natural(from + 1)?;
    let found = sql.row(&format!("{SELECT_DELIVERY} WHERE id = $1"), &[id.into()])?;
    delivery(&found.ok_or_else(gone)?, 0).map(Receiver::Delivery)
}

/// Writes a message to where the alerts of a cache go, in the transaction that is being made.
pub(super) fn send(
    sql: &mut dyn Sql,
    now: UnixSeconds,
    delivery: u64,
    key: &str,
    message: &Message,
) -> Result<(), ControlError> {
    let body = serde_json::to_string(message).expect("two strings");
    let waiting = sql.number("SELECT count(*) FROM outbox WHERE state = 'waiting'", &[])?;
    let (state, problem) = state_of_new(natural(waiting)?);
    // An alert that is raised twice within a second was told already.
    sql.execute(
        "INSERT INTO outbox (delivery_id, idempotency_key, body, created_at, state,
             next_attempt_ms, problem)
         VALUES ($1, $2, $3, $4, $5, 0, $6) ON CONFLICT (idempotency_key) DO NOTHING",
        &[
            delivery.into(),
            key.into(),
            body.as_str().into(),
            now.0.into(),
            state.name().into(),
            problem.into(),
        ],
    )?;
    Ok(())
}

fn state_of_new(waiting: u64) -> (CallState, Option<&'static str>) {
    if waiting < WAITING_MAX {
        (CallState::Waiting, None)
    } else {
        (CallState::Dead, Some("too many calls were waiting"))
    }
}

/// Writes a call to every webhook about a change that is being made.
pub(super) fn tell(
    sql: &mut dyn Sql,
    now: UnixSeconds,
    kind: Kind,
    cache: &Cache,
    username: Option<&str>,
    revision: Revision,
) -> Result<(), ControlError> {
    let webhooks = sql.rows("SELECT id FROM webhooks ORDER BY id", &[])?;
    if webhooks.is_empty() {
        return Ok(());
    }
    let body = json!({
        "type": kind.name(),
        "cluster": cache.cluster.0,
        "revision": revision.get(),
        "at": now.0,
        "cache": { "id": cache.id.get(), "name": cache.name.as_str() },
        "username": username,
    })
    .to_string();
    let waiting = sql.number("SELECT count(*) FROM outbox WHERE state = 'waiting'", &[])?;
    let (state, problem) = state_of_new(natural(waiting)?);
    for row in webhooks {
        let webhook = row.natural(0)?;
        // Unique for ever: ids and revisions are never given twice.
        let key = format!("larder-{webhook}-{}-{revision}", cache.cluster);
        sql.execute(
            "INSERT INTO outbox (webhook_id, idempotency_key, body, created_at, state,
                 next_attempt_ms, problem)
             VALUES ($1, $2, $3, $4, $5, 0, $6)",
            &[
                webhook.into(),
                key.as_str().into(),
                body.as_str().into(),
                now.0.into(),
                state.name().into(),
                problem.into(),
            ],
        )?;
    }
    Ok(())
}

impl Database {
    pub(crate) fn webhooks(&mut self) -> Result<Vec<Webhook>, ControlError> {
        let rows = self.sql.rows(&format!("{SELECT_WEBHOOK} ORDER BY id"), &[])?;
        rows.iter().map(|row| webhook(row, 0)).collect()
    }

    /// Takes the call that has been due for longest, for `claim_ms` from now: when it has not been
    /// settled by then it is tried again. Those of `busy` receivers ([`Receiver::number`]) are left alone.
    pub(crate) fn claim_call(
        &mut self,
        now: UnixSeconds,
        claim_ms: i64,
        busy: &[i64; COURIERS],
    ) -> Result<Claimed, ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        let now_ms = change.sql.now_ms()?;
        let select = "SELECT id, webhook_id, delivery_id, idempotency_key, body, attempts,
                next_attempt_ms
            FROM outbox WHERE state = 'waiting' AND coalesce(webhook_id, -delivery_id)
                NOT IN ($1, $2, $3, $4)
            ORDER BY next_attempt_ms, id LIMIT 1";
        let Some(row) = change.sql.row(select, &busy.map(Value::from))? else {
            return Ok(Claimed::Nothing);
        };
        let due_ms = row.int(6)?;
        if now_ms < due_ms {
            return Ok(Claimed::Later { wait_ms: (due_ms - now_ms).unsigned_abs() });
        }
        let call = Call {
            id: row.natural(0)?,
            receiver: receiver(change.sql, &row, 1)?,
            idempotency_key: row.text(3)?.to_owned(),
            body: row.text(4)?.to_owned(),
            attempts: attempts(&row, 5)?.saturating_add(1),
        };
        let update = "UPDATE outbox SET attempts = $1, next_attempt_ms = $2 WHERE id = $3";
        let values = [i64::from(call.attempts).into(), (now_ms + claim_ms).into(), call.id.into()];
        change.sql.execute(update, &values)?;
        change.commit()?;
        Ok(Claimed::Call(call))
    }

    /// Says how a claimed call ended. A call that has been claimed again since is left alone.
    pub(crate) fn settle_call(
        &mut self,
        now: UnixSeconds,
        call: &Call,
        outcome: &Outcome,
    ) -> Result<(), ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        let now_ms = change.sql.now_ms()?;
        let (state, next_attempt_ms, problem) = match outcome {
            Outcome::Sent => (CallState::Sent, 0, None),
            Outcome::Retry { after_ms, problem } => {
                (CallState::Waiting, now_ms + after_ms, Some(problem.as_str()))
            }
            Outcome::Dead { problem } => (CallState::Dead, 0, Some(problem.as_str())),
        };
        let update = "UPDATE outbox SET state = $1, next_attempt_ms = $2, problem = $3
            WHERE id = $4 AND attempts = $5 AND state = 'waiting'";
        let values = [
            state.name().into(),
            next_attempt_ms.into(),
            problem.into(),
            call.id.into(),
            i64::from(call.attempts).into(),
        ];
        change.sql.execute(update, &values)?;
        change.commit()
    }

    /// Calls in a state, the newest first.
    pub(crate) fn calls(
        &mut self,
        state: CallState,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, ControlError> {
        let select = format!("{SELECT_CALL} WHERE state = $1 ORDER BY outbox.id DESC LIMIT $2");
        let rows = self.sql.rows(&select, &[state.name().into(), limit.into()])?;
        rows.iter().map(entry).collect()
    }

    pub(crate) fn call(&mut self, call: u64) -> Result<OutboxEntry, ControlError> {
        let row = self.sql.row(&format!("{SELECT_CALL} WHERE outbox.id = $1"), &[call.into()])?;
        entry(&row.ok_or(ControlError::UnknownCall(call))?)
    }
}

// A Slack URL is a secret of the cache's owner, and an e-mail address is none of ours to list.
const SELECT_CALL: &str =
    "SELECT outbox.id, coalesce(url, 'alert'), idempotency_key, state, attempts,
    outbox.created_at, problem, body FROM outbox LEFT JOIN webhooks ON webhooks.id = webhook_id";

fn entry(row: &Row) -> Result<OutboxEntry, ControlError> {
    Ok(OutboxEntry {
        id: row.natural(0)?,
        url: row.text(1)?.to_owned(),
        idempotency_key: row.text(2)?.to_owned(),
        state: CallState::named(row.text(3)?).ok_or(corrupt("state of a call"))?,
        attempts: attempts(row, 4)?,
        created_at: UnixSeconds(row.natural(5)?),
        problem: row.optional_text(6)?.map(str::to_owned),
        body: row.text(7)?.to_owned(),
    })
}

/// Each returns the id of what it made or changed.
impl Change<'_> {
    /// Adds a webhook, or gives the one with this URL another secret.
    pub(crate) fn put_webhook(
        &mut self,
        url: &str,
        sealed_secret: &[u8],
    ) -> Result<u64, ControlError> {
        let others = "SELECT count(*) FROM webhooks WHERE url <> $1";
        if self.count(others, &[url.into()])? >= WEBHOOKS_MAX {
            return Err(ControlError::TooManyWebhooks { max: WEBHOOKS_MAX });
        }
        let put = "INSERT INTO webhooks (url, sealed_secret, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (url) DO UPDATE SET sealed_secret = excluded.sealed_secret RETURNING id";
        let values = [url.into(), sealed_secret.into(), self.now.0.into()];
        let id = natural(self.sql.number(put, &values)?)?;
        self.audit("webhook put", None, url)?;
        Ok(id)
    }

    /// Removes a webhook with the calls that wait for it.
    pub(crate) fn delete_webhook(&mut self, webhook: u64) -> Result<u64, ControlError> {
        let delete = "DELETE FROM webhooks WHERE id = $1";
        if self.sql.execute(delete, &[webhook.into()])? == 0 {
            return Err(ControlError::UnknownWebhook(webhook));
        }
        self.audit("webhook removed", None, &webhook.to_string())?;
        Ok(webhook)
    }

    /// Writes a call that is about nothing to one webhook.
    pub(crate) fn test_webhook(&mut self, webhook: u64) -> Result<u64, ControlError> {
        if self.count("SELECT count(*) FROM webhooks WHERE id = $1", &[webhook.into()])? == 0 {
            return Err(ControlError::UnknownWebhook(webhook));
        }
        self.audit("webhook tested", None, &webhook.to_string())?;
        // No line is numbered twice, so neither is the call's key.
        let line = self.audit_line().ok_or(corrupt("line of the audit log"))?;
        let body = json!({ "type": "test", "at": self.now.0 }).to_string();
        let key = format!("larder-{webhook}-test-{line}");
        let insert = "INSERT INTO outbox (webhook_id, idempotency_key, body, created_at, state,
                next_attempt_ms)
            VALUES ($1, $2, $3, $4, 'waiting', 0) RETURNING id";
        let values = [webhook.into(), key.as_str().into(), body.as_str().into(), self.now.0.into()];
        natural(self.sql.number(insert, &values)?)
    }

    /// Gives a call that was given up all its attempts again.
    pub(crate) fn revive_call(&mut self, call: u64) -> Result<u64, ControlError> {
        let update = "UPDATE outbox SET state = 'waiting', attempts = 0, next_attempt_ms = 0
            WHERE id = $1 AND state = 'dead'";
        if self.sql.execute(update, &[call.into()])? == 0 {
            return Err(ControlError::UnknownCall(call));
        }
        self.audit("call revived", None, &call.to_string())?;
        Ok(call)
    }
}

/// What [`Database::claim_call`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    Call(Call),
    /// Nothing is due for so long.
    Later {
        wait_ms: u64,
    },
    Nothing,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Sent,
    Retry { after_ms: i64, problem: String },
    Dead { problem: String },
}
