//! Items one behind the other, in chains of blocks that are in order of age.
//!
//! ```text
//!   a log     head ─▶ ┌──────────┐ ─▶ ┌──────────┐ ─▶ ┌──────────┐ ◀─ tail (open)
//!                     │ A  B  C  │    │ C  D  E  │    │ E  F     │
//!                     └──────────┘    └──────────┘    └──────────┘
//!                              └─ C runs on: its head and key lie in one block,
//!                                 its value continues in the next
//! ```
//!
//! There are two logs, small and main (S3-FIFO), for each group of lifetimes. An item is never
//! moved within its log: it dies in place, and a block whose items are all dead is freed wherever it
//! stands. `live` counts bytes, and a value that runs on counts in each block it touches, so a block
//! with a living part stays.

use crate::arena::{BLOCK_BYTES, Block, prefetch};
use crate::index::{BLOCKS_MAX, Place};
use crate::item::{self, Head, Marks};

/// Groups of lifetimes: blocks whose items expire at about the same time are freed whole.
pub(crate) const GROUPS: usize = 8;
pub(crate) const LOGS: usize = GROUPS * 2;
const NONE: u32 = u32::MAX;
const NO_ITEM: u16 = u16::MAX;

// The bytes of a block are counted in 16 bits, and a head always fits one.
const _: () = assert!(BLOCK_BYTES < NO_ITEM as usize && item::HEAD_BYTES_MAX < BLOCK_BYTES);

/// The two queues of S3-FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// New items; most are read never again and leave soon.
    Small,
    /// Items that proved themselves.
    Main,
}

/// One of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogId(u8);

impl LogId {
    pub(crate) fn new(kind: Kind, group: usize) -> Self {
        debug_assert!(group < GROUPS);
        LogId((group * 2 + kind as usize) as u8)
    }

    /// Every log: the small ones first, because items move from small to main.
    pub(crate) fn all() -> impl Iterator<Item = LogId> {
        let of = |kind| (0..GROUPS).map(move |group| LogId::new(kind, group));
        of(Kind::Small).chain(of(Kind::Main))
    }

    /// A number below [`LOGS`].
    pub(crate) fn number(self) -> usize {
        usize::from(self.0)
    }

    fn kind(self) -> Kind {
        if self.0 & 1 == 0 { Kind::Small } else { Kind::Main }
    }
}

#[derive(Clone, Copy)]
struct Ends {
    head: u32,
    tail: u32,
}

/// How far a reader of one log has come. The default is before its first item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The block's age; 0 before the first. A block's number is used again, its age is not.
    serial: u32,
    number: u32,
    /// Where the next item begins, or 0 for the block's first.
    offset: u16,
}

/// What is known of a block.
struct Meta {
    next: u32,
    prev: u32,
    /// Its age, against blocks of other logs.
    serial: u32,
    /// No item in it expires later (stored form of an expiry).
    expiry_max: u32,
    /// Bytes used.
    fill: u16,
    /// Where the first item begins; what is before it belongs to an item of an earlier block.
    first: u16,
    /// Bytes of living items.
    live: u16,
    log: LogId,
    /// Someone is walking it, so it stays although all in it is dead.
    walked: bool,
}

/// All blocks of items of one slice.
pub(crate) struct Logs {
    /// INVARIANT: `blocks[n]` is there exactly if `n` is not in `vacant`; `metas[n]` tells of it.
    blocks: Vec<Option<Block>>,
    metas: Vec<Meta>,
    vacant: Vec<u32>,
    ends: [Ends; LOGS],
    serial: u32,
    /// Blocks at hand: taken from here when a log grows, put here when a block is freed.
    pub(crate) spare: Vec<Block>,
    /// Bytes of living items, heads and all.
    raw_bytes: u64,
    /// Those in small logs.
    small_bytes: u64,
    /// Where the search for sparse blocks goes on.
    cursor: usize,
}

impl Default for Logs {
    fn default() -> Self {
        Logs {
            blocks: Vec::new(),
            metas: Vec::new(),
            vacant: Vec::new(),
            ends: [Ends { head: NONE, tail: NONE }; LOGS],
            serial: 0,
            spare: Vec::new(),
            raw_bytes: 0,
            small_bytes: 0,
            cursor: 0,
        }
    }
}

impl Logs {
    /// Blocks that hold items.
    pub(crate) fn blocks(&self) -> u32 {
        (self.blocks.len() - self.vacant.len()) as u32
    }

