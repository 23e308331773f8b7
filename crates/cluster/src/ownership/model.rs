//! Every interleaving of a small cluster: two proxies, backends, one slot with one key, and maps that
//! change under them. The backends are the real [`Ownership`].
//!
//! One proxy writes 1, 2, 3, the other reads. Each sends its request to any backend it likes, so it
//! may hold any map, right or wrong; it follows what it is answered. A message may be delayed for as
//! long as there is anything else to do. The law: a reader never sees a value older than one that
//! was acknowledged before it asked, or that it has seen already. A miss is always allowed: in this
//! form of hand-off a slot arrives empty.
//!
//! A model that finds nothing may be blind, so each [`Mistake`] is built in on purpose, and must be
//! found.

use std::collections::{HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::{Elsewhere, Ownership, Run, Token, View};
use crate::map::Epoch;
use crate::member::{Incarnation, MemberName};
use crate::slot::Slot;

const SLOT: Slot = Slot::new(0).expect("there are more slots than one");
const HOPS_MAX: u8 = 2;
/// More than any story has; so that a mistake in one ends in words and not in all memory.
const STATES_MAX: usize = 20_000_000;

/// What happens to the cluster: epoch by epoch, the members by number, and the owner.
struct Story {
    epochs: &'static [(&'static [Member], Member)],
    /// Backends whose process may die and come back as the next incarnation.
    crashes: bool,
    mistake: Mistake,
    writes: u8,
    reads: u8,
    /// Control begins no epoch before the one before it is settled.
    one_at_a_time: bool,
    /// How often a process may end and go on as the same run, with the view that it has kept.
    restarts: u8,
    /// Leads to what is too far to be reached by trying everything.
    script: Option<Script>,
}

/// What is fixed of a story; all the rest happens in every order.
struct Script {
    /// Which epochs each backend hears of, one after the other.
    backends: &'static [(Member, &'static [u64])],
    /// Proxies hear of no epoch before this one.
    proxies_from: u64,
    /// Clients ask nothing before this epoch is committed.
    clients_from: u64,
}

/// A backend by number and run.
type Member = (u8, u64);

/// What could be done wrong, and must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Control settles an epoch before every member has applied it.
    SettlesEarly,
    /// Control settles an epoch before the proxies have abandoned whoever is not in it.
    SettlesBeforeProxies,
    /// A slot that comes back is served with what was left of it.
    SweepsNothing,
    /// A token serves any run of the member.
    TokenForAnyRun,
    /// Proxies are followed instead of backends asked: a backend serves what its map says.
    ServesByMap,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Backend {
    member: Member,
    ownership: Ownership,
    value: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Proxy {
    /// Newest committed epoch it has heard of; requests to runs that are not in it are abandoned.
    heard: u64,
    request: Option<Request>,
}

/// On its way to a backend, or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Request {
    to: Member,
    token: Option<Token>,
    hops: u8,
    /// What a reader may not fall behind of, as of when it began; 0 for the writer.
    floor: u8,
    /// Executed; the answer is on its way back.
    answer: Option<Option<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    /// Number of epochs committed.
    committed: u64,
    settled: u64,
    restarts: u8,
    /// Runs that are alive; a dead one stays in `backends` no more.
    backends: Vec<Backend>,
    proxies: [Proxy; 2],
    written: u8,
    acknowledged: u8,
    read: u8,
    seen: u8,
}

const WRITER: usize = 0;
const READER: usize = 1;

#[derive(Debug, Default)]
struct Found {
    states: usize,
    stale: Option<String>,
    /// States in which all is settled and the slot's owner serves it.
    served: usize,
    values_read: bool,
    values_read_after_move: bool,
}

impl Story {
    fn view(&self, epoch: u64) -> View {
        let (members, owner) = self.epochs[epoch as usize - 1];
        let at = members.iter().position(|member| *member == owner).expect("the owner is a member");
        View {
            epoch: Epoch::new(epoch),
            members: members.iter().map(|&member| run(member)).collect(),
            owners: Arc::new([u16::try_from(at).expect("few members")]),
        }
    }

