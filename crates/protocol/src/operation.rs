//! What a client can ask of one item, and what can come of it, in no dialect's words.
//!
//! Decoders turn bytes into these; whoever holds the items answers with the outcomes; encoders turn
//! outcomes back into bytes. Expiry stays as the client wrote it ([`Exptime`]), because only the
//! holder of the items knows what time it is.

/// Longest key in bytes, in every dialect (memcached `doc/protocol.txt`, "Keys").
pub const KEY_BYTES_MAX: usize = 250;

/// A key that passed the checks of its dialect: 1 to [`KEY_BYTES_MAX`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// `None` when the key is empty or longer than [`KEY_BYTES_MAX`].
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (!bytes.is_empty() && bytes.len() <= KEY_BYTES_MAX).then_some(Key(bytes))
    }

    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// When an item shall expire, as the client wrote it.
///
/// 0 is never; negative is at once; up to 2,592,000 (30 days) is seconds from now; more is a Unix
/// time (memcached `doc/protocol.txt`, "Expiration times").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exptime(pub i64);

/// Read an item. Every field but `key` is at rest for a plain `get`.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    pub key: Key<'a>,
    /// Set the item's expiry to this on a hit (`gat`; meta `T`).
    pub touch: Option<Exptime>,
    /// On a miss, create an empty item with this expiry and let this client win it (meta `N`).
    pub vivify: Option<Exptime>,
    /// If fewer seconds than this remain, let this client win the recache (meta `R`).
    pub recache_below_seconds: Option<i64>,
    /// Give a vivified item this CAS value (meta `E`).
    pub new_cas: Option<u64>,
    /// Leave no trace of having read: neither the item's age nor "was read" change (meta `u`).
    pub unseen: bool,
    /// Take part in leases: this reader may win a stale item's recache. Only meta readers do; the
    /// other dialects could not be told.
    pub leases: bool,
}

impl<'a> Get<'a> {
    #[inline]
    pub fn plain(key: Key<'a>) -> Self {
        Get {
            key,
            touch: None,
            vivify: None,
            recache_below_seconds: None,
            new_cas: None,
            unseen: false,
            leases: false,
        }
    }

    /// Whether all but the key and leases is as in [`Get::plain`]. What no miss creates has no CAS
    /// value.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.touch.is_none()
            && self.vivify.is_none()
            && self.recache_below_seconds.is_none()
            && !self.unseen
    }
}

/// An item that was found (or vivified).
#[derive(Debug, Clone, Copy)]
pub struct Hit<'a> {
    pub value: &'a [u8],
    pub flags: u32,
    pub cas: u64,
    /// Seconds until expiry; `None` is never.
    pub ttl_seconds: Option<u32>,
    /// Whether it had been read before this request (meta `h`).
    pub read_before: bool,
    /// Seconds since it was last read or written (meta `l`).
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

/// What a [`Get`] found: an item, or nothing.
pub type GetOutcome<'a> = Option<Hit<'a>>;

/// Write a value.
#[derive(Debug, Clone, Copy)]
pub struct Store<'a> {
    pub key: Key<'a>,
    pub value: &'a [u8],
    pub flags: u32,
    pub exptime: Exptime,
    pub mode: StoreMode,
    /// Store only if the item still carries this CAS value.
    pub compare_cas: Option<u64>,
    /// Give the stored item this CAS value (meta `E`).
    pub new_cas: Option<u64>,
    /// With `compare_cas`: an older value than the item's is stored but marked stale (meta `I`).
    pub invalidate: bool,
    /// In append and prepend: on a miss, create the item with this expiry (meta `N`).
    pub vivify: Option<Exptime>,
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
    /// The mode's condition did not hold (`add` on a hit; `replace`, `append`, `prepend` on a miss).
    NotStored,
    /// `compare_cas` did not match.
    Exists,
    /// `compare_cas` was given and there is no item.
    NotFound,
    /// Key and value exceed the cache's item limit. The old value is gone.
    TooLarge,
    /// No memory could be had within the cache's limit.
    OutOfMemory,
}

/// Remove an item, or mark it stale.
#[derive(Debug, Clone, Copy)]
pub struct Delete<'a> {
    pub key: Key<'a>,
    pub compare_cas: Option<u64>,
    /// Give an item that stays this CAS value (meta `E`).
    pub new_cas: Option<u64>,
    /// Keep the item, marked stale, so that the next reader wins its recache (meta `I`).
    pub invalidate: bool,
    /// With `invalidate`: the expiry of the stale item (meta `T`).
    pub touch: Option<Exptime>,
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

/// Count up or down.
#[derive(Debug, Clone, Copy)]
pub struct Arithmetic<'a> {
    pub key: Key<'a>,
    pub direction: Direction,
    pub delta: u64,
    /// On a miss, create the counter (binary; meta `N` and `J`).
    pub initial: Option<Initial>,
    pub compare_cas: Option<u64>,
    /// Give the counter this CAS value (meta `E`).
    pub new_cas: Option<u64>,
    /// Set the expiry of an existing counter (meta `T`).
    pub touch: Option<Exptime>,
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
    pub exptime: Exptime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithmeticOutcome {
    Counted {
        number: u64,
        cas: u64,
        /// Seconds until expiry; `None` is never.
        ttl_seconds: Option<u32>,
    },
    NotFound,
    /// The value is not a decimal number of at most 20 digits.
    NotNumeric,
    /// `compare_cas` did not match.
    Exists,
    /// No memory could be had within the cache's limit.
    OutOfMemory,
}

/// Set an item's expiry without reading it.
#[derive(Debug, Clone, Copy)]
pub struct Touch<'a> {
    pub key: Key<'a>,
    pub exptime: Exptime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TouchOutcome {
    Touched { cas: u64, flags: u32 },
    NotFound,
}
