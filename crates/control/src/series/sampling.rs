//! A thread that samples all caches at the end of every minute, and all proxies a few times in it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::latency::Fineness;
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
            let mut minute_begun = Step::Minute.begin(control.now().0);
            while bell.wait(&mut heard, until_next_sample(control.now().0)) {
                let begun = Step::Minute.begin(control.now().0);
                if std::mem::replace(&mut minute_begun, begun) != begun {
                    report(minute(&control));
                }
                report(control.sample_latency());
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

/// Every minute ends with one.
fn until_next_sample(now: u64) -> Duration {
    let step = Fineness::Sample;
    Duration::from_secs(step.begin(now) + step.seconds() - now)
}

const _: () = assert!(Step::Minute.seconds().is_multiple_of(Fineness::Sample.seconds()));

fn minute(control: &Control) -> Result<(), ControlError> {
    control.sample()?;
    if control.leads() {
        control.roll_up()?;
        for _ in 0..TRIMS_PER_MINUTE_MAX {
            // Both, however the first goes on.
            if !(control.trim_series()? | control.trim_latency()?) {
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
