//! The API over real sockets: what it answers, whom it refuses, and how it ends.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use ureq::Agent;
use ureq::http::{Method, Request, Response};

use super::*;
use crate::api::{BODY_BYTES_MAX, REQUEST_TIME_MAX, REQUESTS_MAX, router_with};
use crate::data_dir::{TOKEN_FILE, read_token};
use crate::data_plane::DataPlaneError;
use crate::pretend::{Installation, PretendDataPlane};

/// Nothing here takes this long; a test that waits for it has failed.
const TOO_LONG: Duration = Duration::from_secs(20);
/// For limits of time that a test wants to see reached.
const SOON: Duration = Duration::from_millis(100);

/// A client that takes every answer for one.
fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .proxy(None)
        .timeout_global(Some(TOO_LONG))
        .build()
        .into()
}

/// A control plane that serves until it is dropped or stopped.
struct Served {
    installation: Installation,
    address: SocketAddr,
    token: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The limits of a test; those it does not say are the real ones.
struct Limits {
    server: ServerLimits,
    requests_max: usize,
    request_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let server = ServerLimits::default();
        Limits { server, requests_max: REQUESTS_MAX, request_time_max: REQUEST_TIME_MAX }
    }
}

impl Served {
    fn new() -> Self {
        Served::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let installation = Installation::new();
        let path = installation.dir.path().join(TOKEN_FILE);
        let token = read_token(&path).expect("readable").expect("made").reveal().to_owned();
        let control = Arc::clone(&installation.control);
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell_address, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                tell_address.send(listener.local_addr().expect("bound")).expect("awaited");
                let servers = vec!["cache.example:11211".to_owned()];
                let settings = ApiSettings { servers, ..ApiSettings::default() };
                let Limits { server, requests_max, request_time_max } = limits;
                let router = router_with(control, settings, requests_max, request_time_max);
                let stopped = async { drop(stopped.await) };
                serve_router(listener, router, server, stopped).await;
            });
        });
        let address = address.recv_timeout(TOO_LONG).expect("it starts");
        Served { installation, address, token, stop: Some(stop), thread: Some(thread) }
    }

    fn data_plane(&self) -> &PretendDataPlane {
        &self.installation.data_plane
    }

    /// Tells the server to stop, and waits until it has.
    fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends without a panic");
        }
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let answer = self.send(method, path, Some(&self.token), body);
        let status = answer.status().as_u16();
        let text = answer.into_body().read_to_string().expect("a whole body");
        let json = if text.is_empty() { Value::Null } else { parse(&text) };
        (status, json)
    }

    /// Asks under an idempotency key; returns the revision, too.
    fn ask_once(&self, key: &str, path: &str, body: Value) -> (u16, Option<u64>, Value) {
        let request = Request::builder()
            .method("POST")
            .uri(format!("http://{}{path}", self.address))
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Idempotency-Key", key)
            .body(body.to_string().into_bytes());
        let answer = agent().run(request.expect("a good request")).expect("an answer");
        let revision = answer
            .headers()
            .get("larder-revision")
            .map(|value| value.to_str().ok().and_then(|text| text.parse().ok()).expect("a number"));
        let status = answer.status().as_u16();
        let text = answer.into_body().read_to_string().expect("a whole body");
        (status, revision, parse(&text))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Response<ureq::Body> {
        let body = body.map(|json| json.to_string().into_bytes()).unwrap_or_default();
        self.send_bytes(method, path, token, body)
    }

    fn send_bytes(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Vec<u8>,
    ) -> Response<ureq::Body> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(format!("http://{}{path}", self.address));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        agent().run(request.body(body).expect("a good request")).expect("an answer")
    }

    /// Asks on a thread of its own, for requests that wait.
    fn ask_beside(self: &Arc<Self>, path: &str) -> JoinHandle<(u16, Value)> {
        let (served, path) = (Arc::clone(self), path.to_owned());
        thread::spawn(move || served.ask("GET", &path, None))
    }

    fn create(&self, name: &str) -> Value {
        let (status, cache) = self.ask("POST", "/v1/caches", Some(json!({ "name": name })));
        assert_eq!(status, 201, "{cache}");
        cache
    }

    fn connect(&self) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(TOO_LONG)).expect("a timeout");
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// Checks that a refusal is a problem document of this status and type.
#[track_caller]
fn check_refused(answer: Response<ureq::Body>, status: u16, kind: &str) -> Value {
    let content_type = answer.headers()["content-type"].to_str().expect("ASCII").to_owned();
    let seen = answer.status().as_u16();
    let problem = parse(&answer.into_body().read_to_string().expect("a whole body"));
    assert_eq!((seen, text(&problem, "type")), (status, kind), "{problem}");
    assert_eq!(content_type, "application/problem+json");
    assert_eq!(problem["status"], status);
    assert!(!text(&problem, "title").is_empty() && !text(&problem, "detail").is_empty());
    problem
}

