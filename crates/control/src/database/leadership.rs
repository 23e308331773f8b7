//! Who may write: one control process at a time, by a lease with a fencing token.
//!
//! ```text
//!   A leads, fence 7 ──── stops for a minute ───────────────▶ wakes, writes under fence 7: refused
//!                          lease runs out
//!   B asks now and then ──────────▶ takes it, fence 8 ───▶ writes
//! ```
//!
//! The lease only decides when another one may try. What keeps two from writing is the fence: every
//! change reads it in its own transaction and holds the row until it ends, and taking over changes
//! that row; so a change is either wholly before a take-over or refused after it, however late it
//! comes and whatever its process believes.

use super::Database;
use super::change::natural;
use super::sql::{Mode, Sql};
use crate::error::ControlError;

/// Grows whenever leadership changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fence(pub(crate) u64);

/// What one look at the lease gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lease {
    /// We lead, for as long as was asked unless we ask again.
    Ours(Fence),
    /// Someone else does: how they called themselves.
    Theirs { holder: String },
}

/// Refuses a change of who does not lead (any more).
pub(super) fn check(sql: &mut dyn Sql, fence: Fence) -> Result<(), ControlError> {
    let found = sql.number("SELECT fence FROM leadership WHERE id = 1 FOR SHARE", &[])?;
    if natural(found)? == fence.0 { Ok(()) } else { Err(ControlError::NotLeader) }
}

impl Database {
    /// Prolongs our lease, or takes one that nobody holds, for `lease_ms` from now by the database's
    /// clock. `holder` is told to those who ask while we lead. With `as_before` a lease under that name
    /// counts as nobody's: the caller knows that whoever took it has ended.
    pub(crate) fn lead(
        &mut self,
        holder: &str,
        lease_ms: u32,
        as_before: bool,
    ) -> Result<Lease, ControlError> {
        let lease = self.try_lead(holder, lease_ms, as_before);
        self.sql.rollback();
        self.fence = match lease {
            Ok(Lease::Ours(fence)) => Some(fence),
            Ok(Lease::Theirs { .. }) => None,
            // Not heard of: should another one lead by now, the fence tells with the next change.
            Err(_) => self.fence,
        };
        lease
    }

    fn try_lead(
        &mut self,
        holder: &str,
        lease_ms: u32,
        as_before: bool,
    ) -> Result<Lease, ControlError> {
        self.sql.begin(Mode::Write)?;
        let now_ms = self.sql.now_ms()?;
        let select = "SELECT holder, fence, expires_at_ms FROM leadership WHERE id = 1 FOR UPDATE";
        let row = self.sql.row(select, &[])?.ok_or(super::rows::corrupt("leadership"))?;
        let (found, expires_at_ms) = (row.natural(1)?, row.int(2)?);
        let ours = self.fence == Some(Fence(found));
        let ended = as_before && row.text(0)? == holder;
        if !ours && !ended && now_ms < expires_at_ms {
            return Ok(Lease::Theirs { holder: row.text(0)?.to_owned() });
        }
        let fence = if ours { found } else { found + 1 };
        self.write_lease(holder, fence, now_ms.saturating_add(i64::from(lease_ms)))?;
        Ok(Lease::Ours(Fence(fence)))
    }

    /// Takes leadership whoever holds it: for a file that this process alone has open.
    pub(super) fn seize(&mut self, holder: &str) -> Result<(), ControlError> {
        self.sql.begin(Mode::Write)?;
        let fence = self.sql.number("SELECT fence FROM leadership WHERE id = 1", &[]);
        let seized = fence.and_then(|fence| {
            let fence = natural(fence)? + 1;
            self.write_lease(holder, fence, i64::MAX)?;
            Ok(Fence(fence))
        });
        self.sql.rollback();
        self.fence = Some(seized?);
        Ok(())
    }

    fn write_lease(
        &mut self,
        holder: &str,
        fence: u64,
        expires_at_ms: i64,
    ) -> Result<(), ControlError> {
        let update =
            "UPDATE leadership SET holder = $1, fence = $2, expires_at_ms = $3 WHERE id = 1";
        self.sql.execute(update, &[holder.into(), fence.into(), expires_at_ms.into()])?;
        Ok(self.sql.commit()?)
    }

    /// Gives leadership up, so that another one need not wait until the lease runs out.
    pub(crate) fn resign(&mut self) -> Result<(), ControlError> {
        let Some(Fence(fence)) = self.fence.take() else { return Ok(()) };
        let update = "UPDATE leadership SET expires_at_ms = 0 WHERE id = 1 AND fence = $1";
        self.sql.execute(update, &[fence.into()])?;
        Ok(())
    }

    /// Stops writing, without a word to the database.
    pub(crate) fn step_down(&mut self) {
        self.fence = None;
    }

    pub(crate) fn leads(&self) -> bool {
        self.fence.is_some()
    }
}
