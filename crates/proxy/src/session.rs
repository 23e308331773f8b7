//! One client's conversation: bytes in, bytes out, no socket.
//!
//! ```text
//!  bytes ─▶ decode ─▶ admit ─▶ locate ┐        a batch: up to 32 requests are decoded and
//!          ▲                          │        located before the first is carried out, so
//!          └──── until the batch ─────┘        that their memory is on its way
//!                is full, the bytes end,
//!                or a request is not of
//!                the kind that can wait
//!                        │
//!                        ▼
//!               carry out in order ─▶ bytes of the answers
//! ```
//!
//! What is asked of an item whose owner is on another node goes to the [outbox](Turn::outbox); its
//! answer comes later ([`Session::answered`]) and waits for those before it ([`Answers`]).
//!
//! A session starts out anonymous and may only authenticate. Afterwards it holds its credential's
//! [`Grant`], whose capabilities are read anew for every request: what an operator takes away is
//! gone with the next one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;
use daemon::clock::Now;
use protocol::command::{Dialect, Needs};
use protocol::decode::decode;
use protocol::key_room::KeyRoom;
use protocol::operation::{Delete, Exptime, Get, Key};
use protocol::reply::{Refusal, Reply};
use protocol::request::{Body, Decoded, Keys, Limits, Problem, Request, Wrong};
use protocol::sasl::{self, Candidate};
use tenancy::capability::Capability;
use tenancy::directory::{AuthenticationError, CacheEntry, ConnectionPermit, Directory, Grant};
use tenancy::id::CacheId;
use wire::data::operation::Operation;
use wire::data::reply::Outcome;

use crate::answers::{Answers, Asked, Awaited, Failure, Gathered, Gathering, Part};
use crate::link::{BackendLink, NotHere, WARM_KEYS_MIN};
use crate::outbox::{Far, Outbox};
use crate::recent::Seen;
use crate::routing::{Owner, Routing};
use crate::settings::Access;
use crate::spares::Spares;
use crate::statistics::{self, Argument};
use crate::usage::{CacheUsage, ProxyUsage};

/// Requests located ahead of being carried out. Twice the misses a core can have under way.
const BATCH_REQUESTS_MAX: usize = 32;

/// Operations of one client carried out, or sent away, before others have their turn: some 0.2 ms.
pub(crate) const OPERATIONS_PER_TURN: u64 = 512;

/// Bytes of answers after which they are written, and perhaps others have their turn, before more is
/// carried out.
const OUTPUT_BYTES_AT_ONCE: usize = 256 * 1024;

/// How much is carried out before answers are written and others may have their turn.
#[derive(Debug, Clone, Copy)]
struct Portion {
    operations: u64,
    output_bytes: usize,
}

impl Portion {
    const ORDINARY: Portion =
        Portion { operations: OPERATIONS_PER_TURN, output_bytes: OUTPUT_BYTES_AT_ONCE };

    /// Of a multi-get of so many bytes. Its line is decoded again for each portion; where it is very long,
    /// portions are so large that this takes no longer than what is done in them.
    fn of_line(bytes: usize) -> Portion {
        Portion {
            operations: OPERATIONS_PER_TURN.max(bytes as u64 / 128),
            output_bytes: OUTPUT_BYTES_AT_ONCE.max(4 * bytes),
        }
    }
}

/// Largest item a stranger may send: the password of an authentication, with room to spare.
const STRANGER_ITEM_BYTES_MAX: u32 = 1024;

/// Longest refused message of a stranger that is read to its end, so that a mistake in a login need
/// not cost the connection.
const STRANGER_SKIP_BYTES_MAX: u64 = 4096;

/// What a session needs from the process around it, for one turn.
pub(crate) struct Turn<'a, L> {
    pub(crate) link: &'a L,
    pub(crate) directory: &'a Directory,
    pub(crate) usage: &'a Arc<ProxyUsage>,
    pub(crate) access: Access,
    /// Where the client is; not known in a simulation.
    pub(crate) from: Option<IpAddr>,
    pub(crate) now: Now,
    /// Nothing more is answered once this many bytes of answers wait.
    pub(crate) output_bytes_max: usize,
    /// `None` where every item is in this process.
    pub(crate) routing: Option<&'a Routing>,
    /// Takes what is asked of other nodes.
    pub(crate) outbox: &'a mut Outbox,
    /// The process's time in microseconds, by which use is charged.
    pub(crate) now_us: u64,
    /// The client has given up: what only tells it something is left out.
    pub(crate) nobody_listens: bool,
    /// Operations carried out, or sent away, in this turn.
    pub(crate) operations: u64,
    /// Bytes read and written in this turn.
    pub(crate) bytes: u64,
}

/// How far one turn came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Served {
    /// Bytes of the input that are done with.
    pub(crate) consumed: usize,
    pub(crate) then: Then,
}

/// What the session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Input of at least this length in total (counted from the first byte not consumed).
    Read { bytes_total: usize },
    /// These many bytes are to be read and thrown away first.
    Skip { bytes: u64 },
    /// That is enough for once: what was said goes out first.
    Drain,
    /// Answers must come from other nodes first.
    Await,
    /// Say what is to be said, then close.
    Close,
}

