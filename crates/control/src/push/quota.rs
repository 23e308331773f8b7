//! Divides each cache's limit over the backends of the cluster, by what nodes say that they hold.
//!
//! ```text
//!   USAGE of every node ─▶ parts ─▶ caches that changed ──▶ cluster::shares ─▶ waiting ─▶ SHARES to each
//!                                     once a second            (pure)          by node
//! ```
//!
//! Nodes that hear nothing keep what they have. `docs/decisions/0022-shares-follow-what-is-held.md`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cluster::map::Epoch;
use cluster::shares::{Part, shares};
use tenancy::id::CacheId;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use wire::control::name::NodeName;
use wire::control::record::Revision;
use wire::control::topology::{Topology, TopologyMember};
use wire::control::usage::{Share, UsageReport};

use super::driver::Announced;
use super::fleet::Fleet;
use super::publisher::Publisher;
use crate::usage::Usage;

/// How often what has changed is divided anew: as often as nodes report.
pub const DIVIDE_EVERY: Duration = Duration::from_secs(1);
/// Caches divided while commits and reports wait: less than a millisecond.
const CACHES_AT_ONCE: usize = 64;

/// A backend: its node, and its number there.
type Place = (NodeName, u8);

/// Who holds what of which cache. Shared by sessions and the task that divides; looks at no clock.
#[derive(Debug, Default)]
pub struct Quota(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    caches: HashMap<CacheId, Divided>,
    /// Those of which something was reported since they were divided.
    changed: Vec<CacheId>,
    members: Vec<Member>,
    epoch: Option<Epoch>,
    /// Nodes that have told everything. Before each member has, nothing is divided: what nobody has
    /// told is held all the same.
    told: HashSet<NodeName>,
    /// What nodes have still to be told: the newest share of each part, so as much as there are parts
    /// at most.
    waiting: HashMap<NodeName, BTreeMap<(CacheId, u8), u64>>,
}

#[derive(Debug)]
struct Member {
    place: Place,
    slots: u32,
}

#[derive(Debug, Default)]
struct Divided {
    limit_bytes: u64,
    parts: HashMap<Place, Known>,
    is_changed: bool,
}

/// What is known of one part.
#[derive(Debug, Default)]
struct Known {
    part: Part,
    /// Whether it has reported since it was last told its share.
    is_new: bool,
    told_bytes: Option<u64>,
}

/// The task that divides.
#[derive(Clone)]
pub(super) struct Divider {
    pub(super) quota: Arc<Quota>,
    pub(super) usage: Arc<Usage>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) fleet: Arc<Fleet>,
    pub(super) announced: watch::Receiver<Announced>,
}

impl Divider {
    /// Divides until the task is dropped.
    pub(super) async fn run(self) {
        let mut tick = interval(DIVIDE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        loop {
            tick.tick().await;
            let this = self.clone();
            match spawn_blocking(move || this.round(seen)).await {
                Ok(now) => seen = Some(now),
                Err(panicked) => {
                    let error = &panicked as &dyn std::error::Error;
                    tracing::error!(error, "shares not divided; nodes keep what they have");
                }
            }
        }
    }

    /// `seen` is the revision and the epoch of the round before.
    fn round(&self, seen: Option<(Revision, Epoch)>) -> (Revision, Epoch) {
        let revision = self.publisher.head().0;
        let committed = self.announced.borrow().committed.clone();
        let epoch = committed.as_ref().map_or(Epoch::new(0), |topology| topology.epoch());
        if let Some(topology) = committed
            && seen.is_none_or(|(_, before)| before != epoch)
        {
            self.quota.follow(&topology);
            let nodes = self.fleet.nodes();
            self.usage.retain_nodes(|node| {
                topology.members().iter().any(|member| member.node == *node)
                    || nodes.get(node).is_some_and(|node| node.link.is_some())
            });
        }
        if seen.is_none_or(|(before, _)| before != revision) {
            self.publisher.with_limits(|limit| {
                self.quota.follow_limits(limit);
                self.usage.retain(|id| limit(id).is_some());
            });
        }
        while self.publisher.with_limits(|limit| self.quota.divide(limit)) {}
        (revision, epoch)
    }
}

impl Quota {
    /// Takes in what a node tells.
    pub fn hear(&self, node: &NodeName, report: &UsageReport) {
        let mut state = self.lock();
        if report.is_first {
            // It holds nothing of what it does not tell, and may have forgotten its shares.
            state.forget(node);
        }
        if !report.is_catching_up {
            state.told.insert(node.clone());
        }
        for cache in report.caches.iter().filter(|cache| !cache.parts.is_empty()) {
            let divided = state.caches.entry(cache.cache).or_default();
            for told in &cache.parts {
                let known = divided.parts.entry((node.clone(), told.backend)).or_default();
                let before = if known.is_new { known.part.evicted_items } else { 0 };
                known.part = Part {
                    bytes: told.bytes,
                    items: told.items,
                    evicted_items: before + told.evicted_items,
                    slots: 0,
                };
                known.is_new = true;
            }
            state.note_changed(cache.cache);
        }
    }

