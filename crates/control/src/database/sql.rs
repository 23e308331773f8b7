//! The little that is asked of a database: transactions, statements with values, rows.
//!
//! SQL texts are written once, in the dialect that SQLite and PostgreSQL share: parameters are
//! `$1`, `$2`, … in the order of their first appearance, `RETURNING` and `ON CONFLICT` are used, and
//! a read that a write relies on ends in `FOR UPDATE` or `FOR SHARE` (which SQLite, having one writer
//! at a time, does without). Where the two differ for good, in their schemas, each has its own files.

use crate::error::{ControlError, DatabaseError};

/// One connection to a database. [`super::Database`] is what the rest of the control plane uses.
pub(super) trait Sql: Send {
    /// Begins a transaction. There is none yet.
    fn begin(&mut self, mode: Mode) -> Result<(), DatabaseError>;

    /// Ends the transaction. After an error it may have taken effect all the same, unless it is
    /// still open.
    fn commit(&mut self) -> Result<(), DatabaseError>;

    /// Ends the transaction, if there is one, and leaves nothing of it.
    fn rollback(&mut self);

    fn is_in_transaction(&self) -> bool;

    /// Returns how many rows were written.
    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, DatabaseError>;

    /// Calls `each` with every row, without holding them all.
    fn for_each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut EachRow<'_>,
    ) -> Result<(), ControlError>;

    /// The database's own clock in milliseconds since 1970: what several control processes agree on.
    fn now_ms(&mut self) -> Result<i64, ControlError>;

    /// For tests that look behind.
    #[cfg(test)]
    fn sqlite(&self) -> Option<&rusqlite::Connection> {
        None
    }

    /// For tests: several statements at once, in the database's own words.
    #[cfg(test)]
    fn run_batch(&mut self, sql: &str) -> Result<(), DatabaseError>;
}

pub(super) type EachRow<'a> = dyn FnMut(Row) -> Result<(), ControlError> + 'a;

impl dyn Sql + '_ {
    pub(super) fn rows(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, ControlError> {
        let mut rows = Vec::new();
        self.for_each(sql, values, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The first row, if there is one.
    pub(super) fn row(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> Result<Option<Row>, ControlError> {
        Ok(self.rows(sql, values)?.into_iter().next())
    }

    /// The number in the only row of a query that always has one.
    pub(super) fn number(&mut self, sql: &str, values: &[Value<'_>]) -> Result<i64, ControlError> {
        self.row(sql, values)?.ok_or(ControlError::Corrupt { what: "answer without a row" })?.int(0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Sees what is committed, and may write.
    Write,
    /// Sees one state of the whole database from beginning to end, and holds up nobody.
    Snapshot,
}

/// A value for a parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Null,
    Int(i64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(int: i64) -> Self {
        Value::Int(int)
    }
}

/// Ids, revisions and times never come near the end of `i64`; what a caller asks for may, and
/// finds nothing there.
impl From<u64> for Value<'_> {
    fn from(int: u64) -> Self {
        Value::Int(i64::try_from(int).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value<'_> {
    fn from(int: usize) -> Self {
        Value::Int(i64::try_from(int).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value<'_> {
    fn from(is: bool) -> Self {
        Value::Bool(is)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Bytes(bytes)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A value of a row. A truth value is 0 or 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Column {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// One row of an answer. Reading a column as what it is not is [`ControlError::Corrupt`]: the
/// schemas say what is where.
#[derive(Debug)]
pub(super) struct Row(pub(super) Vec<Column>);

impl Row {
    pub(super) fn int(&self, at: usize) -> Result<i64, ControlError> {
        self.optional_int(at)?.ok_or(CORRUPT)
    }

    pub(super) fn optional_int(&self, at: usize) -> Result<Option<i64>, ControlError> {
        match self.0.get(at) {
            Some(Column::Int(int)) => Ok(Some(*int)),
            Some(Column::Null) => Ok(None),
            Some(Column::Text(_) | Column::Bytes(_)) | None => Err(CORRUPT),
        }
    }

    /// A number that cannot be negative: ids, revisions, times.
    pub(super) fn natural(&self, at: usize) -> Result<u64, ControlError> {
        u64::try_from(self.int(at)?).map_err(|_| CORRUPT)
    }

    pub(super) fn optional_natural(&self, at: usize) -> Result<Option<u64>, ControlError> {
        self.optional_int(at)?.map(|int| u64::try_from(int).map_err(|_| CORRUPT)).transpose()
    }

    pub(super) fn bool(&self, at: usize) -> Result<bool, ControlError> {
        Ok(self.int(at)? != 0)
    }

    pub(super) fn text(&self, at: usize) -> Result<&str, ControlError> {
        self.optional_text(at)?.ok_or(CORRUPT)
    }

    pub(super) fn optional_text(&self, at: usize) -> Result<Option<&str>, ControlError> {
        match self.0.get(at) {
            Some(Column::Text(text)) => Ok(Some(text)),
            Some(Column::Null) => Ok(None),
            Some(Column::Int(_) | Column::Bytes(_)) | None => Err(CORRUPT),
        }
    }

    pub(super) fn bytes(&self, at: usize) -> Result<&[u8], ControlError> {
        match self.0.get(at) {
            Some(Column::Bytes(bytes)) => Ok(bytes),
            Some(Column::Null | Column::Int(_) | Column::Text(_)) | None => Err(CORRUPT),
        }
    }

    pub(super) fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], ControlError> {
        self.bytes(at)?.try_into().map_err(|_| CORRUPT)
    }
}

const CORRUPT: ControlError = ControlError::Corrupt { what: "column" };