pub(crate) struct Session<L: BackendLink> {
    dialect: Option<Dialect>,
    member: Option<Member<L>>,
    /// Keys of the multi-get at the front of the input that have been answered already; more
    /// follow when the client has taken those answers.
    keys_answered: usize,
    /// Only while something is awaited from another node.
    answers: Option<Box<Answers>>,
    /// The number of the next answer that will be awaited; none is used twice.
    next_number: u64,
}

/// An authenticated session's side of the bargain.
struct Member<L: BackendLink> {
    /// `None` where everyone is let in.
    grant: Option<Arc<Grant>>,
    entry: Arc<CacheEntry>,
    cache: L::Cache,
    usage: Arc<CacheUsage>,
    _permit: ConnectionPermit,
}

/// A request its credential may make. Only [`Member::admit`] builds one, so whoever holds one need
/// not check again.
struct Admitted<'r, 'a>(&'r Request<'a>);

/// A request about one item.
struct Pending<'a> {
    request: Request<'a>,
    /// Who has the item it is about.
    owner: Owner,
    /// Bytes of the input up to and including this request.
    end: usize,
}

/// Requests that were read together.
struct Batch<'a, L: BackendLink> {
    pending: ArrayVec<Pending<'a>, BATCH_REQUESTS_MAX>,
    /// Where the items are of those whose owner is here.
    places: ArrayVec<L::Located<'a>, BATCH_REQUESTS_MAX>,
    /// A request that is not about one item. It may change the session, so nothing is read past it
    /// before it was carried out.
    last: Option<Request<'a>>,
    /// Bytes of the input up to and including the last request.
    end: usize,
}

/// The authenticated side of a session while requests are carried out: all of it but the right to
/// become another member.
struct Desk<'s, L: BackendLink> {
    member: &'s Member<L>,
    keys_answered: &'s mut usize,
    answers: &'s mut Option<Box<Answers>>,
    next_number: u64,
    portion: Portion,
}

impl<L: BackendLink> Session<L> {
    pub(crate) fn new() -> Self {
        Session { dialect: None, member: None, keys_answered: 0, answers: None, next_number: 0 }
    }