#[test]
fn a_cache_lives_its_life() {
    let served = Served::new();
    let created = served.create("shop");
    assert_eq!(created["servers"], json!(["cache.example:11211"]));
    assert_eq!(created["memory_bytes"], 26_214_400);
    let first = &created["credentials"][0];
    assert_eq!(first["capabilities"], json!(["write", "flush", "api"]));
    let (old, password) = (text(first, "username"), text(first, "password"));
    let directory = served.installation.control.directory();
    assert!(directory.authenticate(old.as_bytes(), password.as_bytes()).is_ok());

    let plan = json!({ "plan": "250" });
    let (status, changed) = served.ask("PUT", "/v1/caches/shop/plan", Some(plan));
    assert_eq!((status, &changed["memory_bytes"]), (200, &json!(262_144_000)));
    let wish = json!({ "capabilities": ["flush"] });
    let (status, added) = served.ask("POST", "/v1/caches/1/credentials", Some(wish));
    assert_eq!((status, &added["capabilities"]), (201, &json!(["flush"])));
    let new = text(&added, "username");

    let path = format!("/v1/caches/shop/credentials/{new}");
    let change = json!({ "write": true, "flush": false });
    let (status, changed) = served.ask("PATCH", &path, Some(change));
    assert_eq!((status, &changed["capabilities"]), (200, &json!(["write"])));
    let primary = json!({ "username": new });
    assert_eq!(served.ask("PUT", "/v1/caches/shop/primary", Some(primary)).0, 200);
    let (status, owner) = served.ask("GET", &format!("/v1/credentials/{new}"), None);
    assert_eq!((status, &owner["name"], &owner["cache"]), (200, &json!("shop"), &json!(1)));
    assert_eq!(owner["credential"]["primary"], true);
    assert_eq!(served.ask("DELETE", &format!("/v1/caches/shop/credentials/{old}"), None).0, 204);
    let (_, listed) = served.ask("GET", "/v1/caches/shop/credentials", None);
    assert_eq!(listed["credentials"].as_array().map(Vec::len), Some(1));

    assert_eq!(served.ask("POST", "/v1/caches/shop/flush", None).0, 204);
    let (status, view) = served.ask("GET", "/v1/caches/shop/stats", None);
    assert_eq!((status, &view["statistics"]["cmd_flush"]), (200, &json!(1)));

    let disabled = json!({ "enabled": false });
    let (_, cache) = served.ask("PUT", "/v1/caches/shop/enabled", Some(disabled));
    assert_eq!(cache["enabled"], false);
    assert_eq!(served.ask("DELETE", "/v1/caches/shop", None).0, 204);
    assert_eq!(served.ask("GET", "/v1/caches/shop", None).0, 404);
    assert!(served.data_plane().seen().is_empty());
}

#[test]
fn a_wish_may_be_left_out() {
    let served = Served::new();
    let (status, cache) = served.ask("POST", "/v1/caches", None);
    assert_eq!((status, text(&cache, "plan")), (201, "dev"));
    assert!(text(&cache, "name").starts_with("cache-"), "{cache}");
    let (_, credential) = served.ask("POST", "/v1/caches/1/credentials", None);
    assert_eq!(credential["capabilities"], json!(["write", "flush", "api"]));
    let nothing = Some(json!({ "capabilities": [] }));
    let (_, credential) = served.ask("POST", "/v1/caches/1/credentials", nothing);
    assert_eq!(credential["capabilities"], json!([]));
}

#[test]
fn passwords_are_shown_only_when_asked_for() {
    let served = Served::new();
    let created = served.create("shop");
    let password = text(&created["credentials"][0], "password");
    for path in ["/v1/caches", "/v1/caches/shop", "/v1/caches/shop/credentials"] {
        let (status, answer) = served.ask("GET", path, None);
        assert_eq!(status, 200);
        assert!(!answer.to_string().contains(password), "{path}");
        assert!(!answer.to_string().contains("\"password\""), "{path}");
    }
    for path in ["/v1/caches/shop", "/v1/caches/shop/credentials"] {
        let path = format!("{path}?passwords=true");
        let answer = served.send("GET", &path, Some(&served.token), None);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let body = answer.into_body().read_to_string().expect("a whole body");
        assert!(body.contains(password), "{path}");
    }
}

