//! What is counted about the links to other nodes' backends, by member.
//!
//! Counted by each event loop, read by whoever serves metrics. The names of the figures are those of
//! [`MemberLinks::figures`]; a tenant is never among the labels.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use cluster::member::{Incarnation, MemberName};

/// Times of replies are counted by their power of two in microseconds; the last class is everything
/// from about eight seconds.
pub const LATENCY_CLASSES: usize = 24;

/// The links of one proxy process.
#[derive(Debug, Default)]
pub struct LinkUsage {
    members: RwLock<BTreeMap<(MemberName, Incarnation), Arc<MemberLinks>>>,
}

/// The links to one member, of all event loops together.
#[derive(Debug, Default)]
pub struct MemberLinks {
    /// Event loops that have at least one connection to it, greeted and answered.
    pub loops_connected: AtomicUsize,
    /// Event loops for which it is silent, so that requests fail at once.
    pub loops_silent: AtomicUsize,
    /// The newest epoch that the member has ever said this node has no part in; 0 when it said none.
    pub without_us: AtomicU64,
    /// Requests written whose replies have not come.
    pub in_flight: AtomicUsize,
    /// Requests that wait for their turn to be written.
    pub queued: AtomicUsize,
    pub requests_total: AtomicU64,
    /// Requests answered with an error because the member could not be reached or was too late.
    pub failures_total: AtomicU64,
    /// Connections that were made, the first included.
    pub connects_total: AtomicU64,
    /// Gets that were asked a second time because the reply was late.
    pub hedges_total: AtomicU64,
    /// Requests sent again because their connection was lost before they could run.
    pub retries_total: AtomicU64,
    /// Requests that the member sent on to another.
    pub moved_total: AtomicU64,
    /// Connections closed because of a reply that nobody had asked for, or a damaged one.
    pub poisoned_total: AtomicU64,
    /// Replies, by the power of two of their time in microseconds.
    pub latency: [AtomicU64; LATENCY_CLASSES],
}

impl LinkUsage {
    /// The counts of one run of a member, made on first use.
    pub fn member(&self, name: &MemberName, incarnation: Incarnation) -> Arc<MemberLinks> {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        // Runs that no loop has links to any more are history.
        members.retain(|_, links| 1 < Arc::strong_count(links));
        Arc::clone(members.entry((name.clone(), incarnation)).or_default())
    }

    /// The counts of one run of a member, if there are any.
    pub fn known(&self, name: &MemberName, incarnation: Incarnation) -> Option<Arc<MemberLinks>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.get(&(name.clone(), incarnation)).cloned()
    }

    /// All members that there are links to, by name.
    pub fn members(&self) -> Vec<(MemberName, Incarnation, Arc<MemberLinks>)> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let entries = members.iter();
        entries.map(|((name, run), links)| (name.clone(), *run, Arc::clone(links))).collect()
    }
}

impl MemberLinks {
    pub(crate) fn note_latency(&self, micros: u64) {
        let class = (u64::BITS - micros.leading_zeros()) as usize;
        self.latency[class.min(LATENCY_CLASSES - 1)].fetch_add(1, Relaxed);
    }

    /// Every count by its metric's name (without the latency, which is a histogram).
    pub fn figures(&self) -> [(&'static str, u64); 11] {
        let size = |gauge: &AtomicUsize| gauge.load(Relaxed) as u64;
        let total = |counter: &AtomicU64| counter.load(Relaxed);
        [
            ("link_loops_connected", size(&self.loops_connected)),
            ("link_loops_silent", size(&self.loops_silent)),
            ("link_in_flight_requests", size(&self.in_flight)),
            ("link_queued_requests", size(&self.queued)),
            ("link_requests_total", total(&self.requests_total)),
            ("link_failures_total", total(&self.failures_total)),
            ("link_connects_total", total(&self.connects_total)),
            ("link_hedges_total", total(&self.hedges_total)),
            ("link_retries_total", total(&self.retries_total)),
            ("link_moved_total", total(&self.moved_total)),
            ("link_poisoned_total", total(&self.poisoned_total)),
        ]
    }

    /// The time that this part (0 to 1) of all replies kept, rounded up to a power of two, in
    /// microseconds; `None` before the first reply.
    pub fn latency_quantile_micros(&self, quantile: f64) -> Option<u64> {
        let counts: Vec<u64> = self.latency.iter().map(|count| count.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let mut left = (all as f64 * quantile).ceil() as u64;
        if all == 0 {
            return None;
        }
        for (class, count) in counts.into_iter().enumerate() {
            if left <= count {
                return Some(1 << class);
            }
            left -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::LinkUsage;
    use cluster::member::{Incarnation, MemberName};

    #[test]
    fn a_member_has_one_set_of_counts_and_its_quantiles() {
        let usage = LinkUsage::default();
        let name = MemberName::parse("a").expect("a good name");
        let links = usage.member(&name, Incarnation::new(1));
        assert_eq!(links.latency_quantile_micros(0.5), None);
        for micros in [0, 3, 3, 100, u64::MAX] {
            usage.member(&name, Incarnation::new(1)).note_latency(micros);
        }
        assert_eq!(links.latency_quantile_micros(0.5), Some(4));
        assert_eq!(links.latency_quantile_micros(0.8), Some(128));
        let other = usage.member(&name, Incarnation::new(2));
        assert_eq!(usage.members().len(), 2);
        drop((links, other));
        drop(usage.member(&name, Incarnation::new(3)));
        assert_eq!(usage.members().len(), 1, "runs that are gone are forgotten");
    }
}
