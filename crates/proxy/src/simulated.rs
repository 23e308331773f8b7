//! One event loop of a proxy in a simulation: the same connections, links and errands, with the
//! kernel and the time played by others.
//!
//! What stands in [`crate::event_loop`] and needs sockets is done here with streams of memory; all
//! that decides anything is the real thing.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use daemon::clock::Now;
use daemon::memory_stream::MemoryStream;
use mio::{Poll, Waker};
use tenancy::directory::Directory;
use wire::data::frame::Seal;

use crate::clients::Clients;
use crate::cluster_handle::ClusterHandle;
use crate::connection::{After, Connection, Scratch};
use crate::errand;
use crate::event_loop::WAKE;
use crate::link::BackendLink;
use crate::links::{Dial, LinkFault, LinkId, Links};
use crate::outbox::Outbox;
use crate::routing::Routing;
use crate::session::Turn;
use crate::settings::ProxySettings;
use crate::transport::Transport;
use crate::usage::ProxyUsage;

/// A proxy of one loop.
pub struct SimulatedProxy<L: BackendLink> {
    settings: ProxySettings,
    directory: Arc<Directory>,
    backends: Arc<L>,
    usage: Arc<ProxyUsage>,
    cluster: ClusterHandle,
    clients: Clients<L>,
    connections_total: u64,
    links: Links,
    /// Connections to other nodes, by the number under which the simulator knows them.
    sockets: BTreeMap<u64, LinkSocket>,
    numbers: u64,
    news: u64,
    outbox: Outbox,
    scratch: Scratch,
    /// Never asked anything; a waker needs one.
    _poll: Poll,
}

struct LinkSocket {
    id: LinkId,
    /// What it is written to; what comes is brought by the simulator.
    stream: Option<MemoryStream>,
    /// Half a frame.
    input: Vec<u8>,
}

/// One client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey {
    key: usize,
    serial: u64,
}

/// What the proxy wants of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Connect to this address, and tell of it under this number.
    Dial { number: u64, address: SocketAddr },
    /// Close the connection.
    Close { number: u64 },
}

impl<L: BackendLink> SimulatedProxy<L> {
    /// # Errors
    /// The system refuses a poller.
    pub fn new(
        settings: ProxySettings,
        directory: Arc<Directory>,
        backends: Arc<L>,
        usage: Arc<ProxyUsage>,
        cluster: ClusterHandle,
        seed: u64,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        cluster.set_wakers(vec![Waker::new(poll.registry(), WAKE)?])?;
        let counts = Arc::clone(cluster.usage());
        let links = Links::new(settings.links, Seal::Checksum, counts, seed);
        Ok(SimulatedProxy {
            settings,
            directory,
            backends,
            usage,
            cluster,
            clients: Clients::new(),
            connections_total: 0,
            links,
            sockets: BTreeMap::new(),
            numbers: 0,
            news: 0,
            outbox: Outbox::default(),
            scratch: Scratch::new(),
            _poll: poll,
        })
    }

    /// A client connects. `None` when there are too many.
    pub fn accept(&mut self, stream: MemoryStream, now_us: u64) -> Option<ClientKey> {
        let permit = self.usage.enter(self.settings.connections_max, None)?;
        self.connections_total += 1;
        let serial = self.connections_total;
        let transport = Transport::Memory(stream);
        let connection = Connection::new(transport, permit, serial, now_us / 1_000);
        Some(ClientKey { key: self.clients.connections.insert(connection), serial })
    }

    /// Bytes, or the end, have come from a client. [`SimulatedProxy::turn`] follows.
    pub fn client_readable(&mut self, client: ClientKey, is_ended: bool) {
        if let Some(connection) = self.clients.connections.get_mut(client.key)
            && connection.serial() == client.serial
        {
            connection.became_readable(is_ended);
            self.clients.queue(client.key);
        }
    }

    /// A connection that was wished for stands.
    pub fn link_connected(&mut self, number: u64, stream: MemoryStream) {
        if let Some(socket) = self.sockets.get_mut(&number) {
            socket.stream = Some(stream);
            self.links.connected(socket.id);
        }
    }

    /// Bytes came on a link.
    ///
    /// Returns `false` when the link was closed because of them.
    pub fn link_received(&mut self, number: u64, bytes: &[u8], now_us: u64) -> bool {
        let Some(socket) = self.sockets.get_mut(&number) else { return false };
        socket.input.extend_from_slice(bytes);
        let id = socket.id;
        match self.links.received(id, &socket.input, now_us, &mut self.clients) {
            Ok(consumed) => {
                socket.input.drain(..consumed);
                true
            }
            Err(fault) => {
                if matches!(fault, LinkFault::Stray | LinkFault::Frame(_)) {
                    self.links.note_poisoned(id);
                }
                self.link_lost(number, now_us);
                false
            }
        }
    }

    /// A link was lost, or could not be made.
    pub fn link_lost(&mut self, number: u64, now_us: u64) {
        if let Some(socket) = self.sockets.remove(&number) {
            self.links.lost(socket.id, now_us, &mut self.clients);
        }
    }

