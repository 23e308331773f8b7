//! Every client that people use, against a running Larder, with username and password.
//!
//! Each client's script lives in `clients/` and prints one line per fact. Here is the one list of facts
//! and, per client, what it cannot do; a fact that is missing, skipped without being listed here, or
//! printed twice fails the test as a false one does.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use testbed::client_scripts::{self, installed, script};
use testbed::eventually::DEADLINE;
use testbed::larder::Larder;
use testbed::process::Process;

/// What every client is asked to show.
const FACTS: &[&str] = &[
    "set",
    "get",
    "multi-get",
    "add",
    "replace",
    "append",
    "prepend",
    "cas",
    "incr",
    "decr",
    "touch",
    "gat",
    "delete",
    "flush",
    "large-value",
    "too-large",
    "expiry",
    "binary-safe",
    "read-only",
    "wrong-password",
    "tls",
];

struct Client {
    /// Program and arguments.
    command: Vec<PathBuf>,
    /// Facts that only this client can show.
    more: &'static [&'static str],
    /// Facts of the list for which the client has no operation.
    cannot: &'static [&'static str],
}

#[test]
fn pymemcache() {
    check(Client {
        command: python("pymemcache"),
        more: &["noreply", "flags", "login-noreply", "login-flags", "login-memcached-dialect"],
        cannot: &[],
    });
}

#[test]
fn emcache() {
    check(Client { command: python("emcache"), more: &[], cannot: &[] });
}

#[test]
fn meta_memcache() {
    check(Client {
        command: python("meta-memcache"),
        more: &["lease", "stale", "noreply"],
        cannot: &["flush", "tls"],
    });
}

#[test]
fn python_binary_memcached() {
    check(Client {
        command: python("bmemcached"),
        more: &[],
        cannot: &["append", "prepend", "touch", "gat"],
    });
}

#[test]
fn pylibmc() {
    check(Client { command: python("pylibmc"), more: &[], cannot: &["gat", "tls"] });
}

#[test]
fn memjs() {
    check(Client {
        command: vec!["node".into(), script("memjs/run.js")],
        more: &[],
        cannot: &["cas", "gat", "tls"],
    });
}

#[test]
fn dalli() {
    check(Client { command: vec!["ruby".into(), script("dalli/run.rb")], more: &[], cannot: &[] });
}

#[test]
fn php_memcached() {
    check(Client {
        command: vec!["php".into(), script("php-memcached/run.php")],
        more: &[],
        cannot: &["gat", "tls"],
    });
}

#[test]
fn libmemcached_tools() {
    check(Client {
        command: vec![script("libmemcached-tools/run.sh")],
        more: &[],
        cannot: &["append", "prepend", "cas", "incr", "decr", "gat", "tls"],
    });
}

#[test]
fn gomemcache() {
    check(Client {
        command: vec![installed().join("gomemcache")],
        more: &[],
        cannot: &["append", "prepend", "gat"],
    });
}

/// The one place that knows how a script is run and what its lines mean.
#[track_caller]
fn check(client: Client) {
    let larder = Larder::start();
    let reader = larder.add_reader();
    let (program, arguments) = client.command.split_first().expect("a command has a program");
    let mut script = Process::start(
        Command::new(program)
            .args(arguments)
            .env("LARDER_SERVER", larder.addr.to_string())
            .env("LARDER_TLS_SERVER", larder.tls_addr.to_string())
            .env("LARDER_TLS_CA", &larder.tls_ca)
            .env("LARDER_USERNAME", &larder.login.username)
            .env("LARDER_PASSWORD", &larder.login.password)
            .env("LARDER_READER_USERNAME", &reader.username)
            .env("LARDER_READER_PASSWORD", &reader.password)
            .env("NODE_PATH", installed().join("node/node_modules")),
    );
    // A script waits for items to expire a few times, two seconds each, beside the others.
    script.wait_for_end(DEADLINE * 3);
    let said = script.whole_log();
    let wanted: BTreeMap<&str, &str> = FACTS
        .iter()
        .chain(client.more)
        .map(|fact| (*fact, if client.cannot.contains(fact) { "skip" } else { "ok" }))
        .collect();
    let mut got = BTreeMap::new();
    for line in said.lines() {
        let Some((verdict @ ("ok" | "skip" | "FAIL"), rest)) = line.split_once(' ') else {
            continue;
        };
        let fact = rest.split(':').next().expect("splitting yields at least one part");
        assert!(got.insert(fact, verdict).is_none(), "{fact} was shown twice:\n{said}");
    }
    assert!(got == wanted, "wanted {wanted:?}\n   got {got:?}\n{said}");
}

fn python(client: &str) -> Vec<PathBuf> {
    vec![client_scripts::python(), script(&format!("{client}/run.py"))]
}
