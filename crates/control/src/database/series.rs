//! Rows of statistics over time: adding what was sampled, summing up, reading, forgetting.

use std::collections::HashMap;

use tenancy::id::CacheId;

use super::Database;
use super::change::natural;
use super::rows::corrupt;
use super::sql::Row;
use crate::error::ControlError;
use crate::model::{Actor, UnixSeconds};
use crate::series::sample::Sample;
use crate::series::step::Step;

/// Rows that are written or deleted in one transaction: others wait for some ten milliseconds at most.
pub(crate) const SERIES_BATCH: usize = 2_000;

/// A cache as a whole, among its servers.
pub(crate) const WHOLE: u64 = 0;

/// One row, without its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesRow {
    pub(crate) cache: CacheId,
    /// [`WHOLE`], or a number of [`Database::server_number`].
    pub(crate) server: u64,
    pub(crate) sample: Sample,
}

/// A window that is complete, summed up from finer rows.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) at: u64,
    pub(crate) rows: Vec<SeriesRow>,
}

fn sample(row: &Row, column: usize) -> Result<Sample, ControlError> {
    Sample::decode(row.bytes(column)?).ok_or(corrupt("sample"))
}

impl Database {
    /// Adds rows to what there is of this minute already: a process that was stopped within it has
    /// written its part.
    pub(crate) fn add_samples(
        &mut self,
        now: UnixSeconds,
        at: u64,
        rows: &[SeriesRow],
    ) -> Result<(), ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        let step = Step::Minute.seconds();
        for row in rows {
            let (cache, server) = (row.cache.get(), row.server);
            let bytes = row.sample.encode();
            let insert = "INSERT INTO series (step, at, cache_id, server, sample)
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT (step, at, cache_id, server) DO NOTHING";
            let key = [step.into(), at.into(), cache.into(), server.into()];
            let values = [key[0], key[1], key[2], key[3], bytes.as_slice().into()];
            if change.sql.execute(insert, &values)? == 1 {
                continue;
            }
            let select = "SELECT sample FROM series
                WHERE step = $1 AND at = $2 AND cache_id = $3 AND server = $4";
            let known = change.sql.row(select, &key)?.ok_or(corrupt("row of a series"))?;
            let mut sum = sample(&known, 0)?;
            sum.then(&row.sample);
            let bytes = sum.encode();
            let update = "UPDATE series SET sample = $1
                WHERE step = $2 AND at = $3 AND cache_id = $4 AND server = $5";
            let values = [bytes.as_slice().into(), key[0], key[1], key[2], key[3]];
            change.sql.execute(update, &values)?;
        }
        change.commit()
    }

    /// The next window of a step that is complete by now and was not summed up yet. Only reads: summing
    /// up twice gives the same rows.
    pub(crate) fn next_window(
        &mut self,
        now: UnixSeconds,
        step: Step,
    ) -> Result<Option<Window>, ControlError> {
        let Some(finer) = step.finer() else { return Ok(None) };
        let select = "SELECT until FROM series_rolled WHERE step = $1";
        let until = self.sql.row(select, &[step.seconds().into()])?;
        let until = until.map_or(Ok(0), |row| row.natural(0))?;
        let select = "SELECT at FROM series WHERE step = $1 AND at >= $2 ORDER BY at LIMIT 1";
        let Some(first) = self.sql.row(select, &[finer.seconds().into(), until.into()])? else {
            return Ok(None);
        };
        let at = step.begin(first.natural(0)?);
        let end = at + step.seconds();
        if now.0 < end {
            return Ok(None);
        }
        let mut sums: HashMap<(u64, u64), Sample> = HashMap::new();
        let select = "SELECT cache_id, server, sample FROM series
            WHERE step = $1 AND at >= $2 AND at < $3 ORDER BY at";
        let values = [finer.seconds().into(), at.into(), end.into()];
        self.sql.for_each(select, &values, &mut |row| {
            let key = (row.natural(0)?, row.natural(1)?);
            sums.entry(key).or_default().then(&sample(&row, 2)?);
            Ok(())
        })?;
        let row =
            |((cache, server), sample)| SeriesRow { cache: CacheId::new(cache), server, sample };
        let mut rows: Vec<SeriesRow> = sums.into_iter().map(row).collect();
        rows.sort_unstable_by_key(|row| (row.cache, row.server));
        Ok(Some(Window { at, rows }))
    }

    /// Writes rows of a window, also where there are such.
    pub(crate) fn put_window(
        &mut self,
        now: UnixSeconds,
        step: Step,
        at: u64,
        rows: &[SeriesRow],
    ) -> Result<(), ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        for row in rows {
            let bytes = row.sample.encode();
            let put = "INSERT INTO series (step, at, cache_id, server, sample)
                VALUES ($1, $2, $3, $4, $5) ON CONFLICT (step, at, cache_id, server)
                DO UPDATE SET sample = excluded.sample";
            let values = [
                step.seconds().into(),
                at.into(),
                row.cache.get().into(),
                row.server.into(),
                bytes.as_slice().into(),
            ];
            change.sql.execute(put, &values)?;
        }
        change.commit()
    }

    /// Notes that all windows of a step before `until` are summed up.
    pub(crate) fn note_rolled(
        &mut self,
        now: UnixSeconds,
        step: Step,
        until: u64,
    ) -> Result<(), ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        let put = "INSERT INTO series_rolled (step, until) VALUES ($1, $2)
            ON CONFLICT (step) DO UPDATE SET until = excluded.until";
        change.sql.execute(put, &[step.seconds().into(), until.into()])?;
        change.commit()
    }

    /// The rows of a cache from `from` to before `to`, by time; of its servers instead of the whole when
    /// that is asked. Looks for each step's row by itself, because rows are ordered by time.
    pub(crate) fn series(
        &mut self,
        cache: CacheId,
        step: Step,
        (from, to): (u64, u64),
        of_servers: bool,
    ) -> Result<Vec<(u64, u64, Sample)>, ControlError> {
        if to <= from {
            return Ok(Vec::new());
        }
        let servers = if of_servers { "server > 0" } else { "server = 0" };
        let select = format!(
            "WITH RECURSIVE times (began) AS (SELECT CAST($1 AS BIGINT)
                UNION ALL SELECT began + $2 FROM times WHERE began + $2 < $3)
             SELECT began, server, sample FROM times CROSS JOIN series
             WHERE step = $2 AND at = began AND cache_id = $4 AND {servers} ORDER BY began, server"
        );
        let values =
            [step.begin(from).into(), step.seconds().into(), to.into(), cache.get().into()];
        let rows = self.sql.rows(&select, &values)?;
        rows.iter().map(|row| Ok((row.natural(0)?, row.natural(1)?, sample(row, 2)?))).collect()
    }

    /// The number that stands for a server's name in rows; given at the first sight.
    pub(crate) fn server_number(
        &mut self,
        now: UnixSeconds,
        name: &str,
    ) -> Result<u64, ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        let insert = "INSERT INTO series_servers (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
        change.sql.execute(insert, &[name.into()])?;
        let select = "SELECT id FROM series_servers WHERE name = $1";
        let number = natural(change.sql.number(select, &[name.into()])?)?;
        change.commit()?;
        Ok(number)
    }

    /// Every server that was ever sampled, by number.
    pub(crate) fn server_names(&mut self) -> Result<HashMap<u64, String>, ControlError> {
        let rows = self.sql.rows("SELECT id, name FROM series_servers", &[])?;
        rows.iter().map(|row| Ok((row.natural(0)?, row.text(1)?.to_owned()))).collect()
    }

    /// Forgets some rows that are older than is kept. Returns whether there may be more.
    pub(crate) fn trim_series(&mut self, now: UnixSeconds) -> Result<bool, ControlError> {
        let change = self.begin(Actor::Installation, now)?;
        let mut most = 0;
        for step in Step::ALL {
            let before = now.0.saturating_sub(step.kept_seconds());
            let delete = "DELETE FROM series WHERE (step, at, cache_id, server) IN
                (SELECT step, at, cache_id, server FROM series
                 WHERE step = $1 AND at < $2 ORDER BY at LIMIT $3)";
            let values = [step.seconds().into(), before.into(), SERIES_BATCH.into()];
            most = most.max(change.sql.execute(delete, &values)?);
        }
        change.commit()?;
        Ok(most >= SERIES_BATCH as u64)
    }
}
