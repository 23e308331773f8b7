//! A node's side of the two phases in which the topology changes.
//!
//! ```text
//!                  PREPARE e           COMMIT e, same digest
//!   committed d ─────────────▶ d, prepared e ─────────────▶ committed e        (d < e)
//!        ▲                        │ ABORT e      │                ▲
//!        └────────────────────────┘              │ not written    │ written
//!                                                └─▶ d, unwritten e
//! ```
//!
//! An epoch never goes back; a topology that drops more members than any plan would is refused; what
//! is told twice changes nothing. A node that was away is told PREPARE and COMMIT in one breath.
//!
//! What was committed and could not be written to disk is not in force here, and stays to be put in
//! force whatever comes before the disk works again: control tells it once, and waits for it.

use std::sync::Arc;

use cluster::digest::Digest;
use cluster::map::Epoch;

use super::message::{Reason, Refusal};
use super::topology::Topology;

/// The part of all members, in percent, that one topology may drop. One node may always go, with all
/// its members: they share its fate anyway.
pub const MEMBERS_DROPPED_PERCENT_MAX: usize = 30;

/// What a node knows of its cluster's topology.
#[derive(Debug, Clone, Default)]
pub struct Epochs {
    /// Requests are routed by this one.
    pub committed: Option<Arc<Topology>>,
    /// Links are being made for this one.
    pub prepared: Option<Arc<Topology>>,
    /// Committed by control, and not in force before it is on disk. It is the prepared one as well,
    /// unless a newer one is.
    unwritten: Option<Arc<Topology>>,
    /// The newest epoch by which every node routes; a member of it may serve what it gained without
    /// asking the giver.
    pub settled: Option<Epoch>,
}

impl Epochs {
    /// The epoch that requests are routed by; 0 before the first.
    pub fn current(&self) -> Epoch {
        self.committed.as_ref().map_or(Epoch::new(0), |topology| topology.epoch())
    }

    /// The newest epoch that control has committed, as far as is known here.
    fn decided(&self) -> Epoch {
        self.unwritten.as_ref().map_or(self.current(), |topology| topology.epoch())
    }

    pub fn prepare(&mut self, topology: Arc<Topology>, forced: bool) -> Result<(), Refusal> {
        if topology.epoch() < self.decided() {
            return Err(old_epoch(topology.epoch(), self.decided()));
        }
        if let Some(committed) = &self.committed {
            if topology.epoch() == committed.epoch() {
                if topology.digest() == committed.digest() {
                    return Ok(()); // Told again.
                }
                let detail = format!("epoch {} twice, and not the same", topology.epoch());
                return Err(Refusal::new(Reason::Inconsistent, detail));
            }
            if !forced {
                check_dropped(committed, &topology)?;
            }
        }
        self.prepared = Some(topology);
        Ok(())
    }

    /// Puts the prepared topology in force and returns it; `None` when it is already.
    pub fn commit(
        &mut self,
        epoch: Epoch,
        digest: Digest,
    ) -> Result<Option<Arc<Topology>>, Refusal> {
        let is_it =
            |topology: &Arc<Topology>| topology.epoch() == epoch && topology.digest() == digest;
        if self.committed.as_ref().is_some_and(is_it) {
            return Ok(None);
        }
        if epoch < self.decided() {
            return Err(old_epoch(epoch, self.decided()));
        }
        let known = [&self.prepared, &self.unwritten].map(Option::as_ref);
        let Some(topology) = known.into_iter().flatten().find(|it| is_it(it)).cloned() else {
            let detail = format!("epoch {epoch} with digest {digest:.12} was not prepared");
            return Err(Refusal::new(Reason::Unexpected, detail));
        };
        self.put_in_force(&topology);
        Ok(Some(topology))
    }

    fn put_in_force(&mut self, topology: &Arc<Topology>) {
        let is_past = |it: &mut Arc<Topology>| it.epoch() <= topology.epoch();
        self.prepared.take_if(is_past);
        self.unwritten.take_if(is_past);
        self.committed = Some(Arc::clone(topology));
    }

