//! What a proxy is told when it starts. Defaults and their reasons are in `daemon::settings`.

use std::net::SocketAddr;
use std::time::Duration;

use tenancy::id::CacheId;

pub use crate::links::LinkSettings;

/// How a proxy serves.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Address of the plain listener. Port 0 lets the system choose.
    pub listen: Option<SocketAddr>,
    /// Address of the TLS listener.
    pub tls_listen: Option<SocketAddr>,
    /// Event loops, one thread each.
    pub threads: usize,
    /// How long an event loop may look for news without sleeping; zero: not at all.
    pub spin: Duration,
    /// Whether clients must prove who they are, or all use one cache.
    pub access: Access,
    /// How long a connection may stay without authenticating.
    pub authentication_timeout: Duration,
    /// How long half a request, or an unread answer, may wait for its other half.
    pub request_timeout: Duration,
    /// How long an authenticated connection may be silent; `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// How long clients may take to finish what they began when the process is asked to stop.
    pub drain_timeout: Duration,
    /// Open connections of the whole process.
    pub connections_max: usize,
    /// Answers that one connection may leave unread before nothing more is read from it, in bytes.
    pub output_bytes_max: usize,
    /// Half-received requests of the whole process, in bytes.
    pub input_bytes_max: usize,
    /// How the backends of other nodes are asked.
    pub links: LinkSettings,
}

/// Who may use the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A connection belongs to the cache of the credential it shows.
    Credentials,
    /// Everyone uses this cache, with every capability: for development on one's own machine.
    Everyone(CacheId),
}
