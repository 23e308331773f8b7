//! Listening sockets: one per event loop on the same address, so that the kernel spreads new
//! connections over the loops and no loop wakes another.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait for a loop to accept them. The kernel cuts this to
/// `net.core.somaxconn`; a burst of reconnecting clients should fit.
const BACKLOG: i32 = 4096;

/// Binds one socket per loop to `address`. With port 0 the system chooses a port for the first and
/// the others share it.
///
/// # Errors
/// The system's own: the address is in use, is not ours, or needs a privilege.
pub(crate) fn bind(address: SocketAddr, loops: usize) -> io::Result<Vec<mio::net::TcpListener>> {
    let first = bind_one(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..loops {
        listeners.push(bind_one(address)?);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}
