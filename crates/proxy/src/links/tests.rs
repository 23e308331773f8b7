//! The links in a world of their own: backends, connections, faults and time are played by lot.
//!
//! A failing seed replays exactly: `SEED=17 cargo test -p proxy links::tests`.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use cluster::map::{ClusterMap, Epoch};
use cluster::member::{Incarnation, Member, MemberName, Members, Weight};
use cluster::ownership::{RunTag, Token};
use cluster::scheme::Scheme;
use cluster::slot::{Slot, SlotKey};
use protocol::operation::{
    Exptime, Get, GetOutcome, Hit, Key, Lease, Store, StoreMode, StoreOutcome,
};
use tenancy::id::CacheId;
use wire::control::name::{ClusterId, NodeName};
use wire::data::frame::{Decoded, Seal};
use wire::data::handshake::{Greeting, Hello, Welcome};
use wire::data::many::{AnswersWriter, VERSION as MANY_VERSION};
use wire::data::operation::Operation;
use wire::data::reply::{Answer, Outcome, Refusal, Reply, ReplyHeader};
use wire::data::request::{Request, RequestHeader};

use super::request::Stage;
use super::{Asker, Dial, LinkId, LinkSettings, Links, Micros, Sink};
use crate::answers::Failure;
use crate::link_usage::LinkUsage;
use crate::outbox::{Far, Outbox};
use crate::view::{ClusterView, Place, ViewIdentity, ViewMember};
use daemon::networks::Networks;

const MEMBERS: [&str; 3] = ["a", "b", "c"];
const CLIENTS: usize = 6;
const KEYS: usize = 6;

#[test]
fn whatever_happens_every_request_is_answered_once_with_what_its_client_wrote() {
    let seeds = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..300_u64,
    };
    let mut reached = Reached::default();
    for seed in seeds.clone() {
        let mut world = World::new(seed, LinkSettings::default());
        world.faults = true;
        world.play(400_000);
        world.faults = false;
        world.settle();
        reached.add(&world);
    }
    if 1 < seeds.end - seeds.start {
        // Otherwise the laws held only because nothing happened.
        assert!(10_000 < reached.answered, "{reached:?}");
        assert!(100 < reached.moved && 100 < reached.lost && 50 < reached.silent, "{reached:?}");
        assert!(20 < reached.strays && 20 < reached.hedges && 20 < reached.retries, "{reached:?}");
        assert!(1_000 < reached.together && 100 < reached.parted, "{reached:?}");
        assert!(reached.failed * 4 < reached.answered, "{reached:?}");
    }
}

#[test]
fn without_faults_nothing_fails_and_little_is_asked_twice() {
    for seed in 0..20 {
        let mut world = World::new(seed, LinkSettings::default());
        world.connect_all();
        world.play(200_000);
        world.settle();
        assert_eq!(world.clients.failed, 0, "seed {seed}");
        assert_eq!(world.counted, world.asked, "seed {seed}");
        assert!(world.total(|usage| &usage.hedges_total) * 10 <= world.clients.answered);
    }
}

#[test]
fn a_silent_backend_fails_first_after_its_silence_and_then_at_once() {
    let mut world = World::new(1, LinkSettings { hedge: false, ..LinkSettings::default() });
    world.connect_all();
    world.backends[1].silent_until = Micros::MAX;
    let began = world.now;
    world.ask_directly(0, 1);
    world.run_until(|world| world.clients.answered == 1);
    let first = world.now - began;
    assert!((200_000..=210_000).contains(&first), "{first}");
    let began = world.now;
    world.ask_directly(0, 1);
    assert_eq!((world.clients.answered, world.clients.failed, world.now), (2, 2, began));
    // Another backend's slots are as they were.
    world.ask_directly(0, 2);
    world.run_until(|world| world.clients.answered == 3);
    assert_eq!(world.clients.failed, 2);
    // And it is served again when it is heard.
    world.backends[1].silent_until = 0;
    let healed = world.now;
    world.run_until(|world| world.links.peers.iter().all(|(_, peer)| !peer.is_silent));
    assert!(world.now - healed < 1_500_000, "{}", world.now - healed);
    world.ask_directly(0, 1);
    world.run_until(|world| world.clients.answered == 4);
    assert_eq!(world.clients.failed, 2);
    world.settle();
}

#[test]
fn a_pause_of_ours_is_no_silence_of_a_backend() {
    let mut world = World::new(1, LinkSettings { hedge: false, ..LinkSettings::default() });
    world.connect_all();
    for pause in [300_000, 900_000] {
        world.ask_directly(0, 1);
        world.run_until(|world| world.pipes.values().any(|pipe| !pipe.back.is_empty()));
        world.stand_still(pause);
        world.settle();
        assert_eq!(world.usage("b").loops_silent.load(Relaxed), 0);
    }
    assert_eq!((world.clients.answered, world.clients.failed), (2, 0));
}

