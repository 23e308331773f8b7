//! Takes requests from the proxies of other nodes.
//!
//! ```text
//!   listener ── accept ─▶ link: TLS if asked for, handshake names a member ─▶ frames
//!                           │                                 │ at once, or when its cache has its turn
//!                           │                                 ▼
//!                           │                              execute: is the slot ours? ─▶ store
//!                           ◀──────────── replies, one write per turn of the loop ───────┘
//! ```
//!
//! One thread per event loop; a link stays with the loop that accepted it. Nothing is answered in an
//! order but that of each cache on each link: replies carry the id of their request.
//!
//! What keeps one tenant's flood from another's requests is [`fair`]; what each thing is bounded by
//! stands beside it, in [`link`] and [`event_loop`].

mod event_loop;
mod execute;
mod fair;
mod link;
mod parked;
#[cfg(feature = "simulation")]
pub mod simulated;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Release};
use std::thread::JoinHandle;
use std::time::Duration;

use daemon::clock::Clock;
use mio::{Poll, Waker};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use wire::control::name::ClusterId;

use crate::Backend;
use crate::peer::event_loop::{EventLoop, WAKE};

/// Links that may wait to be accepted: every loop of every node may call at once.
const BACKLOG: i32 = 1024;

/// How links are secured.
#[derive(Debug, Clone)]
pub struct PeerTls {
    /// Demands certificates of the cluster's authority, and shows this node's as it is now.
    pub config: Arc<ServerConfig>,
    /// Whoever does not speak TLS is refused. Otherwise they may come without, while a cluster changes
    /// over.
    pub is_required: bool,
}

#[derive(Debug, Clone)]
pub struct PeerSettings {
    /// Where proxies of other nodes call; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Event loops.
    pub threads: usize,
    pub cluster: ClusterId,
    /// `None`: links are plain.
    pub tls: Option<PeerTls>,
    /// Time for what has been asked to be answered, once the server is told to stop.
    pub drain_timeout: Duration,
}

/// What a server counts; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct PeerUsage {
    /// `peer_links`: links open now, handshakes under way included.
    pub links: AtomicU64,
    /// `peer_requests_total`: requests read.
    pub requests_total: AtomicU64,
    /// `peer_refused_total`: requests refused, for whatever reason; none of them was executed.
    pub refused_total: AtomicU64,
    /// `peer_late_total`: requests that had to wait for their cache's turn.
    pub late_total: AtomicU64,
    /// `peer_links_refused_total`: handshakes refused: wrong member, cluster, version, certificate.
    pub links_refused_total: AtomicU64,
    /// `peer_links_broken_total`: links closed because of bytes that made no sense.
    pub links_broken_total: AtomicU64,
}

/// A running server. Dropping it does not stop it; [`PeerServer::drain`] does.
pub struct PeerServer {
    address: SocketAddr,
    loops: Vec<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
    wakers: Vec<Waker>,
    usage: Arc<PeerUsage>,
}

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("cannot listen for the proxies of other nodes on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start an event loop for the proxies of other nodes")]
    Loop(#[from] io::Error),
}

/// What all loops of a server share.
pub(crate) struct Shared {
    pub(crate) settings: PeerSettings,
    /// The members of this node: [`Backend::member`]s, each found by its name.
    pub(crate) members: Vec<Arc<Backend>>,
    pub(crate) usage: Arc<PeerUsage>,
    pub(crate) clock: Clock,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl PeerServer {
    /// Opens the listener and starts the event loops.
    ///
    /// # Errors
    /// The address cannot be listened on, or the system refuses a thread or a poller.
    pub fn start(
        settings: PeerSettings,
        members: Vec<Arc<Backend>>,
        clock: Clock,
    ) -> Result<Self, PeerError> {
        let address = settings.listen;
        let failed = |source| PeerError::Listen { address, source };
        let first = listen(address).map_err(failed)?;
        let address = first.local_addr().map_err(failed)?;
        let mut listeners = vec![first];
        for _ in 1..settings.threads {
            listeners.push(listen(address).map_err(failed)?);
        }
        let (usage, stopping) = (Arc::<PeerUsage>::default(), Arc::<AtomicBool>::default());
        let shared = Arc::new(Shared {
            settings,
            members,
            usage: Arc::clone(&usage),
            clock,
            stopping: Arc::clone(&stopping),
        });
        let (mut loops, mut wakers) = (Vec::new(), Vec::new());
        for (index, listener) in listeners.into_iter().enumerate() {
            let poll = Poll::new()?;
            wakers.push(Waker::new(poll.registry(), WAKE)?);
            let event_loop = EventLoop::new(Arc::clone(&shared), poll, listener)?;
            let thread = std::thread::Builder::new().name(format!("peer-{index}"));
            loops.push(thread.spawn(|| event_loop.run())?);
        }
        Ok(PeerServer { address, loops, stopping, wakers, usage })
    }

    /// Where proxies call; the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn usage(&self) -> &Arc<PeerUsage> {
        &self.usage
    }

    /// No new links; what comes on the open ones is refused as busy, so that proxies know that
    /// nothing ran; then they are closed.
    pub fn drain(&self) {
        self.stopping.store(true, Release);
        for waker in &self.wakers {
            // Unwoken, a loop sees the flag at its next sweep.
            drop(waker.wake());
        }
    }

    /// Waits until every event loop has ended, which they do after [`PeerServer::drain`].
    pub fn join(self) {
        for thread in self.loops {
            // A loop that panicked has said so on its way; the others are still worth waiting for.
            drop(thread.join());
        }
    }
}

/// One listening socket; several share an address, and the kernel spreads links over them.
fn listen(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}
