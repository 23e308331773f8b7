//! Listening sockets: one per event loop on the same address, so that the kernel spreads new
//! connections over the loops and no loop wakes another.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that may wait for a loop to accept them. The kernel cuts this to
/// `net.core.somaxconn`; a burst of reconnecting clients should fit.
const BACKLOG: i32 = 4096;

/// Silence after which the kernel asks whether the peer is still there, and how often it asks.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

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
    // Whatever is accepted is as the listener is: that spares four calls for each of a crowd.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Instant;

    use socket2::SockRef;

    use super::{Duration, KEEPALIVE_AFTER, bind, io};

    #[test]
    fn what_is_accepted_waits_for_no_more_bytes_and_is_asked_whether_it_is_there() {
        let listeners = bind((Ipv4Addr::LOCALHOST, 0).into(), 1).expect("a port is free");
        let [listener] = &listeners[..] else { panic!("one was asked for") };
        let address = listener.local_addr().expect("it listens");
        let _client = TcpStream::connect(address).expect("it listens");
        let began = Instant::now();
        let (socket, _) = loop {
            match listener.accept() {
                Ok(accepted) => break accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(began.elapsed() < Duration::from_secs(30), "nobody comes");
                    std::thread::yield_now();
                }
                Err(error) => panic!("cannot accept: {error}"),
            }
        };
        let socket = SockRef::from(&socket);
        assert!(socket.tcp_nodelay().expect("it can be asked"));
        assert!(socket.keepalive().expect("it can be asked"));
        assert_eq!(socket.tcp_keepalive_time().expect("it can be asked"), KEEPALIVE_AFTER);
    }
}
