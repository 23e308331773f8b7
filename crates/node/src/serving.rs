//! Makes the data plane of this process serve by what the copy says.

use std::collections::BTreeSet;
use std::sync::Arc;

use tenancy::directory::Directory;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::rules::Open;
use wire::control::inquiry::{Answer, Question};
use wire::control::record::{CacheRecord, Record};
use wire::control::records::{Change, Records};
use wire::control::rules::Cut;
use wire::control::usage::{CacheReport, Share};

/// Makes room for caches and forgets. The program implements it over its backends.
///
/// Every method may be called twice with the same effect as once.
pub trait DataPlane: Send + Sync {
    /// Makes a cache, or gives the one there is these limits.
    ///
    /// # Errors
    /// There is no room for it; the text says how much there is. It stays as it was.
    fn put_cache(&self, id: CacheId, limits: Limits) -> Result<(), String>;

    /// Drops a cache and all its items.
    fn remove_cache(&self, id: CacheId);

    /// Forgets all items of a cache.
    fn flush_cache(&self, id: CacheId);

    /// What has changed in the use of caches since the last call; with `anew`, everything is told
    /// again, at once or with the next calls.
    fn usage(&self, anew: bool) -> UsageChanges;

    /// Lets backends hold so much of these caches. Those that are not known are passed over.
    fn share(&self, shares: &[Share]);

    /// Says, every [`crate::link::USAGE_EVERY`] and before [`DataPlane::usage`], that control still weighs
    /// shares, although it may have nothing new to say.
    fn keep_shares(&self);

    /// The connections of clients that are open here, by cache and address.
    fn open(&self) -> Vec<Open>;

    /// Answers what a person wants to know of the caches. Takes milliseconds at most.
    fn answer(&self, _: &Question) -> Answer {
        Answer::NoCache
    }
}

/// What a data plane tells of the use of its caches.
#[derive(Debug, Default)]
pub struct UsageChanges {
    /// See [`wire::control::usage::UsageReport::run`].
    pub run: u64,
    pub caches: Vec<CacheReport>,
    /// Whether everything has been told, with this, since it was last to be told anew.
    pub is_all: bool,
}

/// Changes served by at once when a copy is replaced: a megabyte, and a few milliseconds in which
/// nobody can authenticate.
const PORTION_CHANGES_MAX: usize = 4_096;

/// The directory and the data plane, kept in step with the records.
pub struct Serving {
    directory: Arc<Directory>,
    data_plane: Arc<dyn DataPlane>,
    /// Caches that did not fit. Their clients are told that the backend does not know them.
    without_room: BTreeSet<CacheId>,
}

impl Serving {
    pub fn new(directory: Arc<Directory>, data_plane: Arc<dyn DataPlane>) -> Self {
        Serving { directory, data_plane, without_room: BTreeSet::new() }
    }

    /// Whether some cache did not fit.
    pub fn lacks_room(&self) -> bool {
        !self.without_room.is_empty()
    }

    /// Serves by the difference between two copies, in the order of [`sort_for_serving`], some
    /// thousand changes at a time: the first copy may be a million of them, which would take ten
    /// times the copy's memory, and nobody could authenticate while they were all taken in.
    ///
    /// [`sort_for_serving`]: wire::control::replica::sort_for_serving
    pub fn replace(&mut self, before: &Records, after: &Records) {
        let mut portion = Portion { serving: self, changes: Vec::new() };
        before.cache_differences(after, |old, new| {
            if new.is_some() {
                portion.add(old.map(Record::Cache), new.map(Record::Cache));
            }
        });
        before.rule_differences(after, |old, new| {
            portion.add(old.map(Record::Rule), new.map(Record::Rule));
        });
        for comes in [false, true] {
            before.credential_differences(after, |old, new| {
                if new.is_some() == comes {
                    portion.add(old.map(Record::Credential), new.map(Record::Credential));
                }
            });
        }
        before.cache_differences(after, |old, new| {
            if new.is_none() {
                portion.add(old.map(Record::Cache), None);
            }
        });
        portion.serve();
    }

