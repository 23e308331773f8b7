//! Why a benchmark could not run, or not to its end.

use std::io;

/// Everything that ends a run early. Refused requests, misses and wrong values do not: they are
/// counted, and stand in the report.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// All problems with the settings at once.
    #[error("these settings do not work:\n  {}", .0.join("\n  "))]
    Settings(Vec<String>),
    #[error("no address is known for the server {server}")]
    Resolve { server: String, source: io::Error },
    #[error("could not connect to {server}{hint}")]
    Connect { server: String, hint: &'static str, source: io::Error },
    #[error(
        "{server} did not let us in within {seconds} s: {waiting} connections are still waiting"
    )]
    ConnectTimeout { server: String, seconds: u64, waiting: usize },
    #[error("could not agree on TLS with {server}{hint}")]
    Tls { server: String, hint: &'static str, source: io::Error },
    #[error("could not read the certificates in {path}")]
    CaFile { path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{server} did not let us in: it said {said:?}{}", login_hint(.said))]
    LoginRefused { server: String, said: String },
    #[error(
        "{server} closed the connection during authentication: the password is wrong, or it does \
         not speak this dialect; try another --auth or --dialect"
    )]
    LoginClosed { server: String },
    #[error("the first fill was refused: the server said {said:?}{hint}")]
    FillRefused { said: String, hint: &'static str },
    #[error(
        "{server} answered something else than was asked, so nothing after it can be trusted: \
         {said:?}"
    )]
    OutOfStep { server: String, said: String },
    #[error("{server} has not answered for {seconds} s, with {in_flight} requests in flight")]
    Stalled { server: String, seconds: u64, in_flight: usize },
    #[error("all connections were lost, the last one to {server}{hint}")]
    AllLost { server: String, hint: &'static str, source: io::Error },
    #[error("{what}")]
    Machine { what: &'static str, source: io::Error },
}

impl BenchError {
    /// Adds the cause to what the operating system could not do.
    pub(crate) fn machine(what: &'static str) -> impl FnOnce(io::Error) -> BenchError {
        move |source| BenchError::Machine { what, source }
    }
}

fn login_hint(said: &str) -> &'static str {
    if said.contains("connections") {
        "; ask for fewer --connections or --idle ones"
    } else {
        "; check --username and --password (or MEMCACHIER_USERNAME and MEMCACHIER_PASSWORD), --auth \
         and --dialect"
    }
}
