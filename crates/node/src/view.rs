//! What the rest of the process reads of the cluster: the topology, and how this node is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use cluster::map::Epoch;
use wire::control::epochs::Epochs;
use wire::control::topology::{MemberSet, Topology};

/// Shared by all; every read is a pointer.
#[derive(Debug, Default)]
pub struct View {
    epochs: ArcSwap<Epochs>,
    revision: AtomicU64,
    /// Whether there has ever been a copy to serve by.
    ready: AtomicBool,
    /// Whether the control plane is away, so that the copy may be old.
    stale: AtomicBool,
}

impl View {
    /// The topology that is in force, the one that is being prepared, and what is settled.
    pub fn epochs(&self) -> Arc<Epochs> {
        self.epochs.load_full()
    }

    /// The cell itself, for readers that keep a cached handle per thread.
    pub fn epochs_cell(&self) -> &ArcSwap<Epochs> {
        &self.epochs
    }

    pub fn revision(&self) -> u64 {
        self.revision.load(Relaxed)
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
    }

    pub fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    pub(crate) fn set_epochs(&self, epochs: &Epochs) {
        self.epochs.store(Arc::new(epochs.clone()));
    }

    pub(crate) fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Relaxed);
        self.ready.store(true, Relaxed);
    }

    /// `true` when that is news.
    pub(crate) fn set_stale(&self, stale: bool) -> bool {
        self.stale.swap(stale, Relaxed) != stale
    }
}

/// The links of this node's proxy to the members of a topology.
///
/// Called from the task that talks to the control plane; shall not block.
pub trait Links: Send + Sync {
    /// Begins to make links to every member. Told again, it does nothing.
    fn prepare(&self, topology: &Arc<Topology>);

    /// The members to which there is a working link now, by their place in [`Topology::members`];
    /// backends of this very process count as connected.
    fn connected(&self, topology: &Topology) -> MemberSet;

    /// From now on requests are routed by this one ([`View::epochs`] has it already).
    fn commit(&self, topology: &Arc<Topology>);

    /// The topology that was prepared is not coming.
    fn abort(&self);

    /// Every node routes by this epoch, or by a newer one.
    fn settled(&self, epoch: Epoch);
}

/// For a node that serves from its own backend only: there is nothing to connect to.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLinks;

impl Links for NoLinks {
    fn prepare(&self, _: &Arc<Topology>) {}

    fn connected(&self, topology: &Topology) -> MemberSet {
        MemberSet::first(topology.members().len())
    }

    fn commit(&self, _: &Arc<Topology>) {}

    fn abort(&self) {}

    fn settled(&self, _: Epoch) {}
}
