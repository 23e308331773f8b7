//! Compares what every node has with what all should have, names the fault and says what to do.
//!
//! A fault of one machine shows in the reports of many: a node that listens at a wrong address is one
//! that all others cannot reach, a blocked link is one pair. [`diagnose`] is told everything at once and
//! says each fault once, where it most likely is.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use cluster::map::Epoch;
use wire::control::digest::SetDigest;
use wire::control::message::{Refusal, Report};
use wire::control::name::NodeName;
use wire::control::record::Revision;
use wire::control::topology::{MemberSet, Topology};

use super::driver::{Announced, ClusterRules};
use super::session::Trouble;

/// How a node looks from here.
#[derive(Debug, Clone, Default)]
pub struct Patient {
    pub is_connected: bool,
    /// Why it is turned away whenever it comes.
    pub other_version: Option<Refusal>,
    pub troubles: Vec<Trouble>,
    pub acknowledged: Revision,
    /// Its newest report.
    pub report: Option<Report>,
    /// The epoch it prepares, and the members of it that it has links to.
    pub prepared: Option<(Epoch, MemberSet)>,
    /// The newest epoch of which it said that it routes by it; its next report says so, too.
    pub committed: Option<Epoch>,
    /// Where it says that it takes requests from other nodes' proxies.
    pub peers: Option<SocketAddr>,
    /// For how long it has been away while nobody listens at its addresses.
    pub dead_for: Option<Duration>,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process has ended.
    Dead,
    /// Its program and this one have no version in common.
    OtherVersion,
    /// It is not connected to this control plane.
    Away,
    /// It is connected and says nothing.
    Deaf,
    /// Nobody may or can reach it where it says it is.
    WrongAddress,
    /// Two nodes say that they are at one address.
    SharedAddress,
    /// One node does not reach another that others reach.
    BlockedLink,
    /// It routes by an older topology than the one in force.
    HeldBackView,
    /// Its records are older than they should be.
    Stale,
    /// Its records are not what they should be at its revision.
    DigestDiffers,
    /// It refused what it was sent, or said itself that something is wrong.
    Refused,
}

impl Fault {
    pub const ALL: [Fault; 11] = [
        Fault::Dead,
        Fault::OtherVersion,
        Fault::Away,
        Fault::Deaf,
        Fault::WrongAddress,
        Fault::SharedAddress,
        Fault::BlockedLink,
        Fault::HeldBackView,
        Fault::Stale,
        Fault::DigestDiffers,
        Fault::Refused,
    ];

    /// Whether it is about members and the ways to them.
    pub fn is_of_view(self) -> bool {
        match self {
            Fault::WrongAddress
            | Fault::SharedAddress
            | Fault::BlockedLink
            | Fault::HeldBackView => true,
            Fault::Dead
            | Fault::OtherVersion
            | Fault::Away
            | Fault::Deaf
            | Fault::Stale
            | Fault::DigestDiffers
            | Fault::Refused => false,
        }
    }

    /// The word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Dead => "dead",
            Fault::OtherVersion => "other-version",
            Fault::Away => "away",
            Fault::Deaf => "deaf",
            Fault::WrongAddress => "wrong-address",
            Fault::SharedAddress => "shared-address",
            Fault::BlockedLink => "blocked-link",
            Fault::HeldBackView => "held-back-view",
            Fault::Stale => "stale",
            Fault::DigestDiffers => "digest-differs",
            Fault::Refused => "refused",
        }
    }
}

/// One fault, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub fault: Fault,
    /// Where it is.
    pub node: NodeName,
    /// Towards whom, for a link.
    pub other: Option<NodeName>,
    pub what: String,
    pub advice: String,
}

/// Everything that is wrong with these nodes, the most likely causes first.
pub fn diagnose(
    (revision, digest): (Revision, SetDigest),
    announced: &Announced,
    rules: &ClusterRules,
    nodes: &BTreeMap<NodeName, Patient>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, node) in nodes {
        own_faults(&mut findings, (revision, digest), announced, rules, name, node);
    }
    shared_addresses(&mut findings, nodes);
    if let Some(prepared) = &announced.prepared {
        // Its links come first: the topology in force may be as it was and yet nothing move on.
        links(&mut findings, prepared, nodes, |node| {
            node.prepared.filter(|(epoch, _)| *epoch == prepared.epoch()).map(|(_, links)| links)
        });
    }
    if let Some(committed) = &announced.committed {
        links(&mut findings, committed, nodes, |node| {
            let report = node.report.filter(|it| it.epoch == committed.epoch());
            report.map(|report| report.connected)
        });
    }
    findings.sort_by(|a, b| (a.fault, &a.node, &a.other).cmp(&(b.fault, &b.node, &b.other)));
    findings.dedup_by(|a, b| (a.fault, &a.node, &a.other) == (b.fault, &b.node, &b.other));
    findings
}

