//! How long keys and values are: one length, a range, or a long-tailed spread.

use crate::random::{scale, unit};
use std::str::FromStr;

/// A spread of lengths in bytes, as written on the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// `100`: always this long.
    Fixed(u32),
    /// `32..4096`: every length from the first to the last, equally often.
    Uniform { min: u32, max: u32 },
    /// `lognormal:300,1.2` or `lognormal:300,1.2,65536`: half are shorter than the median, few are
    /// very long; sigma is the spread of the logarithm; no value is longer than the last number.
    LogNormal { median: u32, sigma: f64, max: u32 },
}

impl Size {
    /// The shortest length that can be drawn.
    pub fn min(self) -> u32 {
        match self {
            Size::Fixed(size) => size,
            Size::Uniform { min, .. } => min,
            Size::LogNormal { .. } => 1,
        }
    }

    /// The longest length that can be drawn.
    pub fn max(self) -> u32 {
        match self {
            Size::Fixed(size) => size,
            Size::Uniform { max, .. } | Size::LogNormal { max, .. } => max,
        }
    }
}

/// The longest value of a log-normal spread when no maximum is written: what memcached stores by
/// default, less room for its own item header.
const LOGNORMAL_MAX_DEFAULT: u32 = 1024 * 1024 - 1024;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        if let Some(numbers) = text.strip_prefix("lognormal:") {
            return lognormal(numbers);
        }
        match text.split_once("..") {
            None => Ok(Size::Fixed(bytes(text)?)),
            Some((min, max)) => {
                let (min, max) = (bytes(min)?, bytes(max)?);
                if min > max {
                    return Err(format!("the range {text} ends before it begins"));
                }
                Ok(Size::Uniform { min, max })
            }
        }
    }
}

fn lognormal(numbers: &str) -> Result<Size, String> {
    let parts: Vec<&str> = numbers.split(',').collect();
    let (median, sigma, max) = match parts[..] {
        [median, sigma] => (median, sigma, None),
        [median, sigma, max] => (median, sigma, Some(max)),
        _ => return Err("write lognormal:MEDIAN,SIGMA or lognormal:MEDIAN,SIGMA,MAX".to_owned()),
    };
    let median = bytes(median)?;
    let max = max.map_or(Ok(LOGNORMAL_MAX_DEFAULT.max(median)), bytes)?;
    let sigma: f64 = sigma.parse().map_err(|_| format!("{sigma:?} is not a number"))?;
    if median == 0 || median > max || !(0.0..=SIGMA_MAX).contains(&sigma) {
        return Err(format!(
            "a log-normal spread needs a median from 1 to its maximum and a sigma from 0 to {SIGMA_MAX}"
        ));
    }
    Ok(Size::LogNormal { median, sigma, max })
}

/// Above this the spread says nothing any more: the values would be 1 byte or the maximum.
const SIGMA_MAX: f64 = 8.0;

/// A number of bytes, with `k` or `m` for KiB and MiB.
fn bytes(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is not a number of bytes, such as 100, 4k or 1m");
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1024),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1024 * 1024),
        _ => (text, 1_u32),
    };
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Draws lengths. Tells the length from a number out of all 64 bits, so that the same item always
/// has the same length.
#[derive(Debug, Clone)]
pub(crate) enum Sizes {
    Fixed(u32),
    Uniform { min: u32, count: u64 },
    Table(Box<[u32; QUANTILES]>),
}

/// Steps of the table for a log-normal spread: the longest in 2,048 is enough of a tail.
const QUANTILES: usize = 2048;

impl Sizes {
    pub(crate) fn new(size: Size) -> Sizes {
        match size {
            Size::Fixed(size) => Sizes::Fixed(size),
            Size::Uniform { min, max } => {
                Sizes::Uniform { min, count: u64::from(max) - u64::from(min) + 1 }
            }
            Size::LogNormal { median, sigma, max } => {
                let mut table = Box::new([0; QUANTILES]);
                for (step, size) in table.iter_mut().enumerate() {
                    let share = (step as f64 + 0.5) / QUANTILES as f64;
                    let drawn = f64::from(median) * (sigma * normal_quantile(share)).exp();
                    *size = drawn.round().clamp(1.0, f64::from(max)) as u32;
                }
                Sizes::Table(table)
            }
        }
    }

    pub(crate) fn draw(&self, number: u64) -> usize {
        let size = match self {
            Sizes::Fixed(size) => *size,
            Sizes::Uniform { min, count } => min + scale(number, *count) as u32,
            Sizes::Table(table) => table[(unit(number) * QUANTILES as f64) as usize],
        };
        size as usize
    }
}

/// The point below which a share of a standard normal spread lies, by bisection over its integral:
/// slow and simple, for it runs once per table entry.
fn normal_quantile(share: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if normal_share_below(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The share of a standard normal spread below `x`: Abramowitz and Stegun 26.2.17, good to 7.5e-8.
fn normal_share_below(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn sizes_are_read_as_written() {
        assert_eq!("100".parse(), Ok(Size::Fixed(100)));
        assert_eq!("4k".parse(), Ok(Size::Fixed(4096)));
        assert_eq!("32..1m".parse(), Ok(Size::Uniform { min: 32, max: 1024 * 1024 }));
        assert_eq!(
            "lognormal:300,1.5,64k".parse(),
            Ok(Size::LogNormal { median: 300, sigma: 1.5, max: 65536 })
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "k", "-1", "9..3", "lognormal:", "lognormal:3", "lognormal:0,1", "99999m"]
        {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn half_of_a_lognormal_spread_is_below_the_median() {
        let sizes = Sizes::new(Size::LogNormal { median: 300, sigma: 1.2, max: 1 << 20 });
        let mut random = Random::new(1);
        let below = (0..100_000).filter(|_| sizes.draw(random.next_u64()) < 300).count();
        assert!((48_000..52_000).contains(&below), "{below}");
    }

    #[test]
    fn a_uniform_spread_reaches_both_ends() {
        let sizes = Sizes::new(Size::Uniform { min: 3, max: 7 });
        assert_eq!((sizes.draw(0), sizes.draw(u64::MAX)), (3, 7));
    }
}
