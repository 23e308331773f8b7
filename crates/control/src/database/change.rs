//! A change: one transaction that writes rows, says who did what, and says what it means for nodes.

use tenancy::capability::Capabilities;
use tenancy::id::{CacheId, Username};
use tenancy::plan::{Plan, Rates};
use tenancy::secret::SecretHash;
use wire::control::record::{Key, Record, Revision};

use super::delta::{Effect, credential_record};
use super::leadership::{self, Fence};
use super::rows::{self, StoredCredential, corrupt};
use super::sql::{Mode, Sql, Value};
use super::{CACHES_MAX, CLUSTERS_MAX, CREDENTIALS_PER_CACHE_MAX, outbox};
use crate::error::ControlError;
use crate::model::{
    Actor, By, Cache, CacheName, CacheRef, Cluster, ClusterId, ClusterName, Committed, Credential,
    Once, UnixSeconds,
};
use crate::rules::KeptRule;

/// A change that is being made. Dropped, it leaves nothing behind.
pub(crate) struct Change<'a> {
    pub(super) sql: &'a mut dyn Sql,
    actor: Actor,
    pub(super) now: UnixSeconds,
    once: Option<Once>,
    /// Its row in the audit log, once it has one.
    audit_id: Option<i64>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.sql.rollback();
    }
}

/// What a request that was carried out before had done, as far as its answer needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) cluster: ClusterId,
    pub(crate) revision: Revision,
    pub(crate) cache: CacheId,
    pub(crate) username: Option<Username>,
}

impl Done {
    pub(super) fn find(sql: &mut dyn Sql, once: &Once) -> Result<Option<Self>, ControlError> {
        let select = "SELECT request_digest, cluster_id, revision, cache_id, username
            FROM idempotency_keys WHERE key = $1";
        let Some(row) = sql.row(select, &[once.key.as_str().into()])? else {
            let elsewhere = "SELECT count(*) FROM installation_requests WHERE key = $1";
            return unless_used(sql, elsewhere, once).map(|()| None);
        };
        if row.bytes(0)? != once.request_digest {
            return Err(ControlError::KeyReused);
        }
        Ok(Some(Done {
            cluster: ClusterId(row.natural(1)?),
            revision: Revision::new(row.natural(2)?),
            cache: CacheId::new(row.natural(3)?),
            username: row.optional_text(4)?.map(rows::username).transpose()?,
        }))
    }
}

/// What a request made or changed that was carried out before, where that is no cache's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) id: u64,
    /// The change in a cluster's log, if nodes had to hear of it.
    pub(crate) at: Option<(ClusterId, Revision)>,
}

impl Made {
    pub(super) fn find(sql: &mut dyn Sql, once: &Once) -> Result<Option<Self>, ControlError> {
        let select = "SELECT request_digest, made, cluster_id, revision
            FROM installation_requests WHERE key = $1";
        let Some(row) = sql.row(select, &[once.key.as_str().into()])? else {
            let elsewhere = "SELECT count(*) FROM idempotency_keys WHERE key = $1";
            return unless_used(sql, elsewhere, once).map(|()| None);
        };
        if row.bytes(0)? != once.request_digest {
            return Err(ControlError::KeyReused);
        }
        let (cluster, revision) = (row.optional_natural(2)?, row.optional_natural(3)?);
        let at = cluster.map(ClusterId).zip(revision.map(Revision::new));
        Ok(Some(Made { id: row.natural(1)?, at }))
    }
}

/// Refuses a key that is counted among requests of another kind.
fn unless_used(sql: &mut dyn Sql, count: &str, once: &Once) -> Result<(), ControlError> {
    let found = sql.number(count, &[once.key.as_str().into()])?;
    if found == 0 { Ok(()) } else { Err(ControlError::KeyReused) }
}

