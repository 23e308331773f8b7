//! Nodes whose control plane has gone mad: real processes, clients beside it, and a control plane that
//! sends what none should. Nothing of it changes what is served, and each is told why it was refused.

use std::net::SocketAddr;
use std::time::Duration;

use cluster::map::Epoch;
use cluster::member::{Incarnation, MemberName, Weight};
use cluster::scheme::Scheme;
use rustix::process::Signal;
use serde_json::json;
use tenancy::id::CacheId;
use testbed::cluster::{ControlPlane, Node};
use testbed::eventually::{DEADLINE, eventually};
use testbed::kill_control::api::Api;
use testbed::oracle::Oracle;
use testbed::push::pretend::{cache, credential};
use testbed::push::rogue::Rogue;
use wire::control::digest::SetDigest;
use wire::control::message::{FromControl, FromNode, Reason, SnapshotHead};
use wire::control::name::NodeName;
use wire::control::record::{Delta, Key, Record, Revision};
use wire::control::topology::{Placement, Topology, TopologyMember};

/// More than may always be dropped.
const CACHES: u64 = 12;

#[test]
fn what_no_control_plane_should_say_is_refused_while_clients_go_on() {
    let mut control = ControlPlane::start();
    let mut node = Node::join_sized(&control, "n1", "1GiB", "2");
    let url = control.process.line_after("LARDER_CONTROL=").expect("it is written first");
    let api = Api::new(&url, control.folder());
    let shop = control.create_cache("shop");
    for number in 1..CACHES {
        let wish = json!({ "name": format!("c{number}") });
        let made = api.change("POST", "/v1/caches", &format!("key-{number}"), &wish);
        assert_eq!(made.expect("it answers").status, 201);
    }
    control.wait_until_settled(2);
    let oracle = Oracle::on(node.connect(&shop));
    control.process.signal(Signal::KILL);
    control.process.wait_for_end(DEADLINE);
    let address: SocketAddr = control.nodes.parse().expect("it is an address");
    let rogue = Rogue::start(control.folder(), address);

    // What can be read is answered by a reason; the copy stays, and so does the connection.
    let mut visitor = rogue.welcome();
    let hello = visitor.hello().clone();
    let (revision, counts) = (hello.revision, (CACHES as u32, CACHES as u32));
    let back = Revision::new(revision.get() - 1);
    let delta = |revision, puts, deletes| FromControl::Delta(Delta { revision, puts, deletes });
    let ids = 1..=CACHES;
    let cases = [
        ("an empty snapshot", vec![begin(revision, (0, 0))], Reason::DropsTooMuch),
        ("a thousandfold one", vec![begin(revision, (12_000, 12_000))], Reason::GrowsTooMuch),
        ("one beyond all limits", vec![begin(revision, (u32::MAX, 0))], Reason::TooLarge),
        ("yesterday's", vec![begin(back, counts)], Reason::RevisionBack),
        ("one with more than it said", more_than_said(revision, counts), Reason::TooLarge),
        ("one that does not add up", made_up(revision), Reason::DigestDiffers),
        ("half of one", half(revision), Reason::Inconsistent),
        ("a delta too early", vec![delta(revision.next().next(), vec![], vec![])], Reason::Gap),
        ("a delta again", vec![delta(revision, vec![], vec![])], Reason::RevisionBack),
        (
            "a delta without its cache",
            vec![delta(revision.next(), vec![credential("u", 99)], vec![])],
            Reason::Inconsistent,
        ),
        (
            "a delta that drops all",
            vec![delta(
                revision.next(),
                vec![],
                ids.map(|id| Key::Cache(CacheId::new(id))).collect(),
            )],
            Reason::DropsTooMuch,
        ),
        ("an old epoch", vec![old_epoch(hello.epoch)], Reason::OldEpoch),
    ];
    let mut reasons = Vec::new();
    for (what, messages, reason) in cases {
        messages.iter().for_each(|message| visitor.say(message));
        match visitor.hear() {
            Some(FromNode::Nack { revision: stays, refusal }) => {
                assert_eq!((stays, refusal.reason), (revision, reason), "{what}: {refusal}");
                reasons.push(refusal.to_string());
            }
            other => panic!("{what} is answered by {other:?}"),
        }
    }
    oracle.wait_for_rounds(3);
    drop(visitor);
    // The log has the first of them; how many there are of one kind is limited.
    eventually(&format!("the log tells of {}", reasons[0]), DEADLINE, || {
        node.process.log().contains(&reasons[0]).then_some(())
    });

    // What cannot be read ends the connection; the node comes again, as it was.
    let mut too_long = u32::MAX.to_le_bytes().to_vec();
    too_long.extend_from_slice(b"\x01\x04rest");
    let unknown = [3, 0, 0, 0, 1, 250, 7];
    // Closed or reset: a report that nobody has read yet makes the difference.
    let gone = "the connection failed";
    for (what, bytes, told) in [
        ("a frame without end", &too_long[..], "longer than"),
        ("garbage", b"GET / HTTP/1.1\r\nHost: larder\r\n\r\n", "longer than"),
        ("an unknown message", &unknown, "could not be decoded"),
        ("the beginning of a frame", &[200, 0, 0, 0, 1, 4, 1, 2], gone),
    ] {
        let mut visitor = rogue.welcome();
        assert_eq!(visitor.hello().revision, revision, "before {what}");
        assert_eq!(visitor.hello().digest, hello.digest, "before {what}");
        let before = losses(&node).len();
        visitor.send(bytes);
        if told == gone {
            drop(visitor);
        } else {
            assert_eq!(visitor.hear(), None, "{what}");
        }
        eventually(&format!("the log tells of {what}"), DEADLINE, || {
            let losses = losses(&node);
            let last = losses.last().filter(|_| before < losses.len())?;
            last.contains(told).then_some(())
        });
        oracle.wait_for_rounds(3);
    }
    drop(rogue);

    // The true one is back: nothing is left of it.
    let control = control.start_again();
    let status = control.wait_until_settled(2);
    assert_eq!(status["nodes"][0]["revision"], revision.get());
    control.create_cache("after");
    oracle.finish();
    node.process.signal(Signal::TERM);
    assert!(node.process.wait_for_end(Duration::from_secs(30)).success());
}

