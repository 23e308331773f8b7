//! The few keys of a sequence, and values and numbers that commands trip over.

use crate::differential::random::{Random, Sizes};

/// Which of a sequence's keys. There are few, so that commands meet the same item.
pub type KeyId = usize;

/// What follows the prefix. The last has every byte that a text key may not have, for dialects that
/// may; the one before is the longest key allowed, the others are ordinary.
pub fn suffix(key: KeyId) -> Vec<u8> {
    match key {
        0 => b"a".to_vec(),
        1 => b"bb".to_vec(),
        2 => b"n\xc3\xa4chste".to_vec(),
        LONGEST => vec![b'l'; 250 - PREFIX_BYTES],
        BINARY => (0..=255).step_by(5).chain([0, b' ', b'\r', b'\n']).collect(),
        _ => unreachable!("there are {KEYS} keys"),
    }
}

/// A prefix of this many decimal digits; a multiple of 3, so that its base64 can be put before that of
/// the suffix.
pub const PREFIX_BYTES: usize = 9;

const KEYS: usize = 5;
/// The keys before it are short.
pub const LONGEST: KeyId = 3;
/// Has bytes that end words and lines.
pub const BINARY: KeyId = 4;

/// A key that every dialect takes.
pub fn text_key(random: &mut Random) -> KeyId {
    random.below(KEYS - 1)
}

/// A key of any bytes.
pub fn any_key(random: &mut Random) -> KeyId {
    random.below(KEYS)
}

/// A value: often a number or nearly one, sometimes empty, binary or large.
pub fn value(random: &mut Random) -> Vec<u8> {
    match random.below(16) {
        0..5 => number(random).to_vec(),
        5 => Vec::new(),
        6 => b"\r\nEND\r\nSTORED\r\n\0".to_vec(),
        7 => {
            let count = long_value_bytes(random);
            random.bytes(count)
        }
        _ => loop {
            let count = 1 + random.below(120);
            let bytes = random.bytes(count);
            if !is_blank(&bytes) {
                break bytes;
            }
        },
    }
}

/// Whether it is what `strtoull` passes over. Behind a value of nothing else memcached reads on for a
/// number, into memory that held other items.
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t'..=b'\r'))
}

fn long_value_bytes(random: &mut Random) -> usize {
    if random.sizes == Sizes::Small {
        return VALUE_BYTES_SMALL / 2 + random.below(VALUE_BYTES_SMALL / 2);
    }
    match random.below(60) {
        0 => ITEM_BYTES_MAX + 1 + random.below(60_000),
        // Of the last kilobyte below the limit memcached uses some for itself.
        1 | 2 => 30_000 + random.below(ITEM_BYTES_MAX - 31_000),
        _ => 15_000 + random.below(15_000),
    }
}

/// Above all of [`Sizes::Small`].
pub const VALUE_BYTES_SMALL: usize = 400;

/// Largest item of both servers.
const ITEM_BYTES_MAX: usize = 1 << 20;

/// A number or what looks like one.
pub fn number(random: &mut Random) -> &'static [u8] {
    // Older versions take a long number for none now and then, and let a sign pass.
    const BYTES_MAX_COMMON: usize = 10;
    loop {
        let number = random.pick(NUMBERS);
        if random.newest() || (number.len() <= BYTES_MAX_COMMON && number != b"+1") {
            return number;
        }
    }
}

const NUMBERS: &[&[u8]] = &[
    b"0",
    b"1",
    b"5",
    b"9",
    b"10",
    b"99",
    b"100",
    b"00012",
    b"12 ",
    b" 12",
    b"12a",
    b"-1",
    b"+1",
    b"1.5",
    b"4294967295",
    b"9223372036854775807",
    b"9223372036854775808",
    b"18446744073709551614",
    b"18446744073709551615",
    b"18446744073709551616",
    b"99999999999999999999",
    b"184467440737095516150",
    b"abc",
];

pub const FLAGS: &[&str] = &["0", "0", "0", "1", "65535", "65536", "2147483648", "4294967295"];
