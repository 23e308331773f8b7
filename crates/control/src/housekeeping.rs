//! What has to be done now and then: disabling unused development caches, ending rules whose time is
//! over, forgetting what is old.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::bell::{Bell, Heard};
use crate::control::Control;
use crate::database::Retention;
use crate::error::ControlError;
use crate::model::{ClusterId, UnixSeconds};
use crate::series::sampling::Sampling;

/// Between two rounds. Whether a cache was unused for 30 days or for ten minutes more does not matter.
const ROUND: Duration = Duration::from_secs(600);
/// Nodes go on without control, and forget what was used when they are started anew. So after a start
/// nothing counts as unused before everybody who comes daily has been seen.
const WATCHED_SECONDS_MIN: u64 = 86_400;
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
            let mut heard = Heard::default();
            let began = control.now();
            while until.wait(&mut heard, ROUND) {
                match round(&control, began) {
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

/// `began` is when this process did.
fn round(control: &Control, began: UnixSeconds) -> Result<(), ControlError> {
    control.note_activity()?;
    let watched = control.now().0.saturating_sub(began.0);
    if control.serves_here() || WATCHED_SECONDS_MIN <= watched {
        for cache in control.disable_unused(ClusterId::DEFAULT)? {
            tracing::info!(cache = cache.id.get(), "disabled: nobody has used it for 30 days");
        }
    }
    for ended in control.end_rules()? {
        tracing::info!(rule = ended.rule.id.0, "a rule has ended");
    }
    for _ in 0..TRIMS_PER_ROUND_MAX {
        if !control.trim(&Retention::default())? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tenancy::plan::Plan;
    use wire::control::name::NodeName;
    use wire::control::usage::{CacheReport, UsageReport};

    use super::*;
    use crate::environment::Environment;
    use crate::model::{Actor, CacheName, CacheRef};

    const DAY: u64 = 86_400;

    #[test]
    fn a_development_cache_that_no_node_has_seen_used_is_disabled() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = Arc::new(AtomicU64::new(1_000 * DAY));
        let hand = Arc::clone(&clock);
        let now = move || UnixSeconds(hand.load(Ordering::Relaxed));
        let chance = |bytes: &mut [u8]| {
            bytes.fill(5);
            Ok(())
        };
        let environment = Environment::new(now, chance);
        let control = Control::open_for_nodes(dir.path(), environment).expect("a new directory");
        let name = CacheName::parse("shop").expect("a good name");
        let shop = CacheRef::Name(name.clone());
        let made = control
            .create_cache(Actor::Operator, ClusterId::DEFAULT, Some(name), Plan::DEVELOPMENT)
            .expect("there is room");
        let id = made.value.0.id;
        let used = |day: u64| {
            let report = CacheReport { last_used_at: day * DAY, ..CacheReport::new(id) };
            let report = UsageReport {
                run: 1,
                is_first: false,
                is_catching_up: false,
                caches: vec![report],
            };
            let node = NodeName::parse("n1").expect("a good name");
            control.usage_of_nodes().hear(&node, &report, 0);
        };
        let is_enabled_on = |day: u64, began: u64| {
            clock.store(day * DAY, Ordering::Relaxed);
            round(&control, UnixSeconds(began * DAY)).expect("the database answers");
            control.cache(&shop).expect("it is there").enabled
        };
        used(1_010);
        assert!(is_enabled_on(1_031, 1_000), "31 days old, and used 21 days ago");
        assert!(is_enabled_on(1_039, 1_000));
        assert!(is_enabled_on(1_045, 1_045), "control has just come back");
        used(1_044);
        assert!(is_enabled_on(1_046, 1_045), "it was used while control was away");
        assert!(is_enabled_on(1_073, 1_045));
        assert!(!is_enabled_on(1_074, 1_045), "30 days ago");
    }
}
