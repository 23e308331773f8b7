//! A byte stream under TLS, at either end, without blocking.
//!
//! ```text
//!   program ── write ──▶ session ── records ──▶ socket      what the socket does not take waits in the
//!           ◀── read ──          ◀── records ──             session, and goes with the next flush
//! ```

use std::io::{self, Read, Write};

use rustls::Connection;
use rustls_pki_types::CertificateDer;

/// Plaintext handed to TLS at once. Bounds what a deaf peer can make TLS hold.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// A socket and the TLS session over it. The socket must be non-blocking.
pub struct TlsStream<S> {
    socket: S,
    session: Connection,
}

impl<S: Read + Write> TlsStream<S> {
    pub fn new(socket: S, session: impl Into<Connection>) -> Self {
        TlsStream { socket, session: session.into() }
    }

    pub fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Whether the two have not yet agreed on keys.
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whom the peer has proved to be; `None` before that, and where it need not.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.session.peer_certificates()?.first()
    }

    /// Reads some plaintext. `Ok(0)` is the end of the stream. More may be there although less came
    /// than was room for.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there now; `InvalidData` when the peer is not who it must be, or
    /// does not speak TLS; `UnexpectedEof` when it closed within the handshake.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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
                if self.session.is_handshaking() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
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

    /// Takes some of `data`, and writes as much as the socket takes of what was taken; returns how much
    /// was taken. The rest goes with [`TlsStream::flush`].
    ///
    /// # Errors
    /// `WouldBlock` when the peer is behind; what the socket says.
    pub fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.flush()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.session.writer().write(&data[..data.len().min(WRITE_BYTES_MAX)])?;
        self.flush()?;
        Ok(taken)
    }

    /// Writes what TLS itself still has to say. `Ok(true)` when nothing is left.
    ///
    /// # Errors
    /// What the socket says, but for `WouldBlock`.
    pub fn flush(&mut self) -> io::Result<bool> {
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

    /// Tells the peer that nothing more will be said. It may still be read from.
    pub fn finish(&mut self) {
        self.session.send_close_notify();
        // A peer that is gone or behind misses a courtesy, nothing else.
        drop(self.flush());
    }
}

/// Does what a signal has interrupted again.
pub fn retry_interrupted(mut act: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match act() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            other => return other,
        }
    }
}
