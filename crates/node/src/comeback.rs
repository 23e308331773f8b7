//! What a node that was started again does with the topology on its disk, until control has said what is
//! in force: asks the other nodes of it, serves by it when they say so, stops when they take it back.
//!
//! Who may serve when, and why, is in [`cluster::comeback`].

use std::sync::Arc;

use cluster::comeback::Verdict;
use cluster::map::Epoch;
use wire::control::topology::Topology;

use crate::view::Links;

/// The way from the disk to what is in force.
#[derive(Debug)]
pub struct Comeback(State);

#[derive(Debug)]
enum State {
    /// Serves nothing; the backends know the topology as one that may be committed.
    Asking { topology: Arc<Topology>, is_left_out: bool },
    /// The others have said that it is still a member.
    Serving(Arc<Topology>),
    /// And one of them has taken it back.
    Doubting(Arc<Topology>),
    /// Control has spoken, or there was nothing on disk.
    Over,
}

impl Comeback {
    /// Begins with what was found on disk, in force and being prepared, which the backends are told of;
    /// the others are asked by the links to them.
    pub fn new(
        committed: Option<&Arc<Topology>>,
        prepared: Option<&Topology>,
        links: &dyn Links,
    ) -> Self {
        let Some(topology) = committed else { return Comeback(State::Over) };
        links.restore(topology, prepared);
        Comeback(State::Asking { topology: Arc::clone(topology), is_left_out: false })
    }

    /// Whether nothing is served until somebody has answered.
    pub fn is_asking(&self) -> bool {
        matches!(self.0, State::Asking { .. })
    }

    /// Looks at what the others say. To be called every now and then, once control has had its time to
    /// say something; `settled` is what is settled as far as this node knows.
    pub fn look(&mut self, links: &dyn Links, settled: Epoch) {
        match &mut self.0 {
            State::Asking { topology, is_left_out } => match links.others_say(topology) {
                Verdict::Wait => (),
                Verdict::Serve => {
                    let epoch = topology.epoch().get();
                    tracing::info!(epoch, "serving by the epoch on disk: the others know no other");
                    links.commit(topology, settled);
                    links.settled(settled);
                    self.0 = State::Serving(Arc::clone(topology));
                }
                Verdict::LeftOut => {
                    if !std::mem::replace(is_left_out, true) {
                        tell_left_out(topology);
                    }
                }
            },
            State::Serving(topology) => {
                if links.others_say(topology) == Verdict::LeftOut {
                    tell_left_out(topology);
                    links.doubt();
                    self.0 = State::Doubting(Arc::clone(topology));
                }
            }
            State::Doubting(_) | State::Over => (),
        }
    }

    /// Control says that this epoch, which is committed here, is in force.
    pub fn confirm(&mut self, epoch: Epoch, links: &dyn Links, settled: Epoch) {
        match &self.0 {
            State::Asking { topology, .. } if topology.epoch() == epoch => {
                links.commit(topology, settled);
                links.settled(settled);
            }
            State::Doubting(topology) if topology.epoch() == epoch => links.trust(),
            State::Serving(topology) if topology.epoch() == epoch => (),
            State::Asking { .. } | State::Doubting(_) | State::Serving(_) | State::Over => return,
        }
        self.0 = State::Over;
    }

    /// Control has put a newer topology in force.
    pub fn end(&mut self) {
        self.0 = State::Over;
    }
}

