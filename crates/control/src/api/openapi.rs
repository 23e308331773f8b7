//! The OpenAPI document of `/v1`: schemas from the types of [`crate::contract`], operations from one
//! table.
//!
//! A test asks the router for every operation of the table. What owners may use is read from it, too.

use axum::Json;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::contract;

/// Who may ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Operators,
    /// And the owner of the cache, by one of its credentials with the `api` capability.
    Owners,
}

/// What an operation is asked with beside its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum With {
    /// A page: `after` and `limit`.
    Page,
    /// `passwords=true`.
    Passwords,
    /// `after`, `limit` and `newest=true`.
    Lines,
    /// `Idempotency-Key`, `wait=applied` and `timeout`.
    Write,
    /// `Idempotency-Key` only: nodes do not hear of it.
    Once,
    /// `state` and `limit`.
    Calls,
    /// `names`, `from` and `to`.
    Range,
    /// `from` and `to`.
    Times,
}

pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    summary: &'static str,
    pub(super) who: Who,
    with: &'static [With],
    /// Schema of the body, if it takes one.
    body: Option<&'static str>,
    /// Status of success, and the schema of its body.
    answer: (u16, Option<&'static str>),
}

const fn operation(
    method: &'static str,
    path: &'static str,
    who: Who,
    summary: &'static str,
    answer: (u16, Option<&'static str>),
) -> Operation {
    Operation { method, path, summary, who, with: &[], body: None, answer }
}

impl Operation {
    const fn with(mut self, with: &'static [With]) -> Self {
        self.with = with;
        self
    }

    const fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self
    }
}

use Who::{Operators, Owners};
use With::{Calls, Lines, Once, Page, Passwords, Range, Times, Write};

