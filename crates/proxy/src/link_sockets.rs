//! The sockets under the links: connects them, reads so much of them in a turn, writes them once per turn.
//!
//! Decides nothing. What to connect to, what to write and what a byte means is the business of
//! [`Links`]; here is only what needs the kernel.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls_pki_types::ServerName;
use slab::Slab;
use socket2::SockRef;
use tracing::{debug, warn};

use crate::links::{Dial, LinkFault, LinkId, Links, Micros, Sink};
use crate::tls::LinkTls;
use crate::transport::Transport;

/// Bytes read from one link in a turn, if there are more: replies of a good many requests, and some
/// 0.1 ms. Whoever asked for megabytes shall not keep those waiting who asked another node for a line.
const READ_BYTES: usize = 256 * 1024;

/// How long the kernel sends again to a machine that acknowledges nothing. Well beyond what a lost
/// packet costs, and short enough that a machine that is gone is soon known to be.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct LinkSockets {
    /// `None`: links are plain.
    tls: Option<LinkTls>,
    sockets: Slab<LinkSocket>,
    by_id: HashMap<LinkId, usize>,
    /// Sockets that may have more to read, though the kernel will not say so again.
    again: Vec<usize>,
    scratch: Box<[u8]>,
    /// The first token of these sockets.
    tokens_from: usize,
}

struct LinkSocket {
    id: LinkId,
    transport: Transport,
    is_connected: bool,
    /// There may be bytes to read; the kernel says so only once.
    is_readable: bool,
    /// There are no more than those. That, too, the kernel says once, perhaps together with the last bytes.
    is_ended: bool,
    /// Half a frame.
    input: Vec<u8>,
}

impl LinkSockets {
    pub(crate) fn new(tls: Option<LinkTls>, tokens_from: usize) -> Self {
        LinkSockets {
            tls,
            sockets: Slab::new(),
            by_id: HashMap::new(),
            again: Vec::new(),
            scratch: Box::default(),
            tokens_from,
        }
    }

    /// Something happened to the socket of this token. Returns how many bytes were read.
    pub(crate) fn ready(
        &mut self,
        token: Token,
        event: &Event,
        links: &mut Links,
        now: Micros,
        sink: &mut impl Sink,
    ) -> usize {
        let key = token.0 - self.tokens_from;
        let Some(socket) = self.sockets.get_mut(key) else { return 0 };
        let waits_already = socket.is_readable;
        let outcome = match socket.progress(event, links, now, sink) {
            Ok(()) if !waits_already => socket.read(&mut self.scratch, links, now, sink),
            Ok(()) => return 0,
            Err(end) => Err(end),
        };
        self.after(key, outcome, links, now, sink)
    }

    /// Reads on where there was more than a turn's worth. Returns how many bytes were read.
    pub(crate) fn read_on(
        &mut self,
        links: &mut Links,
        now: Micros,
        sink: &mut impl Sink,
    ) -> usize {
        let mut bytes = 0;
        for key in std::mem::take(&mut self.again) {
            let Some(socket) = self.sockets.get_mut(key) else { continue };
            let outcome = socket.read(&mut self.scratch, links, now, sink);
            bytes += self.after(key, outcome, links, now, sink);
        }
        bytes
    }

    /// Whether some may be read although the kernel will not say so.
    pub(crate) fn have_more(&self) -> bool {
        !self.again.is_empty()
    }

    /// What reading has come to.
    fn after(
        &mut self,
        key: usize,
        outcome: Result<usize, End>,
        links: &mut Links,
        now: Micros,
        sink: &mut impl Sink,
    ) -> usize {
        let socket = &self.sockets[key];
        let id = socket.id;
        match outcome {
            Ok(bytes) => {
                if socket.is_readable {
                    self.again.push(key);
                }
                bytes
            }
            Err(end) => {
                end.tell(links.member(id));
                if matches!(end, End::Fault(LinkFault::Stray | LinkFault::Frame(_))) {
                    links.note_poisoned(id);
                }
                self.close(key);
                links.lost(id, now, sink);
                0
            }
        }
    }

    /// What is due at the end of a turn: closes, connects, writes.
    pub(crate) fn work(
        &mut self,
        links: &mut Links,
        registry: &Registry,
        now: Micros,
        sink: &mut impl Sink,
    ) {
        while let Some(id) = links.next_gone() {
            if let Some(&key) = self.by_id.get(&id) {
                self.close(key);
            }
        }
        while let Some(dial) = links.next_dial(now) {
            if let Err(error) = self.dial(&dial, registry) {
                End::Io(error).tell(links.member(dial.id));
                links.lost(dial.id, now, sink);
            }
        }
        while let Some(id) = links.next_dirty() {
            let Some(&key) = self.by_id.get(&id) else { continue };
            let socket = &mut self.sockets[key];
            if !socket.is_connected {
                continue;
            }
            if let Err(error) = socket.write(links, now, sink) {
                End::Io(error).tell(links.member(id));
                self.close(key);
                links.lost(id, now, sink);
            }
        }
    }

