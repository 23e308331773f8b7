//! What owners' scripts see: the contract of "Analytics API V2", its oddities, and who is kept out.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use wire::control::inquiry::{Popular, Sizes};

/// A cache with its owner's credential.
struct Owned {
    served: Served,
    id: u64,
    username: String,
    password: String,
}

impl Owned {
    fn new(plan: &str) -> Self {
        let served = Served::new();
        let wish = json!({ "name": "shop", "plan": plan });
        let (_, made) = served.ask("POST", "/v1/caches", Some(wish));
        let credential = &made["credentials"][0];
        let (username, password) = (text(credential, "username"), text(credential, "password"));
        let (username, password) = (username.to_owned(), password.to_owned());
        Owned { id: made["id"].as_u64().expect("a number"), served, username, password }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let path = format!("/api/v2/caches/{}/{path}", self.id);
        self.ask_as(&self.username, &self.password, method, &path, body)
    }

    /// The answer's JSON, or its text.
    fn ask_as(
        &self,
        username: &str,
        password: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, Value) {
        let credential = BASE64.encode(format!("{username}:{password}"));
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.served.address))
            .header("Authorization", format!("Basic {credential}"))
            .body(body.as_bytes().to_vec());
        let answer = agent().run(request.expect("a good request")).expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.into_body().read_to_string().expect("a whole body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn works(&self, username: &str, password: &str) -> bool {
        let directory = self.served.installation.control.directory();
        directory.authenticate(username.as_bytes(), password.as_bytes()).is_ok()
    }
}

/// The fields of an object and what kind of value each has.
fn shape(value: &Value) -> Vec<(String, &'static str)> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "truth",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    let fields = value.as_object().expect("an object").iter();
    let mut shape: Vec<_> = fields.map(|(name, value)| (name.clone(), kind(value))).collect();
    shape.sort();
    shape
}

fn fields(fields: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    let mut fields: Vec<_> =
        fields.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    fields.sort();
    fields
}

const CREDENTIAL: [(&str, &str); 8] = [
    ("id", "number"),
    ("cache_id", "number"),
    ("sasl_username", "text"),
    ("sasl_password", "text"),
    ("write_capability", "truth"),
    ("flush_capability", "truth"),
    ("api_capability", "truth"),
    ("primary", "truth"),
];

/// J01.
#[test]
fn info_has_every_field() {
    let owned = Owned::new("dev");
    let (status, info) = owned.ask("GET", "info", "");
    assert_eq!(status, 200, "{info}");
    let known = [
        ("id", "number"),
        ("name", "text"),
        ("label", "text"),
        ("cache_type", "text"),
        ("plan", "number"),
        ("provider", "text"),
        ("enabled", "truth"),
        ("cluster_name", "text"),
        ("servers", "list"),
        ("credentials", "list"),
        ("can_switch", "truth"),
        ("can_manage_credentials", "truth"),
        ("can_update_capabilities", "truth"),
    ];
    assert_eq!(shape(&info), fields(&known));
    assert_eq!(shape(&info["credentials"][0]), fields(&CREDENTIAL));
    assert_eq!((&info["plan"], &info["id"]), (&json!(26_214_400), &json!(owned.id)));
    assert_eq!(info["cache_type"], "memcachier");
    assert_eq!(info["servers"], json!(["cache.example:11211"]));
    for flag in ["can_switch", "can_manage_credentials", "can_update_capabilities"] {
        assert_eq!(info[flag], false, "{flag} of a development cache");
    }
    let (_, info) = Owned::new("100").ask("GET", "info", "");
    assert_eq!(
        (&info["can_manage_credentials"], &info["can_switch"]),
        (&json!(true), &json!(false))
    );
}

