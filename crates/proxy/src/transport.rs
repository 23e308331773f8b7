//! A client's byte stream, plain or TLS, without blocking.

use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};

/// Plaintext handed to TLS at once. Bounds what a deaf client can make TLS hold.
const TLS_WRITE_BYTES_MAX: usize = 64 * 1024;

pub(crate) enum Transport {
    Plain(TcpStream),
    // Boxed: it is large, and most connections are plain.
    Tls(Box<TlsStream>),
    #[cfg(feature = "simulation")]
    Memory(daemon::memory_stream::MemoryStream),
}

pub(crate) struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
}

impl Transport {
    pub(crate) fn plain(socket: TcpStream) -> Self {
        Transport::Plain(socket)
    }

    pub(crate) fn tls(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Transport::Tls(Box::new(TlsStream { socket, session })))
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => &mut stream.socket,
            #[cfg(feature = "simulation")]
            Transport::Memory(_) => unreachable!("the simulator has no sockets"),
        }
    }

    /// Reads once. `Ok(0)` is the end of the stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => retry_interrupted(|| socket.read(buffer)),
            Transport::Tls(stream) => stream.read(buffer),
            #[cfg(feature = "simulation")]
            Transport::Memory(stream) => stream.read(buffer),
        }
    }

    /// Writes some of `data`; returns how much was taken. `WouldBlock` when the peer is behind.
    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => retry_interrupted(|| socket.write(data)),
            Transport::Tls(stream) => stream.write(data),
            #[cfg(feature = "simulation")]
            Transport::Memory(stream) => stream.write(data),
        }
    }

    /// Writes what TLS itself still has to say. `Ok(true)` when nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Transport::Plain(_) => Ok(true),
            Transport::Tls(stream) => stream.flush(),
            #[cfg(feature = "simulation")]
            Transport::Memory(_) => Ok(true),
        }
    }

    /// Whether a short read means that the socket is empty. TLS may hold records it has not opened.
    pub(crate) fn short_read_means_empty(&self) -> bool {
        !matches!(self, Transport::Tls(_))
    }

    /// Tells the peer that nothing more will be said. It may still be read from.
    pub(crate) fn finish(&mut self) {
        #[cfg(feature = "simulation")]
        if let Transport::Memory(stream) = self {
            return stream.finish();
        }
        if let Transport::Tls(stream) = self {
            stream.session.send_close_notify();
            // A peer that is gone or behind misses a courtesy, nothing else.
            drop(stream.flush());
        }
        // Fails only when the peer is gone already.
        drop(self.socket().shutdown(std::net::Shutdown::Write));
    }
}

impl TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                // The peer closed properly, or there is plaintext.
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                // The peer went away without saying so; what it sent before is whole requests.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) => return Err(error),
            }
            let (session, socket) = (&mut self.session, &mut self.socket);
            if retry_interrupted(|| session.read_tls(socket))? == 0 {
                return Ok(0);
            }
            if let Err(error) = self.session.process_new_packets() {
                // Say why (an alert), then give up; the alert may not arrive.
                drop(self.flush());
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
            // The handshake answers, key updates and tickets.
            self.flush()?;
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.flush()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let written = self.session.writer().write(&data[..data.len().min(TLS_WRITE_BYTES_MAX)])?;
        self.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            let (session, socket) = (&mut self.session, &mut self.socket);
            match retry_interrupted(|| session.write_tls(socket)) {
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn retry_interrupted(mut act: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            other => return other,
        }
    }
}