#[test]
fn a_member_that_cannot_be_reached_is_an_error_for_its_slots_only() {
    let mut world = World::new(2, LinkSettings::default());
    world.backends[0].refuses = true;
    world.run_until(|world| world.usage("b").loops_connected.load(Relaxed) == 1);
    world.run_until(|world| world.usage("c").loops_connected.load(Relaxed) == 1);
    assert_eq!(world.usage("a").loops_connected.load(Relaxed), 0);
    for member in 0..3 {
        world.ask_directly(0, member);
    }
    world.run_until(|world| world.clients.answered == 3);
    assert_eq!(world.clients.failed, 1);
}

#[test]
fn a_late_reply_of_a_request_that_was_given_up_reaches_nobody_and_closes_nothing() {
    let mut world = World::new(3, LinkSettings { hedge: false, ..LinkSettings::default() });
    world.connect_all();
    world.backends[1].silent_until = world.now + 400_000;
    world.ask_directly(0, 1);
    world.run_until(|world| world.clients.answered == 1);
    assert_eq!(world.links.requests.len(), 2, "its place, and that of the sign of life, is kept");
    world.run_until(|world| world.links.requests.len() == 0);
    assert_eq!(world.clients.answered, 1);
    assert_eq!(world.total(|usage| &usage.poisoned_total), 0);
}

#[test]
fn a_reply_for_another_cache_closes_the_link() {
    let mut world = World::new(4, LinkSettings { hedge: false, ..LinkSettings::default() });
    world.connect_all();
    world.backends[1].wrong_cache = true;
    world.ask_directly(0, 1);
    world.run_until(|world| world.clients.answered == 1);
    assert_eq!(world.clients.failed, 1);
    assert_eq!(world.total(|usage| &usage.poisoned_total), 1);
    world.settle();
}

#[test]
fn a_slow_get_is_asked_again_on_the_other_connection() {
    let mut world = World::new(5, LinkSettings::default());
    world.connect_all();
    // A budget must be earned first.
    for _ in 0..100 {
        world.ask_directly(0, 1);
        world.settle();
    }
    let (busy, before) = (world.active_pipe("b"), world.clients.answered);
    world.pipes.get_mut(&busy).expect("it is up").stalled_until = world.now + 150_000;
    let began = world.now;
    world.ask_directly(0, 1);
    world.run_until(|world| before < world.clients.answered);
    assert!(world.now - began < 10_000, "{}", world.now - began);
    assert_eq!(world.clients.failed, 0);
    assert_eq!(world.usage("b").hedges_total.load(Relaxed), 1);
    // Both copies come to the backend, and one of them counts.
    world.settle();
    assert_eq!(world.counted, world.asked);
}

#[test]
fn a_connection_that_stalls_fails_nothing_while_its_backend_is_heard_on_the_other() {
    let mut world = World::new(7, LinkSettings { hedge: false, ..LinkSettings::default() });
    world.connect_all();
    let busy = world.active_pipe("b");
    // What a lost packet costs where the kernel sends it again twice.
    let until = world.now + 600_000;
    world.pipes.get_mut(&busy).expect("it is up").stalled_until = until;
    world.ask_directly(0, 1);
    world.run_until(|world| {
        assert_eq!(world.usage("b").loops_silent.load(Relaxed), 0, "it is heard");
        world.clients.answered == 1
    });
    assert!(until <= world.now && world.now < until + 10_000, "{}", world.now - until);
    assert_eq!(world.clients.failed, 0);
    // Signs of life are asked for a few times in that time, and not all the time.
    let asked = world.usage("b").requests_total.load(Relaxed);
    assert!((3..=10).contains(&asked), "{asked}");
    world.settle();
}

#[test]
fn a_connection_that_is_stuck_is_given_up_and_the_other_one_serves() {
    let mut world = World::new(8, LinkSettings { hedge: false, ..LinkSettings::default() });
    world.connect_all();
    let (busy, began) = (world.active_pipe("b"), world.now);
    world.pipes.get_mut(&busy).expect("it is up").stalled_until = Micros::MAX;
    world.ask_directly(0, 1);
    world.run_until(|world| !world.pipes.contains_key(&busy));
    let took = world.now - began;
    assert!((1_000_000..=1_010_000).contains(&took), "{took}");
    world.settle();
    let failed = world.clients.failed;
    world.ask_directly(0, 1);
    world.settle();
    assert_eq!(world.clients.failed, failed);
    assert_eq!(world.usage("b").loops_silent.load(Relaxed), 0);
}

#[test]
fn a_connection_whose_answers_never_become_whole_is_given_up() {
    let mut world = World::new(9, LinkSettings { hedge: false, ..LinkSettings::default() });
    world.connect_all();
    let (busy, began) = (world.active_pipe("b"), world.now);
    // A frame of 128 KiB has begun, which was one of 20 bytes before its length was damaged.
    world.pipes.get_mut(&busy).expect("it is up").rest = vec![20, 0, 2, 0];
    while world.pipes.contains_key(&busy) {
        world.ask_directly(0, 1);
        let until = world.now + 150_000;
        world.run_until(|world| until <= world.now);
        assert!(world.now - began < 1_200_000, "bytes come again and again");
    }
    world.settle();
    let failed = world.clients.failed;
    world.ask_directly(0, 1);
    world.settle();
    assert_eq!(world.clients.failed, failed);
}

