//! Rows of latency over time: few, because they are of proxies and not of caches. So every step is written
//! at once, and nothing is summed up later.

use wire::codec::Reader;
use wire::control::latency::Histogram;

use super::Database;
use super::rows::corrupt;
use super::sql::Row;
use crate::error::ControlError;
use crate::model::{Actor, UnixSeconds};
use crate::series::latency::Fineness;

/// Rows that are forgotten in one transaction.
const TRIM_BATCH: usize = 2_000;

fn histogram(row: &Row, column: usize) -> Result<Histogram, ControlError> {
    Histogram::decode(&mut Reader::new(row.bytes(column)?)).map_err(|_| corrupt("histogram"))
}

impl Database {
    /// Adds what servers, by number, have measured up to `at` to what there is of that time.
    pub(crate) fn add_latencies(
        &mut self,
        now: UnixSeconds,
        at: u64,
        measured: &[(u64, Histogram)],
    ) -> Result<(), ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        for (server, more) in measured {
            for step in Fineness::ALL {
                let key = [step.seconds().into(), step.begin(at).into(), (*server).into()];
                let select =
                    "SELECT histogram FROM latency WHERE step = $1 AND at = $2 AND server = $3";
                let mut sum = match change.sql.row(select, &key)? {
                    Some(row) => histogram(&row, 0)?,
                    None => Histogram::default(),
                };
                sum.add(more);
                let mut bytes = Vec::new();
                sum.encode(&mut bytes);
                let put = "INSERT INTO latency (step, at, server, histogram)
                    VALUES ($1, $2, $3, $4) ON CONFLICT (step, at, server)
                    DO UPDATE SET histogram = excluded.histogram";
                let values = [key[0], key[1], key[2], bytes.as_slice().into()];
                change.sql.execute(put, &values)?;
            }
        }
        change.commit()
    }

    /// What was measured from `from` to before `to`: time, number of the server, histogram; by time.
    pub(crate) fn latencies(
        &mut self,
        step: Fineness,
        (from, to): (u64, u64),
    ) -> Result<Vec<(u64, u64, Histogram)>, ControlError> {
        let select = "SELECT at, server, histogram FROM latency
            WHERE step = $1 AND at >= $2 AND at < $3 ORDER BY at, server";
        let values = [step.seconds().into(), step.begin(from).into(), to.into()];
        let rows = self.sql.rows(select, &values)?;
        rows.iter().map(|row| Ok((row.natural(0)?, row.natural(1)?, histogram(row, 2)?))).collect()
    }

    /// Forgets some rows that are older than is kept. Returns whether there may be more.
    pub(crate) fn trim_latencies(&mut self, now: UnixSeconds) -> Result<bool, ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        let mut most = 0;
        for step in Fineness::ALL {
            let before = now.0.saturating_sub(step.kept_seconds());
            let delete = "DELETE FROM latency WHERE (step, at, server) IN
                (SELECT step, at, server FROM latency
                 WHERE step = $1 AND at < $2 ORDER BY at LIMIT $3)";
            let values = [step.seconds().into(), before.into(), TRIM_BATCH.into()];
            most = most.max(change.sql.execute(delete, &values)?);
        }
        change.commit()?;
        Ok(most >= TRIM_BATCH as u64)
    }
}
