//! Remembers keys that were evicted from the small queue not long ago (S3-FIFO's ghost queue).
//!
//! A key that is written again while it is remembered was evicted too early, so it goes straight to
//! the main queue; and such hits tell how much more memory would help. Fingerprints of 16 bits and
//! an age of 16 bits in sets of four: 4 bytes for every second item.

/// Entries of one set.
const SET: usize = 4;
/// Ages are counted in ticks; an entry is forgotten after so many.
const TICKS_REMEMBERED: u16 = 64;
/// Smallest table: of a cache that holds a few items.
const ENTRIES_MIN: usize = 64;

/// Empty until the first eviction, so that a cache with room pays nothing.
#[derive(Default)]
pub(crate) struct Ghost {
    /// fingerprint:16 │ age:16; zero is vacant.
    entries: Box<[u32]>,
    /// Keys remembered so far.
    added: u64,
}

impl Ghost {
    /// Remembers a key, with a table for half as many keys as there are items.
    pub(crate) fn add(&mut self, hash: u64, items: u64) {
        let wanted = (items / 2).next_power_of_two().max(ENTRIES_MIN as u64) as usize;
        // Smaller only when much smaller, so that it does not flutter. What was remembered is
        // lost, which costs a few ghost hits at times when the cache changes its size anyway.
        if wanted > self.entries.len() || wanted * 4 < self.entries.len() {
            self.entries = vec![0; wanted].into();
        }
        self.added += 1;
        let now = self.tick();
        let entry = fingerprint(hash) << 16 | u32::from(now);
        let set = self.set(hash);
        let oldest = (0..SET)
            .max_by_key(|&slot| match self.entries[set + slot] {
                0 => u16::MAX,
                entry => now.wrapping_sub(entry as u16),
            })
            .expect("a set is not empty");
        self.entries[set + oldest] = entry;
    }

    /// Whether the key is remembered; if so, forgets it.
    pub(crate) fn take(&mut self, hash: u64) -> bool {
        if self.entries.is_empty() {
            return false;
        }
        let now = self.tick();
        let set = self.set(hash);
        let found = self.entries[set..set + SET].iter_mut().find(|entry| {
            **entry >> 16 == fingerprint(hash)
                && now.wrapping_sub(**entry as u16) <= TICKS_REMEMBERED
        });
        found.is_some_and(|entry| std::mem::take(entry) != 0)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.len() as u64 * 4
    }

    /// One tick is a 64th of the table's worth of keys.
    fn tick(&self) -> u16 {
        (self.added / (self.entries.len() as u64 / u64::from(TICKS_REMEMBERED))) as u16
    }

    fn set(&self, hash: u64) -> usize {
        ((hash >> 8) as usize & (self.entries.len() / SET - 1)) * SET
    }
}

/// Never zero, so that no entry looks vacant. Other bits of the hash than choose the set.
fn fingerprint(hash: u64) -> u32 {
    (hash >> 48) as u32 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spreads small numbers over all bits, as a hash does.
    fn hash(number: u64) -> u64 {
        number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
            ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    #[test]
    fn a_key_is_remembered_once() {
        let mut ghost = Ghost::default();
        assert!(!ghost.take(hash(1)));
        ghost.add(hash(1), 10_000);
        assert!(ghost.take(hash(1)));
        assert!(!ghost.take(hash(1)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "it takes minutes there; no `unsafe` is near")]
    fn keys_are_forgotten_as_others_come() {
        let mut ghost = Ghost::default();
        let items = 8_192;
        (0..20_000).for_each(|key| ghost.add(hash(key), items));
        let young = (19_000..20_000).filter(|&key| ghost.take(hash(key))).count();
        let old = (0..10_000).filter(|&key| ghost.take(hash(key))).count();
        assert!(young > 950, "{young} of the last 1,000");
        assert!(old < 100, "{old} of the first 10,000");
    }
}