    /// Blocks that are still being filled.
    pub(crate) fn open_blocks(&self) -> u64 {
        self.ends.iter().filter(|ends| ends.tail != NONE).count() as u64
    }

    pub(crate) fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    pub(crate) fn small_bytes(&self) -> u64 {
        self.small_bytes
    }

    /// Heap bytes of the tables.
    pub(crate) fn table_bytes(&self) -> u64 {
        (self.blocks.capacity() * size_of::<Option<Block>>()
            + self.metas.capacity() * size_of::<Meta>()
            + self.vacant.capacity() * size_of::<u32>()) as u64
    }

    #[inline]
    pub(crate) fn at(&self, place: Place) -> &[u8] {
        &self.block(place.block).bytes()[usize::from(place.offset)..]
    }

    #[inline]
    pub(crate) fn head(&self, place: Place) -> Head {
        Head::read(self.at(place))
    }

    #[inline]
    pub(crate) fn key_is(&self, place: Place, key: &[u8]) -> bool {
        item::key_is(self.at(place), key)
    }

    #[inline]
    pub(crate) fn key(&self, place: Place) -> &[u8] {
        item::key_of(self.at(place))
    }

    /// Begins to fetch an item: its head, and the beginning of its value.
    #[inline]
    pub(crate) fn prefetch(&self, place: Place) {
        let bytes = self.at(place);
        prefetch(&bytes[0]);
        if let Some(byte) = bytes.get(64) {
            prefetch(byte);
        }
    }

    /// Begins to fetch a whole block that will be walked: heads lie too far apart for the processor
    /// to see that one follows another.
    pub(crate) fn prefetch_block(&self, number: u32) {
        self.block(number).bytes().iter().step_by(64).for_each(prefetch);
    }

    /// Writes an item's head anew; its key and sizes must be what they were.
    pub(crate) fn write_head(&mut self, place: Place, head: &Head) {
        let offset = usize::from(place.offset);
        head.write(&mut self.block_mut(place.block).bytes_mut()[offset..]);
    }

    /// Notes what happened to an item, and nothing else of its head.
    #[inline]
    pub(crate) fn write_marks(&mut self, place: Place, marks: Marks) {
        let offset = usize::from(place.offset);
        marks.write(&mut self.block_mut(place.block).bytes_mut()[offset..]);
    }

