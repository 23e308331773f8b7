//! `larder cache …` and `larder credential …` against a `larder up`, as an operator uses them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes this long; a test that waits for it has failed.
const TOO_LONG: Duration = Duration::from_secs(30);

/// A `larder up`, killed when dropped.
struct Up {
    child: Child,
    memcached: String,
}

impl Up {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command.args(["up", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
        command.args(["--threads", "1", "--data"]).arg(data).stdout(Stdio::piped());
        unsettled(&mut command);
        let child = command.spawn().expect("the program starts");
        // Made at once, so that it is killed even when it never says how to connect.
        let mut up = Up { child, memcached: String::new() };
        let output = BufReader::new(up.child.stdout.take().expect("piped"));
        let (tell, told) = mpsc::channel();
        // Reads to the end, so that the process never waits for a reader.
        thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|l| drop(tell.send(l)))
        });
        loop {
            let line = told.recv_timeout(TOO_LONG).expect("larder up says how to connect");
            if let Some(servers) = line.strip_prefix("MEMCACHIER_SERVERS=") {
                servers.clone_into(&mut up.memcached);
            }
            if line.starts_with("LARDER_CONTROL=") {
                assert!(!up.memcached.is_empty(), "the servers come first");
                return up;
            }
        }
    }

    /// As a service manager stops it.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it still runs");
        let ended = self.child.wait().expect("it is our child");
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Stopped already, or a test failed; either way nobody wants to know more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Takes away what the machine's own environment would add to the command line.
fn unsettled(command: &mut Command) {
    for name in ["LARDER_DATA", "LARDER_CONTROL", "LARDER_TOKEN_FILE"] {
        command.env_remove(name);
    }
}

fn larder(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    unsettled(&mut command);
    command.args(arguments).arg("--data").arg(data).stdin(Stdio::null());
    command.output().expect("the program starts")
}

/// Runs the command on a terminal of its own, where somebody has typed `answer`.
fn larder_asks(data: &Path, arguments: &[&str], answer: &str) -> Output {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let somebody = openpt(flags).expect("there are pseudo-terminals");
    unlockpt(&somebody).expect("a new terminal can be unlocked");
    let terminal = ioctl_tiocgptpeer(&somebody, flags).expect("a new terminal can be opened");
    let mut somebody = File::from(somebody);
    somebody.write_all(answer.as_bytes()).expect("a terminal holds a line");
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    unsettled(&mut command);
    command.args(arguments).arg("--data").arg(data).stdin(terminal);
    command.output().expect("the program starts")
}

