//! Which key is asked for next: some keys are asked for far more often than others.
//!
//! Zipf's law gives the key of rank `k` the weight `k^-s`. Drawing from it must cost a few
//! nanoseconds, whatever the number of keys:
//!
//! ```text
//! rank   1 ............. HEAD | HEAD + 1 ..................... keys
//!        alias table, exact   | inverse of the integral of x^-s
//! ```
//!
//! The table fits the first-level cache; beyond it the steps between ranks are so small that the
//! integral differs from the sum by less than one part in a million.

use crate::random::Random;
use std::str::FromStr;

/// How often each key is asked for, as written on the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// `zipf:0.99`: the key of rank `k` with weight `k` to the power of minus this.
    Zipf(f64),
    /// `uniform`: all keys equally often.
    Uniform,
    /// `sequential`: one after the other, then again from the first.
    Sequential,
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Distribution, String> {
        let exponent = match text {
            "uniform" => return Ok(Distribution::Uniform),
            "sequential" => return Ok(Distribution::Sequential),
            "zipf" => "0.99",
            _ => text
                .strip_prefix("zipf:")
                .ok_or("write uniform, sequential, zipf or zipf:EXPONENT")?,
        };
        match exponent.parse() {
            Ok(s) if (0.0..=EXPONENT_MAX).contains(&s) => Ok(Distribution::Zipf(s)),
            _ => Err(format!("the exponent of zipf must be a number from 0 to {EXPONENT_MAX}")),
        }
    }
}

/// Real caches lie between 0.6 and 1.5; at 4 nearly every request is for one key.
const EXPONENT_MAX: f64 = 4.0;

/// Draws indices of keys; the most popular key is 0.
#[derive(Debug, Clone)]
pub(crate) enum Popularity {
    Zipf(Zipf),
    Uniform { keys: u64 },
    Sequential { next: u64, keys: u64 },
}

impl Popularity {
    /// `part` of `parts` says which thread draws: sequential threads start at different places.
    pub(crate) fn new(distribution: Distribution, keys: u64, part: u64, parts: u64) -> Popularity {
        match distribution {
            Distribution::Zipf(exponent) => Popularity::Zipf(Zipf::new(keys, exponent)),
            Distribution::Uniform => Popularity::Uniform { keys },
            Distribution::Sequential => Popularity::Sequential { next: keys * part / parts, keys },
        }
    }

