//! How a connection gets in: TCP, then TLS, then the password.

use crate::connection::{Connection, Role, State};
use crate::error::BenchError;
use crate::login::Verdict;
use crate::plan::{Plan, Server};
use crate::transport::Transport;
use mio::{Interest, Registry, Token};
use std::io;

/// Begins to connect, as the `number`-th connection of the plan.
pub(crate) fn open(
    plan: &Plan,
    number: usize,
    role: Role,
    registry: &Registry,
    token: Token,
) -> Result<Connection, BenchError> {
    let server = number % plan.servers.len();
    let Server { host, address, .. } = &plan.servers[server];
    let mut socket = mio::net::TcpStream::connect(*address)
        .map_err(|source| connect_error(plan, server, source))?;
    registry
        .register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)
        .map_err(BenchError::machine("could not watch a connection"))?;
    let transport = match &plan.tls {
        None => Transport::plain(socket),
        Some(tls) => tls.start(socket, host).map_err(|error| tls_error(plan, server, error))?,
    };
    Ok(Connection::new(transport, role, server, number))
}

/// Goes on after an event; true once the connection is ready for requests.
pub(crate) fn advance(
    plan: &Plan,
    connection: &mut Connection,
    input: &mut Vec<u8>,
) -> Result<bool, BenchError> {
    let server = connection.server;
    if connection.state == State::Connecting {
        if !is_open(plan, connection)? {
            return Ok(false);
        }
        begin_login(plan, connection)?;
    }
    let Some(login) = connection.login(plan) else { return Ok(true) };
    let closed = |_| BenchError::LoginClosed { server: plan.server_name(server) };
    connection.flush().map_err(closed)?;
    let arrived = connection.receive(input).map_err(closed)?;
    let bytes = &input[..arrived.len];
    match login.verdict(bytes) {
        Verdict::Accepted { consumed } => {
            connection.keep(&bytes[consumed..]);
            connection.state = State::Ready;
            Ok(true)
        }
        Verdict::Refused(said) => {
            Err(BenchError::LoginRefused { server: plan.server_name(server), said })
        }
        Verdict::NeedMore if arrived.closed => {
            Err(BenchError::LoginClosed { server: plan.server_name(server) })
        }
        Verdict::NeedMore => {
            connection.keep(bytes);
            Ok(false)
        }
    }
}

/// Shows the password, the first time or again; without one there is nothing to wait for.
pub(crate) fn begin_login(plan: &Plan, connection: &mut Connection) -> Result<(), BenchError> {
    let Some(login) = connection.login(plan) else {
        connection.state = State::Ready;
        return Ok(());
    };
    connection.state = State::LoggingIn;
    let sent = connection.send(login.request());
    sent.map_err(|_| BenchError::LoginClosed { server: plan.server_name(connection.server) })
}

/// Goes on connecting; true once bytes can be sent.
fn is_open(plan: &Plan, connection: &mut Connection) -> Result<bool, BenchError> {
    let server = connection.server;
    let failed = |source| connect_error(plan, server, source);
    let socket = connection.transport.socket();
    if let Some(source) = socket.take_error().map_err(failed)? {
        return Err(failed(source));
    }
    match socket.peer_addr() {
        Ok(_) => (),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
        Err(source) => return Err(failed(source)),
    }
    socket.set_nodelay(true).map_err(failed)?;
    connection.transport.handshake().map_err(|source| tls_error(plan, server, source))
}

fn connect_error(plan: &Plan, server: usize, source: io::Error) -> BenchError {
    let hint = if source.kind() == io::ErrorKind::ConnectionRefused {
        "; is it running, and is this its port?"
    } else if source.kind() == io::ErrorKind::AddrNotAvailable {
        "; this machine has no free local port left: use fewer connections, or several addresses \
         of the server"
    } else {
        ""
    };
    BenchError::Connect { server: plan.server_name(server), hint, source }
}

fn tls_error(plan: &Plan, server: usize, source: io::Error) -> BenchError {
    let hint = if source.to_string().contains("certificate") {
        "; name its certificate authority with --ca, or trust any certificate with --insecure"
    } else {
        "; does it speak TLS on this port?"
    };
    BenchError::Tls { server: plan.server_name(server), hint, source }
}
