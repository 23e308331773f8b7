//! A server and a proxy's side of a link, over real sockets.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the answers it expects; every other one is shown and fails it"
)]

mod under_tls;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use backend::Backend;
use backend::peer::{PeerServer, PeerSettings, PeerTls};
use cluster::digest::Digest;
use cluster::map::Epoch;
use cluster::member::{Incarnation, MemberName, Weight};
use cluster::ownership::{Run, Token};
use cluster::scheme::Scheme;
use cluster::slot::{Slot, SlotHasher, SlotKey};
use daemon::clock::Clock;
use protocol::operation::{Delete, Exptime, Get, Key, Store, StoreMode, StoreOutcome};
use tenancy::id::CacheId;
use tenancy::plan::Plan;
use wire::control::name::{ClusterId, NodeName};
use wire::control::topology::{Placement, Topology, TopologyMember};
use wire::data::frame::{Decoded, Seal};
use wire::data::handshake::{Greeting, Hello, Refused, VERSION_MAX, VERSION_MIN};
use wire::data::many;
use wire::data::operation::Operation;
use wire::data::reply::{Answer, Outcome, Refusal, Reply};
use wire::data::request::{HOPS_MAX, Request, RequestHeader};

const CLUSTER: ClusterId = ClusterId::new([1; 16]);
const SLOT_KEY: [u8; 16] = [2; 16];
const CACHE: CacheId = CacheId::new(5);
const QUIET: CacheId = CacheId::new(6);
/// Nothing here takes long; a machine that is busy otherwise may.
const PATIENCE: Duration = Duration::from_secs(20);

fn name(name: &str) -> MemberName {
    MemberName::parse(name).expect("a good name")
}

fn run(member: &str) -> Run {
    Run { name: name(member), incarnation: Incarnation::new(7) }
}

/// A map in which the first of the two members owns what it owns by Maglev, or everything.
fn topology(epoch: u64, owner: Option<u16>) -> Topology {
    let member = |member: &str| TopologyMember {
        name: name(member),
        node: NodeName::parse("n").expect("a good name"),
        incarnation: Incarnation::new(7),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        weight: Weight::new(1),
    };
    let placement = match owner {
        None => Placement::Scheme(Scheme::Maglev),
        Some(owner) => Placement::Owners(vec![owner; cluster::slot::SLOTS as usize].into()),
    };
    Topology::new(Epoch::new(epoch), SLOT_KEY, vec![member("a"), member("b")], placement)
        .expect("two members")
}

struct Node {
    server: PeerServer,
    a: Arc<Backend>,
    b: Arc<Backend>,
}

/// A node with both members; in the first epoch every slot is a's.
fn node() -> Node {
    node_with(None)
}

fn node_with(tls: Option<PeerTls>) -> Node {
    let member = |member: &str| {
        let backend = Arc::new(Backend::member(64 << 20, 3, run(member)));
        backend.create_cache(CACHE, Plan::DEVELOPMENT.limits).expect("there is room");
        backend.create_cache(QUIET, Plan::DEVELOPMENT.limits).expect("there is room");
        backend.slots().commit(&topology(1, Some(0)), Epoch::new(0));
        backend
    };
    let (a, b) = (member("a"), member("b"));
    let server = serve(vec![Arc::clone(&a), Arc::clone(&b)], tls);
    Node { server, a, b }
}

fn serve(members: Vec<Arc<Backend>>, tls: Option<PeerTls>) -> PeerServer {
    let settings = PeerSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        threads: 1,
        cluster: CLUSTER,
        tls,
        drain_timeout: PATIENCE,
    };
    PeerServer::start(settings, members, Clock::start()).expect("a free port")
}

fn hello(to: &str) -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        cluster: CLUSTER,
        slot_fingerprint: hasher().fingerprint(),
        from: NodeName::parse("other").expect("a good name"),
        to: name(to),
        to_incarnation: Incarnation::new(7),
        epoch: Epoch::FIRST,
        digest: Digest::new([0; 32]),
        from_incarnation: Some(Incarnation::new(7)),
    }
}

