//! Conversations with a session, over items kept in a map.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

use cluster::ownership::Token;
use cluster::slot::Slot;
use daemon::clock::Now;
use protocol::key_room::KeyRoom;
use protocol::operation::{
    Arithmetic, ArithmeticOutcome, Delete, DeleteOutcome, Exptime, Get, GetOutcome, Hit, Key,
    Lease, Store, StoreOutcome, Touch, TouchOutcome,
};
use tenancy::capability::{Capabilities, Capability};
use tenancy::directory::Directory;
use tenancy::id::{CacheId, Username};
use tenancy::plan::Limits;
use tenancy::rules::{Network, Rule, RuleId, Ruling};
use tenancy::secret::SecretKey;
use wire::control::usage::Figure;

use super::{Session, Then, Turn};
use crate::link::{BackendLink, NotHere};
use crate::outbox::{Outbox, Outgoing};
use crate::routing::Routing;
use crate::settings::Access;
use crate::spares::Spares;
use crate::usage::ProxyUsage;

pub(crate) const CACHE: CacheId = CacheId::new(7);
const USERNAME: &str = "someone";
const PASSWORD: &str = "correct-horse-battery";
pub(crate) const NOW: Now = Now { since_start: 10, unix: 1_800_000_000 };
pub(crate) const LOGIN: &[u8] = b"set someone 0 0 21\r\ncorrect-horse-battery\r\n";

#[test]
fn a_stranger_may_only_authenticate() {
    let bench = Bench::new();
    let mut talk = bench.talk();
    talk.says(b"get a\r\n", b"CLIENT_ERROR unauthenticated\r\n");
    talk.says(b"what is this\r\n", b"CLIENT_ERROR unauthenticated\r\n");
    talk.says(LOGIN, b"STORED\r\n");
    let get = b"\x80\x00\x00\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0a";
    let mut talk = bench.talk();
    talk.hears(get);
    assert_eq!(talk.heard[..8], *b"\x81\x00\0\0\0\0\0\x20", "{}", talk.heard.escape_ascii());
    assert_eq!(talk.then, Then::Close);
}

#[test]
fn a_login_need_not_make_sense_but_for_its_secret() {
    let bench = Bench::new();
    bench.talk().says(b"set _ _ _ 29\r\nsomeone correct-horse-battery\r\n", b"STORED\r\n");
    let quiet = b"set someone 16 60 21 noreply\r\ncorrect-horse-battery\r\nget a\r\n";
    bench.talk().says(quiet, b"END\r\n");
}

#[test]
fn both_ascii_dialects_open_the_door() {
    let bench = Bench::new();
    bench.talk().says(LOGIN, b"STORED\r\n");
    let both = b"set any 5 0 29\r\nsomeone correct-horse-battery\r\n";
    bench.talk().says(both, b"STORED\r\n");
}

#[test]
fn a_wrong_password_closes() {
    let bench = Bench::new();
    let mut talk = bench.talk();
    talk.says(b"set someone 0 0 5\r\nwrong\r\n", b"CLIENT_ERROR authentication failure\r\n");
    assert_eq!(talk.then, Then::Close);
}

#[test]
fn a_wrong_password_counts_for_the_cache_whose_username_it_came_with() {
    let bench = Bench::new();
    for wrong in ["set someone 0 0 5\r\nwrong\r\n", "set nobody 0 0 5\r\nwrong\r\n"] {
        bench.talk().says(wrong.as_bytes(), b"CLIENT_ERROR authentication failure\r\n");
    }
    bench.talk().says(LOGIN, b"STORED\r\n");
    let figures = bench.usage.known(CACHE).expect("it was used").figures();
    let count = |wanted| figures.iter().find(|(figure, _)| *figure == wanted).map(|it| it.1);
    assert_eq!(count(Figure::AuthErrors), Some(1));
    assert_eq!(count(Figure::TotalConnections), Some(1));
    assert_eq!(bench.usage.authentication_failures_total.load(Relaxed), 2);
}