#[test]
fn links_are_made_anew_one_at_a_time_and_no_request_fails() {
    for seed in 0..20 {
        let mut world = World::new(seed, LinkSettings::default());
        world.connect_all();
        let ids = |world: &World| -> Vec<u32> {
            let peers = world.links.peers.iter();
            peers.flat_map(|(_, peer)| &peer.links).map(|link| link.serial).collect()
        };
        let before = ids(&world);
        world.links.refresh();
        world.play(100_000);
        world.run_until(|world| world.links.refreshing.is_empty());
        world.settle();
        world.connect_all();
        assert!(ids(&world).iter().all(|serial| !before.contains(serial)), "seed {seed}");
        assert_eq!(world.clients.failed, 0, "seed {seed}");
    }
}

#[test]
fn members_that_leave_take_their_connections_along() {
    let mut world = World::new(6, LinkSettings::default());
    world.connect_all();
    world.ask_directly(0, 1);
    world.links.follow(view(2, &["a", "c"], 1), world.now, &mut world.clients);
    assert_eq!((world.clients.answered, world.clients.failed), (1, 1));
    assert_eq!(world.usage("b").loops_connected.load(Relaxed), 0);
    assert_eq!(world.usage("b").in_flight.load(Relaxed), 0);
    // A member that comes back as another run has nothing of the old one.
    world.links.follow(view(3, &["a", "b", "c"], 2), world.now, &mut world.clients);
    world.pipes.clear();
    let again = world.usage.member(&name("b"), Incarnation::new(2));
    world.run_until(|_| again.loops_connected.load(Relaxed) == 1);
    world.ask_directly(0, 1);
    world.run_until(|world| world.clients.answered == 2);
    assert_eq!(world.clients.failed, 1);
}

/// All there is: the links, the time, the backends and what is on the way between.
struct World {
    links: Links,
    now: Micros,
    random: Random,
    usage: Arc<LinkUsage>,
    backends: Vec<Backend>,
    /// Who has a slot in truth, where it is not as in the view.
    moved: HashMap<Slot, usize>,
    pipes: HashMap<LinkId, Pipe>,
    clients: Clients,
    faults: bool,
    moves: u64,
    lost: u64,
    silences: u64,
    /// The version that all backends speak.
    version: u8,
    /// Reads that came together with others, and those of them that were refused.
    together: u64,
    parted: u64,
    /// By key: gets of clients, and those that backends have counted.
    asked: HashMap<(CacheId, Vec<u8>), u64>,
    counted: HashMap<(CacheId, Vec<u8>), u64>,
}

/// One connection: bytes on their way, and when they arrive.
struct Pipe {
    to: usize,
    /// What the backend has and cannot read yet.
    heard: Vec<u8>,
    greeted: bool,
    /// What the links have and cannot read yet.
    rest: Vec<u8>,
    there: VecDeque<(Micros, Vec<u8>)>,
    back: VecDeque<(Micros, Vec<u8>)>,
    stalled_until: Micros,
}

#[derive(Default)]
struct Backend {
    items: HashMap<(CacheId, Vec<u8>), Vec<u8>>,
    silent_until: Micros,
    refuses: bool,
    wrong_cache: bool,
    /// Slots it was given and has seen the token of.
    activated: Vec<Slot>,
}

/// What clients did and heard; the oracle.
struct Clients {
    /// By client.
    talks: Vec<Talk>,
    answered: u64,
    failed: u64,
    now: Micros,
}

#[derive(Default)]
struct Talk {
    /// Requests on their way, by number, in order.
    asked: VecDeque<(u64, Asked, Option<Heard>)>,
    next: u64,
    held: usize,
    /// Of the routing by which all was sent that is on its way.
    version: u64,
    /// By key: what may be there.
    may_be: HashMap<(CacheId, usize), Vec<Option<u64>>>,
    /// Writes that failed and may still be on their way to where the slot comes back to: as with
    /// every memcached, they may be executed later.
    adrift: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    cache: CacheId,
    key: usize,
    /// `None` for a get.
    wrote: Option<u64>,
    at: Micros,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Heard {
    Found(Option<u64>),
    Stored,
    Failed(Failure),
}

#[derive(Debug, Default)]
struct Reached {
    answered: u64,
    failed: u64,
    moved: u64,
    lost: u64,
    silent: u64,
    strays: u64,
    hedges: u64,
    retries: u64,
    together: u64,
    parted: u64,
}

impl Reached {
    fn add(&mut self, world: &World) {
        self.answered += world.clients.answered;
        self.failed += world.clients.failed;
        self.moved += world.moves;
        self.lost += world.lost;
        self.silent += world.silences;
        self.together += world.together;
        self.parted += world.parted;
        self.strays += world.total(|usage| &usage.poisoned_total);
        self.hedges += world.total(|usage| &usage.hedges_total);
        self.retries += world.total(|usage| &usage.retries_total);
    }
}

impl World {
    fn new(seed: u64, settings: LinkSettings) -> Self {
        let usage = Arc::new(LinkUsage::default());
        let mut links = Links::new(settings, Seal::Checksum, Arc::clone(&usage), seed);
        let mut clients = Clients {
            talks: (0..CLIENTS).map(|_| Talk::default()).collect(),
            answered: 0,
            failed: 0,
            now: 1,
        };
        links.follow(view(1, &MEMBERS, 1), 0, &mut clients);
        World {
            links,
            now: 1,
            random: Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1),
            usage,
            backends: MEMBERS.iter().map(|_| Backend::default()).collect(),
            moved: HashMap::new(),
            pipes: HashMap::new(),
            clients,
            faults: false,
            moves: 0,
            lost: 0,
            silences: 0,
            version: if seed % 5 == 4 { MANY_VERSION - 1 } else { MANY_VERSION },
            together: 0,
            parted: 0,
            asked: HashMap::new(),
            counted: HashMap::new(),
        }
    }

