//! What a cache is asked for, as its backends sample it, the last commands at each proxy, and how long
//! requests take; and prefixes that its owner watches.
//!
//! The data plane of this process is asked by a call, nodes by a question to each: nothing is told that
//! nobody has asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cluster::slot::SlotHasher;
use tenancy::rules::RuleChange;
use tokio::sync::watch;
use wire::control::inquiry::{Answer, Command, KeyFigures, Popular, Popularity, Question};
use wire::control::latency::Histogram;
use wire::control::name::NodeName;
use wire::control::rules::Cut;

use super::{Control, Local};
use crate::data_plane::DataPlaneError;
use crate::error::ControlError;
use crate::model::{Actor, Cache, CacheRef, ClusterId};
use crate::push::PushControl;
use crate::push::driver::Announced;
use crate::push::fleet::Fleet;
use crate::push::quota::place;
use crate::rules::Preview;
use crate::usage::LOCAL;

/// How long nodes are waited for: a healthy one answers within milliseconds, and the request that waits
/// has an end itself.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);

/// The nodes of this control plane, which serve the caches of [`ClusterId::DEFAULT`].
pub(super) struct Nodes {
    fleet: Arc<Fleet>,
    announced: watch::Receiver<Announced>,
}

impl Control {
    /// Has questions about caches go to these nodes. Once; later calls change nothing.
    pub fn ask_nodes_of(&self, push: &PushControl) {
        let (fleet, announced) = (Arc::clone(&push.fleet), push.announced.clone());
        // A second one would be the same fleet.
        drop(self.nodes.set(Nodes { fleet, announced }));
    }

    /// The keys and prefixes that a cache is asked for most, and what it would hit at other sizes. A
    /// quiet cache is watched from the first question on, so the first answer is empty.
    pub fn popular(&self, cache: &CacheRef) -> Result<Popular, ControlError> {
        let cache = self.cache(cache)?;
        let mut sum = Popular::default();
        let (mut keys, mut prefixes) = (HashMap::new(), HashMap::new());
        for answer in self.ask(&cache, &Question::Popular(cache.id))?.into_values() {
            let Answer::Popular(part) = answer else { continue };
            part.keys.into_iter().for_each(|key| add(&mut keys, key));
            part.prefixes.into_iter().for_each(|prefix| add(&mut prefixes, prefix));
            sum.sizes.add(&part.sizes);
        }
        (sum.keys, sum.prefixes) = (most_asked(keys), most_asked(prefixes));
        Ok(sum)
    }

    /// What is known of one key; asking does not count as a use of it.
    pub fn key(&self, cache: &CacheRef, key: &[u8]) -> Result<KeyFigures, ControlError> {
        let cache = self.cache(cache)?;
        let question = |backend| Question::Key { cache: cache.id, backend, key: key.to_vec() };
        let answer = match self.local(cache.cluster) {
            Some(Local { data_plane, .. }) => Some(data_plane.answer(&question(0))),
            None => {
                let nodes = self.nodes_of(&cache)?;
                let (node, backend) = nodes.owner(&cache, key).ok_or_else(nobody)?;
                let asked = nodes.fleet.ask(Some(&node), &question(backend), ANSWER_TIME_MAX);
                asked.answers.into_values().next()
            }
        };
        match answer {
            Some(Answer::Key(figures)) => Ok(figures),
            Some(_) | None => Err(nobody().into()),
        }
    }

    /// The last commands at each proxy, the oldest first, by the proxy's name. They are recorded from
    /// the first question on, for as long as there is another one now and then.
    pub fn recent(&self, cache: &CacheRef) -> Result<BTreeMap<String, Vec<Command>>, ControlError> {
        let cache = self.cache(cache)?;
        let answers = self.ask(&cache, &Question::Recent(cache.id))?;
        let commands = |(server, answer)| match answer {
            Answer::Recent(commands) => Some((server, commands)),
            Answer::Popular(_)
            | Answer::Key(_)
            | Answer::Done
            | Answer::Prefixes(_)
            | Answer::Latency(_)
            | Answer::Cut(_)
            | Answer::NoCache => None,
        };
        Ok(answers.into_iter().filter_map(commands).collect())
    }

    /// Sets a cache's counters to zero; its gauges stay.
    pub(crate) fn reset_statistics(&self, cache: &CacheRef) -> Result<(), ControlError> {
        let cache = self.cache(cache)?;
        if let Some(Local { data_plane, .. }) = self.local(cache.cluster) {
            return Ok(data_plane.reset_statistics(cache.id)?);
        }
        let question = Question::ResetStatistics(cache.id);
        let asked = self.nodes_of(&cache)?.fleet.ask(None, &question, ANSWER_TIME_MAX);
        let done = asked.answers.values().filter(|answer| **answer == Answer::Done).count();
        match (done, asked.missing) {
            (1.., 0) => Ok(()),
            (_, missing) => {
                let reason = format!("{missing} nodes did not answer; the others have done it");
                Err(DataPlaneError::Unavailable { reason }.into())
            }
        }
    }

    /// How long requests took at each proxy since it began, all caches together. Proxies that do not
    /// answer are left out.
    pub(crate) fn latencies(&self) -> BTreeMap<String, Histogram> {
        let answers = match (&self.local, self.nodes.get()) {
            (Some(Local { data_plane, .. }), _) => {
                BTreeMap::from([(LOCAL.to_owned(), data_plane.answer(&Question::Latency))])
            }
            (None, Some(nodes)) => nodes.ask_all(&Question::Latency),
            (None, None) => BTreeMap::new(),
        };
        let histogram = |(server, answer)| match answer {
            Answer::Latency(histogram) => Some((server, *histogram)),
            Answer::Popular(_)
            | Answer::Key(_)
            | Answer::Recent(_)
            | Answer::Done
            | Answer::Prefixes(_)
            | Answer::Cut(_)
            | Answer::NoCache => None,
        };
        answers.into_iter().filter_map(histogram).collect()
    }

