//! What is kept for how long, and forgetting the rest, a little at a time.

use super::Database;
use crate::error::ControlError;
use crate::model::{Actor, UnixSeconds};

const DAY: u64 = 24 * 60 * 60;

/// How much of what has happened is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Changes per cluster. A node that was away for longer than these is given a snapshot, which for
    /// a large cluster costs about as much as so many changes.
    pub changes_max: u64,
    /// Seconds that a line of the audit log is kept.
    pub audit_seconds: u64,
    /// Seconds in which a repeated request is known by its key.
    pub idempotency_seconds: u64,
    /// Seconds that a call that was sent, or was given up, can still be looked at.
    pub calls_seconds: u64,
    /// Topologies per cluster that are no longer in force. All that were since the last one was settled
    /// are kept besides (`push::chain`).
    pub epochs_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            changes_max: 100_000,
            // A year, and what it takes to look at a whole one.
            audit_seconds: 400 * DAY,
            // Whoever repeats a request later than that asks for another one.
            idempotency_seconds: DAY,
            // Long enough for someone to come back from a holiday and see what was lost.
            calls_seconds: 30 * DAY,
            epochs_max: 1_000,
        }
    }
}

/// Rows of one table that are deleted in one transaction: others wait for milliseconds at most.
const BATCH: usize = 1_000;

impl Database {
    /// Forgets up to [`BATCH`] rows of each table. Returns whether there may be more.
    pub(crate) fn trim(
        &mut self,
        now: UnixSeconds,
        retention: &Retention,
    ) -> Result<bool, ControlError> {
        let before = |seconds: u64| now.0.saturating_sub(seconds);
        let change = self.begin(Actor::Installation, now)?;
        let mut most = 0;
        let batch = BATCH.into();
        for (sql, limit) in [
            (
                "DELETE FROM audit WHERE id IN
                     (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)",
                before(retention.audit_seconds),
            ),
            (
                "DELETE FROM idempotency_keys WHERE key IN
                     (SELECT key FROM idempotency_keys WHERE at < $1 ORDER BY at LIMIT $2)",
                before(retention.idempotency_seconds),
            ),
            (
                "DELETE FROM installation_requests WHERE key IN
                     (SELECT key FROM installation_requests WHERE at < $1 ORDER BY at LIMIT $2)",
                before(retention.idempotency_seconds),
            ),
            (
                "DELETE FROM outbox WHERE id IN
                     (SELECT id FROM outbox WHERE state <> 'waiting' AND created_at < $1 LIMIT $2)",
                before(retention.calls_seconds),
            ),
        ] {
            most = most.max(change.sql.execute(sql, &[limit.into(), batch])?);
        }
        for cluster in super::rows::clusters(change.sql)? {
            let oldest_kept = cluster.revision.get().saturating_sub(retention.changes_max);
            let trim = "DELETE FROM changes WHERE cluster_id = $1 AND revision IN
                (SELECT revision FROM changes WHERE cluster_id = $1 AND revision <= $2
                 ORDER BY revision LIMIT $3)";
            let values = [cluster.id.0.into(), oldest_kept.into(), batch];
            most = most.max(change.sql.execute(trim, &values)?);
            let trim = "DELETE FROM epochs WHERE cluster_id = $1
                AND (state = 'aborted' OR state = 'superseded' AND epoch <
                    (SELECT coalesce(max(epoch), 0) FROM epochs
                     WHERE cluster_id = $1 AND settled_at IS NOT NULL))
                AND epoch <=
                    (SELECT coalesce(max(epoch), 0) FROM epochs WHERE cluster_id = $1) - $2";
            let values = [cluster.id.0.into(), retention.epochs_max.into()];
            change.sql.execute(trim, &values)?;
        }
        change.commit()?;
        Ok(most >= BATCH as u64)
    }
}
