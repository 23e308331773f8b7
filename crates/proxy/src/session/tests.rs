//! Conversations with a session, over items kept in a map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

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
use tenancy::secret::SecretKey;

use super::{Session, Then, Turn};
use crate::link::BackendLink;
use crate::settings::Access;
use crate::usage::ProxyUsage;

const CACHE: CacheId = CacheId::new(7);
const USERNAME: &str = "someone";
const PASSWORD: &str = "correct-horse-battery";
const NOW: Now = Now { since_start: 10, unix: 1_800_000_000 };
const LOGIN: &[u8] = b"set someone 0 0 21\r\ncorrect-horse-battery\r\n";

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
struct Bench {
    directory: Directory,
    key: SecretKey,
    usage: Arc<ProxyUsage>,
    link: MapLink,
}

impl Bench {
    fn new() -> Self {
        let key = SecretKey::new([3; 32]);
        let bench = Bench {
            directory: Directory::new(key.clone()),
            key,
            usage: Arc::default(),
            link: MapLink::default(),
        };
        let limits = Limits { memory_bytes: 1 << 20, item_bytes_max: 4096, connections_max: 2 };
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
            then: Then::Read { bytes_total: 1 },
            access: Access::Credentials,
            output_bytes_max: usize::MAX,
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
    then: Then,
    access: Access,
    output_bytes_max: usize,
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

    fn hears(&mut self, input: &[u8]) {
        self.pending.extend_from_slice(input);
        self.consumed = 0;
        let turn = Turn {
            link: &self.bench.link,
            directory: &self.bench.directory,
            usage: &self.bench.usage,
            access: self.access,
            now: NOW,
            output_bytes_max: self.output_bytes_max,
        };
        let mut room = KeyRoom::new();
        loop {
            let mut out = Vec::new();
            let served = self.session.serve(&self.pending, &mut out, &mut room, &turn);
            self.heard.extend(out);
            self.pending.drain(..served.consumed);
            self.consumed += served.consumed;
            self.then = served.then;
            match served.then {
                Then::Drain => self.drains += 1,
                Then::Read { .. } | Then::Skip { .. } | Then::Close => return,
            }
        }
    }
}

/// Items in a map: enough of a backend to talk about, and no more.
#[derive(Default)]
struct MapLink(Mutex<Items>);

type Items = HashMap<Vec<u8>, (Vec<u8>, u32)>;

impl MapLink {
    fn items(&self) -> MutexGuard<'_, Items> {
        self.0.lock().expect("no test panics while it holds the items")
    }
}

impl BackendLink for MapLink {
    type Cache = ();
    type Located<'k> = Key<'k>;

    fn open(&self, cache: CacheId) -> Option<()> {
        (cache == CACHE).then_some(())
    }

    fn locate<'k>(&self, (): &(), key: Key<'k>) -> Key<'k> {
        key
    }

    fn warm(&self, (): &(), _batch: &[Key<'_>]) {}

    fn get<R>(
        &self,
        (): &(),
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
        (): &(),
        _at: Key<'_>,
        _now: Now,
        visit: impl FnOnce(Option<Hit<'_>>) -> R,
    ) -> R {
        visit(None)
    }

    fn store(&self, (): &(), at: Key<'_>, store: &Store<'_>, _now: Now) -> StoreOutcome {
        self.items().insert(at.bytes().to_vec(), (store.value.to_vec(), store.flags));
        StoreOutcome::Stored { cas: 1, value_bytes: store.value.len() as u32 }
    }

    fn delete(&self, (): &(), at: Key<'_>, _delete: &Delete<'_>, _now: Now) -> DeleteOutcome {
        match self.items().remove(at.bytes()) {
            Some(_) => DeleteOutcome::Deleted,
            None => DeleteOutcome::NotFound,
        }
    }

    fn arithmetic(
        &self,
        (): &(),
        _at: Key<'_>,
        _arithmetic: &Arithmetic<'_>,
        _now: Now,
    ) -> ArithmeticOutcome {
        ArithmeticOutcome::NotFound
    }

    fn touch(&self, (): &(), _at: Key<'_>, _touch: &Touch<'_>, _now: Now) -> TouchOutcome {
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