    /// Whether answers are awaited from other nodes, or wait to be taken.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.answers.is_some()
    }

    /// An answer came for the request with this number. `key` is the request's.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        resent: bool,
        key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    ) {
        let Some(answers) = &mut self.answers else { return };
        if let (Some(member), Some(key)) = (&self.member, key)
            && member.usage.recent.is_wanted()
            && let Some((name, now)) = answers.command(number)
        {
            member.usage.recent.record(now, name, key.bytes(), Seen::of(result));
        }
        answers.answered(number, resent, key, result);
    }

    /// The number of the last answer that is awaited from another node.
    pub(crate) fn last_awaited(&self) -> Option<u64> {
        self.answers.as_ref().and_then(|answers| answers.next_number().checked_sub(1))
    }

    /// Whether the answer of this number has been said.
    pub(crate) fn is_answered(&self, number: u64) -> bool {
        self.answers.as_ref().is_none_or(|answers| number < answers.first())
    }

    /// A request on its way had to be sent again: until it is answered, nothing may overtake it.
    pub(crate) fn note_resent(&mut self) {
        if let Some(answers) = &mut self.answers {
            answers.note_resent();
        }
    }

    /// Whether a request on its way may be asked twice. If so, it counts as sent again.
    pub(crate) fn may_repeat(&mut self) -> bool {
        self.answers.as_mut().is_some_and(|answers| answers.may_repeat())
    }

    /// Answers that came and need wait for no other.
    #[inline]
    pub(crate) fn take_ready(&mut self, spares: &mut Spares) -> Vec<u8> {
        let Some(answers) = &mut self.answers else { return Vec::new() };
        let ready = answers.take_ready(spares);
        if let Some(answers) = self.answers.take_if(|answers| answers.is_empty()) {
            self.next_number = answers.next_number();
            spares.keep_answers(answers);
        }
        ready
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.member.is_some()
    }

    /// Whether the credential (or its cache) has been taken away.
    pub(crate) fn is_revoked(&self) -> bool {
        self.member.as_ref().is_some_and(Member::is_revoked)
    }

    /// The cache it has authenticated for; `None` for a stranger.
    #[inline]
    pub(crate) fn cache(&self) -> Option<CacheId> {
        self.member.as_ref().map(|member| member.entry.id())
    }

    /// Counts what was read and written, and charges the cache for it and for `operations`.
    pub(crate) fn count(&self, read: usize, written: usize, operations: u64, now_us: u64) {
        if let Some(member) = &self.member {
            member.usage.bytes_read_total.fetch_add(read as u64, Relaxed);
            member.usage.bytes_written_total.fetch_add(written as u64, Relaxed);
            member.entry.charge(operations, (read + written) as u64, now_us);
        }
    }

    /// Until when nothing may be served because its cache was used faster than it may be.
    #[inline]
    pub(crate) fn held_until(&self, now_us: u64) -> Option<u64> {
        self.member.as_ref()?.entry.held_until(now_us)
    }

    /// Carries out the requests in `input`, appending the answers to `out`.
    pub(crate) fn serve(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        room: &mut KeyRoom,
        turn: &mut Turn<'_, L>,
    ) -> Served {
        let mut consumed = 0;
        let Some(&first) = input.first() else {
            return Served { consumed, then: Then::Read { bytes_total: 1 } };
        };
        let dialect = *self.dialect.get_or_insert_with(|| Dialect::detect(first));
        if self.member.is_none()
            && let Access::Everyone(cache) = turn.access
        {
            let entry = turn.directory.cache(cache);
            match entry.map(|entry| Member::new(None, entry, turn)) {
                Some(Ok(member)) => self.member = Some(member),
                Some(Err(_)) | None => return Served { consumed, then: Then::Close },
            }
        }
        loop {
            let before = consumed;
            let then = if self.member.is_some() {
                self.serve_batch(dialect, input, &mut consumed, out, room, turn)
            } else {
                self.serve_stranger(dialect, input, &mut consumed, out, room, turn)
            };
            if let Some(then) = then {
                return Served { consumed, then };
            }
            debug_assert!(before < consumed, "a turn of the loop that does nothing never ends");
        }
    }

    /// One request of a session that has not authenticated. `None` when more can be served.
    fn serve_stranger(
        &mut self,
        dialect: Dialect,
        input: &[u8],
        consumed: &mut usize,
        out: &mut Vec<u8>,
        room: &mut KeyRoom,
        turn: &mut Turn<'_, L>,
    ) -> Option<Then> {
        room.clear();
        let limits = Limits { item_bytes_max: STRANGER_ITEM_BYTES_MAX, is_login: true };
        let request = match decode(dialect, &input[*consumed..], &limits, room) {
            Decoded::NeedMore { bytes_total } => return Some(Then::Read { bytes_total }),
            Decoded::Wrong(wrong) => {
                *consumed += wrong.consumed;
                // Which commands we know is nothing a stranger need learn.
                match (dialect, wrong.problem) {
                    (Dialect::Text, _) => wrong.reply.refused(out, Refusal::Unauthenticated),
                    (Dialect::Binary, Problem::UnknownCommand) => {
                        return refuse_stranger(dialect, &wrong.reply, out);
                    }
                    (Dialect::Binary, problem) => wrong.reply.wrong(out, problem),
                }
                return match wrong.skip {
                    _ if wrong.close => Some(Then::Close),
                    0 => None,
                    bytes if bytes <= STRANGER_SKIP_BYTES_MAX => Some(Then::Skip { bytes }),
                    _ => Some(Then::Close),
                };
            }
            Decoded::Complete(request, length) => {
                *consumed += length;
                request
            }
        };
        if !request.command.before_authentication {
            return refuse_stranger(dialect, &request.reply, out);
        }
        match request.body {
            Body::Store(store) => {
                let mut candidates = sasl::candidates_of_store(&store);
                self.authenticate(&mut candidates, &request.reply, out, turn)
            }
            Body::Sasl { mechanism, data } => {
                self.authenticate_by_sasl(mechanism, data, &request.reply, out, turn)
            }
            Body::SaslMechanisms => {
                request.reply.sasl_mechanisms(out);
                None
            }
            Body::Version => {
                request.reply.version(out, statistics::VERSION);
                None
            }
            Body::Quit => {
                request.reply.quit(out);
                Some(Then::Close)
            }
            Body::GetMany { .. }
            | Body::Get(_)
            | Body::Delete(_)
            | Body::Arithmetic(_)
            | Body::Touch(_)
            | Body::Peek(_)
            | Body::Flush { .. }
            | Body::Stats { .. }
            | Body::Verbosity
            | Body::Noop
            | Body::NotOffered => refuse_stranger(dialect, &request.reply, out),
        }
    }

    fn authenticate_by_sasl(
        &mut self,
        mechanism: &[u8],
        data: &[u8],
        reply: &Reply<'_>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) -> Option<Then> {
        let is_known = mechanism == sasl::MECHANISM.as_bytes();
        if is_known && data.is_empty() {
            reply.sasl_continue(out);
            return None;
        }
        let mut candidates = is_known.then(|| sasl::plain(data)).flatten().into_iter();
        self.authenticate(&mut candidates, reply, out, turn)
    }

    fn authenticate(
        &mut self,
        candidates: &mut dyn Iterator<Item = Candidate<'_>>,
        reply: &Reply<'_>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) -> Option<Then> {
        match admit_one_of(candidates, turn) {
            Ok(member) => {
                self.member = Some(member);
                reply.authenticated(out);
                None
            }
            Err(refusal) => {
                turn.usage.authentication_failures_total.fetch_add(1, Relaxed);
                reply.refused(out, refusal);
                // A guess costs a connection.
                Some(Then::Close)
            }
        }
    }

    /// One batch of an authenticated session. `None` when more can be served.
    fn serve_batch(
        &mut self,
        dialect: Dialect,
        input: &[u8],
        consumed: &mut usize,
        out: &mut Vec<u8>,
        room: &mut KeyRoom,
        turn: &mut Turn<'_, L>,
    ) -> Option<Then> {
        room.clear();
        let member = self.desk().member;
        if member.is_revoked() {
            return Some(Then::Close);
        }
        let limits = member.limits();
        let mut batch = Batch::<L> {
            pending: ArrayVec::new(),
            places: ArrayVec::new(),
            last: None,
            end: *consumed,
        };
        let stopped = loop {
            match decode(dialect, &input[batch.end..], &limits, room) {
                Decoded::Complete(request, length) => {
                    batch.end += length;
                    let Some(key) = key_of(&request.body) else {
                        batch.last = Some(request);
                        break None;
                    };
                    let owner = turn.owner(member.entry.id(), key);
                    if let Owner::Here { backend, .. } = owner {
                        batch.places.push(turn.link.locate(&member.cache, backend, key));
                    }
                    batch.pending.push(Pending { request, owner, end: batch.end });
                    if batch.pending.is_full() {
                        break None;
                    }
                }
                Decoded::NeedMore { bytes_total } => break Some(Err(bytes_total)),
                Decoded::Wrong(wrong) => break Some(Ok(wrong)),
            }
        };
        if let Some(then) = self.carry_out(&batch, consumed, out, turn) {
            return Some(then);
        }
        match stopped {
            None => None,
            Some(Err(bytes_total)) => Some(Then::Read { bytes_total }),
            Some(Ok(wrong)) => {
                let mut desk = self.desk();
                let stop = desk.must_stop(out, turn);
                stop.or_else(|| desk.refuse(&wrong, consumed, out, turn))
            }
        }
    }

    /// Carries out a batch. `None` when all is done and more can be.
    #[inline]
    fn carry_out(
        &mut self,
        batch: &Batch<'_, L>,
        consumed: &mut usize,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) -> Option<Then> {
        // What other nodes are asked for needs nobody here to stand still.
        let may_be_here = !batch.places.is_empty() || batch.last.is_some();
        let guard = if may_be_here { turn.guard() } else { None };
        let mut desk = self.desk();
        let mut here = turn.link.begin(&desk.member.cache);
        if WARM_KEYS_MIN <= batch.places.len() {
            turn.link.warm(&mut here, &batch.places);
        }
        let mut places = batch.places.iter().copied();
        for pending in &batch.pending {
            if let Some(then) = desk.must_stop(out, turn) {
                return Some(then);
            }
            let place = if pending.owner.is_here() { places.next() } else { None };
            if !(turn.nobody_listens && only_tells(&pending.request.body)) {
                desk.on_one_item(pending, place, &mut here, &guard, out, turn);
            }
            *consumed = pending.end;
            turn.operations += 1;
        }
        // What follows may come to the cache by other ways.
        drop(here);
        if let Some(request) = &batch.last {
            if let Some(then) = desk.must_stop(out, turn) {
                return Some(then);
            }
            // Keys of a multi-get are counted as they are asked for.
            turn.operations += u64::from(!matches!(request.body, Body::GetMany { .. }));
            let line_bytes = batch.end - *consumed;
            match self.on_session(request, line_bytes, &guard, out, turn) {
                Flow::Done => *consumed = batch.end,
                Flow::Unfinished(then) => return Some(then),
                Flow::Close => {
                    *consumed = batch.end;
                    return Some(Then::Close);
                }
            }
        }
        None
    }

    /// For authenticated sessions only.
    #[inline]
    fn desk(&mut self) -> Desk<'_, L> {
        Desk {
            member: self.member.as_ref().expect("called for authenticated sessions only"),
            keys_answered: &mut self.keys_answered,
            answers: &mut self.answers,
            next_number: self.next_number,
            portion: Portion::ORDINARY,
        }
    }

    /// Requests that are not about one item, of so many bytes.
    fn on_session(
        &mut self,
        request: &Request<'_>,
        bytes: usize,
        guard: &Option<L::Guard<'_>>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) -> Flow {
        let member = self.member.as_ref().expect("called for authenticated sessions only");
        let reply = &request.reply;
        if member.admit(request).is_none() {
            let refusal = Refusal::Capability(request.needs);
            reply.refused(tail(&mut self.answers, out), refusal);
            return Flow::Done;
        }
        match request.body {
            Body::GetMany { keys, touch } => {
                let mut desk = Desk { portion: Portion::of_line(bytes), ..self.desk() };
                return desk.get_many(keys, touch, request, guard, out, turn);
            }
            Body::Flush { delay } => self.desk().flush(delay, reply, out, turn),
            Body::Stats { argument } => self.desk().stats(argument, reply, out, turn),
            Body::Sasl { mechanism, data } => {
                // It may change the cache, and with it whose answers are said.
                if self.is_awaiting() {
                    return Flow::Unfinished(Then::Await);
                }
                return self.again(mechanism, data, reply, out, turn);
            }
            Body::Quit => {
                reply.quit(tail(&mut self.answers, out));
                return Flow::Close;
            }
            Body::Version => {
                reply.version(tail(&mut self.answers, out), statistics::VERSION);
            }
            Body::Verbosity => reply.ok(tail(&mut self.answers, out)),
            Body::Noop => reply.noop(tail(&mut self.answers, out)),
            Body::SaslMechanisms => reply.sasl_mechanisms(tail(&mut self.answers, out)),
            Body::NotOffered => {
                reply.refused(tail(&mut self.answers, out), Refusal::NotOffered);
            }
            Body::Get(_)
            | Body::Store(_)
            | Body::Delete(_)
            | Body::Arithmetic(_)
            | Body::Touch(_)
            | Body::Peek(_) => unreachable!("has a key, so it has an owner"),
        }
        Flow::Done
    }

    /// Authentication on a session that already is: to the same cache or another.
    fn again(
        &mut self,
        mechanism: &[u8],
        data: &[u8],
        reply: &Reply<'_>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) -> Flow {
        if matches!(turn.access, Access::Everyone(_)) {
            // An application configured for a password works unchanged on a developer's machine.
            reply.authenticated(out);
            return Flow::Done;
        }
        match self.authenticate_by_sasl(mechanism, data, reply, out, turn) {
            None => Flow::Done,
            Some(_) => Flow::Close,
        }
    }
}

