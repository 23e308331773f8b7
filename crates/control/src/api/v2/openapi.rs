//! The OpenAPI document of `/api/v2`: which operations there are, what they are asked with, and which statuses
//! they answer. What answers look like is in the documentation of the service that this is modelled on, and in
//! the golden answers of the tests.

use axum::Json;
use serde_json::{Map, Value, json};

/// How a success is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Json,
    Nothing,
}

use Told::{Json as AsJson, Nothing};

/// Method, path behind the cache, status of success, how it is told, what it does.
type Operation = (&'static str, &'static str, u16, Told, &'static str);

const OPERATIONS: &[Operation] = &[
    ("get", "info", 200, AsJson, "The cache, its servers and its credentials"),
    ("get", "credentials", 200, AsJson, "The credentials, with passwords"),
    ("post", "credentials", 201, AsJson, "Add a credential"),
    ("patch", "credentials/{username}", 200, AsJson, "Set capabilities; false where left out"),
    ("delete", "credentials/{username}", 200, Nothing, "Remove a credential"),
    ("post", "credentials/primary/{username}", 200, AsJson, "Promote a credential"),
    ("post", "rotate_sso", 200, AsJson, "Make a new URL of the dashboard"),
    ("post", "enable_cache", 200, Nothing, "Enable the cache again"),
    ("post", "switch_cluster", 200, AsJson, "Move to another cluster"),
    ("post", "flush", 204, Nothing, "Forget all items"),
    ("post", "reset_stats", 204, Nothing, "Set counters to zero"),
    ("get", "stats", 200, AsJson, "Counters and gauges"),
    ("get", "insight/processed_stats", 200, AsJson, "Figures over time"),
    ("get", "insight/processed_stats/per_server", 200, AsJson, "The same of each server"),
    ("get", "insight/latency", 200, AsJson, "How long requests take at each server"),
    ("get", "alerts", 200, AsJson, "The alerts"),
    ("post", "alerts", 201, AsJson, "Add an alert"),
    ("get", "alerts/{id}", 200, AsJson, "One alert"),
    ("put", "alerts/{id}", 201, AsJson, "Change an alert; what is left out stays"),
    ("delete", "alerts/{id}", 201, Nothing, "Remove an alert"),
    ("post", "alerts/{id}/test", 202, Nothing, "Send a message as the alert would"),
    ("get", "alerts/configs", 200, AsJson, "Where messages go"),
    ("post", "alerts/configs", 201, AsJson, "Add a place where messages go"),
    ("delete", "alerts/configs/{id}", 204, Nothing, "Remove such a place"),
    ("get", "introspection/recent_logs", 200, AsJson, "The last commands at each server"),
    ("get", "introspection/compound_stats", 200, AsJson, "Keys, size and rates over time"),
    ("get", "introspection/popular_items", 200, AsJson, "What is asked for most"),
    ("get", "introspection/key_stats", 200, AsJson, "What is known of one key"),
    ("get", "introspection/prefixes", 200, AsJson, "The watched prefixes"),
    ("post", "introspection/prefixes", 200, AsJson, "Watch a prefix"),
    ("delete", "introspection/prefixes/{id}", 204, Nothing, "Watch a prefix no longer"),
    ("get", "introspection/prefixes/{id}/stats", 200, AsJson, "A prefix over time"),
    ("get", "introspection/prefixes/{id}/popular_items", 200, AsJson, "Popular below a prefix"),
];

/// Statuses that any operation may be refused with.
const REFUSALS: [(u16, &str); 10] = [
    (400, "The request is wrong"),
    (401, "No good credential"),
    (403, "A good credential, but not for this"),
    (404, "There is no such cache"),
    (405, "No such method here"),
    (413, "The body is too large"),
    (429, "Too many failed logins"),
    (500, "A fault of ours"),
    (503, "Not now; try again"),
    (504, "No answer in time"),
];

pub(super) async fn serve() -> Json<Value> {
    Json(document())
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let (method, path, ..) = *operation;
        let at =
            paths.entry(format!("/api/v2/caches/{{cache}}/{path}")).or_insert_with(|| json!({}));
        at[method] = described(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Larder analytics API",
            "version": "2",
            "description": "What owners' scripts know. They send a credential of the cache that has \
                the api capability.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": { "owner": { "type": "http", "scheme": "basic" } },
        },
    })
}

fn described((method, path, status, told, what): &Operation) -> Value {
    let mut answers = Map::new();
    let content = match told {
        AsJson => json!({ "description": "Done", "content": { "application/json": {} } }),
        Nothing => json!({ "description": "Done" }),
    };
    answers.insert(status.to_string(), content);
    for (status, what) in REFUSALS {
        answers.insert(status.to_string(), json!({ "description": what }));
    }
    let mut described = json!({
        "operationId": format!("{method} {path}"),
        "summary": what,
        "security": [{ "owner": [] }],
        "parameters": parameters(path),
        "responses": answers,
    });
    if let Some(schema) = body(method, path) {
        described["requestBody"] =
            json!({ "content": { "application/json": { "schema": schema } } });
    }
    described
}

fn parameters(path: &str) -> Vec<Value> {
    let parameter = |place: &str, name: &str, schema: Value| json!({ "in": place, "name": name, "required": place == "path", "schema": schema });
    let number = || json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX });
    let text = || json!({ "type": "string", "minLength": 1 });
    let mut parameters = vec![parameter("path", "cache", number())];
    if path.contains("{username}") {
        parameters.push(parameter("path", "username", text()));
    }
    if path.contains("{id}") {
        parameters.push(parameter("path", "id", number()));
    }
    if path.starts_with("insight/processed_stats") {
        parameters.push(parameter("query", "names", text()));
    }
    let over_time = ["introspection/compound_stats", "introspection/prefixes/{id}/stats"];
    if path.starts_with("insight/") || over_time.contains(&path) {
        for name in ["startTime", "endTime"] {
            let time = json!({ "type": "string", "format": "date-time" });
            parameters.push(parameter("query", name, time));
        }
    }
    if path == "introspection/key_stats" {
        parameters.push(parameter("query", "key", text()));
    }
    parameters
}

/// What the operation takes, if it takes anything.
fn body(method: &str, path: &str) -> Option<Value> {
    let text = || json!({ "type": "string" });
    let truth = || json!({ "type": "boolean" });
    let properties = match (method, path) {
        ("patch", _) => json!({
            "flush_capability": truth(), "write_capability": truth(), "api_capability": truth(),
        }),
        ("post", "alerts") | ("put", _) => json!({
            "trigger_type": { "type": "string", "enum": ["hit_rate", "memory_usage"] },
            "trigger_threshold": { "type": "integer", "minimum": 0, "maximum": 100 },
            "delivery_config_id": { "type": "integer" },
            "description": text(),
            "enabled": truth(),
        }),
        ("post", "alerts/configs") => json!({
            "delivery_type": { "type": "string", "enum": ["email", "slack"] },
            "email": text(), "slack_url": text(), "slack_channel": text(),
        }),
        ("post", "introspection/prefixes") => json!({ "name": text() }),
        _ => return None,
    };
    Some(json!({ "type": "object", "properties": properties }))
}