    /// What was put in force last could not be written: `before` stays in force until
    /// [`Epochs::take_up`].
    pub fn not_written(&mut self, before: Option<Arc<Topology>>) {
        self.unwritten = std::mem::replace(&mut self.committed, before);
        if self.prepared.is_none() {
            self.prepared.clone_from(&self.unwritten);
        }
    }

    /// Whether a topology waits for the disk.
    pub fn is_unwritten(&self) -> bool {
        self.unwritten.is_some()
    }

    /// The disk works again: puts the topology in force that waited for it, and returns it.
    pub fn take_up(&mut self) -> Option<Arc<Topology>> {
        let topology = self.unwritten.take()?;
        self.put_in_force(&topology);
        Some(topology)
    }

    /// Forgets a prepared topology. `false` when there is none of this epoch. What control has committed
    /// it cannot take back.
    pub fn abort(&mut self, epoch: Epoch) -> bool {
        if self.unwritten.as_ref().is_some_and(|topology| topology.epoch() == epoch) {
            return false;
        }
        let is_aborted = self.prepared.take_if(|topology| topology.epoch() == epoch).is_some();
        if is_aborted {
            self.prepared.clone_from(&self.unwritten);
        }
        is_aborted
    }
}

fn check_dropped(before: &Topology, after: &Topology) -> Result<(), Refusal> {
    let stays = |name| after.members().iter().any(|member| &member.name == name);
    let count = before.members().len();
    let gone = || before.members().iter().filter(|member| !stays(&member.name));
    let dropped = gone().count();
    let is_one_node = gone().zip(gone().skip(1)).all(|(one, next)| one.node == next.node);
    if !is_one_node && dropped * 100 > count * MEMBERS_DROPPED_PERCENT_MAX {
        return Err(Refusal::new(Reason::DropsTooMuch, format!("{dropped} of {count} members")));
    }
    Ok(())
}

fn old_epoch(epoch: Epoch, current: Epoch) -> Refusal {
    Refusal::new(Reason::OldEpoch, format!("epoch {epoch}, while {current} is committed"))
}

#[cfg(test)]
mod tests {
    use cluster::scheme::Scheme;

    use super::*;
    use crate::control::name::NodeName;
    use crate::control::topology::{Placement, TopologyMember, tests::topology};

    #[test]
    fn an_epoch_is_prepared_then_committed_and_told_twice_is_told_once() {
        let mut epochs = Epochs::default();
        for _ in 0..2 {
            epochs.prepare(three(1), false).expect("the first");
        }
        let first = three(1);
        assert!(epochs.commit(first.epoch(), first.digest()).expect("prepared").is_some());
        assert!(epochs.commit(first.epoch(), first.digest()).expect("again").is_none());
        epochs.prepare(three(1), false).expect("again");
        assert_eq!(epochs.current(), Epoch::new(1));
        assert!(epochs.prepared.is_none());
    }

    #[test]
    fn what_was_not_prepared_is_not_committed() {
        let mut epochs = at(3);
        epochs.prepare(three(5), false).expect("newer");
        let other = Digest::new([9; 32]);
        check(epochs.commit(Epoch::new(5), other).map(drop), Reason::Unexpected);
        check(epochs.commit(Epoch::new(6), three(6).digest()).map(drop), Reason::Unexpected);
        assert!(!epochs.abort(Epoch::new(4)));
        assert!(epochs.abort(Epoch::new(5)));
        check(epochs.commit(Epoch::new(5), three(5).digest()).map(drop), Reason::Unexpected);
        assert_eq!(epochs.current(), Epoch::new(3));
    }

    #[test]
    fn an_epoch_never_goes_back_nor_means_two_things() {
        let mut epochs = at(3);
        check(epochs.prepare(three(2), true), Reason::OldEpoch);
        check(epochs.commit(Epoch::new(2), three(2).digest()).map(drop), Reason::OldEpoch);
        check(epochs.prepare(of(3, 4), false), Reason::Inconsistent);
    }

