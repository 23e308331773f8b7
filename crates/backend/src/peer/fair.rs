//! Requests that must wait, and whose turn it is: deficit round robin over caches.
//!
//! While a loop has little to do, requests are executed as they are read, and nothing is here. When
//! it has more than a turn's worth, the rest waits by cache, and caches take turns: each turn a cache
//! may use up so much, counted in bytes and operations, and what it used too much it lacks next time
//! (Shreedhar and Varghese, SIGCOMM 1995). So however long one cache's queue is, another's request
//! waits for at most one quantum of each.
//!
//! Pure: no socket, no clock.

use std::collections::{HashMap, VecDeque};

use tenancy::id::CacheId;

/// What one operation costs beyond its bytes: about what copying so many would take.
pub(crate) const OPERATION_COST: u64 = 512;
/// What a cache may use in one turn: thirty small operations, or a large part of one large value.
pub(crate) const QUANTUM: u64 = 16 * 1024;
/// Requests of one cache that may wait in one loop: what four links send that are as full as a proxy
/// makes them. At a microsecond each, the last waits for 16 ms of its own cache's work.
pub(crate) const CACHE_REQUESTS_MAX: usize = 16 * 1024;
/// Bytes of one cache that may wait: a few of the largest items.
pub(crate) const CACHE_BYTES_MAX: usize = 16 << 20;
/// Bytes of all caches that may wait in one loop.
pub(crate) const ALL_BYTES_MAX: usize = 64 << 20;

/// Waiting requests of all caches, in one loop. `T` is what is kept of a request.
pub(crate) struct Late<T> {
    caches: HashMap<CacheId, Queue<T>>,
    /// Caches with waiting requests, each once; the first has its turn.
    turns: VecDeque<CacheId>,
    bytes: usize,
}

struct Queue<T> {
    requests: VecDeque<(T, usize)>,
    bytes: usize,
    /// What the cache may still use in this turn; less than nothing after a large request.
    credit: i64,
}

impl<T> Default for Late<T> {
    fn default() -> Self {
        Late { caches: HashMap::new(), turns: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Late<T> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether requests of this cache wait, so that a new one must wait behind them.
    #[inline]
    pub(crate) fn has(&self, cache: CacheId) -> bool {
        !self.is_empty() && self.caches.contains_key(&cache)
    }

    /// Whether a request of so many bytes may wait.
    pub(crate) fn has_room(&self, cache: CacheId, bytes: usize) -> bool {
        let queue = self.caches.get(&cache);
        let (requests, waiting) = queue.map_or((0, 0), |queue| (queue.requests.len(), queue.bytes));
        requests < CACHE_REQUESTS_MAX
            && waiting + bytes <= CACHE_BYTES_MAX
            && self.bytes + bytes <= ALL_BYTES_MAX
    }

    /// Lets a request wait; ask [`Late::has_room`] before.
    pub(crate) fn push(&mut self, cache: CacheId, request: T, bytes: usize) {
        let queue = self.caches.entry(cache).or_insert_with(|| {
            self.turns.push_back(cache);
            Queue { requests: VecDeque::new(), bytes: 0, credit: QUANTUM as i64 }
        });
        queue.requests.push_back((request, bytes));
        queue.bytes += bytes;
        self.bytes += bytes;
    }

    /// The request whose turn it is; when it is done, say with [`Late::charge`] what it cost.
    pub(crate) fn pop(&mut self) -> Option<(CacheId, T)> {
        loop {
            let cache = *self.turns.front()?;
            let queue = self.caches.get_mut(&cache).expect("who has turns has a queue");
            if queue.credit <= 0 {
                queue.credit += QUANTUM as i64;
                self.turns.rotate_left(1);
                continue;
            }
            let (request, bytes) = queue.requests.pop_front().expect("an empty queue is dropped");
            queue.bytes -= bytes;
            self.bytes -= bytes;
            if queue.requests.is_empty() {
                // Whoever has nothing waiting saves nothing up, and owes nothing.
                self.caches.remove(&cache);
                self.turns.pop_front();
            }
            return Some((cache, request));
        }
    }

    pub(crate) fn charge(&mut self, cache: CacheId, cost: u64) {
        if let Some(queue) = self.caches.get_mut(&cache) {
            queue.credit -= i64::try_from(cost).unwrap_or(i64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: CacheId = CacheId::new(1);
    const QUIET: CacheId = CacheId::new(2);

    fn push_many(late: &mut Late<u32>, cache: CacheId, count: u32) {
        (0..count).for_each(|number| late.push(cache, number, 100));
    }

    #[test]
    fn a_cache_keeps_its_order() {
        let mut late = Late::default();
        push_many(&mut late, FLOOD, 500);
        push_many(&mut late, QUIET, 500);
        let mut next = HashMap::new();
        while let Some((cache, number)) = late.pop() {
            let expected: &mut u32 = next.entry(cache).or_default();
            assert_eq!(number, *expected);
            *expected += 1;
            late.charge(cache, OPERATION_COST);
        }
        assert_eq!(next[&FLOOD], 500);
        assert_eq!(next[&QUIET], 500);
        assert!(late.is_empty() && late.bytes == 0);
    }

    #[test]
    fn a_quiet_cache_waits_for_one_quantum_of_a_flood() {
        let mut late = Late::default();
        push_many(&mut late, FLOOD, 1_000);
        late.push(QUIET, 7, 100);
        let before = std::iter::from_fn(|| {
            let (cache, _) = late.pop()?;
            late.charge(cache, OPERATION_COST);
            Some(cache)
        })
        .take_while(|&cache| cache != QUIET)
        .count() as u64;
        assert_eq!(before, QUANTUM / OPERATION_COST);
    }

    #[test]
    fn caches_get_equal_bytes_however_large_their_values_are() {
        let mut late = Late::default();
        let (large, small) = (100_000, 1_000);
        push_many(&mut late, FLOOD, 900);
        push_many(&mut late, QUIET, 900);
        let mut used: HashMap<CacheId, u64> = HashMap::new();
        // While both have something waiting.
        while late.has(FLOOD) && late.has(QUIET) {
            let (cache, _) = late.pop().expect("both wait");
            let cost = if cache == FLOOD { large } else { small };
            *used.entry(cache).or_default() += cost;
            late.charge(cache, cost);
        }
        let difference = used[&FLOOD].abs_diff(used[&QUIET]);
        assert!(difference <= large + QUANTUM, "{used:?}");
    }

    #[test]
    fn a_cache_that_waits_too_much_is_refused_and_others_are_not() {
        let mut late = Late::default();
        push_many(&mut late, FLOOD, CACHE_REQUESTS_MAX as u32);
        assert!(!late.has_room(FLOOD, 1));
        assert!(late.has_room(QUIET, CACHE_BYTES_MAX));
        assert!(!late.has_room(QUIET, CACHE_BYTES_MAX + 1));
    }
}