    fn dial(&mut self, dial: &Dial, registry: &Registry) -> io::Result<()> {
        if self.scratch.is_empty() {
            self.scratch = vec![0; READ_BYTES].into();
        }
        let stream = TcpStream::connect(dial.address)?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        let mut transport = self.transport(stream, dial)?;
        let entry = self.sockets.vacant_entry();
        let token = Token(self.tokens_from + entry.key());
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(transport.socket(), token, interest)?;
        self.by_id.insert(dial.id, entry.key());
        entry.insert(LinkSocket {
            id: dial.id,
            transport,
            is_connected: false,
            is_readable: false,
            is_ended: false,
            input: Vec::new(),
        });
        Ok(())
    }

    /// Whoever answers under TLS must prove to be the member's node.
    fn transport(&self, stream: TcpStream, dial: &Dial) -> io::Result<Transport> {
        match &self.tls {
            Some(tls) if tls.is_required || dial.attempts.is_multiple_of(2) => {
                let name = ServerName::try_from(dial.node.certificate_name());
                let name = name.map_err(io::Error::other)?;
                Transport::tls_to(stream, Arc::clone(&tls.config), name)
            }
            Some(_) | None => Ok(Transport::plain(stream)),
        }
    }

    /// Closing the descriptor takes it out of epoll as well.
    fn close(&mut self, key: usize) {
        let socket = self.sockets.remove(key);
        self.again.retain(|other| *other != key);
        self.by_id.remove(&socket.id);
    }
}

/// Why a link ended.
enum End {
    Io(io::Error),
    /// Of TLS: the two do not trust one another, or one of them does not speak it.
    Untrusted(io::Error),
    Fault(LinkFault),
}

impl End {
    fn tell(&self, member: Option<&cluster::member::MemberName>) {
        let member = member.map(tracing::field::display);
        match self {
            // Backends go and come back; the metrics tell how often.
            End::Io(error) => {
                debug!(member, error = error as &dyn std::error::Error, "link lost");
            }
            End::Untrusted(error) => {
                let error = error as &dyn std::error::Error;
                warn!(member, error, "link refused: no TLS with the node of this member");
            }
            End::Fault(fault) => {
                warn!(member, error = fault as &dyn std::error::Error, "link closed");
            }
        }
    }
}

impl LinkSocket {
    /// Takes note of what the kernel says, and writes if it takes more.
    fn progress(
        &mut self,
        event: &Event,
        links: &mut Links,
        now: Micros,
        sink: &mut impl Sink,
    ) -> Result<(), End> {
        if !self.is_connected {
            if let Some(error) = self.transport.socket().take_error().map_err(End::Io)? {
                return Err(End::Io(error));
            }
            if !event.is_writable() {
                return Ok(());
            }
            self.is_connected = true;
            links.connected(self.id);
        }
        self.is_ended |= event.is_read_closed() || event.is_error();
        self.is_readable |= event.is_readable() || self.is_ended;
        if event.is_writable() {
            self.write(links, now, sink).map_err(End::Io)?;
        }
        Ok(())
    }

    /// Reads a turn's worth; where there may be more, it is still readable afterwards. Returns how many
    /// bytes.
    fn read(
        &mut self,
        scratch: &mut [u8],
        links: &mut Links,
        now: Micros,
        sink: &mut impl Sink,
    ) -> Result<usize, End> {
        let mut bytes = 0;
        while self.is_readable && bytes < READ_BYTES {
            let length = match self.transport.read(scratch) {
                Ok(0) => return Err(End::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    break;
                }
                // It may refuse us after it has agreed on keys (RFC 8446, 4.4.2.4).
                Err(error)
                    if self.transport.is_handshaking()
                        || error.kind() == io::ErrorKind::InvalidData =>
                {
                    return Err(End::Untrusted(error));
                }
                Err(error) => return Err(End::Io(error)),
            };
            bytes += length;
            self.take(&scratch[..length], links, now, sink).map_err(End::Fault)?;
            let is_empty = length < scratch.len() && self.transport.short_read_means_empty();
            self.is_readable = !is_empty || self.is_ended;
        }
        Ok(bytes)
    }

    /// Gives the links what came, after what was left of before.
    fn take(
        &mut self,
        fresh: &[u8],
        links: &mut Links,
        now: Micros,
        sink: &mut impl Sink,
    ) -> Result<(), LinkFault> {
        if self.input.is_empty() {
            let consumed = links.received(self.id, fresh, now, sink)?;
            self.input.extend_from_slice(&fresh[consumed..]);
        } else {
            self.input.extend_from_slice(fresh);
            let consumed = links.received(self.id, &self.input, now, sink)?;
            if consumed == self.input.len() {
                self.input = Vec::new();
            } else {
                self.input.drain(..consumed);
            }
        }
        Ok(())
    }

    /// Writes what there is, as far as the socket takes it.
    fn write(&mut self, links: &mut Links, now: Micros, sink: &mut impl Sink) -> io::Result<()> {
        loop {
            let output = links.output(self.id);
            if output.is_empty() {
                // What TLS has not got rid of goes when the socket can take more.
                return self.transport.flush().map(drop);
            }
            match self.transport.write(output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => links.wrote(self.id, written, now, sink),
                // The socket will say when it can take more.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;