impl<L: BackendLink> Desk<'_, L> {
    /// Whether no more may be answered, or sent, now.
    #[inline]
    fn must_stop(&self, out: &[u8], turn: &Turn<'_, L>) -> Option<Then> {
        let output_bytes_max = turn.output_bytes_max.min(self.portion.output_bytes);
        if output_bytes_max <= out.len() || self.portion.operations <= turn.operations {
            return Some(Then::Drain);
        }
        match &self.answers {
            Some(answers) if !answers.has_room(turn.output_bytes_max, turn.routing) => {
                Some(Then::Await)
            }
            Some(_) | None => None,
        }
    }

    fn refuse(
        &mut self,
        wrong: &Wrong<'_>,
        consumed: &mut usize,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) -> Option<Then> {
        let member = self.member;
        wrong.reply.wrong(tail(self.answers, out), wrong.problem);
        *consumed += wrong.consumed;
        if let Some(key) = wrong.forget
            && member.may(Needs::Write)
        {
            let delete = Delete {
                key,
                compare_cas: None,
                new_cas: None,
                invalidate: false,
                touch: None,
                remove_value: false,
            };
            let operation = Operation::Delete(delete);
            let owner = turn.owner(member.entry.id(), key);
            match (turn.check(owner, &turn.guard()), owner) {
                (Err((far, elsewhere)), _) => {
                    self.send(far, elsewhere, &operation, &wrong.reply, Part::Nobody, turn);
                }
                (Ok(()), Owner::Here { backend, .. }) => {
                    let at = turn.link.locate(&member.cache, backend, key);
                    turn.link.delete(&mut turn.link.begin(&member.cache), at, &delete, turn.now);
                }
                (Ok(()), Owner::There(_)) => (),
            }
        }
        if wrong.close {
            Some(Then::Close)
        } else if wrong.skip != 0 {
            Some(Then::Skip { bytes: wrong.skip })
        } else {
            None
        }
    }

    /// A request about one item: carried out if it is here, else sent to its owner. `place` is
    /// where it lives if it is here.
    #[inline]
    fn on_one_item(
        &mut self,
        pending: &Pending<'_>,
        place: Option<L::Located<'_>>,
        here: &mut L::Batch<'_>,
        guard: &Option<L::Guard<'_>>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) {
        let Pending { request, owner, .. } = pending;
        let member = self.member;
        let Some(admitted) = member.admit(request) else {
            let refusal = Refusal::Capability(request.needs);
            return request.reply.refused(tail(self.answers, out), refusal);
        };
        match (turn.check(*owner, guard), place) {
            (Ok(()), Some(place)) => {
                let out = tail(self.answers, out);
                member.on_one_item(&admitted, place, here, out, turn);
            }
            (Ok(()), None) => unreachable!("what is here was located"),
            (Err((far, elsewhere)), _) => {
                let operation = operation_of(&request.body);
                self.send(far, elsewhere, &operation, &request.reply, Part::Whole, turn);
                self.note_sent(request.command.name, turn.now);
            }
        }
    }

    /// Where commands are recorded, notes which one was just sent.
    fn note_sent(&mut self, name: &'static str, now: Now) {
        if self.member.usage.recent.is_wanted()
            && let Some(answers) = self.answers
        {
            answers.note_command(name, now);
        }
    }

    /// Sends a request to the owner of its item and leaves a place for the answer.
    fn send(
        &mut self,
        far: Far,
        elsewhere: Option<NotHere>,
        operation: &Operation<'_>,
        reply: &Reply<'_>,
        part: Part,
        turn: &mut Turn<'_, L>,
    ) {
        let member = self.member;
        let answers = awaiting(self.answers, self.next_number, turn);
        let number = answers.next_number();
        let asking = turn.outbox.ask(number, member.entry.id(), far, elsewhere, operation);
        let asked = match operation {
            Operation::Get(_) => Asked::Get,
            Operation::Peek(_) => Asked::Peek,
            Operation::Store(_)
            | Operation::Delete(_)
            | Operation::Arithmetic(_)
            | Operation::Touch(_)
            | Operation::Flush { .. }
            | Operation::Figures
            | Operation::ResetFigures
            | Operation::Who
            | Operation::Ping
            | Operation::Many(_) => Asked::Other,
        };
        answers.await_one(Awaited {
            reply: reply.keep(),
            part,
            asked,
            is_read: asking.is_read,
            asked_bytes: asking.bytes,
            noted: None,
        });
    }

    /// Asks every backend on other nodes. `here` is what those of this process contributed.
    fn send_to_all(
        &mut self,
        routing: &Routing,
        gathered: Gathered,
        operation: &Operation<'_>,
        reply: &Reply<'_>,
        turn: &mut Turn<'_, L>,
    ) {
        let member = self.member;
        let answers = awaiting(self.answers, self.next_number, turn);
        let number = answers.next_number();
        let (mut asked_bytes, mut left) = (0, 0);
        for far in routing.owners_elsewhere() {
            asked_bytes += turn.outbox.ask(number, member.entry.id(), far, None, operation).bytes;
            left += 1;
        }
        debug_assert!(left != 0, "with nobody to ask, the answer is known");
        let part = Part::Gathered(Box::new(Gathered { left, ..gathered }));
        answers.await_one(Awaited {
            reply: reply.keep(),
            part,
            asked: Asked::Other,
            is_read: false,
            asked_bytes,
            noted: None,
        });
    }

    /// Forgets everything in the cache, here and on every other node.
    fn flush(
        &mut self,
        delay: Exptime,
        reply: &Reply<'_>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) {
        let member = self.member;
        turn.link.flush(&member.cache, delay, turn.now);
        match turn.routing {
            Some(routing) if routing.is_elsewhere_too() => {
                let gathered = Gathered::new(Gathering::Flush);
                self.send_to_all(routing, gathered, &Operation::Flush { delay }, reply, turn);
            }
            Some(_) | None => reply.ok(tail(self.answers, out)),
        }
    }

    fn stats(
        &mut self,
        argument: &[u8],
        reply: &Reply<'_>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) {
        let member = self.member;
        let routing = turn.routing.filter(|routing| routing.is_elsewhere_too());
        let asked = match Argument::read(argument) {
            Argument::Figures => Gathering::Figures,
            Argument::Reset => {
                turn.link.reset_stats(&member.cache);
                member.usage.reset();
                Gathering::ResetStats
            }
            Argument::Nothing => return reply.stats_end(tail(self.answers, out)),
            Argument::Unknown => {
                return reply.stats_unknown(tail(self.answers, out));
            }
        };
        let mut gathered = Gathered::new(asked);
        if asked == Gathering::Figures {
            let out = tail(self.answers, out);
            statistics::say_own(reply, out, &member.entry, &member.usage, turn.now);
            for (name, figure) in turn.link.figures(&member.cache) {
                gathered.add_figure(name, figure);
            }
        }
        match routing {
            None => gathered.speak(reply, tail(self.answers, out)),
            Some(routing) => {
                let operation = match asked {
                    Gathering::ResetStats => Operation::ResetFigures,
                    Gathering::Figures | Gathering::Flush => Operation::Figures,
                };
                self.send_to_all(routing, gathered, &operation, reply, turn);
            }
        }
    }

    /// Answers a text multi-get, as far as a portion goes and the output limit allows.
    fn get_many(
        &mut self,
        keys: Keys<'_>,
        touch: Option<Exptime>,
        request: &Request<'_>,
        guard: &Option<L::Guard<'_>>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) -> Flow {
        if turn.nobody_listens && touch.is_none() {
            *self.keys_answered = 0;
            return Flow::Done;
        }
        let (member, reply, name) = (self.member, &request.reply, request.command.name);
        let mut keys = keys.skip(*self.keys_answered);
        loop {
            let mut batch = ArrayVec::<(Key<'_>, Owner), BATCH_REQUESTS_MAX>::new();
            let mut places = ArrayVec::<L::Located<'_>, BATCH_REQUESTS_MAX>::new();
            for key in keys.by_ref().take(BATCH_REQUESTS_MAX) {
                let owner = turn.owner(member.entry.id(), key);
                if let Owner::Here { backend, .. } = owner {
                    places.push(turn.link.locate(&member.cache, backend, key));
                }
                batch.push((key, owner));
            }
            if batch.is_empty() {
                break;
            }
            let mut here = turn.link.begin(&member.cache);
            if WARM_KEYS_MIN <= places.len() {
                turn.link.warm(&mut here, &places);
            }
            let mut places = places.iter().copied();
            for &(key, owner) in &batch {
                if let Some(then) = self.must_stop(out, turn) {
                    return Flow::Unfinished(then);
                }
                let get = Get { touch, ..Get::plain(key) };
                let place = if owner.is_here() { places.next() } else { None };
                match (turn.check(owner, guard), place) {
                    (Ok(()), Some(place)) => {
                        let out = tail(self.answers, out);
                        let seen = turn.link.get(&mut here, place, &get, turn.now, |outcome| {
                            if let Some(hit) = &outcome {
                                reply.item(out, key, hit);
                            }
                            Seen::from(&outcome)
                        });
                        if member.usage.recent.is_wanted() {
                            member.usage.recent.record(turn.now, name, key.bytes(), seen);
                        }
                    }
                    (Ok(()), None) => unreachable!("what is here was located"),
                    (Err((far, elsewhere)), _) => {
                        let operation = Operation::Get(get);
                        self.send(far, elsewhere, &operation, reply, Part::Item, turn);
                        self.note_sent(name, turn.now);
                    }
                }
                *self.keys_answered += 1;
                turn.operations += 1;
            }
        }
        *self.keys_answered = 0;
        reply.items_end(tail(self.answers, out));
        Flow::Done
    }
}

