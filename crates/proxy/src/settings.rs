//! What a proxy is told when it starts, each default beside its reason.

use std::net::SocketAddr;
use std::time::Duration;

use tenancy::id::CacheId;

/// How a proxy serves. [`ProxySettings::new`] fills in the defaults.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Addresses of the plain listener; empty for none. Port 0 lets the system choose.
    pub listen: Option<SocketAddr>,
    /// Address of the TLS listener.
    pub tls_listen: Option<SocketAddr>,
    /// Event loops, one thread each.
    pub threads: usize,
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
}

/// Who may use the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A connection belongs to the cache of the credential it shows.
    Credentials,
    /// Everyone uses this cache, with every capability: for development on one's own machine.
    Everyone(CacheId),
}

impl ProxySettings {
    pub fn new(access: Access) -> Self {
        ProxySettings {
            listen: None,
            tls_listen: None,
            threads: 1,
            access,
            // MemCachier closes "within a few seconds"; clients' own connect time-outs are below 5.
            authentication_timeout: Duration::from_secs(5),
            // Longer than the send and receive time-outs of every client we know.
            request_timeout: Duration::from_secs(30),
            // Pools keep connections for hours; keep-alive finds dead peers much earlier.
            idle_timeout: Some(Duration::from_secs(24 * 3600)),
            // A load balancer's or service manager's patience is usually 30 seconds.
            drain_timeout: Duration::from_secs(10),
            connections_max: 10_000,
            // Several of the largest values, and a bound on what one deaf client can hold.
            output_bytes_max: 4 * 1024 * 1024,
            // Hundreds of largest values on their way in at once.
            input_bytes_max: 512 * 1024 * 1024,
        }
    }
}
