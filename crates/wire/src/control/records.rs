//! A whole set of records with its digest: the copy that a node serves by, and the one that the
//! control plane pushes from.
//!
//! ```text
//!   key ── XXH3 ──▶ shard 0 … 1,023: caches and rules by id, credentials by username, digest of the shard
//!                                                                              │ sum
//!                                                                              ▼
//!                                                                     digest of the set
//! ```
//!
//! Sorted vectors in many small shards instead of one hash map: a million credentials take 80 MB
//! and no more, are summed up at the speed of memory, and can be [checked](Records::check_shard) a
//! shard at a time, so that looking for a flipped bit never holds anything up. A clone shares the
//! shards until one of the two changes, so a consistent view of everything is cheap.

use std::sync::Arc;

use tenancy::id::{CacheId, Username};
use tenancy::rules::{Rule, RuleId};
use twox_hash::XxHash3_64;

use super::digest::SetDigest;
use super::record::{CacheRecord, CredentialRecord, KEY_BYTES_MAX, Key, RECORD_BYTES_MAX, Record};

/// Shards of a set. A million credentials make a thousand in each, which are summed up in some ten
/// microseconds and moved by an insertion in about one.
pub const SHARDS: usize = 1_024;

/// Caches one cluster may have. What says there are more is broken.
pub const CACHES_MAX: usize = 250_000;
/// Credentials one cluster may have.
pub const CREDENTIALS_MAX: usize = 4_000_000;

/// A set of records. Remembers each cache's number of credentials, so that it can say whether a set
/// contradicts itself.
#[derive(Debug, Clone)]
pub struct Records {
    /// Invariant: [`SHARDS`] of them, each with exactly the records whose keys hash to it.
    shards: Box<[Arc<Shard>]>,
    digest: SetDigest,
    caches: usize,
    credentials: usize,
    rules: usize,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    /// By rising id.
    caches: Vec<CacheRecord>,
    /// By rising username.
    credentials: Vec<CredentialRecord>,
    /// By rising id.
    rules: Vec<Rule>,
    digest: SetDigest,
}

impl Default for Records {
    fn default() -> Self {
        let shards = std::iter::repeat_with(Arc::default).take(SHARDS).collect();
        Records { shards, digest: SetDigest::EMPTY, caches: 0, credentials: 0, rules: 0 }
    }
}

impl Records {
    pub fn caches(&self) -> usize {
        self.caches
    }

    pub fn credentials(&self) -> usize {
        self.credentials
    }

    pub fn rules(&self) -> usize {
        self.rules
    }

    /// As kept up with each change. [`Records::check_shard`] says whether the records still add up
    /// to it.
    pub fn digest(&self) -> SetDigest {
        self.digest
    }

    pub fn cache(&self, id: CacheId) -> Option<&CacheRecord> {
        let shard = &self.shards[shard_of(&Key::Cache(id))];
        shard.caches.binary_search_by_key(&id, |cache| cache.id).ok().map(|at| &shard.caches[at])
    }

    pub fn credential(&self, username: &Username) -> Option<&CredentialRecord> {
        let shard = &self.shards[shard_of(&Key::Credential(*username))];
        let at = shard.credentials.binary_search_by(|one| one.username.cmp(username)).ok()?;
        Some(&shard.credentials[at])
    }

    fn rule(&self, id: RuleId) -> Option<&Rule> {
        let shard = &self.shards[shard_of(&Key::Rule(id))];
        shard.rules.binary_search_by_key(&id, |rule| rule.id).ok().map(|at| &shard.rules[at])
    }

    pub fn get(&self, key: &Key) -> Option<Record> {
        match key {
            Key::Cache(id) => self.cache(*id).copied().map(Record::Cache),
            Key::Credential(username) => self.credential(username).copied().map(Record::Credential),
            Key::Rule(id) => self.rule(*id).copied().map(Record::Rule),
        }
    }

