//! Who may come in: what a proxy asks when a client authenticates, and what it reads afterwards.
//!
//! Only authentication takes the lock. A session keeps the [`Grant`] it was given, whose answers are
//! atomics that the control plane changes in place: a capability taken away, a deleted credential or
//! a disabled cache is seen by the next request of every open connection, and no one has to go
//! looking for those connections.
//!
//! All orderings are relaxed: each atomic is a fact of its own, and nothing else is read on the
//! strength of it.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::capability::Capabilities;
use crate::id::{CacheId, USERNAME_BYTES_MAX, Username};
use crate::plan::{Limits, Rates};
use crate::rate::Meter;
use crate::rules::{Rule, RuleId, Rules};
use crate::secret::{SECRET_BYTES_MAX, SecretHash, SecretKey};

/// Every cache and credential this process serves, and every rule about who may connect.
///
/// The writing side is idempotent: `put_…` makes or changes, `remove_…` of what is not there does
/// nothing, so a change may be told twice.
#[derive(Debug)]
pub struct Directory {
    key: SecretKey,
    tables: RwLock<Tables>,
}

/// Invariant: a grant is in `grants` exactly when it is in its cache's list.
#[derive(Debug, Default)]
struct Tables {
    grants: HashSet<ByUsername>,
    caches: HashMap<CacheId, Cache>,
    /// Shared with who looks at them; copied when they change, which is rare.
    rules: Arc<Rules>,
}

#[derive(Debug)]
struct Cache {
    entry: Arc<CacheEntry>,
    grants: Vec<Arc<Grant>>,
}

impl Directory {
    /// An empty directory whose hashes are made with this key.
    pub fn new(key: SecretKey) -> Self {
        Directory { key, tables: RwLock::default() }
    }

    /// Checks a username and password as the client sent them.
    ///
    /// A username that does not exist costs the same as a wrong password and gets the same error,
    /// so a stranger cannot find out which names exist.
    pub fn authenticate(
        &self,
        username: &[u8],
        password: &[u8],
    ) -> Result<Arc<Grant>, AuthenticationError> {
        if username.len() > USERNAME_BYTES_MAX || password.len() > SECRET_BYTES_MAX {
            // Nobody has such a name or password; there is nothing to find out and nothing to hash.
            return Err(AuthenticationError::BadCredential);
        }
        let presented = self.key.hash(username, password);
        let grant = self.read().grants.get(username).map(|found| Arc::clone(&found.0));
        let expected = grant.as_ref().map_or(NOBODYS_HASH, |grant| grant.hash);
        match (presented.matches(&expected), grant) {
            (true, Some(grant)) if grant.is_revoked() => Err(AuthenticationError::CacheDisabled),
            (true, Some(grant)) => Ok(grant),
            (_, _) => Err(AuthenticationError::BadCredential),
        }
    }

    /// The grant of this username without asking for a password: for a process that was started
    /// without authentication.
    pub fn grant(&self, username: &Username) -> Option<Arc<Grant>> {
        self.read().grants.get(username.as_bytes()).map(|found| Arc::clone(&found.0))
    }

    /// The cache that this username is for, whatever the password.
    pub fn cache_of(&self, username: &[u8]) -> Option<CacheId> {
        self.read().grants.get(username).map(|found| found.0.cache.id)
    }

    /// The live entry of a cache.
    pub fn cache(&self, id: CacheId) -> Option<Arc<CacheEntry>> {
        self.read().caches.get(&id).map(|cache| Arc::clone(&cache.entry))
    }

    /// Makes a cache, or changes the limits and state of the one there is. A disabled cache refuses
    /// authentication, and the grants of its open connections are revoked until it is enabled.
    pub fn put_cache(&self, id: CacheId, limits: Limits, enabled: bool) {
        self.batch().put_cache(id, limits, enabled);
    }

    /// Forgets a cache and revokes all its credentials, for good.
    pub fn remove_cache(&self, id: CacheId) {
        self.batch().remove_cache(id);
    }

    /// Makes a credential, or changes the one of this name.
    ///
    /// A change of capabilities alone reaches open connections through the grant they hold. With
    /// another password or cache the old grant is revoked and a new one made.
    pub fn put_credential(
        &self,
        id: CacheId,
        username: Username,
        hash: SecretHash,
        capabilities: Capabilities,
    ) -> Result<(), UnknownCache> {
        self.batch().put_credential(id, username, hash, capabilities)
    }

