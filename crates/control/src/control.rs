//! The control plane itself: one change at a time, to the database, the data plane and the directory.
//!
//! After its commit a change wakes those who follow the cluster's change log ([`crate::feed`]) and bring
//! it to the nodes.
//!
//! Every method blocks; the API calls them on threads made for that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tenancy::capability::Capabilities;
use tenancy::directory::Directory;
use tenancy::id::{CacheId, Username};
use tenancy::plan::{Plan, Rates};
use tenancy::secret::{Secret, SecretKey};
use tokio::sync::watch;
use wire::control::record::{Key, Revision};
use wire::control::usage::Figure;

use crate::bell::Bell;
use crate::couriers::{COURIERS, SECRET_PREFIX};
use crate::data_dir::{Announcement, DataDir, DataDirError};
use crate::data_plane::DataPlane;
#[cfg(feature = "postgres")]
use crate::database::PostgresAccess;
use crate::database::{
    AuditEntry, CACHES_MAX, Call, CallState, Change, Claimed, Database, Done, Effect, Kind, Lease,
    Made, NewCredential, OutboxEntry, Outcome, Retention, StoredCredential, Webhook, cache_record,
    credential_record,
};
use crate::environment::Environment;
use crate::error::{ControlError, OpenError};
use crate::guesses::Guesses;
use crate::model::{
    Actor, By, Cache, CacheName, CacheRef, CapabilityChange, Cluster, ClusterId, ClusterName,
    Committed, Credential, Issued, UnixSeconds,
};
use crate::seal::{DashboardKeys, Sealer};
use crate::series::latency::LatencyReadings;
use crate::series::sampler::Sampler;
use crate::usage::{CacheUsage, Usage};

mod dashboard;

pub(crate) use dashboard::{OPERATOR_SESSION_SECONDS, OWNER_SESSION_SECONDS, OperatorLogin};

/// The cache that `larder up` makes for whoever tries it.
pub const DEVELOPMENT_CACHE: &str = "development";

/// Caches of the development plan are disabled when nobody has used them for this long: 30 days.
pub const UNUSED_SECONDS_MAX: u64 = 30 * 24 * 60 * 60;
/// Random bytes in a webhook's secret: as many as the hash that is made with it can use.
const WEBHOOK_SECRET_BYTES: usize = 32;
/// Caches that are disabled for that at one time; the rest waits for the next look.
const UNUSED_CACHES_AT_ONCE: usize = 100;

/// One installation's caches and credentials.
pub struct Control {
    /// Held for the whole of a change, so that the data plane and the directory hear of changes in
    /// the order in which they were committed.
    database: Mutex<Database>,
    /// For those who follow the change log: a snapshot of a large cluster takes a second, and changes
    /// should not wait for it.
    reader: Mutex<Database>,
    /// The newest revision of each cluster, for those who follow it.
    newest: Mutex<HashMap<ClusterId, watch::Sender<Revision>>>,
    /// Whether this process may change anything, as far as it knows.
    leading: watch::Sender<bool>,
    /// The data plane of this process, if it has one.
    local: Option<Local>,
    /// The nodes, if they are other processes and are to be asked.
    nodes: OnceLock<introspection::Nodes>,
    usage: Arc<Usage>,
    /// Rung when there may be calls to carry.
    outbox_bell: Arc<Bell>,
    /// Failed logins of owners.
    guesses: Mutex<Guesses>,
    /// What was read of each cache when it was last sampled.
    sampler: Mutex<Sampler>,
    /// The same of proxies' latency.
    latency_readings: Mutex<LatencyReadings>,
    prefix_readings: Mutex<prefixes::WatchedPrefixes>,
    environment: Environment,
    secret_key: SecretKey,
    node_key: [u8; 32],
    sealer: Sealer,
    dashboard_keys: DashboardKeys,
    token: Secret,
    data_dir: DataDir,
}

/// The data plane in this process, which serves the caches of [`ClusterId::DEFAULT`].
struct Local {
    directory: Arc<Directory>,
    data_plane: Arc<dyn DataPlane>,
}

/// Where the rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backing {
    /// In the data directory.
    Sqlite,
    #[cfg(feature = "postgres")]
    Postgres(PostgresAccess),
}

impl Control {
    /// Opens the data directory, making it at the first start, and has the data plane serve every
    /// cache in it.
    pub fn open(
        path: &Path,
        environment: Environment,
        data_plane: Arc<dyn DataPlane>,
    ) -> Result<Self, OpenError> {
        Control::open_on(&Backing::Sqlite, path, environment, Some(data_plane))
    }

    /// Opens the data directory, making it at the first start, for nodes that are other processes.
    pub fn open_for_nodes(path: &Path, environment: Environment) -> Result<Self, OpenError> {
        Control::open_on(&Backing::Sqlite, path, environment, None)
    }

    /// Opens a database on a PostgreSQL server, which other control processes may use as well: each
    /// follows until it leads ([`crate::campaign`]). All of them need the same key file in their data
    /// directories.
    #[cfg(feature = "postgres")]
    pub fn open_postgres(
        path: &Path,
        server: &PostgresAccess,
        environment: Environment,
    ) -> Result<Self, OpenError> {
        Control::open_on(&Backing::Postgres(server.clone()), path, environment, None)
    }

