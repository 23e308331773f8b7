//! What a node's backends and proxy are told by the control plane: caches, members, and who owns what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend::Backend;
use cluster::comeback::{self, Verdict};
use cluster::map::Epoch;
use cluster::mistake::{Mistake, is_made};
use cluster::ownership::Run;
use daemon::clock::Clock;
use daemon::networks::Networks;
use node::serving::{DataPlane, UsageChanges};
use node::view::Links;
use protocol::operation::Exptime;
use proxy::cluster_handle::ClusterHandle;
use proxy::usage::ProxyUsage;
use proxy::view::{ClusterView, ViewIdentity};
use store::store::LimitError;
use tenancy::directory::Directory;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::Open;
use wire::control::inquiry::{Answer, Question};
use wire::control::name::NodeName;
use wire::control::topology::{MemberSet, Topology};
use wire::control::usage::{Figures, Share};

use crate::introspection::Introspection;
use crate::usage::Usage;

/// The backends of one node as members of its cluster.
pub struct Members {
    backends: Vec<(Run, Arc<Backend>)>,
    handle: ClusterHandle,
    identity: ViewIdentity,
    networks: Networks,
    proxy: Arc<ProxyUsage>,
    clock: Clock,
    usage: Mutex<Usage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    committed: Option<Arc<Topology>>,
    prepared: Option<Arc<Topology>>,
    /// Whether a person has confirmed whom the prepared one leaves out.
    is_forced: bool,
    /// In the order of their numbers, so that the same commits make room in the same order.
    caches: BTreeMap<CacheId, Planned>,
}

/// What a cache may have here.
struct Planned {
    limits: Limits,
    /// What control has told of each backend's share, by the backend's number. Until it has, a share
    /// is the backend's part of the cluster.
    shares: Box<[Option<u64>]>,
}

impl Members {
    pub fn new(
        backends: Vec<(Run, Arc<Backend>)>,
        handle: ClusterHandle,
        identity: ViewIdentity,
        proxy: Arc<ProxyUsage>,
        directory: Arc<Directory>,
        networks: Networks,
        clock: Clock,
    ) -> Self {
        let bare = backends.iter().map(|(_, backend)| Arc::clone(backend)).collect();
        let usage = Mutex::new(Usage::new(bare, Arc::clone(&proxy), directory));
        let state = Mutex::default();
        Members { backends, handle, identity, networks, proxy, clock, usage, state }
    }