    /// Asks whoever serves a cache; the answers by server.
    pub(super) fn ask(
        &self,
        cache: &Cache,
        question: &Question,
    ) -> Result<BTreeMap<String, Answer>, ControlError> {
        let answers = match self.local(cache.cluster) {
            Some(Local { data_plane, .. }) => {
                BTreeMap::from([(LOCAL.to_owned(), data_plane.answer(question))])
            }
            None => self.nodes_of(cache)?.ask_all(question),
        };
        if answers.is_empty() { Err(nobody().into()) } else { Ok(answers) }
    }

    fn nodes_of(&self, cache: &Cache) -> Result<&Nodes, DataPlaneError> {
        let nodes = self.nodes.get().filter(|_| cache.cluster == ClusterId::DEFAULT);
        nodes.ok_or_else(nobody)
    }

    /// Watched prefixes with their numbers.
    pub fn prefixes(&self, cache: &CacheRef) -> Result<Vec<(u64, String)>, ControlError> {
        self.about(cache, |database, cache| database.prefixes(cache.id))
    }

    /// Returns its number; the same for a prefix that is watched already.
    pub fn watch_prefix(
        &self,
        actor: Actor,
        cache: &CacheRef,
        name: &str,
    ) -> Result<u64, ControlError> {
        let now = self.environment.now();
        let id =
            self.about(cache, |database, cache| database.watch_prefix(actor, now, cache, name))?;
        // Counted from now on, and not only from the end of the minute. It is watched all the same.
        if let (Ok(watched), Ok(prefixes)) = (self.cache(cache), self.prefixes(cache)) {
            self.read_prefixes_of(&watched, &prefixes);
        }
        Ok(id)
    }

    pub fn unwatch_prefix(
        &self,
        actor: Actor,
        cache: &CacheRef,
        id: u64,
    ) -> Result<(), ControlError> {
        let now = self.environment.now();
        self.about(cache, |database, cache| database.unwatch_prefix(actor, now, cache, id))
    }
}

impl Nodes {
    /// Whom a change of the rules for addresses would cut off, and which nodes did not say so: also
    /// those that are away.
    pub(super) fn preview(&self, change: RuleChange) -> Preview {
        let answers = self.fleet.ask(None, &Question::Cut(change), ANSWER_TIME_MAX).answers;
        let names = self.fleet.names().into_iter();
        let silent = names.filter(|name| !answers.contains_key(name));
        let silent = silent.map(|name| name.to_string()).collect();
        let mut preview = Preview { nodes: answers.len(), cut: Cut::default(), silent };
        for answer in answers.into_values() {
            if let Answer::Cut(cut) = answer {
                preview.cut.join(cut);
            }
        }
        preview
    }

    fn ask_all(&self, question: &Question) -> BTreeMap<String, Answer> {
        let answers = self.fleet.ask(None, question, ANSWER_TIME_MAX).answers;
        answers.into_iter().map(|(node, answer)| (node.to_string(), answer)).collect()
    }

    /// Who has a key by the topology in force: the node, and the number of its backend.
    fn owner(&self, cache: &Cache, key: &[u8]) -> Option<(NodeName, u8)> {
        let announced = self.announced.borrow();
        let topology = announced.committed.as_ref()?;
        let slot = SlotHasher::new(&topology.slot_key()).slot(cache.id, key);
        let owner = topology.map().table().owner(slot).index();
        place(topology.members().get(owner)?)
    }
}

fn nobody() -> DataPlaneError {
    DataPlaneError::Unavailable { reason: "no node that serves this cache answers".to_owned() }
}

/// Adds up what several backends have seen of one key.
fn add(sums: &mut HashMap<Vec<u8>, Popularity>, more: Popularity) {
    match sums.get_mut(&more.text) {
        Some(sum) => {
            sum.hits = sum.hits.saturating_add(more.hits);
            sum.misses = sum.misses.saturating_add(more.misses);
            sum.writes = sum.writes.saturating_add(more.writes);
        }
        None => drop(sums.insert(more.text.clone(), more)),
    }
}

fn most_asked(sums: HashMap<Vec<u8>, Popularity>) -> Vec<Popularity> {
    let mut all: Vec<Popularity> = sums.into_values().collect();
    all.sort_by(|a, b| b.requests().cmp(&a.requests()).then_with(|| a.text.cmp(&b.text)));
    all
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tenancy::rules::RuleId;

    use super::*;

    #[test]
    fn who_does_not_say_whom_a_rule_would_cut_off_is_named() {
        let name = |text: &str| NodeName::parse(text).expect("a good name");
        let fleet = Arc::new(Fleet::default());
        fleet.add(&name("away"));
        let mut busy = fleet.connect(&name("busy"), 1);
        let mut ready = fleet.connect(&name("ready"), 1);
        let change = RuleChange::Remove(RuleId(1));
        let sessions = thread::spawn(move || {
            let asked = ready.asked.blocking_recv().expect("it is asked");
            assert_eq!(asked.question, Question::Cut(change));
            let cut = Cut { connections: 3, ..Cut::default() };
            asked.answer.send((name("ready"), Answer::Cut(cut))).expect("it is waited for");
            // Whoever drops a question answers nothing.
            drop(busy.asked.blocking_recv());
            (ready, busy)
        });
        let (_, announced) = watch::channel(Announced::default());
        let preview = Nodes { fleet, announced }.preview(change);
        assert_eq!((preview.nodes, preview.cut.connections), (1, 3));
        assert_eq!(preview.silent, ["away", "busy"]);
        drop(sessions.join().expect("it does not panic"));
    }
}
