//! The words of a command line, and the numbers that some of them are.

use memchr::memchr;

/// Walks the words of a line: runs of anything but spaces, as memcached's tokeniser sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.skip_spaces();
        if self.0.is_empty() {
            return None;
        }
        let (word, rest) = self.0.split_at(find_byte(self.0, b' ').unwrap_or(self.0.len()));
        self.0 = rest;
        Some(word)
    }
}

impl<'a> Words<'a> {
    #[inline]
    fn skip_spaces(&mut self) {
        while let [b' ', rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// The next word as [`unsigned`] reads it; the outer `None` is that there is no word. Most
    /// numbers are short, and are read on the way to the word's end.
    #[inline]
    pub(crate) fn next_unsigned(&mut self) -> Option<Option<u64>> {
        self.skip_spaces();
        let mut number = 0_u64;
        let mut digits = 0;
        for byte in self.0 {
            let digit = byte.wrapping_sub(b'0');
            if 9 < digit {
                break;
            }
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            digits += 1;
        }
        let ends = matches!(self.0.get(digits), None | Some(b' '));
        if ends && (1..=DIGITS_THAT_ALWAYS_FIT).contains(&digits) {
            self.0 = &self.0[digits..];
            return Some(Some(number));
        }
        self.next().map(unsigned)
    }

    /// The next word as [`signed`] reads it.
    #[inline]
    pub(crate) fn next_signed(&mut self) -> Option<Option<i64>> {
        self.skip_spaces();
        if self.0.first() == Some(&b'-') {
            return self.next().map(signed);
        }
        self.next_unsigned().map(|number| number.and_then(|number| i64::try_from(number).ok()))
    }

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

// Words and lines are mostly shorter than what makes a call to memchr worth its while, so they are
// searched eight bytes at a time, as one number. Subtracting from each byte sets the high bit of
// those that are too small and had none; a borrow can only spoil bytes behind the first such byte,
// and the first is what is asked for.

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// Where the first of eight bytes is that is below `limit`, which is at most 128.
#[inline]
fn find_below(eight: u64, limit: u8) -> Option<usize> {
    let below = eight.wrapping_sub(ONES * u64::from(limit)) & !eight & HIGHS;
    (below != 0).then(|| (below.trailing_zeros() / u8::BITS) as usize)
}

/// Where the first byte is that `in_eight` finds among eight, or `alone` finds by itself.
#[inline]
fn find(
    bytes: &[u8],
    in_eight: impl Fn(u64) -> Option<usize>,
    alone: impl Fn(u8) -> bool,
) -> Option<usize> {
    let (eights, rest) = bytes.as_chunks::<8>();
    for (index, eight) in eights.iter().enumerate() {
        if let Some(place) = in_eight(u64::from_le_bytes(*eight)) {
            return Some(index * 8 + place);
        }
    }
    let place = rest.iter().position(|byte| alone(*byte))?;
    Some(eights.len() * 8 + place)
}

#[inline]
fn find_byte(bytes: &[u8], wanted: u8) -> Option<usize> {
    let mask = ONES * u64::from(wanted);
    find(bytes, |eight| find_below(eight ^ mask, 1), |byte| byte == wanted)
}

/// Where the first space, line end or other control character is.
#[inline]
pub(crate) fn find_blank(bytes: &[u8]) -> Option<usize> {
    const ABOVE_SPACE: u8 = b' ' + 1;
    find(bytes, |eight| find_below(eight, ABOVE_SPACE), |byte| byte < ABOVE_SPACE)
}

/// Where the first newline is.
#[inline]
pub(crate) fn find_newline(bytes: &[u8]) -> Option<usize> {
    /// Most lines are shorter; behind it, memchr wins.
    const NEAR_BYTES: usize = 64;
    match bytes.split_at_checked(NEAR_BYTES) {
        None => find_byte(bytes, b'\n'),
        Some((near, far)) => {
            find_byte(near, b'\n').or_else(|| memchr(b'\n', far).map(|place| NEAR_BYTES + place))
        }
    }
}

/// A short decimal number at the beginning, and what follows it. `None` also for a long one.
#[inline]
pub(crate) fn take_digits(bytes: &[u8]) -> Option<(u32, &[u8])> {
    /// 10^9 is below 2^31.
    const DIGITS_MAX: usize = 9;
    let mut number = 0;
    let mut digits = 0;
    for byte in bytes.iter().take(DIGITS_MAX) {
        let digit = byte.wrapping_sub(b'0');
        if 9 < digit {
            break;
        }
        number = number * 10 + u32::from(digit);
        digits += 1;
    }
    (0 < digits).then(|| (number, &bytes[digits..]))
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
    use super::{Words, find_newline, signed, unsigned};

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
    fn a_newline_is_found_wherever_it_is() {
        for length in 0..200 {
            let mut line = vec![b'\r' - 1 + (length % 2) as u8 * 0xf0; length];
            line.retain(|byte| *byte != b'\n');
            assert_eq!(find_newline(&line), None);
            line.extend_from_slice(b"\n\n");
            assert_eq!(find_newline(&line), Some(line.len() - 2));
        }
    }

    #[test]
    fn the_end_of_a_word_is_found_wherever_it_is() {
        for length in 1..40 {
            let line = [b"\x1f\x21\xa0\0".repeat(10)[..length].to_vec(), b" x".to_vec()].concat();
            assert_eq!(Words(&line).map(<[u8]>::len).collect::<Vec<_>>(), [length, 1]);
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
            if !word.is_empty() {
                let line = format!(" {word} next");
                let mut words = Words(line.as_bytes());
                assert_eq!(words.next_unsigned(), Some(number), "{word:?}");
                assert_eq!(words.next(), Some(b"next".as_slice()), "{word:?}");
            }
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
            let mut words = Words(word.as_bytes());
            assert_eq!(words.next_signed(), Some(number), "{word:?}");
            assert_eq!(words.next_signed(), None, "{word:?}");
        }
    }
}
