//! What operators ask of a cluster: its members changed, its faults named.
//!
//! A change is worked out and told before it is done. It becomes a wish of the driver's, and is done
//! when a newer epoch is settled; whoever waits for that looks at the status.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use cluster::member::{InvalidMembers, Member, MemberName, Members, Weight};
use cluster::scheme::Scheme;
use wire::control::name::NodeName;
use wire::control::topology::{Topology, TopologyMember};

use super::PushControl;
use super::diagnosis::{Finding, Patient, diagnose};
use super::driver::{Wishes, weigh};
use super::fleet::FleetNode;
use crate::contract::{ChangeMembers, MemberView, MembersPlanView};

/// Why a change of members is refused. Nothing has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    #[error("there is no topology yet: no node has joined and said where it listens")]
    NoTopology,
    #[error("there is no member or node {name}")]
    Unknown { name: String },
    #[error("{node} is connected and owns slots: drain it first, or stop its process")]
    Serves { node: NodeName },
    #[error(
        "{node} is away, but its process may still serve clients that reach it: say that it has \
         ended (--process-ended), or wait until it is known"
    )]
    MayServe { node: NodeName },
    #[error("the cluster would not be left with members it can have: {0}")]
    Members(#[from] InvalidMembers),
}

impl PushControl {
    /// Says what a change means, and has it carried out unless it is only a preview.
    pub(crate) fn change_members(
        &self,
        change: &ChangeMembers,
    ) -> Result<MembersPlanView, WishError> {
        let announced = self.announced.borrow().clone();
        let committed = announced.committed.ok_or(WishError::NoTopology)?;
        let nodes = self.fleet.nodes();
        let weights = weights(&committed, change)?;
        let removing = removing(&committed, &nodes, change)?;
        let after = after(&committed, &self.wishes.borrow(), &weights, &removing)?;
        let plan = plan(&committed, after)?;
        if !change.preview {
            self.wishes.send_modify(|wishes: &mut Wishes| {
                wishes.weights.extend(weights);
                wishes.removing.extend(removing);
                if change.refresh_links {
                    wishes.refresh_after = Some(committed.epoch());
                }
            });
        }
        Ok(plan)
    }

    /// Everything that is wrong with the cluster now.
    pub fn diagnose(&self) -> Vec<Finding> {
        let announced = self.announced.borrow().clone();
        let nodes = self.fleet.nodes().into_iter().map(|(name, node)| (name, patient(&node)));
        let nodes: BTreeMap<NodeName, Patient> = nodes.collect();
        diagnose(self.publisher.head(), &announced, &self.rules, &nodes)
    }
}

fn patient(node: &FleetNode) -> Patient {
    let link = node.session();
    Patient {
        is_connected: link.is_some(),
        other_version: node.other_version.clone(),
        troubles: link.map_or_else(Vec::new, |link| link.troubles.clone()),
        acknowledged: node.acknowledged,
        report: node.report.filter(|_| link.is_some()),
        prepared: link
            .and_then(|link| link.prepared)
            .map(|(epoch, _, connected)| (epoch, connected)),
        committed: link.and_then(|link| link.committed).map(|(epoch, _)| epoch),
        peers: node.addresses().peers,
        dead_for: node.refusing_since.map(|since| Instant::now().saturating_duration_since(since)),
    }
}

/// By member; a node's name stands for all of its members.
fn weights(
    committed: &Topology,
    change: &ChangeMembers,
) -> Result<BTreeMap<MemberName, Weight>, WishError> {
    let mut weights = BTreeMap::new();
    for (name, &weight) in &change.weights {
        let is_meant = |it: &&TopologyMember| it.name.as_str() == name || it.node.as_str() == name;
        let mut meant = committed.members().iter().filter(is_meant).peekable();
        if meant.peek().is_none() {
            return Err(WishError::Unknown { name: name.clone() });
        }
        weights.extend(meant.map(|member| (member.name.clone(), Weight::new(weight))));
    }
    Ok(weights)
}

/// A node may be forgotten when it can serve nobody any more: it owns nothing, or its process has
/// ended.
fn removing(
    committed: &Topology,
    nodes: &BTreeMap<NodeName, FleetNode>,
    change: &ChangeMembers,
) -> Result<BTreeSet<NodeName>, WishError> {
    let mut removing = BTreeSet::new();
    for text in &change.remove {
        let name = NodeName::parse(text).ok();
        let Some((name, node)) = name.and_then(|name| nodes.get_key_value(&name)) else {
            return Err(WishError::Unknown { name: text.clone() });
        };
        let mut own = committed.members().iter().filter(|member| member.node == *name);
        let owns_slots = own.any(|member| member.weight != Weight::NOTHING);
        if owns_slots && node.link.is_some() {
            return Err(WishError::Serves { node: name.clone() });
        }
        if owns_slots && node.refusing_since.is_none() && !change.processes_ended {
            return Err(WishError::MayServe { node: name.clone() });
        }
        removing.insert(name.clone());
    }
    Ok(removing)
}