    /// Has caches divided over the members of this topology from now on.
    pub fn follow(&self, topology: &Topology) {
        let mut state = self.lock();
        if state.epoch == Some(topology.epoch()) {
            return;
        }
        state.epoch = Some(topology.epoch());
        state.forget_waiting();
        let slots = topology.map().table().slot_counts();
        let member = |(member, slots): (&_, u32)| Some(Member { place: place(member)?, slots });
        state.members = topology.members().iter().zip(slots).filter_map(member).collect();
        // A backend that is no member any more serves nothing, so nothing is left for it.
        let places: HashSet<Place> =
            state.members.iter().map(|member| member.place.clone()).collect();
        for divided in state.caches.values_mut() {
            divided.parts.retain(|place, _| places.contains(place));
        }
        state.note_all_changed();
    }

    /// Has caches divided anew whose limits are not what they were, and forgets those that have none
    /// any more.
    pub fn follow_limits(&self, limit: &dyn Fn(CacheId) -> Option<u64>) {
        let mut state = self.lock();
        let mut changed = Vec::new();
        state.caches.retain(|&id, divided| match limit(id) {
            None => false,
            Some(bytes) => {
                if bytes != divided.limit_bytes {
                    changed.push(id);
                }
                true
            }
        });
        changed.into_iter().for_each(|id| state.note_changed(id));
    }

    /// Divides some of the caches that have changed. Returns whether there are more.
    pub fn divide(&self, limit: &dyn Fn(CacheId) -> Option<u64>) -> bool {
        let mut state = self.lock();
        if state.members.is_empty() || !state.has_all_told() {
            return false;
        }
        let left = state.changed.len().saturating_sub(CACHES_AT_ONCE);
        for id in state.changed.split_off(left) {
            state.divide(id, limit(id));
        }
        0 < left
    }

