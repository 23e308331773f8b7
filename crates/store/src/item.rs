//! How an item lies in memory.
//!
//! ```text
//!   0      4        8      12     15        15+e      15+e+k
//!   ┌──────┬────────┬──────┬──────┬─────────┬─────────┬────────────┐
//!   │ sizes│ expiry │ cas  │ past │ ext (e) │ key (k) │ value …    │   the head (up to the value)
//!   └──────┴────────┴──────┴──────┴─────────┴─────────┴────────────┘   lies in one block
//!    sizes  klen:8 │ vlen:22 │ kind of ext:2
//!    expiry seconds of the store's clock, all ones for never
//!    cas    the CAS value, if it was counted: 32 bits, because some clients read no more
//!    past   last access in seconds, modulo 2^20 │ read │ stale │ won
//!    ext    nothing (client flags 0), 1 byte of flags, 4 bytes, or 4 bytes and a whole CAS value
//!           that a client chose
//! ```
//!
//! Nothing is aligned and nothing is padded: on the machines we know unaligned reads cost nothing.

use crate::operation::{Expiry, Seconds};

/// Bytes before the extension.
pub(crate) const FIXED_BYTES: usize = 15;
/// Longest key; its length is one byte.
pub(crate) const KEY_BYTES_MAX: usize = 255;
/// Longest value; its length has 22 bits.
pub(crate) const VALUE_BYTES_MAX: usize = (1 << 22) - 1;
/// Longest head: fixed part, longest extension, longest key.
pub(crate) const HEAD_BYTES_MAX: usize = FIXED_BYTES + 12 + KEY_BYTES_MAX;

const NEVER: u32 = u32::MAX;
const ACCESS_BITS: u32 = 20;
const ACCESS_MASK: u32 = (1 << ACCESS_BITS) - 1;
const READ: u32 = 1 << ACCESS_BITS;
const STALE: u32 = 1 << (ACCESS_BITS + 1);
const WON: u32 = 1 << (ACCESS_BITS + 2);

/// Bytes of the extension, by its kind.
const EXT_BYTES: [usize; 4] = [0, 1, 4, 12];

/// Everything about an item but its key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    pub(crate) flags: u32,
    pub(crate) expiry: Expiry,
    pub(crate) cas: Cas,
    pub(crate) marks: Marks,
}

/// A CAS value as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cas {
    /// Counted by the cache, in 32 bits.
    Counted(u32),
    /// Chosen by a client.
    Chosen(u64),
}

impl Cas {
    /// As a client sees it.
    #[inline]
    pub(crate) fn value(self) -> u64 {
        match self {
            Cas::Counted(count) => count.into(),
            Cas::Chosen(whole) => whole,
        }
    }
}

/// What happened to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Last read or write, modulo 2^20 seconds.
    pub(crate) accessed: u32,
    pub(crate) read: bool,
    pub(crate) stale: bool,
    pub(crate) won: bool,
}

impl Marks {
    /// Of an item that was just written.
    pub(crate) fn fresh(now: Seconds) -> Self {
        Marks { accessed: now.0 & ACCESS_MASK, read: false, stale: false, won: false }
    }

    #[inline]
    pub(crate) fn idle_seconds(self, now: Seconds) -> u32 {
        now.0.wrapping_sub(self.accessed) & ACCESS_MASK
    }

    #[inline]
    pub(crate) fn access(&mut self, now: Seconds) {
        self.accessed = now.0 & ACCESS_MASK;
    }

    /// Writes them to where they stand in an item's head.
    #[inline]
    pub(crate) fn write(self, bytes: &mut [u8]) {
        bytes[12..FIXED_BYTES].copy_from_slice(&self.pack().to_le_bytes()[..3]);
    }

    #[inline]
    fn pack(self) -> u32 {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        self.accessed | bit(self.read, READ) | bit(self.stale, STALE) | bit(self.won, WON)
    }

    #[inline]
    fn unpack(past: u32) -> Self {
        Marks {
            accessed: past & ACCESS_MASK,
            read: past & READ != 0,
            stale: past & STALE != 0,
            won: past & WON != 0,
        }
    }
}