    /// Serves by these changes, in their order. Clients see them all at once: the data plane makes
    /// room before, and forgets after, nobody can come in any more.
    pub fn apply(&mut self, changes: &[Change]) {
        for cache in changes.iter().filter_map(new_limits) {
            match self.data_plane.put_cache(cache.id, cache.limits) {
                Ok(()) => drop(self.without_room.remove(&cache.id)),
                Err(why) => {
                    tracing::error!(cache = cache.id.get(), why, "no room for a cache");
                    self.without_room.insert(cache.id);
                }
            }
        }
        self.tell_directory(changes);
        for change in changes {
            match (change.before, change.after) {
                (Some(Record::Cache(old)), Some(Record::Cache(new)))
                    if old.flush_generation < new.flush_generation =>
                {
                    self.data_plane.flush_cache(new.id);
                }
                (Some(Record::Cache(old)), None) => {
                    self.without_room.remove(&old.id);
                    self.data_plane.remove_cache(old.id);
                }
                _ => (),
            }
        }
    }

    fn tell_directory(&self, changes: &[Change]) {
        let mut batch = self.directory.batch();
        for change in changes {
            match (change.before, change.after) {
                (_, Some(Record::Cache(it))) => batch.put_cache(it.id, it.limits, it.enabled),
                (_, Some(Record::Credential(it))) => {
                    let put = batch.put_credential(it.cache, it.username, it.hash, it.capabilities);
                    // The copy has no credential without its cache, and caches come first.
                    debug_assert!(put.is_ok());
                }
                (Some(Record::Cache(it)), None) => batch.remove_cache(it.id),
                (Some(Record::Credential(it)), None) => batch.remove_credential(&it.username),
                (_, Some(Record::Rule(rule))) => batch.put_rule(rule),
                (Some(Record::Rule(rule)), None) => batch.remove_rule(rule.id),
                (None, None) => (),
            }
        }
    }

    /// Answers what a person wants to know. `now` is Unix time in seconds.
    pub fn answer(&self, question: &Question, now: u64) -> Answer {
        match question {
            Question::Cut(change) => {
                let (rules, open) = (self.directory.rules(), self.data_plane.open());
                Answer::Cut(Cut::of(rules.cut_by(*change, open.into_iter(), now)))
            }
            Question::Popular(_)
            | Question::Key { .. }
            | Question::Recent(_)
            | Question::ResetStatistics(_)
            | Question::Prefixes { .. }
            | Question::Latency => self.data_plane.answer(question),
        }
    }
}

/// Some of the differences between two copies, on their way to be served by.
struct Portion<'a> {
    serving: &'a mut Serving,
    changes: Vec<Change>,
}

impl Portion<'_> {
    /// Adds what became of one record: `before` and `after` are not the same.
    fn add(&mut self, before: Option<Record>, after: Option<Record>) {
        let Some(either) = before.or(after) else { return };
        self.changes.push(Change { key: either.key(), before, after });
        if self.changes.len() == PORTION_CHANGES_MAX {
            self.serve();
        }
    }

    fn serve(&mut self) {
        self.serving.apply(&self.changes);
        self.changes.clear();
    }
}