fn hasher() -> SlotHasher {
    SlotHasher::new(&SlotKey::new(SLOT_KEY))
}

fn dial(node: &Node) -> TcpStream {
    let socket = TcpStream::connect(node.server.address()).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
    socket
}

/// A proxy's end of a link.
struct Caller<S = TcpStream> {
    socket: S,
    input: Vec<u8>,
    id: u64,
}

impl Caller {
    fn connect(node: &Node) -> Self {
        Caller::over(dial(node))
    }

    fn welcomed(node: &Node, to: &str) -> Self {
        Caller::connect(node).be_welcomed(to)
    }
}

impl<S: Read + Write> Caller<S> {
    fn over(socket: S) -> Self {
        Caller { socket, input: Vec::new(), id: 0 }
    }

    fn be_welcomed(mut self, to: &str) -> Self {
        match self.greeted(&hello(to)) {
            Greeting::Welcome(welcome) => assert_eq!(welcome.version, VERSION_MAX),
            Greeting::Refused(refused) => panic!("{refused}"),
        }
        self
    }

    fn greeted(&mut self, hello: &Hello) -> Greeting {
        let mut out = Vec::new();
        hello.encode(&mut out);
        self.send(&out);
        loop {
            if let Some((greeting, length)) = Greeting::decode(&self.input).expect("ours") {
                self.input.drain(..length);
                return greeting;
            }
            assert!(self.fill(), "closed without a greeting");
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server reads");
    }

    /// Reads some; `false` when the server has closed.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.input.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came in {PATIENCE:?}: {error}"),
        }
    }

    fn frame(&mut self, cache: CacheId, operation: Operation<'_>, change: Change) -> Vec<u8> {
        self.id += 1;
        let key = operation.key().map_or(&b""[..], Key::bytes);
        let header = RequestHeader {
            id: self.id,
            cache,
            epoch: Epoch::FIRST,
            deadline_ms: change.deadline_ms,
            slot: hasher().slot(cache, key),
            hops_left: HOPS_MAX,
            token: change.token,
        };
        let mut out = Vec::new();
        Request { header, operation }.encode(&mut out, Seal::Checksum);
        out
    }

    /// Asks for several keys in one frame.
    fn frame_of_many(&mut self, cache: CacheId, keys: &[String]) -> Vec<u8> {
        let mut operation = Vec::new();
        many::begin(&mut operation);
        for key in keys {
            many::push(&mut operation, hasher().slot(cache, key.as_bytes()), &get(key));
        }
        let operation = Operation::decode(&operation).expect("just written");
        self.frame(cache, operation, Change::default())
    }

    /// What came of each of several reads, in however many frames.
    fn replies_of_many(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            let id = self.id;
            all.extend(self.reply(|reply| {
                assert_eq!(reply.header.id, id);
                match reply.answer {
                    Answer::Many(answers) => {
                        answers.iter().map(|answer| told(&answer.expect("ours"))).collect()
                    }
                    other => vec![told(&other); count],
                }
            }));
        }
        all
    }

    /// Waits for the next reply and shows it.
    fn reply<R>(&mut self, look: impl FnOnce(&Reply<'_>) -> R) -> R {
        loop {
            let decoded = Reply::decode(&self.input, Seal::Checksum).expect("ours");
            if let Decoded::Complete { frame, consumed } = decoded {
                let seen = look(&frame);
                self.input.drain(..consumed);
                return seen;
            }
            assert!(self.fill(), "closed without a reply");
        }
    }

    /// What came of one operation, in words.
    fn ask(&mut self, operation: Operation<'_>) -> String {
        self.ask_with(operation, Change::default())
    }

    fn ask_with(&mut self, operation: Operation<'_>, change: Change) -> String {
        let frame = self.frame(CACHE, operation, change);
        self.send(&frame);
        let id = self.id;
        self.reply(|reply| {
            assert_eq!((reply.header.id, reply.header.cache), (id, CACHE));
            told(&reply.answer)
        })
    }

    fn token_of_refusal(&mut self, operation: Operation<'_>) -> (String, Token) {
        let frame = self.frame(CACHE, operation, Change::default());
        self.send(&frame);
        self.reply(|reply| match reply.answer {
            Answer::Refused(Refusal::Moved { to, token }) => (to.to_owned(), token),
            other => panic!("wanted MOVED, got {other:?}"),
        })
    }
}

