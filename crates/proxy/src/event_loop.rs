//! One thread of the data plane: waits for sockets, gives each ready connection its turn.
//!
//! Nothing here is shared with other loops but the counters, the directory and the items behind the
//! link; each loop accepts its own connections and keeps them until they close, and has its own
//! connections to the backends of other nodes.
//!
//! ```text
//!   a round:  sockets ready ─▶ clients' turns ──▶ requests for other nodes ─▶ links
//!                         └──▶ replies of links ─▶ answers ─▶ clients' turns
//!             … then what the links have to write, one write for each
//! ```

use std::io::{self, Write};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use daemon::clock::{Clock, Now};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use tenancy::directory::Directory;
use tenancy::id::CacheId;
use tenancy::rules::Rules;
use tracing::{error, info, warn};
use wire::data::frame::Seal;

use crate::clients::{Clients, HungUp};
use crate::cluster_handle::ClusterHandle;
use crate::connection::{After, Connection, Scratch};
use crate::errand;
use crate::latency::Sampling;
use crate::link::BackendLink;
use crate::link_sockets::LinkSockets;
use crate::links::{Links, Micros};
use crate::outbox::Outbox;
use crate::round::Done;
use crate::routing::Routing;
use crate::session::Turn;
use crate::settings::ProxySettings;
use crate::spin::Spin;
use crate::tls::Tls;
use crate::transport::Transport;
use crate::usage::ProxyUsage;

/// Ready sockets taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// How often every connection is looked at for time-outs and revoked credentials. A quarter of the
/// second within which a change must be felt.
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// How long accepting rests when the process has no descriptor left; without it the loop would spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

pub(crate) const WAKE: Token = Token(usize::MAX);
const PLAIN: Token = Token(usize::MAX - 1);
const TLS: Token = Token(usize::MAX - 2);
/// Tokens from here on are connections to other nodes; there will never be that many clients.
const LINKS_FROM: usize = usize::MAX / 2;

/// What a client hears that comes when the process has all the connections it may have. Its dialect
/// is not known yet; memcached says the same.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// What a client hears whose address may not connect at all.
const BLOCKED: &[u8] = b"ERROR address is blocked\r\n";

/// What all loops of a proxy share.
pub(crate) struct Shared<L> {
    pub(crate) settings: ProxySettings,
    pub(crate) link: Arc<L>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) usage: Arc<ProxyUsage>,
    pub(crate) clock: Clock,
    pub(crate) tls: Option<Tls>,
    pub(crate) stopping: AtomicBool,
    pub(crate) cluster: ClusterHandle,
    /// The beginning of the process's time: all loops charge the caches they share by it.
    pub(crate) started: Instant,
    /// For what must not be guessed by others or done by all at once; each loop makes its own of it.
    pub(crate) seed: u64,
}

pub(crate) struct EventLoop<L: BackendLink> {
    shared: Arc<Shared<L>>,
    poll: Poll,
    spin: Spin,
    plain: Option<Door>,
    tls: Option<Door>,
    clients: Clients<L>,
    /// How many connections there ever were.
    connections_total: u64,
    links: Links,
    sockets: LinkSockets,
    /// What of the cluster's news this loop has taken up.
    news: u64,
    /// How often this loop has made its links anew because it was told to.
    refreshes: u64,
    /// What the sessions of one turn ask of other nodes.
    outbox: Outbox,
    scratch: Scratch,
    sampling: Sampling,
    /// Memory held for half requests by all connections of this loop, in bytes.
    input_bytes_held: usize,
    started: Instant,
    /// The time of this round, in three forms; read once, because reading a clock is not free.
    woke: Instant,
    now: Now,
    now_us: Micros,
    next_sweep: Instant,
    drain_until: Option<Instant>,
    /// The rules by which open connections were looked at last, and in which second (Unix time).
    rules: Arc<Rules>,
    rules_looked_at: i64,
}

/// A listening socket.
struct Door {
    listener: TcpListener,
    /// Connections may be waiting; the kernel says so only once.
    ready: bool,
    rests_until: Option<Instant>,
}

impl Door {
    fn open(registry: &Registry, mut listener: TcpListener, token: Token) -> io::Result<Self> {
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Door { listener, ready: true, rests_until: None })
    }
}