/// The cache of a change that makes it, or gives it other limits.
fn new_limits(change: &Change) -> Option<CacheRecord> {
    match (change.before, change.after) {
        (Some(Record::Cache(old)), Some(Record::Cache(new))) if old.limits == new.limits => None,
        (_, Some(Record::Cache(new))) => Some(new),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Mutex;

    use tenancy::capability::Capabilities;
    use tenancy::id::Username;
    use tenancy::rules::{Network, Rule, RuleChange, RuleId, Ruling};
    use tenancy::secret::SecretKey;
    use wire::control::record::CredentialRecord;

    use super::*;

    const KEY: [u8; 32] = [3; 32];

    /// Notes what it is told.
    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Told {
        fn note(&self, what: &str, id: CacheId) {
            self.0.lock().expect("nobody panicked").push(format!("{what} {id}"));
        }
    }

    impl DataPlane for Told {
        fn put_cache(&self, id: CacheId, _: Limits) -> Result<(), String> {
            self.note("put", id);
            Ok(())
        }

        fn remove_cache(&self, id: CacheId) {
            self.note("remove", id);
        }

        fn flush_cache(&self, id: CacheId) {
            self.note("flush", id);
        }

        fn usage(&self, _: bool) -> UsageChanges {
            UsageChanges { is_all: true, ..UsageChanges::default() }
        }

        fn share(&self, _: &[Share]) {}

        fn keep_shares(&self) {}

        fn open(&self) -> Vec<Open> {
            let address = |last| IpAddr::from([192, 0, 2, last]);
            let open = |cache, last| Open { cache, address: address(last), connections: 3 };
            vec![open(Some(CacheId::new(1)), 1), open(Some(CacheId::new(1)), 2), open(None, 1)]
        }
    }

    /// Caches by number with their flush generation, and credentials by number with their cache. A
    /// credential's password is its name.
    fn records(caches: &[(u64, u64)], credentials: impl Iterator<Item = (u64, u64)>) -> Records {
        let mut records = Records::default();
        for &(id, flush_generation) in caches {
            let limits = Limits {
                memory_bytes: 1 << 20,
                item_bytes_max: 1 << 20,
                connections_max: 9,
                rates: tenancy::plan::Rates::UNLIMITED,
            };
            let id = CacheId::new(id);
            records.put(Record::Cache(CacheRecord { id, limits, enabled: true, flush_generation }));
        }
        for (number, cache) in credentials {
            let name = format!("u{number}");
            records.put(Record::Credential(CredentialRecord {
                username: Username::parse(&name).expect("a good name"),
                cache: CacheId::new(cache),
                hash: SecretKey::new(KEY).hash(name.as_bytes(), name.as_bytes()),
                capabilities: Capabilities::ALL,
            }));
        }
        records
    }

    #[test]
    fn a_copy_of_several_portions_is_served_whole() {
        let many = PORTION_CHANGES_MAX as u64 * 2 + 1;
        let directory = Arc::new(Directory::new(SecretKey::new(KEY)));
        let told = Arc::new(Told::default());
        let mut serving = Serving::new(Arc::clone(&directory), Arc::clone(&told) as _);
        let who = |user: u64| {
            let name = format!("u{user}");
            let grant = directory.authenticate(name.as_bytes(), name.as_bytes()).ok()?;
            Some(grant.cache().id().get())
        };
        let told_now = || std::mem::take(&mut *told.0.lock().expect("nobody panicked"));

        // All of cache 1, then half of them in cache 2, which is new, and the rest gone with cache 1.
        let first = records(&[(1, 0), (3, 0)], (0..many).map(|user| (user, 1)));
        serving.replace(&Records::default(), &first);
        assert_eq!((who(0), who(many - 1)), (Some(1), Some(1)));
        let mut puts = told_now();
        puts.sort();
        assert_eq!(puts, ["put 1", "put 3"]);

        let second = records(&[(2, 0), (3, 1)], (0..many / 2).map(|user| (user, 2)));
        serving.replace(&first, &second);
        for user in 0..many {
            assert_eq!(who(user), (user < many / 2).then_some(2), "{user}");
        }
        assert_eq!(told_now(), ["put 2", "flush 3", "remove 1"]);

        serving.replace(&second, &second.clone());
        assert!(told_now().is_empty());
    }

    #[test]
    fn rules_are_served_by_and_asked_about() {
        let directory = Arc::new(Directory::new(SecretKey::new(KEY)));
        let told = Arc::new(Told::default());
        let mut serving = Serving::new(Arc::clone(&directory), told as _);
        let rule = Rule {
            id: RuleId(1),
            cache: None,
            network: Network::parse("192.0.2.1").expect("a network"),
            ruling: Ruling::Block,
            expires_at: 10,
        };
        let question = Question::Cut(RuleChange::Put(rule));
        let Answer::Cut(cut) = serving.answer(&question, 9) else { panic!("another answer") };
        assert_eq!((cut.connections, cut.caches.as_slice()), (6, &[(CacheId::new(1), 3)][..]));
        assert!(directory.rules().is_empty(), "asking changes nothing");

        let first = records(&[(1, 0)], std::iter::empty());
        let mut second = first.clone();
        second.put(Record::Rule(rule));
        let is_admitted = || directory.rules().admit(IpAddr::from([192, 0, 2, 1]), None, 9);
        serving.replace(&first, &second);
        assert!(!is_admitted());
        assert_eq!(serving.answer(&question, 9), Answer::Cut(Cut::default()), "they are out");
        serving.replace(&second, &first);
        assert!(is_admitted());
    }
}