    #[test]
    fn what_could_not_be_written_is_put_in_force_whatever_came_meanwhile() {
        type Meanwhile = fn(&mut Epochs);
        let nothing: Meanwhile = |_| ();
        let aborted: Meanwhile = |epochs| assert!(!epochs.abort(Epoch::new(4)));
        let overtaken: Meanwhile = |epochs| epochs.prepare(three(5), false).expect("newer");
        let given_up: Meanwhile = |epochs| {
            epochs.prepare(three(5), false).expect("newer");
            assert!(epochs.abort(Epoch::new(5)));
        };
        let told_again: Meanwhile = |epochs| {
            epochs.prepare(three(5), false).expect("newer");
            let again = three(4);
            let told = epochs.commit(again.epoch(), again.digest()).expect("it was prepared once");
            assert_eq!(told.map(|it| it.epoch()), Some(Epoch::new(4)));
            epochs.not_written(Some(three(3)));
        };
        for (meanwhile, still_prepared) in
            [(nothing, None), (aborted, None), (overtaken, Some(5)), (given_up, None)]
                .into_iter()
                .chain([(told_again, Some(5))])
        {
            let mut epochs = not_written();
            meanwhile(&mut epochs);
            assert!(epochs.is_unwritten());
            assert_eq!(epochs.current(), Epoch::new(3));
            assert_eq!(epochs.take_up().map(|it| it.epoch()), Some(Epoch::new(4)));
            assert_eq!(epochs.current(), Epoch::new(4));
            let prepared = epochs.prepared.as_ref().map(|it| it.epoch().get());
            assert_eq!(prepared, still_prepared);
            assert!(epochs.take_up().is_none(), "once");
        }
        // A newer one that could be written.
        let mut epochs = not_written();
        epochs.prepare(three(5), false).expect("newer");
        epochs.commit(Epoch::new(5), three(5).digest()).expect("prepared");
        assert!(epochs.take_up().is_none());
        assert_eq!(epochs.current(), Epoch::new(5));
    }

    /// Epoch 3 is in force, and 4 was committed and could not be written.
    fn not_written() -> Epochs {
        let mut epochs = at(3);
        epochs.prepare(three(4), false).expect("newer");
        epochs.commit(Epoch::new(4), three(4).digest()).expect("prepared");
        epochs.not_written(Some(three(3)));
        assert_eq!(epochs.prepared.as_ref().map(|it| it.epoch()), Some(Epoch::new(4)));
        epochs
    }

    #[test]
    fn one_member_may_go_but_not_many_at_once() {
        let mut epochs = Epochs { committed: Some(of(1, 10)), ..Epochs::default() };
        check(epochs.prepare(of(2, 6), false), Reason::DropsTooMuch);
        epochs.prepare(of(2, 6), true).expect("a person has confirmed it");
        epochs.prepare(of(2, 7), false).expect("three of ten");
        let mut two = Epochs { committed: Some(of(1, 2)), ..Epochs::default() };
        two.prepare(of(2, 1), false).expect("one may always go");
        // Two of two, of one node and of two.
        for (last_node, is_allowed) in [("node-1", true), ("node-2", false)] {
            let members = of(1, 3).members().to_vec().into_iter().enumerate().map(|(index, it)| {
                let node = if index == 2 { last_node } else { it.node.as_str() };
                TopologyMember { node: NodeName::parse(node).expect("a good name"), ..it }
            });
            let placement = Placement::Scheme(Scheme::Maglev);
            let before = Topology::new(Epoch::new(1), [7; 16], members.collect(), placement);
            let before = before.expect("good members");
            let mut epochs = Epochs { committed: Some(Arc::new(before)), ..Epochs::default() };
            assert_eq!(epochs.prepare(of(2, 1), false).is_ok(), is_allowed, "{last_node}");
        }
    }

    #[track_caller]
    fn check(answer: Result<(), Refusal>, reason: Reason) {
        assert_eq!(answer.map_err(|refusal| refusal.reason), Err(reason));
    }

    fn at(epoch: u64) -> Epochs {
        Epochs { committed: Some(three(epoch)), ..Epochs::default() }
    }

    fn three(epoch: u64) -> Arc<Topology> {
        of(epoch, 3)
    }

    fn of(epoch: u64, members: usize) -> Arc<Topology> {
        Arc::new(topology(epoch, members, Placement::Scheme(Scheme::Maglev)))
    }
}
