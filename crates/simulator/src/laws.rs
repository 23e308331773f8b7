//! What must hold, whatever happens.
//!
//! Each law is a function with its name. Those about one answer are looked at when it comes; those
//! about the order of all answers at the end of a play, from the [`History`] alone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use cluster::map::Epoch;
use cluster::slot::Slot;
use store::stats::CacheStats;

use crate::control::{Control, cache_of};
use crate::history::{Deed, History, KeyId, Number, What};
use crate::node::Node;
use crate::time::{Micros, SECOND, shown};

/// A law that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub law: &'static str,
    /// What was seen.
    pub seen: String,
    /// The key that it is about.
    pub key: Option<KeyId>,
    pub at: Micros,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" at {}: {}", self.law, shown(self.at).trim_start(), self.seen)?;
        match self.key {
            Some(KeyId { tenant, key }) => write!(f, " (tenant {tenant}, key {key})"),
            None => Ok(()),
        }
    }
}

/// For each key there is an order of all deeds, in which each happens between its question and its
/// answer, and each read shows the value written last. So no read is older than an acknowledged
/// write, or than an earlier read.
///
/// Every value is written once, so the deeds of one value form a zone, and orders exist exactly when
/// no two zones contradict one another (Gibbons and Korach, "Testing Shared Memories", 1997). A deed
/// of which nobody knows whether it happened may happen at any later time. A miss says nothing here:
/// items may be lost (see [`invariant_what_is_acknowledged_is_kept`]).
pub fn invariant_reads_are_never_stale(history: &History) -> Result<(), Violation> {
    for (&key, deeds) in &history.deeds {
        zones_agree(key, deeds)?;
    }
    Ok(())
}

/// The time of one value: from the first end of a deed to the last beginning of one.
#[derive(Debug, Clone, Copy)]
struct Zone {
    /// `None`: a deletion.
    number: Option<Number>,
    /// The earliest end of any deed.
    first_end: Micros,
    /// The latest beginning of any deed.
    last_start: Micros,
}

impl Zone {
    /// Between the two, the value was there for sure.
    fn is_forward(&self) -> bool {
        self.first_end < self.last_start
    }
}

fn zones_agree(key: KeyId, deeds: &[Deed]) -> Result<(), Violation> {
    let mut values: BTreeMap<Number, Zone> = BTreeMap::new();
    let mut written: BTreeMap<Number, Micros> = BTreeMap::new();
    let mut zones = Vec::new();
    let violation =
        |seen: String, at| Violation { law: "reads are never stale", seen, key: Some(key), at };
    for deed in deeds {
        let ended = deed.ended.unwrap_or(Micros::MAX);
        match deed.what {
            What::Wrote(number) | What::Read(number) => {
                let fresh = Zone { number: Some(number), first_end: Micros::MAX, last_start: 0 };
                let zone = values.entry(number).or_insert(fresh);
                zone.first_end = zone.first_end.min(ended);
                zone.last_start = zone.last_start.max(deed.began);
                if let What::Wrote(_) = deed.what {
                    written.insert(number, deed.began);
                }
            }
            What::Deleted => {
                zones.push(Zone { number: None, first_end: ended, last_start: deed.began });
            }
            What::Refused(number) => {
                let read = deeds.iter().find(|other| other.what == What::Read(number));
                if let Some(read) = read {
                    let seen = format!(
                        "client {} was told that value {number} had not been written, and client \
                         {} read it",
                        deed.client, read.client
                    );
                    return Err(violation(seen, read.ended.unwrap_or(read.began)));
                }
            }
            What::Missed => (),
        }
    }
    for (number, zone) in &values {
        match written.get(number) {
            Some(&began) if began <= zone.first_end => (),
            Some(_) => {
                let seen = format!("value {number} was read before it was written");
                return Err(violation(seen, zone.first_end));
            }
            None if deeds.iter().any(|deed| deed.what == What::Refused(*number)) => (),
            None => {
                let seen = format!("value {number} was read and never written");
                return Err(violation(seen, zone.first_end));
            }
        }
    }
    zones.extend(values.into_values());
    // Forward zones must not overlap, and no other zone may lie within one.
    zones.sort_by_key(|zone| zone.first_end.min(zone.last_start));
    let mut latest: Option<Zone> = None;
    for zone in &zones {
        let (low, high) = if zone.is_forward() {
            (zone.first_end, zone.last_start)
        } else {
            (zone.last_start, zone.first_end)
        };
        if let Some(before) = &latest
            && low < before.last_start
            && (zone.is_forward() || (before.first_end < low && high < before.last_start))
        {
            let seen = format!(
                "{} was there from {} to {}, and {} between {} and {}",
                name(before.number),
                shown(before.first_end),
                shown(before.last_start),
                name(zone.number),
                shown(low),
                shown(high)
            );
            return Err(violation(seen, before.last_start));
        }
        let reaches = latest.as_ref().is_none_or(|before| before.last_start < zone.last_start);
        if zone.is_forward() && reaches {
            latest = Some(*zone);
        }
    }
    Ok(())
}