impl<L: BackendLink> EventLoop<L> {
    pub(crate) fn new(
        shared: Arc<Shared<L>>,
        poll: Poll,
        plain: Option<TcpListener>,
        tls: Option<TcpListener>,
        index: usize,
    ) -> io::Result<Self> {
        let door = |listener: Option<TcpListener>, token| {
            listener.map(|listener| Door::open(poll.registry(), listener, token)).transpose()
        };
        let (plain, tls) = (door(plain, PLAIN)?, door(tls, TLS)?);
        let started = shared.started;
        let now = shared.clock.now();
        let seed = shared.seed ^ index as u64;
        let links = Links::new(
            shared.settings.links,
            Seal::Checksum,
            Arc::clone(shared.cluster.usage()),
            seed,
        );
        let link_tls = shared.cluster.link_tls().cloned();
        Ok(EventLoop {
            spin: Spin::new(shared.settings.spin),
            rules: shared.directory.rules(),
            rules_looked_at: now.unix,
            shared,
            plain,
            tls,
            poll,
            clients: Clients::new(),
            connections_total: 0,
            links,
            sockets: LinkSockets::new(link_tls, LINKS_FROM),
            news: 0,
            refreshes: 0,
            outbox: Outbox::default(),
            scratch: Scratch::new(),
            sampling: Sampling::new(seed),
            input_bytes_held: 0,
            started,
            woke: started,
            now,
            now_us: 0,
            next_sweep: Instant::now() + SWEEP_EVERY,
            drain_until: None,
        })
    }

