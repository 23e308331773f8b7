//! The JSON of the control API: what it says and what it takes. The command line reads the same
//! types, so the two cannot drift apart.
//!
//! Answers may gain fields; whoever reads them ignores what he does not know. Requests refuse
//! unknown fields, so that a misspelt wish is not silently left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tenancy::capability::Capability;
use tenancy::id::CacheId;
use tenancy::plan::Plan;
use tenancy::rules::Open;
use tenancy::secret::Secret;
use utoipa::ToSchema;
use wire::control::inquiry::Sizes;
use wire::control::record::Revision;
use wire::control::topology::TopologyMember;

use crate::applied::Progress;
use crate::database::{AuditEntry, OutboxEntry, Webhook};
use crate::model::{Cache, Cluster, Credential, Issued, Operator};
use crate::rules::KeptRule;
use crate::series::latency::LatencyPoint;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CacheView {
    pub id: u64,
    /// Of the cluster that serves it.
    #[serde(default)]
    pub cluster: u64,
    pub name: String,
    pub plan: String,
    pub memory_bytes: u64,
    /// Key and value together.
    pub item_bytes_max: u32,
    pub connections_max: u32,
    /// At each proxy; 0 is no limit.
    #[serde(default)]
    pub operations_per_second: u64,
    /// From and to clients, at each proxy; 0 is no limit.
    #[serde(default)]
    pub bytes_per_second: u64,
    pub enabled: bool,
    /// `host:port` of each proxy: the value of `MEMCACHIER_SERVERS`, before joining with commas.
    pub servers: Vec<String>,
    pub primary_username: String,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Opens the cache's dashboard, for whoever has it. Only where passwords are shown, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard_url: Option<String>,
    /// Absent where many caches are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Vec<CredentialView>>,
}

impl CacheView {
    pub(crate) fn new(cache: &Cache, servers: &[String]) -> Self {
        let limits = cache.limits();
        CacheView {
            id: cache.id.get(),
            cluster: cache.cluster.0,
            name: cache.name.to_string(),
            plan: cache.plan.name.to_owned(),
            memory_bytes: limits.memory_bytes,
            item_bytes_max: limits.item_bytes_max,
            connections_max: limits.connections_max,
            operations_per_second: limits.rates.operations_per_second,
            bytes_per_second: limits.rates.bytes_per_second,
            enabled: cache.enabled,
            servers: servers.to_vec(),
            primary_username: cache.primary.to_string(),
            created_at: cache.created_at.0,
            dashboard_url: None,
            credentials: None,
        }
    }

    pub(crate) fn with(self, credentials: Vec<CredentialView>) -> Self {
        CacheView { credentials: Some(credentials), ..self }
    }

