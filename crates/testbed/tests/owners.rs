//! What owners do with curl, against a real `larder up`: the API that their scripts know, and what their
//! applications notice meanwhile.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};
use testbed::connection::{Connection, Login};
use testbed::eventually::{DEADLINE, eventually, eventually_ok};
use testbed::fleet::{Cluster, PATIENT};
use testbed::larder::{Larder, LarderOptions};
use testbed::owner::{Owner, login, statistics};

/// A Larder with a cache that may do everything, and its owner.
struct Owned {
    larder: Larder,
    owner: Owner,
    /// The persistent URL.
    dashboard: String,
}

impl Owned {
    fn start() -> Owned {
        Owned::with(Larder::options())
    }

    fn with(options: LarderOptions) -> Owned {
        let larder = options.start();
        let cache = larder.run(&["cache", "create", "shop", "--plan", "100"]);
        let control = larder.process.line_after("LARDER_CONTROL=").expect("it was printed");
        let dashboard = cache["dashboard_url"].as_str().expect("it is told").to_owned();
        Owned { owner: Owner::of(&cache, &control), larder, dashboard }
    }

    fn curl(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.owner.curl(method, path, body)
    }

    fn connect(&self, login: &Login) -> Connection {
        Connection::open_as(self.larder.addr, login)
    }
}

/// Requests of every kind; what they count is in [`SCRIPT`].
fn play_script(client: &mut Connection) {
    for number in 0..30 {
        client.ask(&format!("set key{number} 0 0 5\r\nvalue\r\n"), "STORED\r\n");
    }
    for number in 0..50 {
        let hit = format!("VALUE key{number} 0 5\r\nvalue\r\nEND\r\n");
        let answer = if number < 30 { hit.as_str() } else { "END\r\n" };
        client.ask(&format!("get key{number}\r\n"), answer);
    }
    client.ask("set n 0 0 1\r\n5\r\n", "STORED\r\n");
    for (request, answer) in [
        ("incr n 1\r\n", "6\r\n"),
        ("incr none 1\r\n", "NOT_FOUND\r\n"),
        ("decr n 2\r\n", "4\r\n"),
        ("touch n 100\r\n", "TOUCHED\r\n"),
        ("touch none 100\r\n", "NOT_FOUND\r\n"),
        ("delete key0\r\n", "DELETED\r\n"),
        ("delete key0\r\n", "NOT_FOUND\r\n"),
        ("cas none 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n"),
    ] {
        client.ask(request, answer);
    }
}

const SCRIPT: [(&str, u64); 14] = [
    ("cmd_get", 50),
    ("get_hits", 30),
    ("get_misses", 20),
    ("cmd_set", 32),
    ("incr_hits", 1),
    ("incr_misses", 1),
    ("decr_hits", 1),
    ("touch_hits", 1),
    ("touch_misses", 1),
    ("delete_hits", 1),
    ("delete_misses", 1),
    ("cas_misses", 1),
    ("curr_items", 30),
    ("cmd_flush", 0),
];

/// Figures that a client's `stats` and the API tell by the same name, whichever proxy is asked.
const TOLD_ALIKE: [&str; 21] = [
    "bytes",
    "cas_badval",
    "cas_hits",
    "cas_misses",
    "cmd_flush",
    "cmd_get",
    "cmd_set",
    "cmd_touch",
    "curr_items",
    "decr_hits",
    "decr_misses",
    "delete_hits",
    "delete_misses",
    "evictions",
    "get_hits",
    "get_misses",
    "incr_hits",
    "incr_misses",
    "total_items",
    "touch_hits",
    "touch_misses",
];

