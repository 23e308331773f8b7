//! How long requests took, as counts by ranges of time: four ranges for each doubling, so that any
//! quantile is known within a few percent of itself, whatever is measured.
//!
//! ```text
//!   ns   1024   1280   1536   1792   2048      2560      3072      3584      4096 …
//!   range  │  0   │  1   │  2   │  3   │    4    │    5    │    6    │    7    │
//! ```
//!
//! Counts add up, over time and over places, which quantiles do not.

use crate::codec::{CodecError, Reader, put_u8, put_varint};

/// Ranges for each doubling, as a power of two.
const FINE_BITS: u32 = 2;
/// What is quicker than 2^this nanoseconds is counted in the first range: no request is.
const FIRST_BITS: u32 = 10;
/// Doublings that are told apart: the last range begins at 14 s, after which nobody waits.
const DOUBLINGS: usize = 24;
/// Ranges in all.
pub const RANGES: usize = DOUBLINGS << FINE_BITS;

const _: () = assert!(RANGES < u8::MAX as usize, "a range's number is one byte");

/// The range of a duration in nanoseconds.
#[inline]
pub fn range_of(nanoseconds: u64) -> usize {
    let at_least = nanoseconds.max(1 << FIRST_BITS);
    let doubling = at_least.ilog2();
    let fine = (at_least >> (doubling - FINE_BITS)) & ((1 << FINE_BITS) - 1);
    let range = (((doubling - FIRST_BITS) as usize) << FINE_BITS) + fine as usize;
    range.min(RANGES - 1)
}

/// Where a range begins, in nanoseconds; of [`RANGES`], where the last one ends.
pub fn begin_of(range: usize) -> u64 {
    let (doubling, fine) = (range >> FINE_BITS, range & ((1 << FINE_BITS) - 1));
    let steps = (1u64 << FINE_BITS) + fine as u64;
    steps << (doubling as u32 + FIRST_BITS - FINE_BITS)
}

/// How many took how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram([u64; RANGES]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([0; RANGES])
    }
}

impl Histogram {
    /// Of these counts, by range.
    pub fn of(counts: [u64; RANGES]) -> Self {
        Histogram(counts)
    }

    /// By range.
    pub fn counts(&self) -> &[u64; RANGES] {
        &self.0
    }

    pub fn note(&mut self, nanoseconds: u64) {
        self.0[range_of(nanoseconds)] += 1;
    }

    /// All that were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Takes in what was counted at another time or place.
    pub fn add(&mut self, other: &Histogram) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// What was counted between two readings of totals. One that fell began anew in between, and all
    /// it says is news.
    pub fn since(&self, before: &Histogram) -> Self {
        let is_anew = self.0.iter().zip(before.0).any(|(now, then)| *now < then);
        let mut between = self.clone();
        if !is_anew {
            between.0.iter_mut().zip(before.0).for_each(|(now, then)| *now -= then);
        }
        between
    }

    /// So many nanoseconds or less took this part of all, 0 to 1; `None` of nothing. Within a range
    /// durations are taken to be spread evenly.
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = (part.clamp(0.0, 1.0) * total as f64).ceil().max(1.0);
        let mut below = 0.0;
        for (range, count) in self.0.iter().enumerate().filter(|(_, count)| **count != 0) {
            let count = *count as f64;
            if rank <= below + count {
                let (begin, end) = (begin_of(range) as f64, begin_of(range + 1) as f64);
                return Some((begin + (end - begin) * (rank - below) / count) as u64);
            }
            below += count;
        }
        // Only where adding up so many counts has lost some of them.
        Some(begin_of(RANGES))
    }

    /// Pairs of a range's number and its count, for those that are not 0, and how many pairs.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let counted = || (0u8..).zip(self.0).filter(|(_, count)| *count != 0);
        put_u8(out, u8::try_from(counted().count()).expect("fewer ranges than 255"));
        for (range, count) in counted() {
            put_u8(out, range);
            put_varint(out, count);
        }
    }

    /// # Errors
    /// It ends too early, or has a range that there is not.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut histogram = Histogram::default();
        for _ in 0..reader.u8()? {
            let (range, count) = (usize::from(reader.u8()?), reader.varint()?);
            let known = histogram.0.get_mut(range);
            *known.ok_or(CodecError::Invalid { what: "range of latency" })? = count;
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_its_range() {
        assert_eq!(
            (begin_of(0), begin_of(1), begin_of(4), begin_of(7)),
            (1_024, 1_280, 2_048, 3_584)
        );
        for range in 0..RANGES {
            let (begin, end) = (begin_of(range), begin_of(range + 1));
            assert_eq!((range_of(begin), range_of(end - 1)), (range, range), "{begin} to {end}");
            assert!((end - begin) * 4 <= begin, "a range is a quarter of where it begins");
        }
        assert_eq!((range_of(0), range_of(u64::MAX)), (0, RANGES - 1));
    }

    #[test]
    fn quantiles_are_known_within_a_range() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        // Evenly from 1 µs to 10 ms.
        (1..=10_000u64).for_each(|number| histogram.note(number * 1_000));
        for (part, expected) in [(0.5, 5_000_000.0), (0.95, 9_500_000.0), (0.99, 9_900_000.0)] {
            let found = histogram.quantile(part).expect("there is something") as f64;
            assert!((found / expected - 1.0).abs() < 0.07, "{found} for {expected}");
        }
        let mut alone = Histogram::default();
        alone.note(3_000);
        assert_eq!(alone.quantile(0.0), alone.quantile(1.0));
        assert_eq!(range_of(alone.quantile(0.5).expect("one") - 1), range_of(3_000));
    }

    #[test]
    fn what_lies_between_two_readings_is_told_and_a_new_run_is_news() {
        let mut before = Histogram::default();
        before.note(5_000);
        let mut now = before.clone();
        now.note(5_000);
        now.note(7_000_000);
        let between = now.since(&before);
        assert_eq!(between.total(), 2);
        let mut sum = before.clone();
        sum.add(&between);
        assert_eq!(sum, now);
        let mut anew = Histogram::default();
        anew.note(9_000);
        assert_eq!(anew.since(&now), anew);
    }

    #[test]
    fn a_histogram_comes_back_as_it_was_written() {
        let mut full = Histogram::of([u64::MAX; RANGES]);
        for histogram in [Histogram::default(), full.clone()] {
            let mut bytes = Vec::new();
            histogram.encode(&mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Histogram::decode(&mut reader).as_ref(), Ok(&histogram));
            assert!(reader.is_empty());
        }
        assert_eq!(full.total(), u64::MAX);
        full.add(&full.clone());
        assert_eq!(full.total(), u64::MAX, "it stays at the most there is");
        assert!(Histogram::decode(&mut Reader::new(&[1, 96, 5])).is_err());
    }
}