/// Where an answer that is known at once is said: to the client if nothing is awaited, else behind
/// what is.
#[inline]
fn tail<'o>(answers: &'o mut Option<Box<Answers>>, out: &'o mut Vec<u8>) -> &'o mut Vec<u8> {
    match answers {
        None => out,
        Some(answers) => answers.tail(),
    }
}

/// The queue of answers, begun if there is none.
fn awaiting<'s, L>(
    answers: &'s mut Option<Box<Answers>>,
    next_number: u64,
    turn: &mut Turn<'_, L>,
) -> &'s mut Answers {
    answers.get_or_insert_with(|| turn.outbox.spares.answers(next_number, turn.routing))
}

impl<'a, L: BackendLink> Turn<'a, L> {
    /// Whether no rule blocks the client's address for this cache.
    fn is_admitted_to(&self, cache: CacheId) -> bool {
        let now = self.now.unix.unsigned_abs();
        self.from.is_none_or(|from| self.directory.rules().admit(from, Some(cache), now))
    }

    #[inline]
    fn owner(&self, cache: CacheId, key: Key<'_>) -> Owner {
        match self.routing {
            None => Owner::Here { backend: 0, slot: None },
            Some(routing) => routing.owner(cache, key),
        }
    }

    /// Keeps the backends of this process from giving a slot away while requests are carried out.
    #[inline]
    fn guard(&self) -> Option<L::Guard<'a>> {
        self.routing.map(|_| self.link.enter())
    }

    /// Whether the item may be asked for here. If not: who is asked instead, and why.
    #[inline(always)]
    fn check(
        &self,
        owner: Owner,
        guard: &Option<L::Guard<'_>>,
    ) -> Result<(), (Far, Option<NotHere>)> {
        match owner {
            // Kept apart, so that without a cluster this is one comparison.
            Owner::Here { slot: None, .. } => Ok(()),
            Owner::Here { .. } | Owner::There(_) => self.check_slot(owner, guard),
        }
    }

    #[inline(never)]
    fn check_slot(
        &self,
        owner: Owner,
        guard: &Option<L::Guard<'_>>,
    ) -> Result<(), (Far, Option<NotHere>)> {
        match (owner, guard) {
            (Owner::There(far), _) => Err((far, None)),
            (Owner::Here { backend, slot: Some(slot) }, Some(guard)) => {
                self.link.check(guard, backend, slot).map_err(|not_here| {
                    let member = self.routing.map_or(0, |routing| routing.member_of(slot));
                    (Far { member, slot: Some(slot) }, Some(not_here))
                })
            }
            (Owner::Here { .. }, _) => Ok(()),
        }
    }
}

