//! Moves memory between caches: who holds more than it was promised gives to who holds less.
//!
//! The law: promises never exceed the memory. So whenever a cache below its guarantee needs a block
//! and none is free, another one holds more than its own guarantee, and gives at once. Nobody waits
//! for a balancer, and no two caches are ever locked together.
//!
//! What is promised are blocks, with an allowance for overhead that is ample for items of usual size
//! and too little for tiny ones. What is paid for are bytes. So those give first who hold more bytes
//! than they pay for; and they also give to who has all his blocks and yet not his bytes.

use std::ops::Range;
use std::sync::{Arc, PoisonError};

use crate::arena::Block;
use crate::memory::Memory;
use crate::operation::Seconds;
use crate::slice::{Claim, Right};
use crate::store::{Cache, Shard};
use crate::sync::{AtomicUsize, Relaxed, RwLock};
use crate::work;

/// Caches looked at to find a borrower, before all are.
const SAMPLE: usize = 24;
/// Caches looked at for a claim that need not be met.
const SAMPLE_OF_PAYMENT: usize = 4 * SAMPLE;
/// Givers asked for one claim. Another thread may take from the same giver first, so a few more
/// than one can be needed.
const GIVERS_MAX: usize = 64;

/// What all caches of a store share.
pub(crate) struct Arbiter {
    pub(crate) memory: Arc<Memory>,
    /// INVARIANT: each stands at its own `number`; only who holds this for writing changes either.
    /// Each has the arbiter too, so a store that goes has to [clear](Self::clear) this.
    caches: RwLock<Vec<Arc<Cache>>>,
    /// Where the next sample begins.
    cursor: AtomicUsize,
    /// Who gave last, if caches have not moved since: while one has borrowed nearly all that is lent,
    /// samples of ten thousand caches seldom have it among them.
    gave_last: AtomicUsize,
}

impl Arbiter {
    pub(crate) fn new(memory: Memory) -> Self {
        Arbiter {
            memory: Arc::new(memory),
            caches: RwLock::default(),
            cursor: AtomicUsize::new(0),
            gave_last: AtomicUsize::new(0),
        }
    }

    pub(crate) fn register(&self, cache: &Arc<Cache>) {
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        cache.number.store(caches.len(), Relaxed);
        caches.push(Arc::clone(cache));
    }

    pub(crate) fn unregister(&self, cache: &Arc<Cache>) {
        let mut caches = self.caches.write().unwrap_or_else(PoisonError::into_inner);
        let at = cache.number.load(Relaxed);
        assert!(Arc::ptr_eq(&caches[at], cache), "a cache is unregistered once");
        caches.swap_remove(at);
        // The last has taken its place.
        if let Some(moved) = caches.get(at) {
            moved.number.store(at, Relaxed);
        }
    }

    /// Forgets all caches, because their store is gone.
    pub(crate) fn clear(&self) {
        self.caches.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The cache with this number in the list, which changes as caches come and go.
    pub(crate) fn cache(&self, number: usize) -> Option<Arc<Cache>> {
        let caches = self.caches.read().unwrap_or_else(PoisonError::into_inner);
        caches.get(number).cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.caches.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Takes blocks from caches that hold more than they were promised, or than they pay for. The
    /// caller must hold no cache's lock.
    pub(crate) fn reclaim(&self, claim: Claim, now: Seconds) -> Vec<Block> {
        let mut taken = Vec::new();
        for _ in 0..GIVERS_MAX {
            let missing = claim.blocks - taken.len() as u32;
            if missing == 0 {
                break;
            }
            let giver = self.giver(claim.right).or_else(|| {
                if claim.right == Right::Payment {
                    return None;
                }
                self.look_closely();
                self.giver(claim.right)
            });
            let Some((cache, shard)) = giver else { break };
            taken.extend(cache.shed(shard, Claim { blocks: missing, ..claim }, now));
        }
        taken
    }

    /// Waits for every operation that is under way, and so learns what each shard truly holds: one
    /// that is just taking the last of the memory tells so only when it is done. Rare, because it is
    /// needed only while no shard is known to hold more than its share.
    fn look_closely(&self) {
        let mut number = 0;
        while let Some(cache) = self.cache(number) {
            for shard in cache.shards() {
                work::looked_at_shard();
                shard.look();
            }
            number += 1;
        }
    }

    /// A shard that may be asked to give: of a sample, the one that would miss it least.
    fn giver(&self, right: Right) -> Option<(Arc<Cache>, usize)> {
        let caches = self.caches.read().unwrap_or_else(PoisonError::into_inner);
        let start = self.cursor.fetch_add(SAMPLE, Relaxed);
        let most = match right {
            Right::Promise => caches.len(),
            Right::Payment => caches.len().min(SAMPLE_OF_PAYMENT),
        };
        let in_turn =
            |steps: Range<usize>| steps.map(|step| start.wrapping_add(step) % caches.len());
        let mut best = None;
        for number in in_turn(0..most.min(SAMPLE)) {
            weigh(number, &caches[number], right, &mut best);
        }
        let last = Some(self.gave_last.load(Relaxed)).filter(|&last| last < caches.len());
        for number in last.into_iter().chain(in_turn(SAMPLE..most)) {
            if best.is_some() {
                break;
            }
            weigh(number, &caches[number], right, &mut best);
        }
        best.map(|Giver { number, shard, .. }| {
            self.gave_last.store(number, Relaxed);
            (Arc::clone(&caches[number]), shard)
        })
    }
}

/// Who may be asked to give.
struct Giver {
    rank: Rank,
    /// Of its cache, in the list.
    number: usize,
    shard: usize,
}

/// Takes a shard of the cache for the best giver if it is better than the best so far. Of many caches
/// most are far from the processor, so this only reads: what it waits for then comes together for
/// several.
fn weigh(number: usize, cache: &Cache, right: Right, best: &mut Option<Giver>) {
    for (shard, of) in cache.shards().iter().enumerate() {
        work::looked_at_shard();
        let Some(rank) = rank(of, right) else { continue };
        if best.as_ref().is_none_or(|best| rank < best.rank) {
            *best = Some(Giver { rank, number, shard });
        }
    }
}

/// Who gives first: who has more than is paid for; then who would miss it least, by ghost hits per
/// block held; then who has borrowed most.
type Rank = (bool, u32, u32);

/// `None` for a shard that need not give.
fn rank(shard: &Shard, right: Right) -> Option<Rank> {
    let held = shard.held.load(Relaxed);
    let unpaid = shard.unpaid.load(Relaxed);
    let beyond_share = held.saturating_sub(shard.share.load(Relaxed));
    let surplus = match right {
        Right::Payment => unpaid,
        Right::Promise => unpaid.max(beyond_share),
    };
    let missed = shard.missed.load(Relaxed);
    (surplus > 0)
        .then(|| (unpaid == 0, missed.saturating_mul(1_024) / held.max(1), u32::MAX - surplus))
}