/// What the command prints when it succeeds.
#[track_caller]
fn said(data: &Path, arguments: &[&str]) -> String {
    let output = larder(data, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn json(data: &Path, arguments: &[&str]) -> Value {
    let text = said(data, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// Checks that the command fails with this exit code and says this, and nothing on its output.
#[track_caller]
fn check_fails(data: &Path, arguments: &[&str], code: i32, says: &str) {
    let output = larder(data, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(error.contains(says), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// A memcached connection that has authenticated with the credential.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(up: &Up, credential: &Value) -> Self {
        let stream = TcpStream::connect(&up.memcached).expect("it listens");
        stream.set_read_timeout(Some(TOO_LONG)).expect("a timeout");
        let mut client = Client(BufReader::new(stream));
        let (username, password) = (text(credential, "username"), text(credential, "password"));
        client.send(&format!("set {username} 0 0 {}\r\n{password}\r\n", password.len()));
        assert_eq!(client.line(), "STORED");
        client
    }

    fn send(&mut self, bytes: &str) {
        self.0.get_mut().write_all(bytes.as_bytes()).expect("the connection is open");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer in time");
        line.trim_end().to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.line()
    }

    /// Whether the server has closed the connection, with or without a last word.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok()
    }
}

fn data_dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn what_the_command_line_changes_a_client_feels_at_once() {
    let dir = data_dir();
    let data = dir.path();
    let up = Up::start(data);
    let cache = json(data, &["cache", "create", "shop", "--plan", "100"]);
    assert_eq!(cache["memory_bytes"], 104_857_600);
    let primary = cache["credentials"][0].clone();
    let added = json(data, &["credential", "add", "shop"]);
    let username = text(&added, "username");
    let mut client = Client::new(&up, &added);
    assert_eq!(client.ask("set key 0 0 5\r\nvalue\r\n"), "STORED");

    let denied = json(data, &["credential", "deny", username, "write"]);
    assert_eq!(denied["capabilities"], serde_json::json!(["flush", "api"]));
    assert_ne!(client.ask("set key 0 0 5\r\nother\r\n"), "STORED");
    assert_eq!(client.ask("get key\r\n"), "VALUE key 0 5");
    assert_eq!((client.line(), client.line()), ("value".to_owned(), "END".to_owned()));
    json(data, &["credential", "allow", username, "write", "api"]);
    assert_eq!(client.ask("set key 0 0 5\r\nother\r\n"), "STORED");

    let stats = json(data, &["cache", "stats", "shop"]);
    assert_eq!(stats["curr_items"], 1);
    assert_eq!(json(data, &["cache", "flush", "shop", "--yes"])["flushed"], "shop");
    assert_eq!(client.ask("get key\r\n"), "END");

    json(data, &["credential", "remove", username]);
    assert!(client.is_closed());
    let mut client = Client::new(&up, &primary);
    assert_eq!(json(data, &["cache", "delete", "shop", "--yes"])["deleted"], "shop");
    assert!(client.is_closed());
    let left = json(data, &["cache", "list"]);
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
}

#[test]
fn what_cannot_be_undone_is_asked_first() {
    let dir = data_dir();
    let data = dir.path();
    let up = Up::start(data);
    let cache = json(data, &["cache", "create", "shop"]);
    let mut client = Client::new(&up, &cache["credentials"][0]);
    assert_eq!(client.ask("set key 0 0 5\r\nvalue\r\n"), "STORED");
    const END_OF_INPUT: &str = "\x04";
    for no in ["\n", "n\n", "no\n", "yesterday\n", "Y es\n", END_OF_INPUT] {
        for (command, question) in [
            ("flush", "This will forget all items of cache shop. Go on? [y/N] "),
            ("delete", "This will delete cache shop with its items and credentials. Go on? [y/N] "),
        ] {
            let output = larder_asks(data, &["cache", command, "shop"], no);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{command} {no:?}: {error}");
            assert!(error.starts_with(question), "{command} {no:?}: {error}");
            assert!(error.contains("nothing was done"), "{command} {no:?}: {error}");
            assert!(output.stdout.is_empty(), "{command} {no:?}");
        }
    }
    assert_eq!(client.ask("get key\r\n"), "VALUE key 0 5");
    assert_eq!((client.line(), client.line()), ("value".to_owned(), "END".to_owned()));

    for yes in ["y\n", "Y\n", " yes \n"] {
        assert_eq!(client.ask("set key 0 0 5\r\nvalue\r\n"), "STORED");
        assert!(larder_asks(data, &["cache", "flush", "shop"], yes).status.success(), "{yes:?}");
        assert_eq!(client.ask("get key\r\n"), "END", "{yes:?}");
    }
    assert!(larder_asks(data, &["cache", "delete", "shop"], "y\n").status.success());
    assert!(client.is_closed());
    // A name that is wrong is said before anybody is asked.
    let output = larder_asks(data, &["cache", "delete", "shop"], "y\n");
    assert!(!output.status.success());
    assert!(!String::from_utf8_lossy(&output.stderr).contains("[y/N]"));
}

#[test]
fn a_password_is_changed_without_a_refused_connection() {
    let dir = data_dir();
    let data = dir.path();
    let up = Up::start(data);
    let cache = json(data, &["cache", "create", "shop"]);
    let old = cache["credentials"][0].clone();
    let new = json(data, &["credential", "add", "shop"]);
    check_fails(data, &["credential", "remove", text(&old, "username")], 1, "promote");
    assert_eq!(json(data, &["credential", "promote", text(&new, "username")])["primary"], true);
    Client::new(&up, &old);
    Client::new(&up, &new);
    let variables = said(data, &["cache", "show", "shop", "--env"]);
    let expected = format!(
        "MEMCACHIER_SERVERS={}\nMEMCACHIER_USERNAME={}\nMEMCACHIER_PASSWORD={}\n",
        up.memcached,
        text(&new, "username"),
        text(&new, "password")
    );
    assert_eq!(variables, expected);
    said(data, &["credential", "remove", text(&old, "username")]);
    Client::new(&up, &new);
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = data_dir();
    let data = dir.path();
    let up = Up::start(data);
    let cache = json(data, &["cache", "create", "shop", "--plan", "100"]);
    json(data, &["credential", "add", "shop", "--read-only"]);
    let show = ["cache", "show", "shop", "--passwords"];
    let before = json(data, &show);
    up.stop();
    check_fails(data, &["cache", "list"], 1, "no Larder is running");
    for ending in ["stopped", "killed"] {
        // Dropped at the end of each round, so the second start follows a kill.
        let _up = Up::start(data);
        let mut after = json(data, &show);
        // The ports are others, because the tests take any that are free.
        after["servers"] = before["servers"].clone();
        assert_eq!(dashboard_path(&after), dashboard_path(&before), "{ending}");
        after["dashboard_url"] = before["dashboard_url"].clone();
        assert_eq!(after, before, "{ending}");
    }
    let up = Up::start(data);
    let mut client = Client::new(&up, &cache["credentials"][0]);
    assert_eq!(client.ask("set key 0 0 1\r\nx\r\n"), "STORED");
}

fn dashboard_path(cache: &Value) -> &str {
    let url = text(cache, "dashboard_url");
    &url[url.find("/sso/").expect("the dashboard is entered by single sign-on")..]
}

#[test]
fn people_read_tables_without_passwords() {
    let dir = data_dir();
    let data = dir.path();
    let _up = Up::start(data);
    let created = said(data, &["cache", "create", "shop", "--plan", "100"]);
    assert!(created.starts_with("Created cache shop (id 2), plan 100 (100 MiB).\n"), "{created}");
    let variable = |name: &str| {
        let line = created.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {name} in {created}")).to_owned()
    };
    let username = variable("MEMCACHIER_USERNAME");
    let password = variable("MEMCACHIER_PASSWORD");
    let list = said(data, &["cache", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines[0], "ID  NAME         PLAN  MEMORY   STATE");
    assert_eq!(lines[2], "2   shop         100   100 MiB  enabled");
    assert_eq!(said(data, &["cache", "disable", "2"]), "Cache shop is disabled.\n");
    assert!(said(data, &["cache", "list"]).contains("disabled"));
    said(data, &["cache", "enable", "shop"]);
    let plan = said(data, &["cache", "change-plan", "shop", "dev"]);
    assert_eq!(plan, "Cache shop has plan dev (25 MiB).\n");
    for command in [&["cache", "show", "shop"][..], &["credential", "list", "shop"]] {
        let hidden = said(data, command);
        assert!(hidden.contains(&username) && !hidden.contains(&password), "{hidden}");
        let shown = said(data, &[command, &["--passwords"]].concat());
        assert!(shown.contains(&password), "{shown}");
    }
    let denied = said(data, &["credential", "deny", &username, "write", "flush", "api"]);
    assert_eq!(denied, format!("{username} may now: read-only.\n"));
}

#[test]
fn what_cannot_be_done_is_said_with_what_to_do() {
    let dir = data_dir();
    let data = dir.path();
    check_fails(data, &["cache", "list"], 1, "start one with `larder up --data");
    let up = Up::start(data);
    json(data, &["cache", "create", "shop"]);
    check_fails(data, &["cache", "show", "none"], 1, "`larder cache list` shows");
    check_fails(data, &["cache", "create", "shop"], 1, "already a cache named shop");
    check_fails(data, &["cache", "create", "x", "--plan", "7"], 1, "there are dev, 100,");
    check_fails(data, &["cache", "create", "x", "--plan", "100000"], 1, "more --memory");
    check_fails(data, &["cache", "delete", "shop"], 1, "--yes");
    check_fails(data, &["cache", "flush", "shop"], 1, "--yes");
    check_fails(data, &["credential", "remove", "NOBODY"], 1, "`larder credential list CACHE`");
    check_fails(data, &["credential", "allow", "NOBODY", "fly"], 2, "[possible values: write");
    check_fails(data, &["cache", "show", "7up"], 2, "a cache's name is a letter");
    check_fails(data, &["cache", "eat", "shop"], 2, "unrecognized subcommand");
    let caches = json(data, &["cache", "list"]);
    assert_eq!(caches.as_array().map(Vec::len), Some(2), "{caches}");

    let token = data.join("other.token");
    let token_file = token.to_str().expect("ASCII");
    let with_token = ["cache", "list", "--token-file", token_file];
    check_fails(data, &with_token, 1, "there is no token in");
    write_private(&token, "0123456789abcdefghjkmnpqrstvwxyz");
    check_fails(data, &with_token, 1, "does not accept the token");
    let memcached = format!("http://{}", up.memcached);
    check_fails(data, &["cache", "list", "--control", &memcached], 1, &memcached);
    // A killed process leaves its address behind; the next command says what is the matter.
    drop(up);
    assert!(data.join("control.json").exists());
    check_fails(data, &["cache", "list"], 1, "is `larder up` still running?");
}

/// Answers each request with this status; says what it was sent.
fn receiver(status: &'static str) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/hook", listener.local_addr().expect("it is bound"));
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("somebody calls"));
            let (mut length, mut line) = (0, String::new());
            while stream.read_line(&mut line).is_ok_and(|count| count > 2) {
                if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = said.trim().parse().expect("a number");
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("as long as it says");
            drop(tell.send(String::from_utf8(body).expect("JSON is text")));
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            drop(stream.get_mut().write_all(answer.as_bytes()));
        }
    });
    (url, told)
}

#[test]
fn webhooks_are_added_tested_listed_and_removed() {
    let dir = TempDir::new().expect("a folder");
    let data = dir.path();
    let _up = Up::start(data);
    assert!(said(data, &["webhook", "list"]).contains("Nobody is called"));
    let (good, heard) = receiver("204 No Content");
    let (gone, _gone) = receiver("410 Gone");
    let made = json(data, &["webhook", "add", &good]);
    assert!(text(&made, "secret").starts_with("whsec_"), "{made}");
    let id = made["id"].to_string();
    assert!(said(data, &["webhook", "test", &id]).contains("answered after"));
    let body: Value = serde_json::from_str(&heard.recv_timeout(TOO_LONG).expect("it was called"))
        .expect("the body is JSON");
    assert_eq!(body["type"], "test");
    let other = json(data, &["webhook", "add", &gone])["id"].to_string();
    check_fails(data, &["webhook", "test", &other], 1, "did not take the call");
    check_fails(data, &["webhook", "test", "99"], 1, "there is no webhook 99");
    check_fails(data, &["webhook", "add", "ftp://example.org"], 1, "http or https");
    let listed = said(data, &["webhook", "list"]);
    assert!(listed.contains(&good) && !listed.contains("whsec_"), "{listed}");

    let dead = json(data, &["outbox", "list"]);
    let call = &dead[0];
    assert_eq!((text(call, "url"), text(call, "state")), (gone.as_str(), "dead"), "{dead}");
    let number = call["id"].to_string();
    assert!(said(data, &["outbox", "show", &number]).contains(text(call, "idempotency_key")));
    assert!(said(data, &["outbox", "list", "--state", "sent"]).contains(&good));
    said(data, &["outbox", "retry", &number]);
    check_fails(data, &["outbox", "retry", "99"], 1, "there is no call 99");
    said(data, &["webhook", "remove", &other]);
    check_fails(data, &["webhook", "remove", &other], 1, "there is no webhook");
    assert_eq!(json(data, &["webhook", "list"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn clusters_are_made_and_every_act_is_told() {
    let dir = TempDir::new().expect("a folder");
    let data = dir.path();
    let _up = Up::start(data);
    assert_eq!(text(&json(data, &["cluster", "create", "west"]), "name"), "west");
    check_fails(data, &["cluster", "create", "west"], 1, "already a cluster named west");
    check_fails(data, &["cluster", "create", "7"], 2, "a letter");
    assert!(said(data, &["cluster", "list"]).contains("west"));
    said(data, &["cache", "create", "shop"]);
    said(data, &["cache", "disable", "shop"]);
    let lines = said(data, &["audit"]);
    for act in ["cluster created", "cache created", "cache disabled", "operator", "shop"] {
        assert!(lines.contains(act), "{act}: {lines}");
    }
    let about = json(data, &["audit", "--cache", "shop"]);
    let acts: Vec<&str> =
        about.as_array().expect("a list").iter().map(|line| text(line, "action")).collect();
    assert_eq!(acts, ["cache created", "cache disabled"]);
    let after = about[0]["id"].to_string();
    let last = json(data, &["audit", "--after", &after, "--limit", "1"]);
    assert_eq!(text(&last[0], "action"), "cache disabled");
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).expect("new");
    file.write_all(text.as_bytes()).expect("room on the disk");
}
