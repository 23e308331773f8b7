//! Which slots one backend may serve: the judgement that makes a wrong view cost a hop and never a
//! stale value.
//!
//! For each slot there is one right to serve it. A backend that the map takes a slot from gives the
//! right away in one local step, and from then on answers that the slot has *moved*, with a
//! [`Token`]; the backend that the map gives the slot to *waits*, and serves when a request brings
//! the token along. Proxies carry tokens, so nobody need be asked, whatever map a proxy holds:
//!
//! ```text
//!             map e: slot is A's                  map e+1: slot is B's
//!
//!   A   owned ─────────────── commit(e+1) ─▶ moved(to B, token e+1) ───────────── settle(e+1) ─▶ none
//!                                                 │        ▲
//!                         MOVED(B, token) to a proxy       │ any request
//!                                                 ▼
//!   B   none ── commit(e+1) ─▶ waiting ── request with token ──▶ owned ─────────── settle(e+1) ─▶ owned
//!                                 │
//!                                 └ any other request: NOT_YET(ask A)
//! ```
//!
//! Should a giver be dead, its rights died with it. New ones are made in one way only: control
//! *settles* an epoch when it knows that every member of it has applied it, and that whoever is not
//! in it (by name and incarnation) is dead or cut off by all proxies. Then no right of an earlier
//! epoch is left, tokens of it and before are void, and every backend owns what the map says.
//!
//! In this form a slot arrives empty: its items are lost, never stale. What a giver still holds of
//! it is *dirty* until it was swept away, and a slot that comes back is not served before that.
//!
//! A member that came back by what was on its disk may be told that it is not in force any more; then
//! its slots are *in doubt*, and nothing is executed on them until control has spoken
//! ([`crate::comeback`]).
//!
//! Carrying the items along adds states between *owned* and *moved* and before *owned* (copying,
//! staged); the right to serve passes as it does here.
//!
//! The argument is in `docs/decisions/0019-one-right-to-serve-a-slot.md`; `ownership/model.rs` checks
//! it in every interleaving of small clusters.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use crate::map::{ClusterMap, Epoch};
use crate::member::{Incarnation, MemberName};
use crate::mistake::{Mistake, is_made};
use crate::slot::Slot;

#[cfg(test)]
mod model;

/// The proof that a slot was given up in favour of one run of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Of the map by which it was given up.
    pub epoch: Epoch,
    /// The only run of the only member that may use it: one that comes back after a crash must not,
    /// because the run before it may have passed the slot on.
    pub to: RunTag,
}

/// Stands for one run of one member where there is no room for its name. An incarnation alone would
/// not do: all backends of a node have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunTag(u64);

impl RunTag {
    pub const fn new(tag: u64) -> Self {
        RunTag(tag)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

/// One run of one member.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    pub name: MemberName,
    pub incarnation: Incarnation,
}

impl Run {
    /// The same on every machine and in every version: SipHash-1-3 of the name and, as it has a fixed
    /// length, the incarnation behind it.
    pub fn tag(&self) -> RunTag {
        let mut hasher = SipHasher13::new_with_key(b"larder 1 run tag");
        hasher.write(self.name.as_str().as_bytes());
        hasher.write(&self.incarnation.get().to_le_bytes());
        RunTag(hasher.finish())
    }
}

/// A map, and which run of each member it means. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    epoch: Epoch,
    members: Arc<[Run]>,
    /// By slot, an index into `members`.
    owners: Arc<[u16]>,
}