    fn usage(&self, member: &str) -> Arc<crate::link_usage::MemberLinks> {
        self.usage.member(&name(member), Incarnation::new(1))
    }

    fn total(
        &self,
        count: impl Fn(&crate::link_usage::MemberLinks) -> &std::sync::atomic::AtomicU64,
    ) -> u64 {
        self.usage.members().iter().map(|(.., usage)| count(usage).load(Relaxed)).sum()
    }

    fn connect_all(&mut self) {
        self.run_until(|world| {
            world
                .links
                .peers
                .iter()
                .all(|(_, peer)| peer.links.iter().all(|link| link.phase == super::Phase::Up))
        });
    }

    /// Clients ask and faults happen for so long.
    fn play(&mut self, micros: Micros) {
        let until = self.now + micros;
        while self.now < until {
            for client in 0..CLIENTS {
                if self.random.below(4) == 0 {
                    self.ask(client);
                }
            }
            if self.faults {
                self.do_harm();
            }
            self.step();
        }
    }

    /// Nobody asks any more; everything comes to its end.
    fn settle(&mut self) {
        for backend in &mut self.backends {
            backend.silent_until = 0;
        }
        self.run_until(|world| {
            world.links.requests.len() == 0
                && world.clients.talks.iter().all(|talk| talk.asked.is_empty())
        });
        assert!(self.links.searching.is_empty());
        assert!(self.links.asking_who.is_empty());
        for (member, _, usage) in self.usage.members() {
            assert_eq!(usage.in_flight.load(Relaxed), 0, "{member}");
            assert_eq!(usage.queued.load(Relaxed), 0, "{member}");
        }
        for talk in &self.clients.talks {
            assert_eq!(talk.held, 0);
        }
        for (key, counted) in &self.counted {
            let asked = self.asked.get(key).copied().unwrap_or(0);
            assert!(*counted <= asked, "invariant: a get is counted once: {counted} of {asked}");
        }
    }

    #[track_caller]
    fn run_until(&mut self, done: impl Fn(&World) -> bool) {
        let limit = self.now + 20_000_000;
        while !done(self) {
            assert!(self.now < limit, "waited 20 s in vain");
            self.step();
        }
    }

    fn do_harm(&mut self) {
        let random = &mut self.random;
        if random.below(150) == 0
            && let Some(&id) = random.pick(&self.pipes)
        {
            self.lose(id);
        }
        if self.random.below(600) == 0 {
            let backend = self.random.below(3);
            self.backends[backend].silent_until = self.now + self.random.between(1_000, 400_000);
            self.silences += 1;
        }
        if self.random.below(100) == 0
            && let Some(&id) = self.random.pick(&self.pipes)
        {
            let until = self.now + self.random.between(3_000, 30_000);
            self.pipes.get_mut(&id).expect("picked").stalled_until = until;
        }
        if self.random.below(800) == 0
            && let Some(&id) = self.random.pick(&self.pipes)
        {
            self.send_a_stray(id);
        }
        if self.random.below(60) == 0 {
            self.move_a_slot();
        }
    }

    /// What was on its way may arrive, and the answers do not come back.
    fn lose(&mut self, id: LinkId) {
        self.lost += 1;
        if self.random.below(2) == 0 {
            self.pipes.get_mut(&id).expect("picked").stalled_until = 0;
            let all = self.pipes.get_mut(&id).expect("picked").there.drain(..).collect::<Vec<_>>();
            for (_, bytes) in all {
                self.backend_hears(id, &bytes);
            }
        }
        self.pipes.remove(&id);
        self.links.lost(id, self.now, &mut self.clients);
    }

    /// A reply that answers nothing that was asked on this connection.
    fn send_a_stray(&mut self, id: LinkId) {
        let Some(pipe) = self.pipes.get_mut(&id).filter(|pipe| pipe.greeted) else { return };
        let header = ReplyHeader { id: self.random.next() % 64, cache: CacheId::new(1) };
        let value = hit(b"somebody else's");
        let mut bytes = Vec::new();
        let answer = Answer::Done(Outcome::Get(Some(value)));
        Reply { header, answer }.encode(&mut bytes, Seal::Checksum);
        pipe.back.push_back((self.now, bytes));
    }