    /// Deletes a credential and revokes it on open connections, for good.
    pub fn remove_credential(&self, username: &Username) {
        self.batch().remove_credential(username);
    }

    /// Makes a rule, or changes the one with its id.
    pub fn put_rule(&self, rule: Rule) {
        self.batch().put_rule(rule);
    }

    pub fn remove_rule(&self, id: RuleId) {
        self.batch().remove_rule(id);
    }

    /// Which addresses may be connected, as it is now. Whoever keeps it sees by [`Arc::ptr_eq`] with
    /// what he is given later whether anything has changed.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.read().rules)
    }

    /// Several changes that clients see all at once: nobody authenticates while the batch lives, so
    /// it shall be dropped soon.
    pub fn batch(&self) -> Batch<'_> {
        Batch { tables: self.write() }
    }

    // A panic while the lock was held would be a bug in the few lines above; refusing everyone from
    // then on would make it worse, so poisoning is ignored.
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes under way; see [`Directory::batch`]. Each method is that of the directory.
#[derive(Debug)]
pub struct Batch<'d> {
    tables: RwLockWriteGuard<'d, Tables>,
}

impl Batch<'_> {
    pub fn put_cache(&mut self, id: CacheId, limits: Limits, enabled: bool) {
        let state = if enabled { SERVING } else { DISABLED };
        let cache = self
            .tables
            .caches
            .entry(id)
            .or_insert_with(|| Cache { entry: Arc::new(CacheEntry::new(id)), grants: Vec::new() });
        cache.entry.set(limits, state);
    }

    pub fn remove_cache(&mut self, id: CacheId) {
        let Some(cache) = self.tables.caches.remove(&id) else { return };
        cache.entry.state.store(REMOVED, Relaxed);
        for grant in &cache.grants {
            self.tables.grants.remove(grant.username.as_bytes());
        }
    }

    pub fn put_credential(
        &mut self,
        id: CacheId,
        username: Username,
        hash: SecretHash,
        capabilities: Capabilities,
    ) -> Result<(), UnknownCache> {
        if let Some(ByUsername(grant)) = self.tables.grants.get(username.as_bytes())
            && grant.cache.id == id
            && grant.hash.matches(&hash)
        {
            grant.capabilities.store(capabilities.bits(), Relaxed);
            return Ok(());
        }
        let entry = &self.tables.caches.get(&id).ok_or(UnknownCache(id))?.entry;
        let grant = Arc::new(Grant {
            username,
            hash,
            cache: Arc::clone(entry),
            capabilities: AtomicU8::new(capabilities.bits()),
            removed: AtomicBool::new(false),
        });
        self.tables.remove_grant(&username);
        self.tables.grants.insert(ByUsername(Arc::clone(&grant)));
        if let Some(cache) = self.tables.caches.get_mut(&id) {
            cache.grants.push(grant);
        }
        Ok(())
    }

    pub fn remove_credential(&mut self, username: &Username) {
        self.tables.remove_grant(username);
    }

    pub fn put_rule(&mut self, rule: Rule) {
        Arc::make_mut(&mut self.tables.rules).put(rule);
    }

    pub fn remove_rule(&mut self, id: RuleId) {
        Arc::make_mut(&mut self.tables.rules).remove(id);
    }
}

/// Compared when there is no such user, so that the comparison takes place all the same.
const NOBODYS_HASH: SecretHash = SecretHash::from_bytes([0; 32]);

impl Tables {
    fn remove_grant(&mut self, username: &Username) {
        let Some(ByUsername(grant)) = self.grants.take(username.as_bytes()) else { return };
        grant.removed.store(true, Relaxed);
        if let Some(cache) = self.caches.get_mut(&grant.cache.id) {
            cache.grants.retain(|other| !Arc::ptr_eq(other, &grant));
        }
    }
}

/// Why a client may not come in. Both are final for this username and password: no retry helps
/// until somebody changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// There is no such username with this password.
    #[error("unknown username or wrong password")]
    BadCredential,
    /// Username and password are right, but the cache is disabled. Only its owner ever hears this.
    #[error("the cache is disabled")]
    CacheDisabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no cache {0}")]
pub struct UnknownCache(pub CacheId);