#[test]
fn caches_are_listed_page_by_page() {
    let served = Served::new();
    for name in ["a", "b", "c"] {
        served.create(name);
    }
    let (_, page) = served.ask("GET", "/v1/caches?limit=2", None);
    let names = |page: &Value| -> Vec<String> {
        let caches = page["caches"].as_array().expect("a list");
        caches.iter().map(|cache| text(cache, "name").to_owned()).collect()
    };
    assert_eq!((names(&page), &page["next_after"]), (vec!["a".into(), "b".into()], &json!(2)));
    let (_, page) = served.ask("GET", "/v1/caches?limit=2&after=2", None);
    assert_eq!((names(&page), &page["next_after"]), (vec!["c".into()], &Value::Null));
    let (_, page) = served.ask("GET", "/v1/caches?limit=3", None);
    assert_eq!((names(&page).len(), &page["next_after"]), (3, &Value::Null));
}

#[test]
fn what_is_wrong_is_said() {
    let served = Served::new();
    let created = served.create("shop");
    served.create("blog");
    let primary = text(&created["credentials"][0], "username");
    let of_primary = format!("/v1/caches/shop/credentials/{primary}");
    let of_blog = format!("/v1/caches/blog/credentials/{primary}");
    let long_name = "x".repeat(65);
    for (method, path, body, status, kind) in [
        ("POST", "/v1/caches", json!({ "name": "shop" }), 409, "name-taken"),
        ("POST", "/v1/caches", json!({ "name": "7up" }), 400, "bad-request"),
        ("POST", "/v1/caches", json!({ "name": long_name }), 400, "bad-request"),
        ("POST", "/v1/caches", json!({ "nmae": "x" }), 400, "bad-request"),
        ("POST", "/v1/caches", json!({ "plan": "33" }), 400, "bad-request"),
        ("POST", "/v1/caches", json!([1]), 400, "bad-request"),
        ("PUT", "/v1/caches/shop/plan", json!({}), 400, "bad-request"),
        ("PUT", "/v1/caches/shop/enabled", json!({ "enabled": "no" }), 400, "bad-request"),
        ("PUT", "/v1/caches/shop/primary", json!({ "username": "a b" }), 400, "bad-request"),
        ("PUT", "/v1/caches/shop/primary", json!({ "username": "X" }), 404, "unknown-credential"),
        ("PUT", "/v1/caches/none/plan", json!({ "plan": "100" }), 404, "unknown-cache"),
        ("POST", "/v1/caches/none/flush", Value::Null, 404, "unknown-cache"),
        ("GET", "/v1/caches/99", Value::Null, 404, "unknown-cache"),
        ("GET", "/v1/caches/18446744073709551615", Value::Null, 404, "unknown-cache"),
        ("GET", "/v1/caches/none/stats", Value::Null, 404, "unknown-cache"),
        ("GET", "/v1/caches/a%20b", Value::Null, 400, "bad-request"),
        ("GET", "/v1/caches/%ff", Value::Null, 400, "bad-request"),
        ("GET", "/v1/caches/..%2fplans", Value::Null, 400, "bad-request"),
        ("GET", "/v1/caches?limit=0", Value::Null, 400, "bad-request"),
        ("GET", "/v1/caches?limit=1001", Value::Null, 400, "bad-request"),
        ("GET", "/v1/caches?page=2", Value::Null, 400, "bad-request"),
        ("GET", "/v1/caches?after=-1", Value::Null, 400, "bad-request"),
        ("GET", "/v1/caches/shop?passwords=1", Value::Null, 400, "bad-request"),
        ("GET", "/v1/credentials/NOBODY", Value::Null, 404, "unknown-credential"),
        ("DELETE", &of_primary, Value::Null, 409, "primary-stays"),
        ("DELETE", &of_blog, Value::Null, 404, "unknown-credential"),
        ("PATCH", &of_blog, json!({ "write": false }), 404, "unknown-credential"),
        ("PATCH", &of_primary, json!({ "read": false }), 400, "bad-request"),
        ("GET", "/v1/none", Value::Null, 404, "unknown-path"),
        ("GET", "/nothing", Value::Null, 404, "unknown-path"),
        ("PATCH", "/v1/caches", Value::Null, 405, "unknown-method"),
    ] {
        let body = if body.is_null() { None } else { Some(body) };
        let answer = served.send(method, path, Some(&served.token), body);
        check_refused(answer, status, kind);
    }
    for body in ["{", "\u{0}", "null"] {
        let body = body.as_bytes().to_vec();
        let answer = served.send_bytes("POST", "/v1/caches", Some(&served.token), body);
        check_refused(answer, 400, "bad-request");
    }
    // After all of that, nothing has changed.
    assert_eq!(served.data_plane().seen().len(), 2);
}

