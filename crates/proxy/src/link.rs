//! The door behind which items live.
//!
//! A proxy holds no item. It asks the backends of its own process through this trait, by a direct
//! call; those of other nodes it asks over pipelined connections ([`crate::links`]).

use cluster::map::Epoch;
use cluster::member::MemberName;
use cluster::ownership::Token;
use cluster::slot::Slot;
use daemon::clock::Now;
use protocol::operation::{
    Arithmetic, ArithmeticOutcome, Delete, DeleteOutcome, Exptime, Get, GetOutcome, Hit, Key,
    Store, StoreOutcome, Touch, TouchOutcome,
};
use tenancy::id::CacheId;
use wire::data::reply::{Busy, Refusal};

/// Fewest keys that are worth warming: below, the fetches of one operation overlap well enough.
pub const WARM_KEYS_MIN: usize = 4;

/// Why a backend of this process does not execute a request. Nothing happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotHere {
    /// It had the slot and gave it away.
    Moved { to: MemberName, token: Token },
    /// It shall have the slot and has not got it yet; whoever is named may still have it.
    NotYet { ask: Option<MemberName> },
    /// The slot is on its way to another owner, for some milliseconds.
    Frozen,
    /// The slot is none of its own, by the map of this epoch.
    Unknown { epoch: Epoch },
}

impl NotHere {
    /// What a backend on another node would have said.
    pub(crate) fn refusal(&self) -> Refusal<'_> {
        match self {
            NotHere::Moved { to, token } => Refusal::Moved { to: to.as_str(), token: *token },
            NotHere::NotYet { ask } => {
                Refusal::NotYet { ask: ask.as_ref().map(MemberName::as_str) }
            }
            NotHere::Frozen => Refusal::Busy(Busy::Parked),
            NotHere::Unknown { epoch } => Refusal::Unknown { epoch: *epoch },
        }
    }
}

/// How a proxy reaches the items of a cache in its own process.
///
/// In steps on purpose: a whole batch of keys is [located](Self::locate) and [warmed](Self::warm)
/// first, and the operations follow, under as few locks as may be.
pub trait BackendLink: Send + Sync + 'static {
    /// A cache once found, so that a request need not look it up again.
    type Cache: Send;
    /// Where a key lives; valid for the cache it was made with.
    type Located<'k>: Copy;
    /// Requests of one cache that follow one another at once. It may hold a lock that others wait
    /// for, but never two; so it should live for microseconds, and meanwhile its thread must not come
    /// to the same cache by another way.
    type Batch<'b>;

    /// While one lives, no backend of this process gives a slot away.
    type Guard<'g>;

    fn enter(&self) -> Self::Guard<'_>;

    /// Whether this backend may execute a request for the slot, now and while the guard lives.
    ///
    /// # Errors
    /// It may not; the error says who may.
    fn check(&self, guard: &Self::Guard<'_>, backend: usize, slot: Slot) -> Result<(), NotHere>;

    /// Gives a backend the token that came with a request, before the request is checked. Not while
    /// the thread has entered.
    fn accept(&self, backend: usize, slot: Slot, token: Token);

    /// `None` when no backend knows the cache (it was deleted, or is not here yet).
    fn open(&self, cache: CacheId) -> Option<Self::Cache>;

    /// `backend` is which of the process's backends owns the key: 0 where there is but one.
    fn locate<'k>(&self, cache: &Self::Cache, backend: usize, key: Key<'k>) -> Self::Located<'k>;

    /// Begins a batch; holds nothing yet.
    fn begin<'b>(&self, cache: &'b Self::Cache) -> Self::Batch<'b>;

    /// Tells that these keys will be asked for at once. An implementation may start fetching their
    /// memory; it need not do anything. Worth its price for [`WARM_KEYS_MIN`] keys and more.
    fn warm(&self, batch: &mut Self::Batch<'_>, places: &[Self::Located<'_>]);

    /// Calls `visit` with what was found. The value may be borrowed from memory that is locked
    /// meanwhile, so `visit` copies and returns.
    fn get<R>(
        &self,
        batch: &mut Self::Batch<'_>,
        at: Self::Located<'_>,
        get: &Get<'_>,
        now: Now,
        visit: impl FnOnce(GetOutcome<'_>) -> R,
    ) -> R;

    /// Everything about an item; does not count as a read. Same rules as [`get`](Self::get).
    fn peek<R>(
        &self,
        batch: &mut Self::Batch<'_>,
        at: Self::Located<'_>,
        now: Now,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R;

    fn store(
        &self,
        batch: &mut Self::Batch<'_>,
        at: Self::Located<'_>,
        store: &Store<'_>,
        now: Now,
    ) -> StoreOutcome;

    fn delete(
        &self,
        batch: &mut Self::Batch<'_>,
        at: Self::Located<'_>,
        delete: &Delete<'_>,
        now: Now,
    ) -> DeleteOutcome;

    fn arithmetic(
        &self,
        batch: &mut Self::Batch<'_>,
        at: Self::Located<'_>,
        arithmetic: &Arithmetic<'_>,
        now: Now,
    ) -> ArithmeticOutcome;

    fn touch(
        &self,
        batch: &mut Self::Batch<'_>,
        at: Self::Located<'_>,
        touch: &Touch<'_>,
        now: Now,
    ) -> TouchOutcome;

    /// Forgets every item of the cache, now or after `delay`.
    fn flush(&self, cache: &Self::Cache, delay: Exptime, now: Now);

    /// The cache's figures under memcached's names (`doc/protocol.txt`, "General-purpose
    /// statistics").
    fn figures(&self, cache: &Self::Cache) -> Vec<(&'static str, u64)>;

    /// Sets the cache's counters to zero; gauges stay.
    fn reset_stats(&self, cache: &Self::Cache);

    /// Does a bounded piece of the owner's housekeeping; called when an event loop has nothing
    /// else to do. `true` when there is more.
    fn maintain(&self, now: Now) -> bool;
}