    /// The slot of some key gets another owner, with its items, in no time.
    fn move_a_slot(&mut self) {
        let (cache, key) = (CacheId::new(1 + self.random.below(2) as u64), self.random.below(KEYS));
        let client = self.random.below(CLIENTS);
        let slot = self.slot(cache, &key_bytes(client, key));
        let from = self.owner(slot);
        let to = (from + 1 + self.random.below(2)) % 3;
        // A slot moves on only when its owner serves it.
        if self.moved.contains_key(&slot) && !self.backends[from].activated.contains(&slot) {
            return;
        }
        self.moves += 1;
        let view = Arc::clone(self.links.routing().expect("there is one").view());
        let moving: Vec<_> = self.backends[from]
            .items
            .keys()
            .filter(|(cache, key)| view.slot(*cache, key) == slot)
            .cloned()
            .collect();
        for key in moving {
            let value = self.backends[from].items.remove(&key).expect("it was there");
            self.backends[to].items.insert(key, value);
        }
        for backend in &mut self.backends {
            backend.activated.retain(|other| *other != slot);
        }
        self.moved.insert(slot, to);
    }

    fn slot(&self, cache: CacheId, key: &[u8]) -> Slot {
        self.links.routing().expect("there is one").view().slot(cache, key)
    }

    fn owner(&self, slot: Slot) -> usize {
        let first = || self.links.routing().expect("there is one").view().owner(slot);
        self.moved.get(&slot).copied().unwrap_or_else(first)
    }

    /// A client asks for something, as its session would let it.
    fn ask(&mut self, client: usize) {
        let talk = &self.clients.talks[client];
        if 0 < talk.held || 8 < talk.asked.len() {
            return;
        }
        let cache = CacheId::new(1 + self.random.below(2) as u64);
        let key = self.random.below(KEYS);
        let wrote = (self.random.below(2) == 0).then(|| self.random.next());
        let slot = self.slot(cache, &key_bytes(client, key));
        let routing = self.links.routing().expect("there is one");
        let member = routing.member_of(slot);
        // As a session does: nothing by a newer routing while something is on its way.
        let talk = &mut self.clients.talks[client];
        if talk.asked.iter().all(|(.., heard)| heard.is_some()) {
            talk.version = routing.version();
        } else if talk.version != routing.version() {
            return;
        }
        let mut all = vec![(key, slot)];
        if wrote.is_none() && self.random.below(2) == 0 {
            let routing = self.links.routing().expect("there is one");
            let others = (0..KEYS).map(|key| (key, self.slot(cache, &key_bytes(client, key))));
            all.extend(others.filter(|&(_, slot)| routing.member_of(slot) == member));
        }
        self.submit(client, cache, &all, wrote, member);
    }

    /// A get that is sent to this member, whose slot it is said to be.
    fn ask_directly(&mut self, client: usize, member: usize) {
        let cache = CacheId::new(1);
        let key =
            (0..).find(|&key| self.owner(self.slot(cache, &key_bytes(client, key))) == member);
        let key = key.expect("every member owns some");
        let slot = self.slot(cache, &key_bytes(client, key));
        self.submit(client, cache, &[(key, slot)], None, member);
    }

    /// Sends a write of the only key, or gets of all, to one member.
    fn submit(
        &mut self,
        client: usize,
        cache: CacheId,
        keys: &[(usize, Slot)],
        wrote: Option<u64>,
        member: usize,
    ) {
        let mut outbox = Outbox::default();
        for &(key, slot) in keys {
            let far = Far { member, slot: Some(slot) };
            self.put(client, cache, key, wrote, far, &mut outbox);
        }
        for outgoing in outbox.drain() {
            self.links.submit(client, client as u64, outgoing, self.now, &mut self.clients);
        }
    }

    fn put(
        &mut self,
        client: usize,
        cache: CacheId,
        key: usize,
        wrote: Option<u64>,
        far: Far,
        outbox: &mut Outbox,
    ) {
        let talk = &mut self.clients.talks[client];
        let number = talk.next;
        talk.next += 1;
        talk.asked.push_back((number, Asked { cache, key, wrote, at: self.now }, None));
        let bytes = key_bytes(client, key);
        if wrote.is_none() {
            *self.asked.entry((cache, bytes.clone())).or_default() += 1;
        }
        let key = Key::new(&bytes).expect("short");
        let value = wrote.map(|number| value_bytes(cache, &bytes, number));
        let operation = match &value {
            None => Operation::Get(Get::plain(key)),
            Some(value) => Operation::Store(Store {
                key,
                value,
                flags: 0,
                exptime: Exptime(0),
                mode: StoreMode::Set,
                compare_cas: None,
                new_cas: None,
                invalidate: false,
                vivify: None,
            }),
        };
        outbox.ask(number, cache, far, None, &operation);
    }

    /// A little time passes.
    fn step(&mut self) {
        self.now += self.random.between(50, 500);
        self.clients.now = self.now;
        let due: Vec<LinkId> = self.pipes.keys().copied().collect();
        let mut due = due;
        due.sort_unstable_by_key(|id| (id.peer, id.link, id.serial));
        for id in due {
            self.deliver(id);
        }
        self.look();
    }

