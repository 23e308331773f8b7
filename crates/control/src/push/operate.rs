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
use super::driver::Wishes;
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
        let mut after: Vec<TopologyMember> = committed.members().to_vec();
        after.retain(|member| !removing.contains(&member.node));
        for member in &mut after {
            member.weight = weights.get(&member.name).copied().unwrap_or(member.weight);
        }
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
    let link = node.link.as_ref();
    Patient {
        is_connected: link.is_some(),
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
