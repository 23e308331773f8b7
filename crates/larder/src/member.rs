//! What a node's backends and proxy are told by the control plane: caches, members, and who owns what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend::Backend;
use cluster::map::Epoch;
use cluster::ownership::Run;
use daemon::clock::Clock;
use node::serving::DataPlane;
use node::view::Links;
use protocol::operation::Exptime;
use proxy::cluster_handle::ClusterHandle;
use proxy::usage::ProxyUsage;
use proxy::view::{ClusterView, Networks, ViewIdentity};
use store::store::LimitError;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use wire::control::topology::{MemberSet, Topology};

/// The backends of one node as members of its cluster.
pub struct Members {
    backends: Vec<(Run, Arc<Backend>)>,
    handle: ClusterHandle,
    identity: ViewIdentity,
    networks: Networks,
    usage: Arc<ProxyUsage>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    committed: Option<Arc<Topology>>,
    prepared: Option<Arc<Topology>>,
    /// The plan of each cache, for when shares change.
    caches: HashMap<CacheId, Limits>,
}

impl Members {
    pub fn new(
        backends: Vec<(Run, Arc<Backend>)>,
        handle: ClusterHandle,
        identity: ViewIdentity,
        usage: Arc<ProxyUsage>,
        clock: Clock,
    ) -> Self {
        let networks = Networks::private();
        let state = Mutex::default();
        Members { backends, handle, identity, networks, usage, clock, state }
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

    /// Makes room for a cache in each backend: its part of the plan is the backend's part of the
    /// cluster.
    fn make_room(&self, state: &State, id: CacheId, limits: Limits) -> Result<(), String> {
        let topology = state.committed.as_deref();
        for (run, backend) in &self.backends {
            let part = part_of(topology, run, self.backends.len());
            let share = scale(limits.memory_bytes, part);
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
        self.make_room(&state, id, limits)?;
        state.caches.insert(id, limits);
        Ok(())
    }

    fn remove_cache(&self, id: CacheId) {
        self.lock().caches.remove(&id);
        for (_, backend) in &self.backends {
            backend.remove_cache(id);
        }
        self.usage.forget(id);
    }

    fn flush_cache(&self, id: CacheId) {
        for (_, backend) in &self.backends {
            if let Some(cache) = backend.cache(id) {
                backend::flush(&cache, Exptime(0), self.clock.now());
            }
        }
    }
}

impl Links for Members {
    fn prepare(&self, topology: &Arc<Topology>, _settled: Epoch) {
        let mut state = self.lock();
        if state.committed.as_ref() == Some(topology) {
            return;
        }
        for (_, backend) in &self.backends {
            backend.slots().prepare(topology);
        }
        state.prepared = Some(Arc::clone(topology));
        self.tell_proxy(&state);
    }

    fn connected(&self, topology: &Topology) -> MemberSet {
        self.handle.reached(topology, &self.identity)
    }

    fn commit(&self, topology: &Arc<Topology>, settled: Epoch) {
        let mut state = self.lock();
        for (_, backend) in &self.backends {
            backend.slots().commit(topology, settled);
        }
        state.committed = Some(Arc::clone(topology));
        state.prepared = None;
        self.tell_proxy(&state);
        for (&id, &limits) in &state.caches {
            if let Err(why) = self.make_room(&state, id, limits) {
                tracing::error!(cache = id.get(), why, "no room for the new part of a cache");
            }
        }
    }

    fn abort(&self) {
        let mut state = self.lock();
        state.prepared = None;
        self.tell_proxy(&state);
    }

    fn settled(&self, epoch: Epoch) {
        for (_, backend) in &self.backends {
            backend.slots().settle(epoch);
        }
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
