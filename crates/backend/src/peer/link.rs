//! One link from a proxy's event loop to a member of this node: its bytes, and whose they are.

use std::io;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tracing::warn;
use webpki::EndEntityCert;
use wire::control::name::{ClusterId, NodeName};
use wire::data::frame::Seal;
use wire::data::handshake::{Greeting, Hello, Refused, VERSION_MAX, VERSION_MIN, Welcome};

use crate::Backend;
use crate::callers::Caller;
use crate::peer::socket::Socket;
use crate::slots::Standing;

/// Time for a caller to say who it is.
const HANDSHAKE_MS: u64 = 5_000;
/// Silence after which a link is given up: a proxy pings every fifteen seconds.
const SILENCE_MS: u64 = 60_000;
/// How long replies may wait for a proxy that takes none.
const STALL_MS: u64 = 10_000;
/// Replies that may wait for a proxy to take them; beyond, its requests are refused as busy, which
/// costs a few bytes each, and nothing more is read from it.
pub(super) const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Bytes written to a link in one turn, if there are more: 0.2 ms or so, most of it the kernel's. It is about
/// what a turn can add, so that replies do not pile up where their caches have no turns any more.
const WRITE_BYTES: usize = 512 * 1024;
/// Memory for replies that a link keeps at rest.
const OUTPUT_BYTES_KEPT: usize = 64 * 1024;

pub(super) struct Link {
    pub(super) socket: Socket,
    /// Whom the proxy wanted; `None` until the handshake is done.
    pub(super) member: Option<Arc<Backend>>,
    /// Counts this link among those of its node.
    caller: Option<Caller>,
    pub(super) seal: Seal,
    /// Half a frame. Empty at rest.
    pub(super) input: Vec<u8>,
    /// Length that `input` must have before there is more to decode.
    pub(super) wanted: usize,
    /// Replies; the first `written` bytes the proxy has.
    pub(super) output: Vec<u8>,
    written: usize,
    /// Whether the socket may hold bytes that were not read; epoll says so only once.
    pub(super) readable: bool,
    /// Stands in the loop's list of links that may have something to write.
    pub(super) touched: bool,
    /// The proxy writes no more. The kernel has said so once, perhaps together with the last bytes, so
    /// reading goes on until the end is read.
    pub(super) is_ended: bool,
    /// Says the last words, then closes.
    pub(super) closing: bool,
    /// The process stood still for so long, and what comes may have waited as long in the socket.
    pub(super) stood_still_ms: u64,
    heard_ms: u64,
    stalled_ms: Option<u64>,
    /// Tells this link from another one that had its place in the table before.
    pub(super) number: u64,
}

/// What became of replies that waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    All,
    /// The proxy takes no more now.
    Some,
    /// The proxy might take more, but it is the others' turn.
    Enough,
}

impl Link {
    pub(super) fn new(socket: Socket, number: u64, now_ms: u64) -> Self {
        Link {
            socket,
            member: None,
            caller: None,
            seal: Seal::Checksum,
            input: Vec::new(),
            wanted: 0,
            output: Vec::new(),
            written: 0,
            readable: true,
            touched: false,
            is_ended: false,
            closing: false,
            stood_still_ms: 0,
            heard_ms: now_ms,
            stalled_ms: None,
            number,
        }
    }