#[test]
fn requests_may_follow_the_password_at_once() {
    let bench = Bench::new();
    let mut talk = bench.talk();
    let input = [LOGIN, b"set a 0 0 1\r\nx\r\nget a\r\n"].concat();
    talk.says(&input, b"STORED\r\nSTORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn the_cut_of_the_bytes_does_not_matter() {
    let bench = Bench::new();
    let input = [LOGIN, b"set a 0 0 3\r\nabc\r\nget a b\r\nmg a v\r\ndelete a\r\n"].concat();
    let mut whole = bench.talk();
    whole.hears(&input);
    for cut in 1..input.len() {
        let mut talk = bench.talk();
        talk.hears(&input[..cut]);
        talk.hears(&input[cut..]);
        assert_eq!(talk.heard, whole.heard, "cut at {cut}");
    }
}

#[test]
fn a_capability_is_read_for_every_request() {
    let bench = Bench::new();
    let mut talk = bench.member();
    talk.heard.clear();
    bench.allow(Capabilities::NONE);
    talk.hears(b"set a 0 0 1\r\nx\r\n");
    assert!(talk.heard.starts_with(b"CLIENT_ERROR"), "{}", talk.heard.escape_ascii());
    assert!(bench.link.items().is_empty());
    talk.heard.clear();
    talk.says(b"get a\r\n", b"END\r\n");
    bench.allow(Capabilities::NONE.with(Capability::Write));
    talk.says(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n");
    talk.heard.clear();
    talk.hears(b"flush_all\r\n");
    assert!(talk.heard.starts_with(b"CLIENT_ERROR"), "{}", talk.heard.escape_ascii());
}

#[test]
fn nobody_gets_into_a_cache_from_an_address_that_is_blocked_for_it() {
    let bench = Bench::new();
    let rule = |cache, address: &str| Rule {
        id: RuleId(1),
        cache: Some(CacheId::new(cache)),
        network: Network::parse(address).expect("an address"),
        ruling: Ruling::Block,
        expires_at: 1_800_000_001,
    };
    let input = [LOGIN, b"set a 0 0 1\r\nx\r\n"].concat();
    bench.directory.put_rule(rule(CACHE.get(), "192.0.2.1"));
    let mut talk = bench.talk();
    talk.hears(&input);
    assert_eq!(talk.heard, b"SERVER_ERROR address is blocked\r\n");
    assert_eq!(talk.then, Then::Close);
    assert!(bench.link.items().is_empty(), "not even what came along with the password");
    // Of another address, or of another cache.
    let mut elsewhere = Talk { from: IpAddr::from([192, 0, 2, 2]), ..bench.talk() };
    elsewhere.says(LOGIN, b"STORED\r\n");
    bench.directory.put_rule(rule(CACHE.get() + 1, "192.0.2.1"));
    bench.talk().says(LOGIN, b"STORED\r\n");
    // Without passwords it is no different.
    bench.directory.put_rule(rule(CACHE.get(), "192.0.2.1"));
    let mut everyone = Talk { access: Access::Everyone(CACHE), ..bench.talk() };
    everyone.says(b"get a\r\n", b"");
    assert_eq!(everyone.then, Then::Close);
}

#[test]
fn a_deleted_credential_ends_the_session() {
    let bench = Bench::new();
    let mut talk = bench.member();
    bench.directory.remove_credential(&username());
    talk.says(b"get a\r\n", b"");
    assert_eq!(talk.then, Then::Close);
}

#[test]
fn an_oversize_value_is_skipped_and_the_old_one_forgotten() {
    let bench = Bench::new();
    let mut talk = bench.member();
    talk.says(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n");
    talk.says(b"set a 0 0 5000\r\nyyyyy", b"SERVER_ERROR object too large for cache\r\n");
    let Then::Skip { bytes } = talk.then else { panic!("{:?}", talk.then) };
    let sent = b"set a 0 0 5000\r\nyyyyy".len() as u64;
    let whole = b"set a 0 0 5000\r\n".len() as u64 + 5000 + 2;
    assert_eq!(bytes + talk.consumed as u64, whole, "{sent} bytes were sent");
    assert!(bench.link.items().is_empty());
}

#[test]
fn a_multi_get_goes_on_where_the_full_output_stopped_it() {
    let bench = Bench::new();
    let mut input = LOGIN.to_vec();
    for number in 0..100 {
        input.extend(format!("set k{number} 0 0 10\r\n0123456789\r\n").into_bytes());
    }
    let keys: Vec<_> = (0..100).map(|number| format!("k{number}")).collect();
    input.extend(format!("get {}\r\nget k1\r\n", keys.join(" ")).into_bytes());
    let mut whole = bench.talk();
    whole.hears(&input);
    let mut drained = bench.talk();
    drained.output_bytes_max = 64;
    drained.hears(&input);
    assert!(20 < drained.drains, "drained {} times only", drained.drains);
    assert_eq!(drained.heard.escape_ascii().to_string(), whole.heard.escape_ascii().to_string());
}

#[test]
fn whoever_asks_for_very_much_is_answered_in_portions() {
    let bench = Bench::of(1);
    let mut talk = bench.member();
    let value = "x".repeat(1_000);
    let keys: Vec<_> = (0..800).map(|number| format!("k{number}")).collect();
    for key in &keys {
        talk.hears(format!("set {key} 0 0 1000\r\n{value}\r\n").as_bytes());
    }
    let one = |key: &String| format!("VALUE {key} 0 1000\r\n{value}\r\n");
    let items: String = keys.iter().map(one).collect();
    let each: String = keys.iter().map(|key| one(key) + "END\r\n").collect();
    let small: String = keys.iter().map(|key| format!("get no-{key}\r\n")).collect();
    for (what, asked, answer, drains) in [
        ("by bytes", format!("get {}\r\n", keys.join(" ")), items + "END\r\n", 3),
        ("pipelined", format!("get {}\r\n", keys.join("\r\nget ")), each, 3),
        ("by operations", small, "END\r\n".repeat(800), 1),
    ] {
        (talk.drains, talk.operations) = (0, 0);
        talk.heard.clear();
        talk.hears(asked.as_bytes());
        assert!(talk.heard == answer.as_bytes(), "{what}: another answer");
        assert_eq!((talk.drains, talk.operations), (drains, 800), "{what}");
    }
}

#[test]
fn everyone_needs_no_password_where_none_is_asked_for() {
    let bench = Bench::new();
    let mut talk = bench.talk();
    talk.access = Access::Everyone(CACHE);
    talk.says(b"set a 0 0 1\r\nx\r\nget a\r\n", b"STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn a_cache_has_as_many_connections_as_its_plan_allows() {
    let bench = Bench::new();
    let first = bench.member();
    let second = bench.member();
    let mut third = bench.talk();
    third.says(LOGIN, b"SERVER_ERROR too many connections for this cache\r\n");
    drop((first, second));
    bench.talk().says(LOGIN, b"STORED\r\n");
}

/// A directory with one cache and one credential, and its items.
pub(crate) struct Bench {
    pub(crate) directory: Directory,
    key: SecretKey,
    pub(crate) usage: Arc<ProxyUsage>,
    pub(crate) link: MapLink,
}

impl Bench {
    fn new() -> Self {
        Bench::of(2)
    }

    /// With so many connections.
    pub(crate) fn of(connections_max: u32) -> Self {
        let key = SecretKey::new([3; 32]);
        let bench = Bench {
            directory: Directory::new(key.clone()),
            key,
            usage: Arc::default(),
            link: MapLink::default(),
        };
        let limits = Limits {
            memory_bytes: 1 << 20,
            item_bytes_max: 4096,
            connections_max,
            rates: tenancy::plan::Rates::UNLIMITED,
        };
        bench.directory.put_cache(CACHE, limits, true);
        bench.allow(Capabilities::ALL);
        bench
    }

    fn allow(&self, capabilities: Capabilities) {
        let hash = self.key.hash(USERNAME.as_bytes(), PASSWORD.as_bytes());
        self.directory
            .put_credential(CACHE, username(), hash, capabilities)
            .expect("the cache was put first");
    }

    fn talk(&self) -> Talk<'_> {
        Talk {
            bench: self,
            session: Session::new(),
            pending: Vec::new(),
            heard: Vec::new(),
            consumed: 0,
            drains: 0,
            awaits: 0,
            then: Then::Read { bytes_total: 1 },
            access: Access::Credentials,
            from: IpAddr::from([192, 0, 2, 1]),
            output_bytes_max: usize::MAX,
            routing: None,
            outbox: Vec::new(),
            spares: Spares::default(),
            nobody_listens: false,
            operations: 0,
        }
    }

    /// A talk that is past the password.
    fn member(&self) -> Talk<'_> {
        let mut talk = self.talk();
        talk.says(LOGIN, b"STORED\r\n");
        talk
    }
}

fn username() -> Username {
    Username::parse(USERNAME).expect("a valid name")
}

/// One client's side: what it has said that was not consumed, and what it has heard.
struct Talk<'a> {
    bench: &'a Bench,
    session: Session<MapLink>,
    pending: Vec<u8>,
    heard: Vec<u8>,
    /// Of the last input.
    consumed: usize,
    drains: usize,
    awaits: usize,
    then: Then,
    access: Access,
    from: IpAddr,
    output_bytes_max: usize,
    routing: Option<&'a Routing>,
    outbox: Vec<Outgoing>,
    spares: Spares,
    nobody_listens: bool,
    operations: u64,
}

impl Talk<'_> {
    /// Says `input` and checks that exactly `expected` is heard.
    #[track_caller]
    fn says(&mut self, input: &[u8], expected: &[u8]) {
        self.heard.clear();
        self.hears(input);
        let (heard, expected) = (self.heard.escape_ascii(), expected.escape_ascii());
        assert_eq!(heard.to_string(), expected.to_string());
    }

    /// What is charged: as the connection does.
    fn charge(&mut self, input: &[u8], now_us: u64) -> (u64, Option<u64>) {
        self.hears(input);
        let operations = std::mem::take(&mut self.operations);
        self.session.count(input.len(), self.heard.len(), operations, now_us);
        (operations, self.session.held_until(now_us))
    }

    fn hears(&mut self, input: &[u8]) {
        self.pending.extend_from_slice(input);
        self.consumed = 0;
        let mut outbox = Outbox::default();
        std::mem::swap(&mut outbox.spares, &mut self.spares);
        let mut turn = Turn {
            link: &self.bench.link,
            directory: &self.bench.directory,
            usage: &self.bench.usage,
            access: self.access,
            from: Some(self.from),
            now: NOW,
            output_bytes_max: self.output_bytes_max,
            routing: self.routing,
            outbox: &mut outbox,
            now_us: 0,
            nobody_listens: self.nobody_listens,
            operations: 0,
            bytes: 0,
        };
        let mut room = KeyRoom::new();
        loop {
            let mut out = Vec::new();
            let served = self.session.serve(&self.pending, &mut out, &mut room, &mut turn);
            self.heard.extend(out);
            self.pending.drain(..served.consumed);
            self.consumed += served.consumed;
            self.then = served.then;
            match served.then {
                Then::Drain => self.drains += 1,
                Then::Await => self.awaits += 1,
                Then::Read { .. } | Then::Skip { .. } | Then::Close => (),
            }
            if served.then != Then::Drain {
                break;
            }
            // Its next turn.
            self.operations += std::mem::take(&mut turn.operations);
        }
        self.operations += turn.operations;
        self.outbox.extend(outbox.drain());
        self.spares = outbox.spares;
    }
}

