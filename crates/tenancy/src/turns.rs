//! Whose turn it is when not all can have theirs at once: deficit round robin over caches, paid
//! afterwards.
//!
//! Each cache with something waiting stands in a ring. One that has its turn may use up a quantum; what
//! it used too much it lacks next time (Shreedhar and Varghese, SIGCOMM 1995). So however much of one
//! cache waits, another's waits for at most one quantum of each. What each piece costs is said when it
//! is done, because nobody knows before.
//!
//! Pure: no socket, no clock.

use std::collections::{HashMap, VecDeque};

use crate::id::CacheId;

/// What waits, by cache. `T` is one piece of work.
#[derive(Debug)]
pub struct Turns<T> {
    quantum: u64,
    caches: HashMap<CacheId, Line<T>>,
    /// Caches with something waiting, each once; the first has its turn.
    ring: VecDeque<CacheId>,
}

#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<T>,
    /// What the cache may still use in this turn; less than nothing after a large piece.
    credit: i64,
}

impl<T> Turns<T> {
    /// `quantum` is what a cache may use in one turn.
    pub fn new(quantum: u64) -> Self {
        Turns { quantum, caches: HashMap::new(), ring: VecDeque::new() }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether something of this cache waits, so that what comes must wait behind it.
    #[inline]
    pub fn has(&self, cache: CacheId) -> bool {
        !self.is_empty() && self.caches.contains_key(&cache)
    }

    pub fn push(&mut self, cache: CacheId, piece: T) {
        let quantum = i64::try_from(self.quantum).unwrap_or(i64::MAX);
        let line = self.caches.entry(cache).or_insert_with(|| {
            self.ring.push_back(cache);
            Line { waiting: VecDeque::new(), credit: quantum }
        });
        line.waiting.push_back(piece);
    }

    /// What goes next; when it is done, say with [`Turns::charge`] what it cost.
    pub fn pop(&mut self) -> Option<(CacheId, T)> {
        loop {
            let cache = *self.ring.front()?;
            let line = self.caches.get_mut(&cache).expect("who stands in the ring has a line");
            if line.credit <= 0 {
                line.credit =
                    line.credit.saturating_add(i64::try_from(self.quantum).unwrap_or(i64::MAX));
                self.ring.rotate_left(1);
                continue;
            }
            let piece = line.waiting.pop_front().expect("an empty line is dropped");
            if line.waiting.is_empty() {
                // Whoever has nothing waiting saves nothing up, and owes nothing.
                self.caches.remove(&cache);
                self.ring.pop_front();
            }
            return Some((cache, piece));
        }
    }

    pub fn charge(&mut self, cache: CacheId, cost: u64) {
        if let Some(line) = self.caches.get_mut(&cache) {
            line.credit = line.credit.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: CacheId = CacheId::new(1);
    const QUIET: CacheId = CacheId::new(2);

    #[test]
    fn a_quiet_cache_waits_for_one_quantum_of_a_flood_and_each_keeps_its_order() {
        let mut turns = Turns::new(10);
        (0..1_000).for_each(|piece| turns.push(FLOOD, piece));
        turns.push(QUIET, 5_000);
        let mut before = 0;
        let mut last = -1;
        while let Some((cache, piece)) = turns.pop() {
            if cache == QUIET {
                break;
            }
            assert_eq!(piece, last + 1);
            last = piece;
            before += 1;
            turns.charge(cache, 1);
        }
        assert_eq!(before, 10);
        assert!(!turns.has(QUIET) && turns.has(FLOOD));
    }

    #[test]
    fn caches_get_the_same_however_dear_their_pieces_are() {
        let mut turns = Turns::new(1_000);
        for piece in 0..900 {
            turns.push(FLOOD, piece);
            turns.push(QUIET, piece);
        }
        let mut used = [0_u64; 2];
        while turns.has(FLOOD) && turns.has(QUIET) {
            let (cache, _) = turns.pop().expect("both wait");
            let (who, cost) = if cache == FLOOD { (0, 50_000) } else { (1, 300) };
            used[who] += cost;
            turns.charge(cache, cost);
        }
        assert!(used[0].abs_diff(used[1]) <= 51_000, "{used:?}");
    }
}
