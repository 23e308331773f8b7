//! What has to be done now and then: disabling unused development caches, forgetting what is old.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tenancy::id::CacheId;

use crate::bell::{Bell, Heard};
use crate::control::Control;
use crate::database::Retention;
use crate::error::ControlError;
use crate::model::ClusterId;
use crate::series::sampling::Sampling;

/// Between two rounds. Whether a cache was unused for 30 days or for ten minutes more does not matter.
const ROUND: Duration = Duration::from_secs(600);
/// Batches that one round forgets at most, so that it ends.
const TRIMS_PER_ROUND_MAX: usize = 100;

/// A thread that does this until it is dropped, and one that samples what caches do.
#[must_use]
pub struct Housekeeping {
    bell: Arc<Bell>,
    _sampling: Sampling,
}

impl Housekeeping {
    pub fn start(control: &Arc<Control>) -> std::io::Result<Self> {
        let sampling = Sampling::start(control)?;
        let bell = Arc::new(Bell::default());
        let (control, until) = (Arc::clone(control), Arc::clone(&bell));
        let run = move || {
            let (mut commands, mut heard) = (HashMap::new(), Heard::default());
            while until.wait(&mut heard, ROUND) {
                match round(&control, &mut commands) {
                    // Another process does it.
                    Ok(()) | Err(ControlError::NotLeader) => (),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "housekeeping ended early; it is tried again");
                    }
                }
            }
        };
        thread::Builder::new().name("housekeeping".to_owned()).spawn(run)?;
        Ok(Housekeeping { bell, _sampling: sampling })
    }
}

impl Drop for Housekeeping {
    fn drop(&mut self) {
        // A round that is under way ends by itself, and what it has not done the next start does.
        self.bell.stop();
    }
}

fn round(control: &Control, commands: &mut HashMap<CacheId, u64>) -> Result<(), ControlError> {
    // Nodes that are other processes do not say yet what was used, and what is not known to be used
    // must not count as unused.
    if control.note_activity(commands)? {
        for cache in control.disable_unused(ClusterId::DEFAULT)? {
            tracing::info!(cache = cache.id.get(), "disabled: nobody has used it for 30 days");
        }
    }
    for _ in 0..TRIMS_PER_ROUND_MAX {
        if !control.trim(&Retention::default())? {
            break;
        }
    }
    Ok(())
}
