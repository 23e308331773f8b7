//! Memory in blocks of one size, each owned by exactly one holder. The only `unsafe` of the crate:
//! one line that makes blocks, one that has the system take memory back, and one that prefetches.
//!
//! ```text
//!   mapping  │        chunk 0          │        chunk 1          │ …   one huge page each
//!            │ block │ block │ … │     │ block │ block │ … │     │
//!                │
//!             Block(&'static mut …)     values that move between caches; no copies, no aliases
//!
//!   a chunk  fresh ─▶ partly in use ⇄ all of it free ─▶ given back to the system ─▶ partly in use …
//!            no blocks      blocks in and out              no blocks
//! ```
//!
//! The mapping itself belongs to the `memmap2` crate. A [`Block`] is a mutable reference into it, so
//! all that reads and writes memory is checked by the compiler. What must be believed is that
//! [`Arena::make`] makes one reference to each block at a time, and that memory is neither cleared
//! nor unmapped while it is referred to.
//!
//! Why not boxes: one mapping can ask for huge pages, which halves the cost of a random read here,
//! a block carries no allocator header, and memory goes back to the system when we say so. Why not
//! without any `unsafe`: a mapping that is leaked can be cut into such references by safe code, at
//! the same cost, but no safe code gives part of it back. See
//! `docs/decisions/0008-items-lie-in-blocks-of-one-size.md`.

#![expect(unsafe_code, reason = "the one proven module; each block says why it is sound")]

use std::collections::BTreeSet;
use std::sync::Arc;

use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};

/// Size of a block. Small, so that a cache of 300 KB still has its 38 and evicts in fine steps, and
/// so that dropping or copying one takes microseconds. Items run on from one block into the next,
/// so that no space is left at the ends; of items of 300 bytes every 27th does.
pub(crate) const BLOCK_BYTES: usize = 8 * 1024;
/// The same, in 8-byte words.
pub(crate) const BLOCK_WORDS: usize = BLOCK_BYTES / 8;
/// Huge pages of x86-64 and of most others; blocks go back to the system by this much.
const CHUNK_BYTES: usize = 2 * 1024 * 1024;
const CHUNK_BLOCKS: usize = CHUNK_BYTES / BLOCK_BYTES;

// Blocks tile chunks, and words tile blocks.
const _: () = assert!(CHUNK_BYTES.is_multiple_of(BLOCK_BYTES) && BLOCK_BYTES.is_multiple_of(8));

/// [`BLOCK_BYTES`] bytes that belong to the holder alone, aligned to as many.
pub(crate) struct Block {
    words: &'static mut [u64; BLOCK_WORDS],
}

impl Block {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8; BLOCK_BYTES] {
        bytemuck::cast_ref(&*self.words)
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; BLOCK_BYTES] {
        bytemuck::cast_mut(self.words)
    }

    #[inline]
    pub(crate) fn words(&self) -> &[u64; BLOCK_WORDS] {
        self.words
    }

    #[inline]
    pub(crate) fn words_mut(&mut self) -> &mut [u64; BLOCK_WORDS] {
        self.words
    }
}

/// Makes blocks, and takes them back.
pub(crate) struct Arena {
    /// INVARIANT: holds initialised words (zeros at first) for `blocks_max` blocks from `skip` on,
    /// where it has a chunk's alignment. It stays for as long as blocks of it exist.
    mapping: Arc<MmapRaw>,
    /// Bytes before the first chunk.
    skip: usize,
    /// The blocks of each chunk that are here. Chunks beyond its length were never used.
    /// INVARIANT: a block of chunk `n` is in `chunks[n]`, or was handed out and has not come back,
    /// or does not exist, because `n` is in `away`.
    chunks: Vec<Vec<Block>>,
    /// Chunks with blocks here, some of whose blocks are out. The lowest is used first, so that the
    /// others have a chance to become free as a whole.
    partly: BTreeSet<u32>,
    /// Chunks that are here as a whole, whose memory is ours …
    whole: Vec<u32>,
    /// … and those whose memory was given back; it comes again, as zeros, when they are used.
    away: Vec<u32>,
    blocks_max: u32,
    /// Blocks handed out.
    out: u32,
}

