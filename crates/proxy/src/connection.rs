//! One client connection: its byte stream, its session, and what waits between the two.
//!
//! At rest a connection holds no buffer. It reads into the loop's scratch space and answers into it;
//! only half a request, or answers the client is slow to take, are copied into its own.
//!
//! ```text
//!            ┌────────────── answers the client has not taken ◀──────────────┐
//!            ▼                                                               │
//!   Open: write what waits ─▶ read ─▶ skip ─▶ session ─▶ write ──── all taken, nothing to read: at rest
//!            │                                  │
//!            │ end of stream, revoked           │ wrong password, quit, out of step
//!            ▼                                  ▼
//!   Closing: write what waits ─▶ Lingering: tell the peer, read and forget for a moment ─▶ closed
//! ```
//!
//! What is asked of other nodes is answered later, in another turn; meanwhile the connection reads on,
//! until its session says that it must wait.
//!
//! Lingering matters: closing a socket with unread bytes makes the kernel reset the connection, and
//! the client may lose the line that told it why.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use protocol::key_room::KeyRoom;
use protocol::operation::Key;
use tenancy::id::CacheId;
use tenancy::rules::Rules;
use wire::data::reply::Outcome;

use crate::answers::Failure;
use crate::latency::Timed;
use crate::link::BackendLink;
use crate::session::{OPERATIONS_PER_TURN, Session, Then, Turn};
use crate::settings::ProxySettings;
use crate::transport::Transport;
use crate::usage::ConnectionPermit;

/// Bytes read from one connection at once. The larger the batch, the fewer system calls.
const READ_BYTES: usize = 64 * 1024;

/// Rounds of reading and serving one connection gets before others have their turn.
const ROUNDS_PER_TURN_MAX: usize = 16;

/// Bytes in and out after which others have their turn: 0.2 ms or so, most of it the kernel's. With half of
/// that, gets of a megabyte were a sixth fewer, and nobody noticed a difference.
const BYTES_PER_TURN: u64 = 256 * 1024;

/// Bytes written to one connection at once of answers that have piled up, of which there may be megabytes.
const WRITE_BYTES: usize = 256 * 1024;

/// Answers kept in the scratch space between turns; a burst of large values gives the rest back.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;

/// Slowest client that is waited for: time allowed for a half request or half-read answers grows
/// with their size at this rate.
const BYTES_PER_SECOND_MIN: u64 = 64 * 1024;

/// Whoever has not authenticated counts as one cache when turns are given.
pub(crate) const STRANGERS: CacheId = CacheId::new(0);

/// How long a closed connection is read from, so that its last answer arrives.
const LINGER: Duration = Duration::from_secs(2);

/// Buffers that all connections of a loop share.
pub(crate) struct Scratch {
    input: Box<[u8]>,
    output: Vec<u8>,
    room: KeyRoom,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch {
            input: vec![0; READ_BYTES].into(),
            output: Vec::with_capacity(READ_BYTES),
            room: KeyRoom::new(),
        }
    }
}

pub(crate) struct Connection<L: BackendLink> {
    transport: Transport,
    session: Session<L>,
    /// Which connection of the loop it is, of all there ever were.
    serial: u64,
    /// Whether the loop has it in its queue of those that have more to do.
    pub(crate) is_queued: bool,
    /// Whether it waits there for its cache's turn.
    pub(crate) is_late: bool,
    /// Whether the loop has it among those whose caches were used too fast.
    pub(crate) is_held: bool,
    phase: Phase,
    /// Whether the socket may hold bytes that were not read yet; epoll says so only once.
    readable: bool,
    /// Whether the peer has said that nothing more will come.
    peer_finished: bool,
    /// Whether it is taken to be gone, so that answers are for nobody.
    nobody_listens: bool,
    /// Whether `input` may hold whole requests that the session has not seen.
    unserved: bool,
    /// Whether nothing more can be served before an answer comes from another node.
    awaits: bool,
    /// Half a request. Empty at rest.
    input: Vec<u8>,
    /// Length that `input` must have before the session can do more.
    input_wanted: usize,
    /// Bytes still to come that belong to a refused request.
    skip: u64,
    /// Answers that the peer has not taken; the first `written` bytes it has. Empty at rest.
    output: Vec<u8>,
    written: usize,
    waiting: Waiting,
    /// When that waiting began, in milliseconds since the loop started.
    since_ms: u64,
    /// A turn whose length is measured.
    timed: Option<Timed>,
    permit: ConnectionPermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// What waits is still written, nothing more is read.
    Closing,
    /// The peer has been told; what it still sends is read and forgotten.
    Lingering,
}

/// What a connection waits for; each kind has its own patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Authentication,
    Request,
    RestOfRequest,
    Reader,
    /// Other nodes, which answer or are given up in time without our doing.
    Answers,
    PeerToClose,
}

