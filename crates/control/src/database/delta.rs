//! What a change means for the nodes, as the change log keeps it: records to put and keys to delete.
//!
//! The nodes speak [`wire`]'s types; the log keeps the same as JSON, so that a newer program reads
//! what an older one wrote, whatever has become of the wire's version, and an operator reads it, too.

use serde::{Deserialize, Serialize};
use tenancy::capability::Capabilities;
use tenancy::id::{CacheId, Username};
use tenancy::plan::{Limits, Rates};
use tenancy::rules::{Network, Rule, RuleId, Ruling};
use tenancy::secret::SecretHash;
use wire::control::record::{self, Delta, Key, Record, Revision};

use super::rows::corrupt;
use crate::data_dir::{from_hex, to_hex};
use crate::error::ControlError;
use crate::model::Cache;

/// A [`Delta`] that has no revision yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) puts: Vec<Record>,
    pub(crate) deletes: Vec<Key>,
}

impl Effect {
    /// For changes that are not the nodes' concern.
    pub(crate) const NONE: Effect = Effect { puts: Vec::new(), deletes: Vec::new() };

    pub(crate) fn put(record: Record) -> Self {
        Effect { puts: vec![record], ..Effect::NONE }
    }

    pub(super) fn to_json(&self) -> String {
        let logged = Logged {
            put: self.puts.iter().map(LoggedRecord::new).collect(),
            delete: self.deletes.iter().map(LoggedKey::new).collect(),
        };
        serde_json::to_string(&logged).expect("numbers, strings and lists of them")
    }
}

