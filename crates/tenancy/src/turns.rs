//! Whose turn it is when not all can have theirs at once: deficit round robin over caches, paid
//! afterwards.
//!
//! Each cache with something waiting stands in a ring. One that has its turn may use up a quantum; what
//! it used too much it lacks next time (Shreedhar and Varghese, SIGCOMM 1995). So however much of one
//! cache waits, another's waits for at most one quantum of each. What each piece costs is said when it
//! is done, because nobody knows before.
//!
//! Within a line, who came first is served first, until the line stands: when it is long, and its first
//! has waited for longer than a line may take, there is more to do than can be done, and in order nobody
//! would be served before he has given up. Then who came last goes first, and is served in time (Maurer,
//! "Fail at Scale", ACM Queue 2015: adaptive LIFO). Those before hang up, or have their turn when there is
//! less to do. Whoever is still there when most have long hung up is patient: every fourth turn is of the
//! first of these, so that they are served in the end. Nobody else is served from the front, because the
//! first of those who will hang up is the one who hangs up next.
//!
//! Pure: no socket, no clock. Times are in the caller's unit.

use std::collections::{HashMap, VecDeque};

use crate::id::CacheId;

/// Of those served from a line that stands, every such one is its first, if that one is patient.
const FIRST_EVERY: u64 = 4;

/// Who has waited for so many times as long as a line may take is patient.
const PATIENT: u64 = 5;

/// A shorter line does not stand, however long its first has waited: it is the process that stood still.
const CROWD: usize = 100;

/// What waits, by cache. `T` is one piece of work.
#[derive(Debug)]
pub struct Turns<T> {
    quantum: u64,
    /// A long line whose first has waited for so long is served from its end.
    patience: u64,
    caches: HashMap<CacheId, Line<T>>,
    /// Caches with something waiting, each once; the first has its turn.
    ring: VecDeque<CacheId>,
    /// When a line was served that stood.
    stood: Option<u64>,
}

#[derive(Debug)]
struct Line<T> {
    /// How many were served while it stood.
    served_standing: u64,
    /// Since when each waits.
    waiting: VecDeque<(u64, T)>,
    /// What the cache may still use in this turn; less than nothing after a large piece.
    credit: i64,
}

impl<T> Turns<T> {
    /// `quantum` is what a cache may use in one turn, `patience` how long a line may take that is served
    /// in order.
    pub fn new(quantum: u64, patience: u64) -> Self {
        Turns { quantum, patience, caches: HashMap::new(), ring: VecDeque::new(), stood: None }
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

    /// How many of this cache wait.
    pub fn waiting(&self, cache: CacheId) -> usize {
        self.caches.get(&cache).map_or(0, |line| line.waiting.len())
    }

    pub fn push(&mut self, cache: CacheId, piece: T, now: u64) {
        let quantum = i64::try_from(self.quantum).unwrap_or(i64::MAX);
        let line = self.caches.entry(cache).or_insert_with(|| {
            self.ring.push_back(cache);
            Line { served_standing: 0, waiting: VecDeque::new(), credit: quantum }
        });
        line.waiting.push_back((now, piece));
    }

    /// What goes next; when it is done, say with [`Turns::charge`] what it cost.
    pub fn pop(&mut self, now: u64) -> Option<(CacheId, T)> {
        loop {
            let cache = *self.ring.front()?;
            let line = self.caches.get_mut(&cache).expect("who stands in the ring has a line");
            if line.credit <= 0 {
                line.credit =
                    line.credit.saturating_add(i64::try_from(self.quantum).unwrap_or(i64::MAX));
                self.ring.rotate_left(1);
                continue;
            }
            let stands = line.stands(self.patience, now);
            if stands {
                line.served_standing += 1;
                self.stood = Some(now);
            }
            let is_firsts = line.served_standing.is_multiple_of(FIRST_EVERY)
                && line.first_has_waited(self.patience.saturating_mul(PATIENT), now);
            let from_end = stands && !is_firsts;
            let next = if from_end { line.waiting.pop_back() } else { line.waiting.pop_front() };
            let (_, piece) = next.expect("it has a first");
            if line.waiting.is_empty() {
                // Whoever has nothing waiting saves nothing up, and owes nothing.
                self.caches.remove(&cache);
                self.ring.pop_front();
            }
            return Some((cache, piece));
        }
    }

    /// Whether this cache's line is served out of order, because there is more to do than can be done.
    pub fn stands(&self, cache: CacheId, now: u64) -> bool {
        self.caches.get(&cache).is_some_and(|line| line.stands(self.patience, now))
    }

    /// When a line was served out of order last.
    #[inline]
    pub fn stood(&self) -> Option<u64> {
        self.stood
    }

    /// Takes a piece out that needs no turn any more, if it waits. Looks for it from the front, where those
    /// are who waited in vain.
    pub fn forget(&mut self, cache: CacheId, piece: &T)
    where
        T: PartialEq,
    {
        let Some(line) = self.caches.get_mut(&cache) else { return };
        if let Some(at) = line.waiting.iter().position(|(_, other)| other == piece) {
            line.waiting.remove(at);
        }
        if line.waiting.is_empty() {
            self.caches.remove(&cache);
            self.ring.retain(|other| *other != cache);
        }
    }

    pub fn charge(&mut self, cache: CacheId, cost: u64) {
        if let Some(line) = self.caches.get_mut(&cache) {
            line.credit = line.credit.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
        }
    }
}

impl<T> Line<T> {
    fn stands(&self, patience: u64, now: u64) -> bool {
        CROWD <= self.waiting.len() && self.first_has_waited(patience, now)
    }

