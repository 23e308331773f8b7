//! Rules for addresses as they are pushed, and whom a change of them would cut off.
//!
//! The latter is asked of the nodes when somebody wants to know ([`super::inquiry`]), because telling
//! control of every client all the time would cost more than all else that nodes tell.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tenancy::id::CacheId;
use tenancy::rules::{Network, Open, Rule, RuleChange, RuleId, Ruling};

use super::topology::{ip, put_ip};
use crate::codec::{CodecError, Reader, put_bool, put_count, put_u8, put_u32, put_u64};

/// Caches that are named in an answer; whoever cuts off more of them is told that there are so many.
pub const CUT_CACHES_MAX: usize = 1_000;
/// Addresses that are named in an answer: a page to look through.
pub const CUT_CLIENTS_MAX: usize = 100;

/// The longest encoding of a [`Cut`].
pub(super) const CUT_BYTES_MAX: usize =
    8 + (4 + CUT_CACHES_MAX * (8 + 8)) + (4 + CUT_CLIENTS_MAX * (OPTIONAL_CACHE_BYTES + 17 + 4));
/// The longest encoding of a rule, without its kind.
pub(super) const RULE_BYTES_MAX: usize = 8 + OPTIONAL_CACHE_BYTES + 17 + 1 + 1 + 8;
const OPTIONAL_CACHE_BYTES: usize = 1 + 8;

/// Whom a change of the rules would cut off: open connections that would be closed by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// All of them.
    pub connections: u64,
    /// Their caches and how many connections each would lose, most first; [`CUT_CACHES_MAX`] at most.
    pub caches: Vec<(CacheId, u64)>,
    /// Where they come from, most connections first; [`CUT_CLIENTS_MAX`] at most.
    pub clients: Vec<Open>,
}

impl Cut {
    pub fn of(connections: impl Iterator<Item = Open>) -> Self {
        let mut cut = Cut::default();
        let mut caches: BTreeMap<CacheId, u64> = BTreeMap::new();
        let clients = connections.inspect(|open| {
            cut.connections += u64::from(open.connections);
            if let Some(cache) = open.cache {
                *caches.entry(cache).or_default() += u64::from(open.connections);
            }
        });
        let clients: Vec<Open> = clients.collect();
        cut.set(caches, clients.into_iter());
        cut
    }

    /// Takes in what another node has answered.
    pub fn join(&mut self, other: Cut) {
        self.connections += other.connections;
        let mut caches: BTreeMap<CacheId, u64> = self.caches.drain(..).collect();
        for (cache, connections) in other.caches {
            *caches.entry(cache).or_default() += connections;
        }
        let clients = std::mem::take(&mut self.clients);
        self.set(caches, clients.into_iter().chain(other.clients));
    }

    fn set(&mut self, caches: BTreeMap<CacheId, u64>, clients: impl Iterator<Item = Open>) {
        self.caches = caches.into_iter().collect();
        self.caches.sort_by_key(|&(cache, connections)| (Reverse(connections), cache));
        self.caches.truncate(CUT_CACHES_MAX);
        let mut by_client: BTreeMap<_, u32> = BTreeMap::new();
        for Open { cache, address, connections } in clients {
            let all = by_client.entry((cache, address)).or_default();
            *all = all.saturating_add(connections);
        }
        let open = |((cache, address), connections)| Open { cache, address, connections };
        self.clients = by_client.into_iter().map(open).collect();
        self.clients.sort_by_key(|open| (Reverse(open.connections), open.cache, open.address));
        self.clients.truncate(CUT_CLIENTS_MAX);
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.connections);
        put_count(out, self.caches.len());
        for (cache, connections) in &self.caches {
            put_u64(out, cache.get());
            put_u64(out, *connections);
        }
        put_count(out, self.clients.len());
        for client in &self.clients {
            put_cache(out, client.cache);
            put_ip(out, client.address);
            put_u32(out, client.connections);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let connections = reader.u64()?;
        let caches = reader.count_u32("caches", CUT_CACHES_MAX)?;
        let caches = (0..caches)
            .map(|_| Ok((CacheId::new(reader.u64()?), reader.u64()?)))
            .collect::<Result<_, CodecError>>()?;
        let clients = reader.count_u32("clients", CUT_CLIENTS_MAX)?;
        let clients = (0..clients).map(|_| client(reader)).collect::<Result<_, _>>()?;
        Ok(Cut { connections, caches, clients })
    }
}

fn client(reader: &mut Reader<'_>) -> Result<Open, CodecError> {
    Ok(Open { cache: cache(reader)?, address: ip(reader)?, connections: reader.u32()? })
}

