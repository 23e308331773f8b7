//! A socket of memory: what a simulator gives an event loop in the place of a kernel's.
//!
//! One end is read and written by the program, as a non-blocking socket is; the other end belongs to
//! the simulated network, which takes bytes away and brings them when it likes.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that the "kernel" takes before the program must wait for the other side.
const ROOM_BYTES: usize = 512 * 1024;

/// The program's end. Dropping it closes the socket.
#[derive(Debug)]
pub struct MemoryStream(Arc<Mutex<Buffers>>);

/// The network's end; cheap to clone.
#[derive(Debug, Clone)]
pub struct NetworkEnd(Arc<Mutex<Buffers>>);

#[derive(Debug, Default)]
struct Buffers {
    /// For the program to read.
    arrived: VecDeque<u8>,
    /// Nothing more will arrive.
    is_ended: bool,
    /// The other side has gone without a word.
    is_reset: bool,
    /// What the program has written and the network has not fetched.
    written: Vec<u8>,
    /// The program has said all.
    is_finished: bool,
}

impl MemoryStream {
    /// A new socket and the network behind it.
    pub fn pair() -> (MemoryStream, NetworkEnd) {
        let buffers = Arc::<Mutex<Buffers>>::default();
        (MemoryStream(Arc::clone(&buffers)), NetworkEnd(buffers))
    }

    /// The program will write no more.
    pub fn finish(&self) {
        lock(&self.0).is_finished = true;
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        self.finish();
    }
}

impl NetworkEnd {
    /// The network brings bytes.
    pub fn bring(&self, bytes: &[u8]) {
        lock(&self.0).arrived.extend(bytes);
    }

    /// The network says that nothing more will come.
    pub fn end(&self) {
        lock(&self.0).is_ended = true;
    }

    /// The network says that the connection is lost.
    pub fn reset(&self) {
        lock(&self.0).is_reset = true;
    }

    /// The network fetches what the program has written, and hears whether it will write no more: it
    /// said so, or has closed its end.
    pub fn fetch(&self) -> (Vec<u8>, bool) {
        let mut buffers = lock(&self.0);
        (std::mem::take(&mut buffers.written), buffers.is_finished)
    }
}

fn lock(buffers: &Mutex<Buffers>) -> MutexGuard<'_, Buffers> {
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Read for MemoryStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffers = lock(&self.0);
        if buffers.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if buffers.arrived.is_empty() {
            return if buffers.is_ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        buffers.arrived.read(buffer)
    }
}

impl Write for MemoryStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffers = lock(&self.0);
        if buffers.is_reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(ROOM_BYTES - buffers.written.len());
        if taken == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffers.written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_behaves_as_a_socket_that_does_not_block() {
        let (mut program, network) = MemoryStream::pair();
        let mut buffer = [0; 4];
        let blocked = program.read(&mut buffer).map_err(|error| error.kind());
        assert_eq!(blocked, Err(io::ErrorKind::WouldBlock));
        network.bring(b"hello");
        assert_eq!(program.read(&mut buffer).ok(), Some(4));
        assert_eq!(program.read(&mut buffer).ok(), Some(1));
        network.end();
        assert_eq!(program.read(&mut buffer).ok(), Some(0));
        assert_eq!(program.write(b"bye").ok(), Some(3));
        assert_eq!(network.fetch(), (b"bye".to_vec(), false));
        let full = vec![0; 2 * ROOM_BYTES];
        assert_eq!(program.write(&full).ok(), Some(ROOM_BYTES));
        let blocked = program.write(&full).map_err(|error| error.kind());
        assert_eq!(blocked, Err(io::ErrorKind::WouldBlock));
        network.reset();
        assert!(program.read(&mut buffer).is_err() && program.write(b"x").is_err());
        drop(program);
        assert!(network.fetch().1);
    }
}
