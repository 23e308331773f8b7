//! Memory in blocks of one size, each owned by exactly one holder. The only `unsafe` of the crate.
//!
//! ```text
//!   mapping  │        chunk 0          │        chunk 1          │ …   one huge page each
//!            │ block │ block │ … │     │ block │ block │ … │     │
//!                │
//!             Block(&'static mut …)     values that move between caches; no copies, no aliases
//!
//!   a chunk  fresh ─▶ partly in use ⇄ all of it free ─▶ given back to the system ─▶ partly in use …
//! ```
//!
//! A [`Block`] is a mutable reference, so all that reads and writes memory is checked by the
//! compiler. What must be believed is in [`Mapping`]: that it makes one reference to each block at a
//! time, and that it neither clears nor unmaps memory that is referred to.
//!
//! Why not boxes: one mapping can ask for huge pages, which halves the cost of a random read here,
//! a block carries no allocator header, and memory goes back to the system when we say so. Why not
//! without any `unsafe`: a mapping that is leaked can be cut into such references by safe code, at
//! the same cost, but no safe code gives part of it back. See
//! `docs/decisions/0008-items-lie-in-blocks-of-one-size.md`.

#![expect(unsafe_code, reason = "the one proven module; each block says why it is sound")]

use std::collections::BTreeSet;
use std::ptr::NonNull;

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
    mapping: Mapping,
    /// The blocks of each chunk that are here. Chunks beyond its length were never used.
    /// INVARIANT: a block of chunk `n` is in `chunks[n]` or was handed out and has not come back.
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
        Ok(Arena {
            mapping: Mapping::new(blocks_max as usize * BLOCK_BYTES)?,
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
        let number = self.mapping.chunk_of(&block);
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
        let here = &mut self.chunks[number as usize];
        assert_eq!(here.len(), size, "only a whole chunk is given back");
        here.clear();
        // SAFETY: the chunk's blocks were all here and are gone now, so none exists.
        here.extend(unsafe { self.mapping.clear(number, size) });
        self.away.push(number);
        true
    }

    /// The memory that will be taken next, if fewer than `ready` free chunks have theirs.
    pub(crate) fn unready(&self, ready: usize) -> Option<Unready> {
        let next = self.chunks.len() as u32;
        let number = self.away.last().copied().unwrap_or(next);
        let size = self.chunk_blocks(number);
        let is_wanted = self.whole.len() < ready && size > 0;
        is_wanted.then(|| self.mapping.unready(number, size))
    }

    /// Notes that the memory is there, unless someone has taken it meanwhile.
    pub(crate) fn is_ready(&mut self, unready: &Unready) {
        let number = unready.chunk;
        if self.away.last() == Some(&number) {
            self.away.pop();
        } else if number == self.chunks.len() as u32 {
            self.add_chunk(number);
        } else {
            return;
        }
        self.whole.push(number);
    }

    /// Makes the blocks of a chunk that was never used.
    fn add_chunk(&mut self, number: u32) {
        assert_eq!(number as usize, self.chunks.len(), "chunks are used in order");
        let size = self.chunk_blocks(number);
        // SAFETY: `chunks` only grows, so no block of this one was made before.
        self.chunks.push(unsafe { self.mapping.blocks(number, size) }.collect());
    }

    /// A chunk to take blocks from, when none is partly used.
    fn open(&mut self) -> Option<u32> {
        let number = match self.whole.pop().or_else(|| self.away.pop()) {
            Some(number) => number,
            None => {
                let number = self.chunks.len() as u32;
                if self.chunk_blocks(number) == 0 {
                    return None;
                }
                self.add_chunk(number);
                number
            }
        };
        self.partly.insert(number);
        Some(number)
    }

    /// Blocks of a chunk; the last may be a short one.
    fn chunk_blocks(&self, number: u32) -> usize {
        (self.blocks_max as usize).saturating_sub(number as usize * CHUNK_BLOCKS).min(CHUNK_BLOCKS)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // A block that is still out could be used, so its mapping stays for the life of the
        // process rather than be pulled from under it.
        if self.out == 0 {
            self.chunks.clear();
            // SAFETY: all blocks ever made were in `chunks` (INVARIANT), and are gone now.
            unsafe { self.mapping.unmap() };
        }
    }
}

/// Addresses whose memory the system has not given yet, or has taken back.
pub(crate) struct Unready {
    chunk: u32,
    #[cfg_attr(miri, expect(dead_code, reason = "the allocator's memory is always there"))]
    start: NonNull<[u64; BLOCK_WORDS]>,
    #[cfg_attr(miri, expect(dead_code, reason = "the allocator's memory is always there"))]
    bytes: usize,
}

impl Unready {
    /// Has the system give the memory, which may take it milliseconds. Nobody need be kept from
    /// using it meanwhile: what it holds does not change.
    pub(crate) fn make_ready(&self) {
        #[cfg(not(miri))]
        // SAFETY: the range is part of an arena's mapping, and this advice does not change what it
        // holds. Were the mapping gone, the system would refuse, or fill pages nobody asked for.
        let _comes_later = unsafe {
            use rustix::mm::{Advice, madvise};
            madvise(self.start.as_ptr().cast(), self.bytes, Advice::LinuxPopulateWrite)
        };
    }
}