/// The first candidate that is right decides.
fn admit_one_of<L: BackendLink>(
    candidates: &mut dyn Iterator<Item = Candidate<'_>>,
    turn: &Turn<'_, L>,
) -> Result<Member<L>, Refusal> {
    let mut meant = None;
    for candidate in candidates {
        match turn.directory.authenticate(candidate.username, candidate.password) {
            Ok(grant) => {
                let entry = Arc::clone(grant.cache());
                return Member::new(Some(grant), entry, turn);
            }
            Err(AuthenticationError::BadCredential) => {
                meant = meant.or_else(|| turn.directory.cache_of(candidate.username));
            }
            Err(AuthenticationError::CacheDisabled) => {
                return Err(Refusal::Limit("cache is disabled, enable it first"));
            }
        }
    }
    if let Some(cache) = meant {
        turn.usage.cache(cache).authentication_failures_total.fetch_add(1, Relaxed);
    }
    Err(Refusal::AuthenticationFailed)
}

/// What carrying out a request asks of the connection.
enum Flow {
    Done,
    /// The rest of the answer follows after that.
    Unfinished(Then),
    Close,
}

impl<L: BackendLink> Member<L> {
    fn new(
        grant: Option<Arc<Grant>>,
        entry: Arc<CacheEntry>,
        turn: &Turn<'_, L>,
    ) -> Result<Self, Refusal> {
        if !turn.is_admitted_to(entry.id()) {
            turn.usage.connections_blocked_total.fetch_add(1, Relaxed);
            return Err(Refusal::Limit("address is blocked"));
        }
        let permit =
            entry.connect().ok_or(Refusal::Limit("too many connections for this cache"))?;
        let cache =
            turn.link.open(entry.id()).ok_or(Refusal::Limit("cache is not ready, try again"))?;
        let usage = turn.usage.cache(entry.id());
        usage.connections_total.fetch_add(1, Relaxed);
        Ok(Member { grant, entry, cache, usage, _permit: permit })
    }