    /// Puts a record in the place of the one with its key, which is returned.
    pub fn put(&mut self, record: Record) -> Option<Record> {
        let shard = Arc::make_mut(&mut self.shards[shard_of(&record.key())]);
        let before = match record {
            Record::Cache(cache) => put(&mut shard.caches, cache, |it| it.id).map(Record::Cache),
            Record::Credential(credential) => {
                put(&mut shard.credentials, credential, |it| it.username).map(Record::Credential)
            }
            Record::Rule(rule) => put(&mut shard.rules, rule, |it| it.id).map(Record::Rule),
        };
        let added = SetDigest::of(&record);
        let removed = before.as_ref().map_or(SetDigest::EMPTY, SetDigest::of);
        shard.digest = shard.digest.plus(added).minus(removed);
        self.digest = self.digest.plus(added).minus(removed);
        if before.is_none() {
            *self.count_mut(&record.key()) += 1;
        }
        before
    }

    /// Takes a record out.
    pub fn remove(&mut self, key: &Key) -> Option<Record> {
        self.get(key)?; // Not there, nothing to copy.
        let shard = Arc::make_mut(&mut self.shards[shard_of(key)]);
        let before = match key {
            Key::Cache(id) => {
                let at = shard.caches.binary_search_by_key(id, |cache| cache.id).ok()?;
                Record::Cache(shard.caches.remove(at))
            }
            Key::Credential(username) => {
                let at = shard.credentials.binary_search_by(|one| one.username.cmp(username));
                Record::Credential(shard.credentials.remove(at.ok()?))
            }
            Key::Rule(id) => {
                let at = shard.rules.binary_search_by_key(id, |rule| rule.id).ok()?;
                Record::Rule(shard.rules.remove(at))
            }
        };
        let removed = SetDigest::of(&before);
        shard.digest = shard.digest.minus(removed);
        self.digest = self.digest.minus(removed);
        *self.count_mut(key) -= 1;
        Some(before)
    }

    fn count_mut(&mut self, key: &Key) -> &mut usize {
        match key {
            Key::Cache(_) => &mut self.caches,
            Key::Credential(_) => &mut self.credentials,
            Key::Rule(_) => &mut self.rules,
        }
    }

    /// Whether the records of one shard (0 to [`SHARDS`] - 1) still add up to its digest.
    pub fn check_shard(&self, shard: usize) -> bool {
        let shard = &self.shards[shard];
        shard.compute_digest() == shard.digest
    }

    /// The digest as the records add up to it now.
    pub fn compute_digest(&self) -> SetDigest {
        self.shards
            .iter()
            .map(|shard| shard.compute_digest())
            .fold(SetDigest::EMPTY, SetDigest::plus)
    }

    /// All caches, then all rules, then all credentials: in this order each record is preceded by what
    /// it needs.
    pub fn iter(&self) -> impl Iterator<Item = Record> {
        let caches = self.shards.iter().flat_map(|shard| &shard.caches);
        let rules = self.shards.iter().flat_map(|shard| &shard.rules);
        let credentials = self.shards.iter().flat_map(|shard| &shard.credentials);
        let before = caches.copied().map(Record::Cache).chain(rules.copied().map(Record::Rule));
        before.chain(credentials.copied().map(Record::Credential))
    }

    /// The first credential whose cache is not in the set.
    pub fn orphan(&self) -> Option<Username> {
        let mut credentials = self.shards.iter().flat_map(|shard| &shard.credentials);
        credentials.find(|one| self.cache(one.cache).is_none()).map(|one| one.username)
    }

    /// Calls `visit` for each cache that is not the same in this set and in `after`, shard by shard:
    /// with what it was, and what it is.
    pub fn cache_differences(
        &self,
        after: &Records,
        mut visit: impl FnMut(Option<CacheRecord>, Option<CacheRecord>),
    ) {
        for (old, new) in self.shards_that_differ(after) {
            differences(&old.caches, &new.caches, |cache| cache.id, &mut visit);
        }
    }

