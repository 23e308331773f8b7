//! Keeping leadership, or waiting for it, where several control processes share a database.
//!
//! A thread asks the database every [`Pace::tick`]: for the newest revisions (others may have written
//! them), and now and then for the lease. A process that cannot ask stops leading in its own eyes only
//! when the database refuses it; until then the fence keeps its changes from doing harm.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::control::Control;

/// How often is asked for what.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two looks at the revisions: how late a follower hears of a change.
    pub tick: Duration,
    /// Between two looks at the lease.
    pub renewal: Duration,
    /// How long a lease lasts: for so long nobody can change anything when the leader has died.
    pub lease: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let pace = Pace {
            tick: Duration::from_millis(100),
            renewal: Duration::from_secs(1),
            // Several renewals, so that a pause of a busy machine changes nothing.
            lease: Duration::from_secs(5),
        };
        debug_assert!(3 * pace.renewal < pace.lease && pace.tick < pace.renewal);
        pace
    }
}

/// A thread that asks, until this is dropped; then leadership is given up.
#[must_use]
pub struct Campaign {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Campaign {
    /// Starts to ask. `holder` says where this process is to be found; whoever asks it to change
    /// something while another one leads is told that one's.
    pub fn start(control: &Arc<Control>, holder: String, pace: Pace) -> std::io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let (control, stopped) = (Arc::clone(control), Arc::clone(&stop));
        let run = move || {
            let mut renewed: Option<Instant> = None;
            while !stopped.wait(pace.tick) {
                if renewed.is_none_or(|at| at.elapsed() >= pace.renewal) {
                    control.lead(&holder, pace.lease);
                    renewed = Some(Instant::now());
                }
                control.refresh();
            }
            control.resign();
        };
        let thread = thread::Builder::new().name("campaign".to_owned()).spawn(run)?;
        Ok(Campaign { stop, thread: Some(thread) })
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        *self.stop.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the campaign for leadership panicked");
        }
    }
}

impl Stop {
    /// Returns whether it is time to stop, after `at_most`.
    fn wait(&self, at_most: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, at_most, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
