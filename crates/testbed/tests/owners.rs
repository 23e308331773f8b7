//! What owners do with curl, against a real `larder up`: the API that their scripts know, and what their
//! applications notice meanwhile.

use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use testbed::connection::{Connection, Login};
use testbed::eventually::eventually;
use testbed::larder::{Larder, LarderOptions};

/// A new credential works, and a removed one does not, by then.
const EFFECT_TIME_MAX: Duration = Duration::from_secs(1);

/// A Larder with a cache that may do everything, and its owner.
struct Owned {
    larder: Larder,
    url: String,
    owner: Login,
}

impl Owned {
    fn start() -> Owned {
        Owned::with(Larder::options())
    }

    fn with(options: LarderOptions) -> Owned {
        let larder = options.start();
        let cache = larder.run(&["cache", "create", "shop", "--plan", "100"]);
        let word = |name: &str| cache["credentials"][0][name].as_str().expect("text").to_owned();
        let owner = Login { username: word("username"), password: word("password") };
        let control = larder.process.line_after("LARDER_CONTROL=").expect("it was printed");
        let url = format!("{control}/api/v2/caches/{}", cache["id"]);
        Owned { larder, url, owner }
    }

    /// Status and JSON, or text, of what curl brings.
    fn curl(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        curl(&self.owner, method, &format!("{}/{path}", self.url), body)
    }

    fn connect(&self, login: &Login) -> Connection {
        Connection::open_as(self.larder.addr, login)
    }
}

fn curl(login: &Login, method: &str, url: &str, body: &str) -> (u16, Value) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "20"])
        .args(["--write-out", "\n%{http_code}", "--request", method])
        .args(["--user", &format!("{}:{}", login.username, login.password)])
        .args(["--header", "Content-Type: application/json", "--data", body, url])
        .output()
        .expect("curl is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, status) = text.rsplit_once('\n').expect("the status is written last");
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    (status.parse().expect("a number"), body)
}

fn login(credential: &Value) -> Login {
    let word = |name: &str| credential[name].as_str().expect("text").to_owned();
    Login { username: word("sasl_username"), password: word("sasl_password") }
}

/// A figure that `stats` tells.
fn statistics(connection: &mut Connection) -> Vec<(String, u64)> {
    connection.send(b"stats\r\n");
    let mut figures = Vec::new();
    loop {
        let line = connection.line();
        let line = line.trim_end();
        if line == "END" {
            return figures;
        }
        let mut words = line.split(' ').skip(1);
        let (name, value) = (words.next().expect("a name"), words.next().expect("a value"));
        figures.extend(value.parse().ok().map(|value| (name.to_owned(), value)));
    }
}

#[test]
#[ignore = "needs a build of its own; cargo test -p testbed --test owners -- --ignored"]
fn a_scripted_workload_is_counted_alike_in_the_api_and_in_stats() {
    let owned = Owned::start();
    let mut client = owned.connect(&owned.owner);
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
    let told = statistics(&mut client);
    let (status, api) = owned.curl("GET", "stats", "");
    assert_eq!(status, 200);
    let of = |name: &str| api[name].as_u64().unwrap_or_else(|| panic!("no {name} in {api}"));
    for name in [
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
        "limit_maxbytes",
        "total_items",
        "touch_hits",
        "touch_misses",
    ] {
        let expected = told.iter().find(|(told, _)| told == name).map(|(_, value)| *value);
        assert_eq!(Some(of(name)), expected, "{name}");
    }
    let script = [
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
    ];
    for (name, count) in script {
        assert_eq!(of(name), count, "{name}");
    }
    assert_eq!((of("cmd_delete"), api.as_object().map(|all| all.len())), (2, Some(31)));

    assert_eq!(owned.curl("POST", "reset_stats", "").0, 204);
    let (_, api) = owned.curl("GET", "stats", "");
    assert_eq!((&api["cmd_get"], &api["curr_items"]), (&json!(0), &json!(30)), "gauges stay");
    assert_eq!(owned.curl("POST", "flush", "").0, 204);
    client.ask("get key1\r\n", "END\r\n");
}

