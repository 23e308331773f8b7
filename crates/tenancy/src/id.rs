//! The names of things: caches by number, credentials by username.

use std::fmt;

/// Which cache. Numbers are never given twice, not even after a cache is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheId(u64);

impl CacheId {
    pub const fn new(number: u64) -> Self {
        CacheId(number)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CacheId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Longest username in bytes. With its length byte it fills 32 bytes, so that a million of them
/// need no allocation of their own.
pub const USERNAME_BYTES_MAX: usize = 31;

/// The name a client authenticates with: 1 to [`USERNAME_BYTES_MAX`] ASCII letters, digits, `-`,
/// `_` or `.`; unique in the installation.
///
/// No space and no NUL, because the text dialects separate it from the password by a space and
/// SASL PLAIN by a NUL (RFC 4616).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Username {
    bytes: [u8; USERNAME_BYTES_MAX],
    length: u8,
}

impl Username {
    /// A server-made name from random bytes: 10 characters, 50 bits. Whoever stores it must still
    /// refuse a name that is taken.
    pub fn from_random(random: [u8; 10]) -> Self {
        let mut bytes = [0; USERNAME_BYTES_MAX];
        for (byte, chance) in bytes.iter_mut().zip(random) {
            *byte = ALPHABET[usize::from(chance) % ALPHABET.len()].to_ascii_uppercase();
        }
        Username { bytes, length: 10 }
    }

    pub fn parse(name: &str) -> Result<Self, InvalidUsername> {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > USERNAME_BYTES_MAX || !name.as_bytes().iter().all(plain)
        {
            return Err(InvalidUsername);
        }
        let mut bytes = [0; USERNAME_BYTES_MAX];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let length = u8::try_from(name.len()).expect("at most USERNAME_BYTES_MAX");
        Ok(Username { bytes, length })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("only ASCII is ever let in")
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Username({self})")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a username is 1 to {USERNAME_BYTES_MAX} letters, digits, '-', '_' or '.'")]
pub struct InvalidUsername;

/// 32 letters and digits that people do not confuse (no i, l, o, u), so that five bits of chance
/// make one character and no bit is lost.
pub(crate) const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    #[test]
    fn names_that_clients_could_not_send_are_refused() {
        for bad in ["", "a b", "a\0b", "ü", "a:b", &"x".repeat(USERNAME_BYTES_MAX + 1)] {
            assert_eq!(Username::parse(bad), Err(InvalidUsername), "{bad:?}");
        }
    }

    #[test]
    fn the_longest_name_is_kept_whole() {
        let name = "x".repeat(USERNAME_BYTES_MAX);
        assert_eq!(Username::parse(&name).expect("within the limit").as_str(), name);
    }

    proptest! {
        #[test]
        fn a_made_name_parses_to_itself(random in any::<[u8; 10]>()) {
            let made = Username::from_random(random);
            assert_eq!(Username::parse(made.as_str()), Ok(made));
        }

        #[test]
        fn a_name_either_comes_back_or_is_refused(name in ".{0,40}") {
            if let Ok(username) = Username::parse(&name) {
                assert_eq!(username.as_str(), name);
            }
        }
    }
}