/// What an authenticated session may do. Live: reading it again gives what is true now.
#[derive(Debug)]
pub struct Grant {
    username: Username,
    hash: SecretHash,
    cache: Arc<CacheEntry>,
    capabilities: AtomicU8,
    removed: AtomicBool,
}

impl Grant {
    pub fn username(&self) -> &Username {
        &self.username
    }

    pub fn cache(&self) -> &Arc<CacheEntry> {
        &self.cache
    }

    /// What the credential may do at this moment; one relaxed load, meant to be asked per request.
    #[inline]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits(self.capabilities.load(Relaxed)).unwrap_or(Capabilities::NONE)
    }

    /// Whether the session must end: the credential or its cache was deleted, or the cache is
    /// disabled. Two relaxed loads.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        self.removed.load(Relaxed) || self.cache.state.load(Relaxed) != SERVING
    }
}

/// One cache as the data plane sees it. Live, like [`Grant`].
#[derive(Debug)]
pub struct CacheEntry {
    id: CacheId,
    memory_bytes: AtomicU64,
    item_bytes_max: AtomicU32,
    connections_max: AtomicU32,
    connections: AtomicU32,
    operations_per_second: AtomicU64,
    bytes_per_second: AtomicU64,
    operations: Meter,
    bytes: Meter,
    state: AtomicU8,
}

const SERVING: u8 = 0;
const DISABLED: u8 = 1;
const REMOVED: u8 = 2;

impl CacheEntry {
    /// Everything at zero; [`CacheEntry::set`] follows before anyone sees it.
    fn new(id: CacheId) -> Self {
        CacheEntry {
            id,
            memory_bytes: AtomicU64::new(0),
            item_bytes_max: AtomicU32::new(0),
            connections_max: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            operations_per_second: AtomicU64::new(0),
            bytes_per_second: AtomicU64::new(0),
            operations: Meter::default(),
            bytes: Meter::default(),
            state: AtomicU8::new(SERVING),
        }
    }

    fn set(&self, limits: Limits, state: u8) {
        self.memory_bytes.store(limits.memory_bytes, Relaxed);
        self.item_bytes_max.store(limits.item_bytes_max, Relaxed);
        self.connections_max.store(limits.connections_max, Relaxed);
        self.operations_per_second.store(limits.rates.operations_per_second, Relaxed);
        self.bytes_per_second.store(limits.rates.bytes_per_second, Relaxed);
        self.state.store(state, Relaxed);
    }

    pub fn id(&self) -> CacheId {
        self.id
    }

    /// Memory for the cache's items, in bytes.
    #[inline]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Relaxed)
    }

    /// Largest key and value together, in bytes.
    #[inline]
    pub fn item_bytes_max(&self) -> u32 {
        self.item_bytes_max.load(Relaxed)
    }

    /// Authenticated connections it may have at one time.
    pub fn connections_max(&self) -> u32 {
        self.connections_max.load(Relaxed)
    }

    /// How fast it may be used at this proxy.
    #[inline]
    pub fn rates(&self) -> Rates {
        Rates {
            operations_per_second: self.operations_per_second.load(Relaxed),
            bytes_per_second: self.bytes_per_second.load(Relaxed),
        }
    }

    /// Charges what was used. `now_us` is the process's time in microseconds, the same for all who
    /// use the cache.
    #[inline]
    pub fn charge(&self, operations: u64, bytes: u64, now_us: u64) {
        let rates = self.rates();
        self.operations.charge(operations, rates.operations_per_second, now_us);
        self.bytes.charge(bytes, rates.bytes_per_second, now_us);
    }

    /// Until when the cache must wait because it was used faster than it may be; `None` when it need
    /// not.
    #[inline]
    pub fn held_until(&self, now_us: u64) -> Option<u64> {
        let rates = self.rates();
        let operations = self.operations.held_until(rates.operations_per_second, now_us);
        let bytes = self.bytes.held_until(rates.bytes_per_second, now_us);
        operations.max(bytes)
    }

    /// Authenticated connections it has now: permits that were given and not dropped.
    pub fn connections(&self) -> u32 {
        self.connections.load(Relaxed)
    }

    /// Takes one of the cache's connections for as long as the permit lives; `None` when all
    /// [`CacheEntry::connections_max`] are taken. A lowered limit ends no connection; it only lets
    /// no new one in.
    pub fn connect(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let connections_max = self.connections_max();
        self.connections
            .fetch_update(Relaxed, Relaxed, |open| (open < connections_max).then(|| open + 1))
            .ok()
            .map(|_| ConnectionPermit(Arc::clone(self)))
    }
}

