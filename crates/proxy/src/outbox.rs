//! What a session asks of other nodes: decided by the session, carried by the links.

use cluster::slot::Slot;
use tenancy::id::CacheId;
use wire::data::operation::Operation;

use crate::link::NotHere;

/// The way to an item on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Far {
    /// Place in the view's list of members.
    pub(crate) member: usize,
    /// `None` where the member itself is meant, whatever it owns.
    pub(crate) slot: Option<Slot>,
}

/// A request to another node's backend.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The number of the answer's place in its session.
    pub(crate) number: u64,
    pub(crate) cache: CacheId,
    pub(crate) far: Far,
    /// What the backend of this process said that was asked first.
    pub(crate) elsewhere: Option<NotHere>,
    /// Whether it only reads, so that asking twice does no harm.
    pub(crate) is_read: bool,
    /// As it stands in a frame. Kept until the answer comes, because it may have to be sent again.
    pub(crate) operation: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn new(number: u64, cache: CacheId, far: Far, operation: &Operation<'_>) -> Self {
        let mut encoded = Vec::with_capacity(bytes_expected(operation));
        operation.encode(&mut encoded);
        let is_read = is_read(operation);
        Outgoing { number, cache, far, elsewhere: None, is_read, operation: encoded }
    }
}

/// Enough for the operation's bytes in most cases, so that they are written without moving.
fn bytes_expected(operation: &Operation<'_>) -> usize {
    let value_bytes = match operation {
        Operation::Store(store) => store.value.len(),
        Operation::Get(_)
        | Operation::Peek(_)
        | Operation::Delete(_)
        | Operation::Arithmetic(_)
        | Operation::Touch(_)
        | Operation::Flush { .. }
        | Operation::Figures
        | Operation::ResetFigures
        | Operation::Who
        | Operation::Ping => 0,
    };
    NUMBERS_BYTES + operation.key().map_or(0, |key| key.bytes().len()) + value_bytes
}

/// What an operation with a few numbers takes besides key and value.
const NUMBERS_BYTES: usize = 24;

/// Whether the operation changes nothing that any client can see.
fn is_read(operation: &Operation<'_>) -> bool {
    match operation {
        Operation::Get(get) => {
            // A lease is won by one reader, so asking twice would win it and lose the winner.
            get.touch.is_none()
                && get.vivify.is_none()
                && get.recache_below_seconds.is_none()
                && !get.leases
        }
        Operation::Peek(_) | Operation::Figures => true,
        Operation::Store(_)
        | Operation::Delete(_)
        | Operation::Arithmetic(_)
        | Operation::Touch(_)
        | Operation::Flush { .. }
        | Operation::ResetFigures
        | Operation::Who
        | Operation::Ping => false,
    }
}
