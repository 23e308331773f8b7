//! Room for keys that a request writes in other bytes than it means: base64 in the meta dialect.
//!
//! A request borrows its key from the connection's buffer. A key in base64 is not there in its
//! meaning, so the decoder puts its bytes here, and the request borrows them from here instead.

use std::cell::{Cell, OnceCell};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::operation::{KEY_BYTES_MAX, Key};

/// Room for the decoded keys of one batch of requests. Its owner empties it when no request of the
/// batch is left; the compiler sees to that. A decode takes at most one place, so it grows no
/// larger than the owner's batches.
#[derive(Debug)]
pub struct KeyRoom {
    keys: [OnceCell<DecodedKey>; KEYS_AT_ONCE],
    used: Cell<usize>,
    /// For batches with more keys in base64 than most. Kept when emptied.
    more: OnceCell<Box<KeyRoom>>,
}

/// Such keys are rare; a batch of pipelined requests is seldom longer.
const KEYS_AT_ONCE: usize = 16;

/// Four characters of base64 are three bytes, and what is on the wire is no longer than a key.
const DECODED_BYTES_MAX: usize = KEY_BYTES_MAX.div_ceil(4) * 3;

#[derive(Debug)]
struct DecodedKey {
    bytes: [u8; DECODED_BYTES_MAX],
    length: usize,
}

impl KeyRoom {
    pub fn new() -> Self {
        KeyRoom {
            keys: [const { OnceCell::new() }; KEYS_AT_ONCE],
            used: Cell::new(0),
            more: OnceCell::new(),
        }
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        for key in &mut self.keys[..self.used.get()] {
            key.take();
        }
        self.used.set(0);
        if let Some(more) = self.more.get_mut() {
            more.clear();
        }
    }

    /// The key that `encoded` means; `None` if it is not base64 (RFC 4648, section 4, with
    /// padding), or means nothing.
    pub(crate) fn decode(&self, encoded: &[u8]) -> Option<Key<'_>> {
        let place = self.used.get();
        let Some(cell) = self.keys.get(place) else {
            return self.more.get_or_init(|| Box::new(KeyRoom::new())).decode(encoded);
        };
        let mut bytes = [0; DECODED_BYTES_MAX];
        let length = STANDARD.decode_slice(encoded, &mut bytes).ok()?;
        let key = cell.get_or_init(|| DecodedKey { bytes, length });
        self.used.set(place + 1);
        Key::new(&key.bytes[..key.length])
    }
}

impl Default for KeyRoom {
    fn default() -> Self {
        KeyRoom::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{KEYS_AT_ONCE, KeyRoom};

    #[test]
    fn keys_stay_until_the_room_is_emptied_however_many() {
        let mut room = KeyRoom::new();
        for _ in 0..2 {
            let keys: Vec<_> = (0..KEYS_AT_ONCE * 3).map(|_| room.decode(b"Zm9v")).collect();
            assert!(keys.iter().all(|key| key.map(|key| key.bytes()) == Some(b"foo".as_slice())));
            room.clear();
        }
    }

    #[test]
    fn what_is_not_base64_is_no_key() {
        let room = KeyRoom::new();
        for encoded in ["", "Z", "Zm9", "Zm9v!", "Zm9vZ===", "Zm 9v", "===="] {
            assert!(room.decode(encoded.as_bytes()).is_none(), "{encoded:?}");
        }
    }

    #[test]
    fn the_longest_key_on_the_wire_fits() {
        let room = KeyRoom::new();
        assert!(room.decode(&[b'A'; 248]).is_some());
        assert!(room.decode(&[b'A'; 252]).is_some_and(|key| key.bytes().len() == 189));
    }
}
