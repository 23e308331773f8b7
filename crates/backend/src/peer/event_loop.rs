//! One thread that serves links: reads what there is, executes it or lets it wait for its turn,
//! writes once.
//!
//! ```text
//!   a turn:  for each readable link:  read ─▶ decode up to 32 ─▶ locate, warm ─▶ execute
//!                                                                  │ the turn has cost enough, or the
//!                                                                  ▼ cache has requests waiting
//!            then, by turns of caches:                            late ─▶ execute
//!            then, for each link with replies: one write
//! ```

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use cluster::slot::Slot;
use daemon::clock::Now;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{SockRef, TcpKeepalive};
use store::store::{Cache, Located};
use tenancy::id::CacheId;
use tracing::{error, warn};
use wire::data::frame::{Decoded, WrongFrame};
use wire::data::handshake::{Hello, Refused};
use wire::data::reply::{Busy, Refusal};
use wire::data::request::Request;

use crate::Backend;
use crate::peer::Shared;
use crate::peer::execute::{
    BATCH_REQUESTS_MAX, NotHere, PARKED, Replies, WARM_KEYS_MIN, execute, locate, slots, weight,
};
use crate::peer::fair::{Late, OPERATION_COST};
use crate::peer::link::{Link, Written};
use crate::peer::parked::{Parked, Waits};
use crate::peer::socket::Socket;

pub(super) const WAKE: Token = Token(usize::MAX);
const DOOR: Token = Token(usize::MAX - 1);

/// Ready sockets taken from the kernel at once.
const EVENTS_MAX: usize = 256;
/// Bytes read from one link at once.
const READ_BYTES: usize = 64 * 1024;
/// Links of one loop: several of every loop of the largest cluster.
const LINKS_MAX: usize = 8_192;
/// What a turn may cost before requests wait for their cache's turn: about 100 µs of work.
const EASY_COST: u64 = 128 * 1024;
/// What late requests may cost in one turn before replies are written and sockets looked at again: about
/// 200 µs of work. Whoever has just asked waits for so long before anybody knows of it.
const LATE_COST: u64 = 256 * 1024;
/// How often every link is looked at for time-outs.
const SWEEP_EVERY: Duration = Duration::from_millis(250);
/// A loop that comes back later than this was not asleep but stopped: what waits in its sockets may
/// be as old.
const STOOD_STILL_MS: u64 = 1_000;
/// How soon parked requests are looked at again.
const PARKED_LOOK: Duration = Duration::from_millis(1);
/// Silence after which a stopping server closes a link.
const DRAIN_QUIET_MS: u64 = 100;
/// How long a stopping server goes on refusing who asks without a pause. A proxy that is refused asks
/// again until it has waited too long, and one that finds nobody hears so at once.
const DRAIN_ASKED_MS: u64 = 500;
/// How long accepting rests when the process has no descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);

pub(super) struct EventLoop {
    shared: Arc<Shared>,
    poll: Poll,
    door: Option<TcpListener>,
    door_ready: bool,
    door_rests_until: Option<Instant>,
    links: Slab<Link>,
    links_ever: u64,
    /// Links that may be read although the kernel will not say so again.
    again: VecDeque<usize>,
    /// Links that may have replies to write, or last words said. Between two turns: those that have more
    /// than a turn's worth.
    touched: Vec<usize>,
    scratch: Box<[u8]>,
    late: Late<Kept>,
    parked: Parked<Kept>,
    started: Instant,
    now: Now,
    now_ms: u64,
    turn_cost: u64,
    next_sweep: Instant,
    drain_until: Option<Instant>,
    /// When it was told to stop.
    drain_from_ms: u64,
}

/// A request that waits, with bytes of its own.
struct Kept {
    link: usize,
    number: u64,
    slots: Box<[Slot]>,
    frame: Box<[u8]>,
    cost: u64,
    expires_ms: u64,
}