/// What the loop shall do with a connection after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Wait for the socket.
    Rest,
    /// There is more to do at once; others first.
    Again,
    /// Its cache was used faster than it may be: there is more to do from this moment on, in
    /// microseconds of the process's time.
    Hold {
        until: u64,
    },
    Close,
}

impl<L: BackendLink> Connection<L> {
    pub(crate) fn new(
        transport: Transport,
        permit: ConnectionPermit,
        serial: u64,
        now_ms: u64,
    ) -> Self {
        Connection {
            transport,
            session: Session::new(),
            serial,
            is_queued: false,
            is_late: false,
            is_held: false,
            phase: Phase::Open,
            readable: false,
            peer_finished: false,
            nobody_listens: false,
            unserved: false,
            awaits: false,
            input: Vec::new(),
            input_wanted: 1,
            skip: 0,
            output: Vec::new(),
            written: 0,
            waiting: Waiting::Authentication,
            since_ms: now_ms,
            timed: None,
            permit,
        }
    }

    pub(crate) fn transport(&mut self) -> &mut Transport {
        &mut self.transport
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whose turn its turns are; strangers share theirs.
    pub(crate) fn cache(&self) -> CacheId {
        self.session.cache().unwrap_or(STRANGERS)
    }

    /// Whether it has not authenticated yet.
    pub(crate) fn is_stranger(&self) -> bool {
        !self.session.is_authenticated()
    }

    /// An answer came from another node. The connection wants a turn.
    pub(crate) fn answered(
        &mut self,
        number: u64,
        resent: bool,
        key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    ) {
        self.session.answered(number, resent, key, result);
        self.awaits = false;
    }

    /// See [`Session::note_resent`].
    pub(crate) fn note_resent(&mut self) {
        self.session.note_resent();
    }

    /// See [`Session::may_repeat`].
    pub(crate) fn may_repeat(&mut self) -> bool {
        self.session.may_repeat()
    }

    /// Bytes of memory held for half a request.
    pub(crate) fn input_bytes_held(&self) -> usize {
        self.input.capacity()
    }

    /// Whether it has a use for a socket that takes more. TLS may have something to say of its own.
    pub(crate) fn may_have_to_write(&self) -> bool {
        !self.output.is_empty() || !self.transport.short_read_means_empty()
    }

    /// The socket has bytes, or the end of the stream.
    pub(crate) fn became_readable(&mut self, peer_finished: bool) {
        self.readable = true;
        self.peer_finished |= peer_finished;
    }

    /// Its client hung up because it was not answered in time: what changes something is still carried
    /// out, and nothing is answered.
    pub(crate) fn nobody_listens(&mut self) {
        self.nobody_listens = true;
    }

    /// Measures how long what has just come takes to be answered, unless something is being measured.
    /// `since` is when it came, in nanoseconds since the loop started.
    pub(crate) fn time_from(&mut self, since: u64) {
        if self.timed.is_none() && self.session.is_authenticated() {
            self.timed = Some(Timed::new(since));
        }
    }

    /// When what was measured had come, if it is answered now. Says so once.
    #[inline]
    pub(crate) fn take_timed(&mut self) -> Option<u64> {
        let since = self.timed?.answered()?;
        self.timed = None;
        Some(since)
    }

    /// Does what can be done now.
    pub(crate) fn turn(
        &mut self,
        scratch: &mut Scratch,
        context: &mut Turn<'_, L>,
        now_ms: u64,
    ) -> After {
        let progress = self.progress(scratch, context);
        scratch.output.clear();
        scratch.output.shrink_to(OUTPUT_BYTES_KEPT);
        if let Some(cache) = self.session.cache() {
            self.permit.belong_to(cache);
        }
        match progress {
            Ok(progress) => {
                if let Some(timed) = self.timed {
                    let session = &self.session;
                    let is_answered = |number| session.is_answered(number);
                    self.timed =
                        timed.after_turn(progress.served, session.last_awaited(), is_answered);
                }
                self.note_waiting(&progress, now_ms);
                progress.after
            }
            // The peer is gone, or spoke TLS that makes no sense: nobody to tell.
            Err(_) => After::Close,
        }
    }

    /// Stops serving: what waits is written, then the connection closes.
    pub(crate) fn begin_to_close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
        }
    }

    /// Whether nothing is under way: no half request, no unread answer.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.input.is_empty()
            && self.skip == 0
            && self.output.is_empty()
            && !self.session.is_awaiting()
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.session.is_revoked()
    }

    /// Where the client is.
    pub(crate) fn from(&self) -> Option<IpAddr> {
        self.permit.origin().map(|origin| origin.address)
    }

    /// Whether these rules do not let the client be connected. `now` is Unix time in seconds.
    pub(crate) fn is_blocked(&self, rules: &Rules, now: u64) -> bool {
        let origin = self.permit.origin();
        origin.is_some_and(|origin| !rules.admit(origin.address, origin.cache, now))
    }

    /// Whether the connection has waited longer than its kind of waiting allows.
    pub(crate) fn is_overdue(&self, settings: &ProxySettings, now_ms: u64) -> bool {
        if self.is_held {
            // It waits for us.
            return false;
        }
        let patience = match self.waiting {
            Waiting::Authentication => settings.authentication_timeout,
            Waiting::Request => match settings.idle_timeout {
                Some(timeout) => timeout,
                None => return false,
            },
            Waiting::RestOfRequest => {
                settings.request_timeout + time_to_move(self.input_wanted as u64 + self.skip)
            }
            Waiting::Reader => settings.request_timeout + time_to_move(self.output.len() as u64),
            Waiting::Answers => return false,
            Waiting::PeerToClose => LINGER,
        };
        patience.as_millis() as u64 <= now_ms.saturating_sub(self.since_ms)
    }

    fn progress(
        &mut self,
        scratch: &mut Scratch,
        context: &mut Turn<'_, L>,
    ) -> io::Result<Progress> {
        let mut progress = Progress { after: After::Rest, served: false, drained: false };
        let mut rounds = 0;
        context.nobody_listens = self.nobody_listens;
        loop {
            self.take_answers(context);
            match self.write_waiting(context)? {
                Written::All => progress.drained = true,
                // The socket will say when it can take more.
                Written::Some => return Ok(progress),
                Written::Enough => {
                    progress.after = After::Again;
                    return Ok(progress);
                }
            }
            match self.phase {
                Phase::Open => (),
                Phase::Closing if self.session.is_awaiting() => return Ok(progress),
                Phase::Closing if self.nobody_listens => {
                    progress.after = After::Close;
                    return Ok(progress);
                }
                Phase::Closing => {
                    self.transport.finish();
                    self.phase = Phase::Lingering;
                    self.input = Vec::new();
                    self.readable = true;
                }
                Phase::Lingering => {
                    progress.after = self.read_and_forget(scratch)?;
                    return Ok(progress);
                }
            }
            if self.phase != Phase::Open {
                continue;
            }
            if self.awaits || (!self.unserved && !self.readable) {
                return Ok(progress);
            }
            let is_enough = rounds == ROUNDS_PER_TURN_MAX
                || BYTES_PER_TURN <= context.bytes
                || OPERATIONS_PER_TURN <= context.operations;
            if is_enough {
                progress.after = After::Again;
                return Ok(progress);
            }
            if let Some(until) = self.session.held_until(context.now_us) {
                progress.after = After::Hold { until };
                return Ok(progress);
            }
            rounds += 1;
            let mut read = 0;
            if !self.unserved {
                match self.transport.read(&mut scratch.input) {
                    Ok(0) => {
                        self.begin_to_close();
                        continue;
                    }
                    Ok(length) => read = length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.readable = false;
                        return Ok(progress);
                    }
                    Err(error) => return Err(error),
                }
                if read < READ_BYTES
                    && !self.peer_finished
                    && self.transport.short_read_means_empty()
                {
                    self.readable = false;
                }
            }
            let operations = context.operations;
            progress.served |= self.serve(read, scratch, context);
            let operations = context.operations - operations;
            let written = scratch.output.len();
            context.bytes += read as u64;
            self.session.count(read, written, operations, context.now_us);
            self.write(&mut scratch.output, context)?;
        }
    }

    /// Gives the session the bytes just read (the first `read` of the scratch input) after those
    /// kept from before. Returns whether it got on.
    fn serve(&mut self, read: usize, scratch: &mut Scratch, context: &mut Turn<'_, L>) -> bool {
        let Scratch { input: fresh, output, room } = scratch;
        let mut fresh = &fresh[..read];
        let skipped = self.skip.min(fresh.len() as u64);
        self.skip -= skipped;
        fresh = &fresh[skipped as usize..];
        // What was kept is moved out for the while, so that the session may borrow it.
        let mut kept = std::mem::take(&mut self.input);
        let input = if kept.is_empty() {
            fresh
        } else {
            kept.extend_from_slice(fresh);
            &kept[..]
        };
        let consumed = if self.unserved || self.input_wanted <= input.len() {
            self.serve_all(input, output, room, context)
        } else {
            0
        };
        if kept.is_empty() {
            if consumed < fresh.len() {
                self.input = fresh[consumed..].to_vec();
            }
        } else if consumed == kept.len() {
            drop(kept); // At rest a connection holds no buffer.
        } else {
            kept.drain(..consumed);
            self.input = kept;
        }
        0 < consumed
    }

    /// Lets the session work until it needs something. Returns the bytes that are done with.
    fn serve_all(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        room: &mut KeyRoom,
        context: &mut Turn<'_, L>,
    ) -> usize {
        let mut consumed = 0;
        loop {
            let served = self.session.serve(&input[consumed..], output, room, context);
            consumed += served.consumed;
            self.unserved = false;
            match served.then {
                Then::Read { bytes_total } => self.input_wanted = bytes_total,
                Then::Skip { bytes } => {
                    let here = bytes.min((input.len() - consumed) as u64);
                    consumed += here as usize;
                    self.skip = bytes - here;
                    self.input_wanted = 1;
                    if consumed < input.len() {
                        continue;
                    }
                }
                Then::Drain => self.unserved = true,
                Then::Await => {
                    self.unserved = true;
                    self.awaits = true;
                }
                Then::Close => self.begin_to_close(),
            }
            return consumed;
        }
    }

    /// Answers that came from other nodes go out after what waits.
    fn take_answers(&mut self, context: &mut Turn<'_, L>) {
        let ready = self.session.take_ready(&mut context.outbox.spares);
        if ready.is_empty() {
            return;
        }
        self.session.count(0, ready.len(), 0, context.now_us);
        if self.output.is_empty() {
            self.output = ready;
        } else {
            self.output.extend_from_slice(&ready);
            context.outbox.spares.keep_buffer(ready);
        }
    }

    /// Writes answers; what the peer does not take now is kept.
    fn write(&mut self, answers: &mut Vec<u8>, context: &mut Turn<'_, L>) -> io::Result<()> {
        debug_assert!(self.output.is_empty(), "served while answers wait");
        if self.nobody_listens {
            // Whoever is written to that is gone says so, and with that what was not read yet is lost.
            answers.clear();
        }
        let mut rest = &answers[..];
        while !rest.is_empty() {
            match self.transport.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    context.bytes += length as u64;
                    rest = &rest[length..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.output.extend_from_slice(rest);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        answers.clear();
        Ok(())
    }

    /// Writes what waits, as much of it as one turn may.
    fn write_waiting(&mut self, context: &mut Turn<'_, L>) -> io::Result<Written> {
        if self.nobody_listens {
            self.output = Vec::new();
            self.written = 0;
            return Ok(Written::All);
        }
        while self.written < self.output.len() {
            if BYTES_PER_TURN <= context.bytes {
                return Ok(Written::Enough);
            }
            let rest = &self.output[self.written..];
            match self.transport.write(&rest[..rest.len().min(WRITE_BYTES)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    context.bytes += length as u64;
                    self.written += length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Written::Some);
                }
                Err(error) => return Err(error),
            }
        }
        if 0 < self.written {
            context.outbox.spares.keep_buffer(std::mem::take(&mut self.output));
            self.written = 0;
        }
        Ok(if self.transport.flush()? { Written::All } else { Written::Some })
    }

    fn read_and_forget(&mut self, scratch: &mut Scratch) -> io::Result<After> {
        for _ in 0..ROUNDS_PER_TURN_MAX {
            match self.transport.read(&mut scratch.input) {
                Ok(0) => return Ok(After::Close),
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(After::Rest),
                Err(error) => return Err(error),
            }
        }
        Ok(After::Again)
    }

    fn note_waiting(&mut self, progress: &Progress, now_ms: u64) {
        let waiting = if self.phase == Phase::Lingering {
            Waiting::PeerToClose
        } else if !self.output.is_empty() {
            Waiting::Reader
        } else if self.session.is_awaiting() {
            Waiting::Answers
        } else if !self.session.is_authenticated() {
            Waiting::Authentication
        } else if self.is_at_rest() {
            Waiting::Request
        } else {
            Waiting::RestOfRequest
        };
        let anew = match waiting {
            // However it got on meanwhile: its time is counted from the beginning.
            Waiting::Authentication | Waiting::PeerToClose => false,
            Waiting::Request | Waiting::Answers => true,
            Waiting::RestOfRequest => progress.served,
            Waiting::Reader => progress.drained,
        };
        if anew || waiting != self.waiting {
            self.waiting = waiting;
            self.since_ms = now_ms;
        }
    }
}

/// What became of answers that waited.
enum Written {
    All,
    /// The peer takes no more now.
    Some,
    /// The peer might take more, but it is the others' turn.
    Enough,
}

struct Progress {
    after: After,
    /// A request was carried out.
    served: bool,
    /// All answers that waited were taken at some moment of the turn.
    drained: bool,
}

fn time_to_move(bytes: u64) -> Duration {
    Duration::from_millis(bytes * 1000 / BYTES_PER_SECOND_MIN)
}

#[cfg(test)]
mod tests;