    fn members(&self, epoch: u64) -> &'static [Member] {
        self.epochs[epoch as usize - 1].0
    }

    fn check(&self) -> Found {
        let mut found = Found::default();
        let mut known = HashSet::new();
        let mut open = VecDeque::new();
        let start = self.start();
        known.insert(fingerprint(&start));
        open.push_back(start);
        while let Some(world) = open.pop_front() {
            found.states += 1;
            assert!(found.states < STATES_MAX, "the story is too long to be told to its end");
            self.invariants(&world, &mut found);
            for next in self.nexts(&world, &mut found) {
                if found.stale.is_some() {
                    return found;
                }
                if known.insert(fingerprint(&next)) {
                    open.push_back(next);
                }
            }
        }
        found
    }

    fn start(&self) -> World {
        let first: Vec<Member> = self.epochs[0].0.to_vec();
        let backends = first
            .into_iter()
            .map(|member| {
                let mut ownership = Ownership::new(run(member), 1);
                ownership.commit(self.view(1), Epoch::new(0));
                Backend { member, ownership, value: None }
            })
            .collect();
        let proxy = Proxy { heard: 1, request: None };
        World {
            committed: 1,
            settled: 1,
            restarts: 0,
            backends,
            proxies: [proxy.clone(), proxy],
            written: 0,
            acknowledged: 0,
            read: 0,
            seen: 0,
        }
    }

    /// No two backends that any proxy can still reach serve the slot at once.
    fn invariants(&self, world: &World, found: &mut Found) {
        let reachable = |backend: &&Backend| {
            world.proxies.iter().any(|proxy| self.members(proxy.heard).contains(&backend.member))
        };
        let owners = world
            .backends
            .iter()
            .filter(reachable)
            .filter(|backend| backend.ownership.check(SLOT).is_ok())
            .count();
        if self.mistake == Mistake::None {
            assert!(owners <= 1, "two own the slot: {world:#?}");
        }
        if world.settled == self.epochs.len() as u64 && owners == 1 {
            found.served += 1;
        }
    }

    fn nexts(&self, world: &World, found: &mut Found) -> Vec<World> {
        let mut nexts = Vec::new();
        self.control_acts(world, &mut nexts);
        self.backends_hear(world, &mut nexts);
        self.backends_restart(world, &mut nexts);
        self.proxies_hear(world, &mut nexts);
        for proxy in [WRITER, READER] {
            match &world.proxies[proxy].request {
                None => self.begin(world, proxy, &mut nexts),
                Some(request) if request.answer.is_some() => {
                    self.answered(world, proxy, request, &mut nexts, found);
                }
                Some(request) => self.arrive(world, proxy, request, &mut nexts),
            }
        }
        nexts
    }

    fn control_acts(&self, world: &World, nexts: &mut Vec<World>) {
        let newest = world.committed;
        let may_go_on = !self.one_at_a_time || world.settled == newest;
        if may_go_on && (newest as usize) < self.epochs.len() {
            let mut next = world.clone();
            next.committed += 1;
            let epoch = next.committed;
            // A run that begins with this epoch, and the death of the run before it. Without
            // `crashes` the old run lives on, paused or out of control's sight.
            for &member in self.members(epoch) {
                if world.backends.iter().all(|backend| backend.member != member) {
                    if self.crashes {
                        next.backends.retain(|backend| backend.member.0 != member.0);
                    }
                    let ownership = Ownership::new(run(member), 1);
                    next.backends.push(Backend { member, ownership, value: None });
                }
            }
            for backend in &mut next.backends {
                if self.members(epoch).contains(&backend.member) {
                    backend.ownership.prepare(self.view(epoch));
                }
            }
            nexts.push(next);
        }
        if world.settled < newest {
            let applied = world.backends.iter().all(|backend| {
                !self.members(newest).contains(&backend.member)
                    || backend.ownership.epoch().get() == newest
            });
            // Also cut off from whoever is not in it.
            let heard = world.proxies.iter().all(|proxy| proxy.heard == newest);
            if (applied || self.mistake == Mistake::SettlesEarly)
                && (heard || self.mistake == Mistake::SettlesBeforeProxies)
            {
                let mut next = world.clone();
                next.settled = newest;
                nexts.push(next);
            }
        }
    }

    /// Whether the story has this backend hear of this epoch after that one.
    fn may_hear(&self, backend: Member, after: u64, heard: u64) -> bool {
        let Some(script) = &self.script else { return true };
        let known = script.backends.iter().find(|(member, _)| *member == backend);
        let mut epochs = known.map_or(&[][..], |(_, epochs)| epochs).iter();
        epochs.find(|epoch| after < **epoch) == Some(&heard)
    }

    fn backends_hear(&self, world: &World, nexts: &mut Vec<World>) {
        for at in 0..world.backends.len() {
            let epoch = world.backends[at].ownership.epoch().get();
            // Views may be missed; whichever comes, what was settled when it was made comes along.
            for heard in epoch + 1..=world.committed {
                if !self.may_hear(world.backends[at].member, epoch, heard) {
                    continue;
                }
                let mut next = world.clone();
                let settled = if heard == world.committed { world.settled } else { heard - 1 };
                let settled = settled.min(world.settled).min(heard - 1);
                next.backends[at].ownership.commit(self.view(heard), Epoch::new(settled));
                self.by_map(&mut next, at);
                nexts.push(next);
            }
            if world.backends[at].ownership.settled().get() < world.settled {
                let mut next = world.clone();
                next.backends[at].ownership.settle(Epoch::new(world.settled));
                nexts.push(next);
            }
            if let Some(dirty) = world.backends[at].ownership.to_sweep() {
                let mut next = world.clone();
                next.backends[at].ownership.swept(&dirty);
                if self.mistake != Mistake::SweepsNothing {
                    next.backends[at].value = None;
                }
                nexts.push(next);
            }
        }
    }

    /// A process ends, with its items, and another goes on where it was.
    fn backends_restart(&self, world: &World, nexts: &mut Vec<World>) {
        if world.restarts == self.restarts {
            return;
        }
        for at in 0..world.backends.len() {
            let mut next = world.clone();
            next.restarts += 1;
            let backend = &mut next.backends[at];
            let kept = (backend.ownership.epoch().get(), backend.ownership.settled());
            backend.ownership = Ownership::new(run(backend.member), 1);
            backend.value = None;
            if kept.0 > 0 {
                backend.ownership.commit(self.view(kept.0), kept.1);
            }
            nexts.push(next);
        }
    }

    fn by_map(&self, world: &mut World, at: usize) {
        if self.mistake == Mistake::ServesByMap {
            let ownership = &mut world.backends[at].ownership;
            let epoch = ownership.epoch();
            ownership.settle(epoch);
        }
    }

    fn proxies_hear(&self, world: &World, nexts: &mut Vec<World>) {
        if self.script.as_ref().is_some_and(|script| world.committed < script.proxies_from) {
            return;
        }
        for at in [WRITER, READER] {
            if world.proxies[at].heard < world.committed {
                let mut next = world.clone();
                let proxy = &mut next.proxies[at];
                proxy.heard = world.committed;
                // Links to runs that are no members are closed, and what was on them is given up:
                // the client is told that it may have run.
                let lost = |request: &Request| !self.members(world.committed).contains(&request.to);
                if proxy.request.as_ref().is_some_and(lost) {
                    proxy.request = None;
                }
                nexts.push(next);
            }
        }
    }

    fn begin(&self, world: &World, proxy: usize, nexts: &mut Vec<World>) {
        if self.script.as_ref().is_some_and(|script| world.committed < script.clients_from) {
            return;
        }
        if proxy == WRITER && world.written == self.writes
            || proxy == READER && world.read == self.reads
        {
            return;
        }
        for &to in self.members(world.proxies[proxy].heard) {
            let mut next = world.clone();
            let floor = if proxy == READER { world.acknowledged.max(world.seen) } else { 0 };
            if proxy == WRITER {
                next.written += 1;
            } else {
                next.read += 1;
            }
            let request = Request { to, token: None, hops: HOPS_MAX, floor, answer: None };
            next.proxies[proxy].request = Some(request);
            nexts.push(next);
        }
    }

    /// A request reaches its backend, or finds it dead.
    fn arrive(&self, world: &World, proxy: usize, request: &Request, nexts: &mut Vec<World>) {
        let mut next = world.clone();
        let Some(backend) = next.backends.iter_mut().find(|backend| backend.member == request.to)
        else {
            next.proxies[proxy].request = None;
            nexts.push(next);
            return;
        };
        if let Some(token) = request.token {
            let to = if self.mistake == Mistake::TokenForAnyRun {
                backend.ownership.me.tag()
            } else {
                token.to
            };
            backend.ownership.accept(SLOT, Token { to, ..token });
        }
        match backend.ownership.check(SLOT) {
            Ok(()) => {
                if proxy == WRITER {
                    backend.value = Some(world.written);
                }
                let answer = Some(backend.value);
                next.proxies[proxy].request = Some(Request { answer, ..*request });
                nexts.push(next);
            }
            Err(elsewhere) => {
                let token = match elsewhere {
                    Elsewhere::Moved { token, .. } => Some(token),
                    Elsewhere::NotYet { .. } | Elsewhere::Frozen | Elsewhere::Unknown { .. } => {
                        None
                    }
                };
                let named = match elsewhere {
                    Elsewhere::Moved { to, .. } | Elsewhere::NotYet { ask: Some(to) } => {
                        Some(to.clone())
                    }
                    Elsewhere::NotYet { ask: None }
                    | Elsewhere::Frozen
                    | Elsewhere::Unknown { .. } => None,
                };
                next.proxies[proxy].request = None;
                if request.hops > 0 {
                    // Whoever is named; else anyone.
                    for &to in self.members(world.proxies[proxy].heard) {
                        if named.as_ref().is_none_or(|name| *name == run(to).name) {
                            let hops = request.hops - 1;
                            let sent = Request { to, token, hops, ..*request };
                            let mut sent_on = next.clone();
                            sent_on.proxies[proxy].request = Some(sent);
                            nexts.push(sent_on);
                        }
                    }
                }
                // Or it gives up: an error to the client.
                if request.hops == 0 {
                    nexts.push(next);
                }
            }
        }
    }

    fn answered(
        &self,
        world: &World,
        proxy: usize,
        request: &Request,
        nexts: &mut Vec<World>,
        found: &mut Found,
    ) {
        let mut next = world.clone();
        next.proxies[proxy].request = None;
        if proxy == WRITER {
            next.acknowledged = next.acknowledged.max(world.written);
        } else if let Some(Some(value)) = request.answer {
            found.values_read = true;
            found.values_read_after_move |= request.hops < HOPS_MAX;
            if value < request.floor {
                found.stale = Some(format!("{value} after {}: {world:#?}", request.floor));
            }
            next.seen = next.seen.max(value);
        }
        nexts.push(next);
    }
}

