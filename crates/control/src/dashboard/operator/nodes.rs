//! What the nodes of the cluster have, and what is wrong with them.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::{OperatorFrame, frame};
use crate::contract::{ClusterStatusView, MemberView, NodeStatusView};
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::LoggedIn;
use crate::dashboard::units;

#[derive(Template)]
#[template(path = "operator_nodes.html")]
struct NodesPage {
    frame: Frame,
    operator: OperatorFrame,
    /// `None` where this process serves by itself.
    cluster: Option<Cluster>,
}

struct Cluster {
    revision: String,
    digest: String,
    records: String,
    epoch: String,
    nodes: Vec<Node>,
    members: Vec<Member>,
    findings: Vec<Finding>,
}

struct Node {
    name: String,
    alarms: Vec<String>,
    clients: String,
    revision: String,
    lag: String,
    digest: String,
    epoch: u64,
}

struct Member {
    name: String,
    node: String,
    address: String,
    weight: String,
    share: String,
}

struct Finding {
    /// The node, and for a link the one at its other end.
    whom: String,
    what: String,
    advice: String,
}

/// Of a digest: enough to see that two differ.
const DIGEST_LETTERS: usize = 12;

impl Node {
    fn new(node: NodeStatusView) -> Self {
        Node {
            name: node.name,
            alarms: node.alarms,
            clients: node.clients.unwrap_or_else(|| "–".to_owned()),
            revision: units::grouped(node.revision),
            lag: units::grouped(node.behind),
            digest: node
                .digest
                .map_or("–".to_owned(), |digest| digest.chars().take(DIGEST_LETTERS).collect()),
            epoch: node.epoch,
        }
    }
}

impl Member {
    fn new(member: MemberView) -> Self {
        Member {
            name: member.name,
            node: member.node,
            address: member.address,
            weight: units::grouped(member.weight.into()),
            share: format!("{} %", units::three_digits(member.share * 100.0)),
        }
    }
}

impl Cluster {
    fn new(status: ClusterStatusView, findings: Vec<Finding>) -> Self {
        let preparing = status.preparing_epoch.map(|epoch| format!(", preparing {epoch}"));
        Cluster {
            revision: units::grouped(status.revision),
            digest: status.digest,
            records: format!(
                "{} caches, {} credentials",
                units::grouped(status.caches as u64),
                units::grouped(status.credentials as u64)
            ),
            epoch: format!(
                "{}{}; every node is at {} or later",
                status.epoch,
                preparing.unwrap_or_default(),
                status.settled_epoch
            ),
            nodes: status.nodes.into_iter().map(Node::new).collect(),
            members: status.members.into_iter().map(Member::new).collect(),
            findings,
        }
    }
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    who: LoggedIn,
) -> Result<Response, Failure> {
    let push = dashboard.api.settings.push.clone();
    let looked = dashboard.call(move |_| {
        Ok(push.map(|push| {
            let findings = push.diagnose().into_iter();
            let findings = findings.map(|it| {
                let other = it.other.map(|other| format!(" and {other}")).unwrap_or_default();
                let whom = format!("{}{other}", it.node);
                Finding { whom, what: it.what, advice: it.advice }
            });
            Cluster::new(push.status(), findings.collect())
        }))
    });
    let cluster = looked.await?;
    let (frame, operator) = (frame(&who, "Nodes"), OperatorFrame::new(&who, "nodes"));
    Ok(render(&NodesPage { frame, operator, cluster }))
}