    /// One round of the loop: everything that is due, and a turn for every client that has something
    /// to do. `sweep` looks at all connections for time-outs.
    pub fn turn(&mut self, now: Now, now_us: u64, sweep: bool) -> Vec<Wish> {
        self.follow_cluster(now_us);
        self.links.tick(now_us, &mut self.clients);
        self.run_errands(now, now_us);
        for cache in self.clients.due_caches(now_us) {
            while let Some(key) = self.clients.next_due(cache, now_us) {
                self.clients.queue(key);
            }
        }
        while let Some(key) = self.clients.again.pop_front() {
            if let Some(connection) = self.clients.connections.get_mut(key) {
                connection.is_queued = false;
                self.turn_of(key, now, now_us);
            }
            self.run_errands(now, now_us);
        }
        if sweep {
            self.sweep(now_us / 1_000);
            self.backends.maintain(now);
        }
        self.work(now_us)
    }

    fn follow_cluster(&mut self, now_us: u64) {
        let news = self.cluster.news();
        if self.news == news {
            return;
        }
        self.news = news;
        let known = self.links.routing().map(Routing::view);
        if let Some(view) = self.cluster.view()
            && !known.is_some_and(|known| Arc::ptr_eq(known, &view))
        {
            self.links.follow(view, now_us, &mut self.clients);
        }
    }

    fn run_errands(&mut self, now: Now, now_us: u64) {
        while let Some(id) = self.links.next_errand() {
            errand::run(id, &*self.backends, &mut self.links, now, now_us, &mut self.clients);
        }
    }

    fn turn_of(&mut self, key: usize, now: Now, now_us: u64) {
        let Some(connection) = self.clients.connections.get_mut(key) else { return };
        let serial = connection.serial();
        let mut context = Turn {
            link: &*self.backends,
            directory: &self.directory,
            usage: &self.usage,
            access: self.settings.access,
            from: None,
            now,
            output_bytes_max: self.settings.output_bytes_max,
            routing: self.links.routing(),
            outbox: &mut self.outbox,
            now_us,
            nobody_listens: false,
            operations: 0,
            bytes: 0,
        };
        match connection.turn(&mut self.scratch, &mut context, now_us / 1_000) {
            After::Rest => (),
            After::Again => self.clients.queue(key),
            After::Hold { until } => self.clients.hold(key, until, now_us),
            After::Close => drop(self.clients.connections.remove(key)),
        }
        for outgoing in self.outbox.drain() {
            self.links.submit(key, serial, outgoing, now_us, &mut self.clients);
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        let settings = &self.settings;
        let mut closing = Vec::new();
        self.clients.connections.retain(|key, connection| {
            if !connection.is_overdue(settings, now_ms) && connection.is_revoked() {
                connection.begin_to_close();
                closing.push(key);
            }
            !connection.is_overdue(settings, now_ms)
        });
        closing.into_iter().for_each(|key| self.clients.queue(key));
    }

    /// Closes, connects, writes.
    fn work(&mut self, now_us: u64) -> Vec<Wish> {
        let mut wishes = Vec::new();
        while let Some(id) = self.links.next_gone() {
            let of_id = self.sockets.iter().find(|(_, socket)| socket.id == id);
            if let Some((&number, _)) = of_id {
                self.sockets.remove(&number);
                wishes.push(Wish::Close { number });
            }
        }
        while let Some(Dial { id, address, .. }) = self.links.next_dial(now_us) {
            self.numbers += 1;
            let socket = LinkSocket { id, stream: None, input: Vec::new() };
            self.sockets.insert(self.numbers, socket);
            wishes.push(Wish::Dial { number: self.numbers, address });
        }
        while let Some(id) = self.links.next_dirty() {
            let socket = self.sockets.values_mut().find(|socket| socket.id == id);
            let Some(stream) = socket.and_then(|socket| socket.stream.as_mut()) else {
                continue;
            };
            loop {
                let output = self.links.output(id);
                match io::Write::write(stream, output) {
                    Ok(written) if 0 < written => {
                        self.links.wrote(id, written, now_us, &mut self.clients);
                    }
                    Ok(_) | Err(_) => break,
                }
            }
        }
        wishes
    }

    /// When the next turn is due even if nothing comes, in microseconds of the loop's time.
    pub fn next_wake(&self, now_us: u64) -> Option<u64> {
        if !self.clients.again.is_empty() {
            return Some(now_us);
        }
        let wakes = [self.links.next_due(now_us), self.clients.held_until()];
        wakes.into_iter().flatten().min()
    }

    pub fn counts(&self) -> Counts {
        Counts { requests: self.links.requests_under_way(), connections: self.connections() }
    }

    fn connections(&self) -> usize {
        self.clients.connections.len()
    }
}

/// What a proxy holds at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests on their way to other nodes, and their bytes.
    pub requests: (usize, usize),
    pub connections: usize,
}
