//! One shard of one cache: items, quota, eviction. What clients may ask is in `serve.rs`.
//!
//! ```text
//!   put ─▶ quota: evict while live bytes exceed what the cache may hold
//!       ─▶ blocks: free one → else below its guarantee: another cache gives one (arbiter.rs)
//!       │                   → else from its own: the sparsest block, or evict
//!       ─▶ append to small, or to main if the key was evicted not long ago (ghost)
//! ```
//!
//! Eviction is S3-FIFO (Yang et al., SOSP 2023) by the block: the oldest block of the small queue,
//! or of the main queue if the small one is within its share, is emptied; items that were read move
//! to the end of main, the others are dropped.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::sync::Arc;

use arrayvec::ArrayVec;
use foldhash::quality::FixedState;

use crate::arena::{BLOCK_BYTES, Block};
use crate::ghost::Ghost;
use crate::index::{FREQ_MAX, Index, Keys, Place, Slot};
use crate::item::{Cas, Head, Marks, raw_expiry};
use crate::log::{GROUPS, Kind, LogId, Logs};
use crate::memory::{Memory, Need};
use crate::operation::{Expiry, Seconds};
use crate::stats::{CacheStats, Histograms};
use crate::stream::Journal;
use crate::watch::{Watch, Watching};
use crate::work;

/// The small queue's share of the bytes, in percent (S3-FIFO's 10 %) …
const SMALL_PERCENT: u64 = 10;
/// … and of a cache of few items, whose small queue would else be a handful.
const SMALL_PERCENT_FEW: u64 = 20;
const FEW_ITEMS: u64 = 1_000;
/// Blocks per group of lifetimes: each group has up to two blocks that are half empty.
const BLOCKS_PER_GROUP: u32 = 32;
/// Upper ends of the lifetimes of the groups but the last, in seconds; each four times the one
/// before.
const GROUP_SECONDS: [u32; GROUPS - 1] = [64, 256, 1_024, 4_096, 16_384, 65_536, 262_144];
/// Blocks emptied for each block needed before counts of reads begin to matter less, and again as
/// many before they matter still less: so bounded is the copying that one request may wait for when
/// everything in the cache is hot.
const PATIENCE: usize = 4;
/// Blocks looked at to find a sparse one.
const SPARSE_SAMPLE: usize = 32;
/// The same when the alternative is to evict within the guarantee.
const PAID_SAMPLE: usize = 512;
/// Only blocks with at most this much alive are worth emptying.
const SPARSE_LIVE_MAX: usize = BLOCK_BYTES * 7 / 8;
/// Blocks emptied at most for one that is taken, when much is dead.
const SPARSE_STEPS: usize = 4;
/// Blocks evicted at most for each that a write needs, when the cache was made smaller; the rest is
/// for idle time.
const SHRINK_STEPS: usize = 8;
/// Blocks evicted at most to make an item fit, beyond [`PATIENCE_IN_ALL`] for each that it needs: where
/// the oldest blocks are nearly dead, many of them hold less than one item. What is then too much is
/// for the next writes and for idle time; all that is dead is a sixth of the blocks, so it is little.
const DEAD_STEPS: usize = 48;
/// Blocks emptied for each block needed until no count of reads matters, and some more.
const PATIENCE_IN_ALL: usize = PATIENCE * (FREQ_MAX as usize + 1);
/// Items that survive the evictions of one request at most: copying as many takes some hundred
/// microseconds. Only a large item among hot small ones comes to so many.
const SURVIVORS_MAX: u32 = 2_048;
/// Items whose slots are fetched from memory together when a block is walked: a core has 10 to 16
/// misses under way, and twice as many keep it busy.
const AHEAD: usize = 32;
/// Time in which counts of what happened lately halve.
const FADE_SECONDS: u32 = 30;
/// Seconds for which an overdraft holds without a new quota; several of them were missed then. Only
/// seconds in which the slice was tended count: while the process stands still nobody misses anything.
const CREDIT_SECONDS: u32 = 10;
/// An item is large for a share that holds no more than so many of it.
const FEW_LARGE: u64 = 32;
/// Most blocks claimed at once for overhead that was not allowed for.
const LACKED_MAX: u32 = 8;
/// A gathered value buffer larger than this is not kept: few values are.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

