//! Requests for slots that are about to move, in the order in which they came.
//!
//! A link's requests for one slot are executed in order. So whatever comes behind a waiting request
//! of its link that is about the same slot waits too, also when it could be executed itself: a get of
//! two keys waits for both of their slots, and a write of the one that is not moving must not pass it.
//!
//! Pure: no socket, no clock.

use std::collections::{HashSet, VecDeque};

use cluster::slot::Slot;

/// How long a request waits for a slot that is about to move before it is refused.
const WAIT_MS: u64 = 50;
/// Requests that may wait for slots in one loop, and their bytes: above, they are refused at once.
const REQUESTS_MAX: usize = 4_096;
const BYTES_MAX: usize = 16 << 20;

/// What of a request decides whom it waits for.
pub(super) trait Waits {
    /// The link it came by: a number that no other link ever has.
    fn link(&self) -> u64;
    fn slots(&self) -> &[Slot];
    /// What keeping it takes.
    fn bytes(&self) -> usize;
}

pub(super) struct Parked<T> {
    requests: VecDeque<(T, u64)>,
    bytes: usize,
    /// Links and the slots that their waiting requests are about.
    waiting: HashSet<(u64, Slot)>,
}

impl<T> Default for Parked<T> {
    fn default() -> Self {
        Parked { requests: VecDeque::new(), bytes: 0, waiting: HashSet::new() }
    }
}

impl<T: Waits> Parked<T> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether a request of the link about one of these slots must wait behind another.
    #[inline]
    pub(super) fn has(&self, link: u64, mut slots: impl Iterator<Item = Slot>) -> bool {
        !self.is_empty() && slots.any(|slot| self.waiting.contains(&(link, slot)))
    }

    /// Whether a request of so many bytes may wait.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.requests.len() < REQUESTS_MAX && self.bytes + bytes <= BYTES_MAX
    }

    /// Lets a request wait; ask [`Parked::has_room`] before.
    pub(super) fn push(&mut self, request: T, now_ms: u64) {
        self.keep(request, now_ms + WAIT_MS);
    }

    /// Tries every request that waits, in order, but for those behind one that still has to: `serve`
    /// gives back what could not be executed yet. Returns those that have waited for too long.
    pub(super) fn retry(&mut self, now_ms: u64, mut serve: impl FnMut(T) -> Option<T>) -> Vec<T> {
        let mut over = Vec::new();
        self.bytes = 0;
        self.waiting.clear();
        for (request, until_ms) in std::mem::take(&mut self.requests) {
            let is_behind = self.has(request.link(), request.slots().iter().copied());
            let Some(request) = (if is_behind { Some(request) } else { serve(request) }) else {
                continue;
            };
            if until_ms <= now_ms {
                over.push(request);
            } else {
                self.keep(request, until_ms);
            }
        }
        over
    }

    fn keep(&mut self, request: T, until_ms: u64) {
        self.bytes += request.bytes();
        self.waiting.extend(request.slots().iter().map(|slot| (request.link(), *slot)));
        self.requests.push_back((request, until_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of a link, by its name and its slots.
    struct Request(u64, &'static str, Vec<Slot>);

    impl Waits for Request {
        fn link(&self) -> u64 {
            self.0
        }

        fn slots(&self) -> &[Slot] {
            &self.2
        }

        fn bytes(&self) -> usize {
            BYTES_MAX / 4
        }
    }

    fn slot(number: u32) -> Slot {
        Slot::new(number).expect("a small number")
    }

    fn parked(requests: &[(u64, &'static str, &[u32])]) -> Parked<Request> {
        let mut parked = Parked::default();
        for (link, name, slots) in requests {
            let slots = slots.iter().copied().map(slot).collect();
            parked.push(Request(*link, name, slots), 0);
        }
        parked
    }

    /// What is executed in order when some slots do not move any more, and what has waited too long.
    fn retry(
        parked: &mut Parked<Request>,
        now_ms: u64,
        frozen: &[u32],
    ) -> (Vec<&'static str>, Vec<&'static str>) {
        let mut done = Vec::new();
        let over = parked.retry(now_ms, |request| {
            if request.2.iter().any(|its| frozen.iter().any(|number| *its == slot(*number))) {
                return Some(request);
            }
            done.push(request.1);
            None
        });
        (done, over.iter().map(|request| request.1).collect())
    }

    #[test]
    fn nothing_passes_a_request_that_waits() {
        let mut parked = parked(&[
            (1, "reads both", &[7, 8]),
            (1, "writes the other", &[8]),
            (1, "is about neither", &[9]),
            (2, "comes by another link", &[8]),
        ]);
        let (done, over) = retry(&mut parked, 1, &[7]);
        assert_eq!((done, over.len()), (vec!["is about neither", "comes by another link"], 0));
        assert!(parked.has(1, [slot(8)].into_iter()));
        assert!(!parked.has(1, [slot(9)].into_iter()) && !parked.has(2, [slot(8)].into_iter()));
        assert_eq!(retry(&mut parked, 2, &[]).0, ["reads both", "writes the other"]);
        assert!(parked.is_empty() && !parked.has(1, [slot(8)].into_iter()));
    }

    #[test]
    fn whoever_waited_too_long_is_given_back_and_those_behind_go_on() {
        let mut parked = parked(&[(1, "first", &[7, 8]), (1, "second", &[8])]);
        assert_eq!(retry(&mut parked, WAIT_MS - 1, &[7]), (vec![], vec![]));
        assert_eq!(retry(&mut parked, WAIT_MS, &[7]), (vec!["second"], vec!["first"]));
        assert!(parked.is_empty());
    }

    #[test]
    fn room_ends_and_comes_back() {
        let mut parked = parked(&[(1, "a", &[1]), (1, "b", &[2]), (1, "c", &[3])]);
        assert!(parked.has_room(BYTES_MAX / 4) && !parked.has_room(BYTES_MAX / 4 + 1));
        retry(&mut parked, 1, &[3]);
        assert!(parked.has_room(BYTES_MAX / 4 * 3));
    }
}
