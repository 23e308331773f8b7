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
//! A session starts out anonymous and may only authenticate. Afterwards it holds its credential's
//! [`Grant`], whose capabilities are read anew for every request: what an operator takes away is
//! gone with the next one.

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

use crate::link::{BackendLink, WARM_KEYS_MIN};
use crate::settings::Access;
use crate::statistics;
use crate::usage::{CacheUsage, ProxyUsage};

/// Requests located ahead of being carried out. Twice the misses a core can have under way.
const BATCH_REQUESTS_MAX: usize = 32;

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
    pub(crate) now: Now,
    /// Nothing more is answered once this many bytes of answers wait.
    pub(crate) output_bytes_max: usize,
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
    /// The client must take some answers first.
    Drain,
    /// Say what is to be said, then close.
    Close,
}

pub(crate) struct Session<L: BackendLink> {
    dialect: Option<Dialect>,
    member: Option<Member<L>>,
    /// Keys of the multi-get at the front of the input that have been answered already; more
    /// follow when the client has taken those answers.
    keys_answered: usize,
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

struct Pending<'a> {
    request: Request<'a>,
    /// Whether it is about one item, whose place is next in the batch's list of places.
    located: bool,
    /// Bytes of the input up to and including this request.
    end: usize,
}

impl<L: BackendLink> Session<L> {
    pub(crate) fn new() -> Self {
        Session { dialect: None, member: None, keys_answered: 0 }
    }

    pub(crate) fn is_authenticated(&self) -> bool {
        self.member.is_some()
    }

    /// Whether the credential (or its cache) has been taken away.
    pub(crate) fn is_revoked(&self) -> bool {
        self.member.as_ref().is_some_and(Member::is_revoked)
    }

    pub(crate) fn count_bytes(&self, read: usize, written: usize) {
        if let Some(member) = &self.member {
            member.usage.bytes_read_total.fetch_add(read as u64, Relaxed);
            member.usage.bytes_written_total.fetch_add(written as u64, Relaxed);
        }
    }

    /// Carries out the requests in `input`, appending the answers to `out`.
    pub(crate) fn serve(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        room: &mut KeyRoom,
        turn: &Turn<'_, L>,
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
        turn: &Turn<'_, L>,
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
        turn: &Turn<'_, L>,
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
        turn: &Turn<'_, L>,
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
        turn: &Turn<'_, L>,
    ) -> Option<Then> {
        room.clear();
        let member = self.member.as_ref().expect("called for authenticated sessions only");
        if member.is_revoked() {
            return Some(Then::Close);
        }
        let limits = member.limits();
        let mut batch = ArrayVec::<Pending<'_>, BATCH_REQUESTS_MAX>::new();
        let mut places = ArrayVec::<L::Located<'_>, BATCH_REQUESTS_MAX>::new();
        let mut end = *consumed;
        let stopped = loop {
            match decode(dialect, &input[end..], &limits, room) {
                Decoded::Complete(request, length) => {
                    end += length;
                    let key = key_of(&request.body);
                    places.extend(key.map(|key| turn.link.locate(&member.cache, key)));
                    batch.push(Pending { request, located: key.is_some(), end });
                    // What has no key of its own may change the session, so nothing is read past
                    // it before it was carried out.
                    if key.is_none() || batch.is_full() {
                        break None;
                    }
                }
                Decoded::NeedMore { bytes_total } => break Some(Err(bytes_total)),
                Decoded::Wrong(wrong) => break Some(Ok(wrong)),
            }
        };
        if WARM_KEYS_MIN <= places.len() {
            turn.link.warm(&member.cache, &places);
        }
        let mut places = places.into_iter();
        for pending in &batch {
            if turn.output_bytes_max <= out.len() {
                return Some(Then::Drain);
            }
            let at = if pending.located { places.next() } else { None };
            match self.carry_out(&pending.request, at, out, turn) {
                Flow::Done => *consumed = pending.end,
                Flow::Unfinished => return Some(Then::Drain),
                Flow::Close => {
                    *consumed = pending.end;
                    return Some(Then::Close);
                }
            }
        }
        match stopped {
            None => None,
            Some(Err(bytes_total)) => Some(Then::Read { bytes_total }),
            Some(Ok(wrong)) => self.refuse(&wrong, consumed, out, turn),
        }
    }