#[test]
fn without_the_token_nothing_is_told() {
    let served = Served::new();
    served.create("shop");
    let almost = &served.token[..served.token.len() - 1];
    for token in [None, Some("wrong"), Some(""), Some(almost)] {
        for (method, path) in [
            ("GET", "/v1/caches"),
            ("GET", "/v1/caches/shop"),
            ("GET", "/v1/caches/none"),
            ("DELETE", "/v1/caches/shop"),
            ("GET", "/v1/nothing"),
            ("PATCH", "/v1/caches"),
        ] {
            let answer = served.send(method, path, token, None);
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            check_refused(answer, 401, "unauthorized");
        }
    }
    assert_eq!(served.data_plane().seen().len(), 1);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(served.send("GET", path, None, None).status().as_u16(), 200, "{path}");
    }
}

#[test]
fn a_body_beyond_the_limit_is_not_read() {
    let served = Served::new();
    let body = format!("{{{}}}", " ".repeat(BODY_BYTES_MAX));
    let answer = served.send_bytes("POST", "/v1/caches", Some(&served.token), body.into_bytes());
    check_refused(answer, 413, "too-large");
    let fits = format!("{{{}}}", " ".repeat(BODY_BYTES_MAX - 2));
    let answer = served.send_bytes("POST", "/v1/caches", Some(&served.token), fits.into_bytes());
    assert_eq!(answer.status().as_u16(), 201);
}

#[test]
fn what_the_data_plane_refuses_is_said() {
    let served = Served::new();
    served.create("shop");
    served.data_plane().refuse(Some(DataPlaneError::NoRoom { available_bytes: 7 }));
    let wish = Some(json!({ "plan": "100" }));
    let answer = served.send("PUT", "/v1/caches/shop/plan", Some(&served.token), wish);
    let problem = check_refused(answer, 409, "no-room");
    assert!(text(&problem, "detail").contains("7 bytes"), "{problem}");
    let reason = "it sleeps".to_owned();
    served.data_plane().refuse(Some(DataPlaneError::Unavailable { reason }));
    let answer = served.send("POST", "/v1/caches/shop/flush", Some(&served.token), None);
    assert_eq!(answer.headers()["retry-after"], "1");
    check_refused(answer, 503, "data-plane-unavailable");
}

#[test]
fn a_fault_of_ours_is_not_explained_to_strangers() {
    let served = Served::new();
    served.create("shop");
    served.installation.run_sql("UPDATE caches SET plan = 'gone'").expect("a good statement");
    let answer = served.send("GET", "/v1/caches/shop", Some(&served.token), None);
    let problem = check_refused(answer, 500, "internal");
    assert_eq!(text(&problem, "detail"), "the cause is in the log");
}

#[test]
fn more_requests_than_allowed_are_told_to_come_again() {
    let served = Arc::new(Served::with(Limits { requests_max: 1, ..Limits::default() }));
    served.create("shop");
    served.data_plane().hold(true);
    let waiting = served.ask_beside("/v1/caches/shop/stats");
    served.data_plane().wait_for_statistics(1);
    let answer = served.send("GET", "/v1/caches", Some(&served.token), None);
    assert_eq!(answer.headers()["retry-after"], "1");
    check_refused(answer, 503, "busy");
    let ready = served.send("GET", "/readyz", None, None);
    assert_eq!(ready.status().as_u16(), 503);
    served.data_plane().hold(false);
    assert_eq!(waiting.join().expect("answered").0, 200);
    assert_eq!(served.ask("GET", "/v1/caches", None).0, 200);
}

