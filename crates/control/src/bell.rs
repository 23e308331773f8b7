//! Wakes threads that wait for work, and tells them when to stop.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rung by who has made work, waited for by who does it.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rings: u64,
    stopped: bool,
}

/// How many rings one waiter has heard: none is missed between two waits.
#[derive(Debug, Default)]
pub(crate) struct Heard(u64);

impl Bell {
    pub(crate) fn ring(&self) {
        let mut state = self.lock();
        state.rings = state.rings.wrapping_add(1);
        drop(state);
        self.changed.notify_all();
    }

    /// Ends all waiting, for good.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits for a ring that was not heard yet, `at_most` so long. Returns whether to go on.
    pub(crate) fn wait(&self, heard: &mut Heard, at_most: Duration) -> bool {
        let quiet = |state: &mut State| !state.stopped && state.rings == heard.0;
        let waited = self.changed.wait_timeout_while(self.lock(), at_most, quiet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        heard.0 = state.rings;
        !state.stopped
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Two plain fields, so nobody can have left them half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
