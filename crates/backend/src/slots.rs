//! Which slots a backend may serve, shared by all threads that serve them.
//!
//! A thread [enters](Slots::enter) before it executes a batch of requests and leaves after it. Maps
//! are taken over between batches, never during one: so when a slot has been given away, no
//! operation on it is still under way, and none that was checked before is executed after.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use cluster::digest::Digest;
use cluster::map::Epoch;
use cluster::member::Incarnation;
use cluster::mistake::{Mistake, is_made};
use cluster::ownership::{Elsewhere, Ownership, Run, Token, View};
use cluster::slot::{SLOTS, Slot, SlotHasher};
use store::operation::Seconds;
use store::store::Store;
use wire::control::name::NodeName;
use wire::control::topology::Topology;

use crate::sweep::Sweep;

pub struct Slots {
    /// `None` where there is no cluster: every slot is ours.
    placed: RwLock<Option<Placed>>,
    sweep: Mutex<Option<Sweep>>,
}

struct Placed {
    ownership: Ownership,
    /// What came with the newest topology that this backend was told of, prepared or committed.
    hasher: Option<SlotHasher>,
    /// Of the newest committed topology.
    digest: Digest,
    /// Who is in the newest committed topology, and in the prepared one; also before the first is served
    /// by.
    committed: Option<Roster>,
    prepared: Option<Roster>,
}

/// The nodes of one topology, each with its run.
struct Roster {
    epoch: Epoch,
    nodes: BTreeSet<(NodeName, Incarnation)>,
}

impl Roster {
    fn of(topology: &Topology) -> Self {
        let nodes =
            topology.members().iter().map(|member| (member.node.clone(), member.incarnation));
        Roster { epoch: topology.epoch(), nodes: nodes.collect() }
    }

    /// A node whose run is not known is there if any is.
    fn has(&self, node: &NodeName, run: Option<Incarnation>) -> bool {
        self.nodes.iter().any(|(name, its)| name == node && run.is_none_or(|run| run == *its))
    }
}

/// No topology has this digest: it is no SHA-256 of anything known.
const NO_DIGEST: Digest = Digest::new([0; 32]);

impl Slots {
    pub(crate) fn alone() -> Self {
        Slots { placed: RwLock::new(None), sweep: Mutex::default() }
    }

    pub(crate) fn of(run: Run) -> Self {
        let ownership = Ownership::new(run, SLOTS as usize);
        let placed =
            Placed { ownership, hasher: None, digest: NO_DIGEST, committed: None, prepared: None };
        Slots { placed: RwLock::new(Some(placed)), sweep: Mutex::default() }
    }

