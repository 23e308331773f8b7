//! A node's copy of its cluster's records, and the rules by which it lets itself be changed.
//!
//! Whatever the control plane sends (a program that may have a bug, fed by a database that someone
//! may have restored from yesterday), the copy changes only when all of this holds; else it stays as
//! it was and the node goes on serving by it:
//!
//! 1. the revision never goes back;
//! 2. a delta follows exactly on what is there;
//! 3. nothing contradicts itself: every credential has its cache, a snapshot adds up to its digest;
//! 4. not more than a share of all caches is dropped at once, and the set does not grow many times
//!    over, unless a person has confirmed it.
//!
//! Pure: nothing here writes to a disk or tells a proxy. [`Change`]s say what to do there.

use tenancy::rules::RULES_MAX;

use super::digest::SetDigest;
use super::message::{Reason, Refusal, SnapshotHead};
use super::record::{Delta, Key, Record, Revision};
use super::records::{CACHES_MAX, CREDENTIALS_MAX, Change, Records, SHARDS};

/// The part of all caches, in percent, that one push may drop. People delete caches one by one; what
/// drops a third at once is a lost table, not a wish.
pub const DROPPED_PERCENT_MAX: usize = 30;
/// Dropping so few is always allowed, or the last caches of a small cluster could never go.
pub const DROPPED_ALWAYS_ALLOWED: usize = 10;
/// How many times over one push may multiply the records.
pub const GROWN_TIMES_MAX: usize = 10;
/// Growing to so few is always allowed: a cluster begins small.
pub const GROWN_ALWAYS_ALLOWED: usize = 10_000;

/// The copy of one node.
#[derive(Debug, Default)]
pub struct Replica {
    records: Records,
    revision: Revision,
    /// Whether it was ever told anything; an empty copy is not the same as none.
    has_copy: bool,
    /// A snapshot that is on its way.
    incoming: Option<Incoming>,
    /// Where the walk over the shards has come to.
    next_shard: usize,
    is_damaged: bool,
}

#[derive(Debug)]
struct Incoming {
    head: SnapshotHead,
    records: Records,
}

impl Replica {
    /// The copy that a disk has kept, already checked against its digest.
    pub fn restored(records: Records, revision: Revision) -> Self {
        Replica { records, revision, has_copy: true, ..Replica::default() }
    }

