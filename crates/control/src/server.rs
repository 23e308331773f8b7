//! Carries the API over HTTP/1.1: connections, their limits, and a clean end.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::api::{ApiSettings, router};
use crate::control::Control;

/// What one server holds at most.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// From a connection's opening, or from the last answer, to the end of the next request's head.
    pub head_time_max: Duration,
    /// How long requests may take to end when the server is told to stop.
    pub drain_time_max: Duration,
}

impl Default for ServerLimits {
    /// For operators, scripts and a dashboard, not for crowds; and for a stop within what service
    /// managers allow (10 s for containers).
    fn default() -> Self {
        ServerLimits {
            connections_max: 256,
            head_time_max: Duration::from_secs(30),
            drain_time_max: Duration::from_secs(5),
        }
    }
}

/// Whose connection a request came over; in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Serves the API until `shutdown` is ready, then lets the requests in progress end.
///
/// Call [`Control::announce`] before, so that whoever reads the data directory finds the listener.
pub async fn serve(
    listener: TcpListener,
    control: Arc<Control>,
    settings: ApiSettings,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()>,
) {
    serve_router(listener, router(control, settings), limits, shutdown).await;
}

/// Serves any routes within these limits, in the same way as the API.
pub async fn serve_router(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    // Dropping the sender tells every connection to end.
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, peer, permit) = accept(&listener, &permits) => {
                let stopped = stopped.clone();
                let connection = Connection { stream, peer, permit, limits, stopped };
                connections.spawn(connection.run(router.clone()));
            }
            // Ended connections are forgotten as they end, so that the set does not grow.
            Some(_) = connections.join_next() => (),
        }
    }
    drop(listener);
    drop(stop);
    let drain = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.drain_time_max, drain).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections cut at shutdown");
    }
}

/// How long to wait after a failed accept: what fails is most often that no descriptor is left, and
/// trying at once again would only burn the processor until one is.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, Peer, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (stream, Peer(address.ip()), permit),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    peer: Peer,
    permit: OwnedSemaphorePermit,
    limits: ServerLimits,
    stopped: watch::Receiver<()>,
}

impl Connection {
    async fn run(mut self, router: Router) {
        let (service, peer) = (TowerToHyperService::new(router), self.peer);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            service.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_time_max)
            .serve_connection(TokioIo::new(self.stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            // An error is all this channel ever says: its sender is gone.
            _ = self.stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // A client that hangs up or sends no HTTP is its own affair.
            tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
        }
        drop(self.permit);
    }
}

#[cfg(test)]
mod tests;
