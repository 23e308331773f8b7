//! One connection, as raw bytes: plain or TLS, and never waiting without a deadline.

use crate::eventually::DEADLINE;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a test reads in one go at most; more than any answer it should get.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub struct Connection {
    stream: Stream,
    /// Bytes read but not yet asked for.
    read: Vec<u8>,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    #[track_caller]
    pub fn open(addr: SocketAddr) -> Connection {
        Self::try_open(addr).unwrap_or_else(|error| panic!("cannot connect to {addr}: {error}"))
    }

    pub fn try_open(addr: SocketAddr) -> io::Result<Connection> {
        Ok(Connection { stream: Stream::Plain(dial(addr)?), read: Vec::new() })
    }

    /// Opens a plain connection from an address of this machine: on loopback, any of 127.0.0.0/8.
    pub fn try_open_from(from: IpAddr, addr: SocketAddr) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&addr.into(), DEADLINE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        limit_waits(&stream, DEADLINE)?;
        Ok(Connection { stream: Stream::Plain(stream), read: Vec::new() })
    }

    /// Opens a TLS connection that trusts only the certificates in the PEM file `trusted`.
    #[track_caller]
    pub fn open_tls(addr: SocketAddr, trusted: &Path) -> Connection {
        Self::try_open_tls(addr, trusted)
            .unwrap_or_else(|error| panic!("no TLS connection to {addr}: {error}"))
    }

    pub fn try_open_tls(addr: SocketAddr, trusted: &Path) -> io::Result<Connection> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(trusted).map_err(io::Error::other)? {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::from(addr.ip());
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, dial(addr)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Connection { stream: Stream::Tls(Box::new(stream)), read: Vec::new() })
    }

    /// Opens a plain connection and authenticates it in the text dialect, as MemCachier's clients do.
    #[track_caller]
    pub fn open_as(addr: SocketAddr, login: &Login) -> Connection {
        let mut connection = Self::open(addr);
        connection.ask(&login.text(), "STORED\r\n");
        connection
    }

    /// Authenticates this connection in the binary dialect (SASL PLAIN).
    #[track_caller]
    pub fn log_in_binary(&mut self, login: &Login) {
        self.send(&login.binary());
        let header = self.bytes(24);
        assert_eq!(header[6..8], [0, 0], "the login was refused");
        let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        self.bytes(body_bytes as usize);
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server reads what is sent");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Sends `request` and demands exactly `answer`.
    #[track_caller]
    pub fn ask(&mut self, request: &str, answer: &str) {
        self.send(request.as_bytes());
        self.expect(answer.as_bytes());
    }

    /// Reads as many bytes as `wanted` has and demands that they are `wanted`.
    #[track_caller]
    pub fn expect(&mut self, wanted: &[u8]) {
        while self.read.len() < wanted.len() {
            // As soon as it differs there is no use in waiting for the rest.
            if !wanted.starts_with(&self.read) {
                break;
            }
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    panic!("wanted {:?}, had {:?}, then {error}", shown(wanted), shown(&self.read))
                }
            }
        }
        let had = &self.read[..wanted.len().min(self.read.len())];
        assert!(
            had == wanted,
            "wanted {:?}\n   got {:?}",
            shown(wanted),
            shown(&self.read[..self.read.len().min(wanted.len() + 200)])
        );
        self.read.drain(..wanted.len());
    }

    /// One line with its ending.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().expect("a line comes in time")
    }

    /// One line with its ending; what was there, without an ending, when the server closed.
    pub fn try_line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                break end + 1;
            }
            if self.fill()? == 0 {
                break self.read.len();
            }
        };
        let line: Vec<u8> = self.read.drain(..end).collect();
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Exactly `count` bytes.
    #[track_caller]
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            let got = self.fill().expect("the bytes come in time");
            assert!(got > 0, "closed after {:?}", shown(&self.read));
        }
        self.read.drain(..count).collect()
    }

    /// Everything until the server closes; a reset counts as closing.
    #[track_caller]
    pub fn until_closed(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => return std::mem::take(&mut self.read),
                Ok(_) => {}
                Err(error) if is_closing(&error) => return std::mem::take(&mut self.read),
                Err(error) => {
                    panic!("the server did not close, but sent {:?}: {error}", shown(&self.read))
                }
            }
        }
    }

    /// Demands that the server closes without a further word.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let rest = self.until_closed();
        assert!(rest.is_empty(), "wanted the server to close, but it said {:?}", shown(&rest));
    }

    /// Tells the server that nothing more will come, while still listening.
    pub fn finish_sending(&mut self) {
        match &mut self.stream {
            // The server may have closed already, which the reading side will notice.
            Stream::Plain(stream) => drop(stream.shutdown(Shutdown::Write)),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                drop(stream.flush());
                drop(stream.sock.shutdown(Shutdown::Write));
            }
        }
    }

    /// What `stats` tells in numbers, by name.
    #[track_caller]
    pub fn statistics(&mut self) -> BTreeMap<String, u64> {
        self.send(b"stats\r\n");
        let mut figures = BTreeMap::new();
        loop {
            let line = self.line();
            let mut words = line.split_whitespace().skip(1);
            let (Some(name), Some(value)) = (words.next(), words.next()) else {
                assert_eq!(line, "END\r\n", "statistics are answered");
                return figures;
            };
            figures.extend(value.parse::<u64>().ok().map(|value| (name.to_owned(), value)));
        }
    }

    /// How long reading and writing may wait from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        let socket = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
        };
        limit_waits(socket, patience).expect("a socket takes timeouts");
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 << 10];
        let got = match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut chunk)?,
            Stream::Tls(stream) => stream.read(&mut chunk)?,
        };
        self.read.extend_from_slice(&chunk[..got]);
        assert!(self.read.len() <= ANSWER_BYTES_MAX, "the server answers without an end");
        Ok(got)
    }
}