/// Worlds are known by 64 bits of them: that any two of a million are taken for one has a chance of
/// one in 30 million.
fn fingerprint(world: &World) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&[1; 16]);
    world.hash(&mut hasher);
    hasher.finish()
}

fn run((number, incarnation): Member) -> Run {
    let name = MemberName::parse(["a", "b", "c"][usize::from(number)]).expect("a good name");
    Run { name, incarnation: Incarnation::new(incarnation) }
}

const A: Member = (0, 1);
const B: Member = (1, 1);
const B2: Member = (1, 2);
const A2: Member = (0, 2);

/// The slot goes to another and comes back.
const THERE_AND_BACK: &[(&[Member], Member)] = &[(&[A, B], A), (&[A, B], B), (&[A, B], A)];
/// The owner dies and another run takes its name; then the slot moves.
const RESTART: &[(&[Member], Member)] = &[(&[A, B], A), (&[A2, B], A2), (&[A2, B], B)];
/// The owner is given up on: gone from the map.
const GIVEN_UP: &[(&[Member], Member)] = &[(&[A, B], A), (&[B], B)];
/// The slot moves to one who dies with it and comes back, and moves on.
const TARGET_DIES: &[(&[Member], Member)] =
    &[(&[A, B], A), (&[A, B], B), (&[A, B2], A), (&[A, B2], B2)];

