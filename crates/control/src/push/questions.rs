//! Asks the nodes whom a change of the rules for addresses would cut off.
//!
//! ```text
//!   ask ──▶ the question that stands ──▶ every session ── PREVIEW ──▶ node
//!    ▲                                      │
//!    └── all connected nodes have answered, │◀── CUT ───────────────────┘
//!        or the time is over ◀── answers ◀──┘
//! ```
//!
//! One question stands at a time: it is a person who asks. Whoever comes meanwhile waits for his turn.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenancy::rules::RuleChange;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use wire::control::name::NodeName;
use wire::control::rules::Cut;

use super::fleet::Fleet;
use crate::rules::Preview;

/// How long nodes have for an answer: two heartbeats, after which a node counts as deaf.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// What nodes are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) change: RuleChange,
}

/// The question that stands, and what has been answered to it.
#[derive(Debug)]
pub(super) struct Questions {
    standing: watch::Sender<Option<Question>>,
    answers: Mutex<Answers>,
    /// Changes with every answer.
    heard: watch::Sender<u64>,
    /// Held by who asks.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Answers {
    /// Of the question that they are to.
    number: u64,
    from: BTreeSet<NodeName>,
    cut: Cut,
}

impl Default for Questions {
    fn default() -> Self {
        Questions {
            standing: watch::Sender::new(None),
            answers: Mutex::default(),
            heard: watch::Sender::new(0),
            turn: tokio::sync::Mutex::default(),
        }
    }
}

impl Questions {
    /// What sessions bring to their nodes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Question>> {
        self.standing.subscribe()
    }

    /// Takes a node's answer in. One that comes late, or again, is passed over.
    pub(super) fn hear(&self, node: &NodeName, number: u64, cut: Cut) {
        let mut answers = self.lock();
        if answers.number == number && answers.from.insert(node.clone()) {
            answers.cut.join(cut);
            drop(answers);
            self.heard.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Asks every node, and waits until all that are connected have answered or have had their time.
    pub(super) async fn ask(&self, fleet: &Fleet, change: RuleChange) -> Preview {
        self.ask_within(ANSWER_TIME_MAX, fleet, change).await
    }

    async fn ask_within(&self, time_max: Duration, fleet: &Fleet, change: RuleChange) -> Preview {
        let _turn = self.turn.lock().await;
        let number = {
            let mut answers = self.lock();
            *answers = Answers { number: answers.number + 1, ..Answers::default() };
            answers.number
        };
        let (mut heard, mut fleet_changed) = (self.heard.subscribe(), fleet.subscribe());
        let _standing = Standing::new(&self.standing, Question { number, change });
        let end = Instant::now() + time_max;
        while self.awaits(fleet) {
            let news = async {
                tokio::select! {
                    _ = heard.changed() => (),
                    _ = fleet_changed.changed() => (),
                }
            };
            if timeout_at(end, news).await.is_err() {
                break;
            }
        }
        let answers = self.lock();
        let nodes = fleet.names().into_iter().map(|(name, _)| name);
        let silent = nodes.filter(|name| !answers.from.contains(name)).map(|name| name.to_string());
        Preview { nodes: answers.from.len(), cut: answers.cut.clone(), silent: silent.collect() }
    }

    /// Whether some connected node has not answered.
    fn awaits(&self, fleet: &Fleet) -> bool {
        let answers = self.lock();
        fleet.names().iter().any(|(name, connected)| *connected && !answers.from.contains(name))
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that stands until this is dropped, however the asking ends.
struct Standing<'a>(&'a watch::Sender<Option<Question>>);

impl<'a> Standing<'a> {
    fn new(place: &'a watch::Sender<Option<Question>>, question: Question) -> Self {
        place.send_replace(Some(question));
        Standing(place)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tenancy::rules::RuleId;

    use super::*;

    const CHANGE: RuleChange = RuleChange::Remove(RuleId(1));

    fn cut(connections: u64) -> Cut {
        Cut { connections, ..Cut::default() }
    }

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).expect("a good name")
    }

    /// Nodes that are connected, and one that is known and away.
    fn fleet() -> (Arc<Fleet>, Vec<super::super::fleet::Connected>) {
        let fleet = Arc::new(Fleet::default());
        let connected = ["n1", "n2"].map(|node| fleet.connect(&name(node), 1));
        fleet.add(&name("away"));
        (fleet, connected.into())
    }

    #[tokio::test]
    async fn every_connected_node_is_waited_for_and_who_is_away_is_named() {
        let (fleet, _connected) = fleet();
        let questions = Arc::new(Questions::default());
        let mut standing = questions.subscribe();
        let asked = {
            let (questions, fleet) = (Arc::clone(&questions), Arc::clone(&fleet));
            tokio::spawn(async move { questions.ask(&fleet, CHANGE).await })
        };
        standing.changed().await.expect("the questions are there");
        let question = (*standing.borrow_and_update()).expect("one stands");
        assert_eq!(question.change, CHANGE);
        questions.hear(&name("n1"), question.number + 1, cut(100));
        questions.hear(&name("n1"), question.number, cut(2));
        questions.hear(&name("n1"), question.number, cut(2));
        questions.hear(&name("n2"), question.number, cut(3));
        let preview = asked.await.expect("it does not panic");
        assert_eq!((preview.cut.connections, preview.nodes), (5, 2));
        assert_eq!(preview.silent, ["away"]);
        assert_eq!(*standing.borrow(), None, "nobody is asked any more");
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_not_waited_for_for_ever() {
        let (fleet, mut connected) = fleet();
        let questions = Questions::default();
        let preview = questions.ask_within(Duration::ZERO, &fleet, CHANGE).await;
        assert_eq!(preview.silent, ["away", "n1", "n2"]);
        // What is answered to it late is no answer to the next one.
        questions.hear(&name("n1"), 1, cut(7));
        let preview = questions.ask_within(Duration::ZERO, &fleet, CHANGE).await;
        assert_eq!((preview.cut.connections, preview.nodes), (0, 0));
        // Nobody is there to wait for.
        connected.clear();
        let preview = questions.ask(&fleet, CHANGE).await;
        assert_eq!(preview.silent, ["away", "n1", "n2"]);
    }
}