    /// Serves until the proxy is stopped and every connection has gone or used up its time.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut housekeeping_left = false;
        loop {
            let timeout = self.timeout(housekeeping_left);
            match self.spin.poll(&mut self.poll, &mut events, timeout) {
                Ok(()) => (),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    error!(error = &error as &dyn std::error::Error, "cannot wait for sockets");
                    return;
                }
            }
            self.woke = Instant::now();
            self.now = self.shared.clock.now_at(self.woke);
            self.now_us = self.woke.duration_since(self.started).as_micros() as Micros;
            self.follow_cluster();
            self.clients.round.begin();
            let bytes = self.sockets.read_on(&mut self.links, self.now_us, &mut self.clients);
            self.clients.round.charge_bytes(bytes as u64);
            for event in &events {
                self.take(event);
            }
            self.links.tick(self.now_us, &mut self.clients);
            self.run_errands();
            self.serve_held();
            // Only those that stood here before this round: whoever comes back waits for the next.
            for _ in 0..self.clients.again.len() {
                if let Some(key) = self.clients.again.pop_front() {
                    self.unqueued(key);
                    self.turn_or_wait(key);
                }
            }
            while let Some((cache, key)) = self.clients.next_late(self.now_us) {
                self.unqueued(key);
                self.turn(key, Some(cache));
            }
            self.accept();
            self.sockets.work(
                &mut self.links,
                self.poll.registry(),
                self.now_us,
                &mut self.clients,
            );
            if self.next_sweep <= self.woke {
                self.sweep();
                housekeeping_left = true;
            }
            if housekeeping_left {
                housekeeping_left = self.shared.link.maintain(self.now);
            }
            if self.drain_until.is_none() && self.shared.stopping.load(Acquire) {
                self.begin_to_drain();
            }
            if self.is_drained() {
                return;
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Takes up what the process has been told of its cluster.
    #[inline]
    fn follow_cluster(&mut self) {
        let news = self.shared.cluster.news();
        if self.news == news {
            return;
        }
        self.news = news;
        let view = self.shared.cluster.view();
        let known = self.links.routing().map(Routing::view);
        if let Some(view) = view
            && !known.is_some_and(|known| Arc::ptr_eq(known, &view))
        {
            self.links.follow(view, self.now_us, &mut self.clients);
        }
        let refreshes = self.shared.cluster.refreshes();
        if self.refreshes != refreshes {
            self.refreshes = refreshes;
            self.links.refresh();
        }
    }

    /// Carries out what other nodes sent back to this one.
    fn run_errands(&mut self) {
        while let Some(id) = self.links.next_errand() {
            let link = &*self.shared.link;
            errand::run(id, link, &mut self.links, self.now, self.now_us, &mut self.clients);
        }
    }

    fn unqueued(&mut self, key: usize) {
        if let Some(connection) = self.clients.connections.get_mut(key) {
            connection.is_queued = false;
            connection.is_late = false;
        }
    }

    /// Gives the caches that were used too fast what they may use by now.
    fn serve_held(&mut self) {
        for cache in self.clients.due_caches(self.now_us) {
            // Ends when all have had their turn, or one of them has used up what there was.
            while let Some(key) = self.clients.next_due(cache, self.now_us) {
                self.turn_or_wait(key);
            }
        }
    }

    fn timeout(&self, housekeeping_left: bool) -> Duration {
        let doors = [&self.plain, &self.tls];
        let accepting = doors.into_iter().flatten().any(|d| d.ready && d.rests_until.is_none());
        let waiting =
            !self.clients.again.is_empty() || self.clients.are_late() || self.sockets.have_more();
        if housekeeping_left || accepting || waiting {
            return Duration::ZERO;
        }
        let mut until = self.next_sweep;
        let wakes = [self.links.next_wake(self.now_us), self.clients.held_until()];
        if let Some(wake) = wakes.into_iter().flatten().min() {
            until = until.min(self.started + Duration::from_micros(wake));
        }
        for rests_until in doors.into_iter().flatten().filter_map(|door| door.rests_until) {
            until = until.min(rests_until);
        }
        // By the length of this round too long, which is far less than anything here waits for.
        until.saturating_duration_since(self.woke)
    }

    fn take(&mut self, event: &Event) {
        match event.token() {
            WAKE => (), // The flags it announces are read every round.
            PLAIN => mark_ready(&mut self.plain),
            TLS => mark_ready(&mut self.tls),
            token @ Token(LINKS_FROM..) => {
                let now = self.now_us;
                let sockets = &mut self.sockets;
                let bytes = sockets.ready(token, event, &mut self.links, now, &mut self.clients);
                self.clients.round.charge_bytes(bytes as u64);
            }
            Token(key) => {
                let is_ended = event.is_read_closed() || event.is_error();
                let hung_up = match is_ended {
                    true => self.clients.hung_up(key, self.now_us),
                    false => HungUp::Serve,
                };
                if hung_up == HungUp::Close {
                    return self.close(key);
                }
                let Some(connection) = self.clients.connections.get_mut(key) else { return };
                if event.is_readable() || is_ended {
                    connection.became_readable(is_ended);
                    if self.sampling.is_next() {
                        connection.time_from(nanoseconds(self.woke.duration_since(self.started)));
                    }
                }
                // Whoever has just been accepted may be written to, and has nothing to hear.
                if !event.is_readable() && !is_ended && !connection.may_have_to_write() {
                    return;
                }
                match hung_up {
                    HungUp::InVain(cache) => self.turn(key, Some(cache)),
                    HungUp::Serve | HungUp::Close => self.turn_or_wait(key),
                }
            }
        }
    }

    #[inline]
    fn turn_or_wait(&mut self, key: usize) {
        if self.clients.may_go(key, self.now_us) {
            self.turn(key, None);
        }
    }

    /// One connection's turn. `late` is its cache if it has waited for it.
    fn turn(&mut self, key: usize, late: Option<CacheId>) {
        let now_ms = self.now_ms();
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let serial = connection.serial();
        let was_stranger = connection.is_stranger();
        let shared = &*self.shared;
        let mut context = Turn {
            link: &*shared.link,
            directory: &shared.directory,
            usage: &shared.usage,
            access: shared.settings.access,
            from: connection.from(),
            now: self.now,
            output_bytes_max: shared.settings.output_bytes_max,
            routing: self.links.routing(),
            outbox: &mut self.outbox,
            now_us: self.now_us,
            nobody_listens: false,
            operations: 0,
            bytes: 0,
        };
        let held_before = connection.input_bytes_held();
        // The last wall: should a promise of ours be broken, it costs this connection only.
        let after = catch_unwind(AssertUnwindSafe(|| {
            connection.turn(&mut self.scratch, &mut context, now_ms)
        }));
        if let Some(since) = connection.take_timed() {
            let until = nanoseconds(self.started.elapsed());
            shared.usage.latency.note(until.saturating_sub(since));
        }
        let (operations, bytes) = (context.operations, context.bytes);
        self.clients.charge(Done { late, was_stranger, operations, bytes });
        let Some(connection) = self.clients.connections.get(key) else { return };
        let held_after = connection.input_bytes_held();
        self.input_bytes_held = self.input_bytes_held + held_after - held_before;
        match after {
            Ok(After::Rest) if held_before < held_after && self.input_is_full() => {
                warn!(limit = "input_bytes_max", "connection closed: too many half requests");
                self.close(key);
            }
            Ok(After::Rest) => (),
            Ok(After::Again) => self.clients.queue(key),
            Ok(After::Hold { until }) => self.clients.hold(key, until, self.now_us),
            Ok(After::Close) => self.close(key),
            Err(_) => {
                error!("connection closed: a request broke an invariant (see the panic above)");
                self.scratch = Scratch::new();
                self.close(key);
            }
        }
        // Also those of a connection that is gone: what it asked for is still to be done.
        if !self.outbox.is_empty() {
            for outgoing in self.outbox.drain() {
                self.links.submit(key, serial, outgoing, self.now_us, &mut self.clients);
            }
        }
    }

    fn input_is_full(&self) -> bool {
        let settings = &self.shared.settings;
        settings.input_bytes_max / settings.threads < self.input_bytes_held
    }

    fn close(&mut self, key: usize) {
        let mut connection = self.clients.connections.remove(key);
        self.clients.forget(key, &connection);
        self.input_bytes_held -= connection.input_bytes_held();
        // Closing the descriptor takes it out of epoll as well; this keeps mio's books.
        drop(self.poll.registry().deregister(connection.transport().socket()));
    }

    fn accept(&mut self) {
        let now = self.woke;
        let most = self.clients.accepts_max(self.now_us);
        for secure in [false, true] {
            let door = if secure { &mut self.tls } else { &mut self.plain };
            let Some(door) = door else { continue };
            if door.rests_until.is_some_and(|until| until <= now) {
                door.rests_until = None;
            }
            if !door.ready || door.rests_until.is_some() {
                continue;
            }
            for _ in 0..most {
                let door = if secure { &mut self.tls } else { &mut self.plain };
                let Some(door) = door else { break };
                match door.listener.accept() {
                    Ok((socket, from)) => {
                        self.clients.round.charge_accept();
                        self.welcome(socket, from.ip(), secure);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        door.ready = false;
                        break;
                    }
                    // The peer was gone before it was its turn.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => (),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                    Err(error) => {
                        // Out of descriptors or memory: those who are in go on, the rest wait.
                        warn!(error = &error as &dyn std::error::Error, "cannot accept");
                        door.rests_until = Some(now + ACCEPT_REST);
                        break;
                    }
                }
            }
        }
    }

