//! A decoded request, and what one look at a connection's buffer can find.

use crate::command::{CommandSpec, Needs};
use crate::operation::{Arithmetic, Delete, Exptime, Get, Key, Store, Touch};
use crate::reply::Reply;
use crate::words::Words;

/// What one look at the buffer found.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A whole request, and how many bytes of the buffer it took.
    Complete(Request<'a>, usize),
    /// Nothing wrong so far. Call again when the buffer holds at least this many bytes in total;
    /// never more than the limits allow.
    NeedMore { bytes_total: usize },
    /// A request that cannot be carried out.
    Wrong(Wrong<'a>),
}

/// How to answer a request that is wrong, and how to stay in step with its client.
#[derive(Debug)]
pub struct Wrong<'a> {
    /// What to answer, in the request's own dialect, and whether to answer at all.
    pub reply: Reply<'a>,
    pub problem: Problem,
    /// Bytes of the buffer that the request took.
    pub consumed: usize,
    /// Bytes that follow the buffer's `consumed` and belong to the refused request: to be read and
    /// thrown away (the value of an oversize `set`).
    pub skip: u64,
    /// The stream cannot be trusted any more: answer, then close.
    pub close: bool,
    /// The key whose old value must go, as memcached does for an oversize `set` (A7).
    pub forget: Option<Key<'a>>,
}

/// Why a request is wrong; each dialect has its own words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// No such command (text `ERROR`).
    UnknownCommand,
    /// The words of the command do not fit (text `CLIENT_ERROR bad command line format`).
    BadFormat,
    /// A fixed line of text with its own wording, without the line end; in the binary dialect
    /// "invalid arguments".
    Line(&'static str),
    /// The value does not end where its length says (text `CLIENT_ERROR bad data chunk`).
    BadDataChunk,
    /// Key and value exceed the limit (text `SERVER_ERROR object too large for cache`).
    TooLarge,
    /// A command line without an end, or a frame with lengths that contradict each other.
    OutOfStep,
}

/// A whole request. Borrows from the connection's buffer; small enough to be kept in batches.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The row of the command table: name for metrics, base capability.
    pub command: &'static CommandSpec,
    /// What this request needs; differs from the command's where flags make a read write.
    pub needs: Needs,
    pub body: Body<'a>,
    /// How the outcome is to be said.
    pub reply: Reply<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Text `get`, `gets`, `gat`, `gats` with two or more keys: answered in order
    /// ([`Reply::item`]), then an end line ([`Reply::items_end`]). With one key they are a
    /// [`Body::Get`].
    GetMany {
        keys: Keys<'a>,
        touch: Option<Exptime>,
    },
    Get(Get<'a>),
    Store(Store<'a>),
    Delete(Delete<'a>),
    Arithmetic(Arithmetic<'a>),
    Touch(Touch<'a>),
    /// Meta debug (`me`): everything about an item but its value, without counting as a read.
    Peek(Key<'a>),
    /// Forget everything in the cache, now or after this delay.
    Flush {
        delay: Exptime,
    },
    /// What follows `stats`, without spaces around it; empty for the general statistics.
    Stats {
        argument: &'a [u8],
    },
    Version,
    Verbosity,
    /// `mn`, binary noop.
    Noop,
    Quit,
    SaslMechanisms,
    /// SASL PLAIN, start or step: `[authzid] NUL username NUL password` (RFC 4616).
    Sasl {
        mechanism: &'a [u8],
        data: &'a [u8],
    },
    /// A command of memcached that a service of many tenants does not offer (`slabs`, `lru`, …).
    NotOffered,
}

/// The keys of a text multi-get: already checked, split again while walking.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a>(pub(crate) Words<'a>);

impl<'a> Iterator for Keys<'a> {
    type Item = Key<'a>;

    #[inline]
    fn next(&mut self) -> Option<Key<'a>> {
        self.0.next().and_then(Key::new)
    }
}

/// What the decoder may accept from this connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Key and value together, in bytes. 1 MiB by default; larger by plan; small before
    /// authentication, so that a stranger cannot make us hold much.
    pub item_bytes_max: u32,
    /// The connection has yet to authenticate, and a text `set` means that: whatever stands where
    /// client flags and expiry belong is not looked at, as in memcached `-Y`.
    pub is_login: bool,
}

impl Limits {
    #[inline]
    pub(crate) fn exceeded_by(&self, key: Key<'_>, value_bytes: u32) -> bool {
        u64::from(self.item_bytes_max) < key.bytes().len() as u64 + u64::from(value_bytes)
    }
}

/// Longest line of a command that does not retrieve many keys, its end included. memcached closes a
/// connection that sent as much without a line end; the longest sensible line (a meta command with
/// a longest key and every flag) is a quarter of it.
pub const LINE_BYTES_MAX: usize = 2048;

/// Longest line of `get`, `gets`, `gat` and `gats`, whose keys memcached does not count: four
/// thousand longest keys, or many more ordinary ones.
pub const RETRIEVAL_LINE_BYTES_MAX: usize = 1024 * 1024;