    fn refuse(
        &mut self,
        wrong: &Wrong<'_>,
        consumed: &mut usize,
        out: &mut Vec<u8>,
        turn: &Turn<'_, L>,
    ) -> Option<Then> {
        let member = self.member.as_ref().expect("called for authenticated sessions only");
        wrong.reply.wrong(out, wrong.problem);
        *consumed += wrong.consumed;
        if let Some(key) = wrong.forget
            && member.may(Needs::Write)
        {
            let at = turn.link.locate(&member.cache, key);
            let delete = Delete {
                key,
                compare_cas: None,
                new_cas: None,
                invalidate: false,
                touch: None,
                remove_value: false,
            };
            turn.link.delete(&member.cache, at, &delete, turn.now);
        }
        if wrong.close {
            Some(Then::Close)
        } else if wrong.skip != 0 {
            Some(Then::Skip { bytes: wrong.skip })
        } else {
            None
        }
    }

    fn carry_out(
        &mut self,
        request: &Request<'_>,
        at: Option<L::Located<'_>>,
        out: &mut Vec<u8>,
        turn: &Turn<'_, L>,
    ) -> Flow {
        let member = self.member.as_ref().expect("called for authenticated sessions only");
        let Some(admitted) = member.admit(request) else {
            request.reply.refused(out, Refusal::Capability(request.needs));
            return Flow::Done;
        };
        match at {
            Some(at) => {
                member.on_one_item(&admitted, at, out, turn);
                Flow::Done
            }
            None => self.on_session(request, out, turn),
        }
    }

