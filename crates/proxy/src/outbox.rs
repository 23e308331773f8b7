//! What a session asks of other nodes: decided by the session, carried by the links.

use cluster::slot::Slot;
use tenancy::id::CacheId;
use wire::data::many;
use wire::data::operation::Operation;

use crate::link::NotHere;
use crate::spares::Spares;

/// The way to an item on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Far {
    /// Place in the view's list of members.
    pub(crate) member: usize,
    /// `None` where the member itself is meant, whatever it owns.
    pub(crate) slot: Option<Slot>,
}

/// A request to another node's backend, or several reads that go together.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The number of the answer's place in its session; of the first read where there are several.
    pub(crate) number: u64,
    /// Of several reads, the numbers of all; else empty.
    pub(crate) numbers: Vec<u64>,
    pub(crate) cache: CacheId,
    /// Of several reads, the slot is that of the first.
    pub(crate) far: Far,
    /// What the backend of this process said that was asked first.
    pub(crate) elsewhere: Option<NotHere>,
    /// Whether it only reads, so that asking twice does no harm.
    pub(crate) is_read: bool,
    /// As it stands in a frame. Kept until the answer comes, because it may have to be sent again.
    pub(crate) operation: Vec<u8>,
}

impl Outgoing {
    fn new(number: u64, cache: CacheId, far: Far, operation: &Operation<'_>) -> Self {
        let mut encoded = Vec::with_capacity(bytes_expected(operation));
        operation.encode(&mut encoded);
        Outgoing {
            number,
            numbers: Vec::new(),
            cache,
            far,
            elsewhere: None,
            is_read: is_read(operation),
            operation: encoded,
        }
    }

    /// Takes up another read for the same member.
    fn join(&mut self, number: u64, slot: Slot, read: &Operation<'_>) {
        if self.numbers.is_empty() {
            let first = self.far.slot.expect("a read of an item has its slot");
            let alone = std::mem::take(&mut self.operation);
            self.operation.reserve(JOINED_BYTES + alone.len());
            many::begin(&mut self.operation);
            many::push_encoded(&mut self.operation, first, &alone);
            self.numbers.reserve(JOINED_EXPECTED);
            self.numbers.push(self.number);
        }
        many::push(&mut self.operation, slot, read);
        self.numbers.push(number);
    }
}

/// What the sessions of one turn ask of other nodes, in order.
///
/// ```text
///   get a, get b, set c, get d   all for one member   ─▶  [a b] [set c] [d]
/// ```
///
/// Reads of one session for one member go together until a request comes between them that they must
/// not pass.
#[derive(Default)]
pub(crate) struct Outbox {
    all: Vec<Outgoing>,
    /// By member: the last of `all` for it, if another read may join it.
    open: Vec<Option<usize>>,
    /// Where sessions await the answers.
    pub(crate) spares: Spares,
}

/// What a session remembers of a request that it has sent.
pub(crate) struct Asking {
    pub(crate) is_read: bool,
    /// Length of the request.
    pub(crate) bytes: usize,
}

impl Outbox {
    /// Asks the owner of an item, or a member as a whole. `elsewhere` is what a backend of this
    /// process said that was asked first.
    pub(crate) fn ask(
        &mut self,
        number: u64,
        cache: CacheId,
        far: Far,
        elsewhere: Option<NotHere>,
        operation: &Operation<'_>,
    ) -> Asking {
        let may_join = elsewhere.is_none()
            && matches!(operation, Operation::Get(_) | Operation::Peek(_))
            && is_read(operation);
        if self.open.len() <= far.member {
            self.open.resize(far.member + 1, None);
        }
        if let (true, Some(slot), Some(last)) = (may_join, far.slot, self.open[far.member])
            && let Some(last) = self.all.get_mut(last)
            && last.cache == cache
            && last.numbers.len() < many::READS_MAX
        {
            let before = last.operation.len();
            last.join(number, slot, operation);
            return Asking { is_read: true, bytes: last.operation.len() - before };
        }
        let outgoing = Outgoing { elsewhere, ..Outgoing::new(number, cache, far, operation) };
        let asking = Asking { is_read: outgoing.is_read, bytes: outgoing.operation.len() };
        self.open[far.member] = may_join.then_some(self.all.len());
        self.all.push(outgoing);
        asking
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All that was asked, in order. Whatever another session asks later joins none of it.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Outgoing> {
        self.open.clear();
        self.all.drain(..)
    }
}

/// Room made when a second read joins: for a few dozen short keys.
const JOINED_BYTES: usize = 1024;
const JOINED_EXPECTED: usize = 32;

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
        | Operation::Ping
        | Operation::Many(_) => 0,
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
        Operation::Peek(_) | Operation::Figures | Operation::Many(_) => true,
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
