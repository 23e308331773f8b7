//! From a cache and a key to a slot: the unit of ownership.

use std::fmt;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use tenancy::id::CacheId;

/// How many slots there are. A prime, as Maglev needs, and the paper's default: the shares of up to
/// 655 members differ by less than 1 %, and an index of two bytes per slot makes a table of 128 KiB.
pub const SLOTS: u32 = 65_537;

/// Which slot: 0 to [`SLOTS`] - 1. Seventeen bits, so a `u16` is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

impl Slot {
    pub const fn new(number: u32) -> Option<Self> {
        if number < SLOTS { Some(Slot(number)) } else { None }
    }

    /// Every slot, in ascending order.
    pub fn all() -> impl Iterator<Item = Slot> {
        (0..SLOTS).map(Slot)
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// Where the slot stands in an array of [`SLOTS`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The secret under which one cluster hashes keys to slots; 128 random bits, made once, never
/// changed while the cluster holds items.
///
/// It keeps tenants from choosing keys that all land on one backend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SlotKey([u8; 16]);

impl SlotKey {
    pub const fn new(secret: [u8; 16]) -> Self {
        SlotKey(secret)
    }
}

impl fmt::Debug for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotKey(…)")
    }
}

/// Longest cache id and key that are put together before they are hashed: most keys are far shorter.
const AT_ONCE_BYTES_MAX: usize = 64;

/// Finds the slot of a key.
///
/// `slot = SipHash-1-3(slot key, cache id as 8 little-endian bytes ‖ key) mod 65,537`
///
/// SipHash is Aumasson and Bernstein's keyed hash (2012); its 1-3 rounds are what the standard
/// libraries of Rust and Python use against chosen keys. The id has a fixed length, so no two pairs
/// of cache and key share their bytes. Test vectors stand below: an implementation in another
/// language must agree with them.
#[derive(Clone)]
pub struct SlotHasher(SipHasher13);

impl SlotHasher {
    pub fn new(key: &SlotKey) -> Self {
        SlotHasher(SipHasher13::new_with_key(&key.0))
    }

    #[inline]
    pub fn slot(&self, cache: CacheId, key: &[u8]) -> Slot {
        let id = cache.get().to_le_bytes();
        let mut bytes = [0; AT_ONCE_BYTES_MAX];
        // In one piece it takes a third less, and every request of a cluster comes by here.
        let hash = match bytes.get_mut(..id.len() + key.len()) {
            Some(bytes) => {
                bytes[..id.len()].copy_from_slice(&id);
                bytes[id.len()..].copy_from_slice(key);
                self.0.hash(bytes)
            }
            None => {
                let mut hasher = self.0;
                hasher.write(&id);
                hasher.write(key);
                hasher.finish()
            }
        };
        let number = hash % u64::from(SLOTS);
        Slot(u32::try_from(number).expect("less than SLOTS, which is a u32"))
    }

    /// A figure by which two programs find out whether they hash alike, without telling the key:
    /// the keyed hash of a text that is no cache's key, as it is shorter than a cache's id.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = self.0;
        hasher.write(b"larder");
        hasher.finish()
    }
}

impl fmt::Debug for SlotHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotHasher(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    #[test]
    fn the_hash_is_the_published_one() {
        // The paper's key and message (00 01 … 0f and 00 01 … 0e), under the 1-3 rounds of ours; the
        // value is also in the crate's and in the standard library's own tests.
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let message: Vec<u8> = (0..15).collect();
        let mut hasher = SipHasher13::new_with_key(&key);
        hasher.write(&message);
        assert_eq!(hasher.finish(), 0xd320_d86d_2a51_9956);
    }

    #[test]
    fn slots_are_the_golden_ones() {
        let vectors: [(u64, &[u8], u32); 6] = [
            (1, b"", 1_908),
            (1, b"a", 26_177),
            (2, b"a", 58_136),
            (1, b"user:42:profile", 46_984),
            (u64::MAX, b"user:42:profile", 46_830),
            (7, &[0xff; 250], 53_952),
        ];
        for (cache, key, slot) in vectors {
            assert_eq!(hasher().slot(CacheId::new(cache), key).get(), slot, "{cache} {key:?}");
        }
    }

    #[test]
    fn keys_spread_evenly_over_slots() {
        // 655,370 keys give ten per slot; of 65,537 Poisson(10) draws none reaches 40.
        let mut counts = vec![0_u32; SLOTS as usize];
        for number in 0..10 * SLOTS {
            counts[hasher().slot(CacheId::new(3), &number.to_le_bytes()).index()] += 1;
        }
        assert!(counts.iter().all(|&count| count < 40));
        // The chance of an empty slot is e^-10, so three are expected.
        assert!(counts.iter().filter(|&&count| count == 0).count() < 15);
    }

    #[test]
    fn another_cluster_hashes_otherwise() {
        let other = SlotHasher::new(&SlotKey::new([1; 16]));
        let same = (0..1_000_u32).filter(|number| {
            let key = number.to_le_bytes();
            other.slot(CacheId::new(1), &key) == hasher().slot(CacheId::new(1), &key)
        });
        assert!(same.count() < 3);
    }

    #[test]
    fn a_fingerprint_tells_keys_apart() {
        let other = SlotHasher::new(&SlotKey::new([1; 16]));
        assert_ne!(other.fingerprint(), hasher().fingerprint());
        assert_eq!(hasher().fingerprint(), hasher().fingerprint());
    }

    #[test]
    fn a_number_beyond_the_table_is_no_slot() {
        assert_eq!(Slot::new(SLOTS), None);
        assert_eq!(Slot::all().last(), Slot::new(SLOTS - 1));
    }

    /// However a key is put to the hash, its slot is that of the bytes one after the other.
    #[test]
    fn keys_of_any_length_are_hashed_alike() {
        let id = CacheId::new(0x0102_0304_0506_0708);
        for length in 0..=250_u8 {
            let key: Vec<u8> = (0..length).map(|byte| byte ^ length).collect();
            let mut apart = hasher().0;
            id.get().to_le_bytes().iter().chain(&key).for_each(|byte| apart.write(&[*byte]));
            let slot = hasher().slot(id, &key).get();
            assert_eq!(u64::from(slot), apart.finish() % u64::from(SLOTS), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn every_key_has_a_slot(cache in any::<u64>(), key in any::<Vec<u8>>()) {
            let slot = hasher().slot(CacheId::new(cache), &key);
            assert!(slot.get() < SLOTS);
        }
    }

    fn hasher() -> SlotHasher {
        SlotHasher::new(&SlotKey::new(*b"golden slot key."))
    }
}