/// Checks that the API of both kinds, the dashboard and `stats` tell the same of the script, exactly.
#[track_caller]
fn check_agreement(owner: &Owner, client: &mut Connection, dashboard: &str) {
    let told: BTreeMap<String, u64> = statistics(client).into_iter().collect();
    let (status, api) = owner.curl("GET", "stats", "");
    assert_eq!((status, api.as_object().map(|all| all.len())), (200, Some(31)));
    let (_, clean) = owner.curl_at("GET", &format!("{}/v1/caches/shop/stats", owner.control), "");
    for name in TOLD_ALIKE {
        let expected = told.get(name).copied();
        assert!(expected.is_some(), "{name} in {told:?}");
        assert_eq!(api[name].as_u64(), expected, "{name}");
        assert_eq!(clean["statistics"][name].as_u64(), expected, "{name}");
    }
    for (name, count) in SCRIPT {
        assert_eq!(api[name], count, "{name}");
    }
    assert_eq!((&api["cmd_delete"], &api["limit_maxbytes"]), (&json!(2), &json!(100 << 20)));
    let page = browse(dashboard);
    for (label, name) in [("Gets", "cmd_get"), ("Sets", "cmd_set"), ("Items", "curr_items")] {
        assert_eq!(tile(&page, label), api[name].to_string(), "{label} on the dashboard");
    }
    assert_eq!(tile(&page, "Hit rate"), "60 %");
}

/// What a browser that follows the owner's persistent URL is shown.
#[track_caller]
fn browse(dashboard: &str) -> String {
    let jar = tempfile::NamedTempFile::new().expect("the temporary folder is writable");
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--location"])
        .arg("--cookie-jar")
        .arg(jar.path())
        .arg("--cookie")
        .arg(jar.path())
        .args(["--fail", dashboard])
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a page is text")
}

/// The first text behind this label.
#[track_caller]
fn tile(page: &str, label: &str) -> String {
    let at = page.find(&format!(">{label}<")).unwrap_or_else(|| panic!("no {label} in {page}"));
    let behind = &page[at + label.len() + 1..];
    let texts = behind.split('<').filter_map(|part| part.split_once('>'));
    let mut texts = texts.map(|(_, text)| text.trim()).filter(|text| !text.is_empty());
    texts.next().expect("a text follows").to_owned()
}

#[test]
fn a_scripted_workload_is_counted_alike_in_the_api_on_the_dashboard_and_in_stats() {
    let owned = Owned::start();
    let mut client = owned.connect(&owned.owner.login);
    play_script(&mut client);
    check_agreement(&owned.owner, &mut client, &owned.dashboard);

    assert_eq!(owned.curl("POST", "reset_stats", "").0, 204);
    let (_, api) = owned.curl("GET", "stats", "");
    assert_eq!((&api["cmd_get"], &api["curr_items"]), (&json!(0), &json!(30)), "gauges stay");
    assert_eq!(owned.curl("POST", "flush", "").0, 204);
    client.ask("get key1\r\n", "END\r\n");
}

/// J18: the last commands, in order, with what came of them and never their values.
#[test]
fn the_last_commands_are_told_in_order() {
    let owned = Owned::start();
    let server = owned.larder.addr.to_string();
    let logs = || owned.curl("GET", "introspection/recent_logs", "").1[&server].clone();
    assert_eq!(logs(), json!([]), "recorded from the first question on");
    let mut client = owned.connect(&owned.owner.login);
    for number in 0..75 {
        client.ask(&format!("set k{number} 0 0 6\r\nsecret\r\n"), "STORED\r\n");
        client.ask(&format!("get gone{number}\r\n"), "END\r\n");
    }
    let logs = logs();
    let logs = logs.as_array().expect("a list");
    assert_eq!(logs.len(), 100, "of 150 commands");
    for (at, log) in logs.iter().enumerate() {
        let number = 25 + at / 2;
        let expected = match at % 2 {
            0 => (json!(format!("k{number}")), json!("set"), json!("STORED"), json!(6)),
            _ => (json!(format!("gone{number}")), json!("get"), json!("MISS"), json!(0)),
        };
        let told = |name: &str| log[name].clone();
        assert_eq!((told("key"), told("command"), told("status"), told("size")), expected);
        assert!(told("timestamp").as_str().is_some_and(|it| it.ends_with('Z')), "{log}");
        assert!(!log.to_string().contains("secret"), "{log}");
    }
}