/// Every operation of `/v1`.
pub(super) const OPERATIONS: &[Operation] = &[
    operation("get", "/v1/plans", Operators, "What can be had", (200, Some("PlansView"))),
    operation(
        "get",
        "/v1/audit",
        Operators,
        "Who did what, oldest first",
        (200, Some("AuditsView")),
    )
    .with(&[Lines]),
    operation(
        "get",
        "/v1/webhooks",
        Operators,
        "Who hears of changes",
        (200, Some("WebhooksView")),
    ),
    operation("post", "/v1/webhooks", Operators, "Add a webhook", (201, Some("WebhookView")))
        .with(&[Once])
        .body("PutWebhook"),
    operation("delete", "/v1/webhooks/{id}", Operators, "Remove a webhook", (204, None))
        .with(&[Once]),
    operation(
        "post",
        "/v1/webhooks/{id}/test",
        Operators,
        "Call a webhook with a body of type `test`",
        (202, Some("CallView")),
    )
    .with(&[Once]),
    operation("get", "/v1/outbox", Operators, "Calls to webhooks", (200, Some("CallsView")))
        .with(&[Calls]),
    operation(
        "get",
        "/v1/rules",
        Operators,
        "Which addresses may come in",
        (200, Some("RulesView")),
    )
    .with(&[Page]),
    operation(
        "post",
        "/v1/rules",
        Operators,
        "Block or allow a network for a while",
        (201, Some("RuleView")),
    )
    .with(&[Write])
    .body("PutRule"),
    operation(
        "post",
        "/v1/rules/preview",
        Operators,
        "Whom a rule would cut off",
        (200, Some("RulePreviewView")),
    )
    .body("PutRule"),
    operation(
        "get",
        "/v1/rules/{id}/preview",
        Operators,
        "Whom it would cut off to remove a rule",
        (200, Some("RulePreviewView")),
    ),
    operation("delete", "/v1/rules/{id}", Operators, "Remove a rule", (204, None)).with(&[Write]),
    operation("get", "/v1/outbox/{id}", Operators, "One call", (200, Some("CallView"))),
    operation("post", "/v1/outbox/{id}/retry", Operators, "Try a dead call again", (204, None))
        .with(&[Once]),
    operation(
        "get",
        "/v1/operators",
        Operators,
        "Who may log in at the dashboard",
        (200, Some("OperatorsView")),
    ),
    operation(
        "post",
        "/v1/operators",
        Operators,
        "Add an operator, or give one another password",
        (201, Some("OperatorView")),
    )
    .body("PutOperator"),
    operation("delete", "/v1/operators/{username}", Operators, "Remove an operator", (204, None)),
    operation("get", "/v1/clusters", Operators, "All clusters", (200, Some("ClustersView"))),
    operation("post", "/v1/clusters", Operators, "Make a cluster", (201, Some("ClusterView")))
        .with(&[Once])
        .body("CreateCluster"),
    operation(
        "get",
        "/v1/cluster/status",
        Operators,
        "How far the nodes have come",
        (200, Some("ClusterStatusView")),
    ),
    operation(
        "get",
        "/v1/cluster/diagnosis",
        Operators,
        "Everything that is wrong",
        (200, Some("DiagnosisView")),
    ),
    operation(
        "post",
        "/v1/cluster/members",
        Operators,
        "Change the members, or only say what it would mean",
        (200, Some("MembersPlanView")),
    )
    .body("ChangeMembers"),
    operation(
        "post",
        "/v1/cluster/snapshot",
        Operators,
        "Have nodes take everything anew",
        (200, Some("PushedView")),
    )
    .body("PushSnapshot"),
    operation(
        "post",
        "/v1/nodes/token",
        Operators,
        "Make a token that a node joins with",
        (201, Some("TokenView")),
    )
    .body("MakeToken"),
    operation("get", "/v1/caches", Operators, "A page of caches", (200, Some("CachesView")))
        .with(&[Page]),
    operation("post", "/v1/caches", Operators, "Make a cache", (201, Some("CacheView")))
        .with(&[Write])
        .body("CreateCache"),
    operation("get", "/v1/caches/{cache}", Owners, "One cache", (200, Some("CacheView")))
        .with(&[Passwords]),
    operation("delete", "/v1/caches/{cache}", Operators, "Delete a cache", (204, None))
        .with(&[Write]),
    operation(
        "put",
        "/v1/caches/{cache}/plan",
        Operators,
        "Change the plan",
        (200, Some("CacheView")),
    )
    .with(&[Write])
    .body("ChangePlan"),
    operation(
        "put",
        "/v1/caches/{cache}/rates",
        Operators,
        "Limit how fast a cache may be used",
        (200, Some("CacheView")),
    )
    .with(&[Write])
    .body("LimitRates"),
    operation(
        "put",
        "/v1/caches/{cache}/enabled",
        Owners,
        "Disable a cache, or enable it again",
        (200, Some("CacheView")),
    )
    .with(&[Write])
    .body("SetEnabled"),
    operation(
        "put",
        "/v1/caches/{cache}/primary",
        Owners,
        "Promote a credential",
        (200, Some("CredentialView")),
    )
    .with(&[Write])
    .body("SetPrimary"),
    operation("post", "/v1/caches/{cache}/flush", Owners, "Forget all items", (204, None))
        .with(&[Write]),
    operation(
        "get",
        "/v1/caches/{cache}/stats",
        Owners,
        "Counters and gauges",
        (200, Some("StatisticsView")),
    ),
    operation(
        "get",
        "/v1/caches/{cache}/series",
        Owners,
        "What the cache did over time",
        (200, Some("SeriesView")),
    )
    .with(&[Range]),
    operation(
        "get",
        "/v1/caches/{cache}/latency",
        Owners,
        "How long requests take at its proxies",
        (200, Some("LatencyView")),
    )
    .with(&[Times]),
    operation(
        "get",
        "/v1/caches/{cache}/sizes",
        Owners,
        "What it would hit with more memory, or less, about",
        (200, Some("SizesView")),
    ),
    operation(
        "get",
        "/v1/caches/{cache}/credentials",
        Owners,
        "The cache's credentials",
        (200, Some("CredentialsView")),
    )
    .with(&[Passwords]),
    operation(
        "post",
        "/v1/caches/{cache}/credentials",
        Owners,
        "Add a credential",
        (201, Some("CredentialView")),
    )
    .with(&[Write])
    .body("AddCredential"),
    operation(
        "delete",
        "/v1/caches/{cache}/credentials/{username}",
        Owners,
        "Remove a credential",
        (204, None),
    )
    .with(&[Write]),
    operation(
        "patch",
        "/v1/caches/{cache}/credentials/{username}",
        Owners,
        "Give and take capabilities",
        (200, Some("CredentialView")),
    )
    .with(&[Write])
    .body("ChangeCapabilities"),
    operation(
        "get",
        "/v1/credentials/{username}",
        Operators,
        "Which cache a credential belongs to",
        (200, Some("OwnerView")),
    ),
];