fn name(number: Option<Number>) -> String {
    number.map_or_else(|| "a deletion".to_owned(), |number| format!("value {number}"))
}

/// An acknowledged value is found, unless its slot moved, a process that held it ended, or somebody
/// deleted it.
///
/// `stored` is the value that the read must find ([`History::kept_before`]), `lost_until` the last
/// moment at which its item may have been lost.
pub(crate) fn invariant_what_is_acknowledged_is_kept(
    key: KeyId,
    stored: &Deed,
    miss: &Deed,
    lost_until: Micros,
) -> Result<(), Violation> {
    if stored.began <= lost_until {
        return Ok(());
    }
    let ended = miss.ended.unwrap_or(miss.began);
    Err(Violation {
        law: "what is acknowledged is kept",
        seen: format!(
            "client {} missed what client {} had stored at {} as {:?}; nothing was lost since {}",
            miss.client,
            stored.client,
            shown(stored.began),
            stored.what,
            shown(lost_until)
        ),
        key: Some(key),
        at: ended,
    })
}

/// No slot is served by two processes at once, whatever anybody believes.
pub(crate) fn invariant_one_owner(
    nodes: &[Node],
    slots: &BTreeMap<KeyId, Slot>,
) -> Result<(), Violation> {
    let mut owners: Vec<Option<(&str, usize)>> = vec![None; slots.len()];
    for node in nodes {
        let Some(process) = &node.process else { continue };
        for (number, backend) in process.backends.iter().enumerate() {
            let entered = backend.slots().enter();
            for (owner, (&key, &slot)) in owners.iter_mut().zip(slots) {
                if entered.check(slot).is_err() {
                    continue;
                }
                if let Some((other, of_other)) = owner.replace((node.name.as_str(), number)) {
                    let seen = format!(
                        "slot {slot} is served by {other}.b{of_other} and {}.b{number}",
                        node.name
                    );
                    return Err(Violation { law: "one owner", seen, key: Some(key), at: 0 });
                }
            }
        }
    }
    Ok(())
}

/// Of what may be asked twice, a proxy may have saved up so many requests (`proxy::links`).
const REPEATED_SAVED_MAX: u64 = 64;
/// Requests that one proxy may have under way: those of all its clients, each asked for at most by
/// every member of the cluster when nobody knows its owner.
const UNDER_WAY_MAX: usize = 2_000;

/// No proxy repeats more than a tenth, or holds more than its clients can have asked; no backend takes
/// more memory than it was given.
pub(crate) fn invariant_budgets_are_kept(nodes: &[Node]) -> Result<(), Violation> {
    for node in nodes {
        let Some(process) = &node.process else { continue };
        let broken = |seen: String| Violation {
            law: "budgets are kept",
            seen: format!("{}: {seen}", node.name),
            key: None,
            at: 0,
        };
        let (mut asked, mut hedged) = (0, 0);
        for (_, _, links) in process.asked.members() {
            asked += links.requests_total.load(Relaxed);
            hedged += links.hedges_total.load(Relaxed);
        }
        if asked / 10 + REPEATED_SAVED_MAX < hedged {
            return Err(broken(format!("{hedged} of {asked} requests were hedged")));
        }
        let counts = process.proxy.counts();
        if UNDER_WAY_MAX < counts.requests.0 {
            return Err(broken(format!("{} requests under way", counts.requests.0)));
        }
        for backend in &process.backends {
            let memory = backend.store_stats();
            if memory.memory_bytes < memory.used_bytes {
                let seen = format!("{} bytes of {}", memory.used_bytes, memory.memory_bytes);
                return Err(broken(seen));
            }
        }
    }
    Ok(())
}

/// What one part of a cache was like when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Of its node: another process holds other items …
    run: u64,
    /// … and by another topology other slots. Two may come between two looks, and the first leave it
    /// nothing.
    epoch: Option<Epoch>,
    bytes: u64,
    share_bytes: u64,
    evictions: u64,
}

/// By node, backend and tenant.
pub(crate) type Parts = BTreeMap<(usize, usize, usize), Part>;