pub(super) fn from_json(revision: Revision, json: &str) -> Result<Delta, ControlError> {
    let logged: Logged = serde_json::from_str(json).map_err(|_| corrupt("change"))?;
    Ok(Delta {
        revision,
        puts: logged.put.into_iter().map(LoggedRecord::checked).collect::<Result<_, _>>()?,
        deletes: logged.delete.into_iter().map(LoggedKey::checked).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn cache_record(cache: &Cache) -> Record {
    Record::Cache(record::CacheRecord {
        id: cache.id,
        limits: cache.limits(),
        enabled: cache.enabled,
        flush_generation: cache.flush_generation,
    })
}

pub(crate) fn credential_record(
    username: &Username,
    cache: CacheId,
    hash: SecretHash,
    capabilities: Capabilities,
) -> Record {
    let username = *username;
    Record::Credential(record::CredentialRecord { username, cache, hash, capabilities })
}

#[derive(Serialize, Deserialize)]
struct Logged {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    put: Vec<LoggedRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    delete: Vec<LoggedKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LoggedRecord {
    Cache {
        id: u64,
        memory_bytes: u64,
        item_bytes_max: u32,
        connections_max: u32,
        /// Absent in what was logged before there were any.
        #[serde(default)]
        operations_per_second: u64,
        #[serde(default)]
        bytes_per_second: u64,
        enabled: bool,
        flush_generation: u64,
    },
    Credential {
        username: String,
        cache: u64,
        /// Hexadecimal.
        hash: String,
        /// [`Capabilities::bits`].
        capabilities: u8,
    },
    Rule {
        id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<u64>,
        network: String,
        ruling: String,
        expires_at: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LoggedKey {
    Cache(u64),
    Credential(String),
    Rule(u64),
}

impl LoggedRecord {
    fn new(record: &Record) -> Self {
        match record {
            Record::Cache(cache) => LoggedRecord::Cache {
                id: cache.id.get(),
                memory_bytes: cache.limits.memory_bytes,
                item_bytes_max: cache.limits.item_bytes_max,
                connections_max: cache.limits.connections_max,
                operations_per_second: cache.limits.rates.operations_per_second,
                bytes_per_second: cache.limits.rates.bytes_per_second,
                enabled: cache.enabled,
                flush_generation: cache.flush_generation,
            },
            Record::Credential(credential) => LoggedRecord::Credential {
                username: credential.username.to_string(),
                cache: credential.cache.get(),
                hash: to_hex(credential.hash.bytes()),
                capabilities: credential.capabilities.bits(),
            },
            Record::Rule(rule) => LoggedRecord::Rule {
                id: rule.id.0,
                cache: rule.cache.map(CacheId::get),
                network: rule.network.to_string(),
                ruling: rule.ruling.name().to_owned(),
                expires_at: rule.expires_at,
            },
        }
    }

    fn checked(self) -> Result<Record, ControlError> {
        Ok(match self {
            LoggedRecord::Cache {
                id,
                memory_bytes,
                item_bytes_max,
                connections_max,
                operations_per_second,
                bytes_per_second,
                enabled,
                flush_generation,
            } => Record::Cache(record::CacheRecord {
                id: CacheId::new(id),
                limits: Limits {
                    memory_bytes,
                    item_bytes_max,
                    connections_max,
                    rates: Rates { operations_per_second, bytes_per_second },
                },
                enabled,
                flush_generation,
            }),
            LoggedRecord::Credential { username, cache, hash, capabilities } => {
                let hash = from_hex(&hash).ok_or(corrupt("hash"))?;
                Record::Credential(record::CredentialRecord {
                    username: Username::parse(&username).map_err(|_| corrupt("username"))?,
                    cache: CacheId::new(cache),
                    hash: SecretHash::from_bytes(hash),
                    capabilities: Capabilities::from_bits(capabilities)
                        .ok_or(corrupt("set of capabilities"))?,
                })
            }
            LoggedRecord::Rule { id, cache, network, ruling, expires_at } => Record::Rule(Rule {
                id: RuleId(id),
                cache: cache.map(CacheId::new),
                network: Network::parse(&network).map_err(|_| corrupt("network"))?,
                ruling: Ruling::named(&ruling).ok_or(corrupt("ruling"))?,
                expires_at,
            }),
        })
    }
}

impl LoggedKey {
    fn new(key: &Key) -> Self {
        match key {
            Key::Cache(id) => LoggedKey::Cache(id.get()),
            Key::Credential(username) => LoggedKey::Credential(username.to_string()),
            Key::Rule(id) => LoggedKey::Rule(id.0),
        }
    }

    fn checked(self) -> Result<Key, ControlError> {
        match self {
            LoggedKey::Cache(id) => Ok(Key::Cache(CacheId::new(id))),
            LoggedKey::Credential(username) => {
                Username::parse(&username).map(Key::Credential).map_err(|_| corrupt("username"))
            }
            LoggedKey::Rule(id) => Ok(Key::Rule(RuleId(id))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenancy::plan::Plan;

    #[test]
    fn a_delta_reads_back_as_it_was_written() {
        let name = |name| Username::parse(name).expect("a good name");
        let hash = SecretHash::from_bytes(std::array::from_fn(|at| at as u8));
        let cache = record::CacheRecord {
            id: CacheId::new(7),
            limits: Plan::DEVELOPMENT.limits,
            enabled: true,
            flush_generation: 3,
        };
        let rule = |id, cache, network: &str| {
            Record::Rule(Rule {
                id: RuleId(id),
                cache,
                network: Network::parse(network).expect("a network"),
                ruling: Ruling::Allow,
                expires_at: 9,
            })
        };
        let effect = Effect {
            deletes: vec![
                Key::Cache(CacheId::new(3)),
                Key::Credential(name("BOB")),
                Key::Rule(RuleId(7)),
            ],
            puts: vec![
                rule(8, None, "2001:db8::/32"),
                rule(9, Some(cache.id), "192.0.2.1"),
                Record::Cache(cache),
                credential_record(&name("ANN"), cache.id, hash, Capabilities::ALL),
            ],
        };
        let json = effect.to_json();
        assert!(json.contains(r#""hash":"000102"#), "{json}");
        let revision = Revision::new(9);
        let Effect { puts, deletes } = effect;
        let read = from_json(revision, &json).expect("just written");
        assert_eq!(read, Delta { revision, puts, deletes });
        let nothing = from_json(revision, "{}").expect("nothing to do");
        assert!(nothing.puts.is_empty() && nothing.deletes.is_empty());
        assert!(from_json(revision, r#"{"put":[{"cache":{"id":1}}]}"#).is_err());
    }
}