/// Statuses that any operation may be refused with, each a problem document.
const REFUSALS: [(u16, &str); 12] = [
    (400, "The request is wrong"),
    (401, "No good token or credential"),
    (403, "A good credential, but not for this"),
    (404, "There is no such thing"),
    (405, "No such method here"),
    (409, "It contradicts what there is"),
    (413, "The body is too large"),
    (422, "The idempotency key was used for another request"),
    (429, "Too many failed logins"),
    (500, "A fault of ours"),
    (503, "Not now; try again"),
    (504, "No answer in time"),
];

#[derive(OpenApi)]
#[openapi(components(schemas(
    contract::AddCredential,
    contract::AuditsView,
    contract::CacheView,
    contract::CachesView,
    contract::CallView,
    contract::CallsView,
    contract::ChangeCapabilities,
    contract::ChangeMembers,
    contract::ChangePlan,
    contract::ClusterStatusView,
    contract::ClusterView,
    contract::ClustersView,
    contract::CreateCache,
    contract::CreateCluster,
    contract::CredentialView,
    contract::CredentialsView,
    contract::DiagnosisView,
    contract::LatencyView,
    contract::LimitRates,
    contract::MakeToken,
    contract::MembersPlanView,
    contract::OperatorView,
    contract::OperatorsView,
    contract::OwnerView,
    contract::PlansView,
    contract::Problem,
    contract::PushSnapshot,
    contract::PushedView,
    contract::PutRule,
    contract::PutOperator,
    contract::PutWebhook,
    contract::RulePreviewView,
    contract::RuleView,
    contract::RulesView,
    contract::SeriesView,
    contract::SetEnabled,
    contract::SetPrimary,
    contract::SizesView,
    contract::StatisticsView,
    contract::TokenView,
    contract::WebhookView,
    contract::WebhooksView,
)))]
struct Schemas;

pub(super) async fn serve() -> Json<Value> {
    Json(document())
}

pub(super) fn document() -> Value {
    let schemas = serde_json::to_value(Schemas::openapi()).expect("schemas are JSON");
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let at = paths.entry(operation.path).or_insert_with(|| json!({}));
        at[operation.method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Larder control API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Caches, credentials, clusters and nodes of a Larder installation. \
                Operators send the installation's token; owners a credential of their cache with the \
                api capability.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas["components"]["schemas"],
            "securitySchemes": {
                "operator": { "type": "http", "scheme": "bearer" },
                "owner": { "type": "http", "scheme": "basic" },
            },
        },
    })
}

