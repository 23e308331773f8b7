//! Passwords, and the keyed hashes that stand for them in the data plane.
//!
//! Passwords are made by the server with 160 bits of chance, so nobody can guess one from its hash
//! and a slow hash would protect nothing; it would only cost 95 ms per connection. What the key
//! adds: a stolen table of hashes does not even tell whether two passwords are equal or whether a
//! password found elsewhere is one of them.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::id::ALPHABET;

/// Random bytes in a server-made password: 160 bits, above the 128 that no one can search.
pub const SECRET_RANDOM_BYTES: usize = 20;

/// Shortest and longest password in bytes. The upper limit lets the data plane refuse a longer one
/// without hashing it.
pub const SECRET_BYTES_MIN: usize = 16;
pub const SECRET_BYTES_MAX: usize = 128;

/// A credential's password in clear. Exists only on its way to its owner; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// A server-made password: 32 letters and digits, five random bits each.
    pub fn from_random(random: [u8; SECRET_RANDOM_BYTES]) -> Self {
        let mut text = String::with_capacity(SECRET_RANDOM_BYTES * 8 / 5);
        for five_bytes in random.as_chunks::<5>().0 {
            let bits = five_bytes.iter().fold(0u64, |bits, b| (bits << 8) | u64::from(*b));
            for place in (0..8).rev() {
                text.push(char::from(ALPHABET[(bits >> (5 * place)) as usize & 31]));
            }
        }
        Secret(text.into())
    }

    /// A password made elsewhere: [`SECRET_BYTES_MIN`] to [`SECRET_BYTES_MAX`] printable ASCII
    /// characters without a space, so that every dialect can carry it.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let fits = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&text.len());
        if !fits || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(InvalidSecret);
        }
        Ok(Secret(text.into()))
    }

    /// The password itself. Named so that a reader notices where it leaves its wrapping.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a password is {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} printable characters without spaces"
)]
pub struct InvalidSecret;

/// The installation's key for password hashes: HMAC-SHA-256 (RFC 2104) with the key's two blocks
/// already digested, which halves the cost of each hash.
#[derive(Clone)]
pub struct SecretKey(Hmac<Sha256>);

impl SecretKey {
    pub fn new(key: [u8; 32]) -> Self {
        SecretKey(Hmac::new_from_slice(&key).expect("HMAC takes a key of any length"))
    }

    /// The hash that stands for this password of this user. The username is part of it, so that one
    /// user's hash is worth nothing under another's name; the NUL between them can be in neither.
    pub fn hash(&self, username: &[u8], password: &[u8]) -> SecretHash {
        let mut mac = self.0.clone();
        mac.update(username);
        mac.update(&[0]);
        mac.update(password);
        SecretHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// Keyed hash of a username and its password. Has no `==`: it is compared in constant time only.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// A hash read back from where [`SecretHash::bytes`] was kept.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        SecretHash(bytes)
    }

    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether both stand for the same password; takes the same time whatever the answer.
    pub fn matches(&self, other: &SecretHash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    #[test]
    fn a_made_password_holds_every_random_bit() {
        assert_eq!(Secret::from_random([0; 20]).reveal(), "0".repeat(32));
        assert_eq!(Secret::from_random([255; 20]).reveal(), "z".repeat(32));
        let mut one_bit = [0; 20];
        one_bit[19] = 1;
        assert_eq!(Secret::from_random(one_bit).reveal(), format!("{}1", "0".repeat(31)));
    }

    #[test]
    fn passwords_that_a_dialect_could_not_carry_are_refused() {
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        for bad in ["", "short", "with a space in it", "with\0a-nul-in-it--", &long] {
            assert_eq!(Secret::parse(bad), Err(InvalidSecret), "{bad:?}");
        }
    }

    #[test]
    fn the_hash_is_hmac_sha_256() {
        // From Python: hmac.new(b"\x0b" * 32, b"user\0password", "sha256").hexdigest()
        let hash = SecretKey::new([0x0b; 32]).hash(b"user", b"password");
        let hex: String = hash.bytes().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "78b9038536ce4ceec4ac8c5753736e9bd8cb827b4057c1431dcb8ba211cc73db");
    }

    #[test]
    fn nothing_secret_is_shown_by_debug() {
        let secret = Secret::from_random([7; 20]);
        let key = SecretKey::new([7; 32]);
        let hash = key.hash(b"user", secret.reveal().as_bytes());
        let shown = format!("{secret:?} {key:?} {hash:?}");
        assert_eq!(shown, "Secret(…) SecretKey(…) SecretHash(…)");
    }

    proptest! {
        #[test]
        fn a_made_password_parses_to_itself(random in any::<[u8; 20]>()) {
            let made = Secret::from_random(random);
            assert_eq!(Secret::parse(made.reveal()), Ok(made));
        }

        #[test]
        fn only_the_same_user_key_and_password_match(
            user in "[a-z]{1,5}", other in "[a-z]{1,5}", one in ".{0,9}", two in ".{0,9}",
        ) {
            let key = SecretKey::new([1; 32]);
            let hash = key.hash(user.as_bytes(), one.as_bytes());
            let same = user == other && one == two;
            assert_eq!(hash.matches(&key.hash(other.as_bytes(), two.as_bytes())), same);
            let elsewhere = SecretKey::new([2; 32]).hash(user.as_bytes(), one.as_bytes());
            assert!(!hash.matches(&elsewhere));
        }
    }
}
