//! Waiting for sockets: what every event loop here does alike.

use crate::error::BenchError;
use mio::{Events, Poll};
use std::io;
use std::time::Duration;

/// Sockets looked at per turn; more only wait for the next turn.
const EVENTS_MAX: usize = 1024;
/// A waiting thread looks around so often, to notice a stall or the end.
pub(crate) const LOOK_AROUND: Duration = Duration::from_millis(100);
/// A server that answers nothing for so long is broken, and waiting longer tells nothing.
pub(crate) const STALL: Duration = Duration::from_secs(10);

pub(crate) fn queue() -> Result<Poll, BenchError> {
    Poll::new().map_err(BenchError::machine("could not make an event queue"))
}

/// Room for what one wait brings.
pub(crate) fn room() -> Events {
    Events::with_capacity(EVENTS_MAX)
}

/// Waits for events, at most so long; a signal ends the wait without any.
pub(crate) fn wait(
    poll: &mut Poll,
    events: &mut Events,
    at_most: Duration,
) -> Result<(), BenchError> {
    match poll.poll(events, Some(at_most)) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => {
            Err(BenchError::Machine { what: "could not wait for events", source: error })
        }
        _ => Ok(()),
    }
}