/// What was read beyond what was asked for comes first.
impl Read for Connection {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read.is_empty() {
            self.fill()?;
        }
        let count = into.len().min(self.read.len());
        into[..count].copy_from_slice(&self.read[..count]);
        self.read.drain(..count);
        Ok(count)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_send(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Username and password of one credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: String,
}

impl Login {
    /// The login that a credential's JSON holds, as the command line prints it.
    #[track_caller]
    pub fn told(credential: &Value) -> Login {
        let word = |name: &str| credential[name].as_str().expect("credentials are text").to_owned();
        Login { username: word("username"), password: word("password") }
    }

    /// The first command of a text connection that authenticates it.
    pub fn text(&self) -> String {
        let Login { username, password } = self;
        format!("set {username} 0 0 {}\r\n{password}\r\n", password.len())
    }

    /// The same whose [`Login::text`] is a `set` of any key to `username password`, which memcached (`-Y`)
    /// takes as well as Larder.
    #[must_use]
    pub fn of_any_key(&self) -> Login {
        let Login { username, password } = self;
        Login { username: "auth".to_owned(), password: format!("{username} {password}") }
    }

    /// A binary SASL PLAIN request (opcode 0x21).
    pub fn binary(&self) -> Vec<u8> {
        let value = format!("\0{}\0{}", self.username, self.password);
        let mechanism = "PLAIN";
        let mut frame = vec![0x80, 0x21, 0, mechanism.len() as u8, 0, 0, 0, 0];
        frame.extend(
            (u32::try_from(mechanism.len() + value.len()).expect("a credential is far below 4 GB"))
                .to_be_bytes(),
        );
        frame.extend([0; 12]);
        frame.extend(mechanism.as_bytes());
        frame.extend(value.as_bytes());
        frame
    }
}

fn dial(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, DEADLINE)?;
    stream.set_nodelay(true)?;
    limit_waits(&stream, DEADLINE)?;
    Ok(stream)
}

fn limit_waits(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))
}

fn is_closing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

/// Tells apart long values that begin alike (FNV-1a).
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Bytes for a failure message: readable, and not a megabyte of them.
pub fn shown(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 400;
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
    let more = bytes.len() - cut.len();
    let text = cut.escape_ascii().to_string();
    if more == 0 { text } else { format!("{text}… and {more} bytes more, sum {:x}", sum(bytes)) }
}