/// What is paid for is there: a part of a cache gives items up for want of room only when it holds its
/// share, whatever others store. `evicted` counts what was given up.
pub(crate) fn invariant_only_full_caches_evict(
    nodes: &[Node],
    tenants: usize,
    parts: &mut Parts,
    evicted: &mut u64,
) -> Result<(), Violation> {
    for node in nodes {
        let committed = node.process.as_ref().and_then(|it| it.copy.epochs.committed.as_ref());
        let epoch = committed.map(|topology| topology.epoch());
        for (number, tenant, stats) in parts_of(node, tenants) {
            let now = Part {
                run: node.runs,
                epoch,
                bytes: stats.bytes,
                share_bytes: stats.limit_maxbytes,
                evictions: stats.evictions,
            };
            let Some(before) = parts.insert((node.number, number, tenant), now) else { continue };
            if before.run != now.run || now.evictions <= before.evictions {
                continue;
            }
            *evicted += now.evictions - before.evictions;
            if before.epoch == now.epoch && !was_full(before, now) {
                return Err(Violation {
                    law: "only full caches evict",
                    seen: format!(
                        "{}.b{number}, tenant {tenant}: {before:?}, then {now:?}",
                        node.name
                    ),
                    key: None,
                    at: 0,
                });
            }
        }
    }
    Ok(())
}

/// What a node's backends hold of each tenant's cache: backend, tenant, figures.
fn parts_of(node: &Node, tenants: usize) -> impl Iterator<Item = (usize, usize, CacheStats)> {
    let backends = node.process.iter().flat_map(|process| process.backends.iter().enumerate());
    backends.flat_map(move |(number, backend)| {
        (0..tenants).filter_map(move |tenant| {
            Some((number, tenant, backend.cache(cache_of(tenant))?.stats()))
        })
    })
}

/// Whether the part may have been full at some moment between the two looks.
fn was_full(before: Part, now: Part) -> bool {
    let share = before.share_bytes.min(now.share_bytes);
    share <= before.bytes.max(now.bytes) + share / 4 + UNSEEN_BYTES
}

/// What may have been stored, and deleted again, between two looks.
const UNSEEN_BYTES: u64 = 192 << 10;

/// Once everything works again, the epoch in force is soon settled: else no other could follow it.
pub(crate) fn invariant_every_epoch_is_settled(
    control: &Control,
    committed_at: Micros,
    now: Micros,
) -> Result<(), Violation> {
    let Some(epoch) = control.committed().map(|topology| topology.epoch()) else { return Ok(()) };
    if control.settled() == epoch || now < committed_at + SETTLED_WITHIN {
        return Ok(());
    }
    let seen = format!("epoch {epoch} was committed at {}", shown(committed_at));
    Err(Violation { law: "every epoch is settled", seen, key: None, at: now })
}

/// Nodes hear of an epoch at once, write it down, and say so.
const SETTLED_WITHIN: Micros = 3 * SECOND;

/// When an epoch is settled and everyone is there, the parts of a cache add up to its limit: nobody
/// has more than is paid for, and nobody is promised less. The largest item fits every part. While the
/// cache fills, the parts are so much more as `cluster::shares` promises at most.
pub(crate) fn invariant_quotas_add_up(
    nodes: &[Node],
    control: &Control,
    tenants: usize,
) -> Result<(), Violation> {
    if control.committed().map(|topology| topology.epoch()) != Some(control.settled()) {
        return Ok(());
    }
    for tenant in 0..tenants {
        let Some(limits) = control.limits_of(tenant) else { continue };
        let parts: Vec<u64> = nodes
            .iter()
            .filter(|node| control.is_member(&node.name))
            .flat_map(|node| parts_of(node, tenants))
            .filter(|(_, of, _)| *of == tenant)
            .map(|(_, _, stats)| stats.limit_maxbytes)
            .collect();
        let sum: u64 = parts.iter().sum();
        let item = u64::from(limits.item_bytes_max);
        let slack = limits.memory_bytes / 2;
        let most = limits.memory_bytes + slack + parts.len() as u64 * item;
        // A full cache is divided into its limit but for less than one item.
        let least = limits.memory_bytes.saturating_sub(parts.len() as u64 + item);
        if !(least..=most).contains(&sum) {
            let seen = format!("parts {parts:?} of tenant {tenant}'s {}", limits.memory_bytes);
            return Err(Violation { law: "quotas add up", seen, key: None, at: 0 });
        }
    }
    Ok(())
}

