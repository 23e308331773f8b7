//! What routing and links cost, without sockets: for `benches/links.rs`.
//!
//! One event loop's links to one member, which is played: it finds every key. What a get costs here is
//! all that a proxy does for it between its session and its socket, and back, and the member's part of
//! the frames.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cluster::map::{ClusterMap, Epoch};
use cluster::member::{Incarnation, Member, MemberName, Members, Weight};
use cluster::scheme::Scheme;
use cluster::slot::SlotKey;
use daemon::networks::Networks;
use protocol::operation::{Get, Hit, Key, Lease};
use tenancy::id::CacheId;
use wire::control::name::{ClusterId, NodeName};
use wire::data::frame::{Decoded, Seal};
use wire::data::handshake::{Greeting, Hello, Welcome};
use wire::data::many::AnswersWriter;
use wire::data::operation::Operation;
use wire::data::reply::{Answer, Outcome, Reply, ReplyHeader};
use wire::data::request::Request;

use crate::answers::Failure;
use crate::link_usage::LinkUsage;
use crate::links::{Asker, Dial, LinkId, LinkSettings, Links, Micros, Sink};
use crate::outbox::Outbox;
use crate::routing::Owner;
use crate::view::{ClusterView, Place, ViewIdentity, ViewMember};

const CACHE: CacheId = CacheId::new(7);
const VALUE: [u8; 100] = [b'x'; 100];
const SEAL: Seal = Seal::Checksum;

/// Links that are up.
pub struct Relay {
    links: Links,
    outbox: Outbox,
    answered: Answered,
    numbers: u64,
    now: Micros,
    /// What the member says, and half of what it has said before.
    said: Vec<u8>,
    heard: Vec<u8>,
}

/// Counts gets that found something.
#[derive(Default)]
struct Answered(usize);

impl Sink for Answered {
    fn answered(
        &mut self,
        _asker: &Asker,
        _was_held_to: bool,
        _key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    ) {
        self.0 += usize::from(matches!(result, Ok(Outcome::Get(Some(_)))));
    }

    fn hold(&mut self, _asker: &Asker) {}

    fn may_repeat(&mut self, _asker: &Asker) -> bool {
        true
    }
}

impl Relay {
    /// # Panics
    /// When the links do not come up, which would be a bug.
    #[expect(clippy::new_without_default, reason = "nothing about it is a default")]
    pub fn new() -> Self {
        let settings = LinkSettings { hedge: false, ..LinkSettings::default() };
        let mut relay = Relay {
            links: Links::new(settings, SEAL, Arc::new(LinkUsage::default()), 1),
            outbox: Outbox::default(),
            answered: Answered::default(),
            numbers: 0,
            now: 1,
            said: Vec::new(),
            heard: Vec::new(),
        };
        relay.links.follow(view(), relay.now, &mut relay.answered);
        while let Some(Dial { id, .. }) = relay.links.next_dial(relay.now) {
            relay.links.connected(id);
            let (hello, _) = Hello::decode(relay.links.output(id))
                .expect("our own")
                .expect("it is written whole");
            let (epoch, digest) = (hello.epoch, hello.digest);
            let version = hello.version().expect("our own");
            let without_caller = Some(Epoch::new(0));
            let welcome = Welcome { version, epoch, digest, without_caller };
            Greeting::Welcome(welcome).encode(&mut relay.said);
            relay.exchange(id);
        }
        relay
    }

    /// The member who is asked about a key, by its place in the view. `None` if it is in this
    /// process, where nothing is.
    ///
    /// # Panics
    /// When the key is none that a client may send.
    pub fn route(&self, key: &[u8]) -> Option<usize> {
        let key = Key::new(key).expect("the caller's promise");
        match self.links.routing()?.owner(CACHE, key) {
            Owner::Here { .. } => None,
            Owner::There(far) => Some(far.member),
        }
    }

    /// So many sessions ask for one key each, in one turn of the loop, and are answered.
    ///
    /// # Panics
    /// When one is not, which would be a bug.
    pub fn gets(&mut self, count: usize) {
        self.now += 100;
        self.answered.0 = 0;
        for session in 0..count {
            let key = Key::new(b"user:42:profile").expect("a good key");
            let Some(Owner::There(far)) =
                self.links.routing().map(|routing| routing.owner(CACHE, key))
            else {
                panic!("nothing is in this process");
            };
            self.numbers += 1;
            let get = Operation::Get(Get::plain(key));
            self.outbox.ask(self.numbers, CACHE, far, None, &get);
            for outgoing in self.outbox.drain() {
                self.links.submit(session, 1, outgoing, self.now, &mut self.answered);
            }
        }
        while let Some(id) = self.links.next_dirty() {
            self.member_answers(id);
            self.exchange(id);
        }
        assert_eq!(self.answered.0, count, "all are answered");
    }

    /// The member carries out what is on its way to it.
    fn member_answers(&mut self, id: LinkId) {
        let mut rest = self.links.output(id);
        while let Ok(Decoded::Complete { frame, consumed }) = Request::decode(rest, SEAL) {
            let header = ReplyHeader { id: frame.header.id, cache: frame.header.cache };
            let answer = Answer::Done(Outcome::Get(Some(HIT)));
            if let Operation::Many(reads) = frame.operation {
                let mut answers = AnswersWriter::new(&mut self.said, header, SEAL);
                reads.iter().for_each(|_| answers.push(&answer));
            } else {
                Reply { header, answer }.encode(&mut self.said, SEAL);
            }
            rest = &rest[consumed..];
        }
        assert!(rest.is_empty(), "frames are written whole");
    }

    /// What was to be written has been, and what the member said comes.
    fn exchange(&mut self, id: LinkId) {
        let written = self.links.output(id).len();
        self.links.wrote(id, written, self.now, &mut self.answered);
        self.heard.append(&mut self.said);
        let consumed = self.links.received(id, &self.heard, self.now, &mut self.answered);
        self.heard.drain(..consumed.expect("our own"));
    }
}

const HIT: Hit<'static> = Hit {
    value: &VALUE,
    flags: 0,
    cas: 99,
    ttl_seconds: None,
    read_before: true,
    idle_seconds: 3,
    lease: Lease { won: false, stale: false, taken: false },
};

/// A cluster of one member on another node.
fn view() -> Arc<ClusterView> {
    let name = MemberName::parse("there.b0").expect("a good name");
    let member = Member { name: name.clone(), weight: Weight::new(1) };
    let table = Scheme::Maglev.place(&Members::new([member]).expect("one member"));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let known = ViewMember {
        name,
        node: NodeName::parse("there").expect("a good name"),
        incarnation: Incarnation::new(1),
        place: Place::There { address },
    };
    let identity = ViewIdentity {
        cluster: ClusterId::new([1; 16]),
        node: NodeName::parse("here").expect("a good name"),
        incarnation: Incarnation::new(1),
        backends: 1,
    };
    let map = ClusterMap::new(Epoch::FIRST, table);
    let key = SlotKey::new([7; 16]);
    let view = ClusterView::new(identity, map, &key, vec![known], &Networks::private());
    Arc::new(view.expect("a good view"))
}

#[cfg(test)]
mod tests {
    use super::Relay;

    #[test]
    fn gets_go_to_the_other_node_and_come_back() {
        let mut relay = Relay::new();
        assert_eq!(relay.route(b"a key"), Some(0));
        (1..70).for_each(|count| relay.gets(count));
    }
}
