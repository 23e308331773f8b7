//! Waiting for a condition with a deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a condition may take that should hold at once. Generous, because test machines stall;
/// a passing test never waits that long.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Returns what `look` finds as soon as it finds something.
///
/// # Panics
///
/// When `what` has not come true within `deadline`.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < deadline, "within {deadline:?} it did not happen that {what}");
        sleep(LOOK_EVERY);
    }
}