/// What a slice may hold. Bytes are key and value bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Always granted.
    pub(crate) guaranteed: u64,
    /// Granted while memory is idle. At least `guaranteed`, but for a share smaller than the largest
    /// item: memory stands by for that item, and the share is kept to again when it is gone.
    pub(crate) most: u64,
    /// What large items may exceed `most` by until the next quota: of a cache that has other shares
    /// elsewhere, where there may be room. 0 for one that is whole.
    pub(crate) credit: u64,
    /// Blocks that stand behind `guaranteed`, with all overhead.
    pub(crate) blocks: u32,
    /// Largest key plus value.
    pub(crate) item_bytes_max: u32,
}

/// Items and how they are found. Given up as a whole by a flush.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) index: Index,
    pub(crate) logs: Logs,
    ghost: Ghost,
}

impl Contents {
    /// Blocks held.
    pub(crate) fn blocks(&self) -> u32 {
        self.index.blocks() + self.logs.blocks() + self.logs.spare.len() as u32
    }

    /// Hands over one block of what is given up.
    pub(crate) fn dismantle(&mut self) -> Option<Block> {
        self.logs.dismantle().or_else(|| self.index.dismantle())
    }
}

/// 30 bits of the 32 that counted CAS values have: room for three billion writes before they wrap.
const CAS_BEFORE_MAX: u32 = (1 << 30) - 1;

/// The CAS value before the first one that a slice of this store gives.
pub(crate) fn cas_before(hasher: &FixedState) -> u32 {
    hasher.hash_one("CAS") as u32 & CAS_BEFORE_MAX
}

pub(crate) struct Slice {
    pub(crate) contents: Contents,
    pub(crate) quota: Quota,
    /// `items` and `bytes` are always true; the rest are counters.
    pub(crate) stats: CacheStats,
    memory: Arc<Memory>,
    hasher: FixedState,
    /// Flushes so far, by which streams and walks know that they must begin again.
    epoch: u32,
    /// The last counted CAS value. A flush does not begin it anew, so that no value comes twice; and it
    /// stays within 32 bits, into which some clients read it. Begins at chance, so that a value that a
    /// client holds from another backend, or from before a restart, hardly ever means an item of ours.
    cas_last: u32,
    /// What large items have used of the quota's `credit` since the last [weighing](Slice::weighed), and
    /// before it: the next one may have been worked out without knowing of them, the one after it knows.
    pub(crate) overdraft: [u64; 2],
    /// Whether what is held was told since the last weighing. Shares that come without that were worked
    /// out from the same figures, however many they are: after a pause they come all at once.
    pub(crate) is_told: bool,
    /// Seconds in which the slice was tended since somebody last said that shares are weighed, and the
    /// last of them.
    unweighed: (u32, Seconds),
    /// A flush asked for a later second.
    pub(crate) flush_at: Option<Seconds>,
    /// Ghost hits, fading.
    missed: u32,
    /// When `missed` last faded.
    faded: Seconds,
    /// Items that may still survive the evictions of this request.
    survivors_left: u32,
    /// Blocks emptied so far: as long as it stays, what was found stays where it is.
    emptied: u64,
    /// Keys that a stream must still tell of, while there is one.
    pub(crate) journal: Option<Box<Journal>>,
    /// Counts what is asked for most, if someone wants to know.
    pub(crate) watching: Watching,
    /// Sizes and lifetimes written; there from the first write on.
    pub(crate) histograms: Option<Box<Histograms>>,
    /// Requests counted, and when, by the last [`Slice::tend`].
    paced: (u64, Seconds),
    /// Blocks' worth evicted lately of what is paid for: its overhead is more than was allowed for.
    lacked: u32,
    /// When last nobody had any to give for that.
    refused: Option<Seconds>,
}

/// What a slice may ask of others, and by which right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) blocks: u32,
    pub(crate) right: Right,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Blocks stand behind its guarantee, which others hold: always met.
    Promise,
    /// It holds less than is paid for though it has all those blocks, because its items are small
    /// and their overhead large: met by those who hold more than they pay for.
    Payment,
}

/// A key and its hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key<'k> {
    pub(crate) bytes: &'k [u8],
    pub(crate) hash: u64,
}