    pub(crate) fn open_on(
        backing: &Backing,
        path: &Path,
        environment: Environment,
        data_plane: Option<Arc<dyn DataPlane>>,
    ) -> Result<Self, OpenError> {
        let data_dir = DataDir::open(path)?;
        let master_key = data_dir.master_key(&environment)?;
        let (mut database, mut reader) = match backing {
            Backing::Sqlite => {
                let file = data_dir.database_file()?;
                (Database::open_sqlite(&file)?, Database::open_sqlite_reader(&file)?)
            }
            #[cfg(feature = "postgres")]
            Backing::Postgres(server) => {
                (Database::open_postgres(server)?, Database::open_postgres(server)?)
            }
        };
        database.check_key(&master_key.check())?;
        let leading = watch::Sender::new(database.leads());
        let newest = |cluster: Cluster| (cluster.id, watch::Sender::new(cluster.revision));
        let newest = reader.clusters()?.into_iter().map(newest).collect();
        let local = data_plane.map(|data_plane| {
            let directory = Arc::new(Directory::new(master_key.secret_key()));
            Local { directory, data_plane }
        });
        let control = Control {
            database: Mutex::new(database),
            reader: Mutex::new(reader),
            newest: Mutex::new(newest),
            leading,
            local,
            nodes: OnceLock::new(),
            usage: Arc::default(),
            outbox_bell: Arc::default(),
            guesses: Mutex::default(),
            sampler: Mutex::default(),
            latency_readings: Mutex::default(),
            prefix_readings: Mutex::default(),
            secret_key: master_key.secret_key(),
            node_key: master_key.node_key(),
            sealer: master_key.sealer(),
            dashboard_keys: master_key.dashboard_keys(),
            token: data_dir.token(&environment)?,
            environment,
            data_dir,
        };
        control.load()?;
        Ok(control)
    }

    fn load(&self) -> Result<(), OpenError> {
        let Some(local) = &self.local else { return Ok(()) };
        let mut database = self.lock();
        for cache in database.caches(CacheId::new(0), CACHES_MAX)? {
            if cache.cluster != ClusterId::DEFAULT {
                continue;
            }
            local
                .data_plane
                .put_cache(cache.id, cache.limits())
                .map_err(|source| OpenError::DataPlane { cache: cache.id, source })?;
            self.tell_cache(&cache);
        }
        // Before the credentials: nobody gets in before it is known who may not.
        for rule in database.rules_of(ClusterId::DEFAULT)? {
            local.directory.put_rule(rule);
        }
        database.for_each_credential(ClusterId::DEFAULT, |stored| {
            self.tell_credential(ClusterId::DEFAULT, &stored);
        })?;
        Ok(())
    }