/// In one process an answer says that it is done: the next request of any connection finds it so.
#[test]
fn credentials_take_effect_where_clients_are() {
    let owned = Owned::start();
    let (status, made) = owned.curl("POST", "credentials", "");
    assert_eq!(status, 201, "{made}");
    let second = owned.owner.with(login(&made));
    let mut client = owned.connect(&second.login);
    client.ask("set k 0 0 1\r\n1\r\n", "STORED\r\n");
    let path = format!("credentials/{}", second.login.username);
    assert_eq!(owned.curl("PATCH", &path, "{}").0, 200);
    client.ask("set k 0 0 1\r\n2\r\n", "CLIENT_ERROR this credential may not write\r\n");
    client.ask("flush_all\r\n", "CLIENT_ERROR this credential may not flush\r\n");
    assert_eq!(second.curl("GET", "info", "").0, 403);
    assert_eq!(owned.curl("DELETE", &path, "").0, 200);
    client.expect_close();
    assert_eq!(second.curl("GET", "info", "").0, 401);
}

/// Workers of an application that connects anew now and then, with the credential it is told to use.
struct Application {
    current: Mutex<(u64, Login)>,
    stopped: AtomicBool,
    workers: Vec<Worker>,
}

/// What is known of one worker.
#[derive(Default)]
struct Worker {
    /// The credential that its newest connection uses, by number; those before are closed.
    uses: AtomicU64,
    rounds: AtomicUsize,
}

impl Application {
    /// Connects and does a few requests, again and again; every answer is checked.
    fn work(&self, number: usize, addr: std::net::SocketAddr) {
        let worker = &self.workers[number];
        while !self.stopped.load(Ordering::Acquire) {
            let (generation, login) =
                self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // The connection before was closed at the end of its round.
            worker.uses.store(generation, Ordering::Release);
            let mut client = Connection::open_as(addr, &login);
            for key in 0..20 {
                let (name, digit) = (format!("w{number}k{key}"), key % 10);
                client.ask(&format!("set {name} 0 0 1\r\n{digit}\r\n"), "STORED\r\n");
                let hit = format!("VALUE {name} 0 1\r\n{digit}\r\nEND\r\n");
                client.ask(&format!("get {name}\r\n"), &hit);
            }
            worker.rounds.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn use_from_now_on(&self, login: &Login) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = (current.0 + 1, login.clone());
    }

    /// Waits until no worker uses an older credential than the current one, and each has got on by
    /// so many rounds since.
    fn wait_until_moved(&self, rounds: usize) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).0;
        for worker in &self.workers {
            eventually("a worker uses the new credential", DEADLINE, || {
                (worker.uses.load(Ordering::Acquire) == current).then_some(())
            });
            let until = worker.rounds.load(Ordering::Acquire) + rounds;
            eventually("the load goes on", DEADLINE, || {
                (worker.rounds.load(Ordering::Acquire) >= until).then_some(())
            });
        }
    }
}

/// Create, promote, move over, delete the old one: nobody is refused and nothing fails.
#[test]
fn credentials_are_rotated_under_load_without_an_error() {
    const WORKERS: usize = 3;
    let owned = Owned::start();
    let application = Arc::new(Application {
        current: Mutex::new((1, owned.owner.login.clone())),
        stopped: AtomicBool::new(false),
        workers: std::iter::repeat_with(Worker::default).take(WORKERS).collect(),
    });
    let threads: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (application, addr) = (Arc::clone(&application), owned.larder.addr);
            thread::spawn(move || application.work(number, addr))
        })
        .collect();
    let mut owner = owned.owner.clone();
    for _ in 0..3 {
        application.wait_until_moved(2);
        let (status, made) = owner.curl("POST", "credentials", "");
        assert_eq!(status, 201, "{made}");
        let new = owner.with(login(&made));
        let promote = format!("credentials/primary/{}", new.login.username);
        assert_eq!(owner.curl("POST", &promote, "").0, 200);
        application.use_from_now_on(&new.login);
        application.wait_until_moved(1);
        let delete = format!("credentials/{}", owner.login.username);
        assert_eq!(new.curl("DELETE", &delete, "").0, 200);
        owner = new;
    }
    application.wait_until_moved(2);
    application.stopped.store(true, Ordering::Release);
    for thread in threads {
        thread.join().expect("no request failed");
    }
    let (_, info) = owner.curl("GET", "info", "");
    assert_eq!(info["credentials"].as_array().map(Vec::len), Some(1));
    assert_eq!(info["credentials"][0]["sasl_username"], owner.login.username.as_str());
}