    fn is_revoked(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.is_revoked())
    }

    /// Read for each batch, because a plan may have changed since the last.
    fn limits(&self) -> Limits {
        Limits { item_bytes_max: self.entry.item_bytes_max(), is_login: false }
    }

    fn may(&self, needs: Needs) -> bool {
        let Some(grant) = &self.grant else { return true };
        match needs {
            Needs::Nothing | Needs::Read => true,
            Needs::Write => grant.capabilities().has(Capability::Write),
            Needs::Flush => grant.capabilities().has(Capability::Flush),
        }
    }

    fn admit<'r, 'a>(&self, request: &'r Request<'a>) -> Option<Admitted<'r, 'a>> {
        self.may(request.needs).then_some(Admitted(request))
    }

    #[inline]
    fn on_one_item(
        &self,
        admitted: &Admitted<'_, '_>,
        at: L::Located<'_>,
        here: &mut L::Batch<'_>,
        out: &mut Vec<u8>,
        turn: &mut Turn<'_, L>,
    ) {
        let (link, now) = (turn.link, turn.now);
        let reply = &admitted.0.reply;
        let seen: Seen = match &admitted.0.body {
            // A text get of one key was located like any other; its answer has an end line.
            Body::GetMany { keys, touch } => {
                let key = keys.clone().next().expect("located, so it has a key");
                let get = Get { touch: *touch, ..Get::plain(key) };
                let seen = link.get(here, at, &get, now, |outcome| {
                    if let Some(hit) = &outcome {
                        reply.item(out, key, hit);
                    }
                    Seen::from(&outcome)
                });
                reply.items_end(out);
                seen
            }
            Body::Get(get) => link.get(here, at, get, now, |outcome| {
                reply.get(out, get.key, &outcome);
                Seen::from(&outcome)
            }),
            Body::Store(store) => {
                let outcome = link.store(here, at, store, now);
                reply.store(out, store.key, outcome);
                outcome.into()
            }
            Body::Delete(delete) => {
                let outcome = link.delete(here, at, delete, now);
                reply.delete(out, delete.key, outcome);
                outcome.into()
            }
            Body::Arithmetic(arithmetic) => {
                let outcome = link.arithmetic(here, at, arithmetic, now);
                reply.arithmetic(out, arithmetic.key, outcome);
                outcome.into()
            }
            Body::Touch(touch) => {
                let outcome = link.touch(here, at, touch, now);
                reply.touch(out, touch.key, outcome);
                outcome.into()
            }
            Body::Peek(key) => link.peek(here, at, now, |hit| {
                reply.peek(out, *key, hit.as_ref());
                Seen::from(&hit)
            }),
            Body::Flush { .. }
            | Body::Stats { .. }
            | Body::Version
            | Body::Verbosity
            | Body::Noop
            | Body::Quit
            | Body::SaslMechanisms
            | Body::Sasl { .. }
            | Body::NotOffered => unreachable!("has no key, so it was not located"),
        };
        if self.usage.recent.is_wanted()
            && let Some(key) = key_of(&admitted.0.body)
        {
            self.usage.recent.record(now, admitted.0.command.name, key.bytes(), seen);
        }
    }
}