/// What a node's own words and silence say.
fn own_faults(
    findings: &mut Vec<Finding>,
    (revision, digest): (Revision, SetDigest),
    announced: &Announced,
    rules: &ClusterRules,
    name: &NodeName,
    node: &Patient,
) {
    let mut found = |fault, what: String, advice: String| {
        findings.push(Finding { fault, node: name.clone(), other: None, what, advice });
    };
    if let Some(address) = node.peers.filter(|it| !rules.networks.contain(it.ip())) {
        let what =
            format!("says that it is at {address}, which is in none of the cluster's networks");
        let advice = format!(
            "nodes connect to addresses in {} only: start it with --peers-listen or --advertise on \
             one of these, or set cluster_networks",
            rules.networks
        );
        found(Fault::WrongAddress, what, advice);
    }
    if !node.is_connected {
        let (fault, what, advice) = match (node.dead_for, &node.other_version) {
            (Some(dead_for), _) => {
                let seconds = dead_for.as_secs();
                let hold_down = rules.failover.hold_down;
                let held = hold_down.as_secs();
                let advice = if dead_for < hold_down {
                    format!("start it again; after {held} s its slots may go to the others, empty")
                } else {
                    format!(
                        "start it again, or give its slots to the others, empty: larder node remove \
                         {name}; or let another machine take its place: larder node replace {name}"
                    )
                };
                (Fault::Dead, format!("nobody listens at its addresses, for {seconds} s"), advice)
            }
            (None, Some(refusal)) => {
                let advice = "it goes on serving by what it has, and hears of no change: have both be \
                              programs that follow one another";
                (Fault::OtherVersion, format!("is turned away: {refusal}"), advice.to_owned())
            }
            (None, None) => {
                let advice = "it goes on serving by what it has; look at its log and at the network \
                              from its machine to this one";
                (Fault::Away, "is not connected to control".to_owned(), advice.to_owned())
            }
        };
        return found(fault, what, advice);
    }
    for trouble in &node.troubles {
        let (fault, advice) = match trouble {
            Trouble::Deaf => (Fault::Deaf, "its process may be stopped or its machine overloaded"),
            Trouble::Behind => (Fault::Stale, "its disk or network is slow; look at its log"),
            Trouble::DigestDiffers { .. } => (
                Fault::DigestDiffers,
                "it is being given a snapshot; if that repeats, its memory or disk fails",
            ),
            Trouble::Refused(_) => {
                (Fault::Refused, "if it is right what it refuses: larder cluster snapshot NODE")
            }
        };
        found(fault, trouble.to_string(), advice.replace("NODE", name.as_str()));
    }
    let Some(report) = &node.report else { return };
    let follows = node.committed.unwrap_or(report.epoch).max(report.epoch);
    if let Some(committed) = &announced.committed
        && follows < committed.epoch()
    {
        let what = format!("routes by epoch {follows}, while {} is in force", committed.epoch());
        let advice = "what it asks others costs a hop more until it has caught up; if it stays so, \
                      look at its log for what it refused";
        found(Fault::HeldBackView, what, advice.to_owned());
    }
    if report.revision == revision && report.digest != digest {
        let what = format!("its records at revision {revision} are not those of control");
        let advice = format!("larder cluster snapshot {name}");
        found(Fault::DigestDiffers, what, advice);
    }
    let alarms: Vec<_> = report.alarms.names().collect();
    if !alarms.is_empty() {
        let what = format!("reports: {}", alarms.join(", "));
        found(Fault::Refused, what, "look at its log".to_owned());
    }
}