impl Arena {
    /// Reserves addresses for that many blocks; memory is taken as they are first used.
    ///
    /// # Errors
    /// What the system says when it refuses the addresses.
    pub(crate) fn new(blocks_max: u32) -> std::io::Result<Self> {
        let bytes = blocks_max as usize * BLOCK_BYTES;
        let mut options = MmapOptions::new();
        options.len(bytes + CHUNK_BYTES);
        if cfg!(not(miri)) {
            // Miri knows the plain call alone, and none of its memory is swapped.
            options.no_reserve_swap();
        }
        let mapping = MmapRaw::from(options.map_anon()?);
        let skip = mapping.as_ptr().align_offset(CHUNK_BYTES);
        assert!(skip <= CHUNK_BYTES, "an address is below the next multiple by at most one");
        advise(&mapping, Advice::HugePage, skip, bytes);
        Ok(Arena {
            mapping: Arc::new(mapping),
            skip,
            chunks: Vec::new(),
            partly: BTreeSet::new(),
            whole: Vec::new(),
            away: Vec::new(),
            blocks_max,
            out: 0,
        })
    }

    /// A block with whatever bytes its last holder left.
    pub(crate) fn take(&mut self) -> Option<Block> {
        let number = match self.partly.first() {
            Some(&number) => number,
            None => self.open()?,
        };
        let here = &mut self.chunks[number as usize];
        let block = here.pop().expect("a chunk that is partly here has blocks here");
        if here.is_empty() {
            self.partly.remove(&number);
        }
        self.out += 1;
        Some(block)
    }

    pub(crate) fn give(&mut self, block: Block) {
        let number = self.chunk_of(&block);
        let size = self.chunk_blocks(number);
        let here = &mut self.chunks[number as usize];
        here.push(block);
        self.out -= 1;
        if here.len() == size {
            self.partly.remove(&number);
            self.whole.push(number);
        } else {
            self.partly.insert(number);
        }
    }

    /// Blocks that [`Arena::take`] can still hand out.
    pub(crate) fn available(&self) -> u32 {
        self.blocks_max - self.out
    }

    /// Gives the memory of one free chunk back to the system, unless no more than `keep` are free.
    /// True when it did.
    pub(crate) fn give_back(&mut self, keep: usize) -> bool {
        if self.whole.len() <= keep {
            return false;
        }
        let number = self.whole.pop().expect("there are more than `keep`");
        let size = self.chunk_blocks(number);
        let here = std::mem::take(&mut self.chunks[number as usize]);
        assert_eq!(here.len(), size, "only a whole chunk is given back");
        drop(here);
        let (start, bytes) = (self.offset(number), size * BLOCK_BYTES);
        // SAFETY: the chunk's blocks were all here (INVARIANT of `chunks`, and their number) and
        // are gone now, so nothing refers to this memory. Private anonymous memory reads as zeros
        // afterwards, and if the system refuses, as before; both are initialised words.
        unsafe {
            if cfg!(miri) {
                // What the system does, in words that Miri knows: it finds references that are left.
                self.mapping.as_mut_ptr().wrapping_add(start).write_bytes(0, bytes);
            } else {
                let advice = UncheckedAdvice::DontNeed;
                let _kept_then = self.mapping.unchecked_advise_range(advice, start, bytes);
            }
        }
        self.away.push(number);
        true
    }

    /// The memory that will be taken next, if fewer than `ready` free chunks have theirs.
    pub(crate) fn unready(&self, ready: usize) -> Option<Unready> {
        let next = self.chunks.len() as u32;
        let chunk = self.away.last().copied().unwrap_or(next);
        let size = self.chunk_blocks(chunk);
        let is_wanted = self.whole.len() < ready && size > 0;
        is_wanted.then(|| Unready {
            chunk,
            mapping: Arc::clone(&self.mapping),
            start: self.offset(chunk),
            bytes: size * BLOCK_BYTES,
        })
    }

