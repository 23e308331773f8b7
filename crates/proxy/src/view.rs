//! Where each slot's owner is, as one proxy sees it.
//!
//! A view is made whole and swapped whole ([`crate::cluster_handle`]): every loop holds the one it read last
//! and never sees half a change. It is a *hint*. The backend that is asked decides whether it owns
//! the slot, so an old view costs a hop; and nobody derives another owner from what only this proxy
//! sees, so a member that cannot be reached is an error for its slots and for no others.

use std::net::SocketAddr;

use cluster::digest::Digest;
use cluster::map::ClusterMap;
use cluster::member::{Incarnation, MemberName};
use cluster::slot::{Slot, SlotHasher, SlotKey};
use daemon::networks::Networks;
use tenancy::id::CacheId;
use tracing::warn;
use wire::control::name::{ClusterId, NodeName};
use wire::control::topology::{Topology, TopologyMember};

/// One member of the cluster and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewMember {
    pub name: MemberName,
    /// Whose backend it is, and so whose certificate it shows.
    pub node: NodeName,
    /// Drawn anew by each start of the member's process; a link checks it.
    pub incarnation: Incarnation,
    pub place: Place,
}

/// Where a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A backend of this process, by its number.
    Here { backend: usize },
    /// Another node. Always a literal address: names can change their meaning.
    There { address: SocketAddr },
    /// At an address that is none of the cluster's. It is never connected to; its slots fail until
    /// a view says otherwise.
    Refused { address: SocketAddr },
}

/// Who asks, and in which cluster.
#[derive(Debug, Clone)]
pub struct ViewIdentity {
    pub cluster: ClusterId,
    /// The node of this proxy, and the run of it that this is.
    pub node: NodeName,
    pub incarnation: Incarnation,
    /// How many backends this process has.
    pub backends: usize,
}

impl ViewIdentity {
    /// How this proxy finds a member. A member of an earlier run of this node is not here: what it
    /// held is gone.
    pub(crate) fn view_member(&self, member: &TopologyMember) -> ViewMember {
        let is_own = member.node == self.node && member.incarnation == self.incarnation;
        let backend = if is_own { self.backend_number(&member.name) } else { None };
        ViewMember {
            name: member.name.clone(),
            node: member.node.clone(),
            incarnation: member.incarnation,
            place: match backend {
                Some(backend) => Place::Here { backend },
                None => Place::There { address: member.address },
            },
        }
    }

    /// The backends of a node are named `<node>.b<number>`.
    fn backend_number(&self, name: &MemberName) -> Option<usize> {
        let number = name.as_str().strip_prefix(self.node.as_str())?.strip_prefix(".b")?;
        number.parse().ok().filter(|&number| number < self.backends)
    }
}

/// The cluster's members and who owns what.
#[derive(Debug, Clone)]
pub struct ClusterView {
    map: ClusterMap,
    hasher: SlotHasher,
    identity: ViewIdentity,
    /// Of the topology that the map is of; of the map alone where there is none.
    digest: Digest,
    /// In the order of the table's names; then those that are only being prepared.
    members: Vec<ViewMember>,
}

/// Why members cannot be a view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    #[error("the table names member {name}, whose address is not known")]
    NoAddress { name: MemberName },
}

impl ClusterView {
    /// The first of `members` that has the name of an owner in the map is that owner; the others
    /// are connected to as well, because a coming map may name them.
    ///
    /// # Errors
    /// A member of the map is not among `members`.
    pub fn new(
        identity: ViewIdentity,
        map: ClusterMap,
        slot_key: &SlotKey,
        mut members: Vec<ViewMember>,
        networks: &Networks,
    ) -> Result<Self, ViewError> {
        let mut ordered = Vec::with_capacity(members.len());
        for name in map.table().names() {
            let found = members.iter().position(|member| member.name == *name);
            let found = found.ok_or_else(|| ViewError::NoAddress { name: name.clone() })?;
            ordered.push(members.remove(found));
        }
        for member in members {
            if !ordered.contains(&member) {
                ordered.push(member);
            }
        }
        for member in &mut ordered {
            if let Place::There { address } = member.place
                && !networks.contain(address.ip())
            {
                warn!(member.name = %member.name, %address, "address is none of the cluster's");
                member.place = Place::Refused { address };
            }
        }
        let (hasher, digest) = (SlotHasher::new(slot_key), map.digest());
        Ok(ClusterView { map, hasher, identity, digest, members: ordered })
    }

    /// The view that follows from what control has said: requests are routed by the committed
    /// topology, and the members of the prepared one are connected to. Before the first is
    /// committed, requests go by the prepared one, whose backends know that they own nothing yet.
    /// `None` before there is either.
    pub fn of_topologies(
        identity: &ViewIdentity,
        committed: Option<&Topology>,
        prepared: Option<&Topology>,
        networks: &Networks,
    ) -> Option<Self> {
        let current = committed.or(prepared)?;
        let members = [committed, prepared].into_iter().flatten();
        let members = members.flat_map(|topology| topology.members());
        let members = members.map(|member| identity.view_member(member)).collect();
        let (map, key) = (current.map().clone(), current.slot_key());
        let view = ClusterView::new(identity.clone(), map, &key, members, networks);
        let view = view.expect("a topology has a member for each name of its map");
        Some(ClusterView { digest: current.digest(), ..view })
    }

