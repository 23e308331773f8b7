//! From columns to checked values: the one place that knows which column is what.

use tenancy::capability::Capabilities;
use tenancy::id::{CacheId, Username};
use tenancy::plan::{Plan, Rates};
use tenancy::secret::SecretHash;
use wire::control::record::Revision;

use super::sql::{Row, Sql};
use crate::error::ControlError;
use crate::model::{
    Cache, CacheName, CacheRef, Cluster, ClusterId, ClusterName, Credential, UnixSeconds,
};

/// A credential's row with what only its keeper sees.
pub(crate) struct StoredCredential {
    pub(crate) credential: Credential,
    pub(crate) hash: SecretHash,
    pub(crate) sealed_password: Vec<u8>,
}

pub(super) const SELECT_CACHE: &str = "SELECT id, cluster_id, name, plan, enabled, \
    primary_username, flush_generation, created_at, used_at, operations_per_second, \
    bytes_per_second FROM caches";

pub(super) fn cache(row: &Row) -> Result<Cache, ControlError> {
    Ok(Cache {
        id: CacheId::new(row.natural(0)?),
        cluster: ClusterId(row.natural(1)?),
        name: CacheName::parse(row.text(2)?).map_err(|_| corrupt("cache name"))?,
        plan: Plan::named(row.text(3)?).ok_or(corrupt("plan"))?,
        enabled: row.bool(4)?,
        primary: username(row.text(5)?)?,
        flush_generation: row.natural(6)?,
        created_at: UnixSeconds(row.natural(7)?),
        used_at: UnixSeconds(row.natural(8)?),
        rates: Rates { operations_per_second: row.natural(9)?, bytes_per_second: row.natural(10)? },
    })
}

pub(super) fn find_cache(
    sql: &mut dyn Sql,
    cache_ref: &CacheRef,
) -> Result<Option<Cache>, ControlError> {
    let row = match cache_ref {
        CacheRef::Id(id) => {
            sql.row(&format!("{SELECT_CACHE} WHERE id = $1"), &[id.get().into()])?
        }
        CacheRef::Name(name) => {
            sql.row(&format!("{SELECT_CACHE} WHERE name = $1"), &[name.as_str().into()])?
        }
    };
    row.as_ref().map(cache).transpose()
}

pub(super) const SELECT_CREDENTIAL: &str = "SELECT username, cache_id, capabilities, \
    password_hash, sealed_password, credentials.created_at, username = primary_username, \
    credentials.id \
    FROM credentials JOIN caches ON caches.id = cache_id";

pub(super) fn credential(row: &Row) -> Result<StoredCredential, ControlError> {
    let credential = Credential {
        id: row.natural(7)?,
        username: username(row.text(0)?)?,
        cache: CacheId::new(row.natural(1)?),
        capabilities: capabilities(row, 2)?,
        primary: row.bool(6)?,
        created_at: UnixSeconds(row.natural(5)?),
    };
    let hash = SecretHash::from_bytes(row.array(3)?);
    Ok(StoredCredential { credential, hash, sealed_password: row.bytes(4)?.to_vec() })
}

pub(super) fn find_credential(
    sql: &mut dyn Sql,
    of: &Cache,
    named: &Username,
) -> Result<StoredCredential, ControlError> {
    let text = format!("{SELECT_CREDENTIAL} WHERE cache_id = $1 AND username = $2");
    let row = sql.row(&text, &[of.id.get().into(), named.as_str().into()])?;
    let unknown = || ControlError::UnknownCredential { cache: of.name.clone(), username: *named };
    credential(&row.ok_or_else(unknown)?)
}

/// In the order they were made.
pub(super) fn credentials_of(
    sql: &mut dyn Sql,
    cache: CacheId,
) -> Result<Vec<StoredCredential>, ControlError> {
    let text = format!(
        "{SELECT_CREDENTIAL} WHERE cache_id = $1 ORDER BY credentials.created_at, username"
    );
    sql.rows(&text, &[cache.get().into()])?.iter().map(credential).collect()
}

const SELECT_CLUSTER: &str = "SELECT id, name, slot_key, revision, created_at FROM clusters";

fn cluster(row: &Row) -> Result<Cluster, ControlError> {
    Ok(Cluster {
        id: ClusterId(row.natural(0)?),
        name: ClusterName::parse(row.text(1)?).map_err(|_| corrupt("cluster name"))?,
        slot_key: row.array(2)?,
        revision: Revision::new(row.natural(3)?),
        created_at: UnixSeconds(row.natural(4)?),
    })
}

pub(super) fn clusters(sql: &mut dyn Sql) -> Result<Vec<Cluster>, ControlError> {
    sql.rows(&format!("{SELECT_CLUSTER} ORDER BY id"), &[])?.iter().map(cluster).collect()
}

pub(super) fn find_cluster(sql: &mut dyn Sql, id: ClusterId) -> Result<Cluster, ControlError> {
    let row = sql.row(&format!("{SELECT_CLUSTER} WHERE id = $1"), &[id.0.into()])?;
    cluster(&row.ok_or_else(|| ControlError::UnknownCluster(id.to_string()))?)
}

pub(super) fn username(text: &str) -> Result<Username, ControlError> {
    Username::parse(text).map_err(|_| corrupt("username"))
}

pub(super) fn capabilities(row: &Row, at: usize) -> Result<Capabilities, ControlError> {
    u8::try_from(row.int(at)?)
        .ok()
        .and_then(Capabilities::from_bits)
        .ok_or(corrupt("set of capabilities"))
}

pub(super) const fn corrupt(what: &'static str) -> ControlError {
    ControlError::Corrupt { what }
}
