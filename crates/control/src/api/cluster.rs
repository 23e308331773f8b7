//! `/v1/cluster` and `/v1/nodes`: what the nodes have, who may join, who must go.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use wire::control::name::NodeName;

use super::Api;
use super::handlers::Answer;
use super::problem::Refusal;
use super::request::Body;
use crate::contract::{ClusterStatusView, NodeStatusView, PushedView, TokenView};
use crate::push::PushControl;
use crate::push::fleet::FleetNode;

pub(super) async fn status(State(api): State<Api>) -> Answer<ClusterStatusView> {
    Ok(Json(push(&api)?.status()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MakeToken {
    /// The one node that may join with it, also when it is there already.
    name: Option<String>,
    /// How long it is good.
    seconds: Option<u64>,
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

pub(super) async fn remove_node(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    let push = push(&api)?;
    let name = parse_name(&name)?;
    let removed = push.remove(name.clone()).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "node not removed");
        Refusal::Broken
    })?;
    if removed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refusal::UnknownPath { path: format!("/v1/nodes/{name}") })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushSnapshot {
    /// Only to this node.
    node: Option<String>,
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

fn push(api: &Api) -> Result<&Arc<PushControl>, Refusal> {
    api.settings.push.as_ref().ok_or_else(|| {
        Refusal::BadRequest("this Larder serves by itself and has no nodes".to_owned())
    })
}

fn parse_name(name: &str) -> Result<NodeName, Refusal> {
    NodeName::parse(name).map_err(|error| Refusal::BadRequest(error.to_string()))
}

impl PushControl {
    fn status(&self) -> ClusterStatusView {
        let (revision, digest) = self.publisher.head();
        let announced = self.announced.borrow().clone();
        let (caches, credentials) = self.publisher.counts();
        let nodes = self.fleet.nodes();
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
            nodes: nodes.iter().map(|(name, node)| view(name, node, revision.get())).collect(),
        }
    }
}

fn view(name: &NodeName, node: &FleetNode, head: u64) -> NodeStatusView {
    let address = |at: Option<core::net::SocketAddr>| at.map(|at| at.to_string());
    let has = node.acknowledged.get();
    let mut alarms = Vec::new();
    match &node.link {
        None => alarms.push("disconnected".to_owned()),
        Some(link) => alarms.extend(link.troubles.iter().map(ToString::to_string)),
    }
    let report = node.report.filter(|_| node.link.is_some());
    alarms.extend(report.iter().flat_map(|it| it.alarms.names()).map(str::to_owned));
    NodeStatusView {
        name: name.to_string(),
        connected: node.link.is_some(),
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
