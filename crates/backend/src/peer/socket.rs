//! Where a link's bytes come from: the kernel, or in simulations a network of memory.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

pub(super) enum Socket {
    Kernel(TcpStream),
    #[cfg(feature = "simulation")]
    Memory(daemon::memory_stream::MemoryStream),
}

impl Socket {
    /// The kernel's, if it is one.
    pub(super) fn kernel(&mut self) -> Option<&mut TcpStream> {
        match self {
            Socket::Kernel(socket) => Some(socket),
            #[cfg(feature = "simulation")]
            Socket::Memory(_) => None,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Kernel(socket) => socket.read(buffer),
            #[cfg(feature = "simulation")]
            Socket::Memory(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Kernel(socket) => socket.write(bytes),
            #[cfg(feature = "simulation")]
            Socket::Memory(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // Neither keeps anything back.
    }
}