/// J02 to J06.
#[test]
fn credentials_live_their_life() {
    let owned = Owned::new("100");
    let (status, listed) = owned.ask("GET", "credentials", "");
    assert_eq!((status, listed.as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(shape(&listed[0]), fields(&CREDENTIAL));
    assert_eq!(listed[0]["sasl_password"], owned.password.as_str());

    let (status, made) = owned.ask("POST", "credentials", "");
    assert_eq!((status, shape(&made)), (201, fields(&CREDENTIAL)));
    assert_eq!(made["primary"], false);
    let (username, password) = (text(&made, "sasl_username"), text(&made, "sasl_password"));
    assert!(owned.works(username, password));
    assert_ne!(made["id"], listed[0]["id"]);

    let path = format!("credentials/{username}");
    let (status, changed) = owned.ask("PATCH", &path, r#"{"write_capability": true}"#);
    let expected = json!({
        "flush_capability": false, "write_capability": true, "api_capability": false,
    });
    assert_eq!((status, changed), (200, expected));
    let nothing = json!({
        "flush_capability": false, "write_capability": false, "api_capability": false,
    });
    assert_eq!(owned.ask("PATCH", &path, "{}"), (200, nothing));

    let (status, promoted) = owned.ask("POST", &format!("credentials/primary/{username}"), "");
    assert_eq!((status, &promoted["primary"]), (200, &json!(true)), "{promoted}");
    assert_eq!(shape(&promoted), fields(&CREDENTIAL));
    let (_, listed) = owned.ask("GET", "credentials", "");
    let primary = listed.as_array().expect("a list").iter().filter(|one| one["primary"] == true);
    assert_eq!(primary.count(), 1);
    let (status, refused) = owned.ask("DELETE", &path, "");
    assert_eq!((status, refused.as_str().map(|it| it.contains("primary"))), (400, Some(true)));

    let (status, nothing) = owned.ask("DELETE", &format!("credentials/{}", owned.username), "");
    assert_eq!((status, nothing), (200, json!("")));
    assert!(!owned.works(&owned.username, &owned.password));
    assert_eq!(owned.ask("GET", "info", "").0, 401, "it was deleted by itself");
}

/// J06: told through the outbox once, and not again by a repetition.
#[test]
fn a_promotion_is_pushed_once() {
    let owned = Owned::new("100");
    let hook = json!({ "url": "http://127.0.0.1:1/hook" });
    assert_eq!(owned.served.ask("POST", "/v1/webhooks", Some(hook)).0, 201);
    let (_, made) = owned.ask("POST", "credentials", "");
    let path = format!("credentials/primary/{}", text(&made, "sasl_username"));
    for _ in 0..2 {
        assert_eq!(owned.ask("POST", &path, "").0, 200);
    }
    let (_, waiting) = owned.served.ask("GET", "/v1/outbox?state=waiting", None);
    let calls = waiting["calls"].as_array().expect("a list");
    let promotions = calls.iter().filter(|call| text(call, "body").contains("credential promoted"));
    assert_eq!(promotions.count(), 1, "{waiting}");
}

/// J03 to J06, H08.
#[test]
fn development_caches_keep_their_credential() {
    let owned = Owned::new("dev");
    let of_it = format!("credentials/{}", owned.username);
    let promote = format!("credentials/primary/{}", owned.username);
    for (method, path) in
        [("POST", "credentials"), ("PATCH", &of_it), ("DELETE", &of_it), ("POST", &promote)]
    {
        let (status, why) = owned.ask(method, path, "");
        assert_eq!(status, 403, "{method} {path}");
        assert_eq!(why, "code=403, message=Not allowed to manage credentials");
    }
    assert_eq!(owned.ask("GET", "credentials", "").1[0]["write_capability"], true);
}

/// J07.
#[test]
fn a_rotated_dashboard_url_replaces_the_one_before() {
    let owned = Owned::new("dev");
    let (status, first) = owned.ask("POST", "rotate_sso", "");
    let first = first.as_str().expect("a string").to_owned();
    assert_eq!(status, 200);
    let (_, second) = owned.ask("POST", "rotate_sso", "");
    let second = second.as_str().expect("a string").to_owned();
    assert_ne!(first, second);
    // The test's installation has no public URL, so these are paths.
    let browser: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .build()
        .into();
    let open = |path: &str| {
        let answer = browser.get(format!("http://{}{path}", owned.served.address)).call();
        answer.expect("an answer").status().as_u16()
    };
    assert_eq!(open(&first), 403);
    assert_eq!(open(&second), 303, "in, and on to the page");
}

/// J08 and J09.
#[test]
fn a_disabled_cache_is_enabled_by_its_owner() {
    let owned = Owned::new("dev");
    let path = format!("/v1/caches/{}/enabled", owned.id);
    assert_eq!(owned.served.ask("PUT", &path, Some(json!({ "enabled": false }))).0, 200);
    assert!(!owned.works(&owned.username, &owned.password));
    assert_eq!(owned.ask("GET", "info", "").1["enabled"], false);
    for _ in 0..2 {
        assert_eq!(owned.ask("POST", "enable_cache", "").0, 200);
    }
    assert!(owned.works(&owned.username, &owned.password));
    assert_eq!(owned.ask("POST", "switch_cluster", "").0, 403);
}

/// J10 to J12.
#[test]
fn commands_do_what_they_say() {
    let owned = Owned::new("100");
    assert_eq!(owned.ask("POST", "flush", r#"{"action":"create","data":{}}"#).0, 204);
    let (status, statistics) = owned.ask("GET", "stats", "");
    assert_eq!((status, statistics.as_object().map(|all| all.len())), (200, Some(31)));
    assert!(shape(&statistics).iter().all(|(_, kind)| *kind == "number"));
    assert_eq!(statistics["cmd_flush"], 1);
    assert_eq!(statistics["time"], crate::pretend::NOW.0);
    assert_eq!(owned.ask("POST", "reset_stats", "").0, 204);
    let id = tenancy::id::CacheId::new(owned.id);
    assert_eq!(owned.served.data_plane().resets(id), 1);

    let of_it = format!("credentials/{}", owned.username);
    assert_eq!(owned.ask("PATCH", &of_it, r#"{"api_capability":true}"#).0, 200);
    assert_eq!(owned.ask("POST", "flush", "").0, 403, "without the capability");
}

/// J24.
#[test]
fn old_scripts_still_work() {
    let owned = Owned::new("100");
    let ask = |method: &str, path: &str, body: &str| {
        owned.ask_as(&owned.username, &owned.password, method, path, body)
    };
    for path in ["/api/login", "/api/v1/login"] {
        assert_eq!(ask("GET", path, ""), (200, json!({ "cache_id": owned.id })));
    }
    let of = |path: &str| format!("/api/v1/{}/{path}", owned.id);
    let (status, statistics) = ask("GET", &of("stats"), "");
    let per_server = &statistics["cache.example:11211"];
    assert_eq!((status, per_server.as_object().map(|all| all.len())), (200, Some(31)));
    assert_eq!(ask("POST", &of("flush"), ""), (200, json!("")));

    let (status, made) = ask("POST", &of("credentials"), "");
    assert_eq!((status, &made["id"], &made["uuid"]), (200, &Value::Null, &Value::Null));
    assert!(owned.works(text(&made, "sasl_username"), text(&made, "sasl_password")));
    let (_, listed) = ask("GET", &of("credentials"), "");
    assert!(!listed.to_string().contains("password"));
    let listed = listed.as_array().expect("a list");
    let second = listed.iter().find(|one| one["primary"] == false).expect("the new one");
    let by_number = format!("credentials/{}", second["id"]);
    let (status, changed) = ask("PATCH", &of(&by_number), r#"{"flush_capability":"false"}"#);
    let expected = json!({
        "flush_capability": false, "write_capability": true, "api_capability": true,
    });
    assert_eq!((status, changed), (200, expected), "what is left out stays");
    let by_number = format!("credentials/primary/{}", second["id"]);
    assert_eq!(ask("POST", &of(&by_number), "").1["primary"], true);
    assert_eq!(ask("DELETE", &of(&by_number), "").0, 403, "it is the primary one now");
    let (status, why) = owned.ask_as("x", "y", "GET", &of("stats"), "");
    let expected = json!("code=403, message=You are not authorized to perform this action.");
    assert_eq!((status, why), (403, expected));
}

/// J13 to J15 and J19.
#[test]
fn statistics_over_time_have_the_documented_shape() {
    let owned = Owned::new("100");
    let now = crate::pretend::NOW.0;
    let id = tenancy::id::CacheId::new(owned.id);
    for (name, count) in [("cmd_get", 90), ("get_hits", 60), ("get_misses", 30), ("bytes", 512)] {
        owned.served.data_plane().count(id, name, count);
    }
    owned.served.installation.control.sample().expect("sampled");
    let (status, tables) =
        owned.ask("GET", "insight/processed_stats?names=get_rate,hit_rate,bytes,max_bytes", "");
    assert_eq!(status, 200, "{tables}");
    assert_eq!(
        shape(&tables[0]),
        fields(&[("name", "text"), ("columns", "list"), ("values", "list")])
    );
    assert_eq!(tables[0]["name"], "processed_stats");
    assert_eq!(tables[0]["columns"], json!(["time", "get_rate", "hit_rate", "bytes", "max_bytes"]));
    let values = tables[0]["values"].as_array().expect("rows");
    assert_eq!(values.len(), 1_440, "a day in minutes");
    // The test's clock stands at the end of a minute: 1,800,000,000 is a multiple of 60.
    assert_eq!(now % 60, 0);
    let last = json!(["2027-01-15T07:59:00Z", 1.5, 60.0 / 90.0, 512.0, 104_857_600.0]);
    assert_eq!(values.last(), Some(&last));
    assert_eq!(values[0], json!(["2027-01-14T08:00:00Z", 0.0, null, 512.0, 104_857_600.0]));

    for (days, step) in [(2, 600), (30, 3_600), (200, 86_400)] {
        let from = jiff::Timestamp::from_second(1_800_000_000 - days * 86_400).expect("a time");
        let path = format!("insight/processed_stats?names=items&startTime={from}");
        let (_, tables) = owned.ask("GET", &path, "");
        let values = tables[0]["values"].as_array().expect("rows");
        let rows = u64::try_from(days * 86_400 / step).expect("positive");
        assert!(
            (rows..=rows + 1).contains(&(values.len() as u64)),
            "{days} days: {}",
            values.len()
        );
    }
    let (_, tables) = owned.ask("GET", "insight/processed_stats/per_server?names=get_rate", "");
    assert_eq!(tables[0]["tags"], json!({ "server": "cache.example:11211" }));
    assert_eq!(
        tables[0]["values"].as_array().and_then(|rows| rows.last()),
        Some(&json!(["2027-01-15T07:59:00Z", 1.5]))
    );
    let (status, tables) = owned.ask("GET", "insight/latency", "");
    assert_eq!((status, &tables[0]["columns"]), (200, &json!(["time", "duration"])));
    assert_eq!(tables[0]["tags"], json!({ "server": "cache.example:11211" }));
    assert_eq!(tables[0]["values"], json!([]), "no request was timed");
    for time in [40_000, 50_000, 9_000_000] {
        owned.served.data_plane().time(time);
    }
    let (_, tables) = owned.ask("GET", "insight/latency", "");
    assert_eq!(tables[0]["values"][0][0], "2027-01-15T08:00:00Z");
    let median = tables[0]["values"][0][1].as_u64().expect("nanoseconds");
    assert!((49_152..=57_344).contains(&median), "in the range of 50 µs: {median}");
    let (_, tables) = owned.ask("GET", "introspection/compound_stats", "");
    let last = tables[0]["values"].as_array().and_then(|rows| rows.last());
    assert_eq!(last, Some(&json!(["2027-01-15T07:59:00Z", 0, 512, 1.0, 0.5, 0.0])));

    for wrong in [
        "",
        "?names=",
        "?names=hit",
        "?names=bytes,;DROP%20TABLE",
        "?names=bytes&startTime=yesterday",
        "?names=bytes&startTime=2023-01-10T15:20:00Z&endTime=2023-01-08T15:20:00Z",
        "?names=bytes&names=items",
        "?names=bytes&startTime=1969-01-01T00:00:00Z",
    ] {
        let (status, why) = owned.ask("GET", &format!("insight/processed_stats{wrong}"), "");
        assert_eq!(status, 400, "{wrong}: {why}");
    }
    let every = "auth_cmds_rate,auth_errors_rate,bytes,bytes_read_rate,bytes_write_rate,\
        cas_badval_rate,cas_fraction,cas_hit_rate,cas_rate,connection_rate,connections,\
        decr_fraction,decr_hit_rate,decr_rate,delete_fraction,delete_hit_rate,delete_rate,\
        eviction_rate,flush_fraction,flush_rate,get_expired_rate,get_fraction,get_hit_rate,\
        get_rate,hit_rate,incr_fraction,incr_hit_rate,incr_rate,items,max_bytes,request_rate,\
        set_fraction,set_rate,touch_fraction,touch_hit_rate,touch_rate";
    let (status, tables) = owned.ask("GET", &format!("insight/processed_stats?names={every}"), "");
    assert_eq!((status, tables[0]["columns"].as_array().map(Vec::len)), (200, Some(37)));
}

/// J16 and J17.
#[test]
fn alerts_live_their_life() {
    let owned = Owned::new("dev");
    let slack = json!({
        "delivery_type": "slack",
        "slack_url": "https://hooks.slack.com/services/T0/B0/secret",
        "slack_channel": "#alerts",
    });
    let (status, made) = owned.ask("POST", "alerts/configs", &slack.to_string());
    let known = [
        ("id", "number"),
        ("delivery_type", "text"),
        ("email", "text"),
        ("slack_url", "text"),
        ("slack_channel", "text"),
    ];
    assert_eq!((status, shape(&made)), (201, fields(&known)));
    assert_eq!((&made["email"], &made["slack_url"]), (&json!(""), &slack["slack_url"]));
    let email = r#"{"delivery_type":"email","email":"ann@example.org"}"#;
    let (_, email) = owned.ask("POST", "alerts/configs", email);
    assert_eq!(owned.ask("GET", "alerts/configs", "").1, json!([made, email]));

    let wish = json!({
        "trigger_type": "hit_rate", "trigger_threshold": 50, "delivery_config_id": made["id"],
        "description": "This is a description.", "enabled": true,
    });
    let (status, alert) = owned.ask("POST", "alerts", &wish.to_string());
    assert_eq!(status, 201, "{alert}");
    let mut expected = wish.clone();
    expected["id"] = alert["id"].clone();
    assert_eq!(alert, expected);
    assert_eq!(owned.ask("GET", "alerts", "").1, json!([alert]));
    let at = format!("alerts/{}", alert["id"]);
    assert_eq!(owned.ask("GET", &at, ""), (200, alert.clone()));
    let (status, changed) =
        owned.ask("PUT", &at, &json!({ "id": alert["id"], "enabled": false }).to_string());
    expected["enabled"] = json!(false);
    assert_eq!((status, changed), (201, expected), "what is left out stays");
    assert_eq!(owned.ask("POST", &format!("{at}/test"), "").0, 202);
    let (_, waiting) = owned.served.ask("GET", "/v1/outbox?state=waiting", None);
    assert_eq!(waiting["calls"].as_array().map(Vec::len), Some(1), "{waiting}");
    assert!(!waiting.to_string().contains("hooks.slack.com"), "{waiting}");

    let config = format!("alerts/configs/{}", made["id"]);
    assert_eq!(owned.ask("DELETE", &config, "").0, 400, "it is in use");
    assert_eq!(owned.ask("DELETE", &at, "").0, 201);
    assert_eq!(owned.ask("DELETE", &at, "").0, 400);
    assert_eq!(owned.ask("DELETE", &config, "").0, 204);
    let path = format!("/v1/caches/{}", owned.id);
    assert_eq!(owned.served.ask("DELETE", &path, None).0, 204, "what is left goes along");
}

#[test]
fn what_is_wrong_with_an_alert_is_said() {
    let owned = Owned::new("dev");
    let email = r#"{"delivery_type":"email","email":"ann@example.org"}"#;
    let (_, config) = owned.ask("POST", "alerts/configs", email);
    let good = json!({
        "trigger_type": "hit_rate", "trigger_threshold": 50, "delivery_config_id": config["id"],
    });
    for (field, wrong) in [
        ("trigger_type", json!("latency")),
        ("trigger_type", json!(null)),
        ("trigger_type", json!("hit_rate'; DROP TABLE alerts; --")),
        ("trigger_threshold", json!(101)),
        ("trigger_threshold", json!(-1)),
        ("trigger_threshold", json!("50")),
        ("delivery_config_id", json!(99)),
        ("delivery_config_id", json!(null)),
        ("description", json!("two\r\nlines")),
        ("description", json!("x".repeat(501))),
        ("enabled", json!("yes")),
    ] {
        let mut wish = good.clone();
        wish[field] = wrong;
        assert_eq!(owned.ask("POST", "alerts", &wish.to_string()).0, 400, "{wish}");
    }
    for wrong in [
        json!({}),
        json!({ "delivery_type": "pigeon" }),
        json!({ "delivery_type": "email", "email": "no address" }),
        json!({ "delivery_type": "email", "email": "a@b.example\r\nBcc: all@b.example" }),
        // This machine is not to be made to call others.
        json!({ "delivery_type": "slack", "slack_url": "http://169.254.169.254/latest/meta-data" }),
        json!({ "delivery_type": "slack", "slack_url": "https://hooks.slack.com.example.org/services" }),
        json!({ "delivery_type": "slack", "slack_url": "https://hooks.slack.com/services/a b" }),
    ] {
        assert_eq!(owned.ask("POST", "alerts/configs", &wrong.to_string()).0, 400, "{wrong}");
    }
    let (_, alert) = owned.ask("POST", "alerts", &good.to_string());
    let at = format!("alerts/{}", alert["id"]);
    assert_eq!(owned.ask("PUT", &at, r#"{"id":99}"#).0, 400);
    for path in ["alerts/x", "alerts/99", "alerts/configs/x"] {
        let method = if path.contains("configs") { "DELETE" } else { "GET" };
        assert_eq!(owned.ask(method, path, "").0, 400, "{path}");
    }
    // Another cache's owner sees and uses none of it.
    let (_, other) = owned.served.ask("POST", "/v1/caches", None);
    let credential = &other["credentials"][0];
    let (username, password) = (text(credential, "username"), text(credential, "password"));
    let as_other = |method: &str, path: &str, body: &str| {
        let path = format!("/api/v2/caches/{}/{path}", other["id"]);
        owned.ask_as(username, password, method, &path, body)
    };
    assert_eq!(as_other("GET", "alerts", "").1, json!([]));
    for (method, path) in [("GET", &at), ("PUT", &at), ("DELETE", &at)] {
        assert_eq!(as_other(method, path, "").0, 400, "{method} {path}");
    }
    assert_eq!(as_other("POST", "alerts", &good.to_string()).0, 400, "with a foreign delivery");
    let config = format!("alerts/configs/{}", config["id"]);
    assert_eq!(as_other("DELETE", &config, "").0, 400);
}

#[test]
fn nobody_reaches_the_cache_of_another() {
    let owned = Owned::new("100");
    let other = json!({ "name": "blog", "plan": "100" });
    let (_, other) = owned.served.ask("POST", "/v1/caches", Some(other));
    let foreign = text(&other["credentials"][0], "username");
    let as_ours = |method: &str, path: &str| {
        owned.ask_as(&owned.username, &owned.password, method, path, "").0
    };
    for (method, path) in [
        ("GET", "info"),
        ("GET", "credentials"),
        ("POST", "credentials"),
        ("PATCH", &format!("credentials/{foreign}")),
        ("DELETE", &format!("credentials/{foreign}")),
        ("POST", &format!("credentials/primary/{foreign}")),
        ("POST", "rotate_sso"),
        ("POST", "enable_cache"),
        ("POST", "switch_cluster"),
        ("POST", "flush"),
        ("POST", "reset_stats"),
        ("GET", "stats"),
        ("GET", "insight/processed_stats?names=bytes"),
        ("GET", "insight/processed_stats/per_server?names=bytes"),
        ("GET", "insight/latency"),
        ("GET", "introspection/compound_stats"),
    ] {
        let at = format!("/api/v2/caches/{}/{path}", other["id"]);
        assert_eq!(as_ours(method, &at), 403, "{method} {path}");
        // Through the owner's own cache the other's credentials are not there either.
        if path.contains(foreign) {
            assert_eq!(owned.ask(method, path, "").0, 400, "{method} {path}");
        }
        let missing = format!("/api/v2/caches/999999/{path}");
        let documented =
            ["flush", "reset_stats", "stats"].contains(&path) || path.starts_with("insight/");
        assert_eq!(as_ours(method, &missing), if documented { 404 } else { 403 }, "{path}");
        let at = format!("/api/v2/caches/shop/{path}");
        assert_eq!(as_ours(method, &at), 400, "not a number: {path}");
    }
    assert_eq!(as_ours("GET", &format!("/api/v1/{}/credentials", other["id"])), 403);
    // The operators' API is not for owners.
    assert_eq!(as_ours("GET", "/v1/caches"), 403);
    assert_eq!(as_ours("GET", &format!("/v1/caches/{}", other["id"])), 403);
    assert_eq!(as_ours("POST", "/v1/caches/blog/flush"), 403);
    assert_eq!(as_ours("DELETE", "/v1/caches/shop"), 403);
    assert_eq!(as_ours("GET", "/v1/nothing"), 403);
}

#[test]
fn without_the_api_capability_nothing_is_told() {
    let owned = Owned::new("100");
    let wish = json!({ "capabilities": ["write", "flush"] });
    let path = format!("/v1/caches/{}/credentials", owned.id);
    let (_, made) = owned.served.ask("POST", &path, Some(wish));
    let (username, password) = (text(&made, "username"), text(&made, "password"));
    for path in [format!("/api/v2/caches/{}/info", owned.id), "/api/v1/login".to_owned()] {
        assert_eq!(owned.ask_as(username, password, "GET", &path, "").0, 403, "{path}");
    }
}

#[test]
fn whoever_guesses_must_wait() {
    let owned = Owned::new("100");
    let path = format!("/api/v2/caches/{}/info", owned.id);
    let guess = |password: &str| owned.ask_as(&owned.username, password, "GET", &path, "").0;
    let answers: Vec<u16> = (0..12).map(|number| guess(&format!("guess-{number}"))).collect();
    assert_eq!(answers[..10], [401; 10]);
    assert_eq!(answers[10..], [429; 2]);
    assert_eq!(guess(&owned.password), 429, "a right guess tells nothing, either");
    // Others at the same address are not held up.
    let (_, made) = owned.served.ask("POST", &format!("/v1/caches/{}/credentials", owned.id), None);
    let (username, password) = (text(&made, "username"), text(&made, "password"));
    assert_eq!(owned.ask_as(username, password, "GET", &path, "").0, 200);
}

#[test]
fn statements_are_not_smuggled_in() {
    let owned = Owned::new("100");
    let before = owned.ask("GET", "credentials", "").1;
    for evil in
        ["'; DROP TABLE caches; --", "x' OR '1'='1", "\"; DELETE FROM credentials; --", "$1"]
    {
        let path = format!("/api/v2/caches/{}/info", owned.id);
        assert_eq!(owned.ask_as(evil, evil, "GET", &path, "").0, 401, "{evil}");
        assert_eq!(owned.ask_as(&owned.username, evil, "GET", &path, "").0, 401, "{evil}");
        let quoted: String = evil.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for (method, path) in [
            ("PATCH", format!("credentials/{quoted}")),
            ("DELETE", format!("credentials/{quoted}")),
            ("POST", format!("credentials/primary/{quoted}")),
        ] {
            assert_eq!(owned.ask(method, &path, "").0, 400, "{method} {path}");
        }
        let at = format!("/api/v2/caches/{quoted}/info");
        assert_eq!(owned.ask_as(&owned.username, &owned.password, "GET", &at, "").0, 400);
        for (path, body) in [
            ("/v1/caches".to_owned(), json!({ "name": evil })),
            ("/v1/caches".to_owned(), json!({ "plan": evil })),
            ("/v1/clusters".to_owned(), json!({ "name": evil })),
            (format!("/v1/caches/{quoted}/flush"), json!({})),
        ] {
            assert_eq!(owned.served.ask("POST", &path, Some(body)).0, 400, "{path} {evil}");
        }
        let url = json!({ "url": format!("http://example.org/{evil}") });
        assert!(owned.served.ask("POST", "/v1/webhooks", Some(url)).0 < 500);
    }
    assert_eq!(owned.ask("GET", "credentials", "").1, before);
}

#[test]
fn odd_logins_are_refused_and_break_nothing() {
    let owned = Owned::new("100");
    let path = format!("http://{}/api/v2/caches/{}/info", owned.served.address, owned.id);
    let long = format!("Basic {}", BASE64.encode("x".repeat(4_000)));
    for header in
        ["Basic", "Basic ", "Basic ::", "Bearer x", "basic bm9jb2xvbg==", "Basic /w==", &long]
    {
        let request = Request::builder().uri(&path).header("Authorization", header);
        let answer = agent().run(request.body(Vec::new()).expect("good")).expect("an answer");
        assert_eq!(answer.status().as_u16(), 401, "{header}");
        let basic = answer.headers()["www-authenticate"].to_str().expect("ASCII");
        assert!(basic.starts_with("Basic realm="), "{basic}");
    }
    let answer = agent().get(&path).call().expect("an answer");
    assert_eq!(answer.status().as_u16(), 401);
    assert_eq!(
        answer.into_body().read_to_string().expect("a whole body"),
        "code=401, message=Bad user"
    );
    // The scheme's case does not matter, and a password may hold a colon (RFC 7617).
    let credential = BASE64.encode(format!("{}:{}", owned.username, owned.password));
    let request =
        Request::builder().uri(&path).header("Authorization", format!("bAsIc {credential}"));
    let answer = agent().run(request.body(Vec::new()).expect("good")).expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store");
}

/// J18 and J20 to J23, as far as they go.
#[test]
fn introspection_has_the_documented_shape() {
    let owned = Owned::new("100");
    let (status, logs) = owned.ask("GET", "introspection/recent_logs", "");
    assert_eq!((status, logs), (200, json!({ "cache.example:11211": [] })));
    let known = [
        ("time_slice", "number"),
        ("most_hit_keys", "list"),
        ("most_missed_keys", "list"),
        ("most_mutated_keys", "list"),
        ("popular_prefixes", "list"),
    ];
    let (status, popular) = owned.ask("GET", "introspection/popular_items", "");
    assert_eq!((status, shape(&popular)), (200, fields(&known)));
    let (status, key) = owned.ask("GET", "introspection/key_stats?key=x", "");
    let key_fields = [
        ("timestamp", "text"),
        ("name", "text"),
        ("size", "number"),
        ("hit_count", "number"),
        ("miss_count", "number"),
        ("mutation_count", "number"),
        ("in_cache", "truth"),
    ];
    assert_eq!((status, shape(&key[0])), (200, fields(&key_fields)));
    assert_eq!(key[0]["timestamp"], "2027-01-15T08:00:00Z");
    let (status, prefix) = owned.ask("POST", "introspection/prefixes", r#"{"name":"my_prefix"}"#);
    assert_eq!((status, &prefix["name"]), (200, &json!("my_prefix")));
    assert_eq!(owned.ask("POST", "introspection/prefixes", r#"{"name":"my_prefix"}"#).1, prefix);
    assert_eq!(owned.ask("GET", "introspection/prefixes", "").1, json!([prefix]));
    let at = format!("introspection/prefixes/{}", prefix["id"]);
    let (status, popular) = owned.ask("GET", &format!("{at}/popular_items"), "");
    assert_eq!((status, shape(&popular)), (200, fields(&known)));
    let (status, tables) = owned.ask("GET", &format!("{at}/stats"), "");
    assert_eq!((status, &tables[0]["name"]), (200, &json!("prefix_stats")));
    // A day in minutes, up to the one that has begun.
    assert_eq!(tables[0]["values"].as_array().map(Vec::len), Some(24 * 60));
    assert_eq!(tables[0]["values"][0], json!(["2027-01-14T08:00:00Z", 0, 0, 0.0, 0.0, 0.0]));
    assert_eq!(owned.ask("DELETE", &at, "").0, 204);
    for (method, path, body) in [
        ("DELETE", at.as_str(), ""),
        ("GET", "introspection/prefixes/99/stats", ""),
        ("GET", "introspection/prefixes/99/stats?startTime=yesterday", ""),
        ("GET", "introspection/key_stats", ""),
        ("GET", "introspection/key_stats?key=", ""),
        ("POST", "introspection/prefixes", "{}"),
        ("POST", "introspection/prefixes", r#"{"name":5}"#),
    ] {
        assert_eq!(owned.ask(method, path, body).0, 400, "{method} {path}");
    }
}

/// Owners may use what the table of operations gives them, for their own cache.
#[test]
fn owners_use_the_clean_api_for_their_own_cache() {
    let owned = Owned::new("100");
    let ask = |method: &str, path: &str, body: &str| {
        owned.ask_as(&owned.username, &owned.password, method, path, body)
    };
    assert_eq!(ask("GET", "/v1/caches/shop", "").1["name"], "shop");
    let (status, series) = ask("GET", "/v1/caches/shop/series?names=hit_rate,bytes", "");
    assert_eq!((status, &series["step_seconds"]), (200, &json!(60)));
    assert_eq!(series["points"][0]["values"], json!({ "hit_rate": null, "bytes": 0.0 }));
    owned.served.data_plane().time(50_000);
    let (status, latency) = ask("GET", "/v1/caches/shop/latency", "");
    assert_eq!((status, &latency["step_seconds"]), (200, &json!(20)), "{latency}");
    assert_eq!(latency["servers"][0]["server"], "cache.example:11211");
    assert_eq!(latency["servers"][0]["points"][0]["measured"], 1);
    let sizes = Sizes { requests: 1_000, hits: vec![(100, 800), (200, 900)] };
    let popular = Popular { sizes, ..Popular::default() };
    owned.served.data_plane().ask_for(tenancy::id::CacheId::new(owned.id), popular);
    let (status, sizes) = ask("GET", "/v1/caches/shop/sizes", "");
    let twice = json!({ "percent": 200, "memory_bytes": 200 << 20, "hit_rate": 0.9 });
    assert_eq!((status, &sizes["lookups"], &sizes["sizes"][1]), (200, &json!(1_000), &twice));
    for wrong in ["names=x", "from=5&to=4", "from=x", "since=5"] {
        let (status, problem) = ask("GET", &format!("/v1/caches/shop/series?{wrong}"), "");
        assert_eq!((status, &problem["type"]), (400, &json!("bad-request")), "{wrong}");
    }
    let (status, made) = ask("POST", &format!("/v1/caches/{}/credentials", owned.id), "{}");
    assert_eq!(status, 201, "{made}");
    let (_, audit) = owned.served.ask("GET", "/v1/audit", None);
    let last = audit["audit"].as_array().and_then(|lines| lines.last()).expect("a line");
    assert_eq!((text(last, "actor"), text(last, "action")), ("owner", "credential added"));
    assert_eq!(ask("PUT", "/v1/caches/shop/plan", r#"{"plan":"250"}"#).0, 403);
    let (status, problem) = owned.ask_as("x", "y", "GET", "/v1/caches/shop", "");
    assert_eq!((status, &problem["type"]), (401, &json!("unauthorized")));
    // A development cache keeps its credential here, too.
    let dev = Owned::new("dev");
    let path = format!("/v1/caches/{}/credentials", dev.id);
    assert_eq!(dev.ask_as(&dev.username, &dev.password, "POST", &path, "").0, 403);
    assert_eq!(dev.ask_as(&dev.username, &dev.password, "GET", &path, "").0, 200);
}

/// Every operation of the document is there, and answers as it says.
#[test]
fn the_document_describes_what_is_served() {
    let owned = Owned::new("100");
    let answer = owned.served.send("GET", "/v1/openapi.json", None, None);
    assert_eq!(answer.status().as_u16(), 200);
    let document = parse(&answer.into_body().read_to_string().expect("a whole body"));
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 20);
    for (path, operations) in paths {
        let at =
            path.replace("{cache}", "shop").replace("{username}", "NOBODY").replace("{id}", "99");
        for (method, operation) in operations.as_object().expect("operations") {
            let (status, body) = owned.served.ask(&method.to_uppercase(), &at, None);
            assert!(
                !["unknown-path", "unknown-method"].contains(&body["type"].as_str().unwrap_or("")),
                "{method} {path}"
            );
            assert!(
                operation["responses"].get(status.to_string()).is_some(),
                "{method} {path}: {status}"
            );
            if path == "/v1/caches/{cache}" && method == "delete" {
                owned.served.create("shop");
            }
        }
    }
}

/// The same of the API that owners' scripts know.
#[test]
fn the_document_of_the_old_api_describes_what_is_served() {
    let owned = Owned::new("100");
    let answer = owned.served.send("GET", "/api/v2/openapi.json", None, None);
    let document = parse(&answer.into_body().read_to_string().expect("a whole body"));
    let paths = document["paths"].as_object().expect("paths");
    let mut asked = 0;
    for (path, operations) in paths {
        let id = owned.id.to_string();
        let at = path.replace("{cache}", &id).replace("{username}", "NOBODY").replace("{id}", "99");
        for (method, operation) in operations.as_object().expect("operations") {
            let (status, _) =
                owned.ask_as(&owned.username, &owned.password, &method.to_uppercase(), &at, "");
            assert!(![404, 405].contains(&status), "{method} {path}: {status}");
            let documented = operation["responses"].get(status.to_string());
            assert!(documented.is_some(), "{method} {path}: {status}");
            asked += 1;
        }
    }
    assert!(asked > 30, "{asked} operations");
}
