//! Carries faults out, and mends them.

use cluster::member::Weight;

use crate::network::{Kind, Parcel, StreamId, Way};
use crate::node::member_name;
use crate::scenario::{CROWD, Fault, NODES_MAX, Place};
use crate::time::{MILLISECOND, Micros};
use crate::world::{Event, HEALING, Phase, World};

impl World {
    pub(crate) fn inflict(&mut self, fault: Fault) {
        if self.phase != Phase::Play {
            return;
        }
        if self.inflicts(fault) {
            *self.counts.faults.entry(fault.name()).or_default() += 1;
            self.story.tell(self.now, || format!("*** {fault:?}"));
        }
    }

    /// `false` when there is nothing to which it could happen.
    fn inflicts(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Reset { from, to } => {
                let ids = self.streams_between(Place::Node(from), Place::Node(to));
                let Some(&id) = ids.get(self.random.place(ids.len().max(1))) else { return false };
                self.break_stream(id);
            }
            Fault::Cut { from, to, lasts } => {
                if from == to {
                    return false;
                }
                self.cut(from, to, lasts);
            }
            Fault::Partition { nodes, control_too, lasts } => {
                for one in 0..NODES_MAX {
                    if nodes & 1 << one == 0 {
                        continue;
                    }
                    for other in (0..NODES_MAX).filter(|other| nodes & 1 << other == 0) {
                        self.cut(Place::Node(one), Place::Node(other), lasts);
                        self.cut(Place::Node(other), Place::Node(one), lasts);
                    }
                    if control_too {
                        self.cut(Place::Node(one), Place::Control, lasts);
                        self.cut(Place::Control, Place::Node(one), lasts);
                    }
                }
            }
            Fault::Crash { node, away } => {
                if self.nodes[node].process.is_none() {
                    return false;
                }
                self.end_process(node);
                self.plan(self.now + away, Event::Start { node });
            }
            Fault::Pause { node, lasts } => {
                if self.nodes[node].process.is_none() {
                    return false;
                }
                let until = self.now + lasts;
                self.nodes[node].paused_until = until.max(self.nodes[node].paused_until);
                self.plan(until, Event::Resume { node });
            }
            Fault::ControlAway { lasts } => {
                if self.control.process.take().is_none() {
                    return false;
                }
                let ids: Vec<StreamId> = self
                    .streams
                    .iter()
                    .filter(|(_, stream)| matches!(stream.kind, Kind::Control))
                    .map(|(&id, _)| id)
                    .collect();
                for id in ids {
                    self.close(id, Way::Back);
                }
                self.plan(self.now + lasts, Event::ControlBack);
            }
            Fault::ClockStep { node, seconds } => self.nodes[node].wall_offset += seconds,
            Fault::DiskFull { node, lasts } => {
                self.nodes[node].disk_full_until = self.now + lasts;
            }
            Fault::Damage { from, to } => return from != to && self.to_damage.insert((from, to)),
            Fault::Replay { from, to } => return from != to && self.to_replay.insert((from, to)),
            Fault::Slow { from, to, lasts } => {
                self.ways.slow(Place::Node(from), Place::Node(to), self.now + lasts);
            }
            Fault::Late { node, by, lasts } => {
                self.ways.make_late(Place::Control, Place::Node(node), by, self.now + lasts);
            }
            Fault::ClientGone { client } => {
                let client = client % self.clients.len();
                let Some(id) = self.clients[client].stream() else { return false };
                self.client_leaves(client, id);
            }
            Fault::Reweigh { node, weight } => return self.reweigh(node, weight),
            Fault::Join { node } => return self.join(node),
            Fault::Remove { node } => return self.remove(node),
            Fault::Lose { node } => {
                if self.staying_without(node) < 2 || self.nodes[node].process.is_none() {
                    return false;
                }
                self.nodes[node].is_wanted = false;
                self.end_process(node);
            }
            Fault::Resize { tenant, units } => {
                self.control.resize(tenant % CROWD, units);
                let effects = self.control.drive(self.now);
                self.control_does(effects);
            }
            Fault::Garbage { node, kind } => return self.send_garbage(node, kind),
        }
        true
    }

    /// What no control plane should say: the node must refuse it and go on serving.
    fn send_garbage(&mut self, node: usize, kind: u64) -> bool {
        let name = self.nodes[node].name.clone();
        let Some((stream, garbage)) = self.control.garbage(&name, kind) else { return false };
        for message in garbage {
            self.send(stream, Way::Back, Parcel::ToNode(Box::new(message)));
        }
        true
    }

    fn cut(&mut self, from: Place, to: Place, lasts: Micros) {
        self.ways.cut(from, to, self.now + lasts);
        self.plan(self.now + lasts, Event::Mended { from, to });
    }

    fn streams_between(&self, one: Place, other: Place) -> Vec<StreamId> {
        let between = |from, to| (from, to) == (one, other) || (from, to) == (other, one);
        self.streams
            .iter()
            .filter(|(_, stream)| between(stream.from, stream.to))
            .map(|(&id, _)| id)
            .collect()
    }

    /// Of the node's first backend: where there is another, slots move within the process.
    fn reweigh(&mut self, node: usize, weight: u32) -> bool {
        let weight = weight * self.scenario.memory.backend_mib() / 256;
        let name = self.nodes[node].name.clone();
        let member = member_name(&name, 0);
        let Some(process) = &mut self.control.process else { return false };
        let Some(committed) = process.announced.committed.clone() else { return false };
        // Somebody must be left to serve.
        let others = committed.members().iter().filter(|it| it.name != member);
        let left = others.filter(|it| it.weight != Weight::NOTHING).count();
        let is_member = committed.members().iter().any(|it| it.name == member);
        if !is_member || weight == 0 && left == 0 {
            return false;
        }
        process.wishes.weights.insert(member, Weight::new(weight));
        self.drive();
        true
    }

    /// A machine that was never there, or one that takes the place of one that is gone.
    fn join(&mut self, node: usize) -> bool {
        if self.nodes[node].is_wanted || self.nodes[node].process.is_some() {
            return false;
        }
        if self.control.process.is_none() || self.is_leaving(node) {
            return false;
        }
        self.incarnations += 1;
        let incarnation = self.incarnations;
        self.nodes[node].replace(incarnation);
        self.nodes[node].is_wanted = true;
        let name = self.nodes[node].name.clone();
        self.control.invite(&name);
        self.plan(self.now, Event::Start { node });
        true
    }

    /// An operator has the node drained; its process is stopped when it is forgotten.
    fn remove(&mut self, node: usize) -> bool {
        let is_staying = self.nodes[node].is_wanted && !self.is_leaving(node);
        if !is_staying || self.staying_without(node) < 2 {
            return false;
        }
        let name = self.nodes[node].name.clone();
        let Some(process) = &mut self.control.process else { return false };
        // It is asked for where it is seen to run, or to have ended.
        if !process.sessions.values().any(|link| link.node == name) {
            return false;
        }
        process.wishes.removing.insert(name);
        self.drive();
        true
    }

    /// How many nodes there will be without this one, once all wishes are done: control refuses to remove the
    /// last ones, also while those before are not gone yet.
    fn staying_without(&self, node: usize) -> usize {
        let is_staying = |&other: &usize| self.nodes[other].is_wanted && !self.is_leaving(other);
        (0..NODES_MAX).filter(|&other| other != node).filter(is_staying).count()
    }

    fn is_leaving(&self, node: usize) -> bool {
        let name = &self.nodes[node].name;
        let process = self.control.process.as_ref();
        process.is_some_and(|process| process.wishes.removing.contains(name))
    }

    /// Who removes nodes that are gone sees to it that the others serve: where all of these are drained, they
    /// get their weight back.
    fn leave_somebody_to_serve(&mut self) {
        let weight = Weight::new(self.scenario.memory.backend_mib());
        let Some(process) = &mut self.control.process else { return };
        let Some(committed) = &process.announced.committed else { return };
        let wishes = &mut process.wishes;
        let left = committed.members().iter().filter(|it| !wishes.removing.contains(&it.node));
        let left: Vec<_> = left.collect();
        if left.iter().all(|it| it.weight == Weight::NOTHING) {
            wishes.weights.extend(left.into_iter().map(|it| (it.name.clone(), weight)));
        }
    }

    fn drive(&mut self) {
        let effects = self.control.drive(self.now);
        self.control_does(effects);
    }

    /// Control has forgotten the node: its process is stopped.
    pub(crate) fn removed(&mut self, node: usize) {
        self.nodes[node].is_wanted = false;
        self.end_process(node);
    }

    pub(crate) fn control_back(&mut self) {
        if self.control.process.is_none() {
            self.control.start(self.now);
            self.story.tell(self.now, || "control is back".to_owned());
        }
    }

    /// Mends everything: ways, processes, disks, control; nodes that are gone for good are removed.
    pub(crate) fn heal(&mut self) {
        self.story.tell(self.now, || "everything is mended".to_owned());
        self.ways.heal();
        self.to_damage.clear();
        self.to_replay.clear();
        self.control_back();
        let places = || (0..NODES_MAX).map(Place::Node).chain([Place::Control]);
        for from in places() {
            for to in places() {
                self.plan(self.now, Event::Mended { from, to });
            }
        }
        for node in 0..NODES_MAX {
            self.nodes[node].disk_full_until = 0;
            if self.nodes[node].is_paused(self.now) {
                self.nodes[node].paused_until = self.now;
                self.plan(self.now, Event::Resume { node });
            }
            if self.nodes[node].is_wanted {
                self.plan(self.now + MILLISECOND, Event::Start { node });
            } else if self.control.knows(&self.nodes[node].name.clone())
                && let Some(process) = &mut self.control.process
            {
                process.wishes.removing.insert(self.nodes[node].name.clone());
            }
        }
        self.leave_somebody_to_serve();
        self.healed_at = Some(self.now);
        self.phase = Phase::Healing { until: self.now + HEALING };
    }
}