/// The members that are left when this is done, and all that was wished before and is not done yet: of two
/// nodes that are drained while a third is away, the second may be the last one that was to serve.
fn after(
    committed: &Topology,
    before: &Wishes,
    weights: &BTreeMap<MemberName, Weight>,
    removing: &BTreeSet<NodeName>,
) -> Result<Vec<TopologyMember>, WishError> {
    let mut after = committed.members().to_vec();
    after.retain(|it| !before.removing.contains(&it.node) && !removing.contains(&it.node));
    let mut all_weights = before.weights.clone();
    all_weights.extend(weights.iter().map(|(name, &weight)| (name.clone(), weight)));
    weigh(&mut after, &all_weights);
    let is_done = |it: &TopologyMember| weights.get(&it.name).is_none_or(|&wish| wish == it.weight);
    if after.iter().all(is_done) { Ok(after) } else { Err(InvalidMembers::NoOwner.into()) }
}

fn plan(committed: &Topology, after: Vec<TopologyMember>) -> Result<MembersPlanView, WishError> {
    let members =
        Members::new(after.iter().map(|it| Member { name: it.name.clone(), weight: it.weight }))?;
    let (before, table) = (committed.map().table(), Scheme::Maglev.place(&members));
    let had = before.shares();
    let gained = |(name, has): (&MemberName, f64)| {
        let had = before.index_of(name).map_or(0.0, |member| had[member.index()]);
        (has - had).max(0.0)
    };
    Ok(MembersPlanView {
        epoch: committed.epoch().get(),
        share_moved: before.share_moved_to(&table),
        share_moved_min: table.names().iter().zip(table.shares()).map(gained).sum(),
        members: after.iter().zip(table.shares()).map(MemberView::new).collect(),
    })
}

#[cfg(test)]
mod tests {
    use cluster::map::Epoch;
    use cluster::member::Incarnation;
    use wire::control::topology::Placement;

    use super::*;

    #[test]
    fn a_wish_is_judged_together_with_those_that_are_not_done_yet() {
        let none = Wishes::default();
        check(&none, &[("a", 0)], &[], Ok(&[("a", 0), ("b", 1), ("c", 1)]));
        check(&none, &[("a", 0), ("b", 0), ("c", 0)], &[], Err(InvalidMembers::NoOwner));
        let a_is_drained = Wishes { weights: weights(&[("a", 0)]), ..Wishes::default() };
        check(&a_is_drained, &[("b", 0)], &[], Ok(&[("a", 0), ("b", 0), ("c", 1)]));
        check(&a_is_drained, &[("b", 0), ("c", 0)], &[], Err(InvalidMembers::NoOwner));
        let c_goes = Wishes { removing: nodes(&["c"]), ..a_is_drained.clone() };
        check(&c_goes, &[("b", 0)], &[], Err(InvalidMembers::NoOwner));
        check(&c_goes, &[("b", 0), ("a", 2)], &[], Ok(&[("a", 2), ("b", 0)]));
    }

    #[test]
    fn a_node_that_has_ended_is_removed_though_others_were_to_be_drained() {
        let drained = weights(&[("a", 0), ("b", 0)]);
        let drained = Wishes { weights: drained, ..Wishes::default() };
        check(&drained, &[], &["c"], Ok(&[("a", 1), ("b", 1)]));
    }

    /// What is left of members a, b and c, each of weight 1.
    #[track_caller]
    fn check(
        before: &Wishes,
        wished: &[(&str, u32)],
        removed: &[&str],
        expected: Result<&[(&str, u32)], InvalidMembers>,
    ) {
        let member = |name: &str| TopologyMember {
            name: member_name(name),
            node: NodeName::parse(name).expect("a good name"),
            incarnation: Incarnation::new(1),
            address: ([10, 0, 0, 1], 7_000).into(),
            weight: Weight::new(1),
        };
        let members = ["a", "b", "c"].map(member).to_vec();
        let placement = Placement::Scheme(Scheme::Maglev);
        let committed = Topology::new(Epoch::FIRST, [1; 16], members, placement).expect("good");
        let after = after(&committed, before, &weights(wished), &nodes(removed));
        let found = after.as_ref().map_err(Clone::clone).map(|members| {
            members.iter().map(|it| (it.node.as_str(), it.weight.get())).collect::<Vec<_>>()
        });
        assert_eq!(found, expected.map(<[_]>::to_vec).map_err(WishError::Members));
    }

    fn member_name(node: &str) -> MemberName {
        MemberName::parse(&format!("{node}.b0")).expect("a good name")
    }

    fn weights(wished: &[(&str, u32)]) -> BTreeMap<MemberName, Weight> {
        wished.iter().map(|&(node, weight)| (member_name(node), Weight::new(weight))).collect()
    }

    fn nodes(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| NodeName::parse(name).expect("a good name")).collect()
    }
}
