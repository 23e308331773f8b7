//! What is pushed: caches, credentials and rules for addresses as records, each under a key, and changes
//! to them.
//!
//! | record | bytes |
//! |---|---|
//! | cache | `1`, id `u64`, memory `u64`, item max `u32`, connections max `u32`, operations and bytes per second `u64` each (0: no limit), enabled `u8`, flush generation `u64` |
//! | credential | `2`, length `u8` and username, cache `u64`, hash 32 bytes, capabilities `u8` |
//! | rule | `3`, id `u64`, `0` or `1` and cache `u64`, `4` or `6` and address, prefix `u8`, allows `u8`, end `u64` |
//!
//! A record has exactly one encoding: the [digest](super::digest) is made of it.

use std::fmt;

use tenancy::capability::Capabilities;
use tenancy::id::{CacheId, USERNAME_BYTES_MAX, Username};
use tenancy::plan::{Limits, Rates};
use tenancy::rules::{Rule, RuleId};
use tenancy::secret::SecretHash;

use super::rules::{self, RULE_BYTES_MAX};
use crate::codec::{
    CodecError, Reader, put_bool, put_count, put_short_str, put_u8, put_u32, put_u64,
};

/// How many transactions have changed a cluster's records: 1, 2, 3, … without a gap. A node that
/// has revision r is missing exactly those from r + 1 on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(u64);

impl Revision {
    /// Nothing has ever been changed.
    pub const ZERO: Revision = Revision(0);

    pub const fn new(number: u64) -> Self {
        Revision(number)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn next(self) -> Self {
        Revision(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A cache as nodes know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRecord {
    pub id: CacheId,
    pub limits: Limits,
    /// A disabled cache keeps its items and refuses every client.
    pub enabled: bool,
    /// How often the cache has been flushed by the control plane. A node that sees it grow forgets
    /// the cache's items.
    pub flush_generation: u64,
}

/// A credential as nodes know it: with the keyed hash of its password, never the password.
#[derive(Debug, Clone, Copy)]
pub struct CredentialRecord {
    pub username: Username,
    pub cache: CacheId,
    pub hash: SecretHash,
    pub capabilities: Capabilities,
}

// A hash has no `==` because passwords are compared in constant time. Records are compared among
// ourselves, where nobody measures.
impl PartialEq for CredentialRecord {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username
            && self.cache == other.cache
            && self.hash.bytes() == other.hash.bytes()
            && self.capabilities == other.capabilities
    }
}

impl Eq for CredentialRecord {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    Cache(CacheRecord),
    Credential(CredentialRecord),
    Rule(Rule),
}

/// What a record is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Cache(CacheId),
    Credential(Username),
    Rule(RuleId),
}

/// One transaction's changes. Within it a key stands once, in `puts` or in `deletes`; a credential's
/// cache is there before it or comes with it, and a cache leaves together with its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    pub revision: Revision,
    pub puts: Vec<Record>,
    pub deletes: Vec<Key>,
}

/// The most puts and deletes of one delta. What changes more is sent as a snapshot.
pub const DELTA_CHANGES_MAX: usize = 8_192;

/// The longest encoding of a record.
pub const RECORD_BYTES_MAX: usize = 1 + 1 + USERNAME_BYTES_MAX + 8 + 32 + 1;
/// The longest encoding of a key.
pub const KEY_BYTES_MAX: usize = 1 + 1 + USERNAME_BYTES_MAX;
/// The longest encoding of a delta.
pub const DELTA_BYTES_MAX: usize = 8 + 4 + 4 + DELTA_CHANGES_MAX * RECORD_BYTES_MAX;

// With its kind before it.
const _: () = assert!(RULE_BYTES_MAX < RECORD_BYTES_MAX);

const CACHE: u8 = 1;
const CREDENTIAL: u8 = 2;
const RULE: u8 = 3;

impl Record {
    pub fn key(&self) -> Key {
        match self {
            Record::Cache(cache) => Key::Cache(cache.id),
            Record::Credential(credential) => Key::Credential(credential.username),
            Record::Rule(rule) => Key::Rule(rule.id),
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Cache(cache) => cache.encode(out),
            Record::Credential(credential) => credential.encode(out),
            Record::Rule(rule) => {
                put_u8(out, RULE);
                rules::put_rule(out, rule);
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match reader.u8()? {
            CACHE => CacheRecord::decode(reader).map(Record::Cache),
            CREDENTIAL => CredentialRecord::decode(reader).map(Record::Credential),
            RULE => rules::rule(reader).map(Record::Rule),
            _ => Err(CodecError::Invalid { what: "kind of record" }),
        }
    }
}

impl CacheRecord {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, CACHE);
        put_u64(out, self.id.get());
        put_u64(out, self.limits.memory_bytes);
        put_u32(out, self.limits.item_bytes_max);
        put_u32(out, self.limits.connections_max);
        put_u64(out, self.limits.rates.operations_per_second);
        put_u64(out, self.limits.rates.bytes_per_second);
        put_bool(out, self.enabled);
        put_u64(out, self.flush_generation);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(CacheRecord {
            id: CacheId::new(reader.u64()?),
            limits: Limits {
                memory_bytes: reader.u64()?,
                item_bytes_max: reader.u32()?,
                connections_max: reader.u32()?,
                rates: Rates {
                    operations_per_second: reader.u64()?,
                    bytes_per_second: reader.u64()?,
                },
            },
            enabled: reader.bool()?,
            flush_generation: reader.u64()?,
        })
    }
}

impl CredentialRecord {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u8(out, CREDENTIAL);
        put_short_str(out, self.username.as_str());
        put_u64(out, self.cache.get());
        out.extend_from_slice(self.hash.bytes());
        put_u8(out, self.capabilities.bits());
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(CredentialRecord {
            username: username(reader)?,
            cache: CacheId::new(reader.u64()?),
            hash: SecretHash::from_bytes(reader.array()?),
            capabilities: Capabilities::from_bits(reader.u8()?)
                .ok_or(CodecError::Invalid { what: "capability" })?,
        })
    }
}

