//! Counters are text: how a value is read as a number, and what it becomes.

use crate::operation::Direction;

/// Longest text of a `u64`.
pub(crate) const DIGITS_MAX: usize = 20;

/// Longest value that is looked at for a number. memcached keeps longer ones in pieces (`slab_chunk_max`),
/// and counts none of these.
const COUNTED_BYTES_MAX: usize = 512 << 10;

/// Whether a value of so many bytes is looked at at all. As in memcached, one that is not is refused
/// before its CAS value is compared, and any other after it.
pub(crate) fn may_be_number(value_bytes: usize) -> bool {
    (1..=COUNTED_BYTES_MAX).contains(&value_bytes)
}

/// Reads a counter as memcached's `strtoull` does: blanks and a plus sign before the digits, and
/// after them the end or a blank, behind which anything may stand (a counter that shrank is padded
/// with blanks). Anything with a minus sign is no number here; memcached takes `-0`.
pub(crate) fn parse(value: &[u8]) -> Option<u64> {
    let start = value.iter().position(|b| !is_blank(*b))?;
    let digits = value[start..].strip_prefix(b"+").unwrap_or(&value[start..]);
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 || digits.get(end).is_some_and(|b| !is_blank(*b) && *b != 0) {
        return None;
    }
    digits[..end].iter().try_fold(0_u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// C's `isspace`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

pub(crate) fn count(number: u64, direction: Direction, delta: u64) -> u64 {
    match direction {
        Direction::Increment => number.wrapping_add(delta),
        Direction::Decrement => number.saturating_sub(delta),
    }
}

/// A number's text, without an allocation.
pub(crate) struct Digits {
    bytes: [u8; DIGITS_MAX],
    start: usize,
}

impl Digits {
    pub(crate) fn of(mut number: u64) -> Self {
        let mut digits = Digits { bytes: [b'0'; DIGITS_MAX], start: DIGITS_MAX };
        loop {
            digits.start -= 1;
            digits.bytes[digits.start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return digits;
            }
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_strtoull_reads_them() {
        check(b"5", Some(5));
        check(b"007", Some(7));
        check(b" 5", Some(5));
        check(b"+5", Some(5));
        check(b"99  ", Some(99));
        check(b"12 monkeys", Some(12));
        check(b"18446744073709551615", Some(u64::MAX));
        check(b"18446744073709551616", None);
        check(b"", None);
        check(b"  ", None);
        check(b"+", None);
        check(b"-1", None);
        check(b"1.5", None);
        check(b"12monkeys", None);
    }

    #[test]
    fn text_is_the_decimal_number() {
        for number in [0, 7, 10, 99, 100, u64::MAX] {
            assert_eq!(Digits::of(number).text(), number.to_string().as_bytes());
        }
    }

    #[track_caller]
    fn check(value: &[u8], expected: Option<u64>) {
        assert_eq!(parse(value), expected);
    }
}