    /// Begins a batch. The guard keeps maps from being taken over, so hold it for no longer than a
    /// batch takes; and a thread that holds one must not enter again.
    #[inline]
    pub fn enter(&self) -> Entered<'_> {
        Entered(self.placed.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the right that a request brought along, if it is one; [`Entered::check`] says
    /// afterwards what became of it. Not while the thread is inside.
    pub fn accept(&self, slot: Slot, token: Token) {
        if let Some(placed) = &mut *self.write() {
            placed.ownership.accept(slot, token);
        }
    }

    /// Notes a topology that may be committed any moment.
    pub fn prepare(&self, topology: &Topology) {
        if let Some(placed) = &mut *self.write() {
            placed.ownership.prepare(view(topology));
            placed.hasher = Some(SlotHasher::new(&topology.slot_key()));
            placed.prepared = Some(Roster::of(topology));
        }
    }

    /// What the node's disk says after a start: the topology that was in force, which is not served by
    /// yet, and one that was being prepared.
    pub fn restore(&self, committed: &Topology, prepared: Option<&Topology>) {
        self.prepare(committed);
        if let Some(placed) = &mut *self.write() {
            placed.committed = Some(Roster::of(committed));
            placed.prepared = prepared.map(Roster::of);
        }
    }

    /// The topology that was prepared is not coming.
    pub fn abort(&self) {
        if let Some(placed) = &mut *self.write() {
            placed.prepared = None;
        }
    }

    /// The newest epoch that this backend was told of in which this run of a node is no member; 0 when it
    /// is one in all of them.
    pub(crate) fn without(&self, node: &NodeName, run: Option<Incarnation>) -> Epoch {
        let without = self.read_with(|placed| {
            let known = [&placed.committed, &placed.prepared].into_iter().flatten();
            known.filter(|it| !it.has(node, run)).map(|it| it.epoch).max()
        });
        without.flatten().unwrap_or(Epoch::new(0))
    }

    /// Takes over a committed topology: gives away what it takes, waits for what it gives. Takes a
    /// few milliseconds, for which requests wait. An old one changes nothing.
    ///
    /// It must be on disk before, if a process that ends may be followed by one that goes on as the
    /// same run; and it is acknowledged after.
    pub fn commit(&self, topology: &Topology, settled: Epoch) {
        let view = view(topology);
        let hasher = SlotHasher::new(&topology.slot_key());
        if let Some(placed) = &mut *self.write()
            && placed.ownership.epoch() <= view.epoch()
        {
            placed.ownership.commit(view, settled);
            placed.hasher = Some(hasher);
            placed.digest = topology.digest();
            placed.prepared.take_if(|it| it.epoch <= topology.epoch());
            placed.committed = Some(Roster::of(topology));
        }
    }

    /// Notes that control has settled an epoch.
    pub fn settle(&self, epoch: Epoch) {
        let is_news = self.read_with(|placed| placed.ownership.settled() < epoch);
        if is_news == Some(true)
            && let Some(placed) = &mut *self.write()
        {
            placed.ownership.settle(epoch);
        }
    }

    /// Stops executing anything: a node that came back may have no part in what is in force.
    pub fn doubt(&self) {
        if let Some(placed) = &mut *self.write() {
            placed.ownership.doubt();
        }
    }

    /// Goes on as if there had been no [`Slots::doubt`].
    pub fn trust(&self) {
        if let Some(placed) = &mut *self.write() {
            placed.ownership.trust();
        }
    }

    /// Stops executing on these slots, until [`Slots::thaw`] or until they are given away.
    pub fn freeze(&self, slots: impl IntoIterator<Item = Slot>) {
        if let Some(placed) = &mut *self.write() {
            placed.ownership.freeze(slots);
        }
    }

    /// Goes on as if there had been no [`Slots::freeze`].
    pub fn thaw(&self, slots: impl IntoIterator<Item = Slot>) {
        if let Some(placed) = &mut *self.write() {
            placed.ownership.thaw(slots);
        }
    }

    /// How things stand; `None` where there is no cluster.
    pub fn standing(&self) -> Option<Standing> {
        self.read_with(|placed| Standing {
            run: placed.ownership.me().clone(),
            epoch: placed.ownership.epoch(),
            digest: placed.digest,
            slot_fingerprint: placed.hasher.as_ref().map(SlotHasher::fingerprint),
        })
    }

    /// How many slots are served here; looks at every one. 0 where there is no cluster.
    pub fn owned(&self) -> usize {
        self.read_with(|placed| placed.ownership.owned()).unwrap_or(0)
    }

    /// Removes some of what is left of slots that were given away. `true` when there is more.
    pub(crate) fn sweep(&self, store: &Store, now: Seconds) -> bool {
        let mut sweep = match self.sweep.try_lock() {
            Ok(sweep) => sweep,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another thread is at it.
            Err(TryLockError::WouldBlock) => return false,
        };
        if sweep.is_none() {
            *sweep = self
                .read_with(|placed| {
                    let dirty = placed.ownership.to_sweep()?;
                    Some(Sweep::new(store, placed.hasher.clone()?, dirty))
                })
                .flatten();
        }
        let Some(under_way) = &mut *sweep else { return false };
        if !is_made(Mistake::SweepsNothing) && under_way.step(now) {
            return true;
        }
        if let Some(placed) = &mut *self.write() {
            placed.ownership.swept(under_way.dirty());
        }
        *sweep = None;
        // What was given away meanwhile is seen with the next call.
        true
    }

    fn read_with<R>(&self, look: impl FnOnce(&Placed) -> R) -> Option<R> {
        let placed = self.placed.read().unwrap_or_else(PoisonError::into_inner);
        placed.as_ref().map(look)
    }

    /// Nothing that is changed under this lock can panic half-way and be used after: a view of
    /// another size is refused before anything is touched.
    fn write(&self) -> RwLockWriteGuard<'_, Option<Placed>> {
        self.placed.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that executes requests. While it lives, slots stay whose they are.
pub struct Entered<'a>(RwLockReadGuard<'a, Option<Placed>>);

impl Entered<'_> {
    /// Of the newest map that is in force here; 0 where there is none.
    pub(crate) fn epoch(&self) -> Epoch {
        self.0.as_ref().map_or(Epoch::new(0), |placed| placed.ownership.epoch())
    }

    /// Whether a request on this slot may be executed now.
    #[inline]
    pub fn check(&self, slot: Slot) -> Result<(), Elsewhere<'_>> {
        match &*self.0 {
            None => Ok(()),
            Some(_) if is_made(Mistake::ServesAnySlot) => Ok(()),
            Some(placed) => placed.ownership.check(slot),
        }
    }
}

/// How a member of a cluster stands, for those who call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub run: Run,
    /// Of the newest committed topology; 0 before the first.
    pub epoch: Epoch,
    /// Of the same topology.
    pub digest: Digest,
    /// `None` before the first topology.
    pub slot_fingerprint: Option<u64>,
}

fn view(topology: &Topology) -> View {
    let incarnations: Vec<Incarnation> =
        topology.members().iter().map(|member| member.incarnation).collect();
    View::new(topology.map(), &incarnations)
        .expect("a topology lists its members in the order of its table")
}