    /// The value, in place if it lies in one block and otherwise gathered in `scratch`.
    #[inline]
    pub(crate) fn value<'a>(
        &'a self,
        place: Place,
        head: &Head,
        scratch: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        match self.whole_value(place, head) {
            Some(value) => value,
            None => {
                scratch.clear();
                self.copy_value(place, head, scratch);
                scratch
            }
        }
    }

    /// The value, if it lies in one block.
    #[inline]
    pub(crate) fn whole_value(&self, place: Place, head: &Head) -> Option<&[u8]> {
        let start = usize::from(place.offset) + head.bytes();
        self.block(place.block).bytes().get(start..start + head.value_bytes)
    }

    /// Appends the value to `out`.
    pub(crate) fn copy_value(&self, place: Place, head: &Head, out: &mut Vec<u8>) {
        let mut block = place.block;
        let mut start = usize::from(place.offset) + head.bytes();
        let mut left = head.value_bytes;
        loop {
            let part = left.min(BLOCK_BYTES - start);
            out.extend_from_slice(&self.block(block).bytes()[start..start + part]);
            left -= part;
            if left == 0 {
                return;
            }
            block = self.metas[block as usize].next;
            start = 0;
        }
    }

    /// Replaces a value by one of the same length, given in two parts.
    pub(crate) fn write_value(&mut self, place: Place, head: &Head, parts: [&[u8]; 2]) {
        let mut block = place.block;
        let mut start = usize::from(place.offset) + head.bytes();
        for mut part in parts {
            while !part.is_empty() {
                if start == BLOCK_BYTES {
                    block = self.metas[block as usize].next;
                    start = 0;
                }
                let (now, later) = part.split_at(part.len().min(BLOCK_BYTES - start));
                self.block_mut(block).bytes_mut()[start..start + now.len()].copy_from_slice(now);
                start += now.len();
                part = later;
            }
        }
    }

    /// The queue an item is in.
    pub(crate) fn kind(&self, place: Place) -> Kind {
        self.metas[place.block as usize].log.kind()
    }

    /// Blocks that [`Logs::append`] will take from `spare`.
    pub(crate) fn needed(&self, log: LogId, head: &Head) -> usize {
        let room = match self.ends[usize::from(log.0)].tail {
            NONE => 0,
            tail => BLOCK_BYTES - usize::from(self.metas[tail as usize].fill),
        };
        let room = if room < head.bytes() { 0 } else { room };
        head.item_bytes().saturating_sub(room).div_ceil(BLOCK_BYTES)
    }

    /// Whether so many more blocks can be numbered.
    pub(crate) fn can_number(&self, more: usize) -> bool {
        self.blocks() as usize + more <= BLOCKS_MAX as usize
    }

    /// Writes an item at the end of a log. `spare` must hold [`Logs::needed`] blocks.
    pub(crate) fn append(
        &mut self,
        log: LogId,
        head: &Head,
        key: &[u8],
        parts: [&[u8]; 2],
    ) -> Place {
        debug_assert_eq!(head.key_bytes, key.len());
        debug_assert_eq!(head.value_bytes, parts[0].len() + parts[1].len());
        let expiry = item::raw_expiry(head.expiry);
        let mut tail = self.ends[usize::from(log.0)].tail;
        if tail == NONE || BLOCK_BYTES - usize::from(self.metas[tail as usize].fill) < head.bytes()
        {
            tail = self.open(log);
        }
        let offset = self.metas[tail as usize].fill;
        let place = Place { block: tail, offset };
        if self.metas[tail as usize].first == NO_ITEM {
            self.metas[tail as usize].first = offset;
        }
        let bytes = &mut self.block_mut(tail).bytes_mut()[usize::from(offset)..];
        head.write(bytes);
        bytes[head.key_start()..head.bytes()].copy_from_slice(key);
        self.extend(tail, head.bytes(), expiry);
        for mut part in parts {
            while !part.is_empty() {
                if usize::from(self.metas[tail as usize].fill) == BLOCK_BYTES {
                    tail = self.open(log);
                }
                let fill = usize::from(self.metas[tail as usize].fill);
                let (now, later) = part.split_at(part.len().min(BLOCK_BYTES - fill));
                self.block_mut(tail).bytes_mut()[fill..fill + now.len()].copy_from_slice(now);
                self.extend(tail, now.len(), expiry);
                part = later;
            }
        }
        self.raw_bytes += head.item_bytes() as u64;
        if log.kind() == Kind::Small {
            self.small_bytes += head.item_bytes() as u64;
        }
        place
    }

    /// Lets an item die where it lies, and frees what blocks that leaves dead.
    pub(crate) fn kill(&mut self, place: Place, head: &Head) {
        self.raw_bytes -= head.item_bytes() as u64;
        if self.kind(place) == Kind::Small {
            self.small_bytes -= head.item_bytes() as u64;
        }
        let mut block = place.block;
        let mut left = head.item_bytes();
        let mut part = left.min(BLOCK_BYTES - usize::from(place.offset));
        loop {
            let meta = &mut self.metas[block as usize];
            let next = meta.next;
            meta.live -= part as u16;
            self.free_if_dead(block);
            left -= part;
            if left == 0 {
                return;
            }
            block = next;
            part = left.min(BLOCK_BYTES);
        }
    }

    /// Notes that an item now expires at `expiry` (stored form), so that its blocks are not taken
    /// for expired.
    pub(crate) fn note_expiry(&mut self, place: Place, head: &Head, expiry: u32) {
        let mut block = place.block;
        let mut end = usize::from(place.offset) + head.item_bytes();
        loop {
            let meta = &mut self.metas[block as usize];
            meta.expiry_max = meta.expiry_max.max(expiry);
            if end <= BLOCK_BYTES {
                return;
            }
            end -= BLOCK_BYTES;
            block = meta.next;
        }
    }

    /// The oldest block of a kind, over all groups.
    pub(crate) fn oldest(&self, kind: Kind) -> Option<u32> {
        (0..GROUPS)
            .map(|group| self.ends[usize::from(LogId::new(kind, group).0)].head)
            .filter(|&head| head != NONE)
            .min_by_key(|&head| self.metas[head as usize].serial)
    }

    /// A block at the head of its log in which everything has expired.
    pub(crate) fn expired_head(&self, now: u32) -> Option<u32> {
        let heads = self.ends.iter().map(|ends| ends.head);
        heads.filter(|&head| head != NONE).find(|&head| self.metas[head as usize].expiry_max <= now)
    }

    /// The block with the most dead bytes among the next `sample`; none that is nearly full, and
    /// none that is still being written.
    pub(crate) fn sparsest(&mut self, sample: usize, live_max: usize) -> Option<u32> {
        let count = self.blocks.len();
        let candidates = (0..sample.min(count)).map(|step| (self.cursor + step) % count);
        let best = candidates
            .filter(|&number| {
                self.blocks[number].is_some()
                    && self.ends[usize::from(self.metas[number].log.0)].tail != number as u32
            })
            .min_by_key(|&number| self.metas[number].live);
        self.cursor = if count == 0 { 0 } else { (self.cursor + sample) % count };
        best.filter(|&number| usize::from(self.metas[number].live) <= live_max)
            .map(|number| number as u32)
    }

    /// Takes a block out of its log, to be emptied and then [`Logs::retire`]d.
    pub(crate) fn detach(&mut self, number: u32) {
        self.unlink(number);
        self.metas[number as usize].walked = true;
    }

    /// Frees a detached block; everything in it must be dead.
    pub(crate) fn retire(&mut self, number: u32) {
        debug_assert_eq!(self.metas[number as usize].live, 0, "retired a block with living items");
        self.free(number);
    }

    /// Keeps a block that is about to be emptied from being freed under the walker.
    pub(crate) fn begin_walk(&mut self, number: u32) {
        self.metas[number as usize].walked = true;
    }

    pub(crate) fn end_walk(&mut self, number: u32) {
        self.metas[number as usize].walked = false;
        self.free_if_dead(number);
    }

    /// The first item that begins in a block.
    pub(crate) fn first_item(&self, number: u32) -> Option<Place> {
        let first = self.metas[number as usize].first;
        (first != NO_ITEM).then_some(Place { block: number, offset: first })
    }

    /// The next item that begins in the same block, dead or alive.
    pub(crate) fn next_item(&self, place: Place, head: &Head) -> Option<Place> {
        let end = usize::from(place.offset) + head.item_bytes();
        (end < usize::from(self.metas[place.block as usize].fill))
            .then_some(Place { block: place.block, offset: end as u16 })
    }

    /// The item whose value runs on into this block, if it is still written there.
    pub(crate) fn runs_into(&self, number: u32) -> Option<Place> {
        if self.metas[number as usize].first == 0 {
            return None;
        }
        let mut before = self.metas[number as usize].prev;
        while before != NONE {
            if let Some(mut place) = self.first_item(before) {
                while let Some(next) = self.next_item(place, &self.head(place)) {
                    place = next;
                }
                return Some(place);
            }
            before = self.metas[before as usize].prev;
        }
        None
    }

    /// The next item at or after a position, dead or alive, and the position moves past it. `None`
    /// at the end of the log, where more may be written later.
    pub(crate) fn advance(&self, log: LogId, position: &mut Position) -> Option<Place> {
        loop {
            let number = position.number;
            let next = if self.is_at(log, position) {
                let meta = &self.metas[number as usize];
                let offset = if position.offset == 0 { meta.first } else { position.offset };
                if offset < meta.fill {
                    let place = Place { block: number, offset };
                    let end = usize::from(offset) + self.head(place).item_bytes();
                    position.offset = end.min(BLOCK_BYTES) as u16;
                    return Some(place);
                }
                meta.next
            } else {
                // The block is gone: on with the oldest that is younger. Blocks mostly go from the
                // head, so this is soon found.
                let mut number = self.ends[usize::from(log.0)].head;
                while number != NONE && self.metas[number as usize].serial <= position.serial {
                    number = self.metas[number as usize].next;
                }
                number
            };
            if next == NONE {
                return None;
            }
            self.prefetch_block(next);
            let serial = self.metas[next as usize].serial;
            *position = Position { serial, number: next, offset: 0 };
        }
    }

    /// Whether the block of a position is still there.
    fn is_at(&self, log: LogId, position: &Position) -> bool {
        let number = position.number as usize;
        position.serial > 0
            && self.blocks.get(number).is_some_and(Option::is_some)
            && self.metas[number].serial == position.serial
            && self.metas[number].log == log
    }

    /// Hands over the blocks of logs that are given up, a few at a time; `None` when there are no
    /// more.
    pub(crate) fn dismantle(&mut self) -> Option<Block> {
        if let Some(block) = self.spare.pop() {
            return Some(block);
        }
        while let Some(block) = self.blocks.pop() {
            if block.is_some() {
                return block;
            }
        }
        None
    }

    /// A new tail.
    fn open(&mut self, log: LogId) -> u32 {
        let block = self.spare.pop().expect("as many blocks as needed were at hand");
        let ends = self.ends[usize::from(log.0)];
        self.serial += 1;
        let meta = Meta {
            next: NONE,
            prev: ends.tail,
            serial: self.serial,
            expiry_max: 0,
            fill: 0,
            first: NO_ITEM,
            live: 0,
            log,
            walked: false,
        };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.blocks[number as usize] = Some(block);
                self.metas[number as usize] = meta;
                number
            }
            None => {
                self.blocks.push(Some(block));
                self.metas.push(meta);
                self.blocks.len() as u32 - 1
            }
        };
        let head = if ends.head == NONE { number } else { ends.head };
        self.ends[usize::from(log.0)] = Ends { head, tail: number };
        if ends.tail != NONE {
            self.metas[ends.tail as usize].next = number;
            // It was kept for being the tail.
            self.free_if_dead(ends.tail);
        }
        number
    }

    fn extend(&mut self, number: u32, bytes: usize, expiry: u32) {
        let meta = &mut self.metas[number as usize];
        meta.fill += bytes as u16;
        meta.live += bytes as u16;
        meta.expiry_max = meta.expiry_max.max(expiry);
    }

    fn free_if_dead(&mut self, number: u32) {
        let meta = &self.metas[number as usize];
        let is_tail = self.ends[usize::from(meta.log.0)].tail == number;
        if meta.live == 0 && !meta.walked && !is_tail {
            self.unlink(number);
            self.free(number);
        }
    }

    fn unlink(&mut self, number: u32) {
        let Meta { next, prev, log, .. } = self.metas[number as usize];
        let ends = &mut self.ends[usize::from(log.0)];
        if ends.head == number {
            ends.head = next;
        }
        if ends.tail == number {
            ends.tail = prev;
        }
        if prev != NONE {
            self.metas[prev as usize].next = next;
        }
        if next != NONE {
            self.metas[next as usize].prev = prev;
        }
    }

    fn free(&mut self, number: u32) {
        let block = self.blocks[number as usize].take().expect("a block is freed once");
        self.spare.push(block);
        self.vacant.push(number);
    }

    #[inline]
    fn block(&self, number: u32) -> &Block {
        self.blocks[number as usize].as_ref().expect("a place points into a block that is held")
    }

    #[inline]
    fn block_mut(&mut self, number: u32) -> &mut Block {
        self.blocks[number as usize].as_mut().expect("a place points into a block that is held")
    }
}