    fn welcome(&mut self, mut socket: TcpStream, from: IpAddr, secure: bool) {
        let shared = &self.shared;
        let mut turn_away = |why: &[u8]| {
            if !secure {
                // A fresh socket takes a line; whether the client reads it is its affair.
                drop(socket.write(why));
            }
        };
        if !shared.directory.rules().admit(from, None, self.now.unix.unsigned_abs()) {
            shared.usage.connections_blocked_total.fetch_add(1, Relaxed);
            return turn_away(BLOCKED);
        }
        let permit = shared.usage.enter(shared.settings.connections_max, Some(from));
        let Some(permit) = permit else { return turn_away(TOO_MANY) };
        let transport = match &shared.tls {
            Some(tls) if secure => Transport::tls(socket, tls.config()),
            _ => Ok(Transport::plain(socket)),
        };
        let Ok(mut transport) = transport else { return };
        let now_ms = self.now_us / 1_000;
        let entry = self.clients.connections.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered =
            self.poll.registry().register(transport.socket(), Token(entry.key()), interest);
        if registered.is_ok() {
            self.connections_total += 1;
            entry.insert(Connection::new(transport, permit, self.connections_total, now_ms));
        }
    }

    /// Closes who has waited too long, whose credential is gone, and whose address is blocked.
    fn sweep(&mut self) {
        self.next_sweep = Instant::now() + SWEEP_EVERY;
        let draining = self.drain_until.is_some();
        let mut overdue = Vec::new();
        let mut closing = Vec::new();
        let mut blocked = 0_u64;
        let (now_ms, now) = (self.now_ms(), self.now.unix.unsigned_abs());
        let rules = self.rules_to_look_by();
        for (key, connection) in &mut self.clients.connections {
            if connection.is_overdue(&self.shared.settings, now_ms) {
                overdue.push(key);
            } else if rules.as_ref().is_some_and(|rules| connection.is_blocked(rules, now)) {
                // At once: what it still has coming is nothing that it should get.
                overdue.push(key);
                blocked += 1;
            } else if connection.is_revoked() || (draining && connection.is_at_rest()) {
                connection.begin_to_close();
                closing.push(key);
            }
        }
        for key in closing {
            self.clients.queue(key);
        }
        for key in overdue {
            self.close(key);
        }
        if 0 < blocked {
            self.shared.usage.connections_blocked_total.fetch_add(blocked, Relaxed);
            info!(connections = blocked, "connections closed: their addresses are blocked now");
        }
    }

    /// The rules, if open connections may fare otherwise by them than when they were looked at last:
    /// because others have come, or because in another second one may have ended.
    fn rules_to_look_by(&mut self) -> Option<Arc<Rules>> {
        let rules = self.shared.directory.rules();
        let are_others = !Arc::ptr_eq(&rules, &self.rules);
        let is_later = self.now.unix != self.rules_looked_at;
        self.rules = Arc::clone(&rules);
        self.rules_looked_at = self.now.unix;
        (!rules.is_empty() && (are_others || is_later)).then_some(rules)
    }

    /// No new connections; those at rest are closed, the others finish what they began.
    fn begin_to_drain(&mut self) {
        self.drain_until = Some(Instant::now() + self.shared.settings.drain_timeout);
        self.plain = None;
        self.tls = None;
        // In the next round, which begins at once: a request of which something has arrived, though
        // nothing was read yet, is one that was begun.
        self.next_sweep = self.woke;
    }

    fn is_drained(&self) -> bool {
        self.drain_until
            .is_some_and(|until| self.clients.connections.is_empty() || until <= Instant::now())
    }
}

/// 584 years fit.
fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn mark_ready(door: &mut Option<Door>) {
    if let Some(door) = door {
        door.ready = true;
    }
}
