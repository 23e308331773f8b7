//! Passwords at rest: sealed, so that a copy of the database alone opens no cache.
//!
//! A sealed password is a random nonce of 96 bits followed by the ChaCha20-Poly1305 ciphertext
//! (RFC 8439). The username is authenticated along with it, so a sealed password moved to another
//! credential's row does not open. Random nonces are safe for 2^32 passwords under one key.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tenancy::id::{CacheId, Username};
use tenancy::secret::{SECRET_RANDOM_BYTES, Secret, SecretKey};

pub(crate) const NONCE_BYTES: usize = 12;

/// The installation's master key, as it lies in the data directory. Only derived keys are used.
pub(crate) struct MasterKey(pub(crate) [u8; 32]);

impl MasterKey {
    /// The key under which the data plane's password hashes are made.
    pub(crate) fn secret_key(&self) -> SecretKey {
        SecretKey::new(self.node_key())
    }

    /// The bytes of that key, on their way to a node that joins.
    pub(crate) fn node_key(&self) -> [u8; 32] {
        self.derive(b"larder 1: password hashes")
    }

    pub(crate) fn dashboard_keys(&self) -> DashboardKeys {
        DashboardKeys {
            secrets: self.derive(b"larder 1: dashboard secrets"),
            forms: self.derive(b"larder 1: dashboard forms"),
        }
    }

    pub(crate) fn sealer(&self) -> Sealer {
        let key = self.derive(b"larder 1: password sealing");
        Sealer(ChaCha20Poly1305::new(Key::from_slice(&key)))
    }

    /// What tells this key from another one, and nothing more about it.
    pub(crate) fn check(&self) -> [u8; 32] {
        self.derive(b"larder 1: key check")
    }

    /// One independent key per purpose: HMAC-SHA-256 of the purpose under the master key.
    fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        derive(&self.0, purpose)
    }
}

/// HMAC-SHA-256.
fn derive(key: &[u8; 32], of: &[u8]) -> [u8; 32] {
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.chain_update(of).finalize().into_bytes().into()
}

/// What the dashboard's own secrets are derived under, instead of being stored.
pub(crate) struct DashboardKeys {
    secrets: [u8; 32],
    forms: [u8; 32],
}

impl DashboardKeys {
    /// What stands in the URL of a cache's dashboard, for as long as the nonce stays.
    pub(crate) fn secret(&self, cache: CacheId, nonce: &[u8; 16]) -> Secret {
        let mut of = cache.get().to_le_bytes().to_vec();
        of.extend(nonce);
        secret(&derive(&self.secrets, &of))
    }

    /// What every form of a session must send along: nobody can know it who has not seen a page of
    /// that session.
    pub(crate) fn form_token(&self, session: &Secret) -> Secret {
        secret(&derive(&self.forms, session.reveal().as_bytes()))
    }
}

fn secret(hash: &[u8; 32]) -> Secret {
    let random = hash.first_chunk::<SECRET_RANDOM_BYTES>().expect("a hash has 32 bytes");
    Secret::from_random(*random)
}

/// Seals passwords and opens them again.
pub(crate) struct Sealer(ChaCha20Poly1305);

impl Sealer {
    /// `nonce` must be random and fresh: two passwords under one nonce would give both away.
    pub(crate) fn seal(
        &self,
        username: &Username,
        secret: &Secret,
        nonce: [u8; NONCE_BYTES],
    ) -> Vec<u8> {
        self.seal_for(username.as_bytes(), secret, nonce)
    }

    /// Like [`Sealer::seal`], for what has no username: only the same `context` opens it.
    pub(crate) fn seal_for(
        &self,
        context: &[u8],
        secret: &Secret,
        nonce: [u8; NONCE_BYTES],
    ) -> Vec<u8> {
        let payload = Payload { msg: secret.reveal().as_bytes(), aad: context };
        let ciphertext = self
            .0
            .encrypt(Nonce::from_slice(&nonce), payload)
            .expect("fails only for messages of more than 256 GiB");
        [&nonce[..], &ciphertext].concat()
    }

    pub(crate) fn open(&self, username: &Username, sealed: &[u8]) -> Result<Secret, BrokenSeal> {
        self.open_for(username.as_bytes(), sealed)
    }

    pub(crate) fn open_for(&self, context: &[u8], sealed: &[u8]) -> Result<Secret, BrokenSeal> {
        let (nonce, ciphertext) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(BrokenSeal)?;
        let payload = Payload { msg: ciphertext, aad: context };
        let opened = self.0.decrypt(Nonce::from_slice(nonce), payload).map_err(|_| BrokenSeal)?;
        let text = str::from_utf8(&opened).map_err(|_| BrokenSeal)?;
        Secret::parse(text).map_err(|_| BrokenSeal)
    }
}

/// The sealed password was changed, belongs to another username, or was sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed password does not open with this installation's key")]
pub struct BrokenSeal;

#[cfg(test)]
mod tests {
    use super::*;

    fn username(name: &str) -> Username {
        Username::parse(name).expect("a good name")
    }

    fn sealed() -> (Sealer, Secret, Vec<u8>) {
        let sealer = MasterKey([1; 32]).sealer();
        let secret = Secret::from_random([5; 20]);
        let sealed = sealer.seal(&username("ann"), &secret, [3; NONCE_BYTES]);
        (sealer, secret, sealed)
    }

    #[test]
    fn what_was_sealed_opens_again() {
        let (sealer, secret, sealed) = sealed();
        assert_eq!(sealer.open(&username("ann"), &sealed), Ok(secret));
    }

    #[test]
    fn another_username_or_key_does_not_open_it() {
        let (sealer, _, sealed) = sealed();
        assert_eq!(sealer.open(&username("bob"), &sealed), Err(BrokenSeal));
        assert_eq!(MasterKey([2; 32]).sealer().open(&username("ann"), &sealed), Err(BrokenSeal));
    }

    #[test]
    fn any_changed_or_missing_byte_breaks_it() {
        let (sealer, _, sealed) = sealed();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(sealer.open(&username("ann"), &changed), Err(BrokenSeal), "byte {at}");
            assert_eq!(sealer.open(&username("ann"), &sealed[..at]), Err(BrokenSeal), "cut {at}");
        }
    }

    #[test]
    fn the_password_cannot_be_seen_in_it() {
        let (_, secret, sealed) = sealed();
        assert!(!sealed.windows(4).any(|part| secret.reveal().as_bytes().starts_with(part)));
    }

    #[test]
    fn the_two_derived_keys_differ() {
        let key = MasterKey([1; 32]);
        assert_ne!(
            key.derive(b"larder 1: password hashes"),
            key.derive(b"larder 1: password sealing")
        );
    }
}
