//! Whose request goes next when not all can: deficit round robin over caches.
//!
//! Shreedhar and Varghese (SIGCOMM 1995): each cache with requests waiting has its turn, and may
//! send a quantum of bytes per turn; what it did not use it keeps while it has something waiting. A
//! cache that floods waits behind itself, and one that asks little goes next.

use std::collections::{HashMap, VecDeque};

use tenancy::id::CacheId;

/// Bytes a cache may send per turn: some dozens of ordinary requests.
const QUANTUM_BYTES: usize = 16 * 1024;

/// Requests that may wait for one backend, of all caches; at a few microseconds each, more would
/// wait longer than their clients do.
const WAITING_MAX: usize = 16 * 1024;

/// Of one cache, so that the one that floods is the one that is refused.
const WAITING_OF_ONE_MAX: usize = 4 * 1024;

/// Bytes that may wait for one backend, of all caches and of one.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
const WAITING_BYTES_OF_ONE_MAX: usize = 8 * 1024 * 1024;

const _: () = assert!(WAITING_OF_ONE_MAX < WAITING_MAX);
const _: () = assert!(WAITING_BYTES_OF_ONE_MAX < WAITING_BYTES_MAX);

/// Ids of requests that wait, by cache.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    caches: HashMap<CacheId, Line>,
    /// Caches with something waiting, in the order of their turns.
    turns: VecDeque<CacheId>,
    waiting: usize,
    waiting_bytes: usize,
}

#[derive(Debug, Default)]
struct Line {
    ids: VecDeque<(u64, usize)>,
    bytes: usize,
    /// Bytes it may still send in this turn.
    deficit: usize,
}

impl FairQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// `false` when too much waits already.
    pub(super) fn push(&mut self, cache: CacheId, id: u64, bytes: usize) -> bool {
        let line = self.caches.entry(cache).or_default();
        let full = WAITING_MAX <= self.waiting
            || WAITING_OF_ONE_MAX <= line.ids.len()
            || WAITING_BYTES_MAX < self.waiting_bytes + bytes
            // One request may wait whatever its size.
            || (!line.ids.is_empty() && WAITING_BYTES_OF_ONE_MAX < line.bytes + bytes);
        if full {
            if line.ids.is_empty() {
                self.caches.remove(&cache);
            }
            return false;
        }
        if line.ids.is_empty() {
            self.turns.push_back(cache);
            line.deficit = 0;
        }
        line.ids.push_back((id, bytes));
        line.bytes += bytes;
        self.waiting += 1;
        self.waiting_bytes += bytes;
        true
    }

    /// The request that goes next.
    pub(super) fn pop(&mut self) -> Option<u64> {
        loop {
            let cache = *self.turns.front()?;
            let line = self.caches.get_mut(&cache).expect("a cache with a turn has a line");
            let &(id, bytes) = line.ids.front().expect("a cache with a turn has something waiting");
            if line.deficit < bytes {
                line.deficit += QUANTUM_BYTES;
                self.turns.rotate_left(1);
                continue;
            }
            line.deficit -= bytes;
            line.bytes -= bytes;
            line.ids.pop_front();
            self.waiting -= 1;
            self.waiting_bytes -= bytes;
            if line.ids.is_empty() {
                self.caches.remove(&cache);
                self.turns.pop_front();
            }
            return Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FairQueue, QUANTUM_BYTES, WAITING_OF_ONE_MAX};
    use tenancy::id::CacheId;

    const NOISY: CacheId = CacheId::new(1);
    const QUIET: CacheId = CacheId::new(2);

    #[test]
    fn a_flood_does_not_hold_up_another_cache() {
        let mut queue = FairQueue::default();
        for id in 0..1_000 {
            assert!(queue.push(NOISY, id, 1_024));
        }
        assert!(queue.push(QUIET, 5_000, 100));
        let before = std::iter::from_fn(|| queue.pop()).take_while(|&id| id != 5_000).count();
        assert!(before <= QUANTUM_BYTES / 1_024, "{before} went before the quiet one");
    }

    #[test]
    fn bytes_are_shared_whatever_the_sizes() {
        let mut queue = FairQueue::default();
        for id in 0..1_000 {
            assert!(queue.push(QUIET, id, 100));
            assert!(100 <= id || queue.push(NOISY, 10_000 + id, 60_000));
        }
        let mut bytes = [0, 0];
        while bytes[0] < 90_000 {
            match queue.pop() {
                Some(id) if id < 10_000 => bytes[0] += 100,
                Some(_) => bytes[1] += 60_000,
                None => break,
            }
        }
        assert!(bytes[1] <= bytes[0] + 60_000 + QUANTUM_BYTES, "{bytes:?}");
    }

    #[test]
    fn one_cache_keeps_its_order_and_has_its_limit() {
        let mut queue = FairQueue::default();
        let taken = (0..).take_while(|&id| queue.push(NOISY, id, 10)).count();
        assert_eq!(taken, WAITING_OF_ONE_MAX);
        assert!(queue.push(QUIET, 1 << 40, 10), "another cache still has room");
        let ids: Vec<u64> = std::iter::from_fn(|| queue.pop()).filter(|&id| id < 1 << 40).collect();
        assert!(ids.is_sorted() && ids.len() == taken);
        assert!(queue.is_empty());
    }
}