impl View {
    /// `incarnations` in the order of the names of the map's table.
    ///
    /// # Errors
    ///
    /// There are not as many incarnations as names.
    pub fn new(map: &ClusterMap, incarnations: &[Incarnation]) -> Result<Self, WrongCount> {
        let names = map.table().names();
        if names.len() != incarnations.len() {
            return Err(WrongCount { names: names.len(), incarnations: incarnations.len() });
        }
        let run = |(name, &incarnation): (&MemberName, _)| Run { name: name.clone(), incarnation };
        Ok(View {
            epoch: map.epoch(),
            members: names.iter().zip(incarnations).map(run).collect(),
            owners: map.table().owners().into(),
        })
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn owner(&self, slot: Slot) -> &Run {
        self.owner_at(slot.index())
    }

    fn owner_at(&self, at: usize) -> &Run {
        &self.members[usize::from(self.owners[at])]
    }

    /// How `owners` calls this run, so that 65,537 slots need not be compared by name. `None` when it
    /// is no member.
    fn number_of(&self, run: &Run) -> Option<u16> {
        let mut members = (0..=u16::MAX).zip(self.members.iter());
        members.find(|(_, member)| *member == run).map(|(number, _)| number)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{names} members with {incarnations} incarnations")]
pub struct WrongCount {
    names: usize,
    incarnations: usize,
}

/// Why a backend does not execute a request on a slot. Nothing was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere<'a> {
    /// Given away: ask `to`, with the token.
    Moved { to: &'a MemberName, token: Token },
    /// To come; `ask` had it when this backend last knew.
    NotYet { ask: Option<&'a MemberName> },
    /// About to be given away; a moment's patience.
    Frozen,
    /// Not this backend's by the map of this epoch; of epoch 0 when it has no map at all.
    Unknown { epoch: Epoch },
}

/// What a backend is to do about one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// Nothing to do with it.
    None,
    /// By the map it is ours, but we have not been given the right.
    Waiting,
    /// We have the right, and still hold what was stored before we gave the slot away once.
    Sweeping,
    Owned,
    /// Owned by what was on disk, and nothing is executed: others may have been given it since.
    Doubted,
    /// Owned, but nothing is executed: the giver's last moment with what is on its way.
    Frozen,
    /// Given away; the number of a [`Gift`].
    Moved(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cell {
    state: State,
    /// There may be items of a time when the slot was ours.
    dirty: bool,
}

/// To whom slots were given, and by which map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Gift {
    to: Run,
    epoch: Epoch,
}

/// Of two views with one epoch one is wrong, so the epoch is enough.
impl Hash for View {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.epoch.hash(state);
    }
}

/// What one backend knows of its slots. Pure; whoever executes requests asks [`Ownership::check`]
/// and changes nothing of this while they run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ownership {
    me: Run,
    /// The newest committed view.
    view: Option<View>,
    /// The one before, for hints.
    before: Option<View>,
    /// A view that all have been told of, and that may be committed any moment.
    prepared: Option<View>,
    /// Of the first view committed here. What a process of this run gave away before, it no longer
    /// knows, so older tokens are void.
    first: Epoch,
    /// Tokens of this epoch and before are void. Epoch 0 is before the first.
    settled: Epoch,
    cells: Box<[Cell]>,
    /// Whether any cell may be dirty: so that asking costs nothing while none is.
    some_dirty: bool,
    gifts: Vec<Gift>,
}

const BEFORE_ALL: Epoch = Epoch::new(0);

impl Ownership {
    /// A backend that knows nothing yet and serves nothing.
    pub fn new(me: Run, slots: usize) -> Self {
        Ownership {
            me,
            view: None,
            before: None,
            prepared: None,
            first: BEFORE_ALL,
            settled: BEFORE_ALL,
            cells: vec![Cell { state: State::None, dirty: false }; slots].into(),
            some_dirty: false,
            gifts: Vec::new(),
        }
    }

    pub fn me(&self) -> &Run {
        &self.me
    }

    /// Of the newest view that was committed here; 0 before the first.
    pub fn epoch(&self) -> Epoch {
        self.view.as_ref().map_or(BEFORE_ALL, View::epoch)
    }

    pub fn settled(&self) -> Epoch {
        self.settled
    }

    /// Whether a request on this slot may be executed here and now.
    #[inline]
    pub fn check(&self, slot: Slot) -> Result<(), Elsewhere<'_>> {
        let state = self.cells[slot.index()].state;
        let is_hinted = is_made(Mistake::TrustsTheHint) && state == State::Waiting;
        if state == State::Owned || is_hinted { Ok(()) } else { Err(self.elsewhere(slot.index())) }
    }

    #[cold]
    fn elsewhere(&self, at: usize) -> Elsewhere<'_> {
        match self.cells[at].state {
            State::None => self.to_come(at),
            State::Waiting => Elsewhere::NotYet { ask: self.had(at) },
            State::Sweeping => Elsewhere::NotYet { ask: None },
            State::Owned | State::Frozen => Elsewhere::Frozen,
            State::Doubted => Elsewhere::Unknown { epoch: self.epoch() },
            State::Moved(gift) => {
                let gift = &self.gifts[usize::from(gift)];
                let token = Token { epoch: gift.epoch, to: gift.to.tag() };
                Elsewhere::Moved { to: &gift.to.name, token }
            }
        }
    }

