//! `/v1/cluster` and `/v1/nodes`: what the nodes have and what is wrong with them, who may join, and what
//! operators want of the members.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use wire::control::name::NodeName;
use wire::control::topology::Topology;

use super::Api;
use super::handlers::Answer;
use super::problem::Refusal;
use super::request::Body;
use crate::contract::{
    ChangeMembers, ClusterStatusView, DiagnosisView, FindingView, MakeToken, MemberView,
    MembersPlanView, NodeStatusView, PushSnapshot, PushedView, TokenView,
};
use crate::push::PushControl;
use crate::push::diagnosis::Finding;
use crate::push::fleet::FleetNode;
use crate::push::operate::WishError;

pub(super) async fn status(State(api): State<Api>) -> Answer<ClusterStatusView> {
    Ok(Json(push(&api)?.status()))
}

pub(super) async fn make_token(
    State(api): State<Api>,
    Body(wish): Body<MakeToken>,
) -> Result<(StatusCode, Json<TokenView>), Refusal> {
    let push = push(&api)?;
    let name = wish.name.as_deref().map(parse_name).transpose()?;
    let (token, expires_at) = push
        .token(name, wish.seconds)
        .map_err(|error| Refusal::Control(crate::error::ControlError::Random(error)))?;
    Ok((StatusCode::CREATED, Json(TokenView { token, expires_at })))
}

/// Says what a change of members means, and has it carried out unless only that was asked.
pub(super) async fn change_members(
    State(api): State<Api>,
    Body(wish): Body<ChangeMembers>,
) -> Answer<MembersPlanView> {
    Ok(Json(push(&api)?.change_members(&wish)?))
}

/// Everything that is wrong, with what to do about it.
pub(super) async fn diagnose(State(api): State<Api>) -> Answer<DiagnosisView> {
    let view = |finding: Finding| FindingView {
        fault: finding.fault.name().to_owned(),
        node: finding.node.to_string(),
        other: finding.other.map(|other| other.to_string()),
        what: finding.what,
        advice: finding.advice,
    };
    let findings = push(&api)?.diagnose().into_iter().map(view).collect();
    Ok(Json(DiagnosisView { findings }))
}

/// Has nodes take everything anew, as confirmed by a person: also what they would refuse because it
/// drops or adds so much, or because it is older than what they have.
pub(super) async fn push_snapshot(
    State(api): State<Api>,
    Body(wish): Body<PushSnapshot>,
) -> Answer<PushedView> {
    let push = push(&api)?;
    let name = wish.node.as_deref().map(parse_name).transpose()?;
    Ok(Json(PushedView { nodes: push.fleet.force(name.as_ref()) }))
}

impl From<WishError> for Refusal {
    fn from(error: WishError) -> Self {
        Refusal::BadRequest(error.to_string())
    }
}

fn push(api: &Api) -> Result<&Arc<PushControl>, Refusal> {
    api.settings.push.as_ref().ok_or_else(|| {
        Refusal::BadRequest("this Larder serves by itself and has no nodes".to_owned())
    })
}

fn parse_name(name: &str) -> Result<NodeName, Refusal> {
    NodeName::parse(name).map_err(|error| Refusal::BadRequest(error.to_string()))
}

impl PushControl {
    pub(crate) fn status(&self) -> ClusterStatusView {
        let (revision, digest) = self.publisher.head();
        let announced = self.announced.borrow().clone();
        let (caches, credentials) = self.publisher.counts();
        let nodes = self.fleet.nodes();
        let findings = self.diagnose();
        ClusterStatusView {
            cluster: self.authority.cluster().to_string(),
            revision: revision.get(),
            digest: digest.to_string(),
            caches,
            credentials,
            epoch: announced.committed.as_ref().map_or(0, |it| it.epoch().get()),
            epoch_digest: announced.committed.as_ref().map(|it| it.digest().to_string()),
            preparing_epoch: announced.prepared.as_ref().map(|it| it.epoch().get()),
            settled_epoch: announced.settled.get(),
            members: announced.committed.as_deref().map_or_else(Vec::new, members),
            nodes: nodes
                .iter()
                .map(|(name, node)| view(name, node, revision.get(), &findings))
                .collect(),
        }
    }
}

fn members(topology: &Topology) -> Vec<MemberView> {
    topology.members().iter().zip(topology.map().table().shares()).map(MemberView::new).collect()
}

fn view(name: &NodeName, node: &FleetNode, head: u64, findings: &[Finding]) -> NodeStatusView {
    let address = |at: Option<core::net::SocketAddr>| at.map(|at| at.to_string());
    let has = node.acknowledged.get();
    let mut alarms = Vec::new();
    match (node.session(), &node.other_version) {
        (Some(link), _) => alarms.extend(link.troubles.iter().map(ToString::to_string)),
        (None, Some(refusal)) => alarms.push(format!("turned away: {refusal}")),
        (None, None) => alarms.push("disconnected".to_owned()),
    }
    let report = node.report.filter(|_| node.session().is_some());
    alarms.extend(report.iter().flat_map(|it| it.alarms.names()).map(str::to_owned));
    // What only a comparison shows; the rest is among the alarms above.
    let compared = findings.iter().filter(|it| it.node == *name && it.fault.is_of_view());
    alarms.extend(compared.map(|it| format!("{}: {}", it.fault.name(), it.what)));
    NodeStatusView {
        name: name.to_string(),
        connected: node.session().is_some(),
        incarnation: node.incarnation().map(|it| it.to_string()),
        clients: address(node.addresses().clients),
        clients_tls: address(node.addresses().clients_tls),
        peers: address(node.addresses().peers),
        revision: has,
        digest: report.map(|it| it.digest.to_string()),
        behind: head.saturating_sub(has),
        epoch: report.map_or(0, |it| it.epoch.get()),
        links: report.map(|it| it.connected.count()),
        heard_ms_ago: node.heard_at.map(|at| {
            u64::try_from(Instant::now().saturating_duration_since(at).as_millis())
                .unwrap_or(u64::MAX)
        }),
        alarms,
    }
}