/// One authenticated connection of a cache; dropping it gives the place back.
#[derive(Debug)]
#[must_use]
pub struct ConnectionPermit(Arc<CacheEntry>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// A grant that is found by its username, which is thus kept once only.
#[derive(Debug)]
struct ByUsername(Arc<Grant>);

impl Borrow<[u8]> for ByUsername {
    fn borrow(&self) -> &[u8] {
        self.0.username.as_bytes()
    }
}

// `Borrow` demands that hash and equality be those of the borrowed bytes.
impl Hash for ByUsername {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.username.as_bytes().hash(state);
    }
}

impl PartialEq for ByUsername {
    fn eq(&self, other: &Self) -> bool {
        self.0.username == other.0.username
    }
}

impl Eq for ByUsername {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::*;
    use crate::capability::Capability;
    use crate::plan::Plan;
    use AuthenticationError::{BadCredential, CacheDisabled};

    const ONE: CacheId = CacheId::new(1);
    const TWO: CacheId = CacheId::new(2);
    const LIMITS: Limits = Plan::DEVELOPMENT.limits;

    fn key() -> SecretKey {
        SecretKey::new([9; 32])
    }

    fn name(text: &str) -> Username {
        Username::parse(text).expect("a good name")
    }

    /// Cache 1 with the credential "ann", password "pw", who may do everything.
    fn with_ann() -> Directory {
        let directory = Directory::new(key());
        directory.put_cache(ONE, LIMITS, true);
        put(&directory, ONE, "ann", "pw", Capabilities::ALL);
        directory
    }

    fn put(directory: &Directory, id: CacheId, user: &str, password: &str, may: Capabilities) {
        let hash = key().hash(user.as_bytes(), password.as_bytes());
        directory.put_credential(id, name(user), hash, may).expect("the cache exists");
    }

    #[track_caller]
    fn check(directory: &Directory, user: &str, password: &str, expected: AuthenticationError) {
        let answer = directory.authenticate(user.as_bytes(), password.as_bytes());
        assert_eq!(answer.map(|grant| *grant.username()), Err(expected), "{user} {password}");
    }

    #[test]
    fn the_right_password_gives_the_cache_and_its_limits() {
        let grant = with_ann().authenticate(b"ann", b"pw").expect("right");
        assert_eq!((grant.username().as_str(), grant.cache().id()), ("ann", ONE));
        assert_eq!(grant.cache().memory_bytes(), LIMITS.memory_bytes);
        assert_eq!(grant.cache().item_bytes_max(), LIMITS.item_bytes_max);
        assert_eq!(grant.cache().connections_max(), LIMITS.connections_max);
    }

    #[test]
    fn everyone_else_gets_the_same_refusal() {
        let directory = with_ann();
        let long = "x".repeat(5_000);
        for (user, password) in [
            ("ann", "no"),
            ("ann", ""),
            ("bob", "pw"),
            ("", ""),
            ("ANN", "pw"),
            (&long, "pw"),
            ("ann", &long),
        ] {
            check(&directory, user, password, BadCredential);
        }
    }

    #[test]
    fn a_hash_of_zeros_opens_nothing() {
        // The hash compared for unknown users must not let anyone in.
        let directory = with_ann();
        directory
            .put_credential(ONE, name("zero"), NOBODYS_HASH, Capabilities::ALL)
            .expect("the cache exists");
        check(&directory, "zero", "", BadCredential);
        check(&directory, "unknown", "", BadCredential);
    }

    #[test]
    fn a_changed_capability_reaches_an_open_session() {
        let directory = with_ann();
        let grant = directory.authenticate(b"ann", b"pw").expect("right");
        put(&directory, ONE, "ann", "pw", Capabilities::NONE.with(Capability::Flush));
        assert!(!grant.is_revoked());
        assert_eq!(grant.capabilities(), Capabilities::NONE.with(Capability::Flush));
    }