    /// Requests that are not about one item.
    fn on_session(&mut self, request: &Request<'_>, out: &mut Vec<u8>, turn: &Turn<'_, L>) -> Flow {
        let member = self.member.as_ref().expect("called for authenticated sessions only");
        let reply = &request.reply;
        match request.body {
            Body::GetMany { keys, touch } => return self.get_many(keys, touch, reply, out, turn),
            Body::Flush { delay } => {
                turn.link.flush(&member.cache, delay, turn.now);
                reply.ok(out);
            }
            Body::Stats { argument } => {
                let open = member.entry.connections();
                statistics::answer(argument, reply, out, &member.usage, open, &member.cache, turn);
            }
            Body::Version => reply.version(out, statistics::VERSION),
            Body::Verbosity => reply.ok(out),
            Body::Noop => reply.noop(out),
            Body::Quit => {
                reply.quit(out);
                return Flow::Close;
            }
            Body::SaslMechanisms => reply.sasl_mechanisms(out),
            Body::Sasl { mechanism, data } => return self.again(mechanism, data, reply, out, turn),
            Body::NotOffered => reply.refused(out, Refusal::NotOffered),
            Body::Get(_)
            | Body::Store(_)
            | Body::Delete(_)
            | Body::Arithmetic(_)
            | Body::Touch(_)
            | Body::Peek(_) => unreachable!("has a key, so it was located"),
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
        turn: &Turn<'_, L>,
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

    /// Answers a text multi-get, as far as the output limit allows.
    fn get_many(
        &mut self,
        keys: Keys<'_>,
        touch: Option<Exptime>,
        reply: &Reply<'_>,
        out: &mut Vec<u8>,
        turn: &Turn<'_, L>,
    ) -> Flow {
        let member = self.member.as_ref().expect("called for authenticated sessions only");
        let mut keys = keys.skip(self.keys_answered);
        loop {
            let mut batch = ArrayVec::<Key<'_>, BATCH_REQUESTS_MAX>::new();
            let mut places = ArrayVec::<L::Located<'_>, BATCH_REQUESTS_MAX>::new();
            for key in keys.by_ref().take(BATCH_REQUESTS_MAX) {
                batch.push(key);
                places.push(turn.link.locate(&member.cache, key));
            }
            if batch.is_empty() {
                break;
            }
            if WARM_KEYS_MIN <= places.len() {
                turn.link.warm(&member.cache, &places);
            }
            for (key, at) in batch.into_iter().zip(places) {
                if turn.output_bytes_max <= out.len() {
                    return Flow::Unfinished;
                }
                let get = Get { touch, ..Get::plain(key) };
                turn.link.get(&member.cache, at, &get, turn.now, |outcome| {
                    if let Some(hit) = outcome {
                        reply.item(out, key, &hit);
                    }
                });
                self.keys_answered += 1;
            }
        }
        self.keys_answered = 0;
        reply.items_end(out);
        Flow::Done
    }
}

/// The first candidate that is right decides.
fn admit_one_of<L: BackendLink>(
    candidates: &mut dyn Iterator<Item = Candidate<'_>>,
    turn: &Turn<'_, L>,
) -> Result<Member<L>, Refusal> {
    for candidate in candidates {
        match turn.directory.authenticate(candidate.username, candidate.password) {
            Ok(grant) => {
                let entry = Arc::clone(grant.cache());
                return Member::new(Some(grant), entry, turn);
            }
            Err(AuthenticationError::BadCredential) => (),
            Err(AuthenticationError::CacheDisabled) => {
                return Err(Refusal::Limit("cache is disabled, enable it first"));
            }
        }
    }
    Err(Refusal::AuthenticationFailed)
}

/// What carrying out a request asks of the connection.
enum Flow {
    Done,
    /// The rest of the answer follows once the client has taken what there is.
    Unfinished,
    Close,
}

impl<L: BackendLink> Member<L> {
    fn new(
        grant: Option<Arc<Grant>>,
        entry: Arc<CacheEntry>,
        turn: &Turn<'_, L>,
    ) -> Result<Self, Refusal> {
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

    fn on_one_item(
        &self,
        admitted: &Admitted<'_, '_>,
        at: L::Located<'_>,
        out: &mut Vec<u8>,
        turn: &Turn<'_, L>,
    ) {
        let (link, cache, now) = (turn.link, &self.cache, turn.now);
        let reply = &admitted.0.reply;
        match &admitted.0.body {
            // A text get of one key was located like any other; its answer has an end line.
            Body::GetMany { keys, touch } => {
                let key = keys.clone().next().expect("located, so it has a key");
                let get = Get { touch: *touch, ..Get::plain(key) };
                link.get(cache, at, &get, now, |outcome| {
                    if let Some(hit) = outcome {
                        reply.item(out, key, &hit);
                    }
                });
                reply.items_end(out);
            }
            Body::Get(get) => {
                link.get(cache, at, get, now, |outcome| reply.get(out, get.key, &outcome));
            }
            Body::Store(store) => {
                reply.store(out, store.key, link.store(cache, at, store, now));
            }
            Body::Delete(delete) => {
                reply.delete(out, delete.key, link.delete(cache, at, delete, now));
            }
            Body::Arithmetic(arithmetic) => {
                let outcome = link.arithmetic(cache, at, arithmetic, now);
                reply.arithmetic(out, arithmetic.key, outcome);
            }
            Body::Touch(touch) => {
                reply.touch(out, touch.key, link.touch(cache, at, touch, now));
            }
            Body::Peek(key) => {
                link.peek(cache, at, now, |hit| reply.peek(out, *key, hit.as_ref()));
            }
            Body::Flush { .. }
            | Body::Stats { .. }
            | Body::Version
            | Body::Verbosity
            | Body::Noop
            | Body::Quit
            | Body::SaslMechanisms
            | Body::Sasl { .. }
            | Body::NotOffered => unreachable!("has no key, so it was not located"),
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
mod tests;
