//! The control plane itself: one change at a time, to the database, the data plane and the directory.
//!
//! Every method blocks; the API calls them on threads made for that.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenancy::capability::Capabilities;
use tenancy::directory::Directory;
use tenancy::id::{CacheId, Username};
use tenancy::plan::Plan;
use tenancy::secret::{Secret, SecretKey};

use crate::data_dir::{Announcement, DataDir, DataDirError};
use crate::data_plane::DataPlane;
use crate::database::{CACHES_MAX, Database, Kind, NewCredential, StoredCredential};
use crate::environment::Environment;
use crate::error::{ControlError, OpenError};
use crate::model::{Actor, Cache, CacheName, CacheRef, CapabilityChange, Credential, Issued};
use crate::seal::Sealer;

/// The cache that `larder up` makes for whoever tries it.
pub const DEVELOPMENT_CACHE: &str = "development";

/// One installation's caches and credentials.
pub struct Control {
    /// Held for the whole of a change, so that the data plane and the directory hear of changes in
    /// the order in which they were committed.
    database: Mutex<Database>,
    directory: Arc<Directory>,
    data_plane: Arc<dyn DataPlane>,
    environment: Environment,
    secret_key: SecretKey,
    sealer: Sealer,
    token: Secret,
    data_dir: DataDir,
}

impl Control {
    /// Opens the data directory, making it at the first start, and has the data plane serve every
    /// cache in it.
    pub fn open(
        path: &Path,
        environment: Environment,
        data_plane: Arc<dyn DataPlane>,
    ) -> Result<Self, OpenError> {
        let data_dir = DataDir::open(path)?;
        let master_key = data_dir.master_key(&environment)?;
        let token = data_dir.token(&environment)?;
        let database = Database::open(&data_dir.database_file()?)?;
        let secret_key = master_key.secret_key();
        let directory = Arc::new(Directory::new(secret_key.clone()));
        let control = Control {
            database: Mutex::new(database),
            directory,
            data_plane,
            environment,
            secret_key,
            sealer: master_key.sealer(),
            token,
            data_dir,
        };
        control.load()?;
        Ok(control)
    }

    fn load(&self) -> Result<(), OpenError> {
        let database = self.lock();
        for cache in database.caches(CacheId::new(0), CACHES_MAX)? {
            self.data_plane
                .put_cache(cache.id, cache.plan.limits)
                .map_err(|source| OpenError::DataPlane { cache: cache.id, source })?;
            self.tell_cache(&cache);
        }
        database.for_each_credential(|stored| self.tell_credential(&stored))?;
        Ok(())
    }

