//! Chance that can be repeated: SplitMix64 from a seed.

use crate::differential::times::{Flushes, Times};

pub struct Random {
    state: u64,
    pub vocabulary: Vocabulary,
    pub times: Times,
    pub flushes: Flushes,
    pub sizes: Sizes,
}

/// How much a command may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// What can be taken for a line, or be split at every byte.
    Small,
    /// Up to 30 KB, and now and then as large as an item may be, and larger; lines of many keys.
    Any,
}

/// What memcached can be asked without its versions disagreeing among themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vocabulary {
    /// Commands that mean the same to every memcached 1.6.
    Common,
    /// Everything that the memcached which Larder follows (1.6.45) knows.
    Newest,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Self::speaking(Vocabulary::Newest, seed)
    }

    pub fn speaking(vocabulary: Vocabulary, seed: u64) -> Random {
        Random {
            state: seed,
            vocabulary,
            times: Times::Far,
            flushes: Flushes::AtOnce,
            sizes: Sizes::Any,
        }
    }

    pub fn newest(&self) -> bool {
        self.vocabulary == Vocabulary::Newest
    }

    pub fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The remainder's slight preference for small numbers does not matter here.
        (self.word() % end as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, among: &[&'a T]) -> &'a T {
        among[self.below(among.len())]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 7);
        while bytes.len() < count {
            bytes.extend(self.word().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
