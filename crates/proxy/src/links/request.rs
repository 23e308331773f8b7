//! A request on its way to another node, from the moment a session gives it away until the last
//! reply that may still come for it has come.

use std::borrow::Cow;

use cluster::ownership::Token;
use cluster::slot::Slot;
use slab::Slab;
use tenancy::id::CacheId;
use wire::data::operation;

use super::{LinkId, Micros};

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The connection's place in its event loop, and which connection of that place it is.
    pub(crate) connection: usize,
    pub(crate) serial: u64,
    /// The number of the answer in its session.
    pub(crate) number: u64,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    /// `None` for what the links ask for themselves.
    pub(super) asker: Option<Asker>,
    /// Of a question who has a slot: which member of the view is asked.
    pub(super) who: Option<usize>,
    pub(super) cache: CacheId,
    /// `None` where it is about none, or about several.
    pub(super) slot: Option<Slot>,
    pub(super) is_read: bool,
    /// Of several reads, the numbers of their answers; else empty.
    pub(super) numbers: Vec<u64>,
    /// How many of several reads are answered, or go their own ways; always the first ones.
    pub(super) reads_done: usize,
    /// As it stands in a frame; empty once the request is over.
    pub(super) operation: Vec<u8>,
    /// Whether a backend may have carried it out, and so counted it: whatever asks again shall leave no
    /// trace.
    pub(super) may_be_counted: bool,
    pub(super) deadline: Micros,
    pub(super) hops_left: u8,
    pub(super) token: Option<Token>,
    /// Whether the session was told that nothing may overtake it.
    pub(super) is_held_to: bool,
    pub(super) stage: Stage,
    /// Where it was written to and is not answered.
    pub(super) copies: [Option<Copy>; COPIES_MAX],
}

/// The first, and one repetition.
const COPIES_MAX: usize = 2;

/// One frame that carries the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copy {
    pub(super) peer: usize,
    pub(super) link: usize,
    pub(super) serial: u32,
    /// Where in the bytes of that connection the frame ends.
    pub(super) end: u64,
    pub(super) at: Micros,
    /// How many of several reads were answered on that connection.
    pub(super) reads_answered: usize,
    /// Whether it is counted where it is carried out.
    pub(super) is_counted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for its turn at a peer.
    Queued { peer: usize },
    /// Written; replies are awaited for its copies.
    Sent,
    /// To be executed in this process.
    Here { backend: usize },
    /// Nobody has the slot just now; to be tried again then.
    Parked { until: Micros },
    /// An earlier request of the same client for the same slot is being sent again.
    Behind,
    /// Answered. Stays until no reply can come any more, so that a late one is known for what it is.
    Over,
}

impl Request {
    /// Whether it is several reads that go together.
    pub(super) fn is_many(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// How many requests of clients it is.
    pub(super) fn weight(&self) -> usize {
        self.numbers.len().max(1)
    }

    /// The operation as it is to be asked now.
    pub(super) fn to_ask(&self) -> Cow<'_, [u8]> {
        match self.may_be_counted {
            false => Cow::Borrowed(&self.operation),
            true => Cow::Owned(operation::without_trace(&self.operation)),
        }
    }

    /// This copy was certainly not carried out.
    pub(super) fn note_not_done(&mut self, copy: &Copy) {
        self.may_be_counted &= !copy.is_counted;
    }

    pub(super) fn add_copy(&mut self, copy: Copy) {
        let free = self.copies.iter_mut().find(|place| place.is_none());
        *free.expect("a request is repeated once") = Some(copy);
    }

    /// The copy that was written to this connection.
    pub(super) fn copy_on(&mut self, on: LinkId) -> Option<&mut Copy> {
        let written = |copy: &&mut Copy| (copy.peer, copy.link, copy.serial) == on.parts();
        self.copies.iter_mut().flatten().find(written)
    }

    /// Takes that copy away.
    pub(super) fn take_copy(&mut self, on: LinkId) -> Option<Copy> {
        let written = |copy: &Copy| (copy.peer, copy.link, copy.serial) == on.parts();
        self.copies.iter_mut().find(|copy| copy.as_ref().is_some_and(written))?.take()
    }

    pub(super) fn copies(&self) -> usize {
        self.copies.iter().flatten().count()
    }
}

/// All requests of an event loop, by id.
#[derive(Debug, Default)]
pub(super) struct Requests {
    all: Slab<Request>,
    /// So that an id is not used again before four thousand million others were.
    next_serial: u32,
    /// Bytes of operations kept.
    bytes: usize,
}

impl Requests {
    /// Keeps a request and gives it an id.
    pub(super) fn insert(&mut self, mut request: Request) -> u64 {
        let entry = self.all.vacant_entry();
        // Far fewer than that fit into memory.
        let place = u32::try_from(entry.key()).expect("fewer than 2^32 requests at once");
        request.id = u64::from(self.next_serial) << 32 | u64::from(place);
        self.next_serial = self.next_serial.wrapping_add(1);
        self.bytes += request.operation.len();
        entry.insert(request).id
    }

    pub(super) fn get(&mut self, id: u64) -> Option<&mut Request> {
        let request = self.all.get_mut((id & 0xffff_ffff) as usize)?;
        (request.id == id).then_some(request)
    }

    /// Gives up what is needed only until the answer.
    pub(super) fn forget_operation(&mut self, id: u64) -> Vec<u8> {
        let Some(request) = self.get(id) else { return Vec::new() };
        let operation = std::mem::take(&mut request.operation);
        self.bytes -= operation.len();
        operation
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.forget_operation(id);
        if self.get(id).is_some() {
            self.all.remove((id & 0xffff_ffff) as usize);
        }
    }

    /// The request that was written first of those on this connection; for the mistake of taking
    /// replies in order.
    pub(super) fn first_on(&self, on: LinkId) -> Option<u64> {
        let copies = self.iter().flat_map(|request| {
            request.copies.iter().flatten().map(move |copy| (copy, request.id))
        });
        let on_it = copies.filter(|(copy, _)| (copy.peer, copy.link, copy.serial) == on.parts());
        on_it.min_by_key(|(copy, _)| copy.end).map(|(_, id)| id)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.all.iter().map(|(_, request)| request)
    }
}
