//! Waiting for a condition with a deadline.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a condition may take that should hold at once. Generous, because test machines stall;
/// a passing test never waits that long.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Returns what `look` finds as soon as it finds something.
///
/// # Panics
///
/// When `what` has not come true within `deadline`.
#[track_caller]
pub fn eventually<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    eventually_ok(what, deadline, || look().ok_or("no more is known"))
}

/// The same of a condition that says why it does not hold.
///
/// # Panics
///
/// When `what` has not come true within `deadline`, with the last reason.
#[track_caller]
pub fn eventually_ok<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if deadline <= start.elapsed() => {
                panic!("within {deadline:?} it did not happen that {what}: {reason}")
            }
            Err(_) => sleep(LOOK_EVERY),
        }
    }
}