/// Each of ten keys is read 400 times, ten are missed and ten written half as often, and 100 others are
/// read once. One request in eight is counted: no chance makes a hundred of one.
fn play_popular(client: &mut Connection) {
    for number in 0..10 {
        client.ask(&format!("set hot:{number} 0 0 1\r\nx\r\n"), "STORED\r\n");
    }
    for round in 0..400 {
        let mut batch = String::new();
        for number in 0..10 {
            batch.push_str(&format!("mg hot:{number}\r\n"));
            if round % 2 == 0 {
                batch.push_str(&format!("mg gone:{number}\r\nms made:{number} 1\r\nx\r\n"));
            }
        }
        if round < 100 {
            batch.push_str(&format!("mg cold:{round}\r\n"));
        }
        batch.push_str("mn\r\n");
        client.send(batch.as_bytes());
        while client.line().trim_end() != "MN" {}
    }
}

/// Whether these keys were found; if not, what was.
fn check_popular(owner: &Owner) -> Result<(), String> {
    let (_, popular) = owner.curl("GET", "introspection/popular_items", "");
    for (list, prefix) in
        [("most_hit_keys", "hot"), ("most_missed_keys", "gone"), ("most_mutated_keys", "made")]
    {
        let items = popular[list].as_array().into_iter().flatten().take(10);
        let mut names: Vec<_> = items.map(|item| item["name"].as_str()).collect();
        names.sort_unstable();
        let ten: Vec<String> = (0..10).map(|it| format!("{prefix}:{it}")).collect();
        if !names.into_iter().eq(ten.iter().map(|name| Some(name.as_str()))) {
            return Err(format!("{list} of {popular}"));
        }
    }
    let (_, hot) = owner.curl("GET", "introspection/key_stats?key=hot:3", "");
    let (_, gone) = owner.curl("GET", "introspection/key_stats?key=gone:3", "");
    let is_some = |count: &Value| count.as_u64().is_some_and(|count| 0 < count);
    let is_so = popular["popular_prefixes"][0]["name"] == "hot:"
        && (&hot[0]["in_cache"], &hot[0]["size"]) == (&json!(true), &json!(1))
        && gone[0]["in_cache"] == false
        && is_some(&hot[0]["hit_count"])
        && is_some(&gone[0]["miss_count"]);
    is_so.then_some(()).ok_or_else(|| format!("{hot}, {gone}, {popular}"))
}

