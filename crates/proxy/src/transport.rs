//! A byte stream to a client or to another node, plain or TLS, without blocking.

use std::io::{self, Read, Write};
use std::sync::Arc;

use daemon::tls_stream::{TlsStream, retry_interrupted};
use mio::net::TcpStream;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;

pub(crate) enum Transport {
    Plain(TcpStream),
    // Boxed: it is large, and most connections are plain.
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(feature = "simulation")]
    Memory(daemon::memory_stream::MemoryStream),
}

impl Transport {
    pub(crate) fn plain(socket: TcpStream) -> Self {
        Transport::Plain(socket)
    }

    /// Of a client, who may have to prove who it is.
    pub(crate) fn tls(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Transport::Tls(Box::new(TlsStream::new(socket, session))))
    }

    /// To a server that must prove to be the one of this name.
    pub(crate) fn tls_to(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Transport::Tls(Box::new(TlsStream::new(socket, session))))
    }

    /// Whether it is TLS, and the two have not yet agreed on keys.
    pub(crate) fn is_handshaking(&self) -> bool {
        match self {
            Transport::Tls(stream) => stream.is_handshaking(),
            Transport::Plain(_) => false,
            #[cfg(feature = "simulation")]
            Transport::Memory(_) => false,
        }
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(stream) => stream.socket(),
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
            stream.finish();
        }
        // Fails only when the peer is gone already.
        drop(self.socket().shutdown(std::net::Shutdown::Write));
    }
}
