//! Every interleaving of three nodes and control that takes in and gives up any of them, epoch after
//! epoch: of one node it is followed whether it serves, and by the real [`verdict`] it does.
//!
//! [`super::model`] has one epoch without the node, and every node of the one before as it was. Here the
//! epochs that are not settled follow one another, nodes that were given up come back with old ones, and
//! nodes join. The law is the same: when an epoch without the node is settled, a node that has an older one
//! does not serve.
//!
//! Control is freer than the real one: it may go on from an epoch that somebody has not acknowledged, as
//! often as it likes, and gives up at any moment whom it found not listening. What is supposed is the same
//! (it looks between a start and the first link that is lost), and that nobody is removed by a person. Nodes
//! are told apart by name: another run of one is the same.

use std::array;

use super::explore::explore;
use super::{Says, Verdict, verdict};

/// The node that is followed is the first.
const NODES: usize = 3;
const OTHERS: usize = NODES - 1;
/// With the one that all begin with.
const EPOCHS_MAX: usize = 4;

/// What could be done wrong, and must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// Half of the nodes of the epoch in force must hear that one of them is given up, and no others.
    LooksAtNewestOnly,
    /// Nor half of those of the last epoch that was settled.
    ForgetsTheSettled,
}

/// Who there is at first, and how often processes may end.
#[derive(Debug, Clone, Copy)]
struct Story {
    members: Nodes,
    /// Control knows no others.
    nodes: Nodes,
    /// Of the node that is followed.
    ends_max: u8,
    /// Of all others together.
    crashes_max: u8,
}

/// A set of nodes by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Nodes(u8);

impl Nodes {
    const NONE: Nodes = Nodes(0);

    fn has(self, node: usize) -> bool {
        self.0 & 1 << node != 0
    }

    fn with(self, node: usize) -> Nodes {
        Nodes(self.0 | 1 << node)
    }

    fn without(self, node: usize) -> Nodes {
        Nodes(self.0 & !(1 << node))
    }

    fn filter(self, is_in: impl Fn(usize) -> bool) -> Nodes {
        (0..NODES).filter(|&node| self.has(node) && is_in(node)).fold(Nodes::NONE, Nodes::with)
    }

    fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// With the two others in each other's place.
    fn swapped(self) -> Nodes {
        let swapped = |node| if node == 0 { 0 } else { NODES - node };
        (0..NODES).filter(|&node| self.has(node)).map(swapped).fold(Nodes::NONE, Nodes::with)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    Down,
    /// It runs, and control does not hear it.
    Cut,
    Connected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Node {
    place: Place,
    /// Epochs on its disk.
    committed: u8,
    /// Acknowledged as well.
    prepared: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Topology {
    nodes: Nodes,
    was_in_force: bool,
}

impl Topology {
    const NONE: Topology = Topology { nodes: Nodes::NONE, was_in_force: false };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Word {
    With,
    Without,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct World {
    nodes: [Node; NODES],
    /// By epoch. Those that nobody knows of any more are none.
    topologies: [Topology; EPOCHS_MAX],
    /// How many were begun.
    epochs: u8,
    in_force: u8,
    settled: u8,
    prepared: Option<u8>,
    /// Control has found that the first node does not listen.
    is_taken_for_dead: bool,
    /// Control has looked since the first node was started last.
    is_looked_at: bool,
    /// The first node serves by what it has …
    serves: bool,
    /// … or control has not told it yet what is in force.
    is_asking: bool,
    /// Links of the first node to the others, and what was said when they were made.
    links: [Option<Word>; OTHERS],
    ends: u8,
    crashes: u8,
}

impl World {
    fn new(story: Story) -> Self {
        let Story { members, nodes, .. } = story;
        let node = |node| {
            let place = if nodes.has(node) { Place::Connected } else { Place::Down };
            Node { place, committed: 0, prepared: None }
        };
        let mut topologies = [Topology::NONE; EPOCHS_MAX];
        topologies[0] = Topology { nodes: members, was_in_force: true };
        World {
            nodes: array::from_fn(node),
            topologies,
            epochs: 1,
            in_force: 0,
            settled: 0,
            prepared: None,
            is_taken_for_dead: false,
            is_looked_at: true,
            serves: members.has(0),
            is_asking: false,
            links: [None; OTHERS],
            ends: 0,
            crashes: 0,
        }
    }

    fn members(&self, epoch: u8) -> Nodes {
        self.topologies[usize::from(epoch)].nodes
    }

    fn is_up(&self, node: usize) -> bool {
        self.nodes[node].place != Place::Down
    }

    fn connected(&self) -> Nodes {
        let is_connected = |&node: &usize| self.nodes[node].place == Place::Connected;
        (0..NODES).filter(is_connected).fold(Nodes::NONE, Nodes::with)
    }

    /// Whom the epoch that is being prepared gives up.
    fn given_up(&self) -> Option<usize> {
        let prepared = self.members(self.prepared?);
        (0..NODES).find(|&node| self.members(self.in_force).has(node) && !prepared.has(node))
    }

    /// Who should be members, if this one is given up.
    fn wanted(&self, given_up: Option<usize>) -> Nodes {
        let all = Nodes(self.members(self.in_force).0 | self.connected().0);
        given_up.map_or(all, |node| all.without(node))
    }

    /// Whether it is down, and half of the nodes hear of an epoch without it, of every topology that it may
    /// have. Of the others it does not matter whether they are started before control looks again.
    fn may_give_up(&self, node: usize, mistake: Mistake) -> bool {
        let connected = self.connected();
        let first = match mistake {
            Mistake::None => self.settled,
            Mistake::LooksAtNewestOnly => self.in_force,
            Mistake::ForgetsTheSettled => self.in_force.min(self.settled + 1),
        };
        let mut chain = (first..=self.in_force).map(|epoch| self.topologies[usize::from(epoch)]);
        let is_dead = if node == 0 { self.is_taken_for_dead } else { !self.is_up(node) };
        is_dead
            && chain.all(|Topology { nodes, was_in_force }| {
                let hear = nodes.filter(|node| connected.has(node)).count();
                nodes.count() <= 2 * hear || !nodes.has(node) || !was_in_force
            })
    }

    /// All that may happen next.
    fn next(&self, story: Story, mistake: Mistake) -> Vec<World> {
        let mut all = Vec::new();
        let mut then = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            world.forget();
            let swapped = world.swapped();
            all.push(world.min(swapped));
        };
        self.control_goes_on(mistake, &mut then);
        for node in (0..NODES).filter(|&node| story.nodes.has(node)) {
            self.process_goes_on(node, story, &mut then);
            if self.nodes[node].place == Place::Connected {
                self.control_is_heard(node, &mut then);
            }
        }
        self.others_are_asked(&mut then);
        all
    }

    fn control_goes_on(&self, mistake: Mistake, then: &mut impl FnMut(&dyn Fn(&mut World))) {
        then(&|world| {
            world.is_looked_at = world.is_up(0);
            world.is_taken_for_dead = !world.is_up(0);
        });
        let Some(prepared) = self.prepared else {
            let members = self.members(self.in_force);
            let given_up = (0..NODES).filter(|&node| members.has(node));
            let given_up = given_up.filter(|&node| self.may_give_up(node, mistake)).map(Some);
            for given_up in given_up.chain([None]) {
                let wanted = self.wanted(given_up);
                let is_news = wanted != members && wanted != Nodes::NONE;
                if is_news && usize::from(self.epochs) < EPOCHS_MAX {
                    then(&|world| world.prepare(wanted));
                }
            }
            if self.settled != self.in_force && self.is_taken_up() {
                then(&|world| world.settled = world.in_force);
            }
            return;
        };
        let given_up = self.given_up();
        let may_be = given_up.is_none_or(|node| self.may_give_up(node, mistake));
        if !may_be || self.wanted(given_up) != self.members(prepared) {
            then(&|world| world.prepared = None);
            return;
        }
        let connected = self.connected();
        let has_prepared = |node: usize| self.nodes[node].prepared == self.prepared;
        if connected != Nodes::NONE && connected.filter(has_prepared) == connected {
            then(&|world| {
                world.in_force = prepared;
                world.topologies[usize::from(prepared)].was_in_force = true;
                world.prepared = None;
            });
        }
    }

    fn prepare(&mut self, nodes: Nodes) {
        self.topologies[usize::from(self.epochs)] = Topology { nodes, was_in_force: false };
        self.prepared = Some(self.epochs);
        self.epochs += 1;
    }

    /// Whether all nodes of the epoch in force are there and have it.
    fn is_taken_up(&self) -> bool {
        let has = |node: usize| {
            let Node { place, committed, .. } = self.nodes[node];
            (place, committed) == (Place::Connected, self.in_force)
        };
        let members = self.members(self.in_force);
        members.filter(has) == members
    }

    /// It starts, ends, and its connection to control comes and goes.
    fn process_goes_on(
        &self,
        node: usize,
        story: Story,
        then: &mut impl FnMut(&dyn Fn(&mut World)),
    ) {
        if !self.is_up(node) {
            then(&|world| {
                world.nodes[node].place = Place::Cut;
                if node == 0 {
                    (world.is_asking, world.is_looked_at) = (true, false);
                }
            });
            return;
        }
        then(&|world| {
            let is_cut = world.nodes[node].place == Place::Cut;
            world.nodes[node].place = if is_cut { Place::Connected } else { Place::Cut };
            world.is_taken_for_dead &= node != 0;
        });
        if node == 0 && self.ends < story.ends_max {
            then(&|world| {
                world.nodes[node].place = Place::Down;
                world.ends += 1;
                (world.serves, world.is_asking, world.links) = (false, false, [None; OTHERS]);
            });
        }
        if node != 0 && self.crashes < story.crashes_max && self.may_lose_links() {
            then(&|world| {
                world.nodes[node].place = Place::Down;
                world.crashes += 1;
                world.links[node - 1] = None;
            });
        }
    }

    fn may_lose_links(&self) -> bool {
        !self.is_up(0) || self.is_looked_at
    }

    /// What control says next on a connection, and the answer.
    fn control_is_heard(&self, node: usize, then: &mut impl FnMut(&dyn Fn(&mut World))) {
        let it = self.nodes[node];
        if it.committed != self.in_force || node == 0 && self.is_asking {
            then(&|world| {
                let in_force = world.in_force;
                let it = &mut world.nodes[node];
                it.committed = in_force;
                it.prepared.take_if(|prepared| *prepared <= in_force);
                if node == 0 {
                    world.serves = world.members(in_force).has(0);
                    (world.is_asking, world.links) = (false, [None; OTHERS]);
                }
            });
            return;
        }
        let is_held = node != 0 && self.links[node - 1].is_some() && self.given_up() == Some(0);
        if it.prepared != self.prepared && !is_held {
            then(&|world| world.nodes[node].prepared = world.prepared);
        }
    }

    /// The first node, which has not heard control, and the others of the epoch that it has.
    fn others_are_asked(&self, then: &mut impl FnMut(&dyn Fn(&mut World))) {
        let has = self.nodes[0].committed;
        if !self.is_asking || !self.members(has).has(0) {
            return;
        }
        let others: Vec<usize> = (1..NODES).filter(|&node| self.members(has).has(node)).collect();
        for &node in &others {
            if self.links[node - 1].is_none() && self.is_up(node) {
                let it = self.nodes[node];
                let mut known = [Some(it.committed), it.prepared].into_iter().flatten();
                let knows_better = known.any(|epoch| has < epoch && !self.members(epoch).has(0));
                let word = if knows_better { Word::Without } else { Word::With };
                then(&|world| world.links[node - 1] = Some(word));
            }
            if self.links[node - 1].is_some() && self.may_lose_links() {
                then(&|world| world.links[node - 1] = None);
            }
        }
        let says = others.iter().map(|&node| match self.links[node - 1] {
            None => Says::Nothing,
            Some(Word::With) => Says::With,
            Some(Word::Without) => Says::Without,
        });
        if !self.serves && verdict(says) == Verdict::Serve {
            then(&|world| world.serves = true);
        }
    }

    /// Forgets what makes no difference any more.
    fn forget(&mut self) {
        let own = [Some(self.in_force), Some(self.settled), self.prepared];
        let of_nodes = self.nodes.iter().flat_map(|it| [Some(it.committed), it.prepared]);
        let known: Vec<u8> = own.into_iter().chain(of_nodes).flatten().collect();
        for (topology, epoch) in self.topologies.iter_mut().zip(0..) {
            let is_in_chain = topology.was_in_force && self.settled <= epoch;
            if !is_in_chain && !known.contains(&epoch) {
                *topology = Topology::NONE;
            }
        }
    }

    /// The same with the two others in each other's place.
    fn swapped(&self) -> World {
        let mut world = self.clone();
        world.nodes.swap(1, 2);
        world.links.swap(0, 1);
        for topology in &mut world.topologies {
            topology.nodes = topology.nodes.swapped();
        }
        world
    }

    fn two_may_serve_the_same(&self) -> bool {
        self.serves && self.nodes[0].committed < self.settled && !self.members(self.settled).has(0)
    }
}

/// What was reached, or the first world in which two may serve the same.
fn play(story: Story, mistake: Mistake) -> Result<Reached, World> {
    let mut reached = Reached::default();
    let next = |world: &World| world.next(story, mistake);
    reached.states = explore(World::new(story), next, |world| {
        reached.serves_by_others |= world.serves && world.is_asking;
        reached.longest = reached.longest.max(world.in_force - world.settled);
        let is_out = !world.members(world.settled).has(0);
        reached.settled_without |= is_out && world.settled > 0;
        !world.two_may_serve_the_same()
    })?;
    Ok(reached)
}

#[derive(Debug, Default)]
struct Reached {
    states: usize,
    serves_by_others: bool,
    /// Epochs since the last that was settled.
    longest: u8,
    settled_without: bool,
}

const TWO: Nodes = Nodes(0b011);
const THREE: Nodes = Nodes(0b111);

/// Of three the first and another are given up one after the other.
const BOTH_GO: Story = Story { members: THREE, nodes: THREE, ends_max: 1, crashes_max: 2 };
/// Of two one is given up, is taken in again alone, and gives up the other.
const ALONE: Story = Story { members: TWO, nodes: TWO, ends_max: 2, crashes_max: 2 };
/// The third is no member at first.
const ONE_JOINS: Story = Story { members: TWO, nodes: THREE, ends_max: 1, crashes_max: 1 };

/// Nobody serves what was given to others, in at least so many worlds.
fn check(story: Story, states_min: usize) {
    let reached = play(story, Mistake::None).unwrap_or_else(|found| panic!("{found:#?}"));
    assert!(reached.serves_by_others && reached.settled_without, "{story:?}: {reached:?}");
    assert_eq!(usize::from(reached.longest), EPOCHS_MAX - 1, "{story:?}: {reached:?}");
    assert!(states_min < reached.states, "{story:?}: {reached:?} are fewer than there were");
}

// Each in a test of its own, so that they run beside each other.

#[test]
fn two_that_were_given_up_one_after_the_other_do_not_serve_what_others_have() {
    check(BOTH_GO, 1_200_000);
}

#[test]
fn nor_does_one_that_another_gave_up_when_it_was_back_alone() {
    check(ALONE, 1_860_000);
}

#[test]
fn nor_when_one_joins() {
    check(ONE_JOINS, 1_760_000);
}

#[test]
fn every_mistake_is_found() {
    for mistake in [Mistake::LooksAtNewestOnly, Mistake::ForgetsTheSettled] {
        for story in [BOTH_GO, ALONE, ONE_JOINS] {
            assert!(play(story, mistake).is_err(), "{mistake:?} in {story:?}");
        }
    }
}
