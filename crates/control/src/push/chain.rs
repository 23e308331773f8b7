//! The nodes of every topology that a member may have on its disk as the one in force.
//!
//! ```text
//!   settled d ──▶ e, not settled ──▶ f, not settled ──▶ g in force
//!   └───────── the chain ──────────────────────────┘
//! ```
//!
//! An epoch is settled when all of its nodes have it on their disks. So whoever has been a member ever
//! since comes back with that one, or with one that followed it. By the one that it has it asks half of
//! the other nodes whether they have heard of an epoch without it (`cluster::comeback`): half of the nodes
//! of *each* of these topologies must hear of such an epoch before it is in force, whatever has become of
//! them since.

use std::collections::BTreeSet;
use std::sync::Arc;

use wire::control::name::NodeName;
use wire::control::topology::Topology;

/// Different sets of nodes. An epoch follows one that is not settled only when it leaves out who is silent
/// or takes in another run of it, and of those that are left out the first in ten minutes goes by itself,
/// the others by persons. With more than these nobody is given up until an epoch is settled.
const SETS_MAX: usize = 64;

/// The nodes of the topologies in force since the last that was settled (since the first, while none was),
/// that one among them, without the one that is in force now. Empty while that one is settled. Cheap to
/// clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain(Arc<BTreeSet<BTreeSet<NodeName>>>);

impl Chain {
    /// Another topology has come into force after this one.
    pub fn add(&mut self, superseded: &Topology) {
        let nodes = nodes_of(superseded);
        // One more than is allowed says that there are too many.
        if self.0.len() <= SETS_MAX && !self.0.contains(&nodes) {
            Arc::make_mut(&mut self.0).insert(nodes);
        }
    }

    /// Whether an epoch without this node would be heard of by half of the nodes of every topology that it
    /// may have on its disk. `in_force` is one, and `hearing` are the nodes that can hear now. Nodes that
    /// were forgotten since are not among them: they may be running still, and know nothing.
    pub fn is_heard_by_half(
        &self,
        without: &NodeName,
        in_force: &Topology,
        hearing: &BTreeSet<&NodeName>,
    ) -> bool {
        let is_half = |nodes: &BTreeSet<NodeName>| {
            let hears = nodes.iter().filter(|name| hearing.contains(name)).count();
            nodes.len() <= 2 * hears || !nodes.contains(without)
        };
        self.0.len() <= SETS_MAX && is_half(&nodes_of(in_force)) && self.0.iter().all(is_half)
    }
}

fn nodes_of(topology: &Topology) -> BTreeSet<NodeName> {
    topology.members().iter().map(|member| member.node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use cluster::map::Epoch;
    use cluster::member::{Incarnation, MemberName, Weight};
    use cluster::scheme::Scheme;
    use wire::control::topology::{Placement, TopologyMember};

    use super::*;

    #[test]
    fn half_of_each_topology_that_a_node_may_have_must_hear() {
        let mut chain = Chain::default();
        chain.add(&topology(&["a", "b", "c", "d", "e"]));
        chain.add(&topology(&["b"]));
        let check = |chain: &Chain, without: &str, hearing: &str, expected| {
            let hearing: Vec<NodeName> = hearing.split(' ').map(name).collect();
            let (without, in_force) = (name(without), topology(&["b", "c", "f"]));
            let found = chain.is_heard_by_half(&without, &in_force, &hearing.iter().collect());
            assert_eq!(found, expected, "{without} and {hearing:?}");
        };
        check(&chain, "c", "a b f", false);
        check(&chain, "c", "b d e", false);
        check(&chain, "c", "b d e f", true);
        // It may have the epoch in which it is alone, and would ask nobody; or it never was in the first.
        check(&chain, "b", "a c d e f", false);
        check(&chain, "f", "b c", true);
        check(&Chain::default(), "b", "c f", true);
        check(&Chain::default(), "b", "a c", false);
    }

    #[test]
    fn with_too_many_nobody_is_given_up() {
        let mut chain = Chain::default();
        let names: Vec<String> = (0..=SETS_MAX).map(|number| format!("n{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all: Vec<NodeName> = names.iter().copied().map(name).collect();
        let is_heard = |chain: &Chain| {
            chain.is_heard_by_half(&name("x"), &topology(&names), &all.iter().collect())
        };
        for count in 1..=SETS_MAX {
            chain.add(&topology(&names[..count]));
            chain.add(&topology(&names[..1]));
            assert!(is_heard(&chain), "{count}");
        }
        chain.add(&topology(&names));
        assert!(!is_heard(&chain));
    }

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).expect("a good name")
    }

    fn topology(nodes: &[&str]) -> Topology {
        let members = nodes.iter().map(|text| TopologyMember {
            name: MemberName::parse(&format!("{text}.b0")).expect("a good name"),
            node: name(text),
            incarnation: Incarnation::new(1),
            address: ([10, 0, 0, 1], 7_000).into(),
            weight: Weight::new(1),
        });
        let placement = Placement::Scheme(Scheme::Maglev);
        Topology::new(Epoch::FIRST, [1; 16], members.collect(), placement).expect("good")
    }
}