fn tell_left_out(topology: &Topology) {
    let epoch = topology.epoch().get();
    tracing::warn!(
        epoch,
        "another node knows a newer epoch without this one: its slots are not served until control is \
         heard"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use cluster::scheme::Scheme;
    use wire::control::topology::{MemberSet, Placement, TopologyMember};

    use super::*;

    /// Says what it is told to, and notes what it is asked to do.
    struct Others {
        say: Mutex<Verdict>,
        done: Mutex<Vec<&'static str>>,
    }

    impl Others {
        fn now_say(&self, verdict: Verdict) {
            *self.say.lock().expect("nobody panicked") = verdict;
        }

        fn note(&self, what: &'static str) {
            self.done.lock().expect("nobody panicked").push(what);
        }

        #[track_caller]
        fn check(&self, expected: &[&str]) {
            let done = std::mem::take(&mut *self.done.lock().expect("nobody panicked"));
            assert_eq!(done, expected);
        }
    }

    impl Links for Others {
        fn restore(&self, _: &Arc<Topology>, _: Option<&Topology>) {
            self.note("restore");
        }

        fn prepare(&self, _: &Arc<Topology>, _: bool) {
            self.note("prepare");
        }

        fn connected(&self, _: &Topology) -> MemberSet {
            MemberSet::NONE
        }

        fn others_say(&self, _: &Topology) -> Verdict {
            *self.say.lock().expect("nobody panicked")
        }

        fn commit(&self, _: &Arc<Topology>, _: Epoch) {
            self.note("commit");
        }

        fn abort(&self) {
            self.note("abort");
        }

        fn settled(&self, _: Epoch) {
            self.note("settled");
        }

        fn doubt(&self) {
            self.note("doubt");
        }

        fn trust(&self) {
            self.note("trust");
        }
    }

    const EPOCH: Epoch = Epoch::new(5);

    fn begin() -> (Comeback, Others) {
        let member = TopologyMember {
            name: cluster::member::MemberName::parse("n.b0").expect("a good name"),
            node: wire::control::name::NodeName::parse("n").expect("a good name"),
            incarnation: cluster::member::Incarnation::new(1),
            address: ([10, 0, 0, 1], 7_000).into(),
            weight: cluster::member::Weight::new(1),
        };
        let placement = Placement::Scheme(Scheme::Maglev);
        let topology = Topology::new(EPOCH, [7; 16], vec![member], placement).expect("one member");
        let others = Others { say: Mutex::new(Verdict::Wait), done: Mutex::default() };
        let comeback = Comeback::new(Some(&Arc::new(topology)), None, &others);
        others.check(&["restore"]);
        (comeback, others)
    }

    #[test]
    fn who_is_told_to_serve_serves_until_one_takes_it_back_and_again_when_control_says_so() {
        let (mut comeback, others) = begin();
        comeback.look(&others, EPOCH);
        others.check(&[]);
        assert!(comeback.is_asking());
        others.now_say(Verdict::Serve);
        comeback.look(&others, EPOCH);
        others.check(&["commit", "settled"]);
        assert!(!comeback.is_asking());
        comeback.look(&others, EPOCH);
        others.check(&[]);
        others.now_say(Verdict::LeftOut);
        comeback.look(&others, EPOCH);
        others.check(&["doubt"]);
        // Only control is believed now.
        others.now_say(Verdict::Serve);
        comeback.look(&others, EPOCH);
        comeback.confirm(EPOCH.next(), &others, EPOCH);
        others.check(&[]);
        comeback.confirm(EPOCH, &others, EPOCH);
        others.check(&["trust"]);
        others.now_say(Verdict::LeftOut);
        comeback.look(&others, EPOCH);
        others.check(&[]);
    }

    #[test]
    fn who_is_left_out_serves_nothing_until_control_says_what_is_in_force() {
        let (mut comeback, others) = begin();
        others.now_say(Verdict::LeftOut);
        comeback.look(&others, EPOCH);
        others.check(&[]);
        assert!(comeback.is_asking());
        comeback.confirm(EPOCH, &others, EPOCH);
        others.check(&["commit", "settled"]);

        let (mut comeback, others) = begin();
        comeback.end();
        others.now_say(Verdict::Serve);
        comeback.look(&others, EPOCH);
        comeback.confirm(EPOCH, &others, EPOCH);
        others.check(&[]);
    }
}
