//! The words of a command line, and the numbers that some of them are.

use memchr::memchr;

/// Walks the words of a line: runs of anything but spaces, as memcached's tokeniser sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let [b' ', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            self.0 = rest;
            return None;
        }
        let end = memchr(b' ', rest).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        self.0 = after;
        Some(word)
    }
}

impl<'a> Words<'a> {
    /// The last word, if any is left.
    #[inline]
    pub(crate) fn last_word(self) -> Option<&'a [u8]> {
        let mut rest = self.0;
        while let [before @ .., b' '] = rest {
            rest = before;
        }
        rest.rsplit(|byte| *byte == b' ').next().filter(|word| !word.is_empty())
    }
}

/// A decimal number without sign. `None` for anything else, and for what does not fit.
#[inline]
pub(crate) fn unsigned(word: &[u8]) -> Option<u64> {
    if word.is_empty() || word.len() > UNSIGNED_DIGITS_MAX {
        return None;
    }
    let (sure, rest) = word.split_at(word.len().min(DIGITS_THAT_ALWAYS_FIT));
    let mut number = 0_u64;
    for byte in sure {
        number = number * 10 + digit(*byte)?;
    }
    for byte in rest {
        number = number.checked_mul(10)?.checked_add(digit(*byte)?)?;
    }
    Some(number)
}

/// A decimal number that may begin with a minus.
#[inline]
pub(crate) fn signed(word: &[u8]) -> Option<i64> {
    match word.strip_prefix(b"-") {
        None => i64::try_from(unsigned(word)?).ok(),
        Some(magnitude) => 0_i64.checked_sub_unsigned(unsigned(magnitude)?),
    }
}

#[inline]
fn digit(byte: u8) -> Option<u64> {
    let digit = byte.wrapping_sub(b'0');
    (digit <= 9).then_some(u64::from(digit))
}

/// 2^64 has 20 digits; memcached takes two leading zeros more.
const UNSIGNED_DIGITS_MAX: usize = 22;

/// 10^19 is below 2^64.
const DIGITS_THAT_ALWAYS_FIT: usize = 19;

#[cfg(test)]
mod tests {
    use super::{Words, signed, unsigned};

    #[test]
    fn words_are_what_is_between_spaces() {
        for (line, words) in [
            ("", &[][..]),
            ("   ", &[]),
            ("a", &["a"]),
            ("  a  bc ", &["a", "bc"]),
            ("a\tb \0", &["a\tb", "\0"]),
        ] {
            let found: Vec<_> = Words(line.as_bytes()).collect();
            let wanted: Vec<_> = words.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(found, wanted, "{line:?}");
            assert_eq!(Words(line.as_bytes()).last_word(), wanted.last().copied(), "{line:?}");
        }
    }

    #[test]
    fn numbers_are_read_to_their_limits_and_not_beyond() {
        for (word, number) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("0018446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999", None),
            ("00000000000000000000001", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1a", None),
        ] {
            assert_eq!(unsigned(word.as_bytes()), number, "{word:?}");
        }
        for (word, number) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("-", None),
            ("--1", None),
        ] {
            assert_eq!(signed(word.as_bytes()), number, "{word:?}");
        }
    }
}