    /// This thread loses its core, just after it has asked the kernel for what came.
    fn stand_still(&mut self, micros: Micros) {
        self.now += micros;
        self.clients.now = self.now;
        self.look();
    }

    /// The rest of a turn of the loop, after it has heard what came.
    fn look(&mut self) {
        let is_due = self.links.next_due(self.now).is_some_and(|due| due <= self.now);
        let before = (!is_due).then(|| self.shape());
        self.links.tick(self.now, &mut self.clients);
        let is_same = before.is_none_or(|before| before == self.shape());
        assert!(is_same, "a look that was not due did something");
        while let Some(id) = self.links.next_gone() {
            self.pipes.remove(&id);
        }
        while let Some(Dial { id, address, .. }) = self.links.next_dial(self.now) {
            let to = usize::from(address.port() - 1);
            if self.backends[to].refuses || (self.faults && self.random.below(5) == 0) {
                self.links.lost(id, self.now, &mut self.clients);
            } else {
                self.pipes.insert(id, Pipe::new(to));
                self.links.connected(id);
            }
        }
        while let Some(id) = self.links.next_dirty() {
            self.write(id);
        }
    }

    /// What changes when a look does anything: what was answered, what is on its way, and how it stands.
    fn shape(&self) -> (u64, Vec<(u64, Stage, usize)>, usize, usize) {
        let requests = self.links.requests.iter();
        let requests = requests.map(|it| (it.id, it.stage.clone(), it.copies()));
        let (dirty, gone) = (self.links.dirty.len(), self.links.gone.len());
        (self.clients.answered, requests.collect(), dirty, gone)
    }

    /// The shell's write: some or all of what there is.
    fn write(&mut self, id: LinkId) {
        let output = self.links.output(id).to_vec();
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if output.is_empty() {
            return;
        }
        let part = if self.random.below(8) == 0 { self.random.below(output.len()) } else { 0 };
        for part in [&output[..part], &output[part..]] {
            let arrival = self.now + self.random.between(20, 300);
            let last = pipe.there.back().map_or(0, |(at, _)| *at);
            pipe.there.push_back((arrival.max(last), part.to_vec()));
        }
        self.links.wrote(id, output.len(), self.now, &mut self.clients);
    }

    fn deliver(&mut self, id: LinkId) {
        let now = self.now;
        let arrived = |pipe: &mut Pipe, back: bool| {
            if now < pipe.stalled_until {
                return None;
            }
            let queue = if back { &mut pipe.back } else { &mut pipe.there };
            (queue.front()?.0 <= now).then(|| queue.pop_front()).flatten().map(|(_, bytes)| bytes)
        };
        loop {
            let Some(pipe) = self.pipes.get_mut(&id) else { return };
            if now < self.backends[pipe.to].silent_until {
                break;
            }
            let Some(bytes) = arrived(pipe, false) else { break };
            self.backend_hears(id, &bytes);
        }
        loop {
            let Some(pipe) = self.pipes.get_mut(&id) else { return };
            let Some(bytes) = arrived(pipe, true) else { return };
            pipe.rest.extend(bytes);
            let rest = pipe.rest.clone();
            match self.links.received(id, &rest, now, &mut self.clients) {
                Ok(consumed) => {
                    if let Some(pipe) = self.pipes.get_mut(&id) {
                        pipe.rest.drain(..consumed);
                    }
                }
                Err(_) => {
                    self.links.note_poisoned(id);
                    self.pipes.remove(&id);
                    self.links.lost(id, now, &mut self.clients);
                }
            }
        }
    }