    #[test]
    fn whoever_keeps_the_rules_sees_that_they_are_others() {
        use crate::rules::{Network, Ruling};
        let directory = with_ann();
        let address = "192.0.2.7".parse().expect("an address");
        let rule = Rule {
            id: RuleId(1),
            cache: Some(ONE),
            network: Network::parse("192.0.2.0/24").expect("a network"),
            ruling: Ruling::Block,
            expires_at: 10,
        };
        let before = directory.rules();
        assert!(Arc::ptr_eq(&before, &directory.rules()));
        directory.put_rule(rule);
        let blocking = directory.rules();
        assert!(!Arc::ptr_eq(&before, &blocking) && before.is_empty());
        assert!(!blocking.admit(address, Some(ONE), 9));
        directory.remove_rule(rule.id);
        assert!(!Arc::ptr_eq(&blocking, &directory.rules()));
        assert!(directory.rules().admit(address, Some(ONE), 9));
    }

    #[test]
    fn a_deleted_credential_is_revoked_for_good() {
        let directory = with_ann();
        let grant = directory.authenticate(b"ann", b"pw").expect("right");
        directory.remove_credential(&name("ann"));
        check(&directory, "ann", "pw", BadCredential);
        put(&directory, ONE, "ann", "pw", Capabilities::ALL);
        assert!(grant.is_revoked());
        assert!(!directory.authenticate(b"ann", b"pw").expect("made again").is_revoked());
    }

    #[test]
    fn a_changed_password_revokes_the_old_session() {
        let directory = with_ann();
        let grant = directory.authenticate(b"ann", b"pw").expect("right");
        put(&directory, ONE, "ann", "new", Capabilities::ALL);
        assert!(grant.is_revoked());
        check(&directory, "ann", "pw", BadCredential);
        assert!(directory.authenticate(b"ann", b"new").is_ok());
    }

    #[test]
    fn a_disabled_cache_says_so_only_to_its_owner() {
        let directory = with_ann();
        let grant = directory.authenticate(b"ann", b"pw").expect("right");
        directory.put_cache(ONE, LIMITS, false);
        assert!(grant.is_revoked());
        check(&directory, "ann", "pw", CacheDisabled);
        check(&directory, "ann", "no", BadCredential);
        directory.put_cache(ONE, LIMITS, true);
        assert!(!grant.is_revoked());
        assert!(directory.authenticate(b"ann", b"pw").is_ok());
    }

    #[test]
    fn a_removed_cache_takes_its_credentials_along() {
        let directory = with_ann();
        directory.put_cache(TWO, LIMITS, true);
        put(&directory, TWO, "bob", "pw", Capabilities::ALL);
        let grant = directory.authenticate(b"ann", b"pw").expect("right");
        directory.remove_cache(ONE);
        assert!(grant.is_revoked());
        check(&directory, "ann", "pw", BadCredential);
        assert!(directory.authenticate(b"bob", b"pw").is_ok());
        assert!(directory.cache(ONE).is_none());
    }

    #[test]
    fn a_credential_needs_its_cache() {
        let directory = Directory::new(key());
        let hash = key().hash(b"ann", b"pw");
        let answer = directory.put_credential(TWO, name("ann"), hash, Capabilities::NONE);
        assert_eq!(answer, Err(UnknownCache(TWO)));
        check(&directory, "ann", "pw", BadCredential);
    }

    #[test]
    fn a_plan_change_reaches_an_open_session() {
        let directory = with_ann();
        let grant = directory.authenticate(b"ann", b"pw").expect("right");
        let larger = Plan::named("5000").expect("in the table").limits;
        directory.put_cache(ONE, larger, true);
        assert_eq!(grant.cache().item_bytes_max(), larger.item_bytes_max);
    }

    #[test]
    fn connections_are_given_up_to_the_limit_and_come_back() {
        let directory = Directory::new(key());
        directory.put_cache(ONE, Limits { connections_max: 2, ..LIMITS }, true);
        let cache = directory.cache(ONE).expect("just put");
        let (first, second) = (cache.connect(), cache.connect());
        assert!(first.is_some() && second.is_some());
        assert!(cache.connect().is_none());
        drop(first);
        assert_eq!(cache.connections(), 1);
        assert!(cache.connect().is_some());
        drop(second);
        assert_eq!(cache.connections(), 0);
    }

