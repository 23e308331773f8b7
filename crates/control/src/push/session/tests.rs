//! The control plane's engine against the node's own, message by message, with a clock of our own.

use cluster::map::Epoch;
use cluster::member::Incarnation;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::{Network, Rule, RuleId, Ruling};
use wire::control::epochs::Epochs;
use wire::control::message::{Alarms, NodeAddresses, SnapshotHead};
use wire::control::node_session::{NodeSession, Step};
use wire::control::record::{CacheRecord, Delta, Record};
use wire::control::records::Records;
use wire::control::replica::Replica;

use super::*;

const VERSIONS: Versions = Versions { min: 1, max: 1 };

/// Both engines and what lies between them.
struct Pair {
    history: History,
    records: Records,
    session: Session,
    node: NodeSession,
    replica: Replica,
    epochs: Epochs,
    now: Moment,
}

impl Pair {
    /// Control at revision 1 with some caches, and a node that has never been there.
    fn new() -> Pair {
        let mut records = Records::default();
        (0..40).for_each(|id| drop_record(records.put(cache(id))));
        let history = History::new(Revision::new(1), records.digest());
        let now = Duration::from_secs(100);
        Pair {
            history,
            records,
            session: Session::new(VERSIONS, ClusterId::new([1; 16]), name("n1"), now),
            node: NodeSession::new(VERSIONS),
            replica: Replica::default(),
            epochs: Epochs::default(),
            now,
        }
    }

    /// The node introduces itself and takes everything it is sent.
    fn connected() -> Pair {
        let mut pair = Pair::new();
        let acts = pair.greet(hello(&pair.replica));
        assert!(matches!(acts[0], Act::Send(FromControl::Welcome { version: 1 })), "{acts:?}");
        assert_eq!(pair.exchange(), []);
        assert_eq!(pair.replica.revision(), pair.history.head().0);
        pair
    }

    fn greet(&mut self, hello: Hello) -> Vec<Act> {
        let acts = self.session.hear(FromNode::Hello(hello), &self.history, self.now);
        for act in &acts {
            if let Act::Send(message) = act {
                let heard = self.node.hear(message.clone(), &mut self.replica, &mut self.epochs);
                heard.expect("a greeting");
            }
        }
        acts
    }

    fn commit(&mut self, puts: Vec<Record>) {
        for record in &puts {
            drop_record(self.records.put(*record));
        }
        let revision = self.history.head().0.next();
        let delta = Delta { revision, puts, deletes: Vec::new() };
        self.history.push(delta, self.records.digest());
    }

    /// Control sends all it wants to, the node hears and answers; what control finds wrong is told.
    fn exchange(&mut self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        for _ in 0..100 {
            let messages = match self.session.next_push(&self.history, self.now) {
                Push::Nothing => return troubles,
                Push::Deltas { after, count } => {
                    let entries = self.history.after(after).expect("it was asked for");
                    let count = usize::try_from(count).expect("a window");
                    entries.take(count).map(|it| FromControl::Delta((*it.delta).clone())).collect()
                }
                Push::Snapshot { forced } => self.snapshot(forced),
                Push::Refused(refusal) => panic!("{refusal}"),
            };
            troubles.extend(self.deliver(messages));
        }
        panic!("it never came to an end");
    }

    fn snapshot(&mut self, forced: bool) -> Vec<FromControl> {
        let (revision, digest) = self.history.head();
        self.session.snapshot_sent(revision);
        let (caches, credentials) = (self.records.caches(), self.records.credentials());
        let head = SnapshotHead {
            revision,
            digest,
            caches: caches as u32,
            credentials: credentials as u32,
            forced,
        };
        let all = self.records.iter().collect();
        vec![
            FromControl::SnapshotBegin(head),
            FromControl::SnapshotChunk(all),
            FromControl::SnapshotEnd,
        ]
    }

    fn deliver(&mut self, messages: Vec<FromControl>) -> Vec<Trouble> {
        let mut answers = Vec::new();
        for message in messages {
            let steps = self.node.hear(message, &mut self.replica, &mut self.epochs);
            for step in steps.expect("nothing is so wrong that the connection ends") {
                if let Step::Send(answer) = step {
                    answers.push(answer);
                }
            }
        }
        answers.extend(self.node.acknowledge(&self.replica));
        let mut troubles = Vec::new();
        for answer in answers {
            for act in self.session.hear(answer, &self.history, self.now) {
                if let Act::Alarm(trouble) = act {
                    troubles.push(trouble);
                }
            }
        }
        troubles
    }

    fn report(&mut self) -> Vec<Act> {
        let report = Report {
            revision: self.replica.revision(),
            digest: self.replica.reported_digest(),
            durable: self.replica.revision(),
            epoch: Epoch::new(0),
            connected: MemberSet::NONE,
            caches: 0,
            credentials: 0,
            alarms: Alarms::NONE,
        };
        self.session.hear(FromNode::Report(report), &self.history, self.now)
    }
}