fn shared_addresses(findings: &mut Vec<Finding>, nodes: &BTreeMap<NodeName, Patient>) {
    let mut at: BTreeMap<SocketAddr, &NodeName> = BTreeMap::new();
    for (name, node) in nodes.iter().filter(|(_, node)| node.is_connected) {
        let Some(address) = node.peers else { continue };
        if let Some(first) = at.insert(address, name) {
            findings.push(Finding {
                fault: Fault::SharedAddress,
                node: first.clone(),
                other: Some(name.clone()),
                what: format!("says that it is at {address}, and so does {name}"),
                advice: "one of them has a wrong --advertise or --peers-listen".to_owned(),
            });
        }
    }
}

/// Who does not reach whom, by what each says of its links to the members of a topology.
fn links(
    findings: &mut Vec<Finding>,
    topology: &Topology,
    nodes: &BTreeMap<NodeName, Patient>,
    links_of: impl Fn(&Patient) -> Option<MemberSet>,
) {
    let mut targets: Vec<(&NodeName, SocketAddr)> =
        topology.members().iter().map(|member| (&member.node, member.address)).collect();
    targets.dedup();
    for (target, address) in targets {
        // Of one that is away it is known already why nobody reaches it.
        if !nodes.get(target).is_some_and(|node| node.is_connected) {
            continue;
        }
        let members: Vec<usize> = (0..topology.members().len())
            .filter(|&index| topology.members()[index].node == *target)
            .collect();
        let asked = nodes.iter().filter(|(name, node)| *name != target && node.is_connected);
        let (reaching, not_reaching): (Vec<_>, Vec<_>) = asked
            .filter_map(|(name, node)| Some((name, links_of(node)?)))
            .partition(|(_, links)| members.iter().all(|&member| links.contains(member)));
        if not_reaching.is_empty() {
            continue;
        }
        if reaching.is_empty() && (not_reaching.len() > 1 || nodes.len() == 2) {
            findings.push(Finding {
                fault: Fault::WrongAddress,
                node: target.clone(),
                other: None,
                what: format!("no other node reaches it at {address}"),
                advice: format!(
                    "if that is not where it is, start it with the right --peers-listen or \
                     --advertise; else let connections to {address} in"
                ),
            });
            continue;
        }
        for (name, _) in not_reaching {
            findings.push(Finding {
                fault: Fault::BlockedLink,
                node: name.clone(),
                other: Some(target.clone()),
                what: format!("does not reach {target} at {address}, which others do"),
                advice: format!("let connections from {name} to {address} through"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::member::{Incarnation, MemberName, Weight};
    use cluster::scheme::Scheme;
    use wire::control::message::{Alarms, Reason};
    use wire::control::topology::{Placement, TopologyMember};

    use super::*;

    #[test]
    fn a_healthy_cluster_has_no_findings() {
        let (announced, nodes) = three();
        check(&announced, &nodes, &[]);
    }

    #[test]
    fn a_blocked_link_is_one_pair_and_a_wrong_address_is_everyones() {
        let (announced, mut nodes) = three();
        lose_link(&mut nodes, "a", 1);
        check(&announced, &nodes, &[(Fault::BlockedLink, "a", Some("b"))]);
        lose_link(&mut nodes, "c", 1);
        check(&announced, &nodes, &[(Fault::WrongAddress, "b", None)]);
    }

    #[test]
    fn an_address_that_is_not_private_is_wrong_before_anyone_tries_it() {
        let (announced, mut nodes) = three();
        nodes.get_mut(&name("c")).expect("there").peers = Some(([203, 0, 113, 5], 1).into());
        check(&announced, &nodes, &[(Fault::WrongAddress, "c", None)]);
    }

    #[test]
    fn links_that_an_epoch_waits_for_are_named() {
        let (mut announced, mut nodes) = three();
        let prepared = topology(8);
        for node in nodes.values_mut() {
            node.prepared = Some((prepared.epoch(), MemberSet::first(3)));
        }
        announced.prepared = Some(Arc::new(prepared));
        check(&announced, &nodes, &[]);
        let mut links = MemberSet::first(2);
        nodes.get_mut(&name("a")).expect("there").prepared = Some((Epoch::new(8), links));
        check(&announced, &nodes, &[(Fault::BlockedLink, "a", Some("c"))]);
        links.insert(2);
        nodes.get_mut(&name("a")).expect("there").prepared = Some((Epoch::new(8), links));
        check(&announced, &nodes, &[]);
    }

    #[test]
    fn views_and_records_that_are_old_and_nodes_that_are_gone_are_told_apart() {
        let (announced, mut nodes) = three();
        let report = nodes[&name("a")].report.expect("it reports");
        nodes.get_mut(&name("a")).expect("there").report =
            Some(Report { epoch: Epoch::new(6), ..report });
        check(&announced, &nodes, &[(Fault::HeldBackView, "a", None)]);
        nodes.get_mut(&name("b")).expect("there").troubles = vec![Trouble::Behind, Trouble::Deaf];
        nodes.insert(name("c"), Patient { dead_for: Some(Duration::ZERO), ..Patient::default() });
        let expected = [
            (Fault::Dead, "c", None),
            (Fault::Deaf, "b", None),
            (Fault::HeldBackView, "a", None),
            (Fault::Stale, "b", None),
        ];
        check(&announced, &nodes, &expected);
        nodes.insert(name("c"), Patient::default());
        check(&announced, &nodes, &[&[(Fault::Away, "c", None)], &expected[1..]].concat());
        let refusal = Refusal::new(Reason::Version, "versions 3 to 4 here, 1 to 1 there");
        let other_version = Some(refusal);
        nodes.insert(name("c"), Patient { other_version, ..Patient::default() });
        let expected = [&[(Fault::OtherVersion, "c", None)], &expected[1..]].concat();
        check(&announced, &nodes, &expected);
    }

    #[test]
    fn two_nodes_at_one_address_are_named() {
        let (announced, mut nodes) = three();
        nodes.get_mut(&name("b")).expect("there").peers = nodes[&name("a")].peers;
        check(&announced, &nodes, &[(Fault::SharedAddress, "a", Some("b"))]);
    }

    #[track_caller]
    fn check(
        announced: &Announced,
        nodes: &BTreeMap<NodeName, Patient>,
        expected: &[(Fault, &str, Option<&str>)],
    ) {
        let findings = diagnose((REVISION, DIGEST), announced, &ClusterRules::default(), nodes);
        let found: Vec<_> = findings
            .iter()
            .map(|it| (it.fault, it.node.as_str(), it.other.as_ref().map(NodeName::as_str)))
            .collect();
        assert_eq!(found, expected, "{findings:#?}");
    }

    const REVISION: Revision = Revision::new(5);
    const DIGEST: SetDigest = SetDigest::EMPTY;

    fn lose_link(nodes: &mut BTreeMap<NodeName, Patient>, who: &str, member: usize) {
        let report = nodes.get_mut(&name(who)).and_then(|it| it.report.as_mut());
        let mut left = MemberSet::NONE;
        (0..3).filter(|&index| index != member).for_each(|index| left.insert(index));
        report.expect("it reports").connected = left;
    }

    fn three() -> (Announced, BTreeMap<NodeName, Patient>) {
        let topology = topology(7);
        let nodes = topology.members().iter().map(|member| {
            let report = Report {
                revision: REVISION,
                digest: DIGEST,
                durable: REVISION,
                epoch: topology.epoch(),
                connected: MemberSet::first(3),
                caches: 0,
                credentials: 0,
                alarms: Alarms::NONE,
            };
            let patient = Patient {
                is_connected: true,
                acknowledged: REVISION,
                report: Some(report),
                peers: Some(member.address),
                ..Patient::default()
            };
            (member.node.clone(), patient)
        });
        let nodes = nodes.collect();
        let settled = topology.epoch();
        let committed = Some(Arc::new(topology));
        (Announced { committed, settled, ..Announced::default() }, nodes)
    }

    fn topology(epoch: u64) -> Topology {
        let members = ["a", "b", "c"].into_iter().zip(1..).map(|(text, number)| TopologyMember {
            name: MemberName::parse(&format!("{text}.b0")).expect("a good name"),
            node: name(text),
            incarnation: Incarnation::new(1),
            address: ([10, 0, 0, number], 7).into(),
            weight: Weight::new(1),
        });
        let placement = Placement::Scheme(Scheme::Maglev);
        Topology::new(Epoch::new(epoch), [1; 16], members.collect(), placement).expect("good")
    }

    fn name(name: &str) -> NodeName {
        NodeName::parse(name).expect("a good name")
    }
}
