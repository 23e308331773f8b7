//! The one place of a process that reads clocks.
//!
//! Time-outs and expiry run on the monotonic clock, so that a wall clock that is set, or jumps,
//! neither expires anything nor keeps it alive. The wall clock is read for what people and clients
//! say in Unix time, and for nothing else.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What time it is, read once and handed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Whole seconds since the process started; never goes back.
    pub since_start: u32,
    /// Unix time in seconds; may jump when somebody sets the clock.
    pub unix: i64,
}

/// Reads the clocks. Cheap to copy; every copy tells the same time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

/// The first second of a process is 1, so that 0 is free for "before everything".
const FIRST_SECOND: u64 = 1;

impl Clock {
    /// A clock whose time begins now. One per process.
    pub fn start() -> Self {
        Clock { start: Instant::now() }
    }

    pub fn now(&self) -> Now {
        let seconds = self.start.elapsed().as_secs() + FIRST_SECOND;
        Now {
            // A process would have to run for 136 years to see the end of this.
            since_start: u32::try_from(seconds).unwrap_or(u32::MAX),
            unix: unix_seconds(),
        }
    }
}

/// A clock set before 1970 counts as 1970.
fn unix_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_begins_in_its_first_second() {
        assert_eq!(Clock::start().now().since_start, 1);
    }

    #[test]
    fn unix_time_is_after_this_was_written() {
        assert!(1_700_000_000 < Clock::start().now().unix);
    }
}