    /// A slot that is not ours by the committed view. When the prepared one gives it to us, others may
    /// have committed that one and send their proxies here: those need the giver, who has the token.
    fn to_come(&self, at: usize) -> Elsewhere<'_> {
        let is_to_come = self.prepared.as_ref().is_some_and(|next| *next.owner_at(at) == self.me);
        match &self.view {
            Some(view) if is_to_come && *view.owner_at(at) != self.me => {
                Elsewhere::NotYet { ask: Some(&view.owner_at(at).name) }
            }
            _ => Elsewhere::Unknown { epoch: self.epoch() },
        }
    }

    /// Who had a slot by the view before, if that was another.
    fn had(&self, at: usize) -> Option<&MemberName> {
        let owner = self.before.as_ref()?.owner_at(at);
        (*owner != self.me).then_some(&owner.name)
    }

    /// Notes a view that control has told everyone of. Changes nothing yet; but a token of its epoch
    /// proves that it was committed, so that a slot it gives can be taken before control says so.
    pub fn prepare(&mut self, view: View) {
        if self.epoch() < view.epoch {
            self.prepared = Some(view);
        }
    }

    /// Takes over a committed view: gives away what it takes, waits for what it gives. An older one
    /// than the newest, or the same again, changes nothing.
    ///
    /// `settled` must be what control knew when it made this view, or newer. The view must be kept,
    /// so that a process that goes on under this incarnation begins with it: what is given away here
    /// would come back to life with an older one.
    ///
    /// # Panics
    ///
    /// When the view has another number of slots than this backend.
    pub fn commit(&mut self, view: View, settled: Epoch) {
        self.settle(settled);
        if view.epoch <= self.epoch() {
            return;
        }
        assert_eq!(view.owners.len(), self.cells.len(), "every view has the same slots");
        let is_first = view.epoch == Epoch::FIRST;
        if self.view.is_none() {
            self.first = view.epoch;
        }
        let me = view.number_of(&self.me);
        for at in 0..self.cells.len() {
            let mine = me == Some(view.owners[at]);
            if self.cells[at].state == State::Doubted {
                self.cells[at].dirty = true;
                self.some_dirty = true;
            }
            let state = match (self.cells[at].state, mine) {
                // Nobody had a slot before the first epoch, so nobody has to give it up.
                (State::None, true) if is_first => State::Owned,
                // A right in doubt may be another's by now, so nothing is made of it.
                (State::None | State::Waiting | State::Doubted, true) => State::Waiting,
                (State::None | State::Waiting | State::Doubted, false) => State::None,
                (State::Owned, true) => State::Owned,
                (State::Frozen, true) => State::Frozen,
                (State::Sweeping, true) => State::Sweeping,
                (State::Owned | State::Frozen | State::Sweeping, false) => {
                    let to = view.owner_at(at).clone();
                    self.give(at, to, view.epoch)
                }
                // Also when it is ours again: the right is elsewhere until someone brings it.
                (State::Moved(gift), _) => State::Moved(gift),
            };
            self.cells[at].state = state;
        }
        self.before = self.view.replace(view);
        let epoch = self.epoch();
        self.prepared.take_if(|prepared| prepared.epoch <= epoch);
        if is_made(Mistake::TrustsTheMap) {
            self.settled = epoch;
        }
        self.apply_settled();
    }

    /// Gives the right to a slot away. What is stored of it must be swept.
    fn give(&mut self, at: usize, to: Run, epoch: Epoch) -> State {
        if matches!(self.cells[at].state, State::Owned | State::Frozen) {
            self.cells[at].dirty = true;
            self.some_dirty = true;
        }
        let gift = Gift { to, epoch };
        // Slots are given in runs, mostly to few members.
        let number = self.gifts.iter().rposition(|known| *known == gift).unwrap_or_else(|| {
            self.gifts.push(gift);
            self.gifts.len() - 1
        });
        // Members times epochs that were not settled: should there ever be more than fit, the slot
        // is nobody's until the next is.
        u16::try_from(number).map_or(State::None, State::Moved)
    }

    /// Takes the right that a request has brought along, unless it is not for us, void, or old.
    pub fn accept(&mut self, slot: Slot, token: Token) {
        let Some(view) = &self.view else { return };
        let is_void = token.epoch <= self.settled || token.epoch < self.first;
        let is_another_runs = token.to != self.me.tag() && !is_made(Mistake::TakesAnyToken);
        if is_another_runs || is_void {
            return;
        }
        let at = slot.index();
        let is_news = match self.cells[at].state {
            State::None | State::Waiting => true,
            State::Moved(gift) => self.gifts[usize::from(gift)].epoch < token.epoch,
            State::Sweeping | State::Owned | State::Frozen | State::Doubted => false,
        };
        if !is_news {
            return;
        }
        let view = if token.epoch <= view.epoch {
            view
        } else {
            // Only the next view: one between would take the slot away again.
            let next = self
                .prepared
                .as_ref()
                .filter(|next| next.epoch == token.epoch && view.epoch.next() == token.epoch);
            let Some(next) = next else { return };
            next
        };
        let to = view.owner_at(at).clone();
        let epoch = view.epoch;
        self.cells[at].state = if to == self.me {
            self.taken(at)
        } else {
            // It was for us once; the map has gone on meanwhile.
            self.give(at, to, epoch)
        };
    }

    /// The state of a slot of which we have the right.
    fn taken(&self, at: usize) -> State {
        if self.cells[at].dirty { State::Sweeping } else { State::Owned }
    }

    /// Notes that control has settled an epoch: every member of it has applied it, and whoever is
    /// not in it is dead or cut off.
    pub fn settle(&mut self, epoch: Epoch) {
        if self.settled < epoch {
            self.settled = epoch;
            self.apply_settled();
        }
    }

    /// Does to every slot what the settled epoch means for it; twice is as good as once.
    fn apply_settled(&mut self) {
        let epoch = self.settled;
        let Some(view) = &self.view else { return };
        let me = view.number_of(&self.me);
        for at in 0..self.cells.len() {
            let mine = me == Some(view.owners[at]);
            let cell = self.cells[at];
            let state = if view.epoch < epoch {
                // It was settled without us: we are the ones who are cut off.
                State::None
            } else if view.epoch == epoch && mine {
                match cell.state {
                    State::Owned => State::Owned,
                    State::Frozen => State::Frozen,
                    State::Doubted => State::Doubted,
                    State::None | State::Waiting | State::Sweeping | State::Moved(_) => {
                        self.taken(at)
                    }
                }
            } else {
                match cell.state {
                    State::Moved(gift) if epoch < self.gifts[usize::from(gift)].epoch => cell.state,
                    State::Moved(_) if mine => State::Waiting,
                    State::Moved(_) => State::None,
                    State::None
                    | State::Waiting
                    | State::Sweeping
                    | State::Owned
                    | State::Frozen
                    | State::Doubted => cell.state,
                }
            };
            let has_items = |state| matches!(state, State::Owned | State::Frozen | State::Doubted);
            let (had_items, keeps_them) = (has_items(cell.state), has_items(state));
            let dirty = cell.dirty || (had_items && !keeps_them);
            self.cells[at] = Cell { state, dirty };
            self.some_dirty |= dirty;
        }
        self.forget_gifts();
    }

    /// Drops gifts of which no slot speaks any more.
    fn forget_gifts(&mut self) {
        let speaks = |cell: &Cell| matches!(cell.state, State::Moved(_));
        if !self.cells.iter().any(speaks) {
            self.gifts = Vec::new();
        }
    }

    /// Stops executing on these slots, if they are ours, until [`Ownership::thaw`] or until they are
    /// given away.
    pub fn freeze(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            let state = &mut self.cells[slot.index()].state;
            if *state == State::Owned {
                *state = State::Frozen;
            }
        }
    }

    /// Goes on as if there had been no [`Ownership::freeze`].
    pub fn thaw(&mut self, slots: impl IntoIterator<Item = Slot>) {
        for slot in slots {
            let state = &mut self.cells[slot.index()].state;
            if *state == State::Frozen {
                *state = State::Owned;
            }
        }
    }

    /// Stops executing anything, because another node knows of a newer epoch in which this one may have
    /// no part. Until the next view is committed, or [`Ownership::trust`] says that there is none.
    pub fn doubt(&mut self) {
        for cell in &mut self.cells {
            if matches!(cell.state, State::Owned | State::Frozen | State::Sweeping) {
                cell.state = State::Doubted;
            }
        }
    }

    /// The committed view is in force after all: goes on as before [`Ownership::doubt`]. Nobody else can
    /// have served these slots, so what is stored in them is good.
    pub fn trust(&mut self) {
        for at in 0..self.cells.len() {
            if self.cells[at].state == State::Doubted {
                self.cells[at].state = self.taken(at);
            }
        }
    }

    /// The slots of which items may be left that must not be seen any more; `None` when there are
    /// none. Whoever has removed them all says so with [`Ownership::swept`].
    pub fn to_sweep(&self) -> Option<Dirty> {
        self.some_dirty.then(|| Dirty(self.cells.iter().map(|cell| cell.dirty).collect()))
    }

    /// Notes that no item of these slots is left. Nothing can have been stored in them since they
    /// were listed, because a dirty slot is not served.
    pub fn swept(&mut self, dirty: &Dirty) {
        for (cell, _) in self.cells.iter_mut().zip(&dirty.0).filter(|(_, dirty)| **dirty) {
            cell.dirty = false;
            if cell.state == State::Sweeping {
                cell.state = State::Owned;
            }
        }
        self.some_dirty = self.cells.iter().any(|cell| cell.dirty);
    }

    /// How many slots are served here.
    pub fn owned(&self) -> usize {
        self.cells.iter().filter(|cell| cell.state == State::Owned).count()
    }
}

