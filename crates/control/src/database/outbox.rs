//! Calls to others that must not be lost: written in the transaction of the change that causes them,
//! and carried out afterwards.

use serde_json::json;
use wire::control::record::Revision;

use super::change::{Kind, id};
use super::sql::Sql;
use crate::error::ControlError;
use crate::model::{Cache, UnixSeconds};

/// Calls that wait at most. Beyond it a receiver has been away for so long that the oldest news is
/// the least of its worries: further ones are written as dead.
const WAITING_MAX: u64 = 100_000;

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
    let (state, problem) = if id(waiting)? < WAITING_MAX {
        ("waiting", None)
    } else {
        ("dead", Some("too many calls were waiting"))
    };
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
                state.into(),
                problem.into(),
            ],
        )?;
    }
    Ok(())
}
