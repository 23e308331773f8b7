//! Looking for news without sleeping, for as long as that is likely to pay.
//!
//! A thread that sleeps is woken through the scheduler, which takes tens of microseconds; a lone client
//! that asks again as soon as it has its answer waits for that each time. Looking again and again costs
//! a core. So how long is looked follows what the last waits were like: it grows while news come within
//! [`Spin::longest`], and falls to nothing while they do not. (The same rule as the kernel's haltpoll.)

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

#[derive(Debug)]
pub(crate) struct Spin {
    /// Never looked for longer; zero is never looked.
    longest: Duration,
    length: Duration,
}

/// The first length after waits that were too long, in parts of the longest.
const FIRST_PART: u32 = 8;

impl Spin {
    pub(crate) fn new(longest: Duration) -> Self {
        Spin { longest, length: Duration::ZERO }
    }

    /// [`Poll::poll`], awake for a while before it sleeps.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        poll: &mut Poll,
        events: &mut Events,
        timeout: Duration,
    ) -> io::Result<()> {
        if self.longest.is_zero() || timeout.is_zero() {
            return poll.poll(events, Some(timeout));
        }
        let begun = Instant::now();
        let awake = self.length.min(timeout);
        while begun.elapsed() < awake {
            poll.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() {
                self.learn(begun.elapsed());
                return Ok(());
            }
        }
        let asleep = poll.poll(events, Some(timeout.saturating_sub(begun.elapsed())));
        self.learn(begun.elapsed());
        asleep
    }

    /// News, or the end of the time, came after so long.
    fn learn(&mut self, waited: Duration) {
        let first = self.longest / FIRST_PART;
        self.length = if waited <= self.longest {
            (self.length * 2).clamp(first, self.longest)
        } else if first < self.length {
            self.length / 2
        } else {
            Duration::ZERO
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(80);
    const SOON: Duration = Duration::from_micros(20);
    const LATE: Duration = Duration::from_millis(5);

    #[test]
    fn it_looks_longer_while_news_come_soon_and_not_at_all_while_they_do_not() {
        check(&[], 0);
        check(&[SOON], 10);
        check(&[SOON, SOON], 20);
        check(&[SOON; 9], 80);
        check(&[SOON, SOON, SOON, SOON, LATE], 40);
        check(&[SOON, SOON, SOON, SOON, LATE, LATE, LATE, LATE], 0);
        check(&[LATE; 3], 0);
    }

    #[track_caller]
    fn check(waits: &[Duration], expected_us: u64) {
        let mut spin = Spin::new(LONGEST);
        waits.iter().for_each(|waited| spin.learn(*waited));
        assert_eq!(spin.length, Duration::from_micros(expected_us), "after {waits:?}");
    }
}