impl Key {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Key::Cache(id) => {
                put_u8(out, CACHE);
                put_u64(out, id.get());
            }
            Key::Credential(username) => {
                put_u8(out, CREDENTIAL);
                put_short_str(out, username.as_str());
            }
            Key::Rule(id) => {
                put_u8(out, RULE);
                put_u64(out, id.0);
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        match reader.u8()? {
            CACHE => Ok(Key::Cache(CacheId::new(reader.u64()?))),
            CREDENTIAL => username(reader).map(Key::Credential),
            RULE => Ok(Key::Rule(RuleId(reader.u64()?))),
            _ => Err(CodecError::Invalid { what: "kind of key" }),
        }
    }
}

impl Delta {
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.revision.get());
        put_count(out, self.puts.len());
        put_count(out, self.deletes.len());
        self.puts.iter().for_each(|record| record.encode(out));
        self.deletes.iter().for_each(|key| key.encode(out));
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let revision = Revision::new(reader.u64()?);
        let puts = reader.count_u32("puts", DELTA_CHANGES_MAX)?;
        let deletes = reader.count_u32("deletes", DELTA_CHANGES_MAX - puts)?;
        Ok(Delta {
            revision,
            puts: (0..puts).map(|_| Record::decode(reader)).collect::<Result<_, _>>()?,
            deletes: (0..deletes).map(|_| Key::decode(reader)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether it is about rules for addresses, which nodes know from
    /// [`RULES_VERSION`](super::message::RULES_VERSION) on.
    pub fn has_rules(&self) -> bool {
        self.puts.iter().any(|record| matches!(record, Record::Rule(_)))
            || self.deletes.iter().any(|key| matches!(key, Key::Rule(_)))
    }

    /// Whether it is too large for one message, so that nodes need a snapshot instead.
    pub fn is_too_large(&self) -> bool {
        DELTA_CHANGES_MAX < self.puts.len() + self.deletes.len()
    }
}

fn username(reader: &mut Reader<'_>) -> Result<Username, CodecError> {
    Username::parse(reader.short_str("username")?)
        .map_err(|_| CodecError::Invalid { what: "username" })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{BoxedStrategy, Strategy, any, prop_oneof, proptest};
    use tenancy::rules::{Network, Ruling};

    use super::*;
    use crate::control::digest::SetDigest;

    #[test]
    fn bytes_and_digest_are_the_golden_ones() {
        let cache = one_cache(7);
        let mut bytes = Vec::new();
        cache.encode(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            concat!(
                "0107000000000000000000100000000000000400000a000000",
                "00000000000000000000000000000000",
                "010300000000000000"
            )
        );
        assert_eq!(SetDigest::of(&cache).to_string(), "87629abae257a4fc854c211bf13c7ea6");
        bytes.clear();
        one_rule(2, Some(7)).encode(&mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "03020000000000000001070000000000000004c0000200180000d2496b00000000");
    }

    #[test]
    fn a_delta_that_promises_more_than_it_may_hold_is_refused_at_once() {
        let mut bytes = 1_u64.to_le_bytes().to_vec();
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        let refused = Delta::decode(&mut Reader::new(&bytes));
        assert!(matches!(refused, Err(CodecError::TooMany { what: "puts", .. })), "{refused:?}");
    }

    pub(crate) fn one_cache(id: u64) -> Record {
        Record::Cache(CacheRecord {
            id: CacheId::new(id),
            limits: Limits {
                memory_bytes: 1 << 20,
                item_bytes_max: 1024,
                connections_max: 10,
                rates: Rates::UNLIMITED,
            },
            enabled: true,
            flush_generation: 3,
        })
    }

    pub(crate) fn one_credential(name: &str, cache: u64) -> Record {
        Record::Credential(CredentialRecord {
            username: Username::parse(name).expect("a good name"),
            cache: CacheId::new(cache),
            hash: SecretHash::from_bytes([9; 32]),
            capabilities: Capabilities::ALL,
        })
    }

    /// Blocks a network that has its number, which is below 256, in it.
    pub(crate) fn one_rule(id: u64, cache: Option<u64>) -> Record {
        Record::Rule(rules::tests::one_rule(id, cache, &format!("192.0.{id}.0/24")))
    }

    pub(crate) fn record() -> BoxedStrategy<Record> {
        prop_oneof![
            cache().prop_map(Record::Cache),
            credential().prop_map(Record::Credential),
            rule().prop_map(Record::Rule)
        ]
        .boxed()
    }

    fn rule() -> impl Strategy<Value = Rule> {
        (any::<(u64, Option<u64>, bool, u64)>(), any::<std::net::IpAddr>(), 0..=32u8).prop_map(
            |((id, cache, allows, expires_at), address, prefix_bits)| Rule {
                id: RuleId(id),
                cache: cache.map(CacheId::new),
                network: Network::new(address.to_canonical(), prefix_bits)
                    .expect("every address has so many bits"),
                ruling: if allows { Ruling::Allow } else { Ruling::Block },
                expires_at,
            },
        )
    }

    fn cache() -> impl Strategy<Value = CacheRecord> {
        (any::<u64>(), any::<(u64, u32, u32, u64, u64)>(), any::<bool>(), any::<u64>()).prop_map(
            |(id, limits, enabled, flush_generation)| {
                let (memory_bytes, item_bytes_max, connections_max, operations, bytes) = limits;
                let rates = Rates { operations_per_second: operations, bytes_per_second: bytes };
                let limits = Limits { memory_bytes, item_bytes_max, connections_max, rates };
                CacheRecord { id: CacheId::new(id), limits, enabled, flush_generation }
            },
        )
    }

    fn credential() -> impl Strategy<Value = CredentialRecord> {
        ("[a-zA-Z0-9._-]{1,31}", any::<u64>(), any::<[u8; 32]>(), 0..8u8).prop_map(
            |(name, cache, hash, bits)| CredentialRecord {
                username: Username::parse(&name).expect("plain and short"),
                cache: CacheId::new(cache),
                hash: SecretHash::from_bytes(hash),
                capabilities: Capabilities::from_bits(bits).expect("three bits"),
            },
        )
    }

    pub(crate) fn delta() -> impl Strategy<Value = Delta> {
        (any::<u64>(), vec(record(), 0..6), vec(record(), 0..6)).prop_map(
            |(revision, puts, deleted)| Delta {
                revision: Revision::new(revision),
                puts,
                deletes: deleted.iter().map(Record::key).collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn a_delta_comes_back_and_no_part_of_it_is_one(delta in delta()) {
            let mut bytes = Vec::new();
            delta.encode(&mut bytes);
            assert!(bytes.len() <= DELTA_BYTES_MAX);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Delta::decode(&mut reader).as_ref(), Ok(&delta));
            assert_eq!(reader.end(), Ok(()));
            for cut in 0..bytes.len() {
                assert_eq!(Delta::decode(&mut Reader::new(&bytes[..cut])), Err(CodecError::Short));
            }
        }

        #[test]
        fn any_flipped_bit_of_a_record_is_in_the_digest(
            record in record(), bit in any::<proptest::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let before = SetDigest::of_bytes(&bytes);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(SetDigest::of_bytes(&bytes), before);
        }

        #[test]
        fn the_order_of_records_does_not_matter(one in record(), two in record()) {
            let (one, two) = (SetDigest::of(&one), SetDigest::of(&two));
            assert_eq!(one.plus(two), two.plus(one));
            assert_eq!(one.plus(two).minus(one), two);
        }

        #[test]
        fn any_bytes_have_an_answer(bytes: Vec<u8>) {
            drop(Delta::decode(&mut Reader::new(&bytes)));
        }
    }
}
