//! What the keys and values look like, so that a wrong answer can be told from a right one.
//!
//! Every item has an index; its key and its value are computed from the index and the seed, and
//! checked against them when they come back. No table of items is kept, so ten million cost no
//! memory and no cache misses here.
//!
//! ```text
//! key    tag, up to 12 digits of base 32, padding         k7f2m0qd91x3a----
//! value  version (4), length (4), bytes drawn from (index, version, seed)
//! ```
//!
//! The version counts the writes of one thread: two writes of a key differ. Values shorter than 16
//! bytes have no header and are drawn from (index, seed) alone.

use crate::random::{GOLDEN, mix, scale};
use crate::size::{Size, Sizes};

/// The longest key of the memcached protocol.
pub(crate) const KEY_BYTES_MAX: usize = 250;
/// Room for the tag and one pair of digits.
pub(crate) const KEY_BYTES_MIN: usize = 3;
/// Longer values are not what a cache is for; Larder and memcached refuse more than 1 MiB unless
/// told otherwise.
pub(crate) const VALUE_BYTES_MAX: u32 = 8 * 1024 * 1024;

/// Which kind of item an index belongs to: both kinds count their indices from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An ordinary item.
    Value,
    /// A number for `incr`.
    Counter,
}

/// Writes and checks keys and values.
#[derive(Debug, Clone)]
pub(crate) struct Items {
    seed: u64,
    /// The largest count of keys that the shortest key can tell apart decides how many digits
    /// every key has; see [`pairs`].
    key_sizes: Sizes,
    value_sizes: Sizes,
    /// The key last written; its end is always padding.
    key: [u8; KEY_BYTES_MAX],
}

impl Items {
    pub(crate) fn new(seed: u64, key_size: Size, value_size: Size) -> Items {
        Items {
            seed: mix(seed),
            key_sizes: Sizes::new(key_size),
            value_sizes: Sizes::new(value_size),
            key: [PADDING; KEY_BYTES_MAX],
        }
    }

    /// How many keys of this length are different.
    pub(crate) fn keys_max(key_bytes: u32) -> u64 {
        1 << (PAIR_BITS * pairs(key_bytes as usize) as u32)
    }

    pub(crate) fn key(&mut self, kind: Kind, index: u64) -> &[u8] {
        let len = self.key_sizes.draw(mix(index ^ self.seed));
        let pairs = pairs(len);
        let mut digits = scramble(index, self.seed, PAIR_BITS * pairs as u32);
        self.key[0] = match kind {
            Kind::Value => b'k',
            Kind::Counter => b'c',
        };
        for pair in 0..pairs {
            let place = (digits & (PAIR_COUNT as u64 - 1)) as usize;
            self.key[1 + 2 * pair..3 + 2 * pair].copy_from_slice(&PAIRS[place]);
            digits >>= PAIR_BITS;
        }
        // A longer key may have left a digit here.
        if let Some(rest) = self.key.get_mut(1 + 2 * pairs..len) {
            rest.fill(PADDING);
        }
        &self.key[..len]
    }

    pub(crate) fn value_len(&self, index: u64, version: u32) -> usize {
        self.value_sizes.draw(self.stream(index, version))
    }

    /// Appends the value that [`Items::is_right`] will accept for this index.
    pub(crate) fn write_value(&self, index: u64, version: u32, len: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + len, 0);
        let value = &mut out[start..];
        let (body, stream) = if len < VERSIONED_BYTES_MIN {
            (value, self.stream(index, 0))
        } else {
            let (header, body) = value.split_at_mut(HEADER_BYTES);
            header[..4].copy_from_slice(&version.to_le_bytes());
            header[4..].copy_from_slice(&(len as u32).to_le_bytes());
            (body, self.stream(index, version))
        };
        let mut words = body.chunks_exact_mut(8);
        let mut place = stream;
        for bytes in words.by_ref() {
            bytes.copy_from_slice(&word(place).to_le_bytes());
            place = place.wrapping_add(GOLDEN);
        }
        let rest = words.into_remainder();
        rest.copy_from_slice(&word(place).to_le_bytes()[..rest.len()]);
    }

    /// Whether these bytes are a value that was written for this index, whole.
    pub(crate) fn is_right(&self, index: u64, value: &[u8]) -> bool {
        let (body, stream) = if value.len() < VERSIONED_BYTES_MIN {
            (value, self.stream(index, 0))
        } else {
            let (header, body) = value.split_at(HEADER_BYTES);
            if le_u32(&header[4..]) as usize != value.len() {
                return false;
            }
            (body, self.stream(index, le_u32(&header[..4])))
        };
        let mut words = body.chunks_exact(8);
        let mut place = stream;
        let mut difference = 0;
        for bytes in words.by_ref() {
            difference |= le_u64(bytes) ^ word(place);
            place = place.wrapping_add(GOLDEN);
        }
        let rest = words.remainder();
        difference == 0 && *rest == word(place).to_le_bytes()[..rest.len()]
    }

    fn stream(&self, index: u64, version: u32) -> u64 {
        mix(self.seed ^ index.wrapping_mul(GOLDEN) ^ (u64::from(version) << 17))
    }
}