pub(super) fn put_rule(out: &mut Vec<u8>, rule: &Rule) {
    put_u64(out, rule.id.0);
    put_cache(out, rule.cache);
    put_ip(out, rule.network.address());
    put_u8(out, rule.network.prefix_bits());
    put_bool(out, rule.ruling == Ruling::Allow);
    put_u64(out, rule.expires_at);
}

pub(super) fn rule(reader: &mut Reader<'_>) -> Result<Rule, CodecError> {
    let id = RuleId(reader.u64()?);
    let cache = cache(reader)?;
    let (address, prefix_bits) = (ip(reader)?, reader.u8()?);
    let network = Network::new(address, prefix_bits)
        .ok()
        // A record has one encoding: no bits behind the prefix, no IPv4 in IPv6's clothes.
        .filter(|network| network.address() == address && network.prefix_bits() == prefix_bits)
        .ok_or(CodecError::Invalid { what: "network" })?;
    let ruling = if reader.bool()? { Ruling::Allow } else { Ruling::Block };
    Ok(Rule { id, cache, network, ruling, expires_at: reader.u64()? })
}

pub(super) fn put_change(out: &mut Vec<u8>, change: &RuleChange) {
    match change {
        RuleChange::Put(rule) => {
            put_bool(out, true);
            put_rule(out, rule);
        }
        RuleChange::Remove(id) => {
            put_bool(out, false);
            put_u64(out, id.0);
        }
    }
}

pub(super) fn change(reader: &mut Reader<'_>) -> Result<RuleChange, CodecError> {
    if reader.bool()? {
        rule(reader).map(RuleChange::Put)
    } else {
        Ok(RuleChange::Remove(RuleId(reader.u64()?)))
    }
}

fn put_cache(out: &mut Vec<u8>, cache: Option<CacheId>) {
    put_bool(out, cache.is_some());
    if let Some(cache) = cache {
        put_u64(out, cache.get());
    }
}

fn cache(reader: &mut Reader<'_>) -> Result<Option<CacheId>, CodecError> {
    reader.bool()?.then(|| reader.u64().map(CacheId::new)).transpose()
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    pub(in super::super) fn one_rule(id: u64, cache: Option<u64>, network: &str) -> Rule {
        Rule {
            id: RuleId(id),
            cache: cache.map(CacheId::new),
            network: Network::parse(network).expect("a network"),
            ruling: Ruling::Block,
            expires_at: 1_800_000_000,
        }
    }

    pub(in super::super) fn one_cut() -> Cut {
        Cut::of([open(Some(7), 1, 2), open(None, 2, 3)].into_iter())
    }

    fn open(cache: Option<u64>, address: u32, connections: u32) -> Open {
        let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + address));
        Open { cache: cache.map(CacheId::new), address, connections }
    }

    #[test]
    fn a_network_that_is_not_in_its_one_form_is_refused() {
        let mut bytes = Vec::new();
        put_rule(&mut bytes, &one_rule(1, None, "10.1.0.0/16"));
        assert!(rule(&mut Reader::new(&bytes)).is_ok());
        // The last byte of the address: id, no cache, family, three bytes.
        bytes[8 + 1 + 1 + 3] = 1;
        let refused = rule(&mut Reader::new(&bytes));
        assert_eq!(refused, Err(CodecError::Invalid { what: "network" }));
    }

    #[test]
    fn a_rule_is_no_longer_than_it_may_be() {
        let mut bytes = Vec::new();
        put_rule(&mut bytes, &one_rule(1, Some(7), "2001:db8::/32"));
        assert_eq!(bytes.len(), RULE_BYTES_MAX);
    }

    #[test]
    fn answers_of_several_nodes_become_one() {
        let mut all = Cut::of([open(Some(7), 1, 2), open(Some(8), 1, 9)].into_iter());
        all.join(Cut::of([open(Some(7), 1, 5), open(None, 3, 1)].into_iter()));
        assert_eq!(all.connections, 17);
        assert_eq!(all.caches, [(CacheId::new(8), 9), (CacheId::new(7), 7)]);
        let clients = [open(Some(8), 1, 9), open(Some(7), 1, 7), open(None, 3, 1)];
        assert_eq!(all.clients, clients);
    }

    #[test]
    fn many_are_counted_and_the_largest_are_named() {
        let all = (0..5_000).map(|number| open(Some(number.into()), number, 1 + number % 3));
        let cut = Cut::of(all);
        assert_eq!(cut.connections, 9_999);
        assert_eq!((cut.caches.len(), cut.clients.len()), (CUT_CACHES_MAX, CUT_CLIENTS_MAX));
        assert!(cut.clients.iter().all(|open| open.connections == 3));
        let mut bytes = Vec::new();
        cut.encode(&mut bytes);
        assert!(bytes.len() <= CUT_BYTES_MAX);
        assert_eq!(Cut::decode(&mut Reader::new(&bytes)), Ok(cut));
    }
}
