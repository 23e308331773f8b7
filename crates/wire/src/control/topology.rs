//! Who the members of a cluster are, where they are, and which slots each owns.
//!
//! A topology changes rarely and in two phases. PREPARE tells every node of it, so that links are
//! made to all members by their literal addresses; no name is ever looked up. Once every node has
//! said that it reached every member, COMMIT makes it the one that requests are routed by. Its
//! [digest](Topology::digest) is over everything in it, so two nodes that name the same epoch and
//! digest have the same members at the same addresses and the same owner for every slot.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fmt;
use std::sync::Arc;

use cluster::digest::Digest;
use cluster::map::{ClusterMap, Epoch};
use cluster::member::{
    Incarnation, InvalidMembers, MEMBERS_MAX, Member, MemberName, Members, Weight,
};
use cluster::scheme::Scheme;
use cluster::slot::{SLOTS, SlotKey};
use cluster::table::{InvalidTable, Table};
use sha2::{Digest as _, Sha256};

use super::name::NodeName;
use crate::codec::{
    CodecError, Reader, put_count, put_short_str, put_u8, put_u16, put_u32, put_u64,
};

/// One backend as the others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyMember {
    /// Stable: slots belong to it, whatever machine is behind it.
    pub name: MemberName,
    /// The node whose process it runs in; its certificate says so.
    pub node: NodeName,
    /// Which run of that node holds the items.
    pub incarnation: Incarnation,
    /// Where that node takes requests from the proxies of others.
    pub address: SocketAddr,
    pub weight: Weight,
}

/// Where the owners of slots come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Placed by rule from names and weights.
    Scheme(Scheme),
    /// Said one by one, while slots are on the move: for each slot, the index of its owner among the
    /// members in the order of their names.
    Owners(Arc<[u16]>),
}

/// The checked topology of one epoch. Cheap enough to clone, meant to be shared in an `Arc`.
#[derive(Debug, Clone)]
pub struct Topology {
    slot_key: [u8; 16],
    /// Ascending by name.
    members: Vec<TopologyMember>,
    placement: Placement,
    map: ClusterMap,
    digest: Digest,
}

impl PartialEq for Topology {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Topology {}

impl Topology {
    /// Checks the members (in any order) and gives every slot its owner, which takes milliseconds.
    pub fn new(
        epoch: Epoch,
        slot_key: [u8; 16],
        mut members: Vec<TopologyMember>,
        placement: Placement,
    ) -> Result<Self, InvalidTopology> {
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let plain = members.iter().map(|m| Member { name: m.name.clone(), weight: m.weight });
        let checked = Members::new(plain)?;
        let table = match &placement {
            Placement::Scheme(scheme) => scheme.place(&checked),
            Placement::Owners(owners) => {
                let names = members.iter().map(|member| member.name.clone()).collect();
                Table::from_parts(names, owners.to_vec())?
            }
        };
        let map = ClusterMap::new(epoch, table);
        let mut topology =
            Topology { slot_key, members, placement, map, digest: Digest::new([0; 32]) };
        topology.digest = topology.compute_digest();
        Ok(topology)
    }

    pub fn epoch(&self) -> Epoch {
        self.map.epoch()
    }

    /// The key under which this cluster hashes keys to slots. Secret: it goes to nodes only.
    pub fn slot_key(&self) -> SlotKey {
        SlotKey::new(self.slot_key)
    }

    /// Ascending by name; the same order as [`Table::names`] of [`Topology::map`].
    pub fn members(&self) -> &[TopologyMember] {
        &self.members
    }

    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Who owns which slot.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// SHA-256 of `larder topology 1\n`, the encoding, and the table's own digest: so two programs
    /// that place slots differently notice, although they were told the same.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    fn compute_digest(&self) -> Digest {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        let hash = Sha256::new()
            .chain_update(b"larder topology 1\n")
            .chain_update(bytes)
            .chain_update(self.map.table().digest().as_bytes());
        Digest::new(hash.finalize().into())
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.epoch().get());
        out.extend_from_slice(&self.slot_key);
        put_count(out, self.members.len());
        for member in &self.members {
            put_short_str(out, member.name.as_str());
            member.node.encode(out);
            put_u64(out, member.incarnation.get());
            put_address(out, member.address);
            put_u32(out, member.weight.get());
        }
        match &self.placement {
            Placement::Scheme(scheme) => {
                put_u8(out, 0);
                put_short_str(out, &scheme.to_string());
            }
            Placement::Owners(owners) => {
                put_u8(out, 1);
                owners.iter().for_each(|&owner| put_u16(out, owner));
            }
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let epoch = Epoch::new(reader.u64()?);
        let slot_key = reader.array()?;
        let count = reader.count_u32("members", MEMBERS_MAX)?;
        let members = (0..count).map(|_| member(reader)).collect::<Result<_, _>>()?;
        let placement = match reader.u8()? {
            0 => Scheme::parse(reader.short_str("scheme")?)
                .map(Placement::Scheme)
                .map_err(|_| CodecError::Invalid { what: "scheme" })?,
            1 => {
                let owners = reader.bytes(2 * SLOTS as usize)?.as_chunks::<2>().0;
                Placement::Owners(owners.iter().map(|owner| u16::from_le_bytes(*owner)).collect())
            }
            _ => return Err(CodecError::Invalid { what: "placement" }),
        };
        Topology::new(epoch, slot_key, members, placement)
            .map_err(|_| CodecError::Invalid { what: "topology" })
    }
}

fn member(reader: &mut Reader<'_>) -> Result<TopologyMember, CodecError> {
    Ok(TopologyMember {
        name: MemberName::parse(reader.short_str("member name")?)
            .map_err(|_| CodecError::Invalid { what: "member name" })?,
        node: NodeName::decode(reader)?,
        incarnation: Incarnation::new(reader.u64()?),
        address: address(reader)?,
        weight: Weight::new(reader.u32()?),
    })
}