#[derive(Clone, Copy)]
struct Change {
    deadline_ms: u32,
    token: Option<Token>,
}

impl Default for Change {
    fn default() -> Self {
        Change { deadline_ms: 10_000, token: None }
    }
}

fn told(answer: &Answer<'_>) -> String {
    match answer {
        Answer::Done(Outcome::Get(Some(hit))) => String::from_utf8_lossy(hit.value).into_owned(),
        Answer::Done(Outcome::Get(None)) => "miss".to_owned(),
        Answer::Done(Outcome::Store(StoreOutcome::Stored { .. })) => "stored".to_owned(),
        Answer::Done(Outcome::Done) => "done".to_owned(),
        Answer::Refused(Refusal::NotYet { ask }) => format!("not yet, ask {ask:?}"),
        other => format!("{other:?}"),
    }
}

fn get(key: &str) -> Operation<'_> {
    Operation::Get(Get::plain(Key::new(key.as_bytes()).expect("a good key")))
}

fn set<'a>(key: &'a str, value: &'a [u8]) -> Operation<'a> {
    Operation::Store(Store {
        key: Key::new(key.as_bytes()).expect("a good key"),
        value,
        flags: 0,
        exptime: Exptime(0),
        mode: StoreMode::Set,
        compare_cas: None,
        new_cas: None,
        invalidate: false,
        vivify: None,
    })
}

#[test]
fn items_are_stored_and_found() {
    let node = node();
    let mut caller = Caller::welcomed(&node, "a");
    assert_eq!(caller.ask(get("k")), "miss");
    assert_eq!(caller.ask(set("k", b"value")), "stored");
    assert_eq!(caller.ask(get("k")), "value");
    let key = Key::new(b"k").expect("a good key");
    let delete = Delete {
        key,
        compare_cas: None,
        new_cas: None,
        invalidate: false,
        touch: None,
        remove_value: false,
    };
    assert_eq!(caller.ask(Operation::Delete(delete)), "Done(Delete(Deleted))");
    assert_eq!(caller.ask(get("k")), "miss");
    assert_eq!(caller.ask(Operation::Ping), "done");
    assert!(caller.ask(Operation::Figures).contains("Figures"));
    assert_eq!(caller.ask(set("k", b"v")), "stored");
    assert_eq!(caller.ask(Operation::Flush { delay: Exptime(0) }), "done");
    assert_eq!(caller.ask(get("k")), "miss");
}

#[test]
fn frames_may_come_in_any_pieces() {
    let node = node();
    let mut caller = Caller::welcomed(&node, "a");
    let large = vec![b'x'; 300_000];
    let mut bytes = caller.frame(CACHE, set("large", &large), Change::default());
    bytes.extend(caller.frame(CACHE, get("large"), Change::default()));
    bytes.extend(caller.frame(CACHE, get("nothing"), Change::default()));
    // Whole; a byte at a time at the front; cut inside the value and the later frames.
    for cut in [0, 1, 7, 8, 9, 40, 150_000, bytes.len() - 3] {
        let (first, second) = bytes.split_at(cut);
        caller.send(first);
        caller.send(second);
        assert_eq!(caller.reply(|reply| told(&reply.answer)), "stored");
        assert_eq!(caller.reply(|reply| told(&reply.answer)).len(), 300_000);
        assert_eq!(caller.reply(|reply| told(&reply.answer)), "miss");
    }
}

