//! The one place of a process that reads clocks.
//!
//! Time-outs and expiry run on the monotonic clock, so that a wall clock that is set, or jumps,
//! neither expires anything nor keeps it alive. The wall clock is read for what people and clients
//! say in Unix time, and for nothing else.

use std::sync::atomic::{AtomicU32, Ordering};
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
pub struct Clock(Source);

#[derive(Debug, Clone, Copy)]
enum Source {
    Machine {
        start: Instant,
    },
    /// Stands still until its [`Hand`] is moved. Leaked, so that a clock stays as cheap to copy as
    /// the real one; tests make a few.
    Hand {
        seconds: &'static AtomicU32,
        unix_at_start: i64,
    },
}

/// The first second of a process is 1, so that 0 is free for "before everything".
const FIRST_SECOND: u32 = 1;

impl Clock {
    /// A clock whose time begins now. One per process.
    pub fn start() -> Self {
        Clock(Source::Machine { start: Instant::now() })
    }

    /// A clock for tests and simulation, which goes on only when its hand is moved.
    pub fn by_hand(unix_at_start: i64) -> (Self, Hand) {
        let seconds: &'static AtomicU32 = Box::leak(Box::default());
        (Clock(Source::Hand { seconds, unix_at_start }), Hand { seconds })
    }

    #[inline]
    pub fn now(&self) -> Now {
        self.now_at(Instant::now())
    }

    /// The same for whoever has just looked at the machine's clock, which is not free.
    #[inline]
    pub fn now_at(&self, instant: Instant) -> Now {
        let (elapsed, unix) = match self.0 {
            // A process would have to run for 136 years to see the end of this.
            Source::Machine { start } => {
                let elapsed = instant.saturating_duration_since(start).as_secs();
                (u32::try_from(elapsed).unwrap_or(u32::MAX), unix_seconds())
            }
            Source::Hand { seconds, unix_at_start } => {
                let elapsed = seconds.load(Ordering::Acquire);
                (elapsed, unix_at_start.saturating_add(elapsed.into()))
            }
        };
        Now { since_start: elapsed.saturating_add(FIRST_SECOND), unix }
    }
}

/// Moves the clock it was made with; only forward, as monotonic clocks go.
#[derive(Debug)]
pub struct Hand {
    seconds: &'static AtomicU32,
}

impl Hand {
    pub fn advance(&self, seconds: u32) {
        self.seconds.fetch_add(seconds, Ordering::Release);
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
    use super::{Clock, Now};

    #[test]
    fn a_process_begins_in_its_first_second() {
        assert_eq!(Clock::start().now().since_start, 1);
    }

    #[test]
    fn unix_time_is_after_this_was_written() {
        assert!(1_700_000_000 < Clock::start().now().unix);
    }

    #[test]
    fn a_clock_by_hand_stands_until_it_is_moved() {
        let (clock, hand) = Clock::by_hand(1_000);
        assert_eq!(clock.now(), Now { since_start: 1, unix: 1_000 });
        hand.advance(60);
        assert_eq!(clock.now(), Now { since_start: 61, unix: 1_060 });
    }
}