#[cfg(test)]
impl Logs {
    /// Checks every account against the blocks themselves; `living` are all places in the index.
    #[track_caller]
    pub(crate) fn check(&self, living: &[Place]) {
        let mut live = vec![0_usize; self.blocks.len()];
        let (mut raw, mut small) = (0, 0);
        for &place in living {
            let head = self.head(place);
            raw += head.item_bytes() as u64;
            if self.kind(place) == Kind::Small {
                small += head.item_bytes() as u64;
            }
            let mut block = place.block;
            let mut start = usize::from(place.offset);
            let mut left = head.item_bytes();
            while left > 0 {
                let part = left.min(BLOCK_BYTES - start);
                live[block as usize] += part;
                assert!(self.metas[block as usize].expiry_max >= item::raw_expiry(head.expiry));
                (left, start, block) = (left - part, 0, self.metas[block as usize].next);
            }
        }
        assert_eq!((raw, small), (self.raw_bytes, self.small_bytes), "bytes of living items");
        let mut linked = 0;
        for ends in self.ends {
            let (mut number, mut before) = (ends.head, NONE);
            while number != NONE {
                let meta = &self.metas[number as usize];
                assert!(self.blocks[number as usize].is_some(), "a linked block is held");
                assert_eq!(meta.prev, before);
                assert_eq!(usize::from(meta.live), live[number as usize], "live of block {number}");
                assert!(meta.live > 0 || number == ends.tail, "a dead block is freed");
                linked += 1;
                (before, number) = (number, meta.next);
            }
            assert_eq!(before, ends.tail);
        }
        assert_eq!(linked, self.blocks(), "every block held is in a log");
    }
}