const V4: u8 = 4;
const V6: u8 = 6;

pub(crate) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    put_ip(out, address.ip());
    put_u16(out, address.port());
}

pub(crate) fn address(reader: &mut Reader<'_>) -> Result<SocketAddr, CodecError> {
    Ok(SocketAddr::new(ip(reader)?, reader.u16()?))
}

pub(crate) fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            put_u8(out, V4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            put_u8(out, V6);
            out.extend_from_slice(&ip.octets());
        }
    }
}

pub(crate) fn ip(reader: &mut Reader<'_>) -> Result<IpAddr, CodecError> {
    match reader.u8()? {
        V4 => Ok(IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?))),
        V6 => Ok(IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?))),
        _ => Err(CodecError::Invalid { what: "address" }),
    }
}

/// Why members cannot be a topology.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopology {
    #[error(transparent)]
    Members(#[from] InvalidMembers),
    #[error(transparent)]
    Table(#[from] InvalidTable),
}

/// Some members of one topology, by their place in [`Topology::members`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct MemberSet([u64; MEMBER_WORDS]);

const MEMBER_WORDS: usize = MEMBERS_MAX.div_ceil(64);

impl MemberSet {
    pub const NONE: MemberSet = MemberSet([0; MEMBER_WORDS]);

    /// The first `count` members: all, when a topology has as many.
    pub fn first(count: usize) -> Self {
        let mut all = MemberSet::NONE;
        (0..count.min(MEMBERS_MAX)).for_each(|index| all.insert(index));
        all
    }

    /// # Panics
    ///
    /// When there can be no such member (from [`MEMBERS_MAX`] on).
    pub fn insert(&mut self, index: usize) {
        assert!(index < MEMBERS_MAX, "a topology has at most MEMBERS_MAX members");
        self.0[index / 64] |= 1 << (index % 64);
    }

    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|&word| put_u64(out, word));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut words = [0; MEMBER_WORDS];
        for word in &mut words {
            *word = reader.u64()?;
        }
        let surplus = MEMBER_WORDS * 64 - MEMBERS_MAX;
        if words[MEMBER_WORDS - 1].leading_zeros() < u32::try_from(surplus).unwrap_or(0) {
            return Err(CodecError::Invalid { what: "member" });
        }
        Ok(MemberSet(words))
    }
}

impl fmt::Debug for MemberSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..MEMBERS_MAX).filter(|&index| self.contains(index))).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_topology_comes_back_whole_and_so_does_its_digest() {
        for placement in [
            Placement::Scheme(Scheme::Maglev),
            Placement::Owners((0..SLOTS).map(|slot| (slot % 3) as u16).collect()),
        ] {
            let topology = topology(3, 3, placement);
            let mut bytes = Vec::new();
            topology.encode(&mut bytes);
            let mut reader = Reader::new(&bytes);
            let again = Topology::decode(&mut reader).expect("its own bytes");
            assert_eq!(reader.end(), Ok(()));
            assert_eq!(again.digest(), topology.digest());
            assert_eq!(again.map().table(), topology.map().table());
            assert_eq!(again.members(), topology.members());
            for cut in (0..bytes.len()).step_by(97) {
                assert_eq!(
                    Topology::decode(&mut Reader::new(&bytes[..cut])),
                    Err(CodecError::Short)
                );
            }
        }
    }

    #[test]
    fn whatever_differs_is_in_the_digest() {
        let plain = || topology(3, 3, Placement::Scheme(Scheme::Maglev));
        assert_eq!(plain().digest(), plain().digest());
        let other = topology(4, 3, Placement::Scheme(Scheme::Maglev));
        assert_ne!(plain().digest(), other.digest());
        let changes: [fn(&mut TopologyMember); 3] = [
            |member| member.address.set_port(1),
            |member| member.incarnation = Incarnation::new(99),
            |member| member.node = NodeName::parse("elsewhere").expect("a good name"),
        ];
        for change in changes {
            let mut members = plain().members().to_vec();
            change(&mut members[1]);
            let changed =
                Topology::new(Epoch::new(3), [7; 16], members, plain().placement().clone());
            assert_ne!(changed.expect("still good").digest(), plain().digest());
        }
    }

    #[test]
    fn a_set_of_members_holds_what_was_put_in() {
        let mut set = MemberSet::NONE;
        set.insert(0);
        set.insert(MEMBERS_MAX - 1);
        assert!(set.contains(0) && set.contains(MEMBERS_MAX - 1) && !set.contains(1));
        assert!(!set.contains(usize::MAX));
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        assert_eq!(MemberSet::decode(&mut Reader::new(&bytes)), Ok(set));
        assert_eq!(MemberSet::first(MEMBERS_MAX).count() as usize, MEMBERS_MAX);
        let none_has_it = MemberSet::decode(&mut Reader::new(&[0xff; 8 * MEMBER_WORDS]));
        assert_eq!(none_has_it, Err(CodecError::Invalid { what: "member" }));
    }

    pub(crate) fn topology(epoch: u64, members: usize, placement: Placement) -> Topology {
        let member = |number: usize| TopologyMember {
            name: MemberName::parse(&format!("node-{number}.b0")).expect("a good name"),
            node: NodeName::parse(&format!("node-{number}")).expect("a good name"),
            incarnation: Incarnation::new(number as u64),
            address: SocketAddr::from(([10, 0, 0, number as u8], 11_300)),
            weight: Weight::new(1024),
        };
        let members = (0..members).map(member).collect();
        Topology::new(Epoch::new(epoch), [7; 16], members, placement).expect("good members")
    }
}