/// An item that was found. Valid until the slice is next changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) slot: Slot,
    pub(crate) place: Place,
    pub(crate) head: Head,
}

/// What an item to be written has besides key and value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New {
    pub(crate) flags: u32,
    pub(crate) expiry: Expiry,
    pub(crate) cas: Cas,
    pub(crate) marks: Marks,
}

/// Items of a walk, oldest first, whose slots are on their way from memory. What would be a wait
/// for each is one for all.
pub(crate) type Ahead = ArrayVec<(Place, u64), AHEAD>;

/// The item fits neither the limit nor what memory could be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// Lets the index ask for the hashes of the items it points to.
struct KeysOf<'a> {
    logs: &'a Logs,
    hasher: &'a FixedState,
}

impl Keys for KeysOf<'_> {
    fn hash(&self, place: Place) -> u64 {
        self.hasher.hash_one(self.logs.key(place))
    }

    fn prefetch(&self, place: Place) {
        self.logs.prefetch(place);
    }
}

impl Slice {
    pub(crate) fn new(quota: Quota, memory: Arc<Memory>, hasher: FixedState) -> Self {
        let cas_last = cas_before(&hasher);
        Slice {
            contents: Contents::default(),
            quota,
            stats: CacheStats::default(),
            memory,
            hasher,
            epoch: 0,
            cas_last,
            overdraft: [0; 2],
            is_told: false,
            unweighed: (0, Seconds(0)),
            flush_at: None,
            missed: 0,
            faded: Seconds(0),
            survivors_left: 0,
            emptied: 0,
            journal: None,
            watching: Watching::default(),
            histograms: None,
            paced: (0, Seconds(0)),
            lacked: 0,
            refused: None,
        }
    }

    #[inline]
    pub(crate) fn find(&self, key: Key<'_>) -> Option<Found> {
        let Contents { index, logs, .. } = &self.contents;
        let slot = index.find(key.hash, |place| logs.key_is(place, key.bytes))?;
        let place = index.place(slot);
        Some(Found { slot, place, head: logs.head(place) })
    }

    /// Takes an item away. It is for the caller to count why.
    pub(crate) fn remove(&mut self, found: &Found) {
        self.contents.index.remove(found.slot);
        self.contents.logs.kill(found.place, &found.head);
        self.stats.items -= 1;
        self.stats.bytes -= found.head.charged_bytes();
    }

    /// Takes away an item that has expired.
    pub(crate) fn expire(&mut self, found: &Found) {
        self.remove(found);
        self.stats.expired += 1;
        self.stats.expired_unread += u64::from(!found.head.marks.read);
    }

