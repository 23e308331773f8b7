//! Whether two sides hold the same set of records.
//!
//! The digest of a set is the sum, modulo 2^128, of the XXH3-128 hash of each record's bytes
//! ([`crate::control::record`]). So it does not depend on any order; a change costs one subtraction
//! and one addition; and a set of a million is summed up again in some ten milliseconds. It finds
//! what goes wrong by itself (a flipped bit, a lost change). It is no proof against somebody who
//! wants two sets to look alike: both ends are ours, and mutual TLS is between them.

use std::fmt;

use twox_hash::XxHash3_128;

use super::record::Record;

/// The digest of a set of records. The empty set's is zero.
///
/// Shown as 32 hexadecimal digits; `{:.12}` shows the first twelve, enough for people.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SetDigest(u128);

impl SetDigest {
    pub const EMPTY: SetDigest = SetDigest(0);

    pub const fn from_number(number: u128) -> Self {
        SetDigest(number)
    }

    pub const fn number(self) -> u128 {
        self.0
    }

    /// The digest of the set without anything but this record.
    pub fn of(record: &Record) -> Self {
        let mut bytes = Vec::with_capacity(super::record::RECORD_BYTES_MAX);
        record.encode(&mut bytes);
        SetDigest::of_bytes(&bytes)
    }

    /// As [`SetDigest::of`], for a record that is encoded already.
    pub fn of_bytes(record: &[u8]) -> Self {
        SetDigest(XxHash3_128::oneshot(record))
    }

    /// The digest of two sets together that share no record.
    #[must_use]
    pub const fn plus(self, other: SetDigest) -> Self {
        SetDigest(self.0.wrapping_add(other.0))
    }

    /// The digest of this set without `other`, all of which it has.
    #[must_use]
    pub const fn minus(self, other: SetDigest) -> Self {
        SetDigest(self.0.wrapping_sub(other.0))
    }
}

impl fmt::Display for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:032x}", self.0))
    }
}

impl fmt::Debug for SetDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetDigest({self:.12}…)")
    }
}
