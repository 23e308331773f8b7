//! How long clients wait for their answers: one turn of a connection in a few is timed.
//!
//! ```text
//!   the kernel says: bytes came ─▶ its turn ─▶ all answers known and written
//!   ├────────── timed, if answered here ──────────┤
//!   the same ─▶ asked of another node … answers come ─▶ written
//!   ├────────────────────── timed ────────────────────────────┤
//! ```
//!
//! The beginning costs nothing, because every round of a loop reads the clock anyway; the end costs one
//! more look at it. With one turn in [`SAMPLE`] timed that is three or four nanoseconds for a turn, of
//! several thousand. What a client pipelines is one turn: its time is that of its last answer.
//!
//! Counted for the proxy as a whole: caches of one proxy wait alike, and 100,000 of them would cost
//! 100,000 times as much.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use wire::control::latency::{Histogram, RANGES, range_of};

/// One turn in so many is timed, on average.
pub const SAMPLE: u32 = 8;

/// Counts of all timed turns since the start, shared by the loops of a proxy.
#[derive(Debug)]
pub struct Latency {
    counts: [AtomicU64; RANGES],
    nanoseconds: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        let counts = [const { AtomicU64::new(0) }; RANGES];
        Latency { counts, nanoseconds: AtomicU64::new(0) }
    }
}

impl Latency {
    pub(crate) fn note(&self, nanoseconds: u64) {
        self.counts[range_of(nanoseconds)].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// What was counted so far. Only ever grows.
    pub fn histogram(&self) -> Histogram {
        Histogram::of(std::array::from_fn(|range| self.counts[range].load(Relaxed)))
    }

    /// All that was timed, one after the other.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Relaxed)
    }
}

/// Chooses the turns that are timed; chance, so that no rhythm of a client hides from it.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// Turns until the next that is timed.
    left: u32,
    random: u64,
}

impl Sampling {
    pub(crate) fn new(seed: u64) -> Self {
        Sampling { left: 1, random: seed | 1 }
    }

    /// Whether this turn is timed.
    #[inline]
    pub(crate) fn is_next(&mut self) -> bool {
        self.left -= 1;
        if self.left == 0 {
            self.draw();
            return true;
        }
        false
    }

    #[cold]
    fn draw(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // From 1 to 2 × SAMPLE - 1, so SAMPLE on average.
        self.left = (self.random >> 32) as u32 % (2 * SAMPLE - 1) + 1;
    }
}

/// A timed turn of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timed {
    /// When its bytes came, in nanoseconds since the loop started.
    since: u64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The turn has yet to be taken.
    Begun,
    /// This answer is awaited from another node.
    Awaits {
        number: u64,
    },
    Answered,
}

impl Timed {
    pub(crate) fn new(since: u64) -> Self {
        Timed { since, stage: Stage::Begun }
    }

    /// Takes in what became of a turn: whether it has carried out anything, the last answer that is
    /// awaited after it, and the number below which all answers have been said. `None` when there was
    /// nothing to time.
    pub(crate) fn after_turn(
        self,
        has_served: bool,
        last_awaited: Option<u64>,
        is_answered: impl FnOnce(u64) -> bool,
    ) -> Option<Self> {
        let stage = match (self.stage, last_awaited) {
            // Half a request: its time is the client's.
            (Stage::Begun, _) if !has_served => return None,
            (Stage::Begun, Some(number)) => Stage::Awaits { number },
            (Stage::Begun, None) | (Stage::Answered, _) => Stage::Answered,
            (Stage::Awaits { number }, _) if is_answered(number) => Stage::Answered,
            (Stage::Awaits { number }, _) => Stage::Awaits { number },
        };
        Some(Timed { stage, ..self })
    }

    /// When its bytes came, once all is answered.
    pub(crate) fn answered(self) -> Option<u64> {
        (self.stage == Stage::Answered).then_some(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_in_a_few_is_timed() {
        for seed in [0, 1, 77] {
            let mut sampling = Sampling::new(seed);
            let timed = (0..80_000).filter(|_| sampling.is_next()).count();
            assert!((9_500..10_500).contains(&timed), "{timed} of 80,000");
        }
    }

    #[test]
    fn what_is_answered_here_ends_with_its_turn() {
        let timed = Timed::new(5).after_turn(true, None, |_| false);
        assert_eq!(timed.and_then(Timed::answered), Some(5));
        assert_eq!(Timed::new(5).after_turn(false, None, |_| false), None, "half a request");
    }

    #[test]
    fn what_is_asked_of_others_ends_with_the_last_answer() {
        let first = |number: u64| move |asked: u64| asked < number;
        let timed = Timed::new(5).after_turn(true, Some(9), first(7)).expect("it served");
        assert_eq!(timed.answered(), None);
        let timed = timed.after_turn(false, Some(9), first(9)).expect("it waits");
        assert_eq!(timed.answered(), None, "those before it have been answered");
        // More was asked meanwhile; it is not waited for.
        let timed = timed.after_turn(true, Some(12), first(10)).expect("it is answered");
        assert_eq!(timed.answered(), Some(5));
    }

    #[test]
    fn all_that_is_noted_is_counted() {
        let latency = Latency::default();
        [3_000, 3_001, 9_000_000].into_iter().for_each(|time| latency.note(time));
        let histogram = latency.histogram();
        assert_eq!((histogram.total(), histogram.counts()[range_of(3_000)]), (3, 2));
        assert_eq!(latency.nanoseconds(), 9_006_001);
    }
}