/// Slots with items that must go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirty(Box<[bool]>);

impl Dirty {
    pub fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot::new(0).expect("there is a first slot");

    #[test]
    fn a_token_is_void_at_another_member_of_the_same_node() {
        let [giver, receiver, neighbour] = ["m.b0", "n.b0", "n.b1"].map(|name| Run {
            name: MemberName::parse(name).expect("a good name"),
            incarnation: Incarnation::new(7),
        });
        let members = [giver, receiver, neighbour];
        let view = |epoch, owner| View {
            epoch: Epoch::new(epoch),
            members: members.clone().into(),
            owners: [owner].into(),
        };
        let [giver, mut receiver, mut neighbour] = members.clone().map(|member| {
            let mut ownership = Ownership::new(member, 1);
            ownership.commit(view(1, 0), BEFORE_ALL);
            ownership.commit(view(2, 1), BEFORE_ALL);
            ownership
        });
        let Err(Elsewhere::Moved { token, .. }) = giver.check(SLOT) else {
            panic!("the map has taken it")
        };
        // It would make a second right of it by passing it on.
        let before = neighbour.clone();
        neighbour.accept(SLOT, token);
        assert_eq!(neighbour, before);
        receiver.accept(SLOT, token);
        assert_eq!(receiver.check(SLOT), Ok(()));
    }