#[test]
fn where_nobody_listens_what_changes_something_is_carried_out_and_the_rest_is_not() {
    let bench = Bench::new();
    let mut talk = bench.member();
    talk.says(b"set a 0 0 1\r\n1\r\nset b 0 0 1\r\n2\r\n", b"STORED\r\nSTORED\r\n");
    talk.nobody_listens = true;
    talk.says(
        b"get a\r\nget a b\r\nmg a v\r\nget b\r\ndelete a noreply\r\nset b 0 0 1\r\n3\r\nget a b\r\n",
        b"STORED\r\n",
    );
    assert!(talk.pending.is_empty());
    talk.nobody_listens = false;
    talk.says(b"get a b\r\n", b"VALUE b 0 1\r\n3\r\nEND\r\n");
}

#[test]
fn each_key_and_each_other_command_is_charged_once() {
    let bench = Bench::new();
    let mut talk = bench.member();
    talk.operations = 0;
    let limits = Limits {
        memory_bytes: 1 << 20,
        item_bytes_max: 4096,
        connections_max: 2,
        rates: tenancy::plan::Rates { operations_per_second: 10, bytes_per_second: 0 },
    };
    bench.directory.put_cache(CACHE, limits, true);
    let second = 1_000_000;
    assert_eq!(talk.charge(b"get a\r\n", second), (1, None), "a tenth of a second is saved up");
    assert_eq!(talk.charge(b"get a b c\r\nversion\r\n", 2 * second), (4, Some(2_300_000)));
    assert_eq!(talk.charge(b"set a 0 0 1\r\nx\r\nmg a v\r\nmn\r\n", 5 * second).0, 3);
    // What another of the cache's sessions has used is this one's to wait for, too.
    let mut other = bench.member();
    assert_eq!(other.charge(b"", 5 * second).1, talk.charge(b"", 5 * second).1);
    bench.directory.put_cache(
        CACHE,
        Limits { rates: tenancy::plan::Rates::UNLIMITED, ..limits },
        true,
    );
    assert_eq!(talk.charge(b"get a\r\n", 5 * second), (1, None), "the limit was lifted");
}