/// What a change did: the words of the change log and of the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    CacheCreated,
    CacheDeleted,
    PlanChanged,
    CacheEnabled,
    CacheDisabled,
    CacheFlushed,
    CredentialAdded,
    CredentialRemoved,
    CredentialPromoted,
    CapabilitiesChanged,
    RuleAdded,
    RuleChanged,
    RuleRemoved,
    /// Its time was over.
    RuleEnded,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Kind::CacheCreated => "cache created",
            Kind::CacheDeleted => "cache deleted",
            Kind::PlanChanged => "plan changed",
            Kind::CacheEnabled => "cache enabled",
            Kind::CacheDisabled => "cache disabled",
            Kind::CacheFlushed => "cache flushed",
            Kind::CredentialAdded => "credential added",
            Kind::CredentialRemoved => "credential removed",
            Kind::CredentialPromoted => "credential promoted",
            Kind::CapabilitiesChanged => "capabilities changed",
            Kind::RuleAdded => "rule added",
            Kind::RuleChanged => "rule changed",
            Kind::RuleRemoved => "rule removed",
            Kind::RuleEnded => "rule ended",
        }
    }
}

/// Rows of one table that belong to a cache and concern no node.
pub(super) struct Belonging {
    pub(super) table: &'static str,
    /// What the audit log says when one is deleted.
    pub(super) removed: &'static str,
    pub(super) unknown: fn(u64) -> ControlError,
}

/// A credential to be inserted.
pub(crate) struct NewCredential {
    pub(crate) username: Username,
    pub(crate) capabilities: Capabilities,
    pub(crate) hash: SecretHash,
    pub(crate) sealed_password: Vec<u8>,
}

impl NewCredential {
    pub(crate) fn record(&self, cache: CacheId) -> Record {
        credential_record(&self.username, cache, self.hash, self.capabilities)
    }
}

impl<'a> Change<'a> {
    pub(super) fn begin(
        sql: &'a mut dyn Sql,
        fence: Fence,
        by: By,
        now: UnixSeconds,
    ) -> Result<Self, ControlError> {
        let By { actor, once } = by;
        // Made first, so that it also ends a BEGIN that failed after it had begun.
        let change = Change { sql, actor, now, once, audit_id: None };
        change.sql.begin(Mode::Write)?;
        leadership::check(change.sql, fence)?;
        Ok(change)
    }

    pub(crate) fn cache(&mut self, cache: &CacheRef) -> Result<Cache, ControlError> {
        rows::find_cache(self.sql, cache)?.ok_or_else(|| ControlError::UnknownCache(cache.clone()))
    }

    pub(crate) fn cluster(&mut self, cluster: ClusterId) -> Result<Cluster, ControlError> {
        rows::find_cluster(self.sql, cluster)
    }

    /// On whose behalf it is made, as the logs have it.
    pub(super) fn actor_name(&self) -> String {
        self.actor.name().into_owned()
    }

    pub(crate) fn credential(
        &mut self,
        cache: &Cache,
        username: &Username,
    ) -> Result<StoredCredential, ControlError> {
        rows::find_credential(self.sql, cache, username)
    }

    /// The revision in force, for a change that finds nothing to do.
    pub(crate) fn unchanged<T>(
        &mut self,
        cluster: ClusterId,
        value: T,
    ) -> Result<Committed<T>, ControlError> {
        let revision = rows::find_cluster(self.sql, cluster)?.revision;
        Ok(Committed { value, cluster, revision })
    }

    pub(crate) fn insert_cluster(
        &mut self,
        name: ClusterName,
        slot_key: [u8; 16],
    ) -> Result<Cluster, ControlError> {
        let clusters = rows::clusters(self.sql)?;
        if clusters.iter().any(|cluster| cluster.name == name) {
            return Err(ControlError::ClusterNameTaken(name));
        }
        if clusters.len() >= CLUSTERS_MAX {
            return Err(ControlError::TooManyClusters { max: CLUSTERS_MAX });
        }
        let insert = "INSERT INTO clusters (name, slot_key, created_at) VALUES ($1, $2, $3)
            RETURNING id";
        let values = [name.as_str().into(), slot_key.as_slice().into(), self.now.0.into()];
        let id = ClusterId(natural(self.sql.number(insert, &values)?)?);
        self.audit("cluster created", Some(id), name.as_str())?;
        rows::find_cluster(self.sql, id)
    }