impl Waits for Kept {
    fn link(&self) -> u64 {
        self.number
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn bytes(&self) -> usize {
        self.frame.len()
    }
}

impl EventLoop {
    pub(super) fn new(shared: Arc<Shared>, poll: Poll, mut door: TcpListener) -> io::Result<Self> {
        poll.registry().register(&mut door, DOOR, Interest::READABLE)?;
        Ok(EventLoop { door: Some(door), ..Self::without_door(shared, poll) })
    }

    fn without_door(shared: Arc<Shared>, poll: Poll) -> Self {
        let started = Instant::now();
        let now = shared.clock.now();
        EventLoop {
            shared,
            poll,
            door: None,
            door_ready: true,
            door_rests_until: None,
            links: Slab::new(),
            links_ever: 0,
            again: VecDeque::new(),
            touched: Vec::new(),
            scratch: vec![0; READ_BYTES].into(),
            late: Late::default(),
            parked: Parked::default(),
            started,
            now,
            now_ms: 0,
            turn_cost: 0,
            next_sweep: started + SWEEP_EVERY,
            drain_until: None,
            drain_from_ms: 0,
        }
    }

    /// Serves until the server is stopped and every link has gone, or has used up its time.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            match self.poll.poll(&mut events, Some(self.timeout())) {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    error!(error = &error as &dyn std::error::Error, "cannot wait for sockets");
                    return;
                }
            }
            self.begin_turn();
            for event in &events {
                match event.token() {
                    WAKE => (), // The flag it announces is read every turn.
                    DOOR => self.door_ready = true,
                    Token(key) => {
                        let Some(link) = self.links.get_mut(key) else { continue };
                        link.is_ended |= event.is_read_closed() || event.is_error();
                        link.readable |= event.is_readable() || link.is_ended;
                        self.serve(key);
                    }
                }
            }
            // Only those that stood here before this turn: whoever comes back waits for the next.
            for _ in 0..self.again.len() {
                if let Some(key) = self.again.pop_front() {
                    self.serve(key);
                }
            }
            self.serve_late();
            self.serve_parked();
            self.accept();
            self.write_all();
            if self.next_sweep <= Instant::now() {
                self.sweep();
            }
            if self.drain_until.is_none() && self.shared.stopping.load(Acquire) {
                self.begin_to_drain();
            }
            let until = self.drain_until;
            if until.is_some_and(|until| self.links.is_empty() || until <= Instant::now()) {
                return;
            }
        }
    }

    fn timeout(&self) -> Duration {
        let accepting = self.door_ready && self.door.is_some() && self.door_rests_until.is_none();
        let waiting = !self.again.is_empty() || !self.late.is_empty() || !self.touched.is_empty();
        if accepting || waiting {
            return Duration::ZERO;
        }
        let until = self.next_sweep.saturating_duration_since(Instant::now());
        if self.parked.is_empty() { until } else { until.min(PARKED_LOOK) }
    }

    fn begin_turn(&mut self) {
        let now_ms = self.started.elapsed().as_millis() as u64;
        self.begin_turn_at(self.shared.clock.now(), now_ms);
    }

    fn begin_turn_at(&mut self, now: Now, now_ms: u64) {
        self.now = now;
        let before = std::mem::replace(&mut self.now_ms, now_ms);
        self.turn_cost = 0;
        let stood_still = self.now_ms - before;
        if STOOD_STILL_MS < stood_still {
            warn!(stood_still_ms = stood_still, "the process stood still");
            for (_, link) in &mut self.links {
                link.stood_still_ms = stood_still;
                link.readable = true;
            }
            self.again = self.links.iter().map(|(key, _)| key).collect();
        }
    }

    /// One link's turn. The last wall: should a promise of ours be broken, it costs this link only.
    fn serve(&mut self, key: usize) {
        // Also when it has only become writable.
        self.touch(key);
        let served = catch_unwind(AssertUnwindSafe(|| self.read_and_serve(key)));
        match served {
            Ok(Ok(())) => (),
            Ok(Err(LinkEnd::Gone)) => self.close(key),
            Ok(Err(LinkEnd::Untrusted(error))) => {
                self.shared.usage.links_refused_total.fetch_add(1, Relaxed);
                let socket = self.links.get_mut(key).and_then(|link| link.socket.kernel());
                let from = socket.and_then(|socket| socket.peer_addr().ok());
                warn!(
                    from = from.map(tracing::field::display),
                    error = &error as &dyn std::error::Error,
                    "link refused: no TLS with a node of this cluster"
                );
                self.close(key);
            }
            Ok(Err(LinkEnd::Broken(why))) => {
                self.shared.usage.links_broken_total.fetch_add(1, Relaxed);
                warn!(error = &why as &dyn std::error::Error, "link closed: it made no sense");
                self.close(key);
            }
            Err(_) => {
                error!("link closed: a request broke an invariant (see the panic above)");
                self.scratch = vec![0; READ_BYTES].into();
                self.close(key);
            }
        }
    }

    fn touch(&mut self, key: usize) {
        if let Some(link) = self.links.get_mut(key)
            && !std::mem::replace(&mut link.touched, true)
        {
            self.touched.push(key);
        }
    }

    fn read_and_serve(&mut self, key: usize) -> Result<(), LinkEnd> {
        let Some(link) = self.links.get_mut(key) else { return Ok(()) };
        if !link.readable || link.closing || link.is_full() {
            return Ok(());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let read = link.read(&mut scratch, self.now_ms);
        let served = match read {
            // Only TLS finds what it reads wrong.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(LinkEnd::Untrusted(error))
            }
            Err(_) => Err(LinkEnd::Gone),
            Ok(None) => Ok(()),
            Ok(Some(read)) => self.take(key, &scratch[..read]),
        };
        self.scratch = scratch;
        served?;
        let link = &mut self.links[key];
        if !link.readable {
            link.stood_still_ms = 0;
        } else if !link.is_full() {
            self.again.push_back(key);
        }
        Ok(())
    }

    /// Serves what was read, together with what was left of before.
    fn take(&mut self, key: usize, read: &[u8]) -> Result<(), LinkEnd> {
        let link = &mut self.links[key];
        if link.input.is_empty() {
            let consumed = self.serve_bytes(key, read)?;
            let link = &mut self.links[key];
            link.input.extend_from_slice(&read[consumed..]);
            return Ok(());
        }
        link.input.extend_from_slice(read);
        if link.input.len() < link.wanted {
            return Ok(());
        }
        let mut input = std::mem::take(&mut link.input);
        let consumed = self.serve_bytes(key, &input)?;
        input.drain(..consumed);
        // A large frame's room is given back once it is done.
        input.shrink_to(READ_BYTES);
        self.links[key].input = input;
        Ok(())
    }

    /// Serves all whole frames; returns how many bytes they took.
    fn serve_bytes(&mut self, key: usize, input: &[u8]) -> Result<usize, LinkEnd> {
        let mut consumed = 0;
        if self.links[key].member.is_none() {
            match Hello::decode(input) {
                Ok(None) => return Ok(0),
                Ok(Some((hello, length))) => {
                    self.greet(key, &hello);
                    consumed = length;
                }
                // Whoever this is, it is none of ours.
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "link closed: no handshake");
                    return Err(LinkEnd::Gone);
                }
            }
        }
        let link = &self.links[key];
        let Some(member) = link.member.clone() else { return Ok(consumed) };
        loop {
            let served = self.serve_batch(key, &member, &input[consumed..])?;
            consumed += served.consumed;
            if let Some(bytes_total) = served.wants {
                self.links[key].wanted = bytes_total;
                return Ok(consumed);
            }
        }
    }

    fn greet(&mut self, key: usize, hello: &Hello) {
        let draining = self.drain_until.is_some();
        let link = &mut self.links[key];
        if draining {
            link.refuse(Refused::Draining);
        } else {
            link.greet(hello, self.shared.settings.cluster, &self.shared.members);
        }
        if link.closing {
            self.shared.usage.links_refused_total.fetch_add(1, Relaxed);
        }
    }

    fn serve_batch(
        &mut self,
        key: usize,
        member: &Backend,
        input: &[u8],
    ) -> Result<ServedBatch, LinkEnd> {
        let seal = self.links[key].seal;
        let mut caches = ArrayVec::<(CacheId, Option<Arc<Cache>>), BATCH_REQUESTS_MAX>::new();
        let mut batch = ArrayVec::<Pending<'_>, BATCH_REQUESTS_MAX>::new();
        let mut end = 0;
        let mut wants = None;
        while !batch.is_full() {
            match Request::decode(&input[end..], seal)? {
                Decoded::NeedMore { bytes_total } => {
                    wants = Some(bytes_total);
                    break;
                }
                Decoded::Complete { frame: request, consumed } => {
                    let id = request.header.cache;
                    let known = caches.iter().position(|(cache, _)| *cache == id);
                    let cache = known.unwrap_or_else(|| {
                        caches.push((id, member.cache(id)));
                        caches.len() - 1
                    });
                    batch.push(Pending { request, cache, start: end, end: end + consumed });
                    end += consumed;
                }
            }
        }
        let places = warm(&batch, &caches);
        let stood_still_ms = self.links[key].stood_still_ms;
        let draining = self.drain_until.is_some();
        let mut entered = member.slots().enter();
        let mut requests_total = 0;
        for (pending, place) in batch.iter().zip(&places) {
            let request = &pending.request;
            let weight = weight(&request.operation);
            requests_total += weight;
            let header = &request.header;
            let frame = &input[pending.start..pending.end];
            let link = &mut self.links[key];
            let is_behind_parked = self.parked.has(link.number, slots(request));
            let is_full = link.is_full();
            let mut replies = Replies { out: &mut link.output, seal };
            let refusal = if draining {
                Some(Refusal::Busy(Busy::Draining))
            } else if is_full {
                Some(Refusal::Busy(Busy::Link))
            } else if header.deadline_ms == 0 || u64::from(header.deadline_ms) < stood_still_ms {
                Some(Refusal::Expired)
            } else {
                None
            };
            if let Some(refusal) = refusal {
                replies.refuse(request, refusal);
                self.shared.usage.refused_total.fetch_add(1, Relaxed);
                continue;
            }
            // Who waits for a turn may be the one to wait for a slot next, so new ones come behind.
            if EASY_COST < self.turn_cost || self.late.has(header.cache) {
                self.wait(key, request, frame);
                continue;
            }
            if is_behind_parked {
                self.park(key, request, frame);
                continue;
            }
            if let Some(token) = header.token
                && entered.check(header.slot).is_err()
            {
                drop(entered);
                member.slots().accept(header.slot, token);
                entered = member.slots().enter();
            }
            let before = replies.out.len();
            let cache = caches[pending.cache].1.as_deref();
            let done = execute(request, cache, place.as_ref(), &entered, self.now, &mut replies);
            let written = replies.out.len() - before;
            self.turn_cost += OPERATION_COST * weight + (frame.len() + written) as u64;
            match done {
                Ok(()) => (),
                Err(NotHere::Refused) => {
                    self.shared.usage.refused_total.fetch_add(1, Relaxed);
                }
                Err(NotHere::Frozen) => self.park(key, request, frame),
            }
        }
        self.shared.usage.requests_total.fetch_add(requests_total, Relaxed);
        Ok(ServedBatch { consumed: end, wants })
    }

    /// Lets a request wait for its cache's turn, or refuses it.
    fn wait(&mut self, key: usize, request: &Request<'_>, frame: &[u8]) {
        let cache = request.header.cache;
        if self.late.has_room(cache, frame.len()) {
            self.shared.usage.late_total.fetch_add(1, Relaxed);
            let kept = self.keep(key, request, frame);
            self.late.push(cache, kept, frame.len());
        } else {
            self.refuse(key, request, Refusal::Busy(Busy::Cache));
        }
    }

    /// Lets a request wait for a slot that is about to move, or refuses it.
    fn park(&mut self, key: usize, request: &Request<'_>, frame: &[u8]) {
        self.park_kept(self.keep(key, request, frame));
    }

    fn park_kept(&mut self, kept: Kept) {
        if self.parked.has_room(kept.bytes()) {
            self.parked.push(kept, self.now_ms);
        } else {
            self.refuse_kept(&kept);
        }
    }

    fn keep(&self, key: usize, request: &Request<'_>, frame: &[u8]) -> Kept {
        Kept {
            link: key,
            number: self.links[key].number,
            slots: slots(request).collect(),
            frame: frame.into(),
            cost: OPERATION_COST * weight(&request.operation) + frame.len() as u64,
            expires_ms: self.now_ms + u64::from(request.header.deadline_ms),
        }
    }

    fn refuse(&mut self, key: usize, request: &Request<'_>, refusal: Refusal<'_>) {
        let link = &mut self.links[key];
        Replies { out: &mut link.output, seal: link.seal }.refuse(request, refusal);
        self.shared.usage.refused_total.fetch_add(1, Relaxed);
    }

    /// Requests that had to wait, by turns of their caches.
    fn serve_late(&mut self) {
        let mut cost = 0;
        while cost < LATE_COST {
            let Some((cache, kept)) = self.late.pop() else { return };
            let is_behind_parked = self.parked.has(kept.number, kept.slots.iter().copied());
            let fate = if is_behind_parked { KeptFate::Frozen } else { self.serve_kept(&kept) };
            let used = match fate {
                KeptFate::Done { cost } => cost,
                KeptFate::Frozen => {
                    let used = kept.cost;
                    self.park_kept(kept);
                    used
                }
            };
            self.late.charge(cache, used);
            cost += used;
        }
    }

    /// Requests for slots that were about to move: perhaps they have.
    fn serve_parked(&mut self) {
        let mut parked = std::mem::take(&mut self.parked);
        let over = parked.retry(self.now_ms, |kept| match self.serve_kept(&kept) {
            KeptFate::Done { .. } => None,
            KeptFate::Frozen => Some(kept),
        });
        self.parked = parked;
        over.iter().for_each(|kept| self.refuse_kept(kept));
    }

    /// Refuses a request whose slot did not move in time, unless its link is gone.
    fn refuse_kept(&mut self, kept: &Kept) {
        if let Some(link) = self.links.get(kept.link)
            && link.number == kept.number
            && let Ok(Decoded::Complete { frame, .. }) = Request::decode(&kept.frame, link.seal)
        {
            self.refuse(kept.link, &frame, PARKED);
        }
    }

    /// Executes a request that waited, unless nobody waits for it any more.
    fn serve_kept(&mut self, kept: &Kept) -> KeptFate {
        let nothing = KeptFate::Done { cost: OPERATION_COST };
        self.touch(kept.link);
        let Some(link) = self.links.get_mut(kept.link) else { return nothing };
        let Some(member) = link.member.clone() else { return nothing };
        if link.number != kept.number {
            return nothing;
        }
        let Ok(Decoded::Complete { frame: request, .. }) = Request::decode(&kept.frame, link.seal)
        else {
            return nothing;
        };
        let is_full = link.is_full();
        let mut replies = Replies { out: &mut link.output, seal: link.seal };
        let refusal = if kept.expires_ms <= self.now_ms {
            Some(Refusal::Expired)
        } else if is_full {
            Some(Refusal::Busy(Busy::Link))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            replies.refuse(&request, refusal);
            self.shared.usage.refused_total.fetch_add(1, Relaxed);
            return nothing;
        }
        if let Some(token) = request.header.token {
            member.slots().accept(request.header.slot, token);
        }
        let before = replies.out.len();
        let cache = member.cache(request.header.cache);
        let at = locate(cache.as_deref(), request.operation.key());
        let entered = member.slots().enter();
        match execute(&request, cache.as_deref(), at.as_ref(), &entered, self.now, &mut replies) {
            Ok(()) => (),
            Err(NotHere::Refused) => {
                self.shared.usage.refused_total.fetch_add(1, Relaxed);
            }
            Err(NotHere::Frozen) => return KeptFate::Frozen,
        }
        KeptFate::Done { cost: kept.cost + (replies.out.len() - before) as u64 }
    }

    fn accept(&mut self) {
        let now = Instant::now();
        self.door_rests_until = self.door_rests_until.filter(|until| now < *until);
        if !self.door_ready || self.door_rests_until.is_some() {
            return;
        }
        loop {
            let Some(door) = &self.door else { return };
            match door.accept() {
                Ok((socket, _)) => self.welcome(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.door_ready = false;
                    return;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => {
                    // Out of descriptors or memory: those who are in go on, the rest wait.
                    warn!(error = &error as &dyn std::error::Error, "cannot accept a link");
                    self.door_rests_until = Some(now + ACCEPT_REST);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut socket: mio::net::TcpStream) {
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
        // Neither can be missed by a proxy that is still there.
        drop(socket.set_nodelay(true));
        drop(SockRef::from(&socket).set_tcp_keepalive(&keepalive));
        let interest = Interest::READABLE | Interest::WRITABLE;
        let key = self.links.vacant_key();
        if self.poll.registry().register(&mut socket, Token(key), interest).is_ok()
            && let Ok(socket) = Socket::accepted(socket, self.shared.settings.tls.as_ref())
        {
            self.admit(socket);
        }
    }

    /// Takes in a link. Returns its key.
    fn admit(&mut self, socket: Socket) -> usize {
        let is_full = LINKS_MAX <= self.links.len();
        let entry = self.links.vacant_entry();
        let key = entry.key();
        self.links_ever += 1;
        let link = entry.insert(Link::new(socket, self.links_ever, self.now_ms));
        if is_full {
            link.refuse(Refused::Full);
        }
        self.shared.usage.links.fetch_add(1, Relaxed);
        self.again.push_back(key);
        key
    }

    fn write_all(&mut self) {
        for key in std::mem::take(&mut self.touched) {
            let Some(link) = self.links.get_mut(key) else { continue };
            link.touched = false;
            let was_full = link.is_full();
            let written = link.write(self.now_ms);
            let Ok(written) = written else {
                self.close(key);
                continue;
            };
            if link.closing && !link.has_output() {
                self.close(key);
                continue;
            }
            if was_full && !link.is_full() {
                // Reading stopped while the proxy was behind; the kernel may not say again that
                // there is something.
                link.readable = true;
                self.again.push_back(key);
            }
            if written == Written::Enough {
                self.touch(key);
            }
        }
    }

    fn sweep(&mut self) {
        self.next_sweep = Instant::now() + SWEEP_EVERY;
        let draining = self.drain_until.is_some();
        // What was asked before has been answered, and the answers have had time to arrive.
        let is_done = self.late.is_empty()
            && self.parked.is_empty()
            && self.drain_from_ms + DRAIN_ASKED_MS <= self.now_ms;
        let quiet_ms = if is_done { 0 } else { DRAIN_QUIET_MS };
        let over = |link: &Link| {
            link.is_overdue(self.now_ms) || draining && link.is_quiet(self.now_ms, quiet_ms)
        };
        let overdue: Vec<usize> =
            self.links.iter().filter(|(_, link)| over(link)).map(|(key, _)| key).collect();
        for key in overdue {
            self.close(key);
        }
    }

    fn begin_to_drain(&mut self) {
        self.drain_until = Some(Instant::now() + self.shared.settings.drain_timeout);
        self.drain_from_ms = self.now_ms;
        self.door = None;
        self.sweep();
    }

    fn close(&mut self, key: usize) {
        let Some(mut link) = self.links.try_remove(key) else { return };
        self.shared.usage.links.fetch_sub(1, Relaxed);
        // Closing the descriptor takes it out of epoll as well; this keeps mio's books.
        if let Some(socket) = link.socket.kernel() {
            drop(self.poll.registry().deregister(socket));
        }
    }
}

/// Turns at a simulator's time, with links that it brings.
#[cfg(feature = "simulation")]
impl EventLoop {
    pub(super) fn simulated(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self::without_door(shared, Poll::new()?))
    }

    /// Takes in a link; it is told of by the number returned.
    pub(super) fn bring(&mut self, stream: daemon::memory_stream::MemoryStream) -> (usize, u64) {
        let key = self.admit(Socket::Memory(stream));
        (key, self.links_ever)
    }

    /// Bytes, or the end, have come for a link.
    pub(super) fn note_readable(&mut self, (key, number): (usize, u64), is_ended: bool) {
        if let Some(link) = self.links.get_mut(key)
            && link.number == number
        {
            link.is_ended |= is_ended;
            link.readable = true;
            self.again.push_back(key);
        }
    }

    /// All that one round of [`EventLoop::run`] does. Says after how many milliseconds another one
    /// must follow even if nothing comes.
    pub(super) fn turn_at(&mut self, now: Now, now_ms: u64, sweep: bool) -> Option<u64> {
        self.begin_turn_at(now, now_ms);
        for _ in 0..self.again.len() {
            if let Some(key) = self.again.pop_front() {
                self.serve(key);
            }
        }
        self.serve_late();
        self.serve_parked();
        self.write_all();
        if sweep {
            self.sweep();
        }
        if !self.again.is_empty() || !self.late.is_empty() || !self.touched.is_empty() {
            Some(0)
        } else if self.parked.is_empty() {
            None
        } else {
            Some(PARKED_LOOK.as_millis() as u64)
        }
    }
}

/// One request of a batch.
struct Pending<'a> {
    request: Request<'a>,
    /// Where its cache stands in the batch's list.
    cache: usize,
    start: usize,
    end: usize,
}

struct ServedBatch {
    consumed: usize,
    /// Bytes that must be there before there is more to decode; `None` when there may be more now.
    wants: Option<usize>,
}

enum KeptFate {
    Done { cost: u64 },
    Frozen,
}

/// Why a link ends.
enum LinkEnd {
    Gone,
    /// The caller is none of ours, or does not speak TLS.
    Untrusted(io::Error),
    Broken(WrongFrame),
}

impl From<WrongFrame> for LinkEnd {
    fn from(why: WrongFrame) -> Self {
        LinkEnd::Broken(why)
    }
}

type Caches = [(CacheId, Option<Arc<Cache>>)];

/// Finds the places of all keys, and begins to fetch their memory.
fn warm<'a>(
    batch: &[Pending<'a>],
    caches: &Caches,
) -> ArrayVec<Option<Located<'a>>, BATCH_REQUESTS_MAX> {
    let places: ArrayVec<_, BATCH_REQUESTS_MAX> = batch
        .iter()
        .map(|pending| locate(caches[pending.cache].1.as_deref(), pending.request.operation.key()))
        .collect();
    if batch.len() < WARM_KEYS_MIN {
        return places;
    }
    for (number, (_, cache)) in caches.iter().enumerate() {
        let Some(cache) = cache else { continue };
        let mine: ArrayVec<Located<'_>, BATCH_REQUESTS_MAX> = batch
            .iter()
            .zip(&places)
            .filter(|(pending, _)| pending.cache == number)
            .filter_map(|(_, place)| *place)
            .collect();
        if WARM_KEYS_MIN <= mine.len() {
            cache.warm(&mine);
        }
    }
    places
}
