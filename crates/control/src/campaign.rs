//! Keeping leadership, or waiting for it, where several control processes share a database.
//!
//! A thread asks the database every [`Pace::tick`]: for the newest revisions (others may have written
//! them), and now and then for the lease. A process that cannot ask stops leading in its own eyes only
//! when the database refuses it; until then the fence keeps its changes from doing harm.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::bell::{Bell, Heard};
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
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Campaign {
    /// Starts to ask. `holder` says where this process is to be found; whoever looks for the leader is
    /// told it.
    pub fn start(control: &Arc<Control>, holder: String, pace: Pace) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let (control, until) = (Arc::clone(control), Arc::clone(&bell));
        let run = move || {
            let (mut renewed, mut heard) = (None::<Instant>, Heard::default());
            while until.wait(&mut heard, pace.tick) {
                if renewed.is_none_or(|at| at.elapsed() >= pace.renewal) {
                    control.lead(&holder, pace.lease);
                    renewed = Some(Instant::now());
                }
                control.refresh();
            }
            control.resign();
        };
        let thread = thread::Builder::new().name("campaign".to_owned()).spawn(run)?;
        Ok(Campaign { bell, thread: Some(thread) })
    }
}

impl Drop for Campaign {
    fn drop(&mut self) {
        self.bell.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the campaign for leadership panicked");
        }
    }
}