    /// A backend reads, executes in order, and answers after a while.
    fn backend_hears(&mut self, id: LinkId, bytes: &[u8]) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        pipe.heard.extend_from_slice(bytes);
        let mut answers = Vec::new();
        let mut heard = std::mem::take(&mut pipe.heard);
        let to = pipe.to;
        if !pipe.greeted {
            match Hello::decode(&heard).expect("our own") {
                None => {
                    pipe.heard = heard;
                    return;
                }
                Some((hello, consumed)) => {
                    assert_eq!(hello.to.as_str(), MEMBERS[to]);
                    heard.drain(..consumed);
                    pipe.greeted = true;
                    let (epoch, digest) = (hello.epoch, hello.digest);
                    let (version, without_caller) = (self.version, Some(Epoch::new(0)));
                    Greeting::Welcome(Welcome { version, epoch, digest, without_caller })
                        .encode(&mut answers);
                }
            }
        }
        let mut consumed = 0;
        while let Decoded::Complete { frame, consumed: length } =
            Request::decode(&heard[consumed..], Seal::Checksum).expect("our own")
        {
            consumed += length;
            self.execute(to, &frame, &mut answers);
        }
        heard.drain(..consumed);
        let pipe = self.pipes.get_mut(&id).expect("it was there");
        pipe.heard = heard;
        if !answers.is_empty() {
            let at = self.now + self.random.between(20, 400);
            let last = pipe.back.back().map_or(0, |(at, _)| *at);
            pipe.back.push_back((at.max(last), answers));
        }
    }

    fn execute(&mut self, me: usize, request: &Request<'_>, answers: &mut Vec<u8>) {
        let mut cache = request.header.cache;
        if self.backends[me].wrong_cache {
            cache = CacheId::new(cache.get() + 1);
        }
        let header = ReplyHeader { id: request.header.id, cache };
        let Operation::Many(reads) = request.operation else {
            return self.execute_one(me, request, &mut |answer| {
                Reply { header, answer }.encode(answers, Seal::Checksum);
            });
        };
        assert_eq!(self.version, MANY_VERSION, "what it does not understand");
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for read in reads.iter() {
            self.together += 1;
            let one = Request {
                header: RequestHeader { slot: read.slot, ..request.header },
                operation: read.decode().expect("our own"),
            };
            let mut said = Vec::new();
            let mut is_refused = false;
            self.execute_one(me, &one, &mut |answer| {
                is_refused = matches!(answer, Answer::Refused(_));
                AnswersWriter::new(&mut said, header, Seal::Checksum).push(&answer);
            });
            self.parted += u64::from(is_refused);
            frames.push(said);
        }
        // By lot each answer has its frame, or all have one.
        if self.random.below(2) == 0 {
            return answers.extend(frames.concat());
        }
        let mut together = AnswersWriter::new(answers, header, Seal::Checksum);
        for frame in &frames {
            let Ok(Decoded::Complete { frame, .. }) = Reply::decode(frame, Seal::Checksum) else {
                panic!("it was just written");
            };
            let Answer::Many(some) = frame.answer else { panic!("it was just written") };
            some.iter().for_each(|answer| together.push(&answer.expect("our own")));
        }
    }

    fn execute_one(&mut self, me: usize, request: &Request<'_>, say: &mut dyn FnMut(Answer<'_>)) {
        let header = request.header;
        let owner = self.owner(header.slot);
        let token = Token { epoch: Epoch::new(2), to: RunTag::new(owner as u64) };
        if let Some(key) = request.operation.key() {
            assert_eq!(self.slot(header.cache, key.bytes()), header.slot);
            if owner != me {
                if self.backends[owner].activated.contains(&header.slot)
                    && self.random.below(2) == 0
                {
                    // It has forgotten to whom it gave the slot.
                    let epoch = Epoch::new(2);
                    return say(Answer::Refused(Refusal::Unknown { epoch }));
                }
                let to = MEMBERS[owner];
                return say(Answer::Refused(Refusal::Moved { to, token }));
            }
            let backend = &mut self.backends[me];
            if self.moved.contains_key(&header.slot) && !backend.activated.contains(&header.slot) {
                if header.token != Some(token) {
                    // Whoever gave it away knows the token; by lot, nobody is named.
                    let giver = MEMBERS[(me + 1) % 3];
                    let ask = (self.random.below(2) == 0).then_some(giver);
                    return say(Answer::Refused(Refusal::NotYet { ask }));
                }
                backend.activated.push(header.slot);
            }
        }
        let items = &mut self.backends[me].items;
        match request.operation {
            Operation::Get(Get { key, .. }) | Operation::Peek(key) => {
                let place = (header.cache, key.bytes().to_vec());
                if matches!(request.operation, Operation::Get(_)) {
                    *self.counted.entry(place.clone()).or_default() += 1;
                }
                let found = items.get(&place);
                let found: GetOutcome<'_> = found.map(|value| hit(value));
                say(Answer::Done(Outcome::Get(found)));
            }
            Operation::Store(store) => {
                items.insert((header.cache, store.key.bytes().to_vec()), store.value.to_vec());
                let value_bytes = store.value.len() as u32;
                say(Answer::Done(Outcome::Store(StoreOutcome::Stored { cas: 1, value_bytes })));
            }
            Operation::Ping => say(Answer::Done(Outcome::Done)),
            Operation::Who if owner == me => say(Answer::Done(Outcome::Done)),
            Operation::Who => {
                say(Answer::Refused(Refusal::Unknown { epoch: Epoch::new(2) }));
            }
            Operation::Delete(_)
            | Operation::Arithmetic(_)
            | Operation::Touch(_)
            | Operation::Flush { .. }
            | Operation::Figures
            | Operation::ResetFigures
            | Operation::Many(_) => panic!("nobody asks {:?}", request.operation),
        }
    }

    /// The connection that requests to this member take.
    fn active_pipe(&self, member: &str) -> LinkId {
        let (peer, known) =
            self.links.peers.iter().find(|(_, peer)| peer.name.as_str() == member).expect("known");
        self.links.link_id(peer, known.active)
    }
}

impl Pipe {
    fn new(to: usize) -> Self {
        Pipe {
            to,
            heard: Vec::new(),
            greeted: false,
            rest: Vec::new(),
            there: VecDeque::new(),
            back: VecDeque::new(),
            stalled_until: 0,
        }
    }
}