    /// What a node has to be told, at most so much. Nothing while the `epoch` that it was told to be in
    /// force is another than the one that was divided for: who has just been given slots would be told
    /// the share of one who has none, and evict what clients store under them.
    pub fn take(&self, node: &NodeName, epoch: Option<Epoch>, max: usize) -> Vec<Share> {
        let mut state = self.lock();
        if state.epoch != epoch {
            return Vec::new();
        }
        let Some(waiting) = state.waiting.get_mut(node) else { return Vec::new() };
        let taken = std::iter::from_fn(|| waiting.pop_first()).take(max);
        taken.map(|((cache, backend), bytes)| Share { cache, backend, bytes }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, node: &NodeName) {
        self.waiting.remove(node);
        self.told.remove(node);
        for divided in self.caches.values_mut() {
            divided.parts.retain(|(of, _), _| of != node);
        }
        self.note_all_changed();
    }

    /// Forgets what nodes have not been told yet. All of it is divided anew.
    fn forget_waiting(&mut self) {
        for (node, waiting) in std::mem::take(&mut self.waiting) {
            for (cache, backend) in waiting.into_keys() {
                let divided = self.caches.get_mut(&cache);
                if let Some(known) =
                    divided.and_then(|it| it.parts.get_mut(&(node.clone(), backend)))
                {
                    known.told_bytes = None;
                }
            }
        }
    }

    fn has_all_told(&self) -> bool {
        self.members.iter().all(|member| self.told.contains(&member.place.0))
    }

    fn note_changed(&mut self, id: CacheId) {
        if let Some(divided) = self.caches.get_mut(&id)
            && !std::mem::replace(&mut divided.is_changed, true)
        {
            self.changed.push(id);
        }
    }

    fn note_all_changed(&mut self) {
        self.caches.values_mut().for_each(|divided| divided.is_changed = true);
        self.changed = self.caches.keys().copied().collect();
    }

    fn divide(&mut self, id: CacheId, limit_bytes: Option<u64>) {
        let Some(divided) = self.caches.get_mut(&id) else { return };
        divided.is_changed = false;
        let Some(limit_bytes) = limit_bytes else {
            self.caches.remove(&id);
            return;
        };
        divided.limit_bytes = limit_bytes;
        let members = &self.members;
        let parts: Vec<Part> = members
            .iter()
            .map(|member| {
                let known = divided.parts.get(&member.place);
                let part = known.map(|known| known.part).unwrap_or_default();
                Part { slots: member.slots, ..part }
            })
            .collect();
        for (member, bytes) in members.iter().zip(shares(limit_bytes, &parts)) {
            let known = divided.parts.entry(member.place.clone()).or_default();
            // Who has reported hears of it although nothing has changed: large items that he has taken
            // on credit have been weighed.
            if std::mem::take(&mut known.is_new) || known.told_bytes != Some(bytes) {
                known.told_bytes = Some(bytes);
                let (node, backend) = &member.place;
                let waiting = self.waiting.entry(node.clone()).or_default();
                waiting.insert((id, *backend), bytes);
            }
        }
    }
}

/// Where a member is: its name is its node's and its number there.
pub(crate) fn place(member: &TopologyMember) -> Option<Place> {
    let number = member.name.as_str().strip_prefix(member.node.as_str())?.strip_prefix(".b")?;
    Some((member.node.clone(), number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use cluster::member::{Incarnation, MemberName, Weight};
    use cluster::scheme::Scheme;
    use wire::control::topology::Placement;
    use wire::control::usage::{CacheReport, PartReport};

    use super::*;

    const CACHE: CacheId = CacheId::new(7);
    const LIMIT: u64 = 25 << 20;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).expect("a good name")
    }

    /// Two backends at each of these nodes.
    fn topology(epoch: u64, nodes: &[&str]) -> Topology {
        let member = |node: &str, number| TopologyMember {
            name: MemberName::parse(&format!("{node}.b{number}")).expect("a good name"),
            node: name(node),
            incarnation: Incarnation::new(1),
            address: ([127, 0, 0, 1], 1).into(),
            weight: Weight::new(1),
        };
        let members = nodes.iter().flat_map(|node| [member(node, 0), member(node, 1)]).collect();
        let placement = Placement::Scheme(Scheme::Maglev);
        Topology::new(Epoch::new(epoch), [1; 16], members, placement).expect("a good topology")
    }

    /// What a node holds in its first backend.
    fn report(is_first: bool, bytes: u64, evicted_items: u64) -> UsageReport {
        let part = PartReport { backend: 0, bytes, items: bytes / 1_000, evicted_items };
        let cache = CacheReport { parts: vec![part], ..CacheReport::new(CACHE) };
        UsageReport { run: 1, is_first, is_catching_up: false, caches: vec![cache] }
    }

    fn limit(_: CacheId) -> Option<u64> {
        Some(LIMIT)
    }

    fn told(quota: &Quota, node: &str) -> Vec<u64> {
        while quota.divide(&limit) {}
        let epoch = quota.lock().epoch;
        quota.take(&name(node), epoch, 100).into_iter().map(|share| share.bytes).collect()
    }

    #[test]
    fn nothing_is_divided_before_every_member_has_told_what_it_holds() {
        let quota = Quota::default();
        quota.follow(&topology(1, &["n0", "n1"]));
        quota.hear(&name("n0"), &report(true, 1 << 20, 0));
        assert!(told(&quota, "n0").is_empty());
        let catching_up = UsageReport { is_catching_up: true, ..report(true, 20 << 20, 0) };
        quota.hear(&name("n1"), &catching_up);
        assert!(told(&quota, "n0").is_empty(), "more may come");
        quota.hear(&name("n1"), &UsageReport { run: 1, ..UsageReport::default() });
        let shares = [told(&quota, "n0"), told(&quota, "n1")].concat();
        assert_eq!(shares.len(), 4);
        assert!(shares[0] < 3 << 20, "{shares:?}");
        assert!(20 << 20 < shares[2], "{shares:?}");
    }

    #[test]
    fn a_full_cache_is_divided_into_its_limit_also_when_members_change() {
        let quota = Quota::default();
        quota.follow(&topology(1, &["n0", "n1"]));
        for node in ["n0", "n1"] {
            quota.hear(&name(node), &report(true, LIMIT / 2, 1));
        }
        let sum =
            |nodes: &[&str]| -> u64 { nodes.iter().flat_map(|node| told(&quota, node)).sum() };
        assert!(sum(&["n0", "n1"]).abs_diff(LIMIT) < 1_000);
        quota.follow(&topology(2, &["n1"]));
        let alone = told(&quota, "n1");
        assert!(LIMIT * 9 / 10 < alone.iter().sum(), "{alone:?}");
        assert!(told(&quota, "n0").is_empty());
    }

    #[test]
    fn a_share_of_another_epoch_than_the_node_was_told_of_is_not_told() {
        let quota = Quota::default();
        let [before, now] = [topology(1, &["n0", "n1"]), topology(2, &["n1"])];
        quota.follow(&before);
        for node in ["n0", "n1"] {
            quota.hear(&name(node), &report(true, 1 << 20, 0));
        }
        while quota.divide(&limit) {}
        let take = |epoch| quota.take(&name("n1"), Some(Epoch::new(epoch)), 100);
        assert!(take(2).is_empty(), "divided for the epoch before");
        quota.follow(&now);
        assert!(take(2).is_empty(), "not divided for this one yet");
        while quota.divide(&limit) {}
        assert!(take(1).is_empty(), "the node does not know of the epoch yet");
        let sum: u64 = take(2).iter().map(|share| share.bytes).sum();
        assert!(LIMIT <= sum, "{sum}");
    }

    #[test]
    fn who_has_reported_is_told_and_others_only_what_has_changed() {
        let quota = Quota::default();
        quota.follow(&topology(1, &["n0", "n1"]));
        for node in ["n0", "n1"] {
            quota.hear(&name(node), &report(true, LIMIT / 2, 0));
        }
        assert_eq!(told(&quota, "n0").len(), 2);
        assert_eq!(told(&quota, "n1").len(), 2);
        quota.hear(&name("n0"), &report(false, LIMIT / 2, 0));
        assert_eq!(told(&quota, "n0").len(), 1);
        assert_eq!(told(&quota, "n1").len(), 0);
    }

    #[test]
    fn a_new_limit_is_divided_without_a_report_and_a_deleted_cache_is_forgotten() {
        let quota = Quota::default();
        quota.follow(&topology(1, &["n0"]));
        quota.hear(&name("n0"), &report(true, 1 << 20, 0));
        assert_eq!(told(&quota, "n0").len(), 2);
        quota.follow_limits(&|_| Some(4 * LIMIT));
        while quota.divide(&|_| Some(4 * LIMIT)) {}
        let shares = quota.take(&name("n0"), Some(Epoch::new(1)), 100);
        let sum: u64 = shares.iter().map(|share| share.bytes).sum();
        assert!(4 * LIMIT <= sum, "{sum}");
        quota.follow_limits(&|_| None);
        assert!(quota.lock().caches.is_empty());
    }

    #[test]
    fn a_node_that_connects_again_is_told_everything() {
        let quota = Quota::default();
        quota.follow(&topology(1, &["n0"]));
        quota.hear(&name("n0"), &report(true, 1 << 20, 0));
        assert_eq!(told(&quota, "n0").len(), 2);
        quota.hear(&name("n0"), &report(true, 1 << 20, 0));
        assert_eq!(told(&quota, "n0").len(), 2);
    }
}