/// The slot moves to one who passes it on, and then comes back as another run and gets it again.
const TARGET_PASSES_ON: &[(&[Member], Member)] =
    &[(&[A, B], A), (&[A, B], B), (&[A, B], A), (&[A, B2], B2)];

impl Story {
    fn short(epochs: &'static [(&'static [Member], Member)], crashes: bool) -> Self {
        Story {
            epochs,
            crashes,
            mistake: Mistake::None,
            writes: 2,
            reads: 1,
            one_at_a_time: true,
            restarts: 0,
            script: None,
        }
    }

    #[track_caller]
    fn holds(&self) {
        let found = self.check();
        assert_eq!(found.stale, None);
        assert!(found.served > 0, "no end was reached, so little was seen");
        assert!(found.values_read && found.values_read_after_move, "nothing was read");
    }

    #[track_caller]
    fn finds(mut self, mistake: Mistake) {
        self.mistake = mistake;
        let found = self.check();
        assert!(found.stale.is_some(), "{mistake:?} was not found in {} states", found.states);
    }
}

#[test]
fn a_slot_that_moves_and_returns_is_never_stale() {
    Story::short(THERE_AND_BACK, false).holds();
}

#[test]
fn a_restarted_owner_is_never_stale() {
    Story::short(RESTART, true).holds();
}

