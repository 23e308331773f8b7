//! One connection: its stream, and the bytes that wait on either side of it.
//!
//! Reading goes through a buffer that all connections of a thread share; a connection holds bytes
//! of its own only while a reply is cut in two, or while its socket takes no more. So ten thousand
//! idle connections cost next to nothing here.

use crate::login::Login;
use crate::pipeline::Pipeline;
use crate::plan::Plan;
use crate::transport::Transport;
use std::io;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) state: State,
    pub(crate) role: Role,
    /// Which server of the plan it leads to.
    pub(crate) server: usize,
    /// Which connection of the plan it is, which decides who it says it is.
    pub(crate) number: usize,
    pub(crate) pipeline: Pipeline,
    /// The beginning of a reply whose end has not come.
    inbox: Vec<u8>,
    /// What the socket has not taken yet.
    outbox: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// TCP, and then TLS, is being agreed on.
    Connecting,
    /// The login is sent and not answered.
    LoggingIn,
    Ready,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Carries the load.
    Active,
    /// Is opened and then says nothing more.
    Idle,
}

/// What one read brought; the bytes are at the front of the shared buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Bytes to look at, with those that were kept from before.
    pub(crate) len: usize,
    /// How many of them are new.
    pub(crate) new: usize,
    /// More may wait in the socket.
    pub(crate) more: bool,
    /// The server has closed the stream.
    pub(crate) closed: bool,
}

/// What one read may bring: the replies of hundreds of requests, and a quarter of the largest value.
const READ_BYTES: usize = 256 * 1024;

impl Connection {
    pub(crate) fn new(
        transport: Transport,
        role: Role,
        server: usize,
        number: usize,
    ) -> Connection {
        Connection {
            transport,
            state: State::Connecting,
            role,
            server,
            number,
            pipeline: Pipeline::default(),
            inbox: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// Who it says it is.
    pub(crate) fn login<'p>(&self, plan: &'p Plan) -> Option<&'p Login> {
        plan.login_of(self.number)
    }

    /// Reads once into the shared buffer, after what was kept from before.
    pub(crate) fn receive(&mut self, shared: &mut Vec<u8>) -> io::Result<Arrived> {
        let kept = self.inbox.len();
        if shared.len() < kept + READ_BYTES {
            shared.resize(kept + READ_BYTES, 0);
        }
        shared[..kept].copy_from_slice(&self.inbox);
        let room = &mut shared[kept..];
        match self.transport.read(room) {
            Ok(0) => Ok(Arrived { len: kept, new: 0, more: false, closed: true }),
            Ok(new) => {
                let more = new == room.len() || !self.transport.short_read_is_all();
                Ok(Arrived { len: kept + new, new, more, closed: false })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Ok(Arrived { len: kept, new: 0, more: false, closed: false })
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                Ok(Arrived { len: kept, new: 0, more: true, closed: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps what was not consumed until more comes.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() && self.inbox.capacity() > INBOX_KEPT_BYTES_MAX {
            self.inbox = Vec::new();
        } else {
            self.inbox.clear();
            self.inbox.extend_from_slice(rest);
        }
    }

    /// Sends now what the socket takes, and the rest when it takes more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.outbox.is_empty() {
            self.outbox.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write_all(&mut self.transport, bytes)?;
        self.outbox.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Sends what waited for the socket.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.transport.flush()?;
        if self.outbox.is_empty() {
            return Ok(());
        }
        let sent = write_all(&mut self.transport, &self.outbox)?;
        if sent == self.outbox.len() {
            self.outbox = Vec::new();
        } else {
            self.outbox.drain(..sent);
        }
        Ok(())
    }
}

/// A connection whose replies are often cut keeps a small buffer; a large one was for a large value.
const INBOX_KEPT_BYTES_MAX: usize = 4096;

/// Writes until all is sent or the socket is full; says how much was sent.
fn write_all(transport: &mut Transport, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match transport.write(&bytes[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
