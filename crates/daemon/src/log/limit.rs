//! At most so many lines a second from one place in the code.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use tracing::callsite::Identifier;

/// Enough to see what happens, few enough that a storm at every site of a program is still a trickle.
pub(super) const LINES_PER_SECOND_MAX: u32 = 10;

/// Counts the lines of each site. There are as many sites as places in the code that log.
#[derive(Default)]
pub(super) struct Limit {
    sites: RwLock<HashMap<Identifier, Site>>,
}

/// Which second was last seen (high half) and how many lines were asked for in it (low half); in one
/// word, so that threads agree without a lock.
#[derive(Default)]
struct Site(AtomicU64);

impl Limit {
    /// `None` when the line is one too many this second. Otherwise how many were suppressed since
    /// the site's last line.
    pub(super) fn admit(&self, site: Identifier, second: u32) -> Option<u32> {
        // A map of counters is in order even if a thread died with it.
        let known = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(site) = known.get(&site) {
            return site.admit(second);
        }
        drop(known);
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        sites.entry(site).or_default().admit(second)
    }
}

impl Site {
    fn admit(&self, second: u32) -> Option<u32> {
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let (seen, asked) = unpack(word);
                Some(if seen < second {
                    pack(second, 1)
                } else {
                    pack(seen, asked.saturating_add(1))
                })
            })
            .expect("the closure always gives a word");
        let (seen, asked) = unpack(before);
        if seen < second {
            Some(asked.saturating_sub(LINES_PER_SECOND_MAX))
        } else {
            (asked < LINES_PER_SECOND_MAX).then_some(0)
        }
    }
}

fn pack(second: u32, asked: u32) -> u64 {
    u64::from(second) << 32 | u64::from(asked)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::{LINES_PER_SECOND_MAX, Site};

    #[test]
    fn the_count_of_one_second_is_told_in_the_next() {
        let site = Site::default();
        let admitted = (0..25).filter(|_| site.admit(7).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(site.admit(9), Some(15));
        assert_eq!(site.admit(9), Some(0));
        assert_eq!(site.admit(10), Some(0));
    }

    #[test]
    fn a_thread_that_is_late_by_a_second_opens_no_new_one() {
        let site = Site::default();
        (0..20).for_each(|_| _ = site.admit(7));
        assert_eq!(site.admit(6), None);
    }

    #[test]
    fn threads_together_get_no_more_than_one() {
        let site = Site::default();
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter(|_| site.admit(1).is_some()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
        });
        assert_eq!(admitted, LINES_PER_SECOND_MAX as usize);
        assert_eq!(site.admit(2), Some(4_000 - LINES_PER_SECOND_MAX));
    }
}