    pub(crate) fn identity(&self) -> &ViewIdentity {
        &self.identity
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether another finds the same slots for the same keys.
    pub(crate) fn slot_fingerprint(&self) -> u64 {
        self.hasher.fingerprint()
    }

    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// Everyone the proxy shall be connected to.
    pub fn members(&self) -> &[ViewMember] {
        &self.members
    }

    /// The members that own slots, or may: those of the table.
    pub(crate) fn owners(&self) -> &[ViewMember] {
        &self.members[..self.map.table().names().len()]
    }

    #[inline]
    pub(crate) fn slot(&self, cache: CacheId, key: &[u8]) -> Slot {
        self.hasher.slot(cache, key)
    }

    /// The owner of a slot, by its place in [`Self::members`].
    #[inline]
    pub(crate) fn owner(&self, slot: Slot) -> usize {
        self.map.table().owner(slot).index()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use cluster::map::{ClusterMap, Epoch};
    use cluster::member::{Incarnation, Member, MemberName, Members, Weight};
    use cluster::scheme::Scheme;
    use cluster::slot::{Slot, SlotKey};

    use wire::control::name::{ClusterId, NodeName};
    use wire::control::topology::{Placement, Topology, TopologyMember};

    use super::{ClusterView, Networks, Place, ViewError, ViewIdentity, ViewMember};

    #[test]
    fn a_member_at_a_public_address_is_never_connected_to() {
        let members = [("a", Some(0)), ("b", None)];
        let place = |address: &str| {
            let view = view(&members, address, &["a", "b"]).expect("all have addresses");
            view.members()[1].place
        };
        let literal = |text: &str| text.parse().expect("a literal");
        let public = literal("203.0.113.5:7000");
        assert_eq!(place("203.0.113.5:7000"), Place::Refused { address: public });
        let private = literal("10.0.0.5:7000");
        assert_eq!(place("10.0.0.5:7000"), Place::There { address: private });
    }

    #[test]
    fn a_view_routes_by_the_committed_topology_and_connects_to_the_prepared_one() {
        let identity = identity();
        let networks = Networks::private();
        let of = |committed: Option<&Topology>, prepared: Option<&Topology>| {
            ClusterView::of_topologies(&identity, committed, prepared, &networks)
        };
        assert!(of(None, None).is_none());
        let first = topology(1, &[("here.b0", 1, 1), ("here.b1", 1, 1), ("other.b0", 5, 9)]);
        // The other node was started again, and a third one comes.
        let second = topology(2, &[("here.b0", 1, 1), ("other.b0", 6, 9), ("third.b0", 7, 8)]);
        let view = of(Some(&first), Some(&second)).expect("there is one");
        assert_eq!(view.map().epoch(), Epoch::new(1));
        let places: Vec<_> = view
            .members()
            .iter()
            .map(|m| (m.name.as_str(), m.incarnation.get(), m.place))
            .collect();
        let at = |port| Place::There { address: address(port) };
        let expected = [
            ("here.b0", 1, Place::Here { backend: 0 }),
            ("here.b1", 1, Place::Here { backend: 1 }),
            ("other.b0", 5, at(9)),
            ("other.b0", 6, at(9)),
            ("third.b0", 7, at(8)),
        ];
        assert_eq!(places, expected);
        assert_eq!(view.owners().len(), 3);
        let prepared = of(None, Some(&second)).expect("there is one");
        assert_eq!(prepared.map().epoch(), Epoch::new(2));
        // An earlier run of this node is not this one.
        let stale = topology(1, &[("here.b0", 99, 1)]);
        assert_eq!(of(Some(&stale), None).expect("there is one").members()[0].place, at(1));
    }

    #[test]
    fn every_owner_has_an_address_and_prepared_members_come_after() {
        let missing = view(&[("a", Some(0))], "10.0.0.5:7000", &["a", "b"]);
        assert!(matches!(missing, Err(ViewError::NoAddress { .. })), "{missing:?}");
        let members = [("z", None), ("b", Some(1)), ("a", Some(0))];
        let view = view(&members, "10.0.0.5:7000", &["a", "b"]).expect("all have addresses");
        let names: Vec<_> = view.members().iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "z"]);
        assert_eq!(view.owners().len(), 2);
        for slot in Slot::all() {
            assert_eq!(view.members()[view.owner(slot)].name, *view.map().owner(slot));
        }
    }

    fn view(
        members: &[(&str, Option<usize>)],
        elsewhere: &str,
        owners: &[&str],
    ) -> Result<ClusterView, ViewError> {
        let address: SocketAddr = elsewhere.parse().expect("a literal");
        let members = members.iter().map(|&(member, backend)| ViewMember {
            name: name(member),
            node: NodeName::parse(member).expect("a good name"),
            incarnation: Incarnation::new(1),
            place: backend.map_or(Place::There { address }, |backend| Place::Here { backend }),
        });
        let owners = owners.iter().map(|o| Member { name: name(o), weight: Weight::new(1) });
        let table = Scheme::Maglev.place(&Members::new(owners).expect("good members"));
        let map = ClusterMap::new(Epoch::FIRST, table);
        let key = SlotKey::new([7; 16]);
        ClusterView::new(identity(), map, &key, members.collect(), &Networks::private())
    }

    fn topology(epoch: u64, members: &[(&str, u64, u16)]) -> Topology {
        let members = members.iter().map(|&(text, incarnation, port)| TopologyMember {
            name: name(text),
            node: NodeName::parse(text.split('.').next().expect("a node")).expect("a good name"),
            incarnation: Incarnation::new(incarnation),
            address: address(port),
            weight: Weight::new(1),
        });
        let placement = Placement::Scheme(Scheme::Maglev);
        let topology = Topology::new(Epoch::new(epoch), [7; 16], members.collect(), placement);
        topology.expect("good members")
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn identity() -> ViewIdentity {
        ViewIdentity {
            cluster: ClusterId::new([1; 16]),
            node: NodeName::parse("here").expect("a good name"),
            incarnation: Incarnation::new(1),
            backends: 2,
        }
    }

    fn name(text: &str) -> MemberName {
        MemberName::parse(text).expect("a good name")
    }
}
