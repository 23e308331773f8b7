//! Bytes to a server in random pieces, and all that comes back.

use crate::differential::random::Random;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// What a server answered before it closed.
pub struct Exchanged {
    pub bytes: Vec<u8>,
    /// It neither answered nor closed in time.
    pub hung: bool,
    pub took: Duration,
}

/// How the bytes of a round are cut into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    Whole,
    /// Pieces of random length, from this seed.
    Random(u64),
    EveryByte,
}

/// A server that has said nothing for so long hangs: everything to answer is already there.
const PATIENCE: Duration = Duration::from_secs(3);

/// Writes `bytes` and reads until the answer ends with `end`; or, without one, says that there is no
/// more and reads until the server closes.
///
/// A long answer is better ended by something known: memcached may cut it off when its client has said
/// that there is no more.
///
/// # Errors
///
/// When there is no connection.
pub fn exchange(
    server: SocketAddr,
    bytes: &[u8],
    split: Split,
    end: Option<&[u8]>,
) -> io::Result<Exchanged> {
    let start = Instant::now();
    let stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    thread::scope(|scope| {
        // A server may close, or stop reading, before it has all; what it said before is what counts.
        scope.spawn(|| {
            let written = write_split(&stream, bytes, split);
            if end.is_none() && written.is_ok() {
                drop(stream.shutdown(Shutdown::Write));
            }
        });
        let mut answer = Vec::new();
        let mut chunk = [0; 64 << 10];
        let hung = loop {
            match (&stream).read(&mut chunk) {
                Ok(0) => break false,
                Ok(got) => answer.extend_from_slice(&chunk[..got]),
                Err(error) => {
                    break matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    );
                }
            }
            if end.is_some_and(|end| answer.ends_with(end)) {
                break false;
            }
        };
        if hung {
            // Ends the writer too.
            drop(stream.shutdown(Shutdown::Both));
        }
        Ok(Exchanged { bytes: answer, hung, took: start.elapsed() })
    })
}

fn write_split(mut stream: &TcpStream, bytes: &[u8], split: Split) -> io::Result<()> {
    match split {
        Split::Whole => stream.write_all(bytes)?,
        Split::EveryByte => {
            for byte in bytes.chunks(1) {
                stream.write_all(byte)?;
            }
        }
        Split::Random(seed) => {
            let mut random = Random::new(seed);
            let mut rest = bytes;
            while !rest.is_empty() {
                // Mostly within a command, sometimes several at once.
                let length_max = [3, 40, 2000, 60_000][random.below(4)];
                let (piece, after) = rest.split_at(rest.len().min(1 + random.below(length_max)));
                stream.write_all(piece)?;
                rest = after;
            }
        }
    }
    Ok(())
}
