//! Keeping leadership, or waiting for it, where several control processes share a database.
//!
//! A thread asks the database every [`Pace::tick`]: for the newest revisions (others may have written
//! them), and now and then for the lease. A process that cannot prolong its lease for as long as the
//! lease lasts no longer leads in its own eyes, either; before that the fence keeps its changes from
//! doing harm.

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
    /// Starts to ask. `holder` is the name of this process, which no other one has at the same time;
    /// started again under its name it need not wait for the lease of the run before.
    pub fn start(control: &Arc<Control>, holder: String, pace: Pace) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let (control, until) = (Arc::clone(control), Arc::clone(&bell));
        let run = move || {
            let (mut heard, mut asked) = (Heard::default(), None::<Instant>);
            let mut prolonged = Instant::now();
            while until.wait(&mut heard, pace.tick) {
                if asked.is_none_or(|at| at.elapsed() >= pace.renewal) {
                    // Only the first time: whoever held it under this name was an earlier run.
                    let as_before = asked.is_none();
                    let now = Instant::now();
                    if control.lead(&holder, pace.lease, as_before) {
                        prolonged = now;
                    } else if prolonged.elapsed() >= pace.lease {
                        control.step_down();
                    }
                    asked = Some(now);
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