    /// The same for credentials.
    pub fn credential_differences(
        &self,
        after: &Records,
        mut visit: impl FnMut(Option<CredentialRecord>, Option<CredentialRecord>),
    ) {
        for (old, new) in self.shards_that_differ(after) {
            differences(&old.credentials, &new.credentials, |one| one.username, &mut visit);
        }
    }

    /// The same for rules.
    pub fn rule_differences(
        &self,
        after: &Records,
        mut visit: impl FnMut(Option<Rule>, Option<Rule>),
    ) {
        for (old, new) in self.shards_that_differ(after) {
            differences(&old.rules, &new.rules, |rule| rule.id, &mut visit);
        }
    }

    /// Shards that two sets share since one was cloned from the other are the same without a look.
    fn shards_that_differ<'a>(
        &'a self,
        after: &'a Records,
    ) -> impl Iterator<Item = (&'a Arc<Shard>, &'a Arc<Shard>)> {
        self.shards.iter().zip(&after.shards).filter(|(old, new)| !Arc::ptr_eq(old, new))
    }

    /// Gives back memory that growing has reserved.
    pub fn shrink(&mut self) {
        for shard in &mut self.shards {
            let shard = Arc::make_mut(shard);
            shard.caches.shrink_to_fit();
            shard.credentials.shrink_to_fit();
            shard.rules.shrink_to_fit();
        }
    }

    /// For tests of what notices it: flips a bit of some credential's hash, as failing memory would.
    /// `false` when there is no credential.
    pub fn damage(&mut self) -> bool {
        let Some(shard) = self.shards.iter_mut().find(|shard| !shard.credentials.is_empty()) else {
            return false;
        };
        let one = &mut Arc::make_mut(shard).credentials[0];
        let mut bytes = *one.hash.bytes();
        bytes[7] ^= 0x10;
        one.hash = tenancy::secret::SecretHash::from_bytes(bytes);
        true
    }
}

/// What became of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    pub before: Option<Record>,
    pub after: Option<Record>,
}

impl Shard {
    fn compute_digest(&self) -> SetDigest {
        let mut bytes = Vec::with_capacity(RECORD_BYTES_MAX);
        let mut sum = SetDigest::EMPTY;
        for cache in &self.caches {
            bytes.clear();
            cache.encode(&mut bytes);
            sum = sum.plus(SetDigest::of_bytes(&bytes));
        }
        for credential in &self.credentials {
            bytes.clear();
            credential.encode(&mut bytes);
            sum = sum.plus(SetDigest::of_bytes(&bytes));
        }
        for rule in &self.rules {
            sum = sum.plus(SetDigest::of(&Record::Rule(*rule)));
        }
        sum
    }
}

/// Puts a record into a list that rises by key, in the place of the one with its key.
fn put<T, K: Ord>(records: &mut Vec<T>, record: T, key: impl Fn(&T) -> K) -> Option<T> {
    match records.binary_search_by_key(&key(&record), &key) {
        Ok(at) => Some(std::mem::replace(&mut records[at], record)),
        Err(at) => {
            make_room(records);
            records.insert(at, record);
            None
        }
    }
}

/// Walks two lists that rise by key and tells where they differ.
fn differences<T: Copy + PartialEq, K: Ord>(
    before: &[T],
    after: &[T],
    key: impl Fn(&T) -> K,
    tell: &mut impl FnMut(Option<T>, Option<T>),
) {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let next = [before.peek(), after.peek()].into_iter().flatten().map(|one| key(one)).min();
        let Some(next) = next else { return };
        let old = before.next_if(|one| key(one) == next).copied();
        let new = after.next_if(|one| key(one) == next).copied();
        if old != new {
            tell(old, new);
        }
    }
}