    /// Notes that the memory is there, unless someone has taken it meanwhile.
    pub(crate) fn is_ready(&mut self, unready: &Unready) {
        if self.away.last().copied().unwrap_or(self.chunks.len() as u32) == unready.chunk {
            let number = self.make().expect("there was one when it was looked for");
            self.whole.push(number);
        }
    }

    /// A chunk to take blocks from, when none is partly used.
    fn open(&mut self) -> Option<u32> {
        let number = self.whole.pop().or_else(|| self.make())?;
        self.partly.insert(number);
        Some(number)
    }

    /// Makes the blocks of a chunk that has none: one that was given back, or a fresh one.
    fn make(&mut self) -> Option<u32> {
        let number = self.away.pop().unwrap_or_else(|| {
            self.chunks.push(Vec::new());
            self.chunks.len() as u32 - 1
        });
        let size = self.chunk_blocks(number);
        if size == 0 {
            self.chunks.pop();
            return None;
        }
        let first = self.mapping.as_mut_ptr().wrapping_add(self.offset(number));
        let first = first.cast::<[u64; BLOCK_WORDS]>();
        // From the last to the first, because they are handed out from the end of a list.
        self.chunks[number as usize].extend((0..size).rev().map(|at| Block {
            // SAFETY: inside the mapping, aligned and initialised (INVARIANT of `mapping`). None of
            // the chunk's blocks exists: it was in `away`, or is beyond all that were ever made
            // (INVARIANT of `chunks`); and each number comes once. The mapping stays, because
            // `Arena::drop` leaks it if blocks are out.
            words: unsafe { &mut *first.wrapping_add(at) },
        }));
        Some(number)
    }

    /// Where a chunk begins in the mapping.
    fn offset(&self, number: u32) -> usize {
        self.skip + number as usize * CHUNK_BYTES
    }

    fn chunk_of(&self, block: &Block) -> u32 {
        let offset = block.words.as_ptr().addr() - self.mapping.as_ptr().addr() - self.skip;
        (offset / CHUNK_BYTES) as u32
    }

    /// Blocks of a chunk; the last may be a short one.
    fn chunk_blocks(&self, number: u32) -> usize {
        (self.blocks_max as usize).saturating_sub(number as usize * CHUNK_BLOCKS).min(CHUNK_BLOCKS)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // None refers to memory that is unmapped.
        self.chunks.clear();
        if self.out > 0 {
            // A block that is still out could be used, so its mapping stays for the life of the
            // process rather than be pulled from under it.
            std::mem::forget(Arc::clone(&self.mapping));
        }
    }
}

/// Memory that the system has not given yet, or has taken back.
pub(crate) struct Unready {
    chunk: u32,
    mapping: Arc<MmapRaw>,
    /// Where it begins in the mapping.
    start: usize,
    bytes: usize,
}

impl Unready {
    /// Has the system give the memory, which may take it milliseconds. Nobody need be kept from
    /// using it meanwhile: what it holds does not change.
    pub(crate) fn make_ready(&self) {
        advise(&self.mapping, Advice::PopulateWrite, self.start, self.bytes);
    }
}

/// Tells the system how memory will be used. It may refuse: where huge pages are switched off we
/// run with small ones, and what is not made ready comes when it is used.
fn advise(mapping: &MmapRaw, advice: Advice, start: usize, bytes: usize) {
    if cfg!(not(miri)) {
        // Miri knows no advice, and what a program may do does not depend on it.
        let _works_without = mapping.advise_range(advice, start, bytes);
    }
}