/// The key of a request about exactly one item.
#[inline]
fn key_of<'a>(body: &Body<'a>) -> Option<Key<'a>> {
    match body {
        Body::Get(get) => Some(get.key),
        Body::GetMany { keys, .. } => {
            let mut keys = *keys;
            let first = keys.next();
            if keys.next().is_none() { first } else { None }
        }
        Body::Store(store) => Some(store.key),
        Body::Delete(delete) => Some(delete.key),
        Body::Arithmetic(arithmetic) => Some(arithmetic.key),
        Body::Touch(touch) => Some(touch.key),
        Body::Peek(key) => Some(*key),
        Body::Flush { .. }
        | Body::Stats { .. }
        | Body::Version
        | Body::Verbosity
        | Body::Noop
        | Body::Quit
        | Body::SaslMechanisms
        | Body::Sasl { .. }
        | Body::NotOffered => None,
    }
}

/// Whether a request changes nothing for anybody else.
fn only_tells(body: &Body<'_>) -> bool {
    match body {
        Body::Get(get) => get.is_plain(),
        Body::GetMany { touch, .. } => touch.is_none(),
        Body::Peek(_) => true,
        Body::Store(_)
        | Body::Delete(_)
        | Body::Arithmetic(_)
        | Body::Touch(_)
        | Body::Flush { .. }
        | Body::Stats { .. }
        | Body::Version
        | Body::Verbosity
        | Body::Noop
        | Body::Quit
        | Body::SaslMechanisms
        | Body::Sasl { .. }
        | Body::NotOffered => false,
    }
}

/// What is asked of the owner of the item.
fn operation_of<'a>(body: &Body<'a>) -> Operation<'a> {
    match *body {
        Body::Get(get) => Operation::Get(get),
        Body::GetMany { mut keys, touch } => {
            let key = keys.next().expect("it has an owner, so it has a key");
            Operation::Get(Get { touch, ..Get::plain(key) })
        }
        Body::Store(store) => Operation::Store(store),
        Body::Delete(delete) => Operation::Delete(delete),
        Body::Arithmetic(arithmetic) => Operation::Arithmetic(arithmetic),
        Body::Touch(touch) => Operation::Touch(touch),
        Body::Peek(key) => Operation::Peek(key),
        Body::Flush { .. }
        | Body::Stats { .. }
        | Body::Version
        | Body::Verbosity
        | Body::Noop
        | Body::Quit
        | Body::SaslMechanisms
        | Body::Sasl { .. }
        | Body::NotOffered => unreachable!("has no key, so it has no owner"),
    }
}

/// Says that one must authenticate first. As in memcached, a text connection may still do so
/// (within its time), while a binary one has shown that it does not know how to.
fn refuse_stranger(dialect: Dialect, reply: &Reply<'_>, out: &mut Vec<u8>) -> Option<Then> {
    reply.refused(out, Refusal::Unauthenticated);
    match dialect {
        Dialect::Text => None,
        Dialect::Binary => Some(Then::Close),
    }
}

#[cfg(test)]
pub(crate) mod tests;