    pub(crate) fn with_dashboard(self, url: String) -> Self {
        CacheView { dashboard_url: Some(url), ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialView {
    pub username: String,
    /// Only for a new credential, or when asked for with `?passwords=true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Names of capabilities; none means read-only.
    pub capabilities: Vec<String>,
    pub primary: bool,
    /// Unix time in seconds.
    pub created_at: u64,
}

impl CredentialView {
    pub(crate) fn without_password(credential: &Credential) -> Self {
        CredentialView {
            username: credential.username.to_string(),
            password: None,
            capabilities: credential.capabilities.iter().map(|one| one.name().to_owned()).collect(),
            primary: credential.primary,
            created_at: credential.created_at.0,
        }
    }

    pub(crate) fn with_password(issued: &Issued) -> Self {
        let password = Some(issued.secret.reveal().to_owned());
        CredentialView { password, ..CredentialView::without_password(&issued.credential) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CachesView {
    pub caches: Vec<CacheView>,
    /// There are more: ask again with `?after=` this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialsView {
    pub credentials: Vec<CredentialView>,
}

/// Where a credential belongs, for who knows only the username.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnerView {
    pub cache: u64,
    pub name: String,
    pub credential: CredentialView,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatisticsView {
    pub cache: u64,
    pub name: String,
    /// Counters and gauges under memcached's names.
    pub statistics: BTreeMap<String, u64>,
}

/// What a cache did over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SeriesView {
    pub cache: u64,
    pub name: String,
    /// What each point stands for.
    pub step_seconds: u64,
    pub points: Vec<PointView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PointView {
    /// Unix time in seconds at which it begins.
    pub at: u64,
    /// By name; null where there was nothing to measure.
    pub values: BTreeMap<String, Option<f64>>,
}

/// How long requests took at each proxy, all caches together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LatencyView {
    pub cache: u64,
    pub name: String,
    /// What each point stands for.
    pub step_seconds: u64,
    pub servers: Vec<ServerLatencyView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerLatencyView {
    /// `host:port`, as clients reach it.
    pub server: String,
    /// Of the times in which anything was measured, the oldest first.
    pub points: Vec<LatencyPointView>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LatencyPointView {
    /// Unix time in seconds at which it begins.
    pub at: u64,
    /// Requests that were measured: a sample.
    pub measured: u64,
    /// Half of them took no longer than this, in nanoseconds.
    pub p50_ns: u64,
    pub p95_ns: u64,
    pub p99_ns: u64,
}

impl LatencyPointView {
    pub(crate) fn new(point: &LatencyPoint) -> Self {
        let within = |part| point.histogram.quantile(part).unwrap_or(0);
        LatencyPointView {
            at: point.at,
            measured: point.histogram.total(),
            p50_ns: within(0.5),
            p95_ns: within(0.95),
            p99_ns: within(0.99),
        }
    }
}

/// What a cache would hit if it were larger or smaller, estimated from a sample of its requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SizesView {
    pub cache: u64,
    pub name: String,
    /// Lookups that the estimate stands for, recent ones more than old ones; 0 until the cache has
    /// been looked at for a while.
    pub lookups: u64,
    /// By size; empty while nothing is known.
    pub sizes: Vec<SizeView>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SizeView {
    /// Of the plan's memory: 200 is twice as much.
    pub percent: u32,
    pub memory_bytes: u64,
    /// The part of all lookups that would be hits, 0 to 1.
    pub hit_rate: f64,
}

impl SizesView {
    pub(crate) fn new(cache: &Cache, sizes: &Sizes) -> Self {
        let limit = cache.plan.limits.memory_bytes;
        let size = |&(percent, hits): &(u32, u64)| SizeView {
            percent,
            memory_bytes: limit.saturating_mul(percent.into()) / 100,
            hit_rate: (hits as f64 / sizes.requests.max(1) as f64).min(1.0),
        };
        SizesView {
            cache: cache.id.get(),
            name: cache.name.to_string(),
            lookups: sizes.requests,
            sizes: sizes.hits.iter().map(size).collect(),
        }
    }
}

impl MemberView {
    pub(crate) fn new((member, share): (&TopologyMember, f64)) -> Self {
        MemberView {
            name: member.name.to_string(),
            node: member.node.to_string(),
            address: member.address.to_string(),
            weight: member.weight.get(),
            share,
        }
    }
}

/// How far each node of the cluster has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterStatusView {
    /// The id that is in every node's identity.
    pub cluster: String,
    /// The newest there is.
    pub revision: u64,
    /// Of all records at that revision.
    pub digest: String,
    pub caches: usize,
    pub credentials: usize,
    /// Of the topology in force; 0 before the first.
    pub epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preparing_epoch: Option<u64>,
    /// The newest epoch that every node routes by.
    pub settled_epoch: u64,
    /// Backends of the topology in force.
    #[serde(default)]
    pub members: Vec<MemberView>,
    pub nodes: Vec<NodeStatusView>,
}

/// One backend of a topology.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    pub name: String,
    pub node: String,
    pub address: String,
    /// What it owns is in proportion to it; its memory in MiB unless an operator has said otherwise.
    pub weight: u32,
    /// The part of all slots that it owns, 0 to 1.
    pub share: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatusView {
    pub name: String,
    pub connected: bool,
    /// Which run of its process; absent before it has connected to this control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients_tls: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<String>,
    /// The newest that it has acknowledged.
    pub revision: u64,
    /// Of its own records, as it has summed them up within the last second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Revisions that it lacks.
    pub behind: u64,
    /// That it routes by.
    pub epoch: u64,
    /// Members of that epoch that it has a link to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms_ago: Option<u64>,
    /// Everything that is wrong with it; empty when nothing is.
    pub alarms: Vec<String>,
}

/// Everything that is wrong with a cluster; empty when nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiagnosisView {
    pub findings: Vec<FindingView>,
}

/// One fault: where it is, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindingView {
    /// One of `dead`, `other-version`, `away`, `deaf`, `wrong-address`, `shared-address`, `blocked-link`,
    /// `held-back-view`, `stale`, `digest-differs`, `refused`.
    pub fault: String,
    pub node: String,
    /// The other end, where the fault is between two nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    pub what: String,
    pub advice: String,
}

/// What shall become of members.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMembers {
    /// Weights by member, or by node for all of its members; 0 drains.
    #[serde(default)]
    pub weights: BTreeMap<String, u32>,
    /// Nodes to be forgotten, whose slots begin empty with the others.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Make every node check every link anew.
    #[serde(default)]
    pub refresh_links: bool,
    /// Only say what it would mean.
    #[serde(default)]
    pub preview: bool,
    /// An operator knows that the removed nodes' processes have ended.
    #[serde(default)]
    pub processes_ended: bool,
}

/// What a change of members means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MembersPlanView {
    /// The epoch in force when this was worked out; the change is done with a later one.
    pub epoch: u64,
    /// The part of all slots that moves, 0 to 1. Their items are lost.
    pub share_moved: f64,
    /// The part that must move, whatever the rule of placement.
    pub share_moved_min: f64,
    /// The members once it is done.
    pub members: Vec<MemberView>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeToken {
    /// The one node that may join with it, also when it is there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushSnapshot {
    /// Only to this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What a node joins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    pub token: String,
    /// Unix time in seconds.
    pub expires_at: u64,
}

/// How many nodes are given a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushedView {
    pub nodes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    pub name: String,
    pub memory_bytes: u64,
    pub item_bytes_max: u32,
    pub connections_max: u32,
}

impl PlanView {
    pub(crate) fn new(plan: &Plan) -> Self {
        PlanView {
            name: plan.name.to_owned(),
            memory_bytes: plan.limits.memory_bytes,
            item_bytes_max: plan.limits.item_bytes_max,
            connections_max: plan.limits.connections_max,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlansView {
    pub plans: Vec<PlanView>,
}

/// How fast a cache may be used at each proxy; what is absent stays, and 0 is no limit.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitRates {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCache {
    /// Without one the cache gets a name made up for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `dev` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Name of the cluster that shall serve it; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    pub id: u64,
    pub name: String,
    /// Of its newest change.
    pub revision: u64,
    /// Unix time in seconds.
    pub created_at: u64,
}

impl ClusterView {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        ClusterView {
            id: cluster.id.0,
            name: cluster.name.to_string(),
            revision: cluster.revision.get(),
            created_at: cluster.created_at.0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClustersView {
    pub clusters: Vec<ClusterView>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCluster {
    pub name: String,
}

/// A rule for addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleView {
    pub id: u64,
    pub cluster: u64,
    /// Absent where it is for every connection to the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_name: Option<String>,
    /// An address, or a network with its prefix.
    pub network: String,
    /// `block` or `allow`.
    pub ruling: String,
    pub reason: String,
    pub made_by: String,
    /// Unix time in seconds.
    pub made_at: u64,
    /// Unix time in seconds from which on it holds nobody.
    pub expires_at: u64,
}

impl RuleView {
    pub(crate) fn new(kept: &KeptRule) -> Self {
        let rule = &kept.rule;
        RuleView {
            id: rule.id.0,
            cluster: kept.cluster.0,
            cache: rule.cache.map(CacheId::get),
            cache_name: kept.cache.as_ref().map(ToString::to_string),
            network: rule.network.to_string(),
            ruling: rule.ruling.name().to_owned(),
            reason: kept.reason.clone(),
            made_by: kept.made_by.clone(),
            made_at: kept.made_at.0,
            expires_at: rule.expires_at,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RulesView {
    pub rules: Vec<RuleView>,
    /// There are more: ask again with `?after=` this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
}

/// A rule to be made. One for the same network and the same connections is changed.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutRule {
    /// `203.0.113.7`, `203.0.113.0/24`, `2001:db8::/32`.
    pub network: String,
    /// `block` when absent, or `allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruling: Option<String>,
    /// Name or id of the cache whose clients are meant; all clients of the cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Name of the cluster, where no cache is named; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Why, for those who find it.
    pub reason: String,
    /// How long it lasts: an hour when absent. At most an hour for a cluster, a year for a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Although it is very wide, or cuts off open connections.
    #[serde(default)]
    pub force: bool,
}

/// Whom a change of the rules would cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RulePreviewView {
    /// Open connections that would be closed.
    pub connections: u64,
    /// How many caches they are of; 1000 may be more.
    pub caches_total: usize,
    /// Those that would lose most; 100 at most.
    pub caches: Vec<CutCacheView>,
    /// Where they come from, most connections first; 100 at most.
    pub clients: Vec<CutClientView>,
    /// How many nodes have answered.
    pub nodes: usize,
    /// Those that have not, so that nobody knows whom it would cut off there.
    pub silent_nodes: Vec<String>,
    /// Why it would be refused without `force`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutCacheView {
    pub cache: u64,
    /// Absent when it has just been deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub connections: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutClientView {
    pub address: String,
    /// Absent before they have authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<u64>,
    pub connections: u32,
}

impl CutClientView {
    pub(crate) fn new(open: &Open) -> Self {
        CutClientView {
            address: open.address.to_string(),
            cache: open.cache.map(CacheId::get),
            connections: open.connections,
        }
    }
}

/// Someone who may log in at the dashboard and see everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatorView {
    pub name: String,
    /// Unix time in seconds.
    pub created_at: u64,
}

impl OperatorView {
    pub(crate) fn new(operator: &Operator) -> Self {
        OperatorView { name: operator.name.to_string(), created_at: operator.created_at.0 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatorsView {
    pub operators: Vec<OperatorView>,
}

/// An operator to be added, or to be given another password.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutOperator {
    pub name: String,
    pub password: String,
}

/// Who did what. Fields that do not apply are null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    pub id: u64,
    /// Unix time in seconds.
    pub at: u64,
    pub actor: String,
    pub action: String,
    pub cluster: Option<u64>,
    pub cache: Option<u64>,
    /// As it was then.
    pub cache_name: Option<String>,
    pub username: Option<String>,
    pub detail: String,
    /// Of the change that it made for the cluster's nodes.
    pub revision: Option<u64>,
}

impl AuditView {
    pub(crate) fn new(entry: AuditEntry) -> Self {
        let AuditEntry { id, at, actor, action, cluster, cache, .. } = entry;
        let AuditEntry { cache_name, username, detail, revision, .. } = entry;
        let at = at.0;
        AuditView { id, at, actor, action, cluster, cache, cache_name, username, detail, revision }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditsView {
    pub audit: Vec<AuditView>,
}

/// Someone who hears of every change of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookView {
    pub id: u64,
    pub url: String,
    /// What its calls are signed with; shown only when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Unix time in seconds.
    pub created_at: u64,
}

impl WebhookView {
    pub(crate) fn new(webhook: &Webhook, secret: Option<&Secret>) -> Self {
        WebhookView {
            id: webhook.id,
            url: webhook.url.clone(),
            secret: secret.map(|secret| secret.reveal().to_owned()),
            created_at: webhook.created_at.0,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhooksView {
    pub webhooks: Vec<WebhookView>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutWebhook {
    pub url: String,
}

/// A call to a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallView {
    pub id: u64,
    pub url: String,
    /// The receiver tells repetitions by it.
    pub idempotency_key: String,
    /// `waiting`, `sent` or `dead`.
    pub state: String,
    pub attempts: u32,
    /// Unix time in seconds.
    pub created_at: u64,
    /// Why the last attempt failed.
    pub problem: Option<String>,
    /// As it is sent.
    pub body: String,
}

impl CallView {
    pub(crate) fn new(entry: OutboxEntry) -> Self {
        CallView {
            id: entry.id,
            url: entry.url,
            idempotency_key: entry.idempotency_key,
            state: entry.state.name().to_owned(),
            attempts: entry.attempts,
            created_at: entry.created_at.0,
            problem: entry.problem,
            body: entry.body,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallsView {
    pub calls: Vec<CallView>,
}

/// How far the nodes have come with a change: what `?wait=applied` adds to its answer, as `applied`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedView {
    pub revision: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Those of them that have the change.
    pub applied: usize,
    pub after_ms: u64,
    /// Names of nodes that do not have it; the first few.
    pub missing: Vec<String>,
}

impl AppliedView {
    pub(crate) fn new(revision: Revision, progress: &Progress) -> Self {
        AppliedView {
            revision: revision.get(),
            nodes: progress.nodes,
            applied: progress.applied,
            after_ms: u64::try_from(progress.after.as_millis()).unwrap_or(u64::MAX),
            missing: progress.missing.clone(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePlan {
    pub plan: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetEnabled {
    pub enabled: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetPrimary {
    pub username: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddCredential {
    /// Every capability when absent; an empty list makes a read-only credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capable>>,
}

/// Which capabilities to give (true) and to take away (false); those absent stay.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct ChangeCapabilities(pub BTreeMap<Capable, bool>);

/// A capability by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capable {
    Write,
    Flush,
    Api,
}

impl From<Capable> for Capability {
    fn from(capable: Capable) -> Self {
        match capable {
            Capable::Write => Capability::Write,
            Capable::Flush => Capability::Flush,
            Capable::Api => Capability::Api,
        }
    }
}

/// Why a request was refused (RFC 9457, "Problem Details for HTTP APIs").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem, for programs.
    pub r#type: String,
    /// The same for people, without particulars.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_the_same_name_in_json() {
        for capable in [Capable::Write, Capable::Flush, Capable::Api] {
            let name = Capability::from(capable).name();
            assert_eq!(serde_json::to_value(capable).expect("a word"), name);
        }
    }

    #[test]
    fn a_misspelt_wish_is_refused() {
        assert!(serde_json::from_str::<CreateCache>(r#"{"nmae": "shop"}"#).is_err());
        assert!(serde_json::from_str::<ChangeCapabilities>(r#"{"wirte": false}"#).is_err());
        assert!(serde_json::from_str::<AddCredential>(r#"{"capabilities": ["all"]}"#).is_err());
    }
}