    /// Reads into `scratch`: once, or under TLS as much as there is. `Ok(None)`: nothing there now.
    pub(super) fn read(&mut self, scratch: &mut [u8], now_ms: u64) -> io::Result<Option<usize>> {
        let mut filled = 0;
        loop {
            match self.socket.read(&mut scratch[filled..]) {
                Ok(0) if filled == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                // What came before the end is served first.
                Ok(0) => {
                    self.readable = true;
                    return Ok(Some(filled));
                }
                Ok(read) => {
                    self.heard_ms = now_ms;
                    filled += read;
                    // A short read means that the socket is empty; the kernel tells when it is not.
                    self.readable = self.is_ended || filled == scratch.len();
                    if self.readable || self.socket.short_read_means_empty() {
                        return Ok(Some(filled));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok((0 < filled).then_some(filled));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what there is, up to a turn's worth; in one call when the proxy takes it.
    pub(super) fn write(&mut self, now_ms: u64) -> io::Result<Written> {
        let end = self.output.len().min(self.written + WRITE_BYTES);
        while self.written < end {
            match self.socket.write(&self.output[self.written..end]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.written += written;
                    self.stalled_ms = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.stalled_ms.get_or_insert(now_ms);
                    return Ok(Written::Some);
                }
                Err(error) => return Err(error),
            }
        }
        if end < self.output.len() {
            // Else what was written would stay for as long as something waits.
            if self.output.len() < 2 * self.written {
                self.output.drain(..self.written);
                self.written = 0;
            }
            return Ok(Written::Enough);
        }
        if !self.socket.flush()? {
            self.stalled_ms.get_or_insert(now_ms);
            return Ok(Written::Some);
        }
        self.stalled_ms = None;
        self.written = 0;
        self.output.clear();
        self.output.shrink_to(OUTPUT_BYTES_KEPT);
        Ok(Written::All)
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether the proxy is so far behind that nothing more is read from it.
    pub(super) fn is_full(&self) -> bool {
        OUTPUT_BYTES_MAX < self.output.len() - self.written
    }

    pub(super) fn is_overdue(&self, now_ms: u64) -> bool {
        let patience = if self.member.is_some() { SILENCE_MS } else { HANDSHAKE_MS };
        self.heard_ms + patience < now_ms
            || self.stalled_ms.is_some_and(|since| since + STALL_MS < now_ms)
    }

    /// Whether nothing was heard for a while, so that a stopping server may close it.
    pub(super) fn is_quiet(&self, now_ms: u64, for_ms: u64) -> bool {
        !self.has_output() && self.heard_ms + for_ms <= now_ms
    }

    /// Answers a caller. It is let in, or told why not.
    pub(super) fn greet(&mut self, hello: &Hello, cluster: ClusterId, members: &[Arc<Backend>]) {
        let certificate = self.socket.peer_certificate();
        let greeting = match admit(hello, cluster, members, certificate) {
            Ok((member, version, standing)) => {
                // Counted before it is answered: an epoch without the caller's node is either known by
                // now, or not prepared here while the link lives.
                self.caller = Some(member.callers.note(&hello.from));
                let without = member.slots().without(&hello.from, hello.from_incarnation);
                let welcome = Welcome {
                    version,
                    epoch: standing.epoch,
                    digest: standing.digest,
                    without_caller: Some(without),
                };
                self.member = Some(member);
                Greeting::Welcome(welcome)
            }
            Err(refused) => {
                warn!(
                    node.name = %hello.from,
                    member.name = %hello.to,
                    error = &refused as &dyn std::error::Error,
                    "link refused"
                );
                self.closing = true;
                Greeting::Refused(refused)
            }
        };
        greeting.encode(&mut self.output);
    }

    pub(super) fn refuse(&mut self, refused: Refused) {
        Greeting::Refused(refused).encode(&mut self.output);
        self.closing = true;
    }
}

/// Whether a caller is right here, with whom, and in which version the two go on.
fn admit(
    hello: &Hello,
    cluster: ClusterId,
    members: &[Arc<Backend>],
    certificate: Option<&CertificateDer<'_>>,
) -> Result<(Arc<Backend>, u8, Standing), Refused> {
    let Some(version) = hello.version() else {
        return Err(Refused::Version { min: VERSION_MIN, max: VERSION_MAX });
    };
    if hello.cluster != cluster {
        return Err(Refused::Cluster);
    }
    if certificate.is_some_and(|certificate| node_of(certificate).as_ref() != Some(&hello.from)) {
        return Err(Refused::Certificate);
    }
    let standings =
        || members.iter().filter_map(|member| Some((member, member.slots().standing()?)));
    let Some((member, standing)) = standings().find(|(_, found)| found.run.name == hello.to) else {
        // A node without members does not listen.
        let here = standings().next().map_or_else(|| hello.to.clone(), |(_, found)| found.run.name);
        return Err(Refused::Member { here });
    };
    if standing.run.incarnation != hello.to_incarnation {
        return Err(Refused::Incarnation { here: standing.run.incarnation });
    }
    // A member that was told of no topology yet cannot say; it refuses all requests anyway.
    if standing.slot_fingerprint.is_some_and(|fingerprint| fingerprint != hello.slot_fingerprint) {
        return Err(Refused::SlotKey);
    }
    Ok((Arc::clone(member), version, standing))
}

/// The node that a certificate names. That it is of the cluster's authority, TLS has seen to.
fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeName> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    parsed.valid_dns_names().find_map(NodeName::from_certificate_name)
}