#[test]
fn a_new_node_gets_a_snapshot_and_then_deltas() {
    let mut pair = Pair::connected();
    pair.commit(vec![cache(100)]);
    pair.commit(vec![cache(101)]);
    assert_eq!(pair.exchange(), []);
    assert_eq!(pair.replica.records().digest(), pair.history.head().1);
    assert_eq!(pair.session.troubles(), []);
}

#[test]
fn a_node_that_was_away_gets_what_it_missed_only() {
    let mut pair = Pair::connected();
    pair.commit(vec![cache(100)]);
    pair.session = Session::new(VERSIONS, ClusterId::new([1; 16]), name("n1"), pair.now);
    pair.node = NodeSession::new(VERSIONS);
    pair.greet(hello(&pair.replica));
    let push = pair.session.next_push(&pair.history, pair.now);
    assert_eq!(push, Push::Deltas { after: Revision::new(1), count: 1 });
}

#[test]
fn who_does_not_belong_here_is_told_why() {
    let good = hello(&Replica::default());
    let table = [
        (Hello { versions: Versions { min: 2, max: 9 }, ..good.clone() }, Reason::Version),
        (Hello { cluster: ClusterId::new([2; 16]), ..good.clone() }, Reason::WrongCluster),
        (Hello { node: name("n2"), ..good }, Reason::WrongName),
    ];
    for (hello, reason) in table {
        let acts = Pair::new().greet(hello);
        assert!(matches!(&acts[..], [Act::Close(refusal)] if refusal.reason == reason), "{acts:?}");
    }
    let mut pair = Pair::new();
    let early = FromNode::Ack { revision: Revision::ZERO, digest: SetDigest::EMPTY };
    let acts = pair.session.hear(early, &pair.history, pair.now);
    assert!(matches!(&acts[..], [Act::Close(_)]), "{acts:?}");
}

#[test]
fn programs_of_neighbouring_versions_speak_the_older_one() {
    for (control, node, agreed) in [((1, 2), (1, 1), 1), ((1, 1), (1, 2), 1), ((1, 2), (1, 2), 2)] {
        let versions = |(min, max)| Versions { min, max };
        let mut pair = Pair::new();
        let cluster = ClusterId::new([1; 16]);
        pair.session = Session::new(versions(control), cluster, name("n1"), pair.now);
        pair.node = NodeSession::new(versions(node));
        pair.greet(Hello { versions: versions(node), ..hello(&Replica::default()) });
        assert_eq!((pair.session.version(), pair.node.version()), (agreed, agreed));
    }
}

#[test]
fn a_damaged_copy_is_named_once_and_replaced() {
    let mut pair = Pair::connected();
    let mut damaged = Records::default();
    pair.records.iter().skip(1).for_each(|record| drop_record(damaged.put(record)));
    pair.replica = Replica::restored(damaged, pair.history.head().0);
    let differs = Trouble::DigestDiffers { revision: Revision::new(1) };
    let acts = pair.report();
    assert_eq!(acts[0], Act::Alarm(differs.clone()));
    assert_eq!(pair.report().len(), 1, "named once");
    assert_eq!(pair.session.troubles(), [differs]);
    assert_eq!(pair.exchange(), []);
    pair.report();
    assert_eq!(pair.session.troubles(), []);
    assert_eq!(pair.replica.records().digest(), pair.history.head().1);
}

#[test]
fn an_empty_push_is_refused_until_a_person_confirms_it() {
    let mut pair = Pair::connected();
    // Someone has lost a table: a new start of control knows of nothing.
    pair.records = Records::default();
    pair.history = History::new(Revision::new(9), SetDigest::EMPTY);
    pair.session = Session::new(VERSIONS, ClusterId::new([1; 16]), name("n1"), pair.now);
    pair.node = NodeSession::new(VERSIONS);
    pair.greet(hello(&pair.replica));
    let troubles = pair.exchange();
    assert!(
        matches!(&troubles[..], [Trouble::Refused(it)] if it.reason == Reason::DropsTooMuch),
        "{troubles:?}"
    );
    assert_eq!(pair.replica.records().caches(), 40);
    // Left alone for a while, then tried again, not told again.
    assert_eq!(pair.session.next_push(&pair.history, pair.now), Push::Nothing);
    pair.now += REFUSED_PAUSE;
    assert_eq!(pair.exchange(), []);
    assert_eq!(pair.replica.records().caches(), 40);
    pair.session.force();
    assert_eq!(pair.exchange(), []);
    assert_eq!(pair.replica.records().caches(), 0);
    assert_eq!(pair.session.troubles(), []);
}

#[test]
fn a_control_plane_from_yesterday_is_refused() {
    let mut pair = Pair::connected();
    pair.replica = Replica::restored(pair.replica.records().clone(), Revision::new(50));
    pair.session = Session::new(VERSIONS, ClusterId::new([1; 16]), name("n1"), pair.now);
    pair.node = NodeSession::new(VERSIONS);
    pair.greet(hello(&pair.replica));
    let troubles = pair.exchange();
    assert!(
        matches!(&troubles[..], [Trouble::Refused(it)] if it.reason == Reason::RevisionBack),
        "{troubles:?}"
    );
    assert_eq!(pair.replica.revision(), Revision::new(50));
}