    pub(crate) fn draw(&mut self, random: &mut Random) -> u64 {
        match self {
            Popularity::Zipf(zipf) => zipf.draw(random),
            Popularity::Uniform { keys } => random.below(*keys),
            Popularity::Sequential { next, keys } => {
                let index = *next;
                *next = if index + 1 == *keys { 0 } else { index + 1 };
                index
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    head: AliasTable,
    /// The share of all draws that the head takes.
    head_share: f64,
    tail: Tail,
    keys: u64,
}

/// Ranks in the exact table: 16 KiB, half of a first-level cache.
const HEAD: u64 = 2048;

impl Zipf {
    fn new(keys: u64, exponent: f64) -> Zipf {
        let head_ranks = keys.min(HEAD);
        let weights: Vec<f64> = (1..=head_ranks).map(|k| (k as f64).powf(-exponent)).collect();
        let tail = Tail::new(head_ranks as f64 + 0.5, keys as f64 + 0.5, exponent);
        let head_weight: f64 = weights.iter().sum();
        let head_share = head_weight / (head_weight + tail.weight());
        Zipf { head: AliasTable::new(&weights), head_share, tail, keys }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        if self.keys <= HEAD || random.unit() < self.head_share {
            return self.head.draw(random);
        }
        let rank = self.tail.invert(random.unit()).round() as u64;
        rank.clamp(HEAD + 1, self.keys) - 1
    }
}

/// The ranks beyond the table, as a continuous density `x^-s` from `from` to `to`.
#[derive(Debug, Clone)]
struct Tail {
    from: f64,
    to: f64,
    /// `1 - s`; 0 makes the integral a logarithm.
    power: f64,
}

impl Tail {
    fn new(from: f64, to: f64, exponent: f64) -> Tail {
        let power = 1.0 - exponent;
        // Nearer to 1 the powers lose all their digits, and the logarithm is exact enough.
        Tail { from, to, power: if power.abs() < 1e-9 { 0.0 } else { power } }
    }

    fn weight(&self) -> f64 {
        if self.power == 0.0 {
            (self.to / self.from).ln()
        } else {
            (self.to.powf(self.power) - self.from.powf(self.power)) / self.power
        }
    }

    /// The point below which the given share of the weight lies.
    fn invert(&self, share: f64) -> f64 {
        if self.power == 0.0 {
            return self.from * (self.to / self.from).powf(share);
        }
        let (from, to) = (self.from.powf(self.power), self.to.powf(self.power));
        (from + share * (to - from)).powf(self.power.recip())
    }
}

/// Draws from any list of weights in constant time (Walker 1977, built as Vose 1991 does).
#[derive(Debug, Clone)]
struct AliasTable {
    columns: Vec<Column>,
}

/// A column is drawn evenly; then its own index below `own`, otherwise `other`.
#[derive(Debug, Clone, Copy)]
struct Column {
    own: u32,
    other: u32,
}

impl AliasTable {
    fn new(weights: &[f64]) -> AliasTable {
        let mean = weights.iter().sum::<f64>() / weights.len() as f64;
        let mut heights: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let whole = Column { own: u32::MAX, other: 0 };
        let mut columns = vec![whole; weights.len()];
        let (mut low, mut high): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&index| heights[index] < 1.0);
        while let (Some(short), Some(&tall)) = (low.pop(), high.last()) {
            let own = (heights[short] * f64::from(u32::MAX)) as u32;
            columns[short] = Column { own, other: tall as u32 };
            heights[tall] -= 1.0 - heights[short];
            if heights[tall] < 1.0 {
                high.pop();
                low.push(tall);
            }
        }
        // What is left is whole up to rounding: each draws itself.
        for index in low.into_iter().chain(high) {
            columns[index] = Column { own: u32::MAX, other: index as u32 };
        }
        AliasTable { columns }
    }

    fn draw(&self, random: &mut Random) -> u64 {
        let number = random.next_u64();
        let index = ((number >> 32) * self.columns.len() as u64) >> 32;
        let column = self.columns[index as usize];
        if number as u32 <= column.own { index } else { u64::from(column.other) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the share of some ranks with the law itself.
    #[track_caller]
    fn check(keys: u64, exponent: f64) {
        const DRAWS: u64 = 2_000_000;
        let mut zipf = Popularity::new(Distribution::Zipf(exponent), keys, 0, 1);
        let mut random = Random::new(7);
        let mut seen = vec![0_u64; keys as usize];
        for _ in 0..DRAWS {
            seen[zipf.draw(&mut random) as usize] += 1;
        }
        let weights: Vec<f64> = (1..=keys).map(|k| (k as f64).powf(-exponent)).collect();
        let total: f64 = weights.iter().sum();
        let groups = [0..1, 1..10, 10..100, 100..2048, 2048..2100, 2048..keys];
        for group in groups {
            let range = group.start.min(keys) as usize..group.end.min(keys) as usize;
            let wanted = weights[range.clone()].iter().sum::<f64>() / total;
            let got = seen[range].iter().sum::<u64>() as f64 / DRAWS as f64;
            let slack = 4.0 * (wanted / DRAWS as f64).sqrt();
            assert!((wanted - got).abs() <= slack, "ranks {group:?}: {got} instead of {wanted}");
        }
    }

    #[test]
    fn few_keys_follow_the_law() {
        check(100, 0.99);
    }

    #[test]
    fn many_keys_follow_the_law() {
        check(100_000, 0.99);
    }

    #[test]
    fn an_exponent_of_one_follows_the_law() {
        check(50_000, 1.0);
    }

    #[test]
    fn a_steep_exponent_follows_the_law() {
        check(50_000, 1.6);
    }

    #[test]
    fn an_exponent_of_zero_is_uniform() {
        check(10_000, 0.0);
    }

    #[test]
    fn sequential_keys_come_in_turn_and_again() {
        let mut keys = Popularity::new(Distribution::Sequential, 3, 0, 1);
        let mut random = Random::new(0);
        let drawn: Vec<u64> = (0..5).map(|_| keys.draw(&mut random)).collect();
        assert_eq!(drawn, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn distributions_are_read_as_written() {
        assert_eq!("zipf:1.2".parse(), Ok(Distribution::Zipf(1.2)));
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        assert!("zipf:x".parse::<Distribution>().is_err());
        assert!("zipf:-1".parse::<Distribution>().is_err());
        assert!("gauss".parse::<Distribution>().is_err());
    }
}