/// Begins to fetch the cache line of `place`, so that a later read need not wait for it.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing and cannot fault, and `place` is valid anyway.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _no_hint_here = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_distinct_and_come_back() {
        let mut arena = Arena::new(3).expect("three blocks of addresses");
        let mut blocks: Vec<Block> = std::iter::from_fn(|| arena.take()).collect();
        assert_eq!((blocks.len(), arena.available()), (3, 0));
        for (number, block) in blocks.iter_mut().enumerate() {
            assert!(block.bytes().iter().all(|&byte| byte == 0));
            block.bytes_mut().fill(number as u8 + 1);
        }
        for (number, block) in blocks.iter().enumerate() {
            assert!(block.words().iter().all(|word| word.to_le_bytes() == [number as u8 + 1; 8]));
        }
        blocks.into_iter().for_each(|block| arena.give(block));
        assert_eq!(arena.available(), 3);
        assert_eq!(arena.take().expect("given back").bytes()[0], 3);
    }

    #[test]
    fn a_block_may_outlive_its_arena() {
        let mut arena = Arena::new(1).expect("one block of addresses");
        let mut block = arena.take().expect("it has one");
        drop(arena);
        block.words_mut()[BLOCK_WORDS - 1] = 7;
        assert_eq!(block.words()[BLOCK_WORDS - 1], 7);
    }

    /// Blocks of both chunks change places in the hands of their holder, and come back in disorder.
    #[test]
    fn memory_that_was_given_back_comes_again_as_zeros() {
        let blocks_max = CHUNK_BLOCKS as u32 + 3;
        let mut arena = Arena::new(blocks_max).expect("two chunks of addresses");
        for _ in 0..3 {
            let mut blocks: Vec<Block> = std::iter::from_fn(|| arena.take()).collect();
            assert_eq!(blocks.len() as u32, blocks_max);
            for block in &mut blocks {
                assert_eq!(block.words(), &[0; BLOCK_WORDS]);
                block.words_mut().fill(u64::MAX);
            }
            let last = blocks.swap_remove(100);
            blocks.into_iter().rev().for_each(|block| arena.give(block));
            assert!(arena.give_back(0), "the short chunk is here as a whole");
            assert!(!arena.give_back(0), "of the other a block is out");
            assert_eq!(last.words(), &[u64::MAX; BLOCK_WORDS]);
            arena.give(last);
            assert!(!arena.give_back(1), "one is to be kept");
            assert!(arena.give_back(0));
            assert_eq!(arena.available(), blocks_max);
        }
    }

    #[test]
    fn memory_is_made_ready_once() {
        let blocks_max = 2 * CHUNK_BLOCKS as u32;
        let mut arena = Arena::new(blocks_max).expect("two chunks of addresses");
        let first = arena.unready(1).expect("nothing is ready");
        first.make_ready();
        arena.is_ready(&first);
        assert!(arena.unready(1).is_none(), "one chunk is ready");
        let second = arena.unready(2).expect("only one is");
        // Someone is faster.
        let blocks: Vec<Block> = std::iter::from_fn(|| arena.take()).collect();
        second.make_ready();
        arena.is_ready(&second);
        assert_eq!((blocks.len() as u32, arena.available()), (blocks_max, 0));
        assert!(arena.take().is_none() && arena.unready(2).is_none());
        blocks.into_iter().for_each(|block| arena.give(block));
        assert!(arena.give_back(1) && !arena.give_back(1));
        let again = arena.unready(2).expect("one was given back");
        arena.is_ready(&again);
        assert_eq!(arena.available(), blocks_max);
        assert_eq!(std::iter::from_fn(|| arena.take()).count() as u32, blocks_max);
    }

    #[test]
    fn the_lowest_chunk_is_used_first() {
        let mut arena = Arena::new(2 * CHUNK_BLOCKS as u32).expect("two chunks of addresses");
        let mut blocks: Vec<Block> = std::iter::from_fn(|| arena.take()).collect();
        let high = blocks.pop().expect("there are many");
        let low = blocks.swap_remove(0);
        arena.give(high);
        arena.give(low);
        let next = arena.take().expect("two are here");
        assert_eq!(arena.chunk_of(&next), 0);
        blocks.push(next);
        blocks.into_iter().for_each(|block| arena.give(block));
    }
}