/// Room for one more, and then for an eighth more at a time: doubling would leave half of a copy's
/// memory unused, in holes of some ten kilobytes that nobody else fits into.
fn make_room<T>(records: &mut Vec<T>) {
    if records.len() == records.capacity() {
        records.reserve_exact((records.len() / 8).max(4));
    }
}

fn shard_of(key: &Key) -> usize {
    let mut bytes = Vec::with_capacity(KEY_BYTES_MAX);
    key.encode(&mut bytes);
    let hash = XxHash3_64::oneshot(&bytes);
    usize::try_from(hash % SHARDS as u64).expect("less than SHARDS")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::{Strategy, any, prop_oneof, proptest};

    use super::*;
    use crate::control::record::tests::{one_cache, one_credential, one_rule};

    #[test]
    fn a_flipped_bit_is_found_in_its_shard() {
        let mut records = Records::default();
        for number in 0..500 {
            records.put(one_cache(number));
            records.put(one_credential(&format!("user-{number}"), number));
        }
        assert!((0..SHARDS).all(|shard| records.check_shard(shard)));
        assert!(records.damage());
        assert_eq!((0..SHARDS).filter(|&shard| !records.check_shard(shard)).count(), 1);
        assert_ne!(records.compute_digest(), records.digest());
    }

    #[test]
    fn a_credential_without_its_cache_is_found() {
        let mut records = Records::default();
        records.put(one_cache(1));
        records.put(one_credential("ann", 1));
        assert_eq!(records.orphan(), None);
        records.put(one_credential("bob", 2));
        assert_eq!(records.orphan().map(|name| name.to_string()), Some("bob".to_owned()));
    }

    fn few_records() -> impl Strategy<Value = Record> {
        prop_oneof![
            (0..9u64).prop_map(one_cache),
            (0..9u8, 0..3u64).prop_map(|(user, cache)| one_credential(&format!("u{user}"), cache)),
            (0..9u64, any::<Option<u64>>()).prop_map(|(id, cache)| one_rule(id, cache)),
        ]
    }

    proptest! {
        /// Puts and removes give what a map gives; the digest is that of the set, however it came
        /// about; and the differences lead from one set to the other.
        #[test]
        fn it_is_a_set_with_a_digest(changes in vec((any::<bool>(), few_records()), 0..60)) {
            let (mut records, mut model) = (Records::default(), BTreeMap::new());
            let mut halfway = (records.clone(), model.clone());
            for (index, (put, record)) in changes.iter().enumerate() {
                if *put {
                    assert_eq!(records.put(*record), model.insert(record.key(), *record));
                } else {
                    assert_eq!(records.remove(&record.key()), model.remove(&record.key()));
                }
                if index == changes.len() / 2 {
                    halfway = (records.clone(), model.clone());
                }
            }
            let sum = model.values().map(SetDigest::of).fold(SetDigest::EMPTY, SetDigest::plus);
            assert_eq!(records.digest(), sum);
            assert_eq!(records.compute_digest(), sum);
            assert_eq!(records.caches() + records.credentials() + records.rules(), model.len());
            assert!(records.iter().all(|record| model.get(&record.key()) == Some(&record)));
            assert_eq!(records.iter().count(), model.len());

            let (before, mut replayed) = halfway;
            let mut replay = |old: Option<Record>, new: Option<Record>| {
                assert_ne!(old, new);
                let key = old.or(new).expect("one of the two is there").key();
                assert_eq!(replayed.get(&key).copied(), old);
                match new {
                    Some(record) => drop(replayed.insert(key, record)),
                    None => drop(replayed.remove(&key)),
                }
            };
            before.cache_differences(&records, |old, new| {
                replay(old.map(Record::Cache), new.map(Record::Cache));
            });
            before.credential_differences(&records, |old, new| {
                replay(old.map(Record::Credential), new.map(Record::Credential));
            });
            before.rule_differences(&records, |old, new| {
                replay(old.map(Record::Rule), new.map(Record::Rule));
            });
            assert_eq!(replayed, model);
        }
    }
}
