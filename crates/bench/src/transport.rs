//! A non-blocking byte stream, plain or encrypted.

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

/// The stream below one connection.
#[derive(Debug)]
pub(crate) enum Transport {
    Plain(TcpStream),
    // Boxed: the state of TLS is twenty times as large as a socket.
    Tls(Box<Tls>),
}

#[derive(Debug)]
pub(crate) struct Tls {
    socket: TcpStream,
    session: ClientConnection,
}

impl Transport {
    pub(crate) fn plain(socket: TcpStream) -> Transport {
        Transport::Plain(socket)
    }

    pub(crate) fn tls(
        socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Transport> {
        let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Transport::Tls(Box::new(Tls { socket, session })))
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        match self {
            Transport::Plain(socket) => socket,
            Transport::Tls(tls) => &mut tls.socket,
        }
    }

    /// Whether a read that filled less than its buffer means that the socket is empty. A TLS
    /// record may be shorter than the buffer while the next one waits.
    pub(crate) fn short_read_is_all(&self) -> bool {
        matches!(self, Transport::Plain(_))
    }

    /// Reads what is there; `Ok(0)` is the end of the stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.read(buffer),
            Transport::Tls(tls) => tls.read(buffer),
        }
    }

    /// Writes as much as the socket takes now.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write(bytes),
            Transport::Tls(tls) => tls.write(bytes),
        }
    }

    /// Goes on with what comes before the first byte of ours; true once there is nothing left of it.
    pub(crate) fn handshake(&mut self) -> io::Result<bool> {
        match self {
            Transport::Plain(_) => Ok(true),
            Transport::Tls(tls) => tls.handshake(),
        }
    }

    /// Sends what TLS still holds; a plain stream holds nothing.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => Ok(()),
            Transport::Tls(tls) => tls.send_records(),
        }
    }
}

impl Tls {
    fn handshake(&mut self) -> io::Result<bool> {
        self.send_records()?;
        while self.session.is_handshaking() {
            match self.receive_records() {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                // A peer that hangs up without the farewell of TLS is still only hanging up.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            if self.receive_records()? == 0 {
                return Ok(0);
            }
        }
    }

    fn receive_records(&mut self) -> io::Result<usize> {
        let count = self.session.read_tls(&mut self.socket)?;
        let progress = self.session.process_new_packets();
        // An alert about what was wrong is owed to the peer even then.
        self.send_records()?;
        progress.map_err(io::Error::other)?;
        Ok(count)
    }

    /// Fails with `WouldBlock` only while the socket is full, for only then an event will come when
    /// it has room again.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let taken = self.session.writer().write(bytes)?;
            self.send_records()?;
            if taken > 0 || bytes.is_empty() {
                return Ok(taken);
            }
            // Nothing was taken because of earlier records; if these could be sent, there is room.
            if self.session.wants_write() || self.session.is_handshaking() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    fn send_records(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