    /// Writes an item, in place of the `old` one with the same key. If it cannot be, the old one may
    /// be gone, as anything may that eviction finds.
    pub(crate) fn put(
        &mut self,
        key: Key<'_>,
        old: Option<Found>,
        new: New,
        parts: [&[u8]; 2],
        now: Seconds,
    ) -> Result<(), NoMemory> {
        let head = Head {
            key_bytes: key.bytes.len(),
            value_bytes: parts[0].len() + parts[1].len(),
            flags: new.flags,
            expiry: new.expiry,
            cas: new.cas,
            marks: new.marks,
        };
        self.note(key.bytes);
        self.histograms
            .get_or_insert_default()
            .add(head.charged_bytes(), head.expiry.remaining(now));
        if let Some(old) = &old
            && old.head.value_bytes == head.value_bytes
            && old.head.bytes() == head.bytes()
        {
            self.contents.logs.write_head(old.place, &head);
            self.contents.logs.write_value(old.place, &head, parts);
            self.contents.logs.note_expiry(old.place, &head, raw_expiry(head.expiry));
            self.contents.index.bump(old.slot);
            return Ok(());
        }

        // Being written again counts as a use, wherever the new version comes to lie.
        let (kind, freq) = match &old {
            Some(old) => {
                let freq = self.contents.index.freq(old.slot);
                (self.contents.logs.kind(old.place), (freq + 1).min(FREQ_MAX))
            }
            None if self.contents.ghost.take(key.hash) => {
                self.stats.ghost_hits += 1;
                self.missed = self.missed.saturating_add(1);
                (Kind::Main, 0)
            }
            None => (Kind::Small, 0),
        };
        let emptied = self.emptied;
        self.survivors_left = SURVIVORS_MAX;
        let old_bytes = old.as_ref().map_or(0, |old| old.head.charged_bytes());
        if self.quota.credit > 0 {
            self.overdraw(head.charged_bytes());
        }
        let granted = self.quota.guaranteed.min(self.quota.most);
        if self.stats.bytes - old_bytes + head.charged_bytes() > granted {
            self.fit_quota(key, &head, now)?;
        }
        let log = LogId::new(kind, self.group(head.expiry, now));
        if old.is_none() || self.contents.logs.needed(log, &head) > 0 {
            self.gather_blocks(key, log, &head, now)?;
        }
        // Emptying blocks may have taken the old one, or moved it.
        let old = if self.emptied == emptied { old } else { self.find(key) };
        if let Some(old) = &old {
            self.contents.logs.kill(old.place, &old.head);
            self.stats.items -= 1;
            self.stats.bytes -= old.head.charged_bytes();
        }
        let place = self.contents.logs.append(log, &head, key.bytes, parts);
        match old {
            Some(old) => self.contents.index.repoint(old.slot, place, freq),
            None => self.contents.index.insert(key.hash, place, freq),
        }
        self.stats.items += 1;
        self.stats.bytes += head.charged_bytes();
        Ok(())
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The CAS value of the next write.
    pub(crate) fn next_cas(&mut self, chosen: Option<u64>) -> Cas {
        match chosen {
            Some(whole) => Cas::Chosen(whole),
            None => {
                // 0 means "no compare" in several dialects, so it is skipped when the count wraps.
                self.cas_last = self.cas_last.wrapping_add(1).max(1);
                Cas::Counted(self.cas_last)
            }
        }
    }

    /// Forgets everything, in time that does not depend on how much it is.
    pub(crate) fn flush_now(&mut self) {
        let contents = std::mem::take(&mut self.contents);
        self.memory.bury(contents);
        self.epoch = self.epoch.wrapping_add(1);
        self.stats.items = 0;
        self.stats.bytes = 0;
        self.stats.first_eviction = None;
    }

    /// Blocks this slice shall have at hand before a write of so many bytes that stays within the
    /// guarantee, while memory is scarce. As far as blocks stand behind the guarantee, as many as the
    /// write can need, so that it holds whatever others take meanwhile; beyond, as many as the last
    /// writes had to evict for.
    #[inline]
    pub(crate) fn claims(&self, item_bytes: usize, now: Seconds) -> Option<Claim> {
        let is_paid = self.stats.bytes + item_bytes as u64 <= self.quota.guaranteed;
        if !is_paid || !self.memory.is_scarce() {
            return None;
        }
        // The item's own blocks, one it may begin in, and one for the index.
        let needed = (item_bytes / BLOCK_BYTES + 3) as u32;
        let promised = needed.min(self.quota.blocks.saturating_sub(self.contents.blocks()));
        if promised > 0 {
            return Some(Claim { blocks: promised, right: Right::Promise });
        }
        let lacked = if self.refused == Some(now) { 0 } else { self.lacked };
        (lacked > 0).then_some(Claim { blocks: lacked, right: Right::Payment })
    }

    /// Blocks that another cache may claim by this right.
    pub(crate) fn surplus(&self, right: Right) -> u32 {
        let unpaid = self.unpaid_blocks();
        match right {
            Right::Payment => unpaid,
            Right::Promise => unpaid.max(self.contents.blocks().saturating_sub(self.quota.blocks)),
        }
    }

    /// What is held beyond the guarantee, as if it were without overhead.
    pub(crate) fn unpaid_blocks(&self) -> u32 {
        let paid = self.quota.guaranteed.min(self.quota.most);
        (self.stats.bytes.saturating_sub(paid) / BLOCK_BYTES as u64) as u32
    }

    /// Gives up blocks for a cache that claims its guarantee.
    pub(crate) fn shed(&mut self, blocks: usize, now: Seconds) -> Vec<Block> {
        let evicted = self.stats.evictions;
        self.survivors_left = SURVIVORS_MAX;
        let mut steps = 0;
        while self.contents.logs.spare.len() < blocks
            && self.recycle(steps / (PATIENCE * blocks), now)
        {
            steps += 1;
        }
        self.stats.evictions_lent += self.stats.evictions - evicted;
        let keep = self.contents.logs.spare.len().saturating_sub(blocks);
        self.contents.logs.spare.split_off(keep)
    }

    /// Takes blocks that were gathered for this slice's next write.
    pub(crate) fn receive(&mut self, claim: Claim, blocks: Vec<Block>, now: Seconds) {
        if claim.right == Right::Payment {
            self.lacked = 0;
            if blocks.len() < claim.blocks as usize {
                self.refused = Some(now);
            }
        }
        self.contents.logs.spare.extend(blocks);
    }

    /// Background work: frees what has expired, comes down to a smaller quota, gathers what is
    /// sparse. Takes steps of one block from `budget`. True when there is more.
    pub(crate) fn tend(&mut self, budget: &mut u32, now: Seconds) -> bool {
        self.survivors_left = u32::MAX;
        if self.unweighed.1 < now {
            self.unweighed = (self.unweighed.0.saturating_add(1), now);
        }
        while *budget > 0 {
            // Nobody waits, so every count of reads matters.
            let did = self.drop_expired_block(now)
                || self.stats.bytes > self.quota.most + self.overdrawn()
                    && self.evict_block(0, now)
                || self.is_sparse() && self.compact_block(SPARSE_SAMPLE, now);
            if !did {
                break;
            }
            *budget -= 1;
        }
        if now.0 >= self.faded.0.saturating_add(FADE_SECONDS) {
            self.faded = now;
            self.missed /= 2;
            if let Some(watch) = self.watching.watch() {
                watch.fade();
            }
        }
        self.watching.lapse(now);
        self.pace(now);
        if self.stats.items == 0 && self.contents.index.blocks() > 0 {
            // An empty cache needs no index. (Its logs stay, so that a scan keeps its place.)
            let index = std::mem::take(&mut self.contents.index);
            self.memory.bury(Contents { index, ..Contents::default() });
        }
        self.return_spares();
        *budget == 0
    }

    /// Sees how busy the slice has been since the last time, in another second.
    fn pace(&mut self, now: Seconds) {
        let (before, at) = self.paced;
        let seconds = u64::from(now.0.saturating_sub(at.0));
        let requests = self.stats.cmd_get + self.stats.cmd_set;
        // Fewer than before when the counters were reset.
        let more = requests.saturating_sub(before);
        if let Some(per_second) = more.checked_div(seconds) {
            self.paced = (requests, now);
            let Slice { watching, memory, quota, .. } = self;
            watching.pace(per_second, &memory.watches, before ^ 0x5eed, quota.guaranteed);
        }
    }

    /// Ghost hits lately.
    pub(crate) fn missed_lately(&self) -> u32 {
        self.missed
    }

    /// Heap bytes beside the blocks.
    pub(crate) fn table_bytes(&self) -> u64 {
        let watched = self.watching.seen().map_or(0, Watch::bytes);
        self.contents.logs.table_bytes() + self.contents.ghost.bytes() + watched
    }

    /// Evicts until the item fits the quota.
    fn fit_quota(&mut self, key: Key<'_>, head: &Head, now: Seconds) -> Result<(), NoMemory> {
        if head.charged_bytes() > self.quota.guaranteed {
            return Err(NoMemory);
        }
        let start = self.stats.bytes;
        let blocks = head.item_bytes() / BLOCK_BYTES + 1;
        let mut steps = 0;
        loop {
            let old = self.find(key).map_or(0, |old| old.head.charged_bytes());
            let bytes = self.stats.bytes - old + head.charged_bytes();
            let Quota { guaranteed, most, .. } = self.quota;
            let limit = if self.memory.available() > 0 {
                most
            } else {
                // What was lent is kept until someone claims it, but does not grow.
                start.clamp(guaranteed.min(most), most)
            };
            if bytes <= limit + self.overdrawn() {
                return Ok(());
            }
            // After a cut of the quota there may be very much to evict.
            if steps >= SHRINK_STEPS * blocks && start > self.quota.most && bytes <= start {
                return Ok(());
            }
            if steps >= PATIENCE_IN_ALL * blocks + DEAD_STEPS {
                return Ok(());
            }
            if !self.drop_expired_block(now) && !self.evict_block(steps / (PATIENCE * blocks), now)
            {
                return Err(NoMemory);
            }
            steps += 1;
        }
    }

    /// Shares are weighed, although this one may not have changed.
    pub(crate) fn kept(&mut self) {
        self.unweighed.0 = 0;
        self.is_told = true;
    }

    /// A new share has come: what large items held on credit is in it, if that was told before.
    pub(crate) fn weighed(&mut self) {
        self.unweighed.0 = 0;
        if std::mem::take(&mut self.is_told) {
            self.overdraft = [0, self.overdraft[0]];
        }
    }

    /// What large items may hold beyond the share for now. When nobody weighs shares any more, the
    /// largest item still has its place, and that is all.
    fn overdrawn(&self) -> u64 {
        if CREDIT_SECONDS < self.unweighed.0 {
            self.quota.credit.saturating_sub(self.quota.most)
        } else {
            self.overdraft[0] + self.overdraft[1]
        }
    }

    /// Counts an item as held beyond the share, because it is large for it: a share that is a few
    /// items is full by chance. As the credit is at least one item, an item alone always fits.
    fn overdraw(&mut self, item_bytes: u64) {
        let Quota { most, credit, .. } = self.quota;
        if most < item_bytes * FEW_LARGE {
            self.overdraft[0] = (self.overdraft[0] + item_bytes).min(credit);
        }
    }

    /// Has at hand the blocks that appending the item and indexing it will take.
    fn gather_blocks(
        &mut self,
        key: Key<'_>,
        log: LogId,
        head: &Head,
        now: Seconds,
    ) -> Result<(), NoMemory> {
        let mut compactions = 0;
        let mut steps = 0;
        loop {
            let needed = self.contents.logs.needed(log, head);
            let spare = self.contents.logs.spare.len();
            if spare >= needed {
                if self.find(key).is_some() {
                    return Ok(());
                }
                let Contents { index, logs, .. } = &mut self.contents;
                // Taken out, because the index takes from it while it asks the logs for keys.
                let mut spare = std::mem::take(&mut logs.spare);
                let kept = spare.split_off(spare.len() - needed);
                let room =
                    index.make_room(key.hash, &mut spare, &KeysOf { logs, hasher: &self.hasher });
                spare.extend(kept);
                logs.spare = spare;
                if room.is_ok() {
                    return Ok(());
                }
            } else if compactions < SPARSE_STEPS
                && self.is_sparse()
                && self.compact_block(SPARSE_SAMPLE, now)
            {
                compactions += 1;
                continue;
            }
            if !self.contents.logs.can_number(needed + 1) {
                return Err(NoMemory);
            }
            match self.memory.take(Need::Growth) {
                Some(block) => self.contents.logs.spare.push(block),
                None => {
                    let evictions = self.stats.evictions;
                    if !self.recycle(steps / (PATIENCE * (needed + 1)), now) {
                        return Err(NoMemory);
                    }
                    steps += 1;
                    let is_paid = self.stats.bytes + head.charged_bytes() <= self.quota.guaranteed;
                    if is_paid && self.stats.evictions > evictions {
                        self.lacked = (self.lacked + 1).min(LACKED_MAX);
                    }
                }
            }
        }
    }

    /// Frees blocks among the slice's own. False when nothing can be done.
    fn recycle(&mut self, ruthless: usize, now: Seconds) -> bool {
        // What is paid for is not evicted to make up for dead bytes between it.
        let sample = if self.stats.bytes <= self.quota.guaranteed && self.has_dead_block() {
            PAID_SAMPLE
        } else if self.is_sparse() {
            SPARSE_SAMPLE
        } else {
            0
        };
        self.drop_expired_block(now)
            || sample > 0 && self.compact_block(sample, now)
            || self.evict_block(ruthless, now)
    }

    /// Whether the dead bytes would fill a block.
    fn has_dead_block(&self) -> bool {
        let logs = &self.contents.logs;
        let full = logs.raw_bytes() / BLOCK_BYTES as u64;
        u64::from(logs.blocks()) > full + logs.open_blocks() + 1
    }

    /// Whether blocks are at hand that the last operation freed or did not need.
    #[inline]
    pub(crate) fn has_spares(&self) -> bool {
        !self.contents.logs.spare.is_empty()
    }

    /// Gives the blocks at hand back to the store.
    pub(crate) fn return_spares(&mut self) {
        if self.has_spares() {
            self.memory.give(self.contents.logs.spare.drain(..));
        }
    }

    /// Drops a block in which everything has expired, from the head of its log.
    fn drop_expired_block(&mut self, now: Seconds) -> bool {
        let Some(block) = self.contents.logs.expired_head(now.0) else { return false };
        self.empty_block(block, FREQ_MAX, now);
        true
    }

    /// Evicts the block whose turn it is. Items read more often than `ruthless` says survive.
    fn evict_block(&mut self, ruthless: usize, now: Seconds) -> bool {
        let logs = &self.contents.logs;
        let percent = if self.stats.items < FEW_ITEMS { SMALL_PERCENT_FEW } else { SMALL_PERCENT };
        let small_is_large = logs.small_bytes() * 100 > logs.raw_bytes() * percent;
        let (first, second) =
            if small_is_large { (Kind::Small, Kind::Main) } else { (Kind::Main, Kind::Small) };
        let Some(block) = logs.oldest(first).or_else(|| logs.oldest(second)) else { return false };
        self.empty_block(block, ruthless.min(usize::from(FREQ_MAX)) as u8, now);
        true
    }

    /// Takes a block out of its log and lets each of its items survive or go.
    fn empty_block(&mut self, block: u32, ruthless: u8, now: Seconds) {
        self.emptied += 1;
        work::emptied_block();
        self.contents.logs.detach(block);
        self.contents.logs.prefetch_block(block);
        let mut next = self.contents.logs.first_item(block);
        while next.is_some() {
            for (place, hash) in self.walk(&mut next) {
                self.keep_or_evict(place, hash, ruthless, now);
            }
        }
        self.contents.logs.retire(block);
    }

    /// Lets one item of a block that is emptied survive or go.
    fn keep_or_evict(&mut self, place: Place, hash: u64, ruthless: u8, now: Seconds) {
        let Some(found) = self.living(place, hash) else { return };
        if found.head.expiry.has_passed(now) {
            self.expire(&found);
            return;
        }
        let kind = self.contents.logs.kind(place);
        let freq = self.contents.index.freq(found.slot);
        // Entering main begins a new count; in main each round uses one up.
        let left = if kind == Kind::Small { 0 } else { freq.saturating_sub(1) };
        if freq > ruthless
            && self.survivors_left > 0
            && self.move_item(&found, Kind::Main, left, now)
        {
            self.survivors_left -= 1;
            return;
        }
        self.remove(&found);
        self.stats.evictions += 1;
        self.stats.evicted_unread += u64::from(!found.head.marks.read);
        self.stats.first_eviction.get_or_insert(now);
        if kind == Kind::Small {
            self.contents.ghost.add(hash, self.stats.items);
        }
    }

    /// The next items of a block, and `next` moves past them.
    fn walk(&self, next: &mut Option<Place>) -> Ahead {
        let logs = &self.contents.logs;
        let ahead = self.fetch(AHEAD, || {
            let place = (*next)?;
            *next = logs.next_item(place, &logs.head(place));
            Some(place)
        });
        work::walked_items(ahead.len());
        ahead
    }

    /// Up to `most` items, with their slots on the way.
    pub(crate) fn fetch(&self, most: usize, mut next: impl FnMut() -> Option<Place>) -> Ahead {
        let mut ahead = Ahead::new();
        while ahead.len() < most.min(AHEAD)
            && let Some(place) = next()
        {
            let hash = self.hash(self.contents.logs.key(place));
            self.contents.index.prefetch(hash);
            ahead.push((place, hash));
        }
        ahead
    }

    /// Whether so much is dead that gathering the living pays: a sixth, and more than the blocks
    /// that are still being filled.
    fn is_sparse(&self) -> bool {
        let logs = &self.contents.logs;
        let full = logs.raw_bytes() / BLOCK_BYTES as u64;
        u64::from(logs.blocks()) > full * 6 / 5 + logs.open_blocks() + 1
    }

    /// Moves the living out of a block that has many dead, so that it is freed.
    fn compact_block(&mut self, sample: usize, now: Seconds) -> bool {
        let Some(block) = self.contents.logs.sparsest(sample, SPARSE_LIVE_MAX) else {
            return false;
        };
        self.emptied += 1;
        work::emptied_block();
        self.contents.logs.begin_walk(block);
        let mut moved = true;
        if let Some(place) = self.contents.logs.runs_into(block) {
            let hash = self.hash(self.contents.logs.key(place));
            moved &= self.move_or_keep(place, hash, now);
        }
        let mut next = self.contents.logs.first_item(block);
        while next.is_some() {
            for (place, hash) in self.walk(&mut next) {
                moved &= self.move_or_keep(place, hash, now);
            }
        }
        self.contents.logs.end_walk(block);
        moved
    }

    /// Moves an item to the end of its queue, unless it is dead; false when there was no block.
    fn move_or_keep(&mut self, place: Place, hash: u64, now: Seconds) -> bool {
        let Some(found) = self.living(place, hash) else { return true };
        if found.head.expiry.has_passed(now) {
            self.expire(&found);
            return true;
        }
        let kind = self.contents.logs.kind(place);
        let freq = self.contents.index.freq(found.slot);
        self.move_item(&found, kind, freq, now)
    }

    /// The item that lies here, if it is alive.
    #[inline]
    pub(crate) fn living(&self, place: Place, hash: u64) -> Option<Found> {
        let slot = self.contents.index.find(hash, |other| other == place)?;
        Some(Found { slot, place, head: self.contents.logs.head(place) })
    }

    /// Copies an item to the end of a log. False, and nothing done, when there was no block.
    fn move_item(&mut self, found: &Found, kind: Kind, freq: u8, now: Seconds) -> bool {
        let log = LogId::new(kind, self.group(found.head.expiry, now));
        let Contents { index, logs, .. } = &mut self.contents;
        while logs.spare.len() < logs.needed(log, &found.head) {
            let Some(block) = self.memory.take(Need::Survivor) else { return false };
            logs.spare.push(block);
        }
        with_scratch(|copy| {
            copy.clear();
            copy.extend_from_slice(logs.key(found.place));
            logs.copy_value(found.place, &found.head, copy);
            let (key, value) = copy.split_at(found.head.key_bytes);
            logs.kill(found.place, &found.head);
            let place = logs.append(log, &found.head, key, [value, &[]]);
            index.repoint(found.slot, place, freq);
        });
        work::moved_item(found.head.item_bytes());
        true
    }

    /// The group of lifetimes for an item: the fewer blocks there are, the fewer groups.
    fn group(&self, expiry: Expiry, now: Seconds) -> usize {
        let groups = (self.contents.logs.blocks() / BLOCKS_PER_GROUP).clamp(1, GROUPS as u32);
        let class = match expiry.remaining(now) {
            None => GROUPS - 1,
            Some(left) => GROUP_SECONDS.iter().filter(|&&limit| limit < left).count(),
        };
        class * groups as usize / GROUPS
    }
}

/// Lends a buffer of this thread for a value in pieces. A visitor that comes back here while it has
/// one gets another.
pub(crate) fn with_scratch<R>(use_it: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    SCRATCH.with(|cell| {
        let mut scratch = cell.take();
        let result = use_it(&mut scratch);
        if scratch.capacity() <= SCRATCH_BYTES_MAX {
            cell.set(scratch);
        }
        result
    })
}

#[cfg(test)]
impl Slice {
    /// Checks index, logs and accounts against one another.
    #[track_caller]
    pub(crate) fn check(&self) {
        let places: Vec<Place> = self.contents.index.places().collect();
        self.contents.logs.check(&places);
        assert_eq!(places.len() as u64, self.stats.items, "items");
        let mut bytes = 0;
        for &place in &places {
            bytes += self.contents.logs.head(place).charged_bytes();
            let key = self.contents.logs.key(place);
            let found = self.find(Key { bytes: key, hash: self.hasher.hash_one(key) });
            assert_eq!(found.map(|found| found.place), Some(place), "each key leads to its item");
        }
        assert_eq!(bytes, self.stats.bytes, "bytes");
        assert!(self.contents.logs.spare.is_empty(), "spare blocks are returned");
    }
}