#[test]
fn a_caller_that_is_wrong_here_is_told_why() {
    let node = node();
    #[track_caller]
    fn check(node: &Node, hello: &Hello, expected: &Refused) {
        let mut caller = Caller::connect(node);
        assert_eq!(caller.greeted(hello), Greeting::Refused(expected.clone()));
        assert!(!caller.fill(), "a refused link is closed");
    }
    let right = hello("a");
    check(&node, &Hello { cluster: ClusterId::new([9; 16]), ..right.clone() }, &Refused::Cluster);
    check(&node, &Hello { slot_fingerprint: 0, ..right.clone() }, &Refused::SlotKey);
    check(&node, &hello("c"), &Refused::Member { here: name("a") });
    let here = Incarnation::new(7);
    let before = Hello { to_incarnation: Incarnation::new(6), ..right.clone() };
    check(&node, &before, &Refused::Incarnation { here });
    let (min, max) = (VERSION_MIN, VERSION_MAX);
    let newer = Hello { version_min: max + 1, version_max: max + 2, ..right };
    check(&node, &newer, &Refused::Version { min, max });
    assert_eq!(node.server.usage().links_refused_total.load(Relaxed), 5);
}

#[test]
fn a_caller_is_told_of_an_epoch_without_it_and_counted_while_its_link_lives() {
    let node = node();
    let other = NodeName::parse("other").expect("a good name");
    let without = |hello: &Hello| match Caller::connect(&node).greeted(hello) {
        Greeting::Welcome(welcome) => welcome.without_caller,
        Greeting::Refused(refused) => panic!("{refused}"),
    };
    // The topologies of this test have one node, `n`, whose run is 7.
    let of_n = Hello { from: NodeName::parse("n").expect("a good name"), ..hello("a") };
    let of_n_before = Hello { from_incarnation: Some(Incarnation::new(6)), ..of_n.clone() };
    let of_n_unsaid = Hello { from_incarnation: None, ..of_n.clone() };
    let epoch = |number| Some(Epoch::new(number));
    assert_eq!(without(&hello("a")), epoch(1));
    assert_eq!(without(&of_n_before), epoch(1));
    assert_eq!(without(&of_n_unsaid), epoch(0));
    assert_eq!(without(&of_n), epoch(0));
    // Also of one that is only prepared, and no more once that is not coming.
    node.a.slots().prepare(&topology(2, Some(1)));
    assert_eq!(without(&hello("a")), epoch(2));
    assert_eq!(without(&hello("b")), epoch(1));
    node.a.slots().abort();
    assert_eq!(without(&hello("a")), epoch(1));
    // A process that was started again knows both from its disk.
    let found = Arc::new(Backend::member(64 << 20, 3, run("a")));
    found.slots().restore(&topology(1, Some(0)), Some(&topology(3, Some(1))));
    found.slots().commit(&topology(1, Some(0)), Epoch::new(0));
    let restarted =
        Node { server: serve(vec![Arc::clone(&found)], None), a: Arc::clone(&found), b: found };
    let mut caller = Caller::connect(&restarted);
    let Greeting::Welcome(welcome) = caller.greeted(&hello("a")) else {
        panic!("it is right here")
    };
    assert_eq!((welcome.epoch, welcome.without_caller), (Epoch::new(1), epoch(3)));

    let called = |is_called: bool| {
        let began = Instant::now();
        while node.b.is_called_by(&other) != is_called {
            assert!(began.elapsed() < PATIENCE, "links are counted: {is_called}");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    called(false);
    let link = Caller::welcomed(&node, "b");
    called(true);
    assert!(!node.b.is_called_by(&NodeName::parse("n").expect("a good name")));
    drop(link);
    called(false);
}

#[test]
fn a_slot_is_served_by_whoever_was_given_it() {
    let node = node();
    let (mut a, mut b) = (Caller::welcomed(&node, "a"), Caller::welcomed(&node, "b"));
    assert_eq!(a.ask(set("k", b"old")), "stored");
    assert_eq!(b.ask(get("k")), "Refused(Unknown { epoch: Epoch(1) })");
    // b hears of the new map first: it waits for what a still serves.
    node.b.slots().commit(&topology(2, Some(1)), Epoch::new(1));
    assert_eq!(b.ask(get("k")), "not yet, ask Some(\"a\")");
    assert_eq!(a.ask(get("k")), "old");
    node.a.slots().commit(&topology(2, Some(1)), Epoch::new(1));
    let (to, token) = a.token_of_refusal(get("k"));
    assert_eq!(to, "b");
    assert_eq!(b.ask(get("k")), "not yet, ask Some(\"a\")", "not without the token");
    let with = Change { token: Some(token), ..Change::default() };
    assert_eq!(b.ask_with(get("k"), with), "miss", "it arrives empty");
    assert_eq!(b.ask(set("k", b"new")), "stored");
    // And back: what a still held of the slot must not be seen.
    for backend in [&node.a, &node.b] {
        backend.slots().commit(&topology(3, Some(0)), Epoch::new(1));
    }
    let (_, token) = b.token_of_refusal(get("k"));
    let with = Change { token: Some(token), ..Change::default() };
    assert_eq!(a.ask_with(get("k"), with), "not yet, ask None", "it has not been swept");
    sweep(&node.a);
    assert_eq!(a.ask(get("k")), "miss");
}

#[test]
fn a_settled_epoch_needs_no_tokens() {
    let node = node();
    let mut b = Caller::welcomed(&node, "b");
    node.b.slots().commit(&topology(2, Some(1)), Epoch::new(1));
    assert_eq!(b.ask(set("k", b"v")), "not yet, ask Some(\"a\")");
    node.b.slots().settle(Epoch::new(2));
    assert_eq!(b.ask(set("k", b"v")), "stored");
    assert_eq!(node.b.slots().owned(), 65_537);
}

#[test]
fn a_request_for_a_frozen_slot_waits_a_moment() {
    let node = node();
    let mut caller = Caller::welcomed(&node, "a");
    node.a.slots().freeze(Slot::all());
    let begun = Instant::now();
    assert_eq!(caller.ask(get("k")), "Refused(Busy(Parked))");
    assert!(Duration::from_millis(45) < begun.elapsed());
    // They are read before the thaw only by luck; either way their order is kept. If this machine stands
    // still until they are refused, they are tried again.
    let passed = (0..10).any(|_| {
        node.a.slots().freeze(Slot::all());
        let mut bytes = caller.frame(CACHE, set("k", b"v"), Change::default());
        bytes.extend(caller.frame(CACHE, get("k"), Change::default()));
        caller.send(&bytes);
        node.a.slots().thaw(Slot::all());
        let written = caller.reply(|reply| told(&reply.answer));
        let read = caller.reply(|reply| told(&reply.answer));
        if written == "stored" {
            assert_eq!(read, "v");
            return true;
        }
        assert_eq!(written, "Refused(Busy(Parked))");
        assert!(read == "miss" || read == "Refused(Busy(Parked))", "{read}");
        false
    });
    assert!(passed, "always refused");
}

#[test]
fn many_reads_are_answered_in_their_order() {
    let node = node();
    let mut caller = Caller::welcomed(&node, "a");
    let large = "x".repeat(100_000);
    for number in (0..100).step_by(2) {
        let value = if number == 50 { large.clone() } else { format!("value {number}") };
        assert_eq!(caller.ask(set(&format!("k{number}"), value.as_bytes())), "stored");
    }
    let keys: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    let bytes = caller.frame_of_many(CACHE, &keys);
    caller.send(&bytes);
    let expected = (0..100).map(|number| match number {
        50 => large.clone(),
        number if number % 2 == 0 => format!("value {number}"),
        _ => "miss".to_owned(),
    });
    assert_eq!(caller.replies_of_many(100), expected.collect::<Vec<_>>());
    // And a request behind them is answered behind them.
    let mut bytes = caller.frame_of_many(CACHE, &keys[..3]);
    let many = caller.id;
    bytes.extend(caller.frame(CACHE, get("k4"), Change::default()));
    caller.send(&bytes);
    caller.id = many;
    assert_eq!(caller.replies_of_many(3), ["value 0", "miss", "value 2"]);
    assert_eq!(caller.reply(|reply| told(&reply.answer)), "value 4");
    let bytes = caller.frame_of_many(CacheId::new(99), &keys[..2]);
    caller.send(&bytes);
    assert_eq!(caller.replies_of_many(2), ["Refused(NoSuchCache)"; 2]);
}

#[test]
fn of_many_reads_those_of_other_slots_are_refused_alone() {
    let node = node();
    let mut caller = Caller::welcomed(&node, "a");
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    for key in &keys {
        assert_eq!(caller.ask(set(key, key.as_bytes())), "stored");
    }
    let topology = topology(2, None);
    let table = topology.map().table();
    node.a.slots().commit(&topology, Epoch::new(1));
    let bytes = caller.frame_of_many(CACHE, &keys);
    caller.send(&bytes);
    let told = caller.replies_of_many(keys.len());
    let mut refused = 0;
    for (key, told) in keys.iter().zip(told) {
        let owner = table.owner(hasher().slot(CACHE, key.as_bytes()));
        if owner.index() == 0 {
            assert_eq!(told, *key);
        } else {
            assert!(told.starts_with("Refused(Moved { to: \"b\""), "{told}");
            refused += 1;
        }
    }
    assert!((5..35).contains(&refused), "{refused} were refused");
}

#[test]
fn many_reads_wait_together_for_a_frozen_slot_and_nothing_passes_them() {
    let node = node();
    let mut caller = Caller::welcomed(&node, "a");
    let keys = ["one".to_owned(), "two".to_owned()];
    assert_eq!(caller.ask(set("two", b"old")), "stored");
    let frozen = hasher().slot(CACHE, b"two");
    node.a.slots().freeze([frozen]);
    let begun = Instant::now();
    let bytes = caller.frame_of_many(CACHE, &keys);
    caller.send(&bytes);
    assert_eq!(caller.replies_of_many(2), ["Refused(Busy(Parked))"; 2]);
    assert!(Duration::from_millis(45) < begun.elapsed());
    // A write of the other key stands behind the reads that wait. If this machine stands still until
    // they are refused, it is tried again with another key.
    let passed = (0..10).any(|attempt| {
        let keys = [format!("one{attempt}"), "two".to_owned()];
        node.a.slots().freeze([frozen]);
        let mut bytes = caller.frame_of_many(CACHE, &keys);
        let many = caller.id;
        bytes.extend(caller.frame(CACHE, set(&keys[0], b"new"), Change::default()));
        let write = caller.id;
        caller.send(&bytes);
        node.a.slots().thaw([frozen]);
        caller.id = many;
        let reads = caller.replies_of_many(2);
        caller.id = write;
        assert_eq!(caller.reply(|reply| told(&reply.answer)), "stored");
        let are_refused = reads == ["Refused(Busy(Parked))"; 2];
        assert!(are_refused || reads == ["miss", "old"], "{reads:?}");
        !are_refused
    });
    assert!(passed, "always refused");
}

#[test]
fn what_nobody_waits_for_is_not_executed() {
    let node = node();
    let mut caller = Caller::welcomed(&node, "a");
    let over = Change { deadline_ms: 0, token: None };
    assert_eq!(caller.ask_with(set("k", b"v"), over), "Refused(Expired)");
    assert_eq!(caller.ask(get("k")), "miss");
    let frame = caller.frame(CacheId::new(99), get("k"), Change::default());
    caller.send(&frame);
    assert_eq!(caller.reply(|reply| told(&reply.answer)), "Refused(NoSuchCache)");
}

#[test]
fn a_damaged_frame_costs_its_link_only() {
    let node = node();
    let (mut one, mut other) = (Caller::welcomed(&node, "a"), Caller::welcomed(&node, "a"));
    let mut frame = one.frame(CACHE, set("k", b"value"), Change::default());
    let last = frame.len() - 1;
    frame[last] ^= 1;
    one.send(&frame);
    assert!(!one.fill(), "the link is closed");
    assert_eq!(other.ask(get("k")), "miss", "and nothing was stored");
    assert_eq!(node.server.usage().links_broken_total.load(Relaxed), 1);
}

#[test]
fn a_flood_is_bounded_and_a_quiet_cache_served_meanwhile() {
    let node = node();
    let mut flood = Caller::welcomed(&node, "a");
    let mut quiet = Caller::welcomed(&node, "a");
    let mut reader = Caller {
        socket: flood.socket.try_clone().expect("a descriptor is free"),
        input: Vec::new(),
        id: 0,
    };
    let value = vec![b'x'; 20_000];
    let stored = flood.ask(set("large", &value));
    assert_eq!(stored, "stored");
    const GETS: usize = 20_000;
    let mut bytes = Vec::new();
    for _ in 0..GETS {
        bytes.extend(flood.frame(CACHE, get("large"), Change::default()));
    }
    // Every request is answered or refused, none is lost, whatever waits.
    let answers = std::thread::spawn(move || {
        let (mut hits, mut busy) = (0, 0);
        while hits + busy < GETS {
            reader.reply(|reply| match reply.answer {
                Answer::Done(Outcome::Get(Some(_))) => hits += 1,
                Answer::Refused(Refusal::Busy(_)) => busy += 1,
                other => panic!("{other:?}"),
            });
        }
        hits
    });
    let sender = std::thread::spawn(move || flood.send(&bytes));
    let mut slowest = Duration::ZERO;
    while !answers.is_finished() {
        let begun = Instant::now();
        let frame = quiet.frame(QUIET, get("nothing"), Change::default());
        quiet.send(&frame);
        assert_eq!(quiet.reply(|reply| told(&reply.answer)), "miss");
        slowest = slowest.max(begun.elapsed());
    }
    sender.join().expect("it sent all");
    assert!(answers.join().expect("it heard all") > 0);
    assert!(slowest < PATIENCE / 4, "{slowest:?}");
}

#[test]
fn a_server_that_stops_refuses_what_still_comes() {
    let node = node();
    let mut caller = Caller::welcomed(&node, "a");
    assert_eq!(caller.ask(set("k", b"v")), "stored");
    node.server.drain();
    // Until the loop has heard, requests are executed; then they are refused, and the link ends.
    while caller.ask(get("k")) == "v" {}
    assert!(!caller.fill(), "the link is closed");
    node.server.join();
}

#[test]
fn a_server_that_stops_does_not_wait_for_who_asks_without_a_pause() {
    let node = node();
    let settings = PeerSettings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        threads: 1,
        cluster: CLUSTER,
        tls: None,
        // Whoever waited for it would wait too long.
        drain_timeout: Duration::from_secs(3_600),
    };
    let members = vec![Arc::clone(&node.a)];
    let server = PeerServer::start(settings, members, Clock::start()).expect("a free port");
    let socket = TcpStream::connect(server.address()).expect("it listens");
    let mut caller = Caller::over(socket).be_welcomed("a");
    assert_eq!(caller.ask(set("k", b"v")), "stored");
    server.drain();
    let began = Instant::now();
    let frame = caller.frame(CACHE, get("k"), Change::default());
    while caller.socket.write_all(&frame).is_ok() && caller.fill() {
        caller.input.clear();
        assert!(began.elapsed() < 3 * PATIENCE, "it goes on refusing");
    }
    server.join();
}

/// Does housekeeping until the slot that waits for it is served.
fn sweep(backend: &Backend) {
    let deadline = Instant::now() + PATIENCE;
    let clock = Clock::start();
    while backend.slots().owned() == 0 {
        backend.maintain(clock.now());
        assert!(Instant::now() < deadline, "the sweep does not end");
    }
}