impl Head {
    /// Bytes up to the value.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        FIXED_BYTES + EXT_BYTES[self.ext_kind()] + self.key_bytes
    }

    /// Bytes of the whole item.
    #[inline]
    pub(crate) fn item_bytes(&self) -> usize {
        self.bytes() + self.value_bytes
    }

    /// What the customer pays for.
    #[inline]
    pub(crate) fn charged_bytes(&self) -> u64 {
        (self.key_bytes + self.value_bytes) as u64
    }

    #[inline]
    fn ext_kind(&self) -> usize {
        match (self.cas, self.flags) {
            (Cas::Chosen(_), _) => 3,
            (Cas::Counted(_), 0) => 0,
            (Cas::Counted(_), 1..=0xff) => 1,
            (Cas::Counted(_), _) => 2,
        }
    }

    /// Reads a head that [`Head::write`] wrote.
    #[inline]
    pub(crate) fn read(bytes: &[u8]) -> Head {
        let sizes = u32_at(bytes, 0);
        let expiry = u32_at(bytes, 4);
        let cas = u32_at(bytes, 8);
        // The byte above the three is cut off; reading four is one instruction.
        let past = u32_at(bytes, 11) >> 8;
        let (flags, cas) = match sizes >> 30 {
            0 => (0, Cas::Counted(cas)),
            1 => (u32::from(bytes[FIXED_BYTES]), Cas::Counted(cas)),
            2 => (u32_at(bytes, FIXED_BYTES), Cas::Counted(cas)),
            _ => (u32_at(bytes, FIXED_BYTES), Cas::Chosen(u64_at(bytes, FIXED_BYTES + 4))),
        };
        Head {
            key_bytes: (sizes & 0xff) as usize,
            value_bytes: (sizes >> 8 & 0x3f_ffff) as usize,
            flags,
            expiry: if expiry == NEVER { Expiry::Never } else { Expiry::At(Seconds(expiry)) },
            cas,
            marks: Marks::unpack(past),
        }
    }

    /// Writes all but the key, which is to follow at [`Head::key_start`].
    #[inline]
    pub(crate) fn write(&self, bytes: &mut [u8]) {
        debug_assert!(self.key_bytes <= KEY_BYTES_MAX && self.value_bytes <= VALUE_BYTES_MAX);
        let kind = self.ext_kind();
        let sizes = self.key_bytes as u32 | (self.value_bytes as u32) << 8 | (kind as u32) << 30;
        let cas = match self.cas {
            Cas::Counted(count) => count,
            Cas::Chosen(whole) => whole as u32,
        };
        bytes[0..4].copy_from_slice(&sizes.to_le_bytes());
        bytes[4..8].copy_from_slice(&raw_expiry(self.expiry).to_le_bytes());
        bytes[8..12].copy_from_slice(&cas.to_le_bytes());
        self.marks.write(bytes);
        match (kind, self.cas) {
            (0, _) => (),
            (1, _) => bytes[FIXED_BYTES] = self.flags as u8,
            (_, Cas::Counted(_)) => bytes[15..19].copy_from_slice(&self.flags.to_le_bytes()),
            (_, Cas::Chosen(whole)) => {
                bytes[15..19].copy_from_slice(&self.flags.to_le_bytes());
                bytes[19..27].copy_from_slice(&whole.to_le_bytes());
            }
        }
    }

    #[inline]
    pub(crate) fn key_start(&self) -> usize {
        FIXED_BYTES + EXT_BYTES[self.ext_kind()]
    }
}

/// Whether the item whose head begins here has this key. Cheaper than reading the head.
#[inline]
pub(crate) fn key_is(bytes: &[u8], key: &[u8]) -> bool {
    let start = FIXED_BYTES + EXT_BYTES[(bytes[3] >> 6) as usize];
    usize::from(bytes[0]) == key.len() && bytes[start..start + key.len()] == *key
}

/// The key of the item whose head begins here.
#[inline]
pub(crate) fn key_of(bytes: &[u8]) -> &[u8] {
    let start = FIXED_BYTES + EXT_BYTES[(bytes[3] >> 6) as usize];
    &bytes[start..start + usize::from(bytes[0])]
}

/// The stored form of an expiry: comparable, never is the greatest.
#[inline]
pub(crate) fn raw_expiry(expiry: Expiry) -> u32 {
    match expiry {
        Expiry::Never => NEVER,
        // The last second of the clock, in 136 years, stands for never.
        Expiry::At(at) => at.0,
    }
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has 4 bytes"))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range has 8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Miri draws a case in half a second.
    const CASES: u32 = if cfg!(miri) { 8 } else { 256 };

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(CASES))]

        #[test]
        fn a_head_reads_as_it_was_written(
            key in proptest::collection::vec(any::<u8>(), 1..=KEY_BYTES_MAX),
            value_bytes in 0..=VALUE_BYTES_MAX,
            flags in prop_oneof![Just(0), 1_u32..256, any::<u32>()],
            expiry in prop_oneof![Just(Expiry::Never), (0..NEVER).prop_map(|at| Expiry::At(Seconds(at)))],
            cas in prop_oneof![any::<u32>().prop_map(Cas::Counted), any::<u64>().prop_map(Cas::Chosen)],
            (accessed, read, stale, won) in any::<(u32, bool, bool, bool)>(),
        ) {
            let marks = Marks { accessed: accessed & ACCESS_MASK, read, stale, won };
            let head = Head { key_bytes: key.len(), value_bytes, flags, expiry, cas, marks };
            let mut bytes = [0xa5; HEAD_BYTES_MAX];
            head.write(&mut bytes);
            bytes[head.key_start()..head.bytes()].copy_from_slice(&key);
            prop_assert_eq!(Head::read(&bytes), head);
            prop_assert!(key_is(&bytes, &key));
            prop_assert!(!key_is(&bytes, &key[1..]));
            prop_assert_eq!(key_of(&bytes), &key[..]);
        }
    }

    #[test]
    fn idle_time_survives_the_wrap_of_its_bits() {
        let marks = Marks::fresh(Seconds(ACCESS_MASK - 3));
        assert_eq!(marks.idle_seconds(Seconds(ACCESS_MASK + 7)), 10);
    }
}