/// No part holds more than its share, but for what large items were stored on credit: twice the largest
/// item, until the shares were weighed with them.
pub(crate) fn invariant_parts_are_kept(
    nodes: &[Node],
    control: &Control,
    tenants: usize,
) -> Result<(), Violation> {
    for node in nodes {
        for (number, tenant, stats) in parts_of(node, tenants) {
            let Some(limits) = control.limits_of(tenant) else { continue };
            if stats.limit_maxbytes + 2 * u64::from(limits.item_bytes_max) < stats.bytes {
                let seen = format!(
                    "{}.b{number} holds {} bytes of tenant {tenant}, and may hold {}",
                    node.name, stats.bytes, stats.limit_maxbytes
                );
                return Err(Violation { law: "parts are kept", seen, key: None, at: 0 });
            }
        }
    }
    Ok(())
}

/// Once all is well, there are no connections but those that are in use: what was lost on the way is not
/// held by anybody.
pub(crate) fn invariant_nothing_is_left_over(
    nodes: &[Node],
    clients: usize,
) -> Result<(), Violation> {
    let broken =
        |seen: String| Err(Violation { law: "nothing is left over", seen, key: None, at: 0 });
    let running = || nodes.iter().filter_map(|node| Some((node, node.process.as_ref()?)));
    let connections: usize = running().map(|(_, process)| process.proxy.counts().connections).sum();
    if clients < connections {
        return broken(format!("{connections} connections of {clients} clients"));
    }
    let others = running().count().saturating_sub(1) as u64;
    for (node, process) in running() {
        let links = process.server.usage().links.load(Relaxed);
        let most = LINKS_PER_MEMBER * process.backends.len() as u64 * others;
        if most < links {
            return broken(format!("{} has {links} links, of at most {most}", node.name));
        }
    }
    Ok(())
}

/// From each proxy to each backend of another node (`proxy::links`).
const LINKS_PER_MEMBER: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId { tenant: 0, key: 0 };

    #[test]
    fn what_may_happen_in_some_order_is_lawful() {
        check(&[(0, 10, What::Wrote(1)), (20, 30, What::Read(1))], true);
        // Both writes at once: either may be last.
        let both = [(0, 100, What::Wrote(1)), (10, 90, What::Wrote(2))];
        check(&[both[0], both[1], (110, 120, What::Read(1))], true);
        check(&[both[0], both[1], (110, 120, What::Read(2))], true);
        // A read during a write may show it or not, but not go back.
        let slow = (50, 200, What::Wrote(2));
        check(
            &[(0, 10, What::Wrote(1)), slow, (60, 70, What::Read(1)), (80, 90, What::Read(2))],
            true,
        );
        // An unknown write may happen late.
        check(&[(0, 0, What::Wrote(1)), (10, 20, What::Wrote(2)), (30, 40, What::Read(1))], true);
    }

    #[test]
    fn only_a_full_part_may_evict() {
        let part = |bytes| Part { run: 1, epoch: None, bytes, share_bytes: 4 << 20, evictions: 0 };
        assert!(was_full(part(1 << 20), part(4 << 20)));
        assert!(was_full(part(4 << 20), part(1 << 20)), "a slot may have gone since");
        assert!(!was_full(part(1 << 20), part(2 << 20)));
    }

    #[test]
    fn what_no_order_explains_is_found() {
        check(&[(0, 10, What::Wrote(1)), (20, 30, What::Wrote(2)), (40, 50, What::Read(1))], false);
        check(&[(0, 10, What::Wrote(1)), (20, 30, What::Deleted), (40, 50, What::Read(1))], false);
        let slow = (50, 200, What::Wrote(2));
        check(
            &[(0, 10, What::Wrote(1)), slow, (60, 70, What::Read(2)), (80, 90, What::Read(1))],
            false,
        );
        check(&[(10, 20, What::Read(1)), (30, 40, What::Wrote(1))], false);
        check(&[(0, 10, What::Refused(1)), (20, 30, What::Read(1))], false);
        // An unknown write that was seen, and then overwritten, must not come back.
        let unknown = (5, 0, What::Wrote(1));
        let seen = (20, 30, What::Read(1));
        check(&[unknown, seen, (40, 50, What::Wrote(2)), (60, 70, What::Read(1))], false);
    }

    /// Deeds as (began, ended, what); an end of 0 is none.
    #[track_caller]
    fn check(deeds: &[(Micros, Micros, What)], is_lawful: bool) {
        let mut history = History::default();
        for &(began, ended, what) in deeds {
            let ended = (ended != 0).then_some(ended);
            history.note(KEY, Deed { client: 0, through: 0, began, ended, what });
        }
        let result = invariant_reads_are_never_stale(&history);
        assert_eq!(result.is_ok(), is_lawful, "{result:?}");
    }
}