#[test]
#[ignore = "needs a build of its own; cargo test -p testbed --test owners -- --ignored"]
fn credentials_take_effect_where_clients_are() {
    let owned = Owned::start();
    let (status, made) = owned.curl("POST", "credentials", "");
    assert_eq!(status, 201, "{made}");
    let second = login(&made);
    let mut client = owned.connect(&second);
    client.ask("set k 0 0 1\r\n1\r\n", "STORED\r\n");
    let path = format!("credentials/{}", second.username);
    assert_eq!(owned.curl("PATCH", &path, "{}").0, 200);
    eventually("it may only read", EFFECT_TIME_MAX, || {
        client.send(b"set k 0 0 1\r\n2\r\n");
        (client.line() == "CLIENT_ERROR this credential may not write\r\n").then_some(())
    });
    client.ask("flush_all\r\n", "CLIENT_ERROR this credential may not flush\r\n");
    assert_eq!(curl(&second, "GET", &format!("{}/info", owned.url), "").0, 403);
    assert_eq!(owned.curl("DELETE", &path, "").0, 200);
    client.set_patience(EFFECT_TIME_MAX);
    client.expect_close();
    assert_eq!(curl(&second, "GET", &format!("{}/info", owned.url), "").0, 401);
}

/// Create, promote, move over, delete the old one: nobody is refused and nothing fails.
#[test]
#[ignore = "needs a build of its own; cargo test -p testbed --test owners -- --ignored"]
fn credentials_are_rotated_under_load_without_an_error() {
    let owned = Owned::start();
    let current = Arc::new(std::sync::Mutex::new(owned.owner.clone()));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (current, addr) = (Arc::clone(&current), owned.larder.addr);
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            // An application that connects anew now and then; every answer is checked.
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let login = current.lock().expect("no worker panics with it").clone();
                    let mut client = Connection::open_as(addr, &login);
                    for number in 0..20 {
                        let set = format!("set w{worker}k{number} 0 0 1\r\n{}\r\n", number % 10);
                        client.ask(&set, "STORED\r\n");
                        let get = format!("get w{worker}k{number}\r\n");
                        let hit =
                            format!("VALUE w{worker}k{number} 0 1\r\n{}\r\nEND\r\n", number % 10);
                        client.ask(&get, &hit);
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let rounds = |more: u64| {
        let until = done.load(Ordering::Relaxed) + more;
        eventually("the load goes on", Duration::from_secs(30), || {
            (done.load(Ordering::Relaxed) >= until).then_some(())
        });
    };
    let mut owner = owned.owner.clone();
    for _ in 0..3 {
        rounds(5);
        let (status, made) = curl(&owner, "POST", &format!("{}/credentials", owned.url), "");
        assert_eq!(status, 201, "{made}");
        let new = login(&made);
        let promote = format!("{}/credentials/primary/{}", owned.url, new.username);
        assert_eq!(curl(&owner, "POST", &promote, "").0, 200);
        *current.lock().expect("no worker panics with it") = new.clone();
        // Whoever had begun with the old one ends with it.
        rounds(6);
        let delete = format!("{}/credentials/{}", owned.url, owner.username);
        assert_eq!(curl(&new, "DELETE", &delete, "").0, 200);
        owner = new;
    }
    rounds(5);
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.join().expect("no request failed");
    }
    let (_, info) = curl(&owner, "GET", &format!("{}/info", owned.url), "");
    assert_eq!(info["credentials"].as_array().map(Vec::len), Some(1));
    assert_eq!(info["credentials"][0]["sasl_username"], owner.username.as_str());
}

