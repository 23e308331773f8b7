//! One command as pieces that become bytes once a server and a key prefix are known.

use crate::differential::keys::{KeyId, PREFIX_BYTES, suffix};
use std::collections::HashMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Bytes(Vec<u8>),
    Key(KeyId),
    KeyBase64(KeyId),
    /// The token last seen for a key, plus something, in decimal.
    CasText(KeyId, u64),
    /// The same in 8 bytes.
    CasBinary(KeyId, u64),
    /// What memcached is told, and what Larder is told for the same to happen.
    Each([Vec<u8>; 2]),
}

/// Whom bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Memcached,
    Larder,
}

/// Added to a token makes one that no item has. Neither a small number nor a round one: that might make
/// the token of the next item, or of the next generation of items.
pub const OTHER: u64 = 7_340_033_777_777_777_777;

/// The CAS tokens that one server handed out, by whole key.
pub type Tokens = HashMap<Vec<u8>, u64>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    pub pieces: Vec<Piece>,
    /// The key a binary answer belongs to, which does not repeat it.
    pub key: Option<KeyId>,
    pub effect: Effect,
}

/// What decides which commands may follow one another on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Effect {
    #[default]
    Other,
    /// Sends an item, which memcached holds until the answer is written.
    Reads,
    /// Changes a number. While its item is held memcached makes a new one, without the spaces that it
    /// otherwise leaves where a number gets shorter.
    Counts,
}

impl Command {
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Command {
        Command { pieces: vec![Piece::Bytes(bytes.into())], ..Command::default() }
    }

    #[must_use]
    pub fn with(mut self, effect: Effect) -> Command {
        self.effect = effect;
        self
    }

    /// Adds bytes, joined to the piece before where that is bytes too.
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        match self.pieces.last_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes.as_ref()),
            _ => self.pieces.push(Piece::Bytes(bytes.as_ref().to_vec())),
        }
    }

    pub fn key(&mut self, key: KeyId) {
        self.pieces.push(Piece::Key(key));
    }

    /// Tells each server something of its own.
    pub fn each(&mut self, memcached: impl AsRef<[u8]>, larder: impl AsRef<[u8]>) {
        self.pieces.push(Piece::Each([memcached.as_ref().to_vec(), larder.as_ref().to_vec()]));
    }

    pub fn render(&self, side: Side, prefix: u64, tokens: &Tokens, into: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => into.extend_from_slice(bytes),
                Piece::Key(key) => into.extend(whole_key(prefix, *key)),
                Piece::KeyBase64(key) => into.extend(base64(&whole_key(prefix, *key))),
                Piece::CasText(key, plus) => {
                    into.extend(token(tokens, prefix, *key, *plus).to_string().bytes());
                }
                Piece::CasBinary(key, plus) => {
                    into.extend(token(tokens, prefix, *key, *plus).to_be_bytes());
                }
                Piece::Each([memcached, larder]) => into.extend_from_slice(match side {
                    Side::Memcached => memcached,
                    Side::Larder => larder,
                }),
            }
        }
    }
}

pub fn whole_key(prefix: u64, key: KeyId) -> Vec<u8> {
    let mut whole = format!("{prefix:0PREFIX_BYTES$}").into_bytes();
    debug_assert_eq!(whole.len(), PREFIX_BYTES, "prefixes are counted from 0 and few");
    whole.extend(suffix(key));
    whole
}

/// A key whose token is not known gets one that no item has. It is greater than all, because `I` tells
/// older from newer by the number.
fn token(tokens: &Tokens, prefix: u64, key: KeyId, plus: u64) -> u64 {
    const NOBODYS: u64 = 9_100_000_000_000_000_000;
    tokens.get(&whole_key(prefix, key)).map_or(NOBODYS, |token| token.wrapping_add(plus))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            let used = digit <= group.len();
            encoded.push(if used {
                DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]
            } else {
                b'='
            });
        }
    }
    encoded
}

/// The bytes that `encoded` stands for, as far as it is base64.
pub fn from_base64(encoded: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for group in encoded.chunks(4) {
        let digits = group.iter().map_while(|digit| DIGITS.iter().position(|known| known == digit));
        let (count, bits) =
            digits.fold((0, 0), |(count, bits), digit| (count + 1, bits << 6 | digit));
        let bits = bits << (6 * (4 - count));
        bytes.extend((0..count * 6 / 8).map(|byte| (bits >> (16 - 8 * byte) & 0xff) as u8));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_to_four_digits() {
        assert_eq!(base64(b""), b"");
        assert_eq!(base64(b"f"), b"Zg==");
        assert_eq!(base64(b"fo"), b"Zm8=");
        assert_eq!(base64(b"foo"), b"Zm9v");
    }

    #[test]
    fn base64_can_be_read_back() {
        for end in 0..60 {
            let bytes: Vec<u8> = (0..end).map(|byte: u8| byte.wrapping_mul(37)).collect();
            assert_eq!(from_base64(&base64(&bytes)), bytes);
        }
    }
}