    /// What proxies ask. Follows every change from now on.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
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
        let database = self.lock();
        let cache = database.cache(cache)?;
        let stored = database.credentials(cache.id)?;
        Ok((cache, stored.into_iter().map(|stored| stored.credential).collect()))
    }

    /// A credential and its cache, for who knows only the username.
    pub fn credential(&self, username: &Username) -> Result<(Cache, Credential), ControlError> {
        let database = self.lock();
        let cache = database.cache_of(username)?;
        let stored = database.credential(&cache, username)?;
        Ok((cache, stored.credential))
    }

    /// A cache's credentials with their passwords.
    pub fn issued(&self, cache: &CacheRef) -> Result<(Cache, Vec<Issued>), ControlError> {
        let database = self.lock();
        let cache = database.cache(cache)?;
        let stored = database.credentials(cache.id)?;
        let issued: Result<_, _> = stored.into_iter().map(|stored| self.unseal(stored)).collect();
        Ok((cache, issued?))
    }

    /// Makes a cache with one credential, its primary one, which may do everything. Without a name
    /// it gets one that nobody chose.
    pub fn create_cache(
        &self,
        actor: Actor,
        name: Option<CacheName>,
        plan: &'static Plan,
    ) -> Result<(Cache, Issued), ControlError> {
        self.create_cache_in(&mut self.lock(), actor, name, plan)
    }

    fn create_cache_in(
        &self,
        database: &mut Database,
        actor: Actor,
        name: Option<CacheName>,
        plan: &'static Plan,
    ) -> Result<(Cache, Issued), ControlError> {
        let name = match name {
            Some(name) => name,
            None => self.chance_name()?,
        };
        let (new, secret) = self.new_credential(Capabilities::ALL)?;
        let change = database.begin(actor, self.environment.now())?;
        let (cache, credential) = change.insert_cache(name, plan, &new)?;
        change.record(Kind::CacheCreated, &cache, Some(&new.username), plan.name)?;
        self.data_plane.put_cache(cache.id, plan.limits)?;
        change.commit().inspect_err(|_| self.data_plane.remove_cache(cache.id))?;
        self.tell_cache(&cache);
        self.tell_new(&cache, new);
        Ok((cache, Issued { credential, secret }))
    }

    /// The cache named [`DEVELOPMENT_CACHE`] and its primary credential; made when there is none.
    pub fn ensure_development_cache(&self) -> Result<(Cache, Issued), ControlError> {
        let name = CacheName::parse(DEVELOPMENT_CACHE).expect("a letter, then letters");
        let database = &mut *self.lock();
        match database.cache(&CacheRef::Name(name.clone())) {
            Ok(cache) => {
                let issued = self.unseal(database.credential(&cache, &cache.primary)?)?;
                Ok((cache, issued))
            }
            Err(ControlError::UnknownCache(_)) => {
                self.create_cache_in(database, Actor::Installation, Some(name), Plan::DEVELOPMENT)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes a cache, its credentials and its items, and ends its connections.
    pub fn delete_cache(&self, actor: Actor, cache: &CacheRef) -> Result<(), ControlError> {
        let mut database = self.lock();
        let change = database.begin(actor, self.environment.now())?;
        let cache = change.cache(cache)?;
        change.delete_cache(&cache)?;
        change.record(Kind::CacheDeleted, &cache, None, cache.plan.name)?;
        change.commit()?;
        // In this order, so that no client can write to a cache that is being taken down.
        self.directory.remove_cache(cache.id);
        self.data_plane.remove_cache(cache.id);
        Ok(())
    }

    /// Gives a cache another plan; its items stay as far as they fit.
    pub fn change_plan(
        &self,
        actor: Actor,
        cache: &CacheRef,
        plan: &'static Plan,
    ) -> Result<Cache, ControlError> {
        let mut database = self.lock();
        let change = database.begin(actor, self.environment.now())?;
        let before = change.cache(cache)?;
        if before.plan == plan {
            return Ok(before);
        }
        let after = Cache { plan, ..before.clone() };
        change.update_cache(&after)?;
        let detail = format!("{} to {}", before.plan.name, plan.name);
        change.record(Kind::PlanChanged, &after, None, &detail)?;
        self.data_plane.put_cache(after.id, plan.limits)?;
        change.commit().inspect_err(|_| self.restore_limits(&before))?;
        self.tell_cache(&after);
        Ok(after)
    }

    /// Disables a cache (its connections end and nobody can authenticate; the items stay), or
    /// enables it again.
    pub fn set_enabled(
        &self,
        actor: Actor,
        cache: &CacheRef,
        enabled: bool,
    ) -> Result<Cache, ControlError> {
        let mut database = self.lock();
        let change = database.begin(actor, self.environment.now())?;
        let mut cache = change.cache(cache)?;
        if cache.enabled == enabled {
            return Ok(cache);
        }
        cache.enabled = enabled;
        change.update_cache(&cache)?;
        let kind = if enabled { Kind::CacheEnabled } else { Kind::CacheDisabled };
        change.record(kind, &cache, None, "")?;
        change.commit()?;
        self.tell_cache(&cache);
        Ok(cache)
    }

    /// Forgets all items of a cache. When writing that down fails, the items are gone all the same:
    /// better than a log that tells of a flush that was not.
    pub fn flush_cache(&self, actor: Actor, cache: &CacheRef) -> Result<(), ControlError> {
        let mut database = self.lock();
        let change = database.begin(actor, self.environment.now())?;
        let cache = change.cache(cache)?;
        change.record(Kind::CacheFlushed, &cache, None, "")?;
        self.data_plane.flush_cache(cache.id)?;
        change.commit()
    }

    /// The cache's counters and gauges under memcached's names.
    pub fn statistics(
        &self,
        cache: &CacheRef,
    ) -> Result<(Cache, Vec<(String, u64)>), ControlError> {
        // Not under the lock: counting may take a while, and changes should not wait for it.
        let cache = self.cache(cache)?;
        let statistics = self.data_plane.statistics(cache.id)?;
        Ok((cache, statistics))
    }

    /// Makes another credential for a cache.
    pub fn add_credential(
        &self,
        actor: Actor,
        cache: &CacheRef,
        capabilities: Capabilities,
    ) -> Result<(Cache, Issued), ControlError> {
        let (new, secret) = self.new_credential(capabilities)?;
        let mut database = self.lock();
        let change = database.begin(actor, self.environment.now())?;
        let cache = change.cache(cache)?;
        let credential = change.insert_credential(&cache, &new)?;
        let detail = capabilities.to_string();
        change.record(Kind::CredentialAdded, &cache, Some(&new.username), &detail)?;
        change.commit()?;
        self.tell_new(&cache, new);
        Ok((cache, Issued { credential, secret }))
    }

    /// Deletes a credential and ends its connections. The primary one stays: applications are
    /// configured with it.
    pub fn remove_credential(
        &self,
        actor: Actor,
        cache: &CacheRef,
        username: &Username,
    ) -> Result<(), ControlError> {
        let mut database = self.lock();
        let change = database.begin(actor, self.environment.now())?;
        let cache = change.cache(cache)?;
        if change.credential(&cache, username)?.credential.primary {
            return Err(ControlError::PrimaryStays { cache: cache.name, username: *username });
        }
        change.delete_credential(username)?;
        change.record(Kind::CredentialRemoved, &cache, Some(username), "")?;
        change.commit()?;
        self.directory.remove_credential(username);
        Ok(())
    }

    /// Makes a credential the cache's primary one. The one before it stays valid.
    pub fn promote(
        &self,
        actor: Actor,
        cache: &CacheRef,
        username: &Username,
    ) -> Result<Credential, ControlError> {
        let mut database = self.lock();
        let change = database.begin(actor, self.environment.now())?;
        let mut cache = change.cache(cache)?;
        let mut credential = change.credential(&cache, username)?.credential;
        if credential.primary {
            return Ok(credential);
        }
        let detail = format!("instead of {}", cache.primary);
        cache.primary = *username;
        credential.primary = true;
        change.update_cache(&cache)?;
        change.record(Kind::CredentialPromoted, &cache, Some(username), &detail)?;
        change.commit()?;
        Ok(credential)
    }

    /// Gives and takes capabilities. Open connections have the new set with their next request.
    pub fn change_capabilities(
        &self,
        actor: Actor,
        cache: &CacheRef,
        username: &Username,
        asked: CapabilityChange,
    ) -> Result<Credential, ControlError> {
        let mut database = self.lock();
        let change = database.begin(actor, self.environment.now())?;
        let cache = change.cache(cache)?;
        let mut stored = change.credential(&cache, username)?;
        let before = stored.credential.capabilities;
        let after = asked.apply(before);
        if before == after {
            return Ok(stored.credential);
        }
        stored.credential.capabilities = after;
        change.update_capabilities(username, after)?;
        let detail = format!("{before} to {after}");
        change.record(Kind::CapabilitiesChanged, &cache, Some(username), &detail)?;
        change.commit()?;
        self.tell_credential(&stored);
        Ok(stored.credential)
    }

    /// For tests: changes rows behind our back.
    #[cfg(test)]
    pub(crate) fn run_sql(&self, sql: &str) -> rusqlite::Result<()> {
        self.lock().connection().execute_batch(sql)
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        // A change that panicked was rolled back when its transaction was dropped, so the database
        // is as good as before.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_cache(&self, cache: &Cache) {
        self.directory.put_cache(cache.id, cache.plan.limits, cache.enabled);
    }

    fn tell_credential(&self, stored: &StoredCredential) {
        let Credential { username, cache, capabilities, .. } = stored.credential;
        self.directory
            .put_credential(cache, username, stored.hash, capabilities)
            .expect("the database has no credential without its cache, and caches are told first");
    }

    fn tell_new(&self, cache: &Cache, new: NewCredential) {
        self.directory
            .put_credential(cache.id, new.username, new.hash, new.capabilities)
            .expect("the cache was told before, and we hold the lock since we looked");
    }

    /// Gives a cache back the limits it had, after a change that was not committed.
    fn restore_limits(&self, cache: &Cache) {
        if let Err(error) = self.data_plane.put_cache(cache.id, cache.plan.limits) {
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

#[cfg(test)]
mod tests;
