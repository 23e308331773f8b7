//! Where a link's bytes come from: the kernel, plain or under TLS, or in simulations a network of memory.

use std::io::{self, Read, Write};
use std::sync::Arc;

use daemon::tls_stream::TlsStream;
use mio::net::TcpStream;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::CertificateDer;

use crate::peer::PeerTls;

/// How a TLS handshake begins (RFC 8446, 5.1). As the length of a frame these bytes would be beyond
/// the longest handshake of ours.
const TLS_BEGINS: [u8; 2] = [0x16, 3];
const _: () =
    assert!(wire::data::handshake::HANDSHAKE_BYTES_MAX < u16::from_le_bytes(TLS_BEGINS) as usize);

pub(super) enum Socket {
    Plain(TcpStream),
    // Boxed: it is large, and links are mostly plain.
    Tls(Box<TlsStream<TcpStream>>),
    /// Becomes one of these two with the first bytes that come.
    Undecided {
        /// There until then.
        socket: Option<TcpStream>,
        config: Arc<ServerConfig>,
    },
    #[cfg(feature = "simulation")]
    Memory(daemon::memory_stream::MemoryStream),
}

impl Socket {
    /// One that was just accepted.
    pub(super) fn accepted(socket: TcpStream, tls: Option<&PeerTls>) -> io::Result<Self> {
        match tls {
            None => Ok(Socket::Plain(socket)),
            Some(tls) if tls.is_required => Socket::under_tls(socket, &tls.config),
            Some(tls) => {
                let config = Arc::clone(&tls.config);
                Ok(Socket::Undecided { socket: Some(socket), config })
            }
        }
    }

    fn under_tls(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<Self> {
        let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Socket::Tls(Box::new(TlsStream::new(socket, session))))
    }

    /// The kernel's, if it is one.
    pub(super) fn kernel(&mut self) -> Option<&mut TcpStream> {
        match self {
            Socket::Plain(socket) => Some(socket),
            Socket::Tls(stream) => Some(stream.socket()),
            Socket::Undecided { socket, .. } => socket.as_mut(),
            #[cfg(feature = "simulation")]
            Socket::Memory(_) => None,
        }
    }

    /// By which the caller has proved who it is; `None` where it need not.
    pub(super) fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Socket::Tls(stream) => stream.peer_certificate(),
            Socket::Plain(_) | Socket::Undecided { .. } => None,
            #[cfg(feature = "simulation")]
            Socket::Memory(_) => None,
        }
    }

    /// Whether a short read means that nothing is left; TLS may hold records it has not opened.
    pub(super) fn short_read_means_empty(&self) -> bool {
        !matches!(self, Socket::Tls(_))
    }

    /// Reads once. `Ok(0)` is the end of the stream.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Socket::Undecided { socket, config } = self {
            let is_tls = socket.as_ref().map_or(Ok(false), begins_tls)?;
            let socket = socket.take().expect("it is there until it is decided");
            *self = if is_tls { Socket::under_tls(socket, config)? } else { Socket::Plain(socket) };
        }
        match self {
            Socket::Plain(socket) => socket.read(buffer),
            Socket::Tls(stream) => stream.read(buffer),
            Socket::Undecided { .. } => unreachable!("it was decided just above"),
            #[cfg(feature = "simulation")]
            Socket::Memory(stream) => stream.read(buffer),
        }
    }

    /// Takes some bytes; those that TLS keeps back go with [`Socket::flush`].
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(socket) => socket.write(bytes),
            Socket::Tls(stream) => stream.write(bytes),
            // Before it has said anything a caller only hears that there is no room.
            Socket::Undecided { socket, .. } => {
                socket.as_mut().map_or(Ok(0), |socket| socket.write(bytes))
            }
            #[cfg(feature = "simulation")]
            Socket::Memory(stream) => stream.write(bytes),
        }
    }

    /// Writes what TLS has kept back. `Ok(true)` when nothing is left.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Socket::Tls(stream) => stream.flush(),
            Socket::Plain(_) | Socket::Undecided { .. } => Ok(true),
            #[cfg(feature = "simulation")]
            Socket::Memory(_) => Ok(true),
        }
    }
}

/// Whether what waits in the socket is the beginning of TLS. `WouldBlock` when that is not clear yet.
fn begins_tls(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0; TLS_BEGINS.len()];
    let seen = socket.peek(&mut first)?;
    if TLS_BEGINS.starts_with(&first[..seen]) && 0 < seen && seen < first.len() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(first == TLS_BEGINS)
}