const HEADER_BYTES: usize = 8;
/// Shorter values carry no header: there would be too few bytes left to prove its version by.
const VERSIONED_BYTES_MIN: usize = 2 * HEADER_BYTES;

/// One word of a value. Weaker than [`mix`], for all that is asked of it is to be different in
/// different places.
fn word(place: u64) -> u64 {
    (place ^ (place >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("callers cut four bytes"))
}

fn le_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("callers cut eight bytes"))
}

const PADDING: u8 = b'-';

/// How many pairs of digits a key of this length has room for beside its tag.
fn pairs(key_bytes: usize) -> usize {
    // Twelve digits are 60 bits: more keys than anyone has.
    (key_bytes.saturating_sub(1) / 2).min(6)
}

const PAIR_BITS: u32 = 10;
const PAIR_COUNT: usize = 1 << PAIR_BITS;

/// Both digits of every number below 1,024 in base 32.
static PAIRS: [[u8; 2]; PAIR_COUNT] = {
    let digits = b"0123456789abcdefghijklmnopqrstuv";
    let mut pairs = [[0; 2]; PAIR_COUNT];
    let mut number = 0;
    while number < PAIR_COUNT {
        pairs[number] = [digits[number / 32], digits[number % 32]];
        number += 1;
    }
    pairs
};

/// Shuffles the numbers of `bits` bits, so that neighbours and popular keys look unlike each other.
/// Each step can be undone, so different indices keep different keys.
fn scramble(index: u64, seed: u64, bits: u32) -> u64 {
    let mask = (1_u64 << bits) - 1;
    let moved = index.wrapping_add(seed) & mask;
    let spread = moved.wrapping_mul(GOLDEN) & mask;
    let folded = spread ^ (spread >> (bits / 2));
    folded.wrapping_mul(0xBF58_476D_1CE4_E5B9) & mask
}

/// Which of `counters` numbers a key's popularity points at.
pub(crate) fn counter_of(index: u64, counters: u64) -> u64 {
    scale(mix(index), counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, proptest};
    use std::collections::HashSet;

    fn items(value_size: Size) -> Items {
        Items::new(1, Size::Fixed(16), value_size)
    }

    #[test]
    fn every_index_has_its_own_key_of_the_wanted_length() {
        for len in [3, 4, 5, 12, 13, 14, 40, 250] {
            let count = Items::keys_max(len).min(20_000);
            let mut items = Items::new(9, Size::Fixed(len), Size::Fixed(1));
            let keys: HashSet<Vec<u8>> =
                (0..count).map(|index| items.key(Kind::Value, index).to_vec()).collect();
            assert_eq!(keys.len() as u64, count, "length {len}");
            assert!(keys.iter().all(|key| key.len() == len as usize), "length {len}");
        }
    }

    #[test]
    fn a_key_does_not_depend_on_the_key_before_it() {
        let size = Size::Uniform { min: 5, max: 30 };
        let mut items = Items::new(9, size, Size::Fixed(1));
        let fresh = |index| Items::new(9, size, Size::Fixed(1)).key(Kind::Value, index).to_vec();
        for index in 0..1_000 {
            assert_eq!(items.key(Kind::Value, index), fresh(index));
        }
    }

    #[test]
    fn keys_need_no_escaping() {
        let mut items = Items::new(9, Size::Fixed(250), Size::Fixed(1));
        assert!(items.key(Kind::Counter, 5).iter().all(u8::is_ascii_graphic));
    }

    #[test]
    fn another_seed_has_other_keys_and_values() {
        let mut one = items(Size::Fixed(100));
        let mut two = Items::new(2, Size::Fixed(16), Size::Fixed(100));
        assert_ne!(one.key(Kind::Value, 1), two.key(Kind::Value, 1));
        let mut value = Vec::new();
        one.write_value(1, 0, 100, &mut value);
        assert!(!two.is_right(1, &value));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_value_is_right_for_its_own_index_and_no_other(
            index in 0..u64::from(u32::MAX), version in any::<u32>(), len in 0..5_000_usize,
        ) {
            let items = items(Size::Fixed(1));
            let mut value = Vec::new();
            items.write_value(index, version, len, &mut value);
            assert_eq!(value.len(), len);
            assert!(items.is_right(index, &value));
            // Two bytes can be the same by chance, and the header alone names no index.
            if len >= VERSIONED_BYTES_MIN {
                assert!(!items.is_right(index + 1, &value));
                assert!(!items.is_right(index, &value[..len - 1]));
            }
        }

        #[test]
        fn a_changed_byte_is_seen(len in 1..2_000_usize, place in any::<u64>()) {
            let items = items(Size::Fixed(1));
            let mut value = Vec::new();
            items.write_value(7, 3, len, &mut value);
            let place = scale(place, len as u64) as usize;
            value[place] ^= 1;
            assert!(!items.is_right(7, &value));
        }
    }
}