    pub fn records(&self) -> &Records {
        &self.records
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn has_copy(&self) -> bool {
        self.has_copy
    }

    /// Applies one transaction, all of it or nothing. Says what changed, in an order in which it can
    /// be carried out ([`sort_for_serving`]).
    pub fn apply(&mut self, delta: &Delta) -> Result<Vec<Change>, Refusal> {
        let wanted = self.revision.next();
        if !self.has_copy || delta.revision > wanted {
            let detail = format!("{} does not follow on {}", delta.revision, self.revision);
            return Err(Refusal::new(Reason::Gap, detail));
        }
        if delta.revision < wanted {
            let detail = format!("{} is there already, not {}", self.revision, delta.revision);
            return Err(Refusal::new(Reason::RevisionBack, detail));
        }
        if delta.is_too_large() {
            return Err(Refusal::new(Reason::TooLarge, "a delta with too many changes"));
        }
        let (caches, total) = (self.records.caches(), self.len());
        let mut undo: Vec<(Key, Option<Record>)> = Vec::new();
        for key in &delta.deletes {
            undo.push((*key, self.records.remove(key)));
        }
        for record in &delta.puts {
            undo.push((record.key(), self.records.put(*record)));
        }
        let checked = self
            .check_consistent(&undo)
            .and_then(|()| check_share(caches, self.records.caches(), total, self.len()));
        if let Err(refusal) = checked {
            for (key, before) in undo.into_iter().rev() {
                _ = match before {
                    Some(record) => self.records.put(record),
                    None => self.records.remove(&key),
                };
            }
            return Err(refusal);
        }
        self.revision = delta.revision;
        Ok(self.changes(undo))
    }

    /// One change for each key: from what was there first to what is there now.
    fn changes(&self, undo: Vec<(Key, Option<Record>)>) -> Vec<Change> {
        let mut changes: Vec<Change> = undo
            .into_iter()
            .map(|(key, before)| Change { key, before, after: self.records.get(&key) })
            .collect();
        // Stable, so that of one key's changes the first stays, which knows what was there before.
        changes.sort_by_key(|change| change.key);
        changes.dedup_by_key(|change| change.key);
        changes.retain(|change| change.before != change.after);
        sort_for_serving(&mut changes);
        changes
    }

    /// Looks only at what was touched: a credential that was put needs its cache. Whether a cache that
    /// is gone left credentials behind would need a walk over all of them; nobody can use those, for
    /// authentication finds no cache.
    fn check_consistent(&self, touched: &[(Key, Option<Record>)]) -> Result<(), Refusal> {
        for (key, _) in touched {
            if let Some(Record::Credential(credential)) = self.records.get(key)
                && self.records.cache(credential.cache).is_none()
            {
                let detail = format!("{} has no cache {}", credential.username, credential.cache);
                return Err(Refusal::new(Reason::Inconsistent, detail));
            }
        }
        if self.records.caches() > CACHES_MAX || self.records.credentials() > CREDENTIALS_MAX {
            return Err(too_many(self.records.caches(), self.records.credentials()));
        }
        check_rules(&self.records)
    }

    fn len(&self) -> usize {
        self.records.caches() + self.records.credentials()
    }

    /// Begins to take a snapshot in; what has come of an earlier one is forgotten. What its head
    /// says is believed only as far as it refuses early.
    pub fn begin(&mut self, head: SnapshotHead) -> Result<(), Refusal> {
        self.incoming = None;
        let (caches, credentials) = (head.caches as usize, head.credentials as usize);
        if caches > CACHES_MAX || credentials > CREDENTIALS_MAX {
            return Err(too_many(caches, credentials));
        }
        if self.has_copy && !head.forced {
            if head.revision < self.revision {
                let detail = format!("a snapshot of {}, after {}", head.revision, self.revision);
                return Err(Refusal::new(Reason::RevisionBack, detail));
            }
            check_share(self.records.caches(), caches, self.len(), caches + credentials)?;
        }
        self.incoming = Some(Incoming { head, records: Records::default() });
        Ok(())
    }

    /// Takes a chunk of the snapshot that has begun.
    pub fn chunk(&mut self, records: Vec<Record>) -> Result<(), Refusal> {
        let incoming = self.incoming.as_mut().ok_or_else(not_begun)?;
        for record in records {
            incoming.records.put(record);
        }
        let (caches, credentials) = (incoming.records.caches(), incoming.records.credentials());
        if caches > incoming.head.caches as usize
            || credentials > incoming.head.credentials as usize
        {
            self.incoming = None;
            return Err(Refusal::new(Reason::TooLarge, "a snapshot with more than it promised"));
        }
        check_rules(&incoming.records).inspect_err(|_| self.incoming = None)
    }

    /// Puts the snapshot in the place of the copy, which is returned so that what differs can be
    /// carried out.
    pub fn end(&mut self) -> Result<Records, Refusal> {
        let Incoming { head, mut records } = self.incoming.take().ok_or_else(not_begun)?;
        if records.caches() != head.caches as usize
            || records.credentials() != head.credentials as usize
        {
            let detail = format!(
                "{} caches and {} credentials came of {} and {}",
                records.caches(),
                records.credentials(),
                head.caches,
                head.credentials
            );
            return Err(Refusal::new(Reason::Inconsistent, detail));
        }
        if records.digest() != head.digest {
            let detail = format!("{:.12}, not {:.12}", records.digest(), head.digest);
            return Err(Refusal::new(Reason::DigestDiffers, detail));
        }
        if let Some(username) = records.orphan() {
            let detail = format!("the cache of {username} is not in the snapshot");
            return Err(Refusal::new(Reason::Inconsistent, detail));
        }
        records.shrink();
        self.revision = head.revision;
        self.has_copy = true;
        self.is_damaged = false;
        self.next_shard = 0;
        Ok(std::mem::replace(&mut self.records, records))
    }

    /// Sums up the records of the next `count` shards again. Once around finds every bit that has
    /// flipped since the last time.
    pub fn check_shards(&mut self, count: usize) {
        for _ in 0..count {
            self.is_damaged |= !self.records.check_shard(self.next_shard);
            self.next_shard = (self.next_shard + 1) % SHARDS;
        }
    }

    /// Whether records were found that do not add up to their digest; until a snapshot replaces
    /// them.
    pub fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// The digest to report: of the records themselves, when they are known to be damaged.
    pub fn reported_digest(&self) -> SetDigest {
        if self.is_damaged { self.records.compute_digest() } else { self.records.digest() }
    }

    /// For tests of what notices it: see [`Records::damage`].
    pub fn damage(&mut self) -> bool {
        self.records.damage()
    }
}

/// Orders changes so that each finds what it needs: caches that come, rules, credentials that go,
/// credentials that come, caches that go.
pub fn sort_for_serving(changes: &mut [Change]) {
    changes.sort_by_key(|change| match (&change.key, &change.after) {
        (Key::Cache(_), Some(_)) => 0,
        (Key::Rule(_), _) => 1,
        (Key::Credential(_), None) => 2,
        (Key::Credential(_), Some(_)) => 3,
        (Key::Cache(_), None) => 4,
    });
}

fn check_share(
    caches_before: usize,
    caches: usize,
    total_before: usize,
    total: usize,
) -> Result<(), Refusal> {
    let dropped = caches_before.saturating_sub(caches);
    if dropped > DROPPED_ALWAYS_ALLOWED && dropped * 100 > caches_before * DROPPED_PERCENT_MAX {
        let detail = format!("{dropped} of {caches_before} caches");
        return Err(Refusal::new(Reason::DropsTooMuch, detail));
    }
    if total > GROWN_ALWAYS_ALLOWED && total > total_before * GROWN_TIMES_MAX && total_before > 0 {
        let detail = format!("from {total_before} records to {total}");
        return Err(Refusal::new(Reason::GrowsTooMuch, detail));
    }
    Ok(())
}

/// The head of a snapshot says nothing of rules, so they are counted as they come.
fn check_rules(records: &Records) -> Result<(), Refusal> {
    if RULES_MAX < records.rules() {
        return Err(Refusal::new(Reason::TooLarge, format!("{} rules", records.rules())));
    }
    Ok(())
}

fn too_many(caches: usize, credentials: usize) -> Refusal {
    let detail = format!("{caches} caches and {credentials} credentials");
    Refusal::new(Reason::TooLarge, detail)
}

fn not_begun() -> Refusal {
    Refusal::new(Reason::Unexpected, "no snapshot has begun")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::record::tests::{one_cache, one_credential, one_rule};

    #[test]
    fn a_delta_follows_exactly_or_is_refused() {
        let mut replica = replica(3);
        check(replica.apply(&delta(9, vec![], vec![])), Err(Reason::Gap));
        check(replica.apply(&delta(7, vec![], vec![])), Err(Reason::RevisionBack));
        check(replica.apply(&delta(8, vec![one_cache(3)], vec![])), Ok(1));
        assert_eq!(replica.revision(), Revision::new(8));
        check(Replica::default().apply(&delta(1, vec![], vec![])), Err(Reason::Gap));
    }

    #[test]
    fn a_refused_delta_leaves_no_trace() {
        let mut replica = replica(3);
        let before = replica.records().digest();
        let puts = vec![one_cache(8), one_credential("ann", 99)];
        let deletes = vec![one_cache(0).key(), one_credential("user-0", 0).key()];
        check(replica.apply(&delta(8, puts, deletes)), Err(Reason::Inconsistent));
        assert_eq!((replica.records().digest(), replica.revision()), (before, Revision::new(7)));
        assert_eq!(replica.records().compute_digest(), before);
    }

    #[test]
    fn changes_come_in_an_order_that_can_be_carried_out() {
        let mut replica = replica(3);
        let puts = vec![one_credential("ann", 8), one_cache(8)];
        let deletes = vec![one_cache(0).key(), one_credential("user-0", 0).key()];
        let changes = replica.apply(&delta(8, puts, deletes)).expect("it follows");
        let keys: Vec<Key> = changes.iter().map(|change| change.key).collect();
        let (ann, gone) = (one_credential("ann", 8).key(), one_credential("user-0", 0).key());
        assert_eq!(keys, [one_cache(8).key(), gone, ann, one_cache(0).key()]);
    }

    #[test]
    fn rules_are_part_of_a_copy_and_no_more_of_them_than_there_may_be() {
        let mut replica = replica(3);
        let before = replica.records().digest();
        let puts = vec![one_rule(1, None), one_rule(2, Some(1))];
        check(replica.apply(&delta(8, puts, vec![])), Ok(2));
        assert_ne!(replica.records().digest(), before);
        check(replica.apply(&delta(9, vec![], vec![one_rule(1, None).key()])), Ok(1));
        assert_eq!(replica.records().rules(), 1);

        let wanted = replica.records().clone();
        let many = |ids: std::ops::Range<u64>| {
            let rule = |id| {
                let Record::Rule(rule) = one_rule(1, None) else { panic!("it is a rule") };
                Record::Rule(tenancy::rules::Rule { id: tenancy::rules::RuleId(id), ..rule })
            };
            ids.map(rule).collect::<Vec<_>>()
        };
        // In two deltas, because one has room for fewer.
        let half = RULES_MAX as u64 / 2;
        check(replica.apply(&delta(10, many(10..10 + half), vec![])), Ok(RULES_MAX / 2));
        let too_many = delta(11, many(10 + half..10 + 2 * half), vec![]);
        check(replica.apply(&too_many), Err(Reason::TooLarge));
        replica.begin(head(12, &wanted, false)).expect("a good head");
        let refused = replica.chunk(many(0..RULES_MAX as u64 + 1)).expect_err("too many");
        assert_eq!(refused.reason, Reason::TooLarge);
    }

    #[test]
    fn what_is_deleted_and_put_again_is_one_change() {
        let mut replica = replica(3);
        let changed = one_credential("user-0", 1);
        let delta = delta(8, vec![changed], vec![changed.key()]);
        let changes = replica.apply(&delta).expect("it follows");
        let before = Some(one_credential("user-0", 0));
        assert_eq!(changes, [Change { key: changed.key(), before, after: Some(changed) }]);
    }

    #[test]
    fn a_snapshot_replaces_the_copy_and_what_it_was_is_returned() {
        let mut replica = replica(3);
        let mut wanted = records(4);
        wanted.remove(&one_credential("user-1", 1).key());
        send(&mut replica, 9, &wanted, false).expect("it is good");
        assert_eq!(replica.records().digest(), wanted.digest());
        assert_eq!(replica.revision(), Revision::new(9));
        // The same once more, as when a damaged copy is replaced.
        send(&mut replica, 9, &wanted, false).expect("it is good");
    }

    #[test]
    fn what_no_person_would_wish_is_refused_unless_confirmed() {
        let table = [
            (100, 0, Err(Reason::DropsTooMuch)),
            (100, 60, Err(Reason::DropsTooMuch)),
            (100, 70, Ok(())),
            (10, 0, Ok(())),
            (1_000, 100_000, Err(Reason::GrowsTooMuch)),
            (0, 50_000, Ok(())),
            (2, 4_000, Ok(())),
        ];
        for (before, after, expected) in table {
            let mut replica = replica(before);
            let wanted = records(after);
            let answer = send(&mut replica, 9, &wanted, false);
            assert_eq!(answer.map_err(|it| it.reason), expected, "{before} to {after}");
            send(&mut replica, 9, &wanted, true).expect("a person has confirmed it");
            assert_eq!(replica.records().digest(), wanted.digest());
        }
        // A delta is held to the same.
        let mut replica = replica(100);
        let deletes = (0..50).flat_map(|n| [cache_of(n).key(), credential_of(n).key()]).collect();
        check(replica.apply(&delta(8, vec![], deletes)), Err(Reason::DropsTooMuch));
    }

    #[test]
    fn a_snapshot_that_is_older_or_wrong_is_refused_and_the_copy_stays() {
        let mut replica = replica(3);
        let before = replica.records().digest();
        let wanted = records(4);
        let refused = send(&mut replica, 6, &wanted, false).map_err(|it| it.reason);
        assert_eq!(refused, Err(Reason::RevisionBack));

        let head = head(9, &wanted, false);
        let all: Vec<Record> = wanted.iter().collect();
        replica.begin(SnapshotHead { digest: SetDigest::EMPTY, ..head }).expect("it looks good");
        replica.chunk(all.clone()).expect("as promised");
        assert_eq!(replica.end().expect_err("no sum").reason, Reason::DigestDiffers);

        replica.begin(head).expect("it looks good");
        replica.chunk(all[1..].to_vec()).expect("a part");
        assert_eq!(replica.end().expect_err("one is missing").reason, Reason::Inconsistent);

        replica.begin(head).expect("it looks good");
        let more = replica.chunk((0..9).map(one_cache).collect());
        assert_eq!(more.expect_err("more than promised").reason, Reason::TooLarge);
        assert_eq!(replica.end().expect_err("it was given up").reason, Reason::Unexpected);

        let huge = SnapshotHead { caches: u32::MAX, ..head };
        assert_eq!(replica.begin(huge).expect_err("impossible").reason, Reason::TooLarge);

        let mut orphans = records(4);
        orphans.remove(&one_cache(2).key());
        let refused = send(&mut replica, 9, &orphans, false).map_err(|it| it.reason);
        assert_eq!(refused, Err(Reason::Inconsistent));
        assert_eq!((replica.records().digest(), replica.revision()), (before, Revision::new(7)));
    }

    #[test]
    fn one_walk_over_the_shards_finds_a_flipped_bit_and_a_snapshot_heals_it() {
        let mut replica = replica(50);
        replica.check_shards(SHARDS);
        assert!(!replica.is_damaged());
        assert!(replica.damage());
        (0..64).for_each(|_| replica.check_shards(SHARDS / 64));
        assert!(replica.is_damaged());
        assert_ne!(replica.reported_digest(), replica.records().digest());
        send(&mut replica, 7, &records(50), false).expect("it is good");
        replica.check_shards(SHARDS);
        assert!(!replica.is_damaged());
    }

    #[track_caller]
    fn check(answer: Result<Vec<Change>, Refusal>, expected: Result<usize, Reason>) {
        let seen = answer.map(|changes| changes.len()).map_err(|refusal| refusal.reason);
        assert_eq!(seen, expected);
    }

    fn cache_of(number: usize) -> Record {
        one_cache(number as u64)
    }

    fn credential_of(number: usize) -> Record {
        one_credential(&format!("user-{number}"), number as u64)
    }

    fn records(count: usize) -> Records {
        let mut records = Records::default();
        (0..count).for_each(|number| {
            records.put(cache_of(number));
            records.put(credential_of(number));
        });
        records
    }

    /// A copy at revision 7.
    fn replica(count: usize) -> Replica {
        Replica::restored(records(count), Revision::new(7))
    }

    fn delta(revision: u64, puts: Vec<Record>, deletes: Vec<Key>) -> Delta {
        Delta { revision: Revision::new(revision), puts, deletes }
    }

    fn head(revision: u64, records: &Records, forced: bool) -> SnapshotHead {
        SnapshotHead {
            revision: Revision::new(revision),
            digest: records.digest(),
            caches: records.caches() as u32,
            credentials: records.credentials() as u32,
            forced,
        }
    }

    fn send(
        replica: &mut Replica,
        revision: u64,
        records: &Records,
        forced: bool,
    ) -> Result<(), Refusal> {
        replica.begin(head(revision, records, forced))?;
        let all: Vec<Record> = records.iter().collect();
        for chunk in all.chunks(1_000) {
            replica.chunk(chunk.to_vec())?;
        }
        replica.end().map(drop)
    }
}