/// J20 and J21: the busiest keys of a load are found, by what was asked of them.
#[test]
fn the_popular_keys_of_a_load_are_found() {
    let owned = Owned::start();
    // A quiet cache is watched from the first question on.
    assert_eq!(owned.curl("GET", "introspection/popular_items", "").0, 200);
    let mut client = owned.connect(&owned.owner.login);
    play_popular(&mut client);
    check_popular(&owned.owner).expect("they are the busiest");
    // Of a watched prefix only what begins with it.
    let (_, prefix) = owned.curl("POST", "introspection/prefixes", r#"{"name":"made"}"#);
    let path = format!("introspection/prefixes/{}/popular_items", prefix["id"]);
    let (_, popular) = owned.curl("GET", &path, "");
    assert_eq!(popular["most_hit_keys"], json!([]));
    assert_eq!(popular["most_mutated_keys"].as_array().map(Vec::len), Some(10), "{popular}");
}

#[test]
fn no_secret_gets_into_the_log() {
    let mut owned = Owned::with(Larder::options().setting("log_level", "trace"));
    let (_, made) = owned.curl("POST", "credentials", "");
    let second = login(&made);
    let slack = "https://hooks.slack.com/services/T00/B00/verysecretindeed";
    let config = json!({ "delivery_type": "slack", "slack_url": slack });
    assert_eq!(owned.curl("POST", "alerts/configs", &config.to_string()).0, 201);
    let guess = Login { password: "wrong-password-of-mine".to_owned(), ..second.clone() };
    assert_eq!(owned.owner.with(guess.clone()).curl("GET", "info", "").0, 401);
    owned.connect(&second).ask("set secretkey 0 0 11\r\nsecretvalue\r\n", "STORED\r\n");
    owned.larder.process.signal(rustix::process::Signal::TERM);
    let log = owned.larder.process.whole_log();
    // What larder itself prints for whoever starts it.
    let log: String = log.lines().filter(|line| !line.starts_with("MEMCACHIER_")).collect();
    for secret in [
        owned.owner.login.password.as_str(),
        &second.password,
        &guess.password,
        "verysecretindeed",
        "secretkey",
        "secretvalue",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// The same in a cluster: figures, popular keys, one key, the last commands and latency come from all
/// nodes, and each is counted once.
#[test]
fn a_cluster_of_three_tells_owners_what_one_process_does() {
    let cluster = Cluster::start_with(3, 1, PATIENT);
    let cache = cluster.run(&["cache", "create", "shop", "--plan", "100"]);
    let control = cluster.control.line_after("LARDER_CONTROL=").expect("it was printed");
    let (owner, dashboard) = (Owner::of(&cache, &control), cache["dashboard_url"].clone());
    let mut client = cluster.connect(0, &owner.login);
    // The other nodes know the credential, too.
    let mut other = cluster.connect(1, &owner.login);
    drop(cluster.connect(2, &owner.login));
    play_script(&mut client);
    eventually_ok("nodes have told control of the last request", DEADLINE, || {
        let (_, api) = owner.curl("GET", "stats", "");
        let is_so = SCRIPT.iter().all(|(name, count)| api[name] == *count);
        is_so.then_some(()).ok_or_else(|| format!("{SCRIPT:?} and not {api}"))
    });
    let dashboard = dashboard.as_str().expect("it is told");
    check_agreement(&owner, &mut other, dashboard);

    // Watched, recorded and timed from the first question on. A node that stands still for seconds does
    // not answer and is left out; it is asked again.
    let servers: Vec<String> = cluster.nodes.iter().map(|node| node.addr.to_string()).collect();
    let empty: Value = servers.iter().map(|it| (it.clone(), json!([]))).collect();
    eventually_ok("every node has been asked for its last commands", DEADLINE, || {
        let (_, logs) = owner.curl("GET", "introspection/recent_logs", "");
        (logs == empty).then_some(()).ok_or(logs)
    });
    assert_eq!(owner.curl("GET", "introspection/popular_items", "").0, 200);
    assert_eq!(owner.curl("GET", "insight/latency", "").0, 200);
    eventually_ok("the popular keys were found", DEADLINE, || {
        play_popular(&mut other);
        check_popular(&owner)
    });
    eventually("a command is recorded again, in a second with fewer of them", DEADLINE, || {
        other.ask("touch hot:3 0\r\n", "TOUCHED\r\n");
        let (_, logs) = owner.curl("GET", "introspection/recent_logs", "");
        let last = logs[&servers[1]].as_array().and_then(|logs| logs.last())?;
        let is = |name: &str, value: &str| last[name] == value;
        (is("key", "hot:3") && is("command", "touch") && is("status", "TOUCHED")).then_some(())
    });
    other.ask("delete hot:3\r\n", "DELETED\r\n");
    eventually_ok("its owner says that a key is gone", DEADLINE, || {
        let (_, key) = owner.curl("GET", "introspection/key_stats?key=hot:3", "");
        (key[0]["in_cache"] == false).then_some(()).ok_or(key)
    });
    eventually_ok("every proxy tells how long requests took", DEADLINE, || {
        let (_, latency) = owner.curl("GET", "insight/latency", "");
        let all = latency.as_array().into_iter().flatten();
        let mut own = all.filter(|series| series["tags"]["server"] == servers[1].as_str());
        let measured = own.next().and_then(|series| series["values"][0][1].as_u64());
        measured.filter(|nanoseconds| 1_000 < *nanoseconds).ok_or(latency)
    });

    eventually_ok("every node has set its counts to nothing", DEADLINE, || {
        let answer = owner.curl("POST", "reset_stats", "");
        (answer.0 == 204).then_some(()).ok_or(answer.1)
    });
    eventually_ok("nodes have told control of the reset", DEADLINE, || {
        let (_, api) = owner.curl("GET", "stats", "");
        let is_so = api["cmd_get"] == 0 && api["cmd_set"] == 0;
        is_so.then_some(()).ok_or_else(|| api.to_string())
    });
}
