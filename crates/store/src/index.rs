//! From a key's hash to where its item lies.
//!
//! ```text
//!   hash ──▶ skewed top bits ──▶ directory ──▶ segment: 128 buckets of 8 slots, one block
//!        └─▶ bucket, other bucket, tag                    ▲ a full segment splits in two
//! ```
//!
//! A slot is one word:  tag:24 │ freq:2 │ block:25 │ offset:13  (all zero: vacant). No tag is zero,
//! so a look at the tags alone never finds a vacant slot.
//!
//! *Growth without pauses.* When a key finds both its buckets full and no neighbour can step
//! aside, its segment alone splits (extendible hashing): at most 1,024 slots are looked at, and
//! each entry keeps its place in whichever half it falls into, so a split cannot fail.
//!
//! *Steady use of memory.* If all segments grew alike they would all split at the same time, and
//! the index would swing between 92 % and 46 % full. So the hash is skewed: some ranges are twice as
//! dense as others, and splits spread evenly over each doubling (the idea of spiral storage).
//!
//! A small index is a small table in the heap that doubles until it fills a block.

use crate::arena::{BLOCK_BYTES, BLOCK_WORDS, Block, prefetch};
use crate::work;

/// Slots of one bucket: a cache line.
const BUCKET_SLOTS: usize = 8;
/// Buckets of a full-grown segment.
const SEGMENT_BUCKETS: usize = BLOCK_WORDS / BUCKET_SLOTS;

/// Highest count of reads that a slot can say.
pub(crate) const FREQ_MAX: u8 = 3;

const OFFSET_BITS: u32 = 13;
const BLOCK_BITS: u32 = 25;
const FREQ_SHIFT: u32 = OFFSET_BITS + BLOCK_BITS;
const TAG_SHIFT: u32 = FREQ_SHIFT + 2;
const PLACE_MASK: u64 = (1 << FREQ_SHIFT) - 1;

// An offset says any byte of a block, and a bucket's number fits the hash bits below the tag.
const _: () = assert!(1 << OFFSET_BITS == BLOCK_BYTES && SEGMENT_BUCKETS == 128);

/// Most blocks one slice can address: 256 GiB of items.
pub(crate) const BLOCKS_MAX: u32 = (1 << BLOCK_BITS) - 1;

/// Where an item begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) block: u32,
    pub(crate) offset: u16,
}

impl Place {
    /// Never zero, so that no used slot looks vacant.
    #[inline]
    fn bits(self) -> u64 {
        u64::from(self.block + 1) << OFFSET_BITS | u64::from(self.offset)
    }

    #[inline]
    fn of_word(word: u64) -> Self {
        let bits = word & PLACE_MASK;
        Place {
            block: (bits >> OFFSET_BITS) as u32 - 1,
            offset: (bits & ((1 << OFFSET_BITS) - 1)) as u16,
        }
    }
}

/// A slot that was found. Valid until the index is next changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    segment: u32,
    word: u16,
}

/// No block was at hand to grow into.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NeedsBlock;

/// The items themselves, as far as growing needs them.
pub(crate) trait Keys {
    /// The hash of the key of the item that lies here.
    fn hash(&self, place: Place) -> u64;
    /// Says that [`Keys::hash`] will soon be asked about this place.
    fn prefetch(&self, place: Place);
}

/// The index of one slice.
#[derive(Default)]
pub(crate) struct Index {
    /// INVARIANT: empty, or `2^depth` numbers of segments; segment `s` of depth `d` stands in one
    /// run of `2^(depth - d)`.
    directory: Vec<u32>,
    depth: u32,
    segments: Vec<Segment>,
    /// Segments that are blocks.
    blocks: u32,
}

struct Segment {
    words: Words,
    /// How many skewed bits its keys share.
    depth: u32,
}

enum Words {
    Heap(Box<[u64]>),
    Block(Block),
}