    /// A cache and the credential it begins with, which is its primary one.
    pub(crate) fn insert_cache(
        &mut self,
        cluster: ClusterId,
        name: CacheName,
        plan: &'static Plan,
        primary: &NewCredential,
    ) -> Result<(Cache, Credential), ControlError> {
        if rows::find_cache(self.sql, &CacheRef::Name(name.clone()))?.is_some() {
            return Err(ControlError::NameTaken(name));
        }
        rows::find_cluster(self.sql, cluster)?;
        if self.count("SELECT count(*) FROM caches", &[])? >= CACHES_MAX {
            return Err(ControlError::TooManyCaches { max: CACHES_MAX });
        }
        let insert = "INSERT INTO caches
                (cluster_id, name, plan, enabled, primary_username, created_at, used_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id";
        let values = [
            cluster.0.into(),
            name.as_str().into(),
            plan.name.into(),
            true.into(),
            primary.username.as_str().into(),
            self.now.0.into(),
            self.now.0.into(),
        ];
        let cache = Cache {
            id: CacheId::new(natural(self.sql.number(insert, &values)?)?),
            cluster,
            name,
            plan,
            rates: Rates::UNLIMITED,
            enabled: true,
            primary: primary.username,
            flush_generation: 0,
            created_at: self.now,
            used_at: self.now,
        };
        let credential = self.insert_credential(&cache, primary)?;
        Ok((cache, credential))
    }

    pub(crate) fn insert_credential(
        &mut self,
        cache: &Cache,
        new: &NewCredential,
    ) -> Result<Credential, ControlError> {
        let count = "SELECT count(*) FROM credentials WHERE cache_id = $1";
        if self.count(count, &[cache.id.get().into()])? >= CREDENTIALS_PER_CACHE_MAX {
            let max = CREDENTIALS_PER_CACHE_MAX;
            return Err(ControlError::TooManyCredentials { cache: cache.name.clone(), max });
        }
        let id = self.sql.number(
            "INSERT INTO credentials
                 (username, cache_id, capabilities, password_hash, sealed_password, created_at)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
            &[
                new.username.as_str().into(),
                cache.id.get().into(),
                i64::from(new.capabilities.bits()).into(),
                new.hash.bytes().as_slice().into(),
                new.sealed_password.as_slice().into(),
                self.now.0.into(),
            ],
        )?;
        Ok(Credential {
            id: natural(id)?,
            username: new.username,
            cache: cache.id,
            capabilities: new.capabilities,
            primary: new.username == cache.primary,
            created_at: self.now,
        })
    }

    /// Deletes a cache with all its credentials and rules, and says what the nodes must forget.
    pub(crate) fn delete_cache(&mut self, cache: &Cache) -> Result<Effect, ControlError> {
        let credentials = rows::credentials_of(self.sql, cache.id)?;
        let rules = self.rules_of_cache(cache.id)?;
        self.sql.execute("DELETE FROM caches WHERE id = $1", &[cache.id.get().into()])?;
        let usernames = credentials.iter().map(|stored| stored.credential.username);
        let mut deletes: Vec<Key> = usernames.map(Key::Credential).collect();
        deletes.extend(rules.into_iter().map(Key::Rule));
        deletes.push(Key::Cache(cache.id));
        Ok(Effect { deletes, ..Effect::NONE })
    }

    pub(crate) fn delete_credential(&mut self, username: &Username) -> Result<(), ControlError> {
        let sql = "DELETE FROM credentials WHERE username = $1";
        self.sql.execute(sql, &[username.as_str().into()])?;
        Ok(())
    }

    /// Writes what can change of a cache as it now is.
    pub(crate) fn update_cache(&mut self, cache: &Cache) -> Result<(), ControlError> {
        self.sql.execute(
            "UPDATE caches SET plan = $1, enabled = $2, primary_username = $3,
                 flush_generation = $4, used_at = $5, operations_per_second = $6,
                 bytes_per_second = $7 WHERE id = $8",
            &[
                cache.plan.name.into(),
                cache.enabled.into(),
                cache.primary.as_str().into(),
                cache.flush_generation.into(),
                cache.used_at.0.into(),
                cache.rates.operations_per_second.into(),
                cache.rates.bytes_per_second.into(),
                cache.id.get().into(),
            ],
        )?;
        Ok(())
    }

    pub(crate) fn update_capabilities(
        &mut self,
        username: &Username,
        capabilities: Capabilities,
    ) -> Result<(), ControlError> {
        self.sql.execute(
            "UPDATE credentials SET capabilities = $1 WHERE username = $2",
            &[i64::from(capabilities.bits()).into(), username.as_str().into()],
        )?;
        Ok(())
    }

    /// Appends to the change log, the audit log and the outbox, and keeps the idempotency key.
    /// Every change of a cache does this once, last.
    pub(crate) fn record(
        &mut self,
        kind: Kind,
        cache: &Cache,
        username: Option<&Username>,
        detail: &str,
        effect: &Effect,
    ) -> Result<Revision, ControlError> {
        let username = username.map(Username::as_str);
        let of = Some((cache.id, &cache.name));
        let revision = self.append(kind, cache.cluster, of, username, detail, effect)?;
        outbox::tell(self.sql, self.now, kind, cache, username, revision)?;
        if let Some(once) = self.once.take() {
            self.keep_key(&once, cache, username, revision)?;
        }
        Ok(revision)
    }

    /// Appends to the change log and the audit log. Every change of a rule does this once, and then
    /// [keeps its key](Change::keep_made).
    pub(crate) fn record_rule(
        &mut self,
        kind: Kind,
        kept: &KeptRule,
        effect: &Effect,
    ) -> Result<Revision, ControlError> {
        let of = kept.rule.cache.zip(kept.cache.as_ref());
        self.append(kind, kept.cluster, of, None, &kept.said(), effect)
    }

    fn append(
        &mut self,
        kind: Kind,
        cluster: ClusterId,
        cache: Option<(CacheId, &CacheName)>,
        username: Option<&str>,
        detail: &str,
        effect: &Effect,
    ) -> Result<Revision, ControlError> {
        let cluster: Value<'_> = cluster.0.into();
        let cache_id: Value<'_> = cache.map(|(id, _)| id.get()).into();
        let select = "SELECT revision FROM clusters WHERE id = $1 FOR UPDATE";
        let revision = self.sql.number(select, &[cluster])? + 1;
        self.sql.execute(
            "INSERT INTO changes (cluster_id, revision, at, kind, cache_id, username, delta)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                cluster,
                revision.into(),
                self.now.0.into(),
                kind.name().into(),
                cache_id,
                username.into(),
                effect.to_json().as_str().into(),
            ],
        )?;
        let audit_id = self.sql.number(
            "INSERT INTO audit (at, actor, action, cluster_id, cache_id, cache_name, username,
                 detail, revision)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id",
            &[
                self.now.0.into(),
                (&*self.actor.name()).into(),
                kind.name().into(),
                cluster,
                cache_id,
                cache.map(|(_, name)| name.as_str()).into(),
                username.into(),
                detail.into(),
                revision.into(),
            ],
        )?;
        self.audit_id = Some(audit_id);
        Ok(Revision::new(natural(revision)?))
    }

    /// Keeps the idempotency key of a change that is no cache's, with what it made.
    pub(crate) fn keep_made(&mut self, made: Made) -> Result<(), ControlError> {
        let Some(once) = self.once.take() else { return Ok(()) };
        let (cluster, revision) = made.at.unzip();
        self.sql.execute(
            "INSERT INTO installation_requests
                 (key, request_digest, at, made, cluster_id, revision)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &[
                once.key.as_str().into(),
                once.request_digest.as_slice().into(),
                self.now.0.into(),
                made.id.into(),
                cluster.map(|cluster| cluster.0).into(),
                revision.map(Revision::get).into(),
            ],
        )?;
        Ok(())
    }

    fn keep_key(
        &mut self,
        once: &Once,
        cache: &Cache,
        username: Option<&str>,
        revision: Revision,
    ) -> Result<(), ControlError> {
        self.sql.execute(
            "INSERT INTO idempotency_keys
                 (key, request_digest, at, cluster_id, revision, cache_id, username)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                once.key.as_str().into(),
                once.request_digest.as_slice().into(),
                self.now.0.into(),
                cache.cluster.0.into(),
                revision.get().into(),
                cache.id.get().into(),
                username.into(),
            ],
        )?;
        Ok(())
    }

    /// Appends to the audit log only: for acts that change nothing of a cache.
    pub(super) fn audit(
        &mut self,
        action: &str,
        cluster: Option<ClusterId>,
        detail: &str,
    ) -> Result<(), ControlError> {
        let audit_id = self.sql.number(
            "INSERT INTO audit (at, actor, action, cluster_id, detail)
             VALUES ($1, $2, $3, $4, $5) RETURNING id",
            &[
                self.now.0.into(),
                (&*self.actor.name()).into(),
                action.into(),
                cluster.map(|cluster| cluster.0).into(),
                detail.into(),
            ],
        )?;
        self.audit_id = Some(audit_id);
        Ok(())
    }

    /// The number of its line in the audit log, once it has one; given to no other change ever.
    pub(super) fn audit_line(&self) -> Option<i64> {
        self.audit_id
    }

    /// Appends to the audit log only: for acts on a cache that its nodes need not hear of.
    pub(crate) fn audit_cache(&mut self, action: &str, cache: &Cache) -> Result<(), ControlError> {
        let audit_id = self.sql.number(
            "INSERT INTO audit (at, actor, action, cluster_id, cache_id, cache_name, detail)
             VALUES ($1, $2, $3, $4, $5, $6, '') RETURNING id",
            &[
                self.now.0.into(),
                (&*self.actor.name()).into(),
                action.into(),
                cache.cluster.0.into(),
                cache.id.get().into(),
                cache.name.as_str().into(),
            ],
        )?;
        self.audit_id = Some(audit_id);
        Ok(())
    }

    /// Deletes what a cache has under this id, and commits.
    pub(super) fn remove(
        mut self,
        what: &Belonging,
        cache: &Cache,
        id: u64,
    ) -> Result<(), ControlError> {
        let delete = format!("DELETE FROM {} WHERE id = $1 AND cache_id = $2", what.table);
        if self.sql.execute(&delete, &[id.into(), cache.id.get().into()])? == 0 {
            return Err((what.unknown)(id));
        }
        self.audit(what.removed, Some(cache.cluster), &format!("of {}", cache.name))?;
        self.commit()
    }

    /// Makes the change true. After an error it is as if it had never begun, unless the error says
    /// that the database cannot be reached: then nobody knows, and the client asks again under the
    /// same idempotency key.
    pub(crate) fn commit(self) -> Result<(), ControlError> {
        let committed = self.sql.commit();
        // An error does not say which way it went: SQLite may give up on a COMMIT that has already
        // taken effect, and a connection may break before the answer. Where the transaction is still
        // open it did not; else the rows tell, on a new connection if need be.
        if committed.is_err()
            && !self.sql.is_in_transaction()
            && let Some(id) = self.audit_id
            && self.sql.number("SELECT count(*) FROM audit WHERE id = $1", &[id.into()])? == 1
        {
            return Ok(());
        }
        Ok(committed?)
    }

    pub(super) fn count(&mut self, sql: &str, values: &[Value<'_>]) -> Result<usize, ControlError> {
        usize::try_from(self.sql.number(sql, values)?).map_err(|_| corrupt("count"))
    }
}

/// A number that is never negative: an id, a revision, a fence, a count.
pub(super) fn natural(number: i64) -> Result<u64, ControlError> {
    u64::try_from(number).map_err(|_| corrupt("number"))
}