    #[test]
    fn what_is_in_doubt_is_served_again_only_if_nobody_else_can_have_served_it() {
        let [me, other] = ["n.b0", "m.b0"].map(|name| Run {
            name: MemberName::parse(name).expect("a good name"),
            incarnation: Incarnation::new(7),
        });
        let view = |epoch, owner| View {
            epoch: Epoch::new(epoch),
            members: [me.clone(), other.clone()].into(),
            owners: [owner].into(),
        };
        let unknown = Err(Elsewhere::Unknown { epoch: Epoch::new(5) });
        let mut ownership = Ownership::new(me.clone(), 1);
        ownership.commit(view(5, 0), Epoch::new(5));
        assert_eq!(ownership.check(SLOT), Ok(()));
        ownership.doubt();
        assert_eq!(ownership.check(SLOT), unknown);
        // It is not in doubt whether this epoch was settled, but whether a newer one was.
        ownership.settle(Epoch::new(5));
        ownership.accept(SLOT, Token { epoch: Epoch::new(5), to: me.tag() });
        assert_eq!(ownership.check(SLOT), unknown);

        let mut trusted = ownership.clone();
        trusted.trust();
        assert_eq!(trusted.check(SLOT), Ok(()));
        assert_eq!(trusted.to_sweep(), None);

        // Given away and back by epochs that this node has not heard of, or given to another: there is
        // no token, and what is stored must go.
        let mut mine = ownership.clone();
        mine.commit(view(7, 0), Epoch::new(6));
        assert_eq!(mine.check(SLOT), Err(Elsewhere::NotYet { ask: None }));
        assert!(mine.to_sweep().is_some_and(|dirty| dirty.contains(SLOT)));
        ownership.commit(view(7, 1), Epoch::new(6));
        assert_eq!(ownership.check(SLOT), Err(Elsewhere::Unknown { epoch: Epoch::new(7) }));
    }

    #[test]
    fn the_tag_of_a_run_never_changes() {
        let name = MemberName::parse("node-1.b0").expect("a good name");
        let tag = Run { name, incarnation: Incarnation::new(7) }.tag();
        assert_eq!(format!("{:016x}", tag.get()), "eba623d8a02811a3");
    }
}