    #[test]
    fn many_threads_never_exceed_the_limit() {
        let directory = Directory::new(key());
        directory.put_cache(ONE, Limits { connections_max: 3, ..LIMITS }, true);
        let cache = directory.cache(ONE).expect("just put");
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..2_000 {
                        let permit = cache.connect();
                        assert!(cache.connections() <= 3);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(cache.connections(), 0);
    }

    #[derive(Debug, Clone)]
    enum Change {
        PutCache(u64, bool),
        RemoveCache(u64),
        PutCredential { cache: u64, user: u8, password: u8, may: u8 },
        RemoveCredential(u8),
    }

    fn change() -> impl Strategy<Value = Change> {
        let cache = 0..3u64;
        prop_oneof![
            (cache.clone(), any::<bool>()).prop_map(|(id, enabled)| Change::PutCache(id, enabled)),
            cache.clone().prop_map(Change::RemoveCache),
            (cache, 0..4u8, 0..2u8, 0..8u8).prop_map(|(cache, user, password, may)| {
                Change::PutCredential { cache, user, password, may }
            }),
            (0..4u8).prop_map(Change::RemoveCredential),
            Just(Change::PutCache(0, true)),
        ]
    }

    /// What the directory should know, in the plainest form: enabled by cache; cache, password and
    /// capabilities by user.
    #[derive(Default)]
    struct Model {
        caches: BTreeMap<u64, bool>,
        credentials: BTreeMap<u8, (u64, u8, u8)>,
    }

    impl Model {
        fn apply(&mut self, change: &Change) {
            match *change {
                Change::PutCache(id, enabled) => {
                    self.caches.insert(id, enabled);
                }
                Change::RemoveCache(id) => {
                    self.caches.remove(&id);
                    self.credentials.retain(|_, (cache, _, _)| *cache != id);
                }
                Change::PutCredential { cache, user, password, may } => {
                    if self.caches.contains_key(&cache) {
                        self.credentials.insert(user, (cache, password, may));
                    }
                }
                Change::RemoveCredential(user) => {
                    self.credentials.remove(&user);
                }
            }
        }

        fn authenticate(&self, user: u8, password: u8) -> Result<(u64, u8), AuthenticationError> {
            match self.credentials.get(&user) {
                Some(&(cache, right, may)) if right == password => {
                    if self.caches[&cache] {
                        Ok((cache, may))
                    } else {
                        Err(CacheDisabled)
                    }
                }
                _ => Err(BadCredential),
            }
        }
    }

    fn apply(directory: &Directory, change: &Change) {
        let user_name = |user: u8| name(&format!("user-{user}"));
        match *change {
            Change::PutCache(id, enabled) => {
                directory.put_cache(CacheId::new(id), LIMITS, enabled);
            }
            Change::RemoveCache(id) => directory.remove_cache(CacheId::new(id)),
            Change::PutCredential { cache, user, password, may } => {
                let hash = key().hash(user_name(user).as_bytes(), &[password]);
                let may = Capabilities::from_bits(may).expect("three bits");
                let known = directory.cache(CacheId::new(cache)).is_some();
                let answer =
                    directory.put_credential(CacheId::new(cache), user_name(user), hash, may);
                assert_eq!(answer.is_ok(), known);
            }
            Change::RemoveCredential(user) => directory.remove_credential(&user_name(user)),
        }
    }

    proptest! {
        /// After any changes the directory answers like the model, and a grant given earlier is
        /// revoked or says what the model says now.
        #[test]
        fn it_answers_like_the_model(changes in vec(change(), 1..60)) {
            let (directory, mut model) = (Directory::new(key()), Model::default());
            let mut given = Vec::new();
            for change in &changes {
                apply(&directory, change);
                model.apply(change);
                for (user, password) in (0..4).flat_map(|user| [(user, 0), (user, 1)]) {
                    let answer =
                        directory.authenticate(format!("user-{user}").as_bytes(), &[password]);
                    let seen = answer
                        .as_ref()
                        .map(|grant| (grant.cache().id().get(), grant.capabilities().bits()))
                        .map_err(|error| *error);
                    assert_eq!(seen, model.authenticate(user, password));
                    given.extend(answer.ok().map(|grant| (user, password, grant)));
                }
                for (user, password, grant) in &given {
                    if !grant.is_revoked() {
                        let now = (grant.cache().id().get(), grant.capabilities().bits());
                        assert_eq!(Ok(now), model.authenticate(*user, *password));
                    }
                }
            }
        }
    }
}