#[test]
fn a_process_that_goes_on_as_the_same_run_is_never_stale() {
    Story { restarts: 1, ..Story::short(&THERE_AND_BACK[..2], false) }.holds();
}

#[test]
fn an_owner_that_was_only_paused_is_never_stale() {
    Story::short(GIVEN_UP, false).holds();
}

#[test]
fn a_control_that_settles_too_early_is_found() {
    Story::short(THERE_AND_BACK, false).finds(Mistake::SettlesEarly);
    Story::short(GIVEN_UP, false).finds(Mistake::SettlesBeforeProxies);
}

#[test]
fn items_that_outlive_their_slots_departure_are_found() {
    Story::short(THERE_AND_BACK, false).finds(Mistake::SweepsNothing);
}

#[test]
fn a_backend_that_serves_what_its_map_says_is_found() {
    Story::short(THERE_AND_BACK, false).finds(Mistake::ServesByMap);
}

/// Longer stories, more requests, and epochs that overlap.
#[test]
#[ignore = "takes minutes: cargo test -p cluster --release --lib ownership -- --ignored"]
fn longer_stories_are_never_stale() {
    let overlapping = |epochs, crashes| {
        Story { one_at_a_time: false, ..Story::short(epochs, crashes) }.holds();
    };
    Story::short(RESTART, false).holds();
    Story::short(TARGET_DIES, true).holds();
    Story { reads: 2, ..Story::short(THERE_AND_BACK, false) }.holds();
    overlapping(THERE_AND_BACK, false);
    overlapping(TARGET_DIES, true);
}

/// The giver's token is on its way to a run that passed the slot on and died; the run after it, which
/// began by an older view than the one by which the slot was passed on, must not take it.
///
/// Control tells a new run of no view that is older than itself, so two things stand in the way of such
/// a token: whom it names, and that it is older than the first view. Here only the former does.
/// Tried in full this story has far more states than there is time for, so it is led; two reads are the
/// least that show it: one brings the token, the other sees what came of it.
#[test]
fn a_token_of_a_former_life_is_found() {
    let story = Story {
        one_at_a_time: false,
        reads: 2,
        script: Some(Script {
            backends: &[(A, &[2, 3]), (B, &[3]), (B2, &[2, 4])],
            proxies_from: 4,
            clients_from: 3,
        }),
        ..Story::short(TARGET_PASSES_ON, true)
    };
    let found = story.check();
    assert_eq!(found.stale, None);
    assert!(found.values_read_after_move, "the slot was never passed on");
    story.finds(Mistake::TokenForAnyRun);
}