    /// What this node counts, all caches together.
    pub fn figures(&self) -> Figures {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the proxy a view: routed by what is in force, connected also to who is to come.
    fn tell_proxy(&self, state: &State) {
        let (committed, prepared) = (state.committed.as_deref(), state.prepared.as_deref());
        let view = ClusterView::of_topologies(&self.identity, committed, prepared, &self.networks);
        if let Some(view) = view {
            self.handle.set_view(view);
        }
    }

    /// Whether this is prepared without a person's word, and leaves out a node that has a link to this
    /// one. Control may take it for dead; the link says that its process lives.
    fn gives_up_a_caller(&self, topology: &Topology) -> bool {
        let state = self.lock();
        let is_asked = |it: &Arc<Topology>| it.epoch() == topology.epoch() && !state.is_forced;
        if !state.prepared.as_ref().is_some_and(is_asked) || is_made(Mistake::GivesUpTheSilent) {
            return false;
        }
        let stays = |node: &NodeName| topology.members().iter().any(|it| it.node == *node);
        let before = state.committed.as_deref().map_or(&[][..], Topology::members);
        let mut given_up = before.iter().map(|member| &member.node).filter(|node| !stays(node));
        given_up.any(|node| self.backends.iter().any(|(_, backend)| backend.is_called_by(node)))
    }

    /// Makes room for a cache in each backend.
    fn make_room(
        &self,
        topology: Option<&Topology>,
        id: CacheId,
        planned: &Planned,
    ) -> Result<(), String> {
        let limits = planned.limits;
        for ((run, backend), told) in self.backends.iter().zip(&planned.shares) {
            let by_weight =
                || scale(limits.memory_bytes, part_of(topology, run, self.backends.len()));
            let share = told.unwrap_or_else(by_weight);
            let (item, now) = (limits.item_bytes_max, self.clock.now());
            let put = match backend.create_part(id, share, item, now) {
                Err(LimitError::Exists) => backend.share_cache(id, share, item, now),
                other => other,
            };
            put.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// The backend's weight, and that of all. Without a topology the backends of this process are all.
fn part_of(topology: Option<&Topology>, run: &Run, backends: usize) -> (u64, u64) {
    let members = topology.map(Topology::members).unwrap_or_default();
    let mine = members.iter().find(|member| member.name == run.name);
    match mine {
        Some(mine) => {
            let all = members.iter().map(|member| u64::from(member.weight.get())).sum();
            (u64::from(mine.weight.get()), all)
        }
        None => (1, backends as u64),
    }
}

/// The backends' parts of a plan add up to it. That the largest item fits a small part as well, the
/// backend sees to.
fn scale(memory_bytes: u64, (mine, all): (u64, u64)) -> u64 {
    let part = u128::from(memory_bytes) * u128::from(mine) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

impl DataPlane for Members {
    fn put_cache(&self, id: CacheId, limits: Limits) -> Result<(), String> {
        let mut state = self.lock();
        let shares = match state.caches.get(&id) {
            Some(before) => {
                let part = (limits.memory_bytes, before.limits.memory_bytes);
                before.shares.iter().map(|share| share.map(|share| scale(share, part))).collect()
            }
            None => vec![None; self.backends.len()].into(),
        };
        let planned = Planned { limits, shares };
        self.make_room(state.committed.as_deref(), id, &planned)?;
        state.caches.insert(id, planned);
        Ok(())
    }

    fn remove_cache(&self, id: CacheId) {
        self.lock().caches.remove(&id);
        for (_, backend) in &self.backends {
            backend.remove_cache(id);
        }
        self.proxy.forget(id);
    }

    fn flush_cache(&self, id: CacheId) {
        for (_, backend) in &self.backends {
            if let Some(cache) = backend.cache(id) {
                backend::flush(&cache, Exptime(0), self.clock.now());
            }
        }
    }

    fn usage(&self, anew: bool) -> UsageChanges {
        let now = self.clock.now();
        self.usage.lock().unwrap_or_else(PoisonError::into_inner).changes(anew, now)
    }

    fn share(&self, shares: &[Share]) {
        let mut state = self.lock();
        let now = self.clock.now();
        for share in shares {
            let number = usize::from(share.backend);
            let Some((_, backend)) = self.backends.get(number) else { continue };
            let Some(planned) = state.caches.get_mut(&share.cache) else { continue };
            let item = planned.limits.item_bytes_max;
            match backend.share_cache(share.cache, share.bytes, item, now) {
                Ok(()) => planned.shares[number] = Some(share.bytes),
                // It stays with what it had; the next shares follow what it holds by then.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(cache = share.cache.get(), error, "no room for a share");
                }
            }
        }
    }

    fn keep_shares(&self) {
        self.backends.iter().for_each(|(_, backend)| backend.keep_shares());
    }

    fn open(&self) -> Vec<Open> {
        self.proxy.open()
    }

    fn answer(&self, question: &Question) -> Answer {
        let backends: Vec<_> = self.backends.iter().map(|(_, it)| Arc::clone(it)).collect();
        let (proxy, clock) = (&*self.proxy, self.clock);
        Introspection { backends: &backends, proxy, clock }.answer(question)
    }
}

impl Links for Members {
    fn restore(&self, committed: &Arc<Topology>, prepared: Option<&Topology>) {
        let mut state = self.lock();
        self.backends.iter().for_each(|(_, it)| it.slots().restore(committed, prepared));
        state.prepared = Some(Arc::clone(committed));
        self.tell_proxy(&state);
    }

    fn prepare(&self, topology: &Arc<Topology>, forced: bool) {
        let mut state = self.lock();
        if state.committed.as_ref() == Some(topology) {
            return;
        }
        for (_, backend) in &self.backends {
            backend.slots().prepare(topology);
        }
        state.prepared = Some(Arc::clone(topology));
        state.is_forced = forced;
        self.tell_proxy(&state);
    }

    fn connected(&self, topology: &Topology) -> MemberSet {
        if self.gives_up_a_caller(topology) {
            return MemberSet::NONE;
        }
        self.handle.reached(topology, &self.identity)
    }

    fn others_say(&self, topology: &Topology) -> Verdict {
        let nodes: BTreeSet<&NodeName> =
            topology.members().iter().map(|member| &member.node).collect();
        let others = nodes.into_iter().filter(|node| **node != self.identity.node);
        comeback::verdict(others.map(|node| self.handle.says(node, topology)))
    }

    fn commit(&self, topology: &Arc<Topology>, settled: Epoch) {
        let mut state = self.lock();
        for (_, backend) in &self.backends {
            backend.slots().commit(topology, settled);
        }
        state.committed = Some(Arc::clone(topology));
        // A newer one may be prepared: this one waited for the disk.
        state.prepared.take_if(|prepared| prepared.epoch() <= topology.epoch());
        self.tell_proxy(&state);
        for (&id, planned) in &state.caches {
            if let Err(why) = self.make_room(state.committed.as_deref(), id, planned) {
                tracing::error!(cache = id.get(), why, "no room for the new part of a cache");
            }
        }
    }

    fn abort(&self) {
        let mut state = self.lock();
        state.prepared = None;
        self.backends.iter().for_each(|(_, backend)| backend.slots().abort());
        self.tell_proxy(&state);
    }

    fn settled(&self, epoch: Epoch) {
        for (_, backend) in &self.backends {
            backend.slots().settle(epoch);
        }
    }

    fn doubt(&self) {
        self.backends.iter().for_each(|(_, backend)| backend.slots().doubt());
    }

    fn trust(&self) {
        self.backends.iter().for_each(|(_, backend)| backend.slots().trust());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_plan() {
        assert_eq!(scale(100 << 20, (1, 4)), 25 << 20);
        assert_eq!(scale(100 << 20, (1, 1)), 100 << 20);
        assert_eq!(scale(u64::MAX, (4, 4)), u64::MAX);
        assert_eq!(scale(1 << 20, (0, 0)), 0);
    }
}