fn described(operation: &Operation) -> Value {
    let mut answers = Map::new();
    let (status, schema) = operation.answer;
    answers.insert(status.to_string(), answer(schema));
    if schema.is_none() {
        // With `wait=applied` there is something to tell.
        answers.insert(
            "200".to_owned(),
            json!({
                "description": "Done, and how far the nodes have come with it",
                "content": { "application/json": { "schema": { "type": "object" } } },
            }),
        );
    }
    for (status, what) in REFUSALS {
        let problem = json!({ "$ref": "#/components/schemas/Problem" });
        answers.insert(
            status.to_string(),
            json!({
                "description": what,
                "content": { "application/problem+json": { "schema": problem } },
            }),
        );
    }
    let security = match operation.who {
        Operators => json!([{ "operator": [] }]),
        Owners => json!([{ "operator": [] }, { "owner": [] }]),
    };
    let mut described = json!({
        "operationId": format!("{} {}", operation.method, operation.path),
        "summary": operation.summary,
        "security": security,
        "parameters": parameters(operation),
        "responses": answers,
    });
    if let Some(body) = operation.body {
        let schema = json!({ "$ref": format!("#/components/schemas/{body}") });
        described["requestBody"] =
            json!({ "content": { "application/json": { "schema": schema } } });
    }
    described
}

fn answer(schema: Option<&str>) -> Value {
    match schema {
        None => json!({ "description": "Done" }),
        Some(schema) => json!({
            "description": "Done",
            "content": { "application/json": {
                "schema": { "$ref": format!("#/components/schemas/{schema}") },
            } },
        }),
    }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let mut parameters = Vec::new();
    let mut add = |place: &str, name: &str, what: &str, schema: Value| {
        parameters.push(json!({
            "in": place, "name": name, "description": what, "required": place == "path",
            "schema": schema,
        }));
    };
    let text = || json!({ "type": "string" });
    let number = |min: u64, max: u64| json!({ "type": "integer", "minimum": min, "maximum": max });
    let key = || json!({ "type": "string", "minLength": 1, "maxLength": 255 });
    for (name, what) in [("cache", "Id or name of the cache"), ("username", "The username")] {
        if operation.path.contains(&format!("{{{name}}}")) {
            let mut schema = json!({ "type": "string", "minLength": 1 });
            if name == "cache" {
                schema["examples"] = json!(["shop"]);
            }
            add("path", name, what, schema);
        }
    }
    if operation.path.contains("{id}") {
        add("path", "id", "Its number", number(0, i64::MAX.unsigned_abs()));
    }
    for with in operation.with {
        match with {
            Page | Lines => {
                add(
                    "query",
                    "after",
                    "What comes after this id",
                    number(0, i64::MAX.unsigned_abs()),
                );
                add("query", "limit", "At most so many", number(1, 1_000));
                if *with == Lines {
                    let what = "The last ones instead of those after some line";
                    add("query", "newest", what, json!({ "type": "boolean" }));
                }
            }
            Passwords => add("query", "passwords", "Show passwords", json!({ "type": "boolean" })),
            Write => {
                let applied = json!({ "type": "string", "enum": ["applied"] });
                add("query", "wait", "Answer when the nodes have the change", applied);
                add("query", "timeout", "Wait at most so many milliseconds", number(0, 8_000));
                add("header", "Idempotency-Key", "Carried out once under this key", key());
            }
            Once => add("header", "Idempotency-Key", "Carried out once under this key", key()),
            Calls => {
                let states = json!({ "type": "string", "enum": ["waiting", "sent", "dead"] });
                add("query", "state", "Which; dead when absent", states);
                add("query", "limit", "At most so many", number(1, 1_000));
            }
            Range | Times => {
                if *with == Range {
                    let what = "Which figures, with commas between; the usual ones when absent";
                    add("query", "names", what, text());
                }
                let when = || number(0, 253_402_300_799);
                add("query", "from", "Unix time; a day before `to` when absent", when());
                add("query", "to", "Unix time; now when absent", when());
            }
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_is_referred_to_is_there() {
        let document = document();
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().expect("split has a first part");
            assert!(document["components"]["schemas"].get(name).is_some(), "no schema {name}");
        }
    }

    #[test]
    fn no_operation_is_said_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for operation in OPERATIONS {
            assert!(seen.insert((operation.path, operation.method)), "{}", operation.path);
        }
    }
}