#[test]
fn a_request_that_takes_too_long_is_answered_all_the_same() {
    let limits = Limits { requests_max: 1, request_time_max: SOON, ..Limits::default() };
    let served = Arc::new(Served::with(limits));
    served.installation.control.ensure_development_cache().expect("made");
    served.data_plane().hold(true);
    let path = "/v1/caches/development/stats";
    check_refused(served.send("GET", path, Some(&served.token), None), 504, "timeout");
    // It still runs, so it still counts.
    check_refused(served.send("GET", path, Some(&served.token), None), 503, "busy");
    served.data_plane().hold(false);
    wait_until(|| served.ask("GET", path, None).0 == 200);
}

#[test]
fn a_body_that_does_not_come_is_not_awaited_for_ever() {
    let served = Served::with(Limits { request_time_max: SOON, ..Limits::default() });
    let mut stream = served.connect();
    let head = format!(
        "POST /v1/caches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 9\r\n\r\n",
        served.token
    );
    stream.write_all(head.as_bytes()).expect("it listens");
    assert!(read_to_end(stream).starts_with("HTTP/1.1 504 "));
}

#[test]
fn a_silent_connection_is_closed() {
    let server = ServerLimits { head_time_max: SOON, ..ServerLimits::default() };
    let served = Served::with(Limits { server, ..Limits::default() });
    assert_eq!(read_to_end(served.connect()), "");
    let mut half = served.connect();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHo").expect("it listens");
    let answer = read_to_end(half);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let mut answered = served.connect();
    answered.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("it listens");
    assert!(read_to_end(answered).starts_with("HTTP/1.1 200 "));
}

