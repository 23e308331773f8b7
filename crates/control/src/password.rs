//! Passwords that people choose: hashed slowly, so that a stolen table does not give them away.
//!
//! Argon2id (RFC 9106) with 19 MiB and two passes, the least that OWASP's "Password Storage Cheat Sheet"
//! recommends: some 30 ms of one core, for a handful of logins a day.

use std::fmt;

use argon2::password_hash::{self, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

/// Shortest password in bytes: with a login every minute at most, guessing one of twelve characters is
/// hopeless unless it is in every list.
pub const PASSWORD_BYTES_MIN: usize = 12;
/// Longest one: what does not fit a line is a mistake.
pub const PASSWORD_BYTES_MAX: usize = 128;

/// A password as someone chose it; spaces and letters of all scripts are welcome. `Debug` does not show
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Box<str>);

impl Password {
    pub fn parse(text: &str) -> Result<Self, InvalidPassword> {
        let fits = (PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&text.len());
        if !fits || text.chars().any(char::is_control) {
            return Err(InvalidPassword);
        }
        Ok(Password(text.into()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password is {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes on one line")]
pub struct InvalidPassword;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A PHC string: algorithm, parameters, salt and hash.
#[derive(Debug)]
pub(crate) struct PasswordHash(pub(crate) String);

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("within Argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

pub(crate) fn hash(password: &Password, salt: &[u8; 16]) -> PasswordHash {
    let salt = SaltString::encode_b64(salt).expect("16 bytes are the length that is recommended");
    let hash = argon2().hash_password(password.0.as_bytes(), &salt);
    PasswordHash(hash.expect("a good salt and a short password").to_string())
}

/// Whether the password is the one of this hash; without a hash it is not, after the same time.
pub(crate) fn matches(password: &str, hash: Option<&PasswordHash>) -> bool {
    let known = hash.and_then(|hash| password_hash::PasswordHash::new(&hash.0).ok());
    match known {
        Some(known) => argon2().verify_password(password.as_bytes(), &known).is_ok(),
        None => {
            let mut out = [0; 32];
            let salt = b"the salt of none";
            // For the time it takes; no hash is equal to nothing.
            let hashed = argon2().hash_password_into(password.as_bytes(), salt, &mut out);
            debug_assert!(hashed.is_ok(), "the salt is long enough");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_itself_matches() {
        let password = Password::parse("correct horse battery").expect("long enough");
        let hash = hash(&password, &[7; 16]);
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert!(matches("correct horse battery", Some(&hash)));
        for wrong in ["", "correct horse batterx", "correct horse battery "] {
            assert!(!matches(wrong, Some(&hash)), "{wrong:?}");
        }
        assert!(!matches("correct horse battery", None));
        assert!(!matches("x", Some(&PasswordHash("not a PHC string".to_owned()))));
    }

    #[test]
    fn short_and_broken_passwords_are_refused() {
        for bad in ["", "elevenbytes", "two\nlines of text", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            assert_eq!(Password::parse(bad), Err(InvalidPassword), "{bad:?}");
        }
        assert!(Password::parse("größer als zwölf").is_ok());
    }
}
