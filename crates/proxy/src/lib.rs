//! The front door: takes client connections, authenticates them, and carries their requests to
//! whoever holds the items.
//!
//! ```text
//!   listener ── accept, permit ──▶ connection ── bytes ──▶ session ── operations ──▶ link
//!   (one per loop,                 (buffers, TLS,          (decode, admit,          (a backend of
//!    SO_REUSEPORT)                  time-outs)              answer; no I/O)          this process)
//!                                                              │      ▲
//!                                                       outbox ▼      │ answers, in order
//!                                                            links ◀──┴──▶ backends of other nodes
//! ```
//!
//! One event loop per thread ([`event_loop`]); a connection stays with the loop that accepted it.
//! A proxy holds no item and knows no dialect: the first is behind [`link::BackendLink`], the second
//! in the `protocol` crate. Which backend owns a key is in the [`view::ClusterView`] it was given; it
//! never works out another one by itself.

mod answers;
mod clients;
pub mod cluster_handle;
mod connection;
mod errand;
mod event_loop;
pub mod latency;
pub mod link;
mod link_sockets;
pub mod link_usage;
mod links;
mod listener;
#[cfg(feature = "simulation")]
pub mod measured;
mod origins;
mod outbox;
pub mod recent;
mod round;
mod routing;
mod session;
pub mod settings;
#[cfg(feature = "simulation")]
pub mod simulated;
mod spares;
mod spin;
mod statistics;
pub mod tls;
mod transport;
pub mod usage;
pub mod view;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::thread::JoinHandle;

use daemon::clock::Clock;
use mio::{Poll, Waker};
use tenancy::directory::Directory;

use crate::cluster_handle::ClusterHandle;
use crate::event_loop::{EventLoop, Shared};
use crate::link::BackendLink;
use crate::settings::ProxySettings;
use crate::tls::Tls;
use crate::usage::ProxyUsage;

/// A running proxy. Dropping it does not stop it; [`Proxy::drain`] does.
pub struct Proxy {
    plain_address: Option<SocketAddr>,
    tls_address: Option<SocketAddr>,
    loops: Vec<JoinHandle<()>>,
    stopper: Stopper,
}

/// Asks a proxy to stop; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Stopper(Arc<dyn Fn() + Send + Sync>);

impl Stopper {
    /// No new connections; open ones finish what they began, within the drain time-out.
    pub fn drain(&self) {
        (self.0)();
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start an event loop")]
    Loop(#[from] io::Error),
}

impl Proxy {
    /// Opens the listeners and starts the event loops.
    ///
    /// # Errors
    /// An address cannot be listened on, or the system refuses a thread or a poller.
    pub fn start<L: BackendLink>(
        settings: ProxySettings,
        tls: Option<Tls>,
        directory: Arc<Directory>,
        link: Arc<L>,
        usage: Arc<ProxyUsage>,
        clock: Clock,
        cluster: ClusterHandle,
    ) -> Result<Proxy, StartError> {
        let threads = settings.threads;
        let (plain_address, mut plain) = listen(settings.listen, threads)?;
        let (tls_address, mut secure) = listen(settings.tls_listen, threads)?;
        let stopping = AtomicBool::new(false);
        let seed = RandomState::new().hash_one(threads);
        let handle = cluster.clone();
        let shared = Arc::new(Shared {
            settings,
            link,
            directory,
            usage,
            clock,
            tls,
            stopping,
            cluster,
            started: std::time::Instant::now(),
            seed,
        });
        let mut loops = Vec::new();
        let mut wakers = Vec::new();
        for index in 0..threads {
            let poll = Poll::new()?;
            wakers.push(Waker::new(poll.registry(), event_loop::WAKE)?);
            let event_loop =
                EventLoop::new(Arc::clone(&shared), poll, plain.pop(), secure.pop(), index)?;
            let thread = std::thread::Builder::new().name(format!("proxy-{index}"));
            loops.push(thread.spawn(|| event_loop.run())?);
        }
        handle.set_wakers(wakers)?;
        let stopper = Stopper(Arc::new(move || {
            shared.stopping.store(true, Release);
            shared.cluster.wake_all();
        }));
        Ok(Proxy { plain_address, tls_address, loops, stopper })
    }

    /// Where plain connections are taken; the real port where 0 was asked for.
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.plain_address
    }

    /// Where TLS connections are taken.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Waits until every event loop has ended, which they do after [`Stopper::drain`].
    pub fn join(self) {
        for thread in self.loops {
            // A loop that panicked has said so on its way; the others are still worth waiting for.
            drop(thread.join());
        }
    }
}

type Listeners = Vec<mio::net::TcpListener>;

fn listen(
    address: Option<SocketAddr>,
    loops: usize,
) -> Result<(Option<SocketAddr>, Listeners), StartError> {
    let Some(address) = address else { return Ok((None, Vec::new())) };
    let failed = |source| StartError::Listen { address, source };
    let listeners = listener::bind(address, loops).map_err(failed)?;
    let bound = listeners[0].local_addr().map_err(failed)?;
    Ok((Some(bound), listeners))
}