/// Items in a map: enough of a backend to talk about, and no more.
#[derive(Default)]
pub(crate) struct MapLink(
    Mutex<Items>,
    /// What the next check of ownership says.
    Mutex<Option<NotHere>>,
);

type Items = HashMap<Vec<u8>, (Vec<u8>, u32)>;

impl MapLink {
    pub(crate) fn items(&self) -> MutexGuard<'_, Items> {
        self.0.lock().expect("no test panics while it holds the items")
    }
}

impl BackendLink for MapLink {
    type Cache = ();
    type Located<'k> = Key<'k>;

    fn open(&self, cache: CacheId) -> Option<()> {
        (cache == CACHE).then_some(())
    }

    type Batch<'b> = ();
    type Guard<'g> = ();

    fn enter(&self) {}

    fn check(&self, (): &(), _backend: usize, _slot: Slot) -> Result<(), NotHere> {
        self.1.lock().expect("no test panics while it holds it").take().map_or(Ok(()), Err)
    }

    fn accept(&self, _backend: usize, _slot: Slot, _token: Token) {}

    fn locate<'k>(&self, (): &(), _backend: usize, key: Key<'k>) -> Key<'k> {
        key
    }

    fn begin(&self, (): &()) {}

    fn warm(&self, (): &mut (), _places: &[Key<'_>]) {}

    fn get<R>(
        &self,
        (): &mut (),
        at: Key<'_>,
        _get: &Get<'_>,
        _now: Now,
        visit: impl FnOnce(GetOutcome<'_>) -> R,
    ) -> R {
        visit(self.items().get(at.bytes()).map(|(value, flags)| Hit {
            value,
            flags: *flags,
            cas: 1,
            ttl_seconds: None,
            read_before: false,
            idle_seconds: 0,
            lease: Lease::default(),
        }))
    }

    fn peek<R>(
        &self,
        (): &mut (),
        _at: Key<'_>,
        _now: Now,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        visit(None)
    }

    fn store(&self, (): &mut (), at: Key<'_>, store: &Store<'_>, _now: Now) -> StoreOutcome {
        self.items().insert(at.bytes().to_vec(), (store.value.to_vec(), store.flags));
        StoreOutcome::Stored { cas: 1, value_bytes: store.value.len() as u32 }
    }

    fn delete(&self, (): &mut (), at: Key<'_>, _delete: &Delete<'_>, _now: Now) -> DeleteOutcome {
        match self.items().remove(at.bytes()) {
            Some(_) => DeleteOutcome::Deleted,
            None => DeleteOutcome::NotFound,
        }
    }

    fn arithmetic(
        &self,
        (): &mut (),
        _at: Key<'_>,
        _arithmetic: &Arithmetic<'_>,
        _now: Now,
    ) -> ArithmeticOutcome {
        ArithmeticOutcome::NotFound
    }

    fn touch(&self, (): &mut (), _at: Key<'_>, _touch: &Touch<'_>, _now: Now) -> TouchOutcome {
        TouchOutcome::NotFound
    }

    fn flush(&self, (): &(), _delay: Exptime, _now: Now) {
        self.items().clear();
    }

    fn figures(&self, (): &()) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn reset_stats(&self, (): &()) {}

    fn maintain(&self, _now: Now) -> bool {
        false
    }
}

/// Conversations in which each item is on one of three nodes, of which this is one.
mod far {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use cluster::map::{ClusterMap, Epoch};
    use cluster::member::{Incarnation, Member, MemberName, Members, Weight};
    use cluster::scheme::Scheme;
    use cluster::slot::SlotKey;
    use protocol::operation::Key;
    use wire::control::inquiry::Status;
    use wire::control::name::{ClusterId, NodeName};
    use wire::data::operation::Operation;
    use wire::data::reply::{Figures, Outcome};

    use super::{Bench, CACHE, LOGIN, MapLink, NOW, Talk};
    use crate::answers::Failure;
    use crate::link::{BackendLink, NotHere};
    use crate::outbox::Outgoing;
    use crate::routing::Routing;
    use crate::session::Then;
    use crate::view::{ClusterView, Place, ViewIdentity, ViewMember};
    use daemon::networks::Networks;

    /// Whatever a client says, it hears the same as if every item were here.
    #[test]
    fn answers_come_in_order_whoever_answers_first() {
        let routing = routing();
        let mut together = 0;
        for input in conversations() {
            let bench = Bench::new();
            let mut near = Far::new(bench.talk(), None, 0);
            near.says(&input);
            let expected = near.talk.heard.escape_ascii().to_string();
            for seed in 0..200 {
                let bench = Bench::new();
                let mut far = Far::new(bench.talk(), Some(&routing), seed);
                far.says(&input);
                assert_eq!(far.talk.heard.escape_ascii().to_string(), expected, "seed {seed}");
                assert!(4 < far.asked, "only {} requests left the node", far.asked);
                together += far.together;
            }
        }
        assert!(1_000 < together, "only {together} reads went together");
    }

    #[test]
    fn the_cut_of_the_bytes_does_not_matter() {
        let routing = routing();
        for input in conversations() {
            let bench = Bench::new();
            let mut near = Far::new(bench.talk(), None, 0);
            near.says(&input);
            let expected = near.talk.heard.escape_ascii().to_string();
            for cut in 1..input.len() {
                let bench = Bench::new();
                let mut far = Far::new(bench.talk(), Some(&routing), cut as u64);
                far.says(&input[..cut]);
                far.says(&input[cut..]);
                assert_eq!(far.talk.heard.escape_ascii().to_string(), expected, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_small_output_limit_holds_requests_back_and_changes_no_answer() {
        let routing = routing();
        let mut input = LOGIN.to_vec();
        for number in 0..100 {
            input.extend(format!("set k{number} 0 0 100\r\n{:0100}\r\n", number).into_bytes());
        }
        let keys: Vec<_> = (0..100).map(|number| format!("k{number}")).collect();
        input.extend(format!("get {}\r\nget k1\r\n", keys.join(" ")).into_bytes());
        let bench = Bench::new();
        let mut near = bench.talk();
        near.hears(&input);
        let bench = Bench::new();
        let mut far = Far::new(bench.talk(), Some(&routing), 1);
        far.talk.output_bytes_max = 1_000;
        far.says(&input);
        assert!(10 < far.talk.awaits, "it awaited {} times only", far.talk.awaits);
        let expected = near.heard.escape_ascii().to_string();
        assert_eq!(far.talk.heard.escape_ascii().to_string(), expected);
    }

    #[test]
    fn an_unreachable_owner_is_an_error_for_its_keys_and_a_miss_where_errors_have_no_place() {
        let routing = routing();
        let (here, there) = (key_at(&routing, "a"), key_at(&routing, "b"));
        let bench = Bench::new();
        let mut far = Far::new(bench.talk(), Some(&routing), 1);
        far.says(&[LOGIN, format!("set {here} 0 0 1\r\nx\r\n").as_bytes()].concat());
        far.failure = Some(Failure::Unreachable);
        far.check(&format!("set {there} 0 0 1\r\nx\r\n"), "SERVER_ERROR backend unreachable\r\n");
        far.check(&format!("set {there} 0 0 1 noreply\r\nx\r\n"), "");
        far.check(&format!("get {there}\r\n"), "SERVER_ERROR backend unreachable\r\n");
        far.check(&format!("get {there} {here}\r\n"), &format!("VALUE {here} 0 1\r\nx\r\nEND\r\n"));
        far.check(&format!("mg {there} v q\r\nmn\r\n"), "MN\r\n");
        far.check(
            "flush_all\r\n",
            "SERVER_ERROR not flushed everywhere: a backend is unreachable, try again\r\n",
        );
        far.check("stats reset\r\n", "RESET\r\n");
    }

    #[test]
    fn figures_of_all_backends_are_summed_once() {
        let routing = routing();
        let bench = Bench::new();
        let mut far = Far::new(bench.talk(), Some(&routing), 1);
        far.says(LOGIN);
        far.talk.heard.clear();
        far.says(b"stats\r\n");
        let heard = String::from_utf8_lossy(&far.talk.heard).into_owned();
        // Two nodes were asked, and each told of five.
        assert!(heard.contains("STAT curr_items 10\r\n") && heard.ends_with("END\r\n"), "{heard}");
        assert_eq!(heard.matches("curr_items").count(), 1, "{heard}");
        assert_eq!(heard.matches("curr_connections").count(), 1, "{heard}");
        // Of the plan, not of what each of them may hold.
        assert!(heard.contains("STAT limit_maxbytes 1048576\r\n"), "{heard}");
    }

    #[test]
    fn nothing_overtakes_a_request_that_is_sent_again() {
        let routing = routing();
        let there = key_at(&routing, "b");
        let bench = Bench::new();
        let mut far = Far::new(bench.talk(), Some(&routing), 1);
        far.says(LOGIN);
        far.talk.heard.clear();
        far.talk.hears(format!("set {there} 0 0 1\r\nx\r\n").as_bytes());
        let first = far.talk.outbox.remove(0);
        far.talk.session.note_resent();
        far.talk.hears(format!("get {there}\r\n").as_bytes());
        assert_eq!(far.talk.then, Then::Await);
        assert!(far.talk.outbox.is_empty());
        far.execute(&first, true);
        far.drain();
        assert_eq!(
            far.talk.heard,
            format!("STORED\r\nVALUE {there} 0 1\r\nx\r\nEND\r\n").as_bytes()
        );
    }

    #[test]
    fn nothing_is_sent_by_a_newer_view_while_older_requests_are_on_their_way() {
        let (older, newer) = (routing(), Routing::new(Arc::clone(routing().view()), 2));
        let there = key_at(&older, "b");
        let bench = Bench::new();
        let mut far = Far::new(bench.talk(), Some(&older), 1);
        far.says(LOGIN);
        far.talk.hears(format!("set {there} 0 0 1\r\nx\r\n").as_bytes());
        let first = far.talk.outbox.remove(0);
        far.talk.routing = Some(&newer);
        far.talk.hears(format!("get {there}\r\n").as_bytes());
        assert_eq!(far.talk.then, Then::Await);
        assert!(far.talk.outbox.is_empty());
        far.execute(&first, false);
        far.talk.heard = far.talk.session.take_ready(&mut far.talk.spares);
        far.talk.hears(b"");
        assert_eq!(far.talk.outbox.len(), 1);
    }

    #[test]
    fn what_a_backend_of_this_node_will_not_do_goes_to_the_links() {
        let routing = routing();
        let here = key_at(&routing, "a");
        let bench = Bench::new();
        let mut far = Far::new(bench.talk(), Some(&routing), 1);
        far.says(LOGIN);
        let not_here = NotHere::Unknown { epoch: Epoch::new(3) };
        *bench.link.1.lock().expect("nobody panics") = Some(not_here.clone());
        far.talk.hears(format!("set {here} 0 0 1\r\nx\r\n").as_bytes());
        let sent = far.talk.outbox.pop().expect("it was sent away");
        assert_eq!(sent.elsewhere, Some(not_here));
        assert!(bench.link.items().is_empty());
    }

    #[test]
    fn a_repetition_is_refused_while_a_write_is_on_its_way() {
        let routing = routing();
        let there = key_at(&routing, "b");
        let bench = Bench::new();
        let mut far = Far::new(bench.talk(), Some(&routing), 1);
        far.says(LOGIN);
        far.talk.hears(format!("get {there}\r\n").as_bytes());
        assert!(far.talk.session.may_repeat());
        far.drain_as(true);
        far.talk.hears(format!("get {there}\r\ndelete {there}\r\n").as_bytes());
        assert!(!far.talk.session.may_repeat());
        far.drain();
    }

    #[test]
    fn commands_are_recorded_wherever_their_items_are_while_someone_wants_to_know() {
        let routing = routing();
        let (here, there) = (key_at(&routing, "a"), key_at(&routing, "b"));
        let bench = Bench::new();
        let mut far = Far::new(bench.talk(), Some(&routing), 1);
        far.says(LOGIN);
        far.says(format!("get {here} {there}\r\n").as_bytes());
        let usage = bench.usage.cache(CACHE);
        assert!(usage.recent.commands().is_empty());
        usage.recent.want(NOW);
        for input in [
            format!("set {here} 0 0 3\r\nabc\r\n"),
            format!("set {there} 0 0 2\r\nab\r\n"),
            format!("get {here} {there}\r\n"),
            format!("mg {there} v\r\n"),
            format!("delete {there}\r\n"),
            format!("get {there}\r\n"),
        ] {
            far.says(input.as_bytes());
        }
        let recorded = usage.recent.commands();
        let recorded: Vec<_> = recorded
            .iter()
            .map(|it| {
                let key = String::from_utf8_lossy(&it.key).into_owned();
                (it.name.as_str(), key, it.status, it.value_bytes)
            })
            .collect();
        let expected = [
            ("set", here.clone(), Status::Stored, 3),
            ("set", there.clone(), Status::Stored, 2),
            ("get", here, Status::Hit, 3),
            ("get", there.clone(), Status::Hit, 2),
            ("mg", there.clone(), Status::Hit, 2),
            ("delete", there.clone(), Status::Deleted, 0),
            ("get", there, Status::Miss, 0),
        ];
        assert_eq!(recorded, expected);
    }

    /// A talk, and the other nodes it is about.
    struct Far<'a> {
        talk: Talk<'a>,
        /// By place in the view's members.
        nodes: [MapLink; 3],
        random: u64,
        asked: usize,
        /// Of those, reads that came with others.
        together: usize,
        /// Bytes still to come that belong to a refused request.
        skip: usize,
        /// All other nodes fail so.
        failure: Option<Failure>,
    }

    impl<'a> Far<'a> {
        fn new(mut talk: Talk<'a>, routing: Option<&'a Routing>, seed: u64) -> Self {
            talk.routing = routing;
            let nodes = std::array::from_fn(|_| MapLink::default());
            Far { talk, nodes, random: seed, asked: 0, together: 0, skip: 0, failure: None }
        }

        #[track_caller]
        fn check(&mut self, input: &str, expected: &str) {
            self.talk.heard.clear();
            self.says(input.as_bytes());
            let heard = String::from_utf8_lossy(&self.talk.heard);
            assert_eq!(heard, expected, "after {input:?}");
        }

        fn says(&mut self, input: &[u8]) {
            let skipped = self.skip.min(input.len());
            self.skip -= skipped;
            self.talk.hears(&input[skipped..]);
            self.drain();
            while let Then::Skip { bytes } = self.talk.then {
                let here = self.talk.pending.len().min(bytes as usize);
                self.talk.pending.drain(..here);
                self.skip = bytes as usize - here;
                self.talk.hears(b"");
                self.drain();
            }
        }

        fn drain(&mut self) {
            self.drain_as(false);
        }

        /// Other nodes answer until nothing is awaited: each in order, among them by lot.
        fn drain_as(&mut self, resent: bool) {
            loop {
                let ready = self.talk.session.take_ready(&mut self.talk.spares);
                self.talk.heard.extend(ready);
                let outbox = &self.talk.outbox;
                if outbox.is_empty() {
                    if self.talk.then != Then::Await {
                        return;
                    }
                    self.talk.hears(b"");
                    continue;
                }
                self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let chosen = outbox[(self.random >> 33) as usize % outbox.len()].far.member;
                let first = outbox.iter().position(|o| o.far.member == chosen).expect("chosen");
                let outgoing = self.talk.outbox.remove(first);
                self.execute(&outgoing, resent);
            }
        }

        /// What the owner does.
        fn execute(&mut self, outgoing: &Outgoing, resent: bool) {
            let member = outgoing.far.member;
            let operation = Operation::decode(&outgoing.operation).expect("our own");
            let Operation::Many(reads) = operation else {
                return self.execute_one(member, outgoing.number, &operation, resent);
            };
            assert_eq!(reads.iter().count(), outgoing.numbers.len());
            let last = outgoing.numbers.last();
            for (read, number) in reads.iter().zip(&outgoing.numbers) {
                self.together += 1;
                let read = read.decode().expect("our own");
                // The links count them as one.
                self.execute_one(member, *number, &read, resent && Some(number) == last);
            }
        }

        fn execute_one(
            &mut self,
            member: usize,
            number: u64,
            operation: &Operation<'_>,
            resent: bool,
        ) {
            self.asked += 1;
            let session = &mut self.talk.session;
            let key = operation.key();
            if let Some(failure) = self.failure {
                return session.answered(number, resent, key, &Err(failure));
            }
            let mut answer = |outcome: Outcome<'_>| {
                session.answered(number, resent, key, &Ok(outcome));
            };
            let link = &self.nodes[member];
            let mut buffer = Vec::new();
            match *operation {
                Operation::Get(get) => {
                    link.get(&mut (), get.key, &get, NOW, |hit| answer(Outcome::Get(hit)));
                }
                Operation::Peek(key) => {
                    link.peek(&mut (), key, NOW, |hit| answer(Outcome::Get(hit)))
                }
                Operation::Store(store) => {
                    answer(Outcome::Store(link.store(&mut (), store.key, &store, NOW)));
                }
                Operation::Delete(delete) => {
                    answer(Outcome::Delete(link.delete(&mut (), delete.key, &delete, NOW)));
                }
                Operation::Arithmetic(sum) => {
                    answer(Outcome::Arithmetic(link.arithmetic(&mut (), sum.key, &sum, NOW)));
                }
                Operation::Touch(touch) => {
                    answer(Outcome::Touch(link.touch(&mut (), touch.key, &touch, NOW)));
                }
                Operation::Flush { delay } => {
                    link.flush(&(), delay, NOW);
                    answer(Outcome::Done);
                }
                Operation::Figures => {
                    answer(Outcome::Figures(Figures::encode([("curr_items", 5)], &mut buffer)));
                }
                Operation::ResetFigures | Operation::Who | Operation::Ping => answer(Outcome::Done),
                Operation::Many(_) => panic!("they go one by one"),
            }
        }
    }

    /// One of each dialect, with all that makes order hard: quiet commands, multi-gets, what no
    /// owner answers, refusals, and an end.
    fn conversations() -> Vec<Vec<u8>> {
        let mut text = LOGIN.to_vec();
        for number in 0..20 {
            text.extend(format!("set k{number} {number} 0 3\r\n{number:03}\r\n").into_bytes());
        }
        text.extend(b"get k1 k2 k3 k4 nobody k5 k6 k7 k8\r\nversion\r\n");
        text.extend(b"set k1 0 0 1 noreply\r\ny\r\nget k1\r\ngets k2 k3\r\nnonsense\r\n");
        text.extend(b"delete k2\r\ndelete k2\r\ndelete k3 noreply\r\nincr k4 1\r\ntouch k5 0\r\n");
        text.extend(b"set k6 0 0 9000\r\n");
        text.extend([b'z'; 9000]);
        text.extend(b"\r\nget k5 k6 k7\r\nflush_all\r\nget k8\r\nverbosity 1\r\nquit\r\n");

        let mut meta = LOGIN.to_vec();
        for number in 0..10 {
            meta.extend(format!("ms k{number} 2 q O{number}\r\n{number:02}\r\n").into_bytes());
        }
        meta.extend(b"mg k1 v O1 q\r\nmg nobody v q\r\nmg k2 v k q\r\nmg azI= v b k\r\nmn\r\n");
        meta.extend(b"ms k1 1 Oabc k\r\nz\r\nmg k1 v s f O9\r\nmd k2 q\r\nmd k2 k O7\r\nme k3\r\n");
        meta.extend(b"ma k4 q\r\nmg k5 v\r\nmn\r\n");

        let frame = |opcode: u8, opaque: u8, extras: &[u8], key: &[u8], value: &[u8]| {
            let body = (extras.len() + key.len() + value.len()) as u32;
            let mut frame = vec![0x80, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
            frame.extend(body.to_be_bytes());
            frame.extend([0, 0, 0, opaque]);
            frame.extend([0; 8]);
            frame.extend([extras, key, value].concat());
            frame
        };
        let mut binary = frame(0x21, 0, b"", b"PLAIN", b"\0someone\0correct-horse-battery");
        for number in 0..10_u8 {
            let key = [b'k', b'0' + number];
            // SETQ, then GETKQ and GETQ of it and of nothing.
            binary.extend(frame(0x11, number, &[0; 8], &key, &[number; 3]));
            binary.extend(frame(0x0d, 100 + number, b"", &key, b""));
            binary.extend(frame(0x09, 200 + number, b"", &[b'n', number], b""));
        }
        binary.extend(frame(0x0a, 77, b"", b"", b""));
        binary.extend(frame(0x00, 78, b"", b"k3", b""));
        binary.extend(frame(0x14, 79, b"", b"k3", b""));
        binary.extend(frame(0x0c, 80, b"", b"k3", b""));
        binary.extend(frame(0x07, 81, b"", b"", b""));
        vec![text, meta, binary]
    }

    /// Three members: `a` is here, `b` and `c` are on other nodes.
    fn routing() -> Routing {
        let name = |name| MemberName::parse(name).expect("a good name");
        let address: SocketAddr = "127.0.0.1:9".parse().expect("a literal");
        let places =
            [Place::Here { backend: 0 }, Place::There { address }, Place::There { address }];
        let members = ["a", "b", "c"].into_iter().zip(places).map(|(text, place)| ViewMember {
            name: name(text),
            node: NodeName::parse(text).expect("a good name"),
            incarnation: Incarnation::new(1),
            place,
        });
        let owners =
            ["a", "b", "c"].map(|text| Member { name: name(text), weight: Weight::new(1) });
        let table = Scheme::Maglev.place(&Members::new(owners).expect("good members"));
        let identity = ViewIdentity {
            cluster: ClusterId::new([1; 16]),
            node: NodeName::parse("here").expect("a good name"),
            incarnation: Incarnation::new(1),
            backends: 1,
        };
        let map = ClusterMap::new(Epoch::FIRST, table);
        let key = SlotKey::new([7; 16]);
        let view = ClusterView::new(identity, map, &key, members.collect(), &Networks::private());
        Routing::new(Arc::new(view.expect("a good view")), 1)
    }

    fn key_at(routing: &Routing, owner: &str) -> String {
        let mut keys = (0..).map(|number| format!("key{number}"));
        let is_there = |key: &String| {
            let key = Key::new(key.as_bytes()).expect("short");
            let slot = routing.view().slot(CACHE, key.bytes());
            routing.view().members()[routing.member_of(slot)].name.as_str() == owner
        };
        keys.find(is_there).expect("every member owns some")
    }
}
