//! What can be asked of one item, and what can come of it.
//!
//! These mirror the operations of the `protocol` crate one to one, but in the store's own terms:
//! expiry is absolute and in the store's clock, and keys are [`crate::Located`]. Semantics follow
//! memcached 1.6 (`doc/protocol.txt`; the facts were read in its `items.c`, `memcached.c` and
//! `proto_parser.c`); where we differ, the field says so.

/// Seconds since the process started: the only clock the store knows, handed in with each call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u32);

/// When an item expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expiry {
    Never,
    /// The first second in which the item is gone. `At(now)` or earlier is at once.
    At(Seconds),
}

impl Expiry {
    #[inline]
    pub fn has_passed(self, now: Seconds) -> bool {
        match self {
            Expiry::Never => false,
            Expiry::At(at) => at <= now,
        }
    }

    /// Seconds left, or `None` for never.
    #[inline]
    pub fn remaining(self, now: Seconds) -> Option<u32> {
        match self {
            Expiry::Never => None,
            Expiry::At(at) => Some(at.0.saturating_sub(now.0)),
        }
    }

    /// Whether this comes before `limit`; never comes before nothing.
    #[inline]
    pub fn is_before(self, limit: Seconds) -> bool {
        match self {
            Expiry::Never => false,
            Expiry::At(at) => at < limit,
        }
    }
}

/// How to read an item. The default is a plain `get`.
#[derive(Debug, Clone, Copy, Default)]
pub struct GetArgs {
    /// Set the item's expiry to this on a hit (`gat`; meta `T`).
    pub touch: Option<Expiry>,
    /// On a miss, create an empty item with this expiry and let this client win it (meta `N`).
    pub vivify: Option<Expiry>,
    /// If the item expires before this second, let this client win the recache (meta `R`).
    /// Judged on the expiry before `touch`; memcached judges in the order of the flags.
    pub recache_before: Option<Seconds>,
    /// Give a vivified item this CAS value (meta `E`).
    pub new_cas: Option<u64>,
    /// Take part in leases: this reader may win a stale item's recache. Only meta readers do; one
    /// who cannot be told must not win.
    pub leases: bool,
    /// Leave no trace of having read: neither the item's age nor "was read" change (meta `u`).
    pub unseen: bool,
}

impl GetArgs {
    /// Whether all is as by default, but for leases.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        // Only who creates an item can give it a CAS value.
        self.touch.is_none()
            && self.vivify.is_none()
            && self.recache_before.is_none()
            && !self.unseen
    }
}

/// An item that was found (or vivified), borrowed for the length of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit<'a> {
    pub value: &'a [u8],
    pub flags: u32,
    pub cas: u64,
    /// Seconds until expiry, after a `touch`; `None` is never.
    pub ttl_seconds: Option<u32>,
    /// Whether it had been read before this request (meta `h`).
    pub read_before: bool,
    /// Seconds since it was last read or written (meta `l`). Exact below 2^20 s (12 days), modulo
    /// that above. memcached's own figure lags: it notes only some of the reads.
    pub idle_seconds: u32,
    pub lease: Lease,
}

/// Who shall refill an item, said to one reader (memcached `doc/protocol.txt`, meta get, "W X Z").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    /// This client has the exclusive right to recache (flag `W`).
    pub won: bool,
    /// The item was marked stale by an invalidation (flag `X`).
    pub stale: bool,
    /// Another client has already won (flag `Z`).
    pub taken: bool,
}

/// How to write a value.
#[derive(Debug, Clone, Copy)]
pub struct StoreArgs<'a> {
    pub value: &'a [u8],
    pub flags: u32,
    pub expiry: Expiry,
    pub mode: StoreMode,
    /// Store only if the item still carries this CAS value.
    pub compare_cas: Option<u64>,
    /// Give the stored item this CAS value (meta `E`).
    pub new_cas: Option<u64>,
    /// With `compare_cas`: a value older than the item's is stored but marked stale (meta `I`).
    pub invalidate: bool,
    /// In append and prepend: on a miss, create the item with this expiry (meta `N`).
    pub vivify: Option<Expiry>,
}

impl<'a> StoreArgs<'a> {
    /// A plain `set`.
    #[inline]
    pub fn set(value: &'a [u8], flags: u32, expiry: Expiry) -> Self {
        StoreArgs {
            value,
            flags,
            expiry,
            mode: StoreMode::Set,
            compare_cas: None,
            new_cas: None,
            invalidate: false,
            vivify: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    Set,
    Add,
    Replace,
    /// Flags and expiry of the existing item stay.
    Append,
    /// Flags and expiry of the existing item stay.
    Prepend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOutcome {
    Stored {
        cas: u64,
        /// Length of the value as it now is, so after an append the whole.
        value_bytes: u32,
    },
    /// The mode's condition did not hold (`add` on a hit; `replace`, `append`, `prepend` on a
    /// miss), or an append would exceed the item limit; what was there stays.
    NotStored,
    /// `compare_cas` did not match.
    Exists,
    /// `compare_cas` was given and there is no item.
    NotFound,
    /// Key and value exceed the cache's item limit. After a `set` the old value is gone, so that
    /// no reader takes it for the new one.
    TooLarge,
    /// No memory could be had within the cache's limit. After a `set` the old value is gone.
    OutOfMemory,
}

/// How to remove an item, or mark it stale. The default is a plain `delete`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeleteArgs {
    pub compare_cas: Option<u64>,
    /// Give an item that stays this CAS value (meta `E`).
    pub new_cas: Option<u64>,
    /// Keep the item, marked stale, so that the next reader wins its recache (meta `I`).
    pub invalidate: bool,
    /// With `invalidate`: the expiry of the stale item. With `remove_value`: the expiry of the
    /// emptied item, which is otherwise never, as in memcached (meta `T`).
    pub touch: Option<Expiry>,
    /// Keep the item but drop its value and client flags (meta `x`).
    pub remove_value: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    Deleted,
    NotFound,
    /// `compare_cas` did not match.
    Exists,
}

/// How to count.
#[derive(Debug, Clone, Copy)]
pub struct ArithmeticArgs {
    pub direction: Direction,
    pub delta: u64,
    /// On a miss, create the counter (binary; meta `N` and `J`).
    pub initial: Option<Initial>,
    pub compare_cas: Option<u64>,
    /// Give the counter this CAS value (meta `E`).
    pub new_cas: Option<u64>,
    /// Set the expiry of an existing counter (meta `T`).
    pub touch: Option<Expiry>,
}

impl ArithmeticArgs {
    /// A plain `incr` or `decr`.
    #[inline]
    pub fn plain(direction: Direction, delta: u64) -> Self {
        ArithmeticArgs {
            direction,
            delta,
            initial: None,
            compare_cas: None,
            new_cas: None,
            touch: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Wraps at 2^64.
    Increment,
    /// Stops at 0.
    Decrement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initial {
    pub number: u64,
    pub expiry: Expiry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithmeticOutcome {
    Counted {
        number: u64,
        cas: u64,
        /// Seconds until expiry, after a `touch`; `None` is never.
        ttl_seconds: Option<u32>,
    },
    NotFound,
    /// The value is not a decimal number that fits 64 bits.
    NotNumeric,
    /// `compare_cas` did not match.
    Exists,
    /// No memory could be had within the cache's limit.
    OutOfMemory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TouchOutcome {
    Touched { cas: u64, flags: u32 },
    NotFound,
}