/// J20 and J21: the busiest keys of a load are found, by what was asked of them.
#[test]
#[ignore = "needs a build of its own; cargo test -p testbed --test owners -- --ignored"]
fn the_popular_keys_of_a_load_are_found() {
    let owned = Owned::start();
    // A quiet cache is watched from the first question on.
    assert_eq!(owned.curl("GET", "introspection/popular_items", "").0, 200);
    let mut client = owned.connect(&owned.owner);
    client.ask("set hot:0 0 0 1\r\nx\r\n", "STORED\r\n");
    for number in 1..10 {
        client.ask(&format!("set hot:{number} 0 0 1\r\nx\r\n"), "STORED\r\n");
    }
    // Each of ten keys is read 1,000 times, ten are missed and ten written half as often, and 300
    // others are read once.
    for round in 0..1_000 {
        let mut batch = String::new();
        for number in 0..10 {
            batch.push_str(&format!("mg hot:{number}\r\n"));
            if round % 2 == 0 {
                batch.push_str(&format!("mg gone:{number}\r\nms made:{number} 1\r\nx\r\n"));
            }
        }
        if round < 300 {
            batch.push_str(&format!("mg cold:{round}\r\n"));
        }
        batch.push_str("mn\r\n");
        client.send(batch.as_bytes());
        while client.line().trim_end() != "MN" {}
    }
    let (_, popular) = owned.curl("GET", "introspection/popular_items", "");
    let names = |list: &str| -> Vec<String> {
        let items = popular[list].as_array().expect("a list").iter().take(10);
        let mut names: Vec<_> =
            items.map(|item| item["name"].as_str().expect("text").to_owned()).collect();
        names.sort();
        names
    };
    let ten =
        |prefix: &str| -> Vec<String> { (0..10).map(|it| format!("{prefix}:{it}")).collect() };
    assert_eq!(names("most_hit_keys"), ten("hot"), "{popular}");
    assert_eq!(names("most_missed_keys"), ten("gone"), "{popular}");
    assert_eq!(names("most_mutated_keys"), ten("made"), "{popular}");
    assert_eq!(popular["popular_prefixes"][0]["name"], "hot:", "{popular}");
    let (_, key) = owned.curl("GET", "introspection/key_stats?key=hot:3", "");
    assert_eq!((&key[0]["in_cache"], &key[0]["size"]), (&json!(true), &json!(1)));
    assert!(key[0]["hit_count"].as_u64().is_some_and(|hits| hits > 0), "{key}");
    let (_, key) = owned.curl("GET", "introspection/key_stats?key=gone:3", "");
    assert_eq!(key[0]["in_cache"], false);
    assert!(key[0]["miss_count"].as_u64().is_some_and(|misses| misses > 0), "{key}");
    // Of a watched prefix only what begins with it.
    let (_, prefix) = owned.curl("POST", "introspection/prefixes", r#"{"name":"made"}"#);
    let path = format!("introspection/prefixes/{}/popular_items", prefix["id"]);
    let (_, popular) = owned.curl("GET", &path, "");
    assert_eq!(popular["most_hit_keys"], json!([]));
    assert_eq!(popular["most_mutated_keys"].as_array().map(Vec::len), Some(10), "{popular}");
}

#[test]
#[ignore = "needs a build of its own; cargo test -p testbed --test owners -- --ignored"]
fn no_secret_gets_into_the_log() {
    let mut owned = Owned::with(Larder::options().setting("log_level", "trace"));
    let (_, made) = owned.curl("POST", "credentials", "");
    let second = login(&made);
    let slack = "https://hooks.slack.com/services/T00/B00/verysecretindeed";
    let config = json!({ "delivery_type": "slack", "slack_url": slack });
    assert_eq!(owned.curl("POST", "alerts/configs", &config.to_string()).0, 201);
    let guess = Login { password: "wrong-password-of-mine".to_owned(), ..second.clone() };
    assert_eq!(curl(&guess, "GET", &format!("{}/info", owned.url), "").0, 401);
    owned.connect(&second).ask("set secretkey 0 0 11\r\nsecretvalue\r\n", "STORED\r\n");
    owned.larder.process.signal(rustix::process::Signal::TERM);
    let log = owned.larder.process.whole_log();
    // What larder itself prints for whoever starts it.
    let log: String = log.lines().filter(|line| !line.starts_with("MEMCACHIER_")).collect();
    for secret in [
        owned.owner.password.as_str(),
        &second.password,
        &guess.password,
        "verysecretindeed",
        "secretkey",
        "secretvalue",
    ] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
