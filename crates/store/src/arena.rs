//! Memory in blocks of one size, each owned by exactly one holder. The only `unsafe` of the crate.
//!
//! ```text
//!   mapping  │ block 0 │ block 1 │ block 2 │ … │ block n-1 │      pages are taken at first use
//!                 │         │
//!             Block(ptr)  Block(ptr)      values that move between caches; no copies, no aliases
//! ```
//!
//! A [`Block`] is like a `Box<[u8; BLOCK_BYTES]>`: who holds it may read and, holding it mutably,
//! write. So all that uses blocks is checked by the compiler, and what must be believed is only
//! that two blocks never overlap and that none outlives the mapping.
//!
//! Why not boxes: one mapping can ask for huge pages, which halves the cost of a random read here,
//! and a block carries no allocator header. See
//! `docs/decisions/0008-items-lie-in-blocks-of-one-size.md`.

#![expect(unsafe_code, reason = "the one proven module; each block says why it is sound")]

use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Size of a block. Small, so that a cache of 300 KB still has its 38 and evicts in fine steps, and
/// so that dropping or copying one takes microseconds. Items run on from one block into the next,
/// so that no space is left at the ends; of items of 300 bytes every 27th does.
pub(crate) const BLOCK_BYTES: usize = 8 * 1024;
/// The same, in 8-byte words.
pub(crate) const BLOCK_WORDS: usize = BLOCK_BYTES / 8;
/// Huge pages of x86-64 and of most others.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

// Blocks tile huge pages, and words tile blocks.
const _: () = assert!(HUGE_PAGE_BYTES.is_multiple_of(BLOCK_BYTES) && BLOCK_BYTES.is_multiple_of(8));

/// [`BLOCK_BYTES`] bytes that belong to the holder alone.
pub(crate) struct Block {
    /// INVARIANT: points to `BLOCK_BYTES` initialised bytes, aligned to `BLOCK_BYTES`, inside the
    /// mapping of an [`Arena`]; no other `Block` points there; the mapping is still there, because
    /// an arena unmaps only when it holds every block it ever made.
    start: NonNull<u8>,
}

// SAFETY: a block owns its bytes as a `Box` does (INVARIANT of `start`), and bytes are `Send`.
unsafe impl Send for Block {}
// SAFETY: a shared block only lends shared bytes, and bytes are `Sync`.
unsafe impl Sync for Block {}

impl Block {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8; BLOCK_BYTES] {
        // SAFETY: by the INVARIANT of `start` the bytes are there and are ours, and `&self` keeps
        // anyone from writing to them meanwhile.
        unsafe { self.start.cast().as_ref() }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; BLOCK_BYTES] {
        // SAFETY: as in `bytes`, and `&mut self` makes this the only way to them.
        unsafe { self.start.cast().as_mut() }
    }

    #[inline]
    pub(crate) fn words(&self) -> &[u64; BLOCK_WORDS] {
        // SAFETY: as in `bytes`; any bytes are valid words, and blocks are aligned for them.
        unsafe { self.start.cast().as_ref() }
    }

    #[inline]
    pub(crate) fn words_mut(&mut self) -> &mut [u64; BLOCK_WORDS] {
        // SAFETY: as in `words`, and `&mut self` makes this the only way to them.
        unsafe { self.start.cast().as_mut() }
    }
}

/// Makes blocks, and takes them back.
pub(crate) struct Arena {
    mapping: NonNull<u8>,
    mapping_bytes: usize,
    /// INVARIANT: the first address in the mapping that is a multiple of [`HUGE_PAGE_BYTES`];
    /// `blocks_max` blocks from here lie in the mapping.
    base: NonNull<u8>,
    blocks_max: u32,
    /// INVARIANT: of the blocks below this number each is in `free` or was handed out once and has
    /// not come back; those from it on were never handed out.
    fresh: u32,
    free: Vec<Block>,
}

// SAFETY: the pointers are only used through `&mut self` or to make blocks, which are `Send`.
unsafe impl Send for Arena {}

impl Arena {
    /// Reserves addresses for that many blocks; memory is taken as they are first used.
    ///
    /// # Errors
    /// What the system says when it refuses the addresses.
    pub(crate) fn new(blocks_max: u32) -> std::io::Result<Self> {
        let bytes = blocks_max as usize * BLOCK_BYTES;
        let mapping_bytes = bytes + HUGE_PAGE_BYTES;
        // SAFETY: a new private mapping at an address of the system's choice touches nothing that
        // exists. It reads as zeros, so its bytes are initialised.
        let mapping = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            mmap_anonymous(
                std::ptr::null_mut(),
                mapping_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )?
        };
        let mapping = NonNull::new(mapping.cast::<u8>()).expect("a mapping is never at address 0");
        let skip = mapping.align_offset(HUGE_PAGE_BYTES);
        assert!(skip <= HUGE_PAGE_BYTES, "an address is below the next multiple by at most one");
        // SAFETY: `skip` is at most `HUGE_PAGE_BYTES`, by which the mapping exceeds `bytes`.
        let base = unsafe { mapping.add(skip) };
        // Advice only: where huge pages are switched off we run with small ones.
        // SAFETY: the range is ours, and this advice does not change what it holds.
        let _small_pages_do =
            unsafe { madvise(base.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
        Ok(Arena { mapping, mapping_bytes, base, blocks_max, fresh: 0, free: Vec::new() })
    }

    /// A block with whatever bytes its last holder left.
    pub(crate) fn take(&mut self) -> Option<Block> {
        if let Some(block) = self.free.pop() {
            return Some(block);
        }
        if self.fresh == self.blocks_max {
            return None;
        }
        let offset = self.fresh as usize * BLOCK_BYTES;
        self.fresh += 1;
        // SAFETY: `offset` is below `blocks_max * BLOCK_BYTES`, so inside the mapping (INVARIANT
        // of `base`), and zeros are initialised bytes. No other block points there: `fresh` only
        // grows, so each offset is used once.
        Some(Block { start: unsafe { self.base.add(offset) } })
    }

    pub(crate) fn give(&mut self, block: Block) {
        debug_assert!(self.owns(&block));
        self.free.push(block);
    }

    /// Blocks that [`Arena::take`] can still hand out.
    pub(crate) fn available(&self) -> u32 {
        self.blocks_max - self.fresh + self.free.len() as u32
    }

    fn owns(&self, block: &Block) -> bool {
        let offset = block.start.addr().get().wrapping_sub(self.base.addr().get());
        offset < self.fresh as usize * BLOCK_BYTES
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let all_back = self.free.len() == self.fresh as usize
            && self.free.iter().all(|block| self.owns(block));
        // A block that is still out could be used, so its mapping stays for the life of the
        // process rather than be pulled from under it.
        if all_back {
            // SAFETY: the mapping is ours, and every block that points into it is in `free`, which
            // is dropped with us and is not used again.
            let _unmapped = unsafe { munmap(self.mapping.as_ptr().cast(), self.mapping_bytes) };
        }
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
}