/// What a node's log says of connections to control that were good before they ended.
fn losses(node: &Node) -> Vec<String> {
    let log = node.process.log();
    log.lines().filter(|line| line.contains("control is away")).map(str::to_owned).collect()
}

fn begin(revision: Revision, (caches, credentials): (u32, u32)) -> FromControl {
    let digest = SetDigest::EMPTY;
    FromControl::SnapshotBegin(SnapshotHead {
        revision,
        digest,
        caches,
        credentials,
        forced: false,
    })
}

fn more_than_said(revision: Revision, counts: (u32, u32)) -> Vec<FromControl> {
    let chunk = (1..=u64::from(counts.0) + 1).map(cache).collect();
    vec![begin(revision, counts), FromControl::SnapshotChunk(chunk)]
}

/// As many records as there are, but others.
fn records() -> Vec<Record> {
    let credential = |id| credential(&format!("u{id}"), id);
    (1..=CACHES).map(cache).chain((1..=CACHES).map(credential)).collect()
}

fn made_up(revision: Revision) -> Vec<FromControl> {
    let counts = (CACHES as u32, CACHES as u32);
    vec![begin(revision, counts), FromControl::SnapshotChunk(records()), FromControl::SnapshotEnd]
}

fn half(revision: Revision) -> Vec<FromControl> {
    let counts = (CACHES as u32, CACHES as u32);
    let chunk = records().into_iter().take(CACHES as usize).collect();
    vec![begin(revision, counts), FromControl::SnapshotChunk(chunk), FromControl::SnapshotEnd]
}

fn old_epoch(epoch: Epoch) -> FromControl {
    let member = TopologyMember {
        name: MemberName::parse("n1.b0").expect("a good name"),
        node: NodeName::parse("n1").expect("a good name"),
        incarnation: Incarnation::new(1),
        address: "127.0.0.1:1".parse().expect("an address"),
        weight: Weight::new(1),
    };
    let old = Epoch::new(epoch.get() - 1);
    let topology = Topology::new(old, [1; 16], vec![member], Placement::Scheme(Scheme::Maglev));
    FromControl::Prepare { topology: topology.expect("one member will do").into(), forced: true }
}
