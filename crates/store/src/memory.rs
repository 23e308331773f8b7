//! The blocks of the whole store: which are free, and which were given up and wait to be reused.
//!
//! Flushing or deleting a cache gives up its contents in one move, whatever their size: they become
//! a grave, and its blocks count as free at once. Whoever needs a block when none is free digs one
//! up; [`Memory::dig`] does it in idle time.

use std::sync::{Arc, PoisonError};

use crate::arena::{Arena, BLOCK_BYTES, Block};
use crate::slice::Contents;
use crate::sync::{AtomicU32, Mutex, MutexGuard, Relaxed};
use crate::watch::Watches;

/// Share of all blocks that only survivors of an eviction may take: 1 in 128. Evicting frees a
/// block only after what survives has been copied elsewhere, so there must be an elsewhere.
const URGENT_SHARE: u32 = 128;
/// Most blocks kept so: 2 MiB, enough for the survivors of all threads at once.
const URGENT_MAX: u32 = 256;
/// Memory is scarce when less is free than this many blocks, or half of all: what 16 threads could
/// take at the same moment, each for an item of 4 MiB.
const SCARCE_MAX: u32 = 16 * (4 << 20) / BLOCK_BYTES as u32;
/// Free chunks of 2 MiB whose memory is not given back to the system, because whoever takes a new
/// page waits for the system to clear it (about 100 µs for a huge one).
const FREE_CHUNKS_KEPT: usize = 16;
/// Free chunks that [`Memory::prepare`] has ready. Half of those that are kept, so that none is given
/// back only to be made ready again.
const FREE_CHUNKS_READY: usize = FREE_CHUNKS_KEPT / 2;

pub(crate) struct Memory {
    pool: Mutex<Pool>,
    /// Watching takes memory too, so it is shared out here.
    pub(crate) watches: Arc<Watches>,
    /// What the pool has, readable without its lock; may lag a little.
    available: AtomicU32,
    blocks: u32,
    urgent: u32,
}

struct Pool {
    arena: Arena,
    graves: Vec<Contents>,
    /// Blocks in the graves.
    buried: u32,
}

/// Who asks for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A cache grows.
    Growth,
    /// An item that survives an eviction is to be copied.
    Survivor,
}

impl Memory {
    /// # Errors
    /// What the system says when it refuses the addresses.
    pub(crate) fn new(memory_bytes: u64) -> std::io::Result<Self> {
        let blocks = u32::try_from(memory_bytes / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
        let arena = Arena::new(blocks)?;
        let urgent = (blocks / URGENT_SHARE).clamp(2, URGENT_MAX);
        let pool = Pool { arena, graves: Vec::new(), buried: 0 };
        Ok(Memory {
            pool: Mutex::new(pool),
            watches: Arc::new(Watches::new()),
            available: AtomicU32::new(blocks),
            blocks,
            urgent,
        })
    }

    /// Blocks that can be promised to caches.
    pub(crate) fn promisable(&self) -> u32 {
        self.blocks.saturating_sub(self.urgent)
    }

    /// Blocks that caches may take to grow.
    pub(crate) fn available(&self) -> u32 {
        self.available.load(Relaxed).saturating_sub(self.urgent)
    }

    /// Whether others could take all that is free before a write that begins now takes its part.
    pub(crate) fn is_scarce(&self) -> bool {
        self.available() < SCARCE_MAX.min(self.blocks / 2)
    }

    /// All blocks, and those of them that nobody holds.
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.blocks, self.available.load(Relaxed))
    }

    pub(crate) fn take(&self, need: Need) -> Option<Block> {
        if need == Need::Growth && self.available() == 0 {
            return None;
        }
        let mut pool = self.lock();
        let left = match need {
            Need::Growth => self.urgent,
            Need::Survivor => 0,
        };
        if pool.available() <= left {
            return None;
        }
        let block = pool.arena.take().or_else(|| pool.exhume());
        self.publish(&pool);
        block
    }

    /// Up to so many blocks to grow, at once.
    pub(crate) fn take_many(&self, blocks: u32) -> Vec<Block> {
        (0..blocks).map_while(|_| self.take(Need::Growth)).collect()
    }

    pub(crate) fn give(&self, blocks: impl Iterator<Item = Block>) {
        let mut pool = self.lock();
        blocks.for_each(|block| pool.arena.give(block));
        self.publish(&pool);
    }

    /// Takes everything a cache held, in one move.
    pub(crate) fn bury(&self, contents: Contents) {
        let mut pool = self.lock();
        pool.buried += contents.blocks();
        pool.graves.push(contents);
        self.publish(&pool);
    }

    /// Frees up to `blocks` blocks of what was buried. True when there is more.
    pub(crate) fn dig(&self, blocks: u32) -> bool {
        let mut pool = self.lock();
        for _ in 0..blocks {
            let Some(block) = pool.exhume() else { break };
            pool.arena.give(block);
        }
        self.publish(&pool);
        !pool.graves.is_empty()
    }

    /// Gives some of what nobody holds back to the system. True when there may be more. In a cache
    /// that breathes, memory of up to [`FREE_CHUNKS_KEPT`] chunks stays.
    pub(crate) fn trim(&self) -> bool {
        self.lock().arena.give_back(FREE_CHUNKS_KEPT)
    }

    /// Has the system give some of the memory that will be taken next, so that no request waits for
    /// it. May take milliseconds, but keeps nobody waiting. True when there may be more to do.
    pub(crate) fn prepare(&self) -> bool {
        let unready = self.lock().arena.unready(FREE_CHUNKS_READY);
        let Some(unready) = unready else { return false };
        unready.make_ready();
        self.lock().arena.is_ready(&unready);
        true
    }

    fn publish(&self, pool: &Pool) {
        self.available.store(pool.available(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Memory {
    /// Brings every block back to the arena, which unmaps its memory only then.
    fn drop(&mut self) {
        self.dig(u32::MAX);
    }
}

impl Pool {
    fn available(&self) -> u32 {
        self.arena.available() + self.buried
    }

    fn exhume(&mut self) -> Option<Block> {
        while let Some(grave) = self.graves.last_mut() {
            if let Some(block) = grave.dismantle() {
                self.buried -= 1;
                return Some(block);
            }
            self.graves.pop();
        }
        None
    }
}
