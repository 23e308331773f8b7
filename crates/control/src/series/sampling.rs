//! A thread that samples all caches at the end of every minute.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::step::Step;
use crate::bell::{Bell, Heard};
use crate::control::Control;
use crate::error::ControlError;

/// Batches of old rows that one minute forgets at most, so that it ends: more than a minute makes.
const TRIMS_PER_MINUTE_MAX: usize = 100;

/// Samples until it is dropped, and once more then, so that the last minute is not lost.
#[must_use]
pub(crate) struct Sampling {
    bell: Arc<Bell>,
    control: Arc<Control>,
}

impl Sampling {
    pub(crate) fn start(control: &Arc<Control>) -> std::io::Result<Self> {
        let bell = Arc::new(Bell::default());
        let sampling = Sampling { bell: Arc::clone(&bell), control: Arc::clone(control) };
        let control = Arc::clone(control);
        let run = move || {
            let mut heard = Heard::default();
            while bell.wait(&mut heard, until_next_minute(control.now().0)) {
                report(minute(&control));
            }
        };
        thread::Builder::new().name("sampling".to_owned()).spawn(run)?;
        Ok(sampling)
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        self.bell.stop();
        report(self.control.sample().map(|_| ()));
    }
}

fn until_next_minute(now: u64) -> Duration {
    let step = Step::Minute;
    Duration::from_secs(step.begin(now) + step.seconds() - now)
}

fn minute(control: &Control) -> Result<(), ControlError> {
    control.sample()?;
    if control.leads() {
        control.roll_up()?;
        for _ in 0..TRIMS_PER_MINUTE_MAX {
            if !control.trim_series()? {
                break;
            }
        }
    }
    Ok(())
}

fn report(done: Result<(), ControlError>) {
    match done {
        // Another process does it.
        Ok(()) | Err(ControlError::NotLeader) => (),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "statistics of a minute were not written");
        }
    }
}
