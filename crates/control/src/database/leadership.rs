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
use super::change::id;
use super::sql::{Mode, Sql};
use crate::error::ControlError;

/// Grows whenever leadership changes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fence(pub(crate) u64);

/// Refuses a change of who does not lead (any more).
pub(super) fn check(sql: &mut dyn Sql, fence: Fence) -> Result<(), ControlError> {
    let found = sql.number("SELECT fence FROM leadership WHERE id = 1 FOR SHARE", &[])?;
    if id(found)? == fence.0 { Ok(()) } else { Err(ControlError::NotLeader) }
}

impl Database {
    /// Takes leadership whoever holds it: for a file that this process alone has open.
    pub(super) fn seize(&mut self, holder: &str) -> Result<(), ControlError> {
        self.sql.begin(Mode::Write)?;
        let fence = self.sql.number("SELECT fence FROM leadership WHERE id = 1", &[]);
        let seized = fence.and_then(|fence| {
            let fence = id(fence)? + 1;
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
}