/// Addresses, and memory behind those that are used.
struct Mapping {
    /// INVARIANT: of a chunk's alignment; as many bytes as were asked for are ours from here on, and
    /// hold initialised words (zeros at first).
    base: NonNull<[u64; BLOCK_WORDS]>,
    /// What was mapped, with what alignment skipped.
    #[cfg(not(miri))]
    mapped: (NonNull<u8>, usize),
    #[cfg(miri)]
    layout: std::alloc::Layout,
}

// SAFETY: the mapping owns its memory as a box does; nothing about it belongs to one thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn chunk_of(&self, block: &Block) -> u32 {
        let offset = block.words.as_ptr().addr() - self.base.addr().get();
        (offset / CHUNK_BYTES) as u32
    }

    fn unready(&self, chunk: u32, size: usize) -> Unready {
        // SAFETY: the caller knows so many blocks of that chunk, so they are in the mapping.
        let start = unsafe { self.base.add(chunk as usize * CHUNK_BLOCKS) };
        Unready { chunk, start, bytes: size * BLOCK_BYTES }
    }

    /// The first `size` blocks of a chunk.
    ///
    /// # Safety
    /// They lie within what was asked for, and no [`Block`] of this chunk exists.
    unsafe fn blocks(&self, chunk: u32, size: usize) -> impl Iterator<Item = Block> + use<> {
        let base = self.base;
        // From the last to the first, because they are handed out from the end of a list.
        (0..size).rev().map(move |number| {
            // SAFETY: inside the mapping (the caller's promise, and INVARIANT of `base`), aligned
            // and initialised (INVARIANT), and each number comes once. That the mapping stays is
            // the promise of `unmap`.
            let words = unsafe { base.add(chunk as usize * CHUNK_BLOCKS + number).as_mut() };
            Block { words }
        })
    }
}

#[cfg(not(miri))]
impl Mapping {
    fn new(bytes: usize) -> std::io::Result<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

        let mapped_bytes = bytes + CHUNK_BYTES;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the system's choice touches nothing that
        // exists. It reads as zeros, so its bytes are initialised.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), mapped_bytes, access, flags)? };
        let start = NonNull::new(start.cast::<u8>()).expect("a mapping is never at address 0");
        let skip = start.align_offset(CHUNK_BYTES);
        assert!(skip <= CHUNK_BYTES, "an address is below the next multiple by at most one");
        // SAFETY: `skip` is at most `CHUNK_BYTES`, by which the mapping exceeds `bytes`.
        let base = unsafe { start.add(skip) };
        // Advice only: where huge pages are switched off we run with small ones.
        // SAFETY: the range is ours, and this advice does not change what it holds.
        let _small_pages_do =
            unsafe { madvise(base.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        Ok(Mapping { base: base.cast(), mapped: (start, mapped_bytes) })
    }

    /// Lets the system take a chunk's memory, and makes its blocks anew; they hold zeros.
    ///
    /// # Safety
    /// As for [`Mapping::blocks`].
    unsafe fn clear(&self, chunk: u32, size: usize) -> impl Iterator<Item = Block> + use<> {
        use rustix::mm::{Advice, madvise};

        // SAFETY: inside the mapping, as the caller promises.
        let start = unsafe { self.base.add(chunk as usize * CHUNK_BLOCKS) };
        // SAFETY: the range is ours and nobody refers to it. Private anonymous memory reads as zeros
        // afterwards, and if the system refuses, as before; both are initialised words.
        let _kept_then =
            unsafe { madvise(start.as_ptr().cast(), size * BLOCK_BYTES, Advice::LinuxDontNeed) };
        // SAFETY: the caller's promise is the same.
        unsafe { self.blocks(chunk, size) }
    }

    /// # Safety
    /// No [`Block`] exists, and none is made hereafter.
    unsafe fn unmap(&mut self) {
        let (start, bytes) = self.mapped;
        // SAFETY: the range is ours, and by the caller's promise nobody refers to it.
        let _unmapped = unsafe { rustix::mm::munmap(start.as_ptr().cast(), bytes) };
    }
}

/// The same with the allocator's memory, because Miri knows no `madvise`: so it can check that
/// blocks are made and given up as promised.
#[cfg(miri)]
impl Mapping {
    fn new(bytes: usize) -> std::io::Result<Self> {
        let layout = std::alloc::Layout::from_size_align(bytes.max(1), CHUNK_BYTES)
            .map_err(std::io::Error::other)?;
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("it fits");
        Ok(Mapping { base: base.cast(), layout })
    }

    /// # Safety
    /// As for [`Mapping::blocks`].
    unsafe fn clear(&self, chunk: u32, size: usize) -> impl Iterator<Item = Block> + use<> {
        // SAFETY: inside the allocation, and nobody refers to it, as the caller promises.
        unsafe { self.base.add(chunk as usize * CHUNK_BLOCKS).write_bytes(0, size) };
        // SAFETY: the caller's promise is the same.
        unsafe { self.blocks(chunk, size) }
    }

    /// # Safety
    /// No [`Block`] exists, and none is made hereafter.
    unsafe fn unmap(&mut self) {
        // SAFETY: allocated by `new` with this layout, and by the caller's promise not in use.
        unsafe { std::alloc::dealloc(self.base.as_ptr().cast(), self.layout) };
    }
}

/// Begins to fetch the cache line of `place`, so that a later read need not wait for it.
#[inline]
pub(crate) fn prefetch<T>(place: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch is a hint: it reads nothing and cannot fault, and `place` is valid anyway.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
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
        assert_eq!(arena.mapping.chunk_of(&next), 0);
        blocks.push(next);
        blocks.into_iter().for_each(|block| arena.give(block));
    }
}