    /// What the proxies of this process ask: follows every change from now on.
    ///
    /// # Panics
    ///
    /// When this control plane was opened for nodes that are other processes.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.local.as_ref().expect("opened with a data plane").directory
    }

    /// The key of the hashes in credentials' records: a node that checks passwords needs it.
    pub fn secret_key(&self) -> &SecretKey {
        &self.secret_key
    }

    /// The bytes of [`Control::secret_key`], which a node is given when it joins.
    pub fn node_key(&self) -> [u8; 32] {
        self.node_key
    }

    /// The newest revision of a cluster that this process knows of. Changes with every commit.
    pub(crate) fn watch(&self, cluster: ClusterId) -> watch::Receiver<Revision> {
        self.newest(cluster, |newest| newest.subscribe())
    }

    fn newest<T>(&self, cluster: ClusterId, with: impl FnOnce(&watch::Sender<Revision>) -> T) -> T {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        with(newest.entry(cluster).or_insert_with(|| watch::Sender::new(Revision::ZERO)))
    }

    /// Makes a change that is not about a cache: nodes need not hear of it.
    pub(crate) fn change<T>(
        &self,
        actor: Actor,
        make: impl FnOnce(&mut Change<'_>) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let mut database = self.lock();
        let mut change = database.begin(actor, self.environment.now())?;
        let made = make(&mut change)?;
        change.commit()?;
        Ok(made)
    }

    /// Makes a change that is about no cache, once however often it is asked for under one key. Returns
    /// the id of what it made or changed, as `make` does.
    fn change_once(
        &self,
        by: impl Into<By>,
        make: impl FnOnce(&mut Change<'_>) -> Result<u64, ControlError>,
    ) -> Result<u64, ControlError> {
        let mut database = self.lock();
        let by = by.into();
        if let Some(made) = database.made_before(&by)? {
            return Ok(made.id);
        }
        let mut change = database.begin(by, self.environment.now())?;
        let id = make(&mut change)?;
        change.keep_made(Made { id, at: None })?;
        change.commit()?;
        Ok(id)
    }

    /// All clusters by rising id.
    pub fn clusters(&self) -> Result<Vec<Cluster>, ControlError> {
        self.lock().clusters()
    }

    pub fn cluster(&self, cluster: ClusterId) -> Result<Cluster, ControlError> {
        self.lock().cluster(cluster)
    }

    pub fn cluster_named(&self, name: &ClusterName) -> Result<Cluster, ControlError> {
        let clusters = self.clusters()?;
        let found = clusters.into_iter().find(|cluster| cluster.name == *name);
        found.ok_or_else(|| ControlError::UnknownCluster(name.to_string()))
    }

    /// Makes a cluster without nodes and caches.
    pub fn create_cluster(
        &self,
        by: impl Into<By>,
        name: ClusterName,
    ) -> Result<Cluster, ControlError> {
        let slot_key = self.environment.random()?;
        let made = self.change_once(by, |change| {
            change.insert_cluster(name, slot_key).map(|cluster| cluster.id.0)
        })?;
        self.cluster(ClusterId(made))
    }

    /// Whether this process may change anything at the moment, as far as it knows.
    pub fn leads(&self) -> bool {
        self.lock().leads()
    }

    /// Whether this process leads; changes when that does.
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Prolongs our lease or tries to take it; see [`Database::lead`]. What comes of it is logged when
    /// it is any news. Returns whether the database gave an answer.
    pub(crate) fn lead(&self, holder: &str, lease: Duration, as_before: bool) -> bool {
        let mut database = self.lock();
        let lease_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        let answer = database.lead(holder, lease_ms, as_before);
        let news = self.say_whether_leading(&database);
        match answer {
            Ok(Lease::Ours(fence)) if news => {
                tracing::info!(fence = fence.0, "this process leads now");
            }
            Ok(Lease::Theirs { holder }) if news => {
                tracing::warn!(leader = holder, "another process has taken the lead");
            }
            Ok(_) => (),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the lease could not be looked at");
                return false;
            }
        }
        true
    }

    /// Stops writing, because the lease has run out without an answer from the database.
    pub(crate) fn step_down(&self) {
        let mut database = self.lock();
        database.step_down();
        if self.say_whether_leading(&database) {
            tracing::warn!(
                "the lease ran out and could not be prolonged; this process follows now"
            );
        }
    }

    pub(crate) fn resign(&self) {
        let mut database = self.lock();
        if let Err(error) = database.resign() {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "leadership not given up; it ends with the lease");
        }
        self.say_whether_leading(&database);
    }

    /// Returns whether that was any news.
    fn say_whether_leading(&self, database: &Database) -> bool {
        self.leading
            .send_if_modified(|leading| std::mem::replace(leading, database.leads()) != *leading)
    }

    /// Looks which revisions others have written, and wakes those who follow.
    pub(crate) fn refresh(&self) {
        let clusters = self.lock_reader().clusters();
        match clusters {
            Ok(clusters) => clusters.iter().for_each(|cluster| {
                self.newest(cluster.id, |newest| {
                    newest.send_if_modified(|known| {
                        let newer = *known < cluster.revision;
                        *known = cluster.revision.max(*known);
                        newer
                    })
                });
            }),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the revisions could not be looked at");
            }
        }
    }

    /// Refuses an authority of the nodes (SHA-256 of its certificate) that is not the one under which
    /// this installation was first led. Who leads shall `adopt` it, which makes it that one if there
    /// is none yet.
    ///
    /// # Errors
    /// [`OpenError::WrongAuthority`]: no node would let this process tell it anything.
    pub fn check_authority(&self, authority: &[u8; 32], adopt: bool) -> Result<(), OpenError> {
        let same = self.lock().check_authority(authority, adopt)?;
        if same { Ok(()) } else { Err(OpenError::WrongAuthority) }
    }

    /// Whether the database can be asked.
    pub fn is_ready(&self) -> bool {
        self.lock().is_ready()
    }

    /// Whether this is the installation's bearer token; takes the same time whatever the answer.
    pub fn is_token(&self, presented: &[u8]) -> bool {
        // Compared as keyed hashes, so that not even the token's length shows in the time taken.
        let hash = |token| self.secret_key.hash(b"token", token);
        hash(self.token.reveal().as_bytes()).matches(&hash(presented))
    }

    /// What tells this process from every other one at the same time: machine, data directory, and the
    /// lock in it that only one process can hold.
    pub fn holder(&self) -> String {
        self.data_dir.holder()
    }

    /// Says in the data directory where the API listens, until the value is dropped: the command
    /// line looks there ([`crate::data_dir::Endpoint`]).
    pub fn announce(&self, listening: SocketAddr) -> Result<Announcement, DataDirError> {
        self.data_dir.announce(listening)
    }

    pub fn cache(&self, cache: &CacheRef) -> Result<Cache, ControlError> {
        self.lock().cache(cache)
    }

    /// At most `limit` caches by rising id, those after `after`.
    pub fn caches(&self, after: CacheId, limit: usize) -> Result<Vec<Cache>, ControlError> {
        self.lock().caches(after, limit)
    }

    /// A cache and its credentials, in the order they were made.
    pub fn credentials(&self, cache: &CacheRef) -> Result<(Cache, Vec<Credential>), ControlError> {
        let mut database = self.lock();
        let cache = database.cache(cache)?;
        let stored = database.credentials(cache.id)?;
        Ok((cache, stored.into_iter().map(|stored| stored.credential).collect()))
    }

    /// A credential and its cache, for who knows only the username.
    pub fn credential(&self, username: &Username) -> Result<(Cache, Credential), ControlError> {
        let mut database = self.lock();
        let cache = database.cache_of(username)?;
        let stored = database.credential(&cache, username)?;
        Ok((cache, stored.credential))
    }

    /// A cache's credentials with their passwords.
    pub fn issued(&self, cache: &CacheRef) -> Result<(Cache, Vec<Issued>), ControlError> {
        let mut database = self.lock();
        let cache = database.cache(cache)?;
        let stored = database.credentials(cache.id)?;
        let issued: Result<_, _> = stored.into_iter().map(|stored| self.unseal(stored)).collect();
        Ok((cache, issued?))
    }

    /// Makes a cache with one credential, its primary one, which may do everything. Without a name
    /// it gets one that nobody chose.
    pub fn create_cache(
        &self,
        by: impl Into<By>,
        cluster: ClusterId,
        name: Option<CacheName>,
        plan: &'static Plan,
    ) -> Result<Committed<(Cache, Issued)>, ControlError> {
        self.create_cache_in(&mut self.lock(), by.into(), cluster, name, plan)
    }

    fn create_cache_in(
        &self,
        database: &mut Database,
        by: By,
        cluster: ClusterId,
        name: Option<CacheName>,
        plan: &'static Plan,
    ) -> Result<Committed<(Cache, Issued)>, ControlError> {
        let name = match name {
            Some(name) => name,
            None => self.chance_name()?,
        };
        let (new, secret) = self.new_credential(Capabilities::ALL)?;
        if let Some(done) = database.done_before(&by)? {
            return self.issued_before(database, done);
        }
        let mut change = database.begin(by, self.environment.now())?;
        let (cache, credential) = change.insert_cache(cluster, name, plan, &new)?;
        let puts = vec![cache_record(&cache), new.record(cache.id)];
        let effect = Effect { puts, ..Effect::NONE };
        let username = Some(&new.username);
        let revision = change.record(Kind::CacheCreated, &cache, username, plan.name, &effect)?;
        self.make_room(&cache)?;
        self.commit(change, &cache, revision).inspect_err(|_| self.give_room_back(&cache))?;
        self.tell_cache(&cache);
        self.tell_new(&cache, new);
        Ok(Committed { value: (cache, Issued { credential, secret }), cluster, revision })
    }

    /// The cache named [`DEVELOPMENT_CACHE`] and its primary credential; made when there is none.
    /// Whoever asks is about to use it, so it does not count as unused.
    pub fn ensure_development_cache(&self) -> Result<(Cache, Issued), ControlError> {
        let name = CacheName::parse(DEVELOPMENT_CACHE).expect("a letter, then letters");
        let database = &mut *self.lock();
        match database.cache(&CacheRef::Name(name.clone())) {
            Ok(cache) => {
                let now = self.environment.now();
                database.note_used(&[(cache.id, now)], now)?;
                let issued = self.unseal(database.credential(&cache, &cache.primary)?)?;
                Ok((cache, issued))
            }
            Err(ControlError::UnknownCache(_)) => {
                let by = Actor::Installation.into();
                let (cluster, plan) = (ClusterId::DEFAULT, Plan::DEVELOPMENT);
                Ok(self.create_cache_in(database, by, cluster, Some(name), plan)?.value)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a cache, its credentials and its items, and ends its connections.
    pub fn delete_cache(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
    ) -> Result<Committed<()>, ControlError> {
        let mut database = self.lock();
        let by = by.into();
        if let Some(done) = database.done_before(&by)? {
            return Ok(done.with(()));
        }
        let mut change = database.begin(by, self.environment.now())?;
        let cache = change.cache(cache)?;
        let effect = change.delete_cache(&cache)?;
        let revision = change.record(Kind::CacheDeleted, &cache, None, cache.plan.name, &effect)?;
        self.commit(change, &cache, revision)?;
        if let Some(local) = self.local(cache.cluster) {
            // In this order, so that no client can write to a cache that is being taken down.
            local.directory.remove_cache(cache.id);
            local.data_plane.remove_cache(cache.id);
        }
        Ok(Committed { value: (), cluster: cache.cluster, revision })
    }

    /// Gives a cache another plan; its items stay as far as they fit.
    pub fn change_plan(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
        plan: &'static Plan,
    ) -> Result<Committed<Cache>, ControlError> {
        let database = &mut *self.lock();
        let by = by.into();
        if let Some(done) = database.done_before(&by)? {
            return self.cache_before(database, done);
        }
        let mut change = database.begin(by, self.environment.now())?;
        let before = change.cache(cache)?;
        if before.plan == plan {
            return change.unchanged(before.cluster, before);
        }
        let after = Cache { plan, ..before.clone() };
        change.update_cache(&after)?;
        let detail = format!("{} to {}", before.plan.name, plan.name);
        let effect = Effect::put(cache_record(&after));
        let revision = change.record(Kind::PlanChanged, &after, None, &detail, &effect)?;
        self.make_room(&after)?;
        self.commit(change, &after, revision).inspect_err(|_| self.restore_limits(&before))?;
        self.tell_cache(&after);
        Ok(Committed { cluster: after.cluster, value: after, revision })
    }

    /// Lets a cache be used so fast at each proxy, and no faster; whoever wants more waits. 0 is no
    /// limit, and `None` leaves what there is.
    pub fn limit_rates(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
        operations_per_second: Option<u64>,
        bytes_per_second: Option<u64>,
    ) -> Result<Committed<Cache>, ControlError> {
        let database = &mut *self.lock();
        let by = by.into();
        if let Some(done) = database.done_before(&by)? {
            return self.cache_before(database, done);
        }
        let mut change = database.begin(by, self.environment.now())?;
        let before = change.cache(cache)?;
        let Rates { operations_per_second: operations, bytes_per_second: bytes } = before.rates;
        let rates = Rates {
            operations_per_second: operations_per_second.unwrap_or(operations),
            bytes_per_second: bytes_per_second.unwrap_or(bytes),
        };
        if before.rates == rates {
            return change.unchanged(before.cluster, before);
        }
        let after = Cache { rates, ..before };
        change.update_cache(&after)?;
        let detail = format!(
            "at most {} operations and {} bytes per second (0: any number)",
            rates.operations_per_second, rates.bytes_per_second
        );
        let effect = Effect::put(cache_record(&after));
        let revision = change.record(Kind::PlanChanged, &after, None, &detail, &effect)?;
        self.commit(change, &after, revision)?;
        self.tell_cache(&after);
        Ok(Committed { cluster: after.cluster, value: after, revision })
    }

    /// Disables a cache (its connections end and nobody can authenticate; the items stay), or
    /// enables it again.
    pub fn set_enabled(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
        enabled: bool,
    ) -> Result<Committed<Cache>, ControlError> {
        let mut database = self.lock();
        self.set_enabled_in(&mut database, by.into(), cache, enabled, "")
    }

    fn set_enabled_in(
        &self,
        database: &mut Database,
        by: By,
        cache: &CacheRef,
        enabled: bool,
        detail: &str,
    ) -> Result<Committed<Cache>, ControlError> {
        let now = self.environment.now();
        if let Some(done) = database.done_before(&by)? {
            return self.cache_before(database, done);
        }
        let mut change = database.begin(by, now)?;
        let mut cache = change.cache(cache)?;
        if cache.enabled == enabled {
            return change.unchanged(cache.cluster, cache);
        }
        cache.enabled = enabled;
        if enabled {
            // Else a cache that was disabled for want of use would be disabled again at once.
            cache.used_at = now;
        }
        change.update_cache(&cache)?;
        let kind = if enabled { Kind::CacheEnabled } else { Kind::CacheDisabled };
        let effect = Effect::put(cache_record(&cache));
        let revision = change.record(kind, &cache, None, detail, &effect)?;
        self.commit(change, &cache, revision)?;
        self.tell_cache(&cache);
        Ok(Committed { cluster: cache.cluster, value: cache, revision })
    }

    /// Notes that clients have used these caches. No change for the nodes, so no revision.
    pub fn note_used(&self, caches: &[CacheId]) -> Result<(), ControlError> {
        let now = self.environment.now();
        let used: Vec<_> = caches.iter().map(|&cache| (cache, now)).collect();
        self.lock().note_used(&used, now)
    }

    /// Disables the development caches of a cluster that nobody has used for [`UNUSED_SECONDS_MAX`], as
    /// far as was noted ([`Control::note_used`]); their items stay, and anyone may enable them again.
    /// Returns those that it disabled.
    pub fn disable_unused(&self, cluster: ClusterId) -> Result<Vec<Cache>, ControlError> {
        let mut database = self.lock();
        let before = UnixSeconds(self.environment.now().0.saturating_sub(UNUSED_SECONDS_MAX));
        let unused = database.unused(cluster, Plan::DEVELOPMENT, before, UNUSED_CACHES_AT_ONCE)?;
        let mut disabled = Vec::new();
        for cache in unused {
            let (by, cache_ref) = (Actor::Installation.into(), CacheRef::Id(cache.id));
            let detail = format!("not used since {}", cache.used_at.0);
            let committed = self.set_enabled_in(&mut database, by, &cache_ref, false, &detail)?;
            disabled.push(committed.value);
        }
        Ok(disabled)
    }

    /// Whether caches are served by this process, and not by nodes.
    pub(crate) fn serves_here(&self) -> bool {
        self.local.is_some()
    }

    /// Notes when clients have used development caches last, as far as the data plane of this process
    /// or the nodes have told.
    pub(crate) fn note_activity(&self) -> Result<(), ControlError> {
        let caches = self.caches(CacheId::new(0), CACHES_MAX)?;
        let watched: HashSet<CacheId> = caches
            .iter()
            .filter(|cache| cache.plan == Plan::DEVELOPMENT && cache.enabled)
            .map(|cache| cache.id)
            .collect();
        let used = self.usages()?.into_iter().filter(|(id, _)| watched.contains(id));
        let used: Vec<(CacheId, UnixSeconds)> =
            used.filter_map(|(id, usage)| Some((id, usage.last_used_at?))).collect();
        if used.is_empty() {
            return Ok(());
        }
        self.lock().note_used(&used, self.environment.now())
    }

    /// Who did what: lines of the audit log after this one, in the order in which they were written.
    pub(crate) fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, ControlError> {
        self.lock_reader().audit(after, limit)
    }

    /// The newest lines of the audit log, in the order in which they were written.
    pub(crate) fn newest_audit(&self, limit: usize) -> Result<Vec<AuditEntry>, ControlError> {
        self.lock_reader().newest_audit(limit)
    }

    /// Lines of the audit log before this one, the newest first.
    pub(crate) fn audit_before(
        &self,
        before: u64,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, ControlError> {
        self.lock_reader().audit_before(before, limit)
    }

    /// Everyone who hears of every change of a cache.
    pub(crate) fn webhooks(&self) -> Result<Vec<Webhook>, ControlError> {
        self.lock().webhooks()
    }

    /// Adds a webhook, or gives the one with this URL a new secret. Returns it with the secret that
    /// its calls are signed with from now on, which is not shown again.
    pub(crate) fn put_webhook(
        &self,
        by: impl Into<By>,
        url: &str,
    ) -> Result<(Webhook, Secret), ControlError> {
        let random: [u8; WEBHOOK_SECRET_BYTES] = self.environment.random()?;
        let text = format!("{SECRET_PREFIX}{}", BASE64.encode(random));
        let secret = Secret::parse(&text).expect("between 16 and 128 printable characters");
        let nonce = self.environment.random()?;
        let sealed = self.sealer.seal_for(&webhook_context(url), &secret, nonce);
        let made = self.change_once(by, |change| change.put_webhook(url, &sealed))?;
        let webhooks = self.webhooks()?;
        let webhook = webhooks.into_iter().find(|webhook| webhook.id == made);
        let webhook = webhook.ok_or(ControlError::Superseded)?;
        // A request that was made before has its own secret in it, not the one drawn just now.
        let secret = self.webhook_secret(&webhook)?;
        Ok((webhook, secret))
    }

    pub(crate) fn webhook_secret(&self, webhook: &Webhook) -> Result<Secret, ControlError> {
        self.sealer
            .open_for(&webhook_context(&webhook.url), &webhook.sealed_secret)
            .map_err(|source| ControlError::SealedWebhook { webhook: webhook.id, source })
    }

    pub(crate) fn delete_webhook(
        &self,
        by: impl Into<By>,
        webhook: u64,
    ) -> Result<(), ControlError> {
        self.change_once(by, |change| change.delete_webhook(webhook)).map(drop)
    }

    /// Has a webhook called with a body of type `test`. Returns the call.
    pub(crate) fn test_webhook(
        &self,
        by: impl Into<By>,
        webhook: u64,
    ) -> Result<OutboxEntry, ControlError> {
        let call = self.change_once(by, |change| change.test_webhook(webhook))?;
        self.outbox_bell.ring();
        self.call(call)
    }

    pub(crate) fn call(&self, call: u64) -> Result<OutboxEntry, ControlError> {
        self.lock().call(call)
    }

    /// Calls to webhooks, the newest first.
    pub(crate) fn calls(
        &self,
        state: CallState,
        limit: usize,
    ) -> Result<Vec<OutboxEntry>, ControlError> {
        self.lock().calls(state, limit)
    }

    pub(crate) fn revive_call(&self, by: impl Into<By>, call: u64) -> Result<(), ControlError> {
        self.change_once(by, |change| change.revive_call(call))?;
        self.outbox_bell.ring();
        Ok(())
    }

    pub(crate) fn claim_call(
        &self,
        claim: Duration,
        busy: &[i64; COURIERS],
    ) -> Result<Claimed, ControlError> {
        let claim_ms = i64::try_from(claim.as_millis()).unwrap_or(i64::MAX);
        self.lock().claim_call(self.environment.now(), claim_ms, busy)
    }

    pub(crate) fn settle_call(&self, call: &Call, outcome: &Outcome) -> Result<(), ControlError> {
        self.lock().settle_call(self.environment.now(), call, outcome)
    }

    pub(crate) fn outbox_bell(&self) -> &Arc<Bell> {
        &self.outbox_bell
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        self.environment.now()
    }

    /// A number that nobody could have foretold.
    pub(crate) fn chance(&self) -> Result<u64, ControlError> {
        Ok(u64::from_le_bytes(self.environment.random()?))
    }

    /// Forgets what is older than it need be, a bounded number of rows at a time. Returns whether
    /// there may be more to forget.
    pub fn trim(&self, retention: &Retention) -> Result<bool, ControlError> {
        self.lock().trim(self.environment.now(), retention)
    }

    /// Forgets all items of a cache. When writing that down fails, the items of this process are gone
    /// all the same: better than a log that tells of a flush that was not.
    pub fn flush_cache(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
    ) -> Result<Committed<Cache>, ControlError> {
        let database = &mut *self.lock();
        let by = by.into();
        if let Some(done) = database.done_before(&by)? {
            return self.cache_before(database, done);
        }
        let mut change = database.begin(by, self.environment.now())?;
        let mut cache = change.cache(cache)?;
        cache.flush_generation += 1;
        change.update_cache(&cache)?;
        let effect = Effect::put(cache_record(&cache));
        let revision = change.record(Kind::CacheFlushed, &cache, None, "", &effect)?;
        if let Some(local) = self.local(cache.cluster) {
            local.data_plane.flush_cache(cache.id)?;
        }
        self.commit(change, &cache, revision)?;
        Ok(Committed { cluster: cache.cluster, value: cache, revision })
    }

    /// The cache's counters and gauges under memcached's names, for all that serve it together.
    pub fn statistics(
        &self,
        cache: &CacheRef,
    ) -> Result<(Cache, BTreeMap<String, u64>), ControlError> {
        // Not under the lock: counting may take a while, and changes should not wait for it.
        let cache = self.cache(cache)?;
        let usage = self.usage(cache.id)?.unwrap_or_default();
        let limit = ("limit_maxbytes", cache.plan.limits.memory_bytes);
        let named = usage.figures.iter().chain([limit]);
        Ok((cache, named.map(|(name, count)| (name.to_owned(), count)).collect()))
    }

    /// What is known of the use of a cache; `None` when nobody has used it since its data plane
    /// began.
    pub fn usage(&self, cache: CacheId) -> Result<Option<CacheUsage>, ControlError> {
        if let Some(local) = &self.local {
            let mut figures = local.data_plane.statistics(cache)?;
            if let Some(entry) = local.directory.cache(cache) {
                figures.set(Figure::CurrConnections, entry.connections().into());
            }
            self.usage.hear_local(cache, &figures, self.now());
        }
        Ok(self.usage.cache(cache))
    }

    /// The use of every cache of which anything is known, by number. For whoever keeps statistics;
    /// no more often than once a second.
    pub fn usages(&self) -> Result<Vec<(CacheId, CacheUsage)>, ControlError> {
        if self.local.is_some() {
            let caches = self.caches(CacheId::new(0), CACHES_MAX)?;
            let here = caches.iter().filter(|cache| self.local(cache.cluster).is_some());
            let here: HashSet<CacheId> = here.map(|cache| cache.id).collect();
            for &cache in &here {
                // One that does not answer now keeps what it had.
                drop(self.usage(cache));
            }
            self.usage.retain(|cache| here.contains(&cache));
        }
        Ok(self.usage.caches())
    }

    /// Where nodes' figures go.
    pub fn usage_of_nodes(&self) -> Arc<Usage> {
        Arc::clone(&self.usage)
    }

    /// Makes another credential for a cache.
    pub fn add_credential(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
        capabilities: Capabilities,
    ) -> Result<Committed<(Cache, Issued)>, ControlError> {
        let (new, secret) = self.new_credential(capabilities)?;
        let database = &mut *self.lock();
        let by = by.into();
        if let Some(done) = database.done_before(&by)? {
            return self.issued_before(database, done);
        }
        let mut change = database.begin(by, self.environment.now())?;
        let cache = change.cache(cache)?;
        let credential = change.insert_credential(&cache, &new)?;
        let detail = capabilities.to_string();
        let effect = Effect::put(new.record(cache.id));
        let username = Some(&new.username);
        let revision = change.record(Kind::CredentialAdded, &cache, username, &detail, &effect)?;
        self.commit(change, &cache, revision)?;
        self.tell_new(&cache, new);
        let cluster = cache.cluster;
        Ok(Committed { value: (cache, Issued { credential, secret }), cluster, revision })
    }

    /// Deletes a credential and ends its connections. The primary one stays: applications are
    /// configured with it.
    pub fn remove_credential(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
        username: &Username,
    ) -> Result<Committed<()>, ControlError> {
        let mut database = self.lock();
        let by = by.into();
        if let Some(done) = database.done_before(&by)? {
            return Ok(done.with(()));
        }
        let mut change = database.begin(by, self.environment.now())?;
        let cache = change.cache(cache)?;
        if change.credential(&cache, username)?.credential.primary {
            return Err(ControlError::PrimaryStays { cache: cache.name, username: *username });
        }
        change.delete_credential(username)?;
        let effect = Effect { deletes: vec![Key::Credential(*username)], ..Effect::NONE };
        let revision =
            change.record(Kind::CredentialRemoved, &cache, Some(username), "", &effect)?;
        self.commit(change, &cache, revision)?;
        if let Some(local) = self.local(cache.cluster) {
            local.directory.remove_credential(username);
        }
        Ok(Committed { value: (), cluster: cache.cluster, revision })
    }

    /// Makes a credential the cache's primary one. The one before it stays valid.
    pub fn promote(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
        username: &Username,
    ) -> Result<Committed<Credential>, ControlError> {
        let database = &mut *self.lock();
        let by = by.into();
        if let Some(done) = database.done_before(&by)? {
            return self.credential_before(database, done);
        }
        let mut change = database.begin(by, self.environment.now())?;
        let mut cache = change.cache(cache)?;
        let mut credential = change.credential(&cache, username)?.credential;
        if credential.primary {
            return change.unchanged(cache.cluster, credential);
        }
        let detail = format!("instead of {}", cache.primary);
        cache.primary = *username;
        credential.primary = true;
        change.update_cache(&cache)?;
        // Nothing for the nodes: which one is primary is not their concern.
        let (kind, effect) = (Kind::CredentialPromoted, Effect::NONE);
        let revision = change.record(kind, &cache, Some(username), &detail, &effect)?;
        self.commit(change, &cache, revision)?;
        Ok(Committed { value: credential, cluster: cache.cluster, revision })
    }

    /// Gives and takes capabilities. Open connections have the new set with their next request.
    pub fn change_capabilities(
        &self,
        by: impl Into<By>,
        cache: &CacheRef,
        username: &Username,
        asked: CapabilityChange,
    ) -> Result<Committed<Credential>, ControlError> {
        let database = &mut *self.lock();
        let by = by.into();
        if let Some(done) = database.done_before(&by)? {
            return self.credential_before(database, done);
        }
        let mut change = database.begin(by, self.environment.now())?;
        let cache = change.cache(cache)?;
        let mut stored = change.credential(&cache, username)?;
        let before = stored.credential.capabilities;
        let after = asked.apply(before);
        if before == after {
            return change.unchanged(cache.cluster, stored.credential);
        }
        stored.credential.capabilities = after;
        change.update_capabilities(username, after)?;
        let detail = format!("{before} to {after}");
        let record = credential_record(username, cache.id, stored.hash, after);
        let effect = Effect::put(record);
        let kind = Kind::CapabilitiesChanged;
        let revision = change.record(kind, &cache, Some(username), &detail, &effect)?;
        self.commit(change, &cache, revision)?;
        self.tell_credential(cache.cluster, &stored);
        Ok(Committed { value: stored.credential, cluster: cache.cluster, revision })
    }

    /// Commits a change of a cache, and wakes those who follow its cluster.
    fn commit(
        &self,
        change: Change<'_>,
        cache: &Cache,
        revision: Revision,
    ) -> Result<(), ControlError> {
        self.commit_in(change, cache.cluster, revision)?;
        self.outbox_bell.ring();
        Ok(())
    }

    /// Commits a change that nodes hear of, and wakes those who follow their cluster.
    fn commit_in(
        &self,
        change: Change<'_>,
        cluster: ClusterId,
        revision: Revision,
    ) -> Result<(), ControlError> {
        change.commit()?;
        self.newest(cluster, |newest| newest.send_modify(|known| *known = revision.max(*known)));
        Ok(())
    }

    /// The answer to a request that made a credential when it came first.
    fn issued_before(
        &self,
        database: &mut Database,
        done: Done,
    ) -> Result<Committed<(Cache, Issued)>, ControlError> {
        let cache = cache_of(database, &done)?;
        let stored = stored_of(database, &cache, &done)?;
        Ok(done.with((cache, self.unseal(stored)?)))
    }

    fn credential_before(
        &self,
        database: &mut Database,
        done: Done,
    ) -> Result<Committed<Credential>, ControlError> {
        let cache = cache_of(database, &done)?;
        let credential = stored_of(database, &cache, &done)?.credential;
        Ok(done.with(credential))
    }

    fn cache_before(
        &self,
        database: &mut Database,
        done: Done,
    ) -> Result<Committed<Cache>, ControlError> {
        let cache = cache_of(database, &done)?;
        Ok(done.with(cache))
    }

    /// Does something with the database about a cache that is there.
    fn about<T>(
        &self,
        cache: &CacheRef,
        act: impl FnOnce(&mut Database, &Cache) -> Result<T, ControlError>,
    ) -> Result<T, ControlError> {
        let mut database = self.lock();
        let cache = database.cache(cache)?;
        act(&mut database, &cache)
    }

    /// For tests: changes rows behind our back.
    #[cfg(test)]
    pub(crate) fn run_sql(&self, sql: &str) -> Result<(), crate::error::DatabaseError> {
        self.lock().run_batch(sql)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Database> {
        // A change that panicked was rolled back when its transaction was dropped, so the database
        // is as good as before.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_reader(&self) -> MutexGuard<'_, Database> {
        // Whoever panicked had only been reading.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guesses(&self) -> MutexGuard<'_, Guesses> {
        // Whoever panicked lost at most a failure.
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data plane of this process, if it serves this cluster.
    fn local(&self, cluster: ClusterId) -> Option<&Local> {
        self.local.as_ref().filter(|_| cluster == ClusterId::DEFAULT)
    }

    fn tell_cache(&self, cache: &Cache) {
        if let Some(local) = self.local(cache.cluster) {
            local.directory.put_cache(cache.id, cache.limits(), cache.enabled);
        }
    }

    fn tell_credential(&self, cluster: ClusterId, stored: &StoredCredential) {
        let Some(local) = self.local(cluster) else { return };
        let Credential { username, cache, capabilities, .. } = stored.credential;
        local
            .directory
            .put_credential(cache, username, stored.hash, capabilities)
            .expect("the database has no credential without its cache, and caches are told first");
    }

    fn tell_new(&self, cache: &Cache, new: NewCredential) {
        let Some(local) = self.local(cache.cluster) else { return };
        local
            .directory
            .put_credential(cache.id, new.username, new.hash, new.capabilities)
            .expect("the cache was told before, and we hold the lock since we looked");
    }

    /// Asks the data plane of this process for a cache's limits; it may refuse.
    fn make_room(&self, cache: &Cache) -> Result<(), ControlError> {
        if let Some(local) = self.local(cache.cluster) {
            local.data_plane.put_cache(cache.id, cache.limits())?;
        }
        Ok(())
    }

    /// Takes back [`Control::make_room`] for a cache that was not committed.
    fn give_room_back(&self, cache: &Cache) {
        if let Some(local) = self.local(cache.cluster) {
            local.data_plane.remove_cache(cache.id);
        }
    }

    /// Gives a cache back the limits it had, after a change that was not committed.
    fn restore_limits(&self, cache: &Cache) {
        if let Err(error) = self.make_room(cache) {
            tracing::error!(
                cache = cache.id.get(),
                error = &error as &dyn std::error::Error,
                "limits not restored after a failed plan change"
            );
        }
    }

    fn new_credential(
        &self,
        capabilities: Capabilities,
    ) -> Result<(NewCredential, Secret), ControlError> {
        let username = Username::from_random(self.environment.random()?);
        let secret = Secret::from_random(self.environment.random()?);
        let hash = self.secret_key.hash(username.as_bytes(), secret.reveal().as_bytes());
        let sealed_password = self.sealer.seal(&username, &secret, self.environment.random()?);
        Ok((NewCredential { username, capabilities, hash, sealed_password }, secret))
    }

    fn chance_name(&self) -> Result<CacheName, ControlError> {
        let letters = Username::from_random(self.environment.random()?);
        let name = format!("cache-{}", letters.as_str().to_ascii_lowercase());
        Ok(CacheName::parse(&name).expect("a letter, then letters, digits and a hyphen"))
    }

    fn unseal(&self, stored: StoredCredential) -> Result<Issued, ControlError> {
        let StoredCredential { credential, sealed_password, .. } = stored;
        let username = credential.username;
        let secret = self
            .sealer
            .open(&username, &sealed_password)
            .map_err(|source| ControlError::Sealed { username, source })?;
        Ok(Issued { credential, secret })
    }
}

/// What a webhook's secret is sealed for. No username has a colon in it.
fn webhook_context(url: &str) -> Vec<u8> {
    format!("webhook:{url}").into_bytes()
}

impl Done {
    fn with<T>(self, value: T) -> Committed<T> {
        Committed { value, cluster: self.cluster, revision: self.revision }
    }
}

fn cache_of(database: &mut Database, done: &Done) -> Result<Cache, ControlError> {
    match database.cache(&CacheRef::Id(done.cache)) {
        Err(ControlError::UnknownCache(_)) => Err(ControlError::Superseded),
        found => found,
    }
}

fn stored_of(
    database: &mut Database,
    cache: &Cache,
    done: &Done,
) -> Result<StoredCredential, ControlError> {
    let username = done.username.ok_or(ControlError::Corrupt { what: "idempotency key" })?;
    match database.credential(cache, &username) {
        Err(ControlError::UnknownCredential { .. }) => Err(ControlError::Superseded),
        found => found,
    }
}

mod alerts;
mod introspection;
mod latency;
mod owners;
mod prefixes;
mod rules;
mod series;
#[cfg(test)]
mod tests;

pub(crate) use owners::LoggedIn;
