//! What the rest of the process reads of the cluster: the topology, and how this node is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use cluster::comeback::Verdict;
use cluster::map::Epoch;
use tokio::sync::watch;
use wire::control::epochs::Epochs;
use wire::control::topology::{MemberSet, Topology};

/// Shared by all; every read is a pointer.
#[derive(Debug, Default)]
pub struct View {
    epochs: ArcSwap<Epochs>,
    revision: AtomicU64,
    /// Whether there has ever been a copy to serve by.
    ready: watch::Sender<bool>,
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
        *self.ready.borrow()
    }

    /// Completes when there is a copy to serve by.
    pub async fn ready(&self) {
        // The sender is ours, so the only end of the wait is the wished-for one.
        drop(self.ready.subscribe().wait_for(|ready| *ready).await);
    }

    pub fn is_stale(&self) -> bool {
        self.stale.load(Relaxed)
    }

    pub(crate) fn set_epochs(&self, epochs: &Epochs) {
        self.epochs.store(Arc::new(epochs.clone()));
    }

    pub(crate) fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Relaxed);
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// `true` when that is news.
    pub(crate) fn set_stale(&self, stale: bool) -> bool {
        self.stale.swap(stale, Relaxed) != stale
    }
}

/// The backends and the links of this node, as members of a topology.
///
/// Called from the task that talks to the control plane; shall not block.
pub trait Links: Send + Sync {
    /// What was on disk: makes links to the members of the topology that was in force, of which nothing
    /// is served yet, and remembers whom the one that was being prepared leaves out.
    fn restore(&self, committed: &Arc<Topology>, prepared: Option<&Topology>);

    /// Begins to make links to every member. `forced`: a person has confirmed that whoever is left out
    /// is gone. Told again, it does nothing.
    fn prepare(&self, topology: &Arc<Topology>, forced: bool);

    /// The members to which there is a working link now, by their place in [`Topology::members`];
    /// backends of this very process count as connected. None, if the topology was prepared without a
    /// person's word and gives up a node that has a link to this one: its process lives.
    fn connected(&self, topology: &Topology) -> MemberSet;

    /// Whether this node may serve by a topology of its disk, as far as the other nodes of it say.
    fn others_say(&self, topology: &Topology) -> Verdict;

    /// From now on backends own and requests are routed by this one. It is on disk.
    fn commit(&self, topology: &Arc<Topology>, settled: Epoch);

    /// The topology that was prepared is not coming.
    fn abort(&self);

    /// Every node routes by this epoch, or by a newer one.
    fn settled(&self, epoch: Epoch);

    /// What was committed last may not be in force: backends execute nothing until a newer one is
    /// committed, or [`Links::trust`].
    fn doubt(&self);

    /// What was committed last is in force after all.
    fn trust(&self);
}

/// For tests of everything else: there is nothing to connect to.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLinks;

impl Links for NoLinks {
    fn restore(&self, _: &Arc<Topology>, _: Option<&Topology>) {}

    fn prepare(&self, _: &Arc<Topology>, _: bool) {}

    fn connected(&self, topology: &Topology) -> MemberSet {
        MemberSet::first(topology.members().len())
    }

    fn others_say(&self, _: &Topology) -> Verdict {
        Verdict::Serve
    }

    fn commit(&self, _: &Arc<Topology>, _: Epoch) {}

    fn abort(&self) {}

    fn settled(&self, _: Epoch) {}

    fn doubt(&self) {}

    fn trust(&self) {}
}