    fn first_has_waited(&self, time: u64, now: u64) -> bool {
        let first = self.waiting.front();
        first.is_some_and(|(since, _)| since.saturating_add(time) <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: CacheId = CacheId::new(1);
    const QUIET: CacheId = CacheId::new(2);
    const PATIENCE: u64 = 100;

    #[test]
    fn a_quiet_cache_waits_for_one_quantum_of_a_flood_and_each_keeps_its_order() {
        let mut turns = Turns::new(10, PATIENCE);
        (0..1_000).for_each(|piece| turns.push(FLOOD, piece, 0));
        turns.push(QUIET, 5_000, 0);
        let mut before = 0;
        let mut last = -1;
        while let Some((cache, piece)) = turns.pop(0) {
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
        let mut turns = Turns::new(1_000, PATIENCE);
        for piece in 0..900 {
            turns.push(FLOOD, piece, 0);
            turns.push(QUIET, piece, 0);
        }
        let mut used = [0_u64; 2];
        while turns.has(FLOOD) && turns.has(QUIET) {
            let (cache, _) = turns.pop(0).expect("both wait");
            let (who, cost) = if cache == FLOOD { (0, 50_000) } else { (1, 300) };
            used[who] += cost;
            turns.charge(cache, cost);
        }
        assert!(used[0].abs_diff(used[1]) <= 51_000, "{used:?}");
    }

    #[test]
    fn a_line_that_stands_serves_who_came_last() {
        let mut turns = Turns::new(1_000, PATIENCE);
        let crowd = CROWD as u64;
        (0..crowd + 5).for_each(|piece| turns.push(FLOOD, piece, 0));
        assert_eq!(turns.pop(PATIENCE - 1), Some((FLOOD, 0)));
        assert!(turns.stands(FLOOD, PATIENCE) && !turns.stands(FLOOD, PATIENCE - 1));
        assert!(!turns.stands(QUIET, PATIENCE) && turns.stood().is_none());
        let mut last = (1..crowd + 5).rev();
        for wanted in last.by_ref().take(5) {
            assert_eq!(turns.pop(PATIENCE), Some((FLOOD, wanted)));
        }
        // It is short again, and served in order.
        assert!(!turns.stands(FLOOD, PATIENCE));
        assert_eq!(turns.pop(PATIENCE + 1), Some((FLOOD, 1)));
        assert_eq!(turns.stood(), Some(PATIENCE));
    }

    #[test]
    fn every_fourth_time_it_serves_the_first_of_who_is_patient() {
        let mut turns = Turns::new(1_000, PATIENCE);
        let crowd = CROWD as u64;
        turns.push(FLOOD, 0, 0);
        (1..crowd + 7).for_each(|piece| turns.push(FLOOD, piece, 1));
        let patient = PATIENCE * PATIENT;
        let mut last = (1..crowd + 7).rev();
        for _ in 0..3 {
            assert_eq!(turns.pop(patient), last.next().map(|piece| (FLOOD, piece)));
        }
        assert_eq!(turns.pop(patient), Some((FLOOD, 0)));
        // The others are not patient yet.
        for wanted in last.take(4) {
            assert_eq!(turns.pop(patient), Some((FLOOD, wanted)));
        }
    }

    #[test]
    fn who_has_hung_up_has_no_turn() {
        let mut turns = Turns::new(1_000, PATIENCE);
        (0..4).for_each(|piece| turns.push(FLOOD, piece, 0));
        turns.push(QUIET, 9, 0);
        assert_eq!((turns.waiting(FLOOD), turns.waiting(QUIET)), (4, 1));
        turns.forget(FLOOD, &0);
        turns.forget(FLOOD, &2);
        turns.forget(QUIET, &9);
        // Those that do not wait are none's business.
        turns.forget(QUIET, &9);
        assert!(!turns.has(QUIET));
        assert_eq!((turns.waiting(FLOOD), turns.waiting(QUIET)), (2, 0));
        assert_eq!((turns.pop(0), turns.pop(0)), (Some((FLOOD, 1)), Some((FLOOD, 3))));
        assert!(turns.is_empty() && turns.pop(0).is_none());
    }
}