impl Sink for Clients {
    fn answered(
        &mut self,
        asker: &Asker,
        was_held_to: bool,
        key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    ) {
        let client = asker.connection;
        let talk = &mut self.talks[client];
        talk.held -= usize::from(was_held_to);
        let place = talk.asked.iter_mut().find(|(number, ..)| *number == asker.number);
        let (_, asked, heard) = place.expect("invariant: a request is answered once");
        assert!(heard.is_none(), "invariant: a request is answered once");
        let waited = self.now - asked.at;
        assert!(waited <= 1_010_000, "invariant: an answer comes in time, not after {waited}");
        let bytes = key_bytes(client, asked.key);
        assert_eq!(key.map(|key| key.bytes().to_vec()), Some(bytes.clone()));
        self.answered += 1;
        *heard = Some(match result {
            Ok(Outcome::Get(None)) => Heard::Found(None),
            Ok(Outcome::Get(Some(hit))) => {
                let number = u64::from_le_bytes(hit.value[..8].try_into().expect("eight"));
                let expected = value_bytes(asked.cache, &bytes, number);
                assert_eq!(hit.value, expected, "invariant: nobody reads another's value");
                Heard::Found(Some(number))
            }
            Ok(Outcome::Store(_)) => Heard::Stored,
            Ok(other) => panic!("that was not asked: {other:?}"),
            Err(failure) => {
                self.failed += 1;
                Heard::Failed(*failure)
            }
        });
        talk.judge();
    }

    fn hold(&mut self, asker: &Asker) {
        self.talks[asker.connection].held += 1;
    }

    fn may_repeat(&mut self, asker: &Asker) -> bool {
        let talk = &mut self.talks[asker.connection];
        let is_write = |(_, asked, heard): &(u64, Asked, Option<Heard>)| {
            asked.wrote.is_some() && heard.is_none()
        };
        let may = !talk.asked.iter().any(is_write);
        talk.held += usize::from(may);
        may
    }
}

impl Talk {
    /// Looks at what was answered, in the order in which it was asked: a client's own gets see its
    /// own writes, whatever may have become of those that failed.
    fn judge(&mut self) {
        while let Some((_, asked, Some(heard))) = self.asked.front() {
            let may_be = self.may_be.entry((asked.cache, asked.key)).or_insert_with(|| vec![None]);
            match heard {
                Heard::Found(found) => {
                    let is_adrift = found.is_some_and(|found| self.adrift.contains(&found));
                    assert!(
                        is_adrift || may_be.contains(found),
                        "invariant: {asked:?} found {found:?}, not one of {may_be:?}"
                    );
                }
                Heard::Stored => *may_be = vec![asked.wrote],
                Heard::Failed(Failure::Unreachable | Failure::TimedOut) => {
                    may_be.extend(asked.wrote.map(Some));
                    self.adrift.extend(asked.wrote);
                }
                // Nothing was executed.
                Heard::Failed(Failure::Busy | Failure::NoOwner | Failure::NoCache) => (),
            }
            self.asked.pop_front();
        }
    }
}

/// Unlike any other client's.
fn key_bytes(client: usize, key: usize) -> Vec<u8> {
    format!("client{client}.key{key}").into_bytes()
}

/// Says whose it is.
fn value_bytes(cache: CacheId, key: &[u8], number: u64) -> Vec<u8> {
    [&number.to_le_bytes(), &cache.get().to_le_bytes(), key].concat()
}

fn hit(value: &[u8]) -> Hit<'_> {
    Hit {
        value,
        flags: 0,
        cas: 1,
        ttl_seconds: None,
        read_before: false,
        idle_seconds: 0,
        lease: Lease::default(),
    }
}

fn name(text: &str) -> MemberName {
    MemberName::parse(text).expect("a good name")
}

fn view(epoch: u64, members: &[&str], incarnation: u64) -> Arc<ClusterView> {
    let place = |text: &&str| {
        let port = 1 + MEMBERS.iter().position(|member| member == text).expect("one of ours");
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("small")));
        Place::There { address }
    };
    let owners = members.iter().map(|text| Member { name: name(text), weight: Weight::new(1) });
    let table = Scheme::Maglev.place(&Members::new(owners).expect("good members"));
    let known = members.iter().map(|text| ViewMember {
        name: name(text),
        node: NodeName::parse(text).expect("a good name"),
        incarnation: Incarnation::new(incarnation),
        place: place(text),
    });
    let identity = ViewIdentity {
        cluster: ClusterId::new([1; 16]),
        node: NodeName::parse("here").expect("a good name"),
        incarnation: Incarnation::new(1),
        backends: 1,
    };
    let map = ClusterMap::new(Epoch::new(epoch), table);
    let key = SlotKey::new([7; 16]);
    let view = ClusterView::new(identity, map, &key, known.collect(), &Networks::private());
    Arc::new(view.expect("a good view"))
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + (self.next() >> 11) % (to - from)
    }

    /// One of the connections, the same for the same seed.
    fn pick<'p>(&mut self, pipes: &'p HashMap<LinkId, Pipe>) -> Option<&'p LinkId> {
        let mut ids: Vec<&LinkId> = pipes.keys().collect();
        ids.sort_unstable_by_key(|id| (id.peer, id.link, id.serial));
        let chosen = self.below(ids.len().max(1));
        ids.get(chosen).copied()
    }
}