#[test]
fn a_slow_node_is_sent_a_window_and_no_more() {
    let mut pair = Pair::connected();
    (0..WINDOW + 50).for_each(|n| pair.commit(vec![cache(1_000 + n)]));
    let push = pair.session.next_push(&pair.history, pair.now);
    assert_eq!(push, Push::Deltas { after: Revision::new(1), count: WINDOW });
    assert_eq!(pair.session.next_push(&pair.history, pair.now), Push::Nothing);
    pair.now += BEHIND_AFTER;
    pair.report();
    assert_eq!(pair.session.look(pair.now), [Act::Alarm(Trouble::Behind)]);
    let half = Revision::new(1 + WINDOW / 2);
    let digest = pair.history.digest_at(half).expect("it was committed");
    pair.session.hear(FromNode::Ack { revision: half, digest }, &pair.history, pair.now);
    let after = Revision::new(1 + WINDOW);
    let push = pair.session.next_push(&pair.history, pair.now);
    assert_eq!(push, Push::Deltas { after, count: 50 });
    assert_eq!(pair.session.troubles(), []);
}

#[test]
fn large_deltas_are_taken_a_bite_at_a_time() {
    let mut pair = Pair::connected();
    for n in 0..20 {
        pair.commit((0..4_000).map(|id| cache(10_000 * (n + 1) + id)).collect());
    }
    let bytes = pair.history.after(Revision::new(1)).and_then(|mut it| it.next());
    let bytes = bytes.expect("it was committed").frame.len();
    let bite = BITE_BYTES_MAX.div_ceil(bytes) as u64;
    assert!((1..20).contains(&bite));
    for after in [1, 1 + bite] {
        let push = pair.session.next_push(&pair.history, pair.now);
        assert_eq!(push, Push::Deltas { after: Revision::new(after), count: bite });
    }
}

#[test]
fn a_silent_node_is_called_deaf_within_three_seconds_and_given_up_later() {
    let mut pair = Pair::connected();
    let mut named_after = None;
    for quarter in 1..=60_u32 {
        let silent = Duration::from_millis(250) * quarter;
        let acts = pair.session.look(pair.now + silent);
        if acts.contains(&Act::Alarm(Trouble::Deaf)) {
            assert!(named_after.replace(silent).is_none(), "named once");
        }
        let is_given_up = matches!(acts.first(), Some(Act::Close(_)));
        assert_eq!(is_given_up, silent >= GIVEN_UP_AFTER, "after {silent:?}");
    }
    assert!(named_after.is_some_and(|after| after < Duration::from_secs(3)));
}

#[test]
fn a_node_that_knows_no_rules_is_refused_when_there_is_one() {
    let mut pair = Pair::connected();
    pair.commit(vec![cache(77)]);
    assert_eq!(pair.exchange(), []);
    pair.commit(vec![Record::Rule(Rule {
        id: RuleId(1),
        cache: None,
        network: Network::parse("192.0.2.1").expect("a network"),
        ruling: Ruling::Block,
        expires_at: 9,
    })]);
    let Push::Refused(refusal) = pair.session.next_push(&pair.history, pair.now) else {
        panic!("it was sent what it cannot read");
    };
    assert_eq!(refusal.reason, Reason::Version);
    // And when it comes again; one that knows them is told.
    for (versions, is_refused) in [(VERSIONS, true), (Versions { min: 1, max: 3 }, false)] {
        let mut session = Session::new(versions, ClusterId::new([1; 16]), name("n1"), pair.now);
        let hello = Hello { versions, ..hello(&pair.replica) };
        let acts = session.hear(FromNode::Hello(hello), &pair.history, pair.now);
        let closes = matches!(&acts[..], [Act::Close(it)] if it.reason == Reason::Version);
        assert_eq!(closes, is_refused, "{acts:?}");
    }
}

fn drop_record(_: Option<Record>) {}

fn name(name: &str) -> NodeName {
    NodeName::parse(name).expect("a good name")
}

fn cache(id: u64) -> Record {
    Record::Cache(CacheRecord {
        id: CacheId::new(id),
        limits: Limits {
            memory_bytes: 1 << 20,
            item_bytes_max: 1024,
            connections_max: 10,
            rates: tenancy::plan::Rates::UNLIMITED,
        },
        enabled: true,
        flush_generation: 0,
    })
}

fn hello(replica: &Replica) -> Hello {
    Hello {
        versions: VERSIONS,
        cluster: ClusterId::new([1; 16]),
        node: name("n1"),
        incarnation: Incarnation::new(1),
        revision: replica.revision(),
        digest: replica.records().digest(),
        has_copy: replica.has_copy(),
        epoch: Epoch::new(0),
        addresses: NodeAddresses::default(),
        backends_mib: Vec::new(),
        software: String::new(),
    }
}
