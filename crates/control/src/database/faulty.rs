//! For tests: a database that fails where it is told to, whichever database it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sql::{EachRow, Mode, Sql, Value};
use crate::error::{ControlError, DatabaseError, DatabaseFault};

/// Which statement fails; shared with the test.
#[derive(Debug)]
pub(crate) struct Faults {
    /// Statements until the one that fails: 0 is the next.
    left: AtomicU64,
    /// Statements until the COMMIT that takes effect and fails all the same.
    commit_lost: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Faults {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Faults { left: AtomicU64::new(NEVER), commit_lost: AtomicU64::new(NEVER) })
    }

    /// Makes one statement fail: the one after `statements` others, `BEGIN` and `COMMIT` included.
    pub(crate) fn fail_after(&self, statements: u64) {
        self.left.store(statements, Ordering::Relaxed);
    }

    /// Makes the answer to the next commit get lost.
    pub(crate) fn lose_commit(&self) {
        self.commit_lost.store(0, Ordering::Relaxed);
    }

    pub(crate) fn stop(&self) {
        self.left.store(NEVER, Ordering::Relaxed);
        self.commit_lost.store(NEVER, Ordering::Relaxed);
    }

    fn statement(&self) -> Result<(), DatabaseError> {
        match self.left.load(Ordering::Relaxed) {
            NEVER => Ok(()),
            0 => {
                self.left.store(NEVER, Ordering::Relaxed);
                Err(fault("a fault on purpose"))
            }
            left => {
                self.left.store(left - 1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

fn fault(what: &str) -> DatabaseError {
    DatabaseError { fault: DatabaseFault::Other, source: what.into() }
}

pub(super) struct Faulty {
    inner: Box<dyn Sql>,
    faults: Arc<Faults>,
}

impl Faulty {
    pub(super) fn new(inner: Box<dyn Sql>, faults: Arc<Faults>) -> Self {
        Faulty { inner, faults }
    }
}

impl Sql for Faulty {
    fn begin(&mut self, mode: Mode) -> Result<(), DatabaseError> {
        self.faults.statement()?;
        self.inner.begin(mode)
    }

    fn commit(&mut self) -> Result<(), DatabaseError> {
        self.faults.statement()?;
        if self.faults.commit_lost.swap(NEVER, Ordering::Relaxed) == 0 {
            self.inner.commit()?;
            return Err(fault("the answer to a commit was lost on purpose"));
        }
        self.inner.commit()
    }

    fn rollback(&mut self) {
        self.inner.rollback();
    }

    fn is_in_transaction(&self) -> bool {
        self.inner.is_in_transaction()
    }

    fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, DatabaseError> {
        self.faults.statement()?;
        self.inner.execute(sql, values)
    }

    fn for_each(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        each: &mut EachRow<'_>,
    ) -> Result<(), ControlError> {
        self.faults.statement()?;
        self.inner.for_each(sql, values, each)
    }

    fn now_ms(&mut self) -> Result<i64, ControlError> {
        self.inner.now_ms()
    }

    fn sqlite(&self) -> Option<&rusqlite::Connection> {
        self.inner.sqlite()
    }

    fn run_batch(&mut self, sql: &str) -> Result<(), DatabaseError> {
        self.inner.run_batch(sql)
    }
}

/// Stands in while a database is being wrapped; nobody ever asks it.
pub(super) struct Nothing;

impl Sql for Nothing {
    fn begin(&mut self, _: Mode) -> Result<(), DatabaseError> {
        Err(fault("no database"))
    }

    fn commit(&mut self) -> Result<(), DatabaseError> {
        Err(fault("no database"))
    }

    fn rollback(&mut self) {}

    fn is_in_transaction(&self) -> bool {
        false
    }

    fn execute(&mut self, _: &str, _: &[Value<'_>]) -> Result<u64, DatabaseError> {
        Err(fault("no database"))
    }

    fn for_each(
        &mut self,
        _: &str,
        _: &[Value<'_>],
        _: &mut EachRow<'_>,
    ) -> Result<(), ControlError> {
        Err(fault("no database").into())
    }

    fn now_ms(&mut self) -> Result<i64, ControlError> {
        Err(fault("no database").into())
    }

    fn run_batch(&mut self, _: &str) -> Result<(), DatabaseError> {
        Err(fault("no database"))
    }
}