#[test]
fn what_is_no_http_is_closed() {
    let served = Served::new();
    let mut stream = served.connect();
    stream.write_all(b"get key\r\n\r\n").expect("it listens");
    assert!(read_to_end(stream).starts_with("HTTP/1.1 400 "));
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = ServerLimits { connections_max: 1, ..ServerLimits::default() };
    let served = Served::with(Limits { server, ..Limits::default() });
    let ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut first = served.connect();
    first.write_all(ask).expect("it listens");
    assert!(read_some(&mut first).starts_with("HTTP/1.1 200 "));
    let mut second = served.connect();
    second.write_all(ask).expect("it listens");
    second.set_read_timeout(Some(SOON)).expect("a timeout");
    assert!(second.read(&mut [0; 1]).is_err(), "answered beyond the limit");
    drop(first);
    second.set_read_timeout(Some(TOO_LONG)).expect("a timeout");
    assert!(read_some(&mut second).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_stop_lets_requests_end_and_closes_idle_connections() {
    let mut served = Served::new();
    served.create("shop");
    served.data_plane().hold(true);
    let mut asking = served.connect();
    let head = format!(
        "GET /v1/caches/shop/stats HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        served.token
    );
    asking.write_all(head.as_bytes()).expect("it listens");
    served.data_plane().wait_for_statistics(1);
    let idle = served.connect();
    drop(served.stop.take());
    assert_eq!(read_to_end(idle), "");
    wait_until(|| std::net::TcpStream::connect(served.address).is_err());
    served.data_plane().hold(false);
    assert!(read_to_end(asking).starts_with("HTTP/1.1 200 "));
    served.stop();
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let server = ServerLimits { drain_time_max: SOON, ..ServerLimits::default() };
    let mut served = Served::with(Limits { server, ..Limits::default() });
    let mut half = served.connect();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHo").expect("it listens");
    // Wait until the server has taken the connection: the next one is answered after it.
    assert_eq!(served.send("GET", "/healthz", None, None).status().as_u16(), 200);
    served.stop();
    read_to_end(half);
}

fn read_to_end(mut stream: std::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => (),
        Err(error) => panic!("the server did not close: {error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_some(stream: &mut std::net::TcpStream) -> String {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).expect("an answer in time");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < TOO_LONG, "it never came");
        thread::yield_now();
    }
}

#[test]
fn a_repeated_request_is_answered_as_at_first_and_done_once() {
    let served = Served::new();
    let shop = || json!({ "name": "shop" });
    let first = served.ask_once("key-1", "/v1/caches", shop());
    assert_eq!((first.0, first.1), (201, Some(1)), "{first:?}");
    assert!(first.2["credentials"][0]["password"].is_string());
    assert_eq!(served.ask_once("key-1", "/v1/caches", shop()), first);
    let (status, _, problem) = served.ask_once("key-1", "/v1/caches", json!({ "name": "blog" }));
    assert_eq!((status, &problem["type"]), (422, &json!("key-reused")), "{problem}");
    let (status, _, problem) = served.ask_once("key-2", "/v1/caches", shop());
    assert_eq!((status, &problem["type"]), (409, &json!("name-taken")), "{problem}");
    let (status, _, problem) = served.ask_once(&"x".repeat(256), "/v1/caches", shop());
    assert_eq!((status, &problem["type"]), (400, &json!("bad-request")), "{problem}");
    // A refusal is not remembered: the same key may do it when nothing is in the way any more.
    served.ask("DELETE", "/v1/caches/shop", None);
    let (status, revision, _) = served.ask_once("key-2", "/v1/caches", shop());
    assert_eq!((status, revision), (201, Some(3)));
}

#[test]
fn a_change_says_when_the_nodes_have_it() {
    let served = Served::new();
    served.create("shop");
    let (status, answer) = served.ask("POST", "/v1/caches/shop/flush?wait=applied", None);
    assert_eq!(status, 200, "{answer}");
    let applied = &answer["applied"];
    let expected = json!({ "revision": 2, "nodes": 1, "applied": 1, "after_ms": 0, "missing": [] });
    assert_eq!(*applied, expected);
    let body = Some(json!({ "enabled": false }));
    let path = "/v1/caches/shop/enabled?wait=applied&timeout=100";
    let (_, answer) = served.ask("PUT", path, body);
    assert_eq!((&answer["enabled"], &answer["applied"]["revision"]), (&json!(false), &json!(3)));
    for wrong in ["wait=later", "timeout=5", "wait=applied&timeout=60000", "wiat=applied"] {
        let (status, problem) = served.ask("POST", &format!("/v1/caches/shop/flush?{wrong}"), None);
        assert_eq!(status, 400, "{wrong}: {problem}");
    }
}

#[test]
fn webhooks_and_their_calls_are_listed() {
    let served = Served::new();
    let url = "http://127.0.0.1:9/hook";
    let (status, made) = served.ask("POST", "/v1/webhooks", Some(json!({ "url": url })));
    assert_eq!(status, 201, "{made}");
    assert!(made["secret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")), "{made}");
    let (_, listed) = served.ask("GET", "/v1/webhooks", None);
    assert_eq!(
        (&listed["webhooks"][0]["url"], &listed["webhooks"][0]["secret"]),
        (&json!(url), &Value::Null)
    );
    for wrong in ["ftp://example/", "example", "http://", ""] {
        let (status, problem) = served.ask("POST", "/v1/webhooks", Some(json!({ "url": wrong })));
        assert_eq!(status, 400, "{wrong}: {problem}");
    }
    served.create("shop");
    let (_, waiting) = served.ask("GET", "/v1/outbox?state=waiting", None);
    assert_eq!(waiting["calls"][0]["idempotency_key"], "larder-1-1-1", "{waiting}");
    assert_eq!(served.ask("GET", "/v1/outbox", None), (200, json!({ "calls": [] })));
    assert_eq!(served.ask("GET", "/v1/outbox?state=lost", None).0, 400);
    assert_eq!(served.ask("POST", "/v1/outbox/1/retry", None).0, 404, "it was not given up");
    assert_eq!(served.ask("DELETE", "/v1/webhooks/1", None).0, 204);
    assert_eq!(served.ask("DELETE", "/v1/webhooks/1", None).0, 404);
    let (_, waiting) = served.ask("GET", "/v1/outbox?state=waiting", None);
    assert_eq!(waiting, json!({ "calls": [] }), "nobody is left to call");
}

#[test]
fn who_did_what_can_be_read_page_by_page() {
    let served = Served::new();
    served.create("shop");
    served.ask("POST", "/v1/caches/shop/flush", None);
    served.ask("POST", "/v1/clusters", Some(json!({ "name": "west" })));
    let lines = |path: &str| -> Vec<String> {
        let (_, page) = served.ask("GET", path, None);
        let lines = page["audit"].as_array().expect("a list");
        let line = |line: &Value| {
            format!(
                "{} {} {} {}",
                line["actor"], line["action"], line["cache_name"], line["revision"]
            )
        };
        lines.iter().map(line).collect()
    };
    let all = [
        r#""operator" "cache created" "shop" 1"#,
        r#""operator" "cache flushed" "shop" 2"#,
        r#""operator" "cluster created" null null"#,
    ];
    assert_eq!(lines("/v1/audit"), all);
    assert_eq!(lines("/v1/audit?after=1&limit=1"), all[1..2]);
    assert!(lines("/v1/audit?after=3").is_empty());
}

mod owners;
mod rules;