impl Segment {
    #[inline]
    fn words(&self) -> &[u64] {
        match &self.words {
            Words::Heap(words) => words,
            Words::Block(block) => block.words(),
        }
    }

    #[inline]
    fn words_mut(&mut self) -> &mut [u64] {
        match &mut self.words {
            Words::Heap(words) => words,
            Words::Block(block) => block.words_mut(),
        }
    }
}

/// A hash, cut into its uses.
#[derive(Clone, Copy)]
struct Cut {
    /// Skewed: the top bits choose the segment.
    range: u32,
    bucket: usize,
    tag: u64,
}

impl Cut {
    #[inline]
    fn of(hash: u64) -> Self {
        Cut {
            range: skew((hash >> 32) as u32),
            bucket: hash as usize & 0x7f,
            tag: (hash >> 8 & 0xff_ffff).max(1),
        }
    }
}

/// Maps evenly spread numbers so that the lowest are twice as dense as the highest:
/// x = (2u + u²) / 3 for u in [0, 1).
#[inline]
fn skew(even: u32) -> u32 {
    let u = u64::from(even);
    ((2 * u + ((u * u) >> 32)) / 3) as u32
}

/// The other bucket of a slot with this tag. An involution, so that an entry can move knowing only
/// its own slot.
#[inline]
fn other(bucket: usize, tag: u64, mask: usize) -> usize {
    (bucket ^ (((tag as u32).wrapping_mul(0x9e37_79b1) >> 20) as usize | 1)) & mask
}

impl Index {
    /// Blocks the index holds.
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Begins to fetch the first bucket of a key.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        let cut = Cut::of(hash);
        if let Some(number) = self.segment_of(cut.range) {
            let words = self.segments[number].words();
            prefetch(&words[(cut.bucket & bucket_mask(words)) * BUCKET_SLOTS]);
        }
    }

    /// Where an item with this hash most likely lies, by its tag in the first bucket alone.
    #[inline]
    pub(crate) fn guess(&self, hash: u64) -> Option<Place> {
        let cut = Cut::of(hash);
        let words = self.segments[self.segment_of(cut.range)?].words();
        let start = (cut.bucket & bucket_mask(words)) * BUCKET_SLOTS;
        let found = words[start..start + BUCKET_SLOTS]
            .iter()
            .find(|&&word| word >> TAG_SHIFT == cut.tag)?;
        Some(Place::of_word(*found))
    }

    /// The slot whose tag fits `hash` and whose place `is_it` accepts.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(Place) -> bool) -> Option<Slot> {
        let cut = Cut::of(hash);
        let number = self.segment_of(cut.range)?;
        let words = self.segments[number].words();
        let mask = bucket_mask(words);
        let first = cut.bucket & mask;
        for bucket in [first, other(first, cut.tag, mask)] {
            let start = bucket * BUCKET_SLOTS;
            let slots: &[u64; BUCKET_SLOTS] =
                words[start..start + BUCKET_SLOTS].try_into().expect("a bucket has 8 slots");
            // Without branches, so that it becomes a few vector instructions.
            let mut fits = 0_u32;
            for (slot, word) in slots.iter().enumerate() {
                fits |= u32::from(word >> TAG_SHIFT == cut.tag) << slot;
            }
            while fits != 0 {
                let slot = fits.trailing_zeros() as usize;
                if is_it(Place::of_word(slots[slot])) {
                    return Some(Slot { segment: number as u32, word: (start + slot) as u16 });
                }
                fits &= fits - 1;
            }
        }
        None
    }

    #[inline]
    pub(crate) fn place(&self, slot: Slot) -> Place {
        Place::of_word(self.segments[slot.segment as usize].words()[slot.word as usize])
    }

    #[inline]
    pub(crate) fn freq(&self, slot: Slot) -> u8 {
        let word = self.segments[slot.segment as usize].words()[slot.word as usize];
        (word >> FREQ_SHIFT) as u8 & FREQ_MAX
    }

    /// Counts one more read, up to [`FREQ_MAX`].
    #[inline]
    pub(crate) fn bump(&mut self, slot: Slot) {
        let word = &mut self.segments[slot.segment as usize].words_mut()[slot.word as usize];
        if (*word >> FREQ_SHIFT) as u8 & FREQ_MAX < FREQ_MAX {
            *word += 1 << FREQ_SHIFT;
        }
    }

    /// Points a slot elsewhere: its item was moved.
    pub(crate) fn repoint(&mut self, slot: Slot, place: Place, freq: u8) {
        let word = &mut self.segments[slot.segment as usize].words_mut()[slot.word as usize];
        *word = *word >> TAG_SHIFT << TAG_SHIFT | u64::from(freq) << FREQ_SHIFT | place.bits();
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let word = &mut self.segments[slot.segment as usize].words_mut()[slot.word as usize];
        debug_assert!(*word != 0, "removed what was not there");
        *word = 0;
    }

    /// Makes sure that [`Index::insert`] of this hash will find a slot, growing if it must.
    /// `spare` lends the block to grow into.
    pub(crate) fn make_room(
        &mut self,
        hash: u64,
        spare: &mut Vec<Block>,
        keys: &impl Keys,
    ) -> Result<(), NeedsBlock> {
        if self.segments.is_empty() {
            let words = Words::Heap(vec![0; BUCKET_SLOTS].into());
            self.segments.push(Segment { words, depth: 0 });
            self.directory.push(0);
        }
        let cut = Cut::of(hash);
        loop {
            let number = self.segment_of(cut.range).expect("there is a segment by now");
            if self.vacancy(number, cut).is_some() {
                return Ok(());
            }
            self.grow(number, spare, keys)?;
        }
    }

    /// Adds an entry. The room must have been made, by [`Index::make_room`] and nothing since.
    pub(crate) fn insert(&mut self, hash: u64, place: Place, freq: u8) {
        let cut = Cut::of(hash);
        let number = self.segment_of(cut.range).expect("room was made");
        let word = self.vacancy(number, cut).expect("room was made");
        self.segments[number].words_mut()[word] =
            cut.tag << TAG_SHIFT | u64::from(freq) << FREQ_SHIFT | place.bits();
    }

    /// Every entry's place, for tests and for checks of the whole.
    #[cfg(test)]
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        let used = |segment: &Segment| segment.words().to_vec();
        let words: Vec<u64> = self.segments.iter().flat_map(used).collect();
        words.into_iter().filter(|&word| word != 0).map(Place::of_word)
    }

    /// Hands over the blocks of an index that is given up, a few at a time; `None` when there are
    /// no more.
    pub(crate) fn dismantle(&mut self) -> Option<Block> {
        self.directory = Vec::new();
        loop {
            if let Words::Block(block) = self.segments.pop()?.words {
                self.blocks -= 1;
                return Some(block);
            }
        }
    }

    #[inline]
    fn segment_of(&self, range: u32) -> Option<usize> {
        // A shift of a 64-bit word, because with depth 0 it is by 32.
        let entry = (u64::from(range) >> (32 - self.depth)) as usize;
        self.directory.get(entry).map(|&number| number as usize)
    }

    /// A vacant slot for this hash, after a neighbour has stepped aside if need be.
    fn vacancy(&mut self, number: usize, cut: Cut) -> Option<usize> {
        let words = self.segments[number].words_mut();
        let mask = bucket_mask(words);
        let first = cut.bucket & mask;
        let second = other(first, cut.tag, mask);
        if let Some(word) = vacant(words, first).or_else(|| vacant(words, second)) {
            return Some(word);
        }
        for bucket in [first, second] {
            for word in bucket * BUCKET_SLOTS..(bucket + 1) * BUCKET_SLOTS {
                let elsewhere = other(bucket, words[word] >> TAG_SHIFT, mask);
                if let Some(free) = vacant(words, elsewhere) {
                    words[free] = std::mem::take(&mut words[word]);
                    return Some(word);
                }
            }
        }
        None
    }

    /// Doubles a small segment, or splits a full-grown one.
    fn grow(
        &mut self,
        number: usize,
        spare: &mut Vec<Block>,
        keys: &impl Keys,
    ) -> Result<(), NeedsBlock> {
        let words = self.segments[number].words().len();
        work::grew_index(words);
        if words * 2 < BLOCK_WORDS {
            self.double(number, Words::Heap(vec![0; words * 2].into()), keys);
            return Ok(());
        }
        let mut block = spare.pop().ok_or(NeedsBlock)?;
        block.words_mut().fill(0);
        self.blocks += 1;
        if words < BLOCK_WORDS {
            self.double(number, Words::Block(block), keys);
        } else {
            self.split(number, block, keys);
        }
        Ok(())
    }

    /// Moves a small segment into a table of twice the buckets. What was in bucket b goes to b or
    /// b + n, and nothing else goes there, so all fits.
    fn double(&mut self, number: usize, table: Words, keys: &impl Keys) {
        let segment = &mut self.segments[number];
        let old = std::mem::replace(&mut segment.words, table);
        let old = Segment { words: old, depth: 0 };
        let old_mask = bucket_mask(old.words());
        let words = segment.words_mut();
        let mask = bucket_mask(words);
        for (at, &word) in old.words().iter().enumerate().filter(|(_, word)| **word != 0) {
            let bucket = Cut::of(keys.hash(Place::of_word(word))).bucket & mask;
            let is_first = bucket & old_mask == at / BUCKET_SLOTS;
            let target = if is_first { bucket } else { other(bucket, word >> TAG_SHIFT, mask) };
            debug_assert_eq!(target & old_mask, at / BUCKET_SLOTS);
            let free = vacant(words, target).expect("only one old bucket goes here");
            words[free] = word;
        }
    }

    /// Moves the upper half of a segment's range into a new one, slot for slot.
    fn split(&mut self, number: usize, block: Block, keys: &impl Keys) {
        let depth = self.segments[number].depth;
        if depth == self.depth {
            self.directory = self.directory.iter().flat_map(|&entry| [entry, entry]).collect();
            self.depth += 1;
        }
        // Ask for all items before the first is needed: that turns a thousand waits for memory
        // into a few.
        let words = self.segments[number].words();
        words
            .iter()
            .filter(|&&word| word != 0)
            .for_each(|&word| keys.prefetch(Place::of_word(word)));
        let mut upper = Segment { words: Words::Block(block), depth: depth + 1 };
        let bit = 1 << (31 - depth);
        let lower = &mut self.segments[number];
        lower.depth = depth + 1;
        let mut range = 0;
        for (from, to) in lower.words_mut().iter_mut().zip(upper.words_mut()) {
            if *from == 0 {
                continue;
            }
            range = Cut::of(keys.hash(Place::of_word(*from))).range;
            if range & bit != 0 {
                *to = std::mem::take(from);
            }
        }
        let new = self.segments.len() as u32;
        self.segments.push(upper);
        // The run of the old segment in the directory; its upper half is the new one's.
        let run = 1_usize << (self.depth - depth);
        let start = (u64::from(range) >> (32 - depth)) as usize * run;
        self.directory[start + run / 2..start + run].fill(new);
    }
}

#[inline]
fn bucket_mask(words: &[u64]) -> usize {
    words.len() / BUCKET_SLOTS - 1
}

#[inline]
fn vacant(words: &[u64], bucket: usize) -> Option<usize> {
    let start = bucket * BUCKET_SLOTS;
    words[start..start + BUCKET_SLOTS].iter().position(|&word| word == 0).map(|slot| start + slot)
}
