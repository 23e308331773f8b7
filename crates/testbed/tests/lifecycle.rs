//! What happens to clients while an operator works: settings, credentials, restarts, certificates.

use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use testbed::connection::{Connection, Login};
use testbed::eventually::{DEADLINE, eventually};
use testbed::larder::{DataDir, Larder, program};
use testbed::oracle::Oracle;
use testbed::process::Process;

#[test]
fn a_settings_file_with_three_mistakes_is_told_of_all_three_with_their_lines() {
    let dir = DataDir::new();
    let file = dir.path().join("larder.toml");
    let text = "listen = \"127.0.0.1:0\"\nthreads = \"many\"\n# fine\nidle_timeout_seconds = -5\n\
                colour = \"blue\"\n";
    fs::write(&file, text).expect("the folder is writable");
    let mut larder = Process::start(
        Command::new(program()).args(["up", "--data"]).arg(dir.path()).arg("--config").arg(&file),
    );
    let status = larder.wait_for_end(DEADLINE);
    assert!(!status.success(), "it started with a wrong settings file");
    let said = larder.whole_log();
    for (line, word) in [(2, "threads"), (4, "idle_timeout_seconds"), (5, "colour")] {
        let told = said.lines().any(|told| {
            told.contains(word)
                && (told.contains(&format!(":{line}")) || told.contains(&format!("line {line}")))
        });
        assert!(told, "line {line} with {word} was not told:\n{said}");
    }
}

#[test]
fn a_capability_that_is_taken_is_gone_on_open_connections() {
    let larder = Larder::start();
    let login = larder.add_credential(&[]);
    let mut text = Connection::open_as(larder.addr, &login);
    let mut binary = Connection::open(larder.addr);
    binary.log_in_binary(&login);
    text.ask("set k 0 0 1\r\n1\r\n", "STORED\r\n");

    larder.run(&["credential", "deny", &login.username, "write"]);
    eventually("writing is refused", DEADLINE, || {
        text.send(b"set k 0 0 1\r\n2\r\n");
        (text.line() == "CLIENT_ERROR this credential may not write\r\n").then_some(())
    });
    // Reading goes on, and so does the binary connection, in step.
    text.ask("mg k t s\r\n", "HD t-1 s1\r\n");
    binary.send(b"\x80\x04\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0k");
    let answer = binary.bytes(24);
    assert_eq!(answer[6..8], [0, 5], "a refused delete is \"not stored\" to binary clients");
    binary.bytes(usize::from(answer[11]));
    text.ask("flush_all\r\n", "OK\r\n");

    larder.run(&["credential", "allow", &login.username, "write"]);
    eventually("writing is allowed again", DEADLINE, || {
        text.send(b"set k 0 0 1\r\n3\r\n");
        (text.line() == "STORED\r\n").then_some(())
    });
}

#[test]
fn flushing_is_a_capability_of_its_own() {
    let larder = Larder::start();
    let mut writer =
        Connection::open_as(larder.addr, &larder.add_credential(&["--allow", "write"]));
    writer.ask("set k 0 0 1\r\n1\r\n", "STORED\r\n");
    writer.ask("flush_all\r\n", "CLIENT_ERROR this credential may not flush\r\n");
    writer.ask("get k\r\n", "VALUE k 0 1\r\n1\r\nEND\r\n");
}

#[test]
fn the_connections_of_a_removed_credential_end() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let login = larder.add_credential(&[]);
    let mut open: Vec<Connection> =
        (0..20).map(|_| Connection::open_as(larder.addr, &login)).collect();
    let mut secure = Connection::open_tls(larder.tls_addr, &larder.tls_ca);
    secure.ask(&login.text(), "STORED\r\n");
    open.push(secure);
    larder.run(&["credential", "remove", &login.username]);
    for client in &mut open {
        client.set_patience(DEADLINE);
        client.until_closed();
    }
    let mut late = Connection::open(larder.addr);
    late.ask(&login.text(), "CLIENT_ERROR authentication failure\r\n");
    oracle.finish();
}

#[test]
fn items_of_one_cache_are_nobody_elses() {
    let larder = Larder::start();
    let made = larder.run(&["cache", "create", "other"]);
    let login = Login::told(&made["credentials"][0]);
    let mut one = larder.connect();
    let mut two = Connection::open_as(larder.addr, &login);
    one.ask("set k 0 0 3\r\none\r\n", "STORED\r\n");
    two.ask("get k\r\n", "END\r\n");
    two.ask("set k 0 0 3\r\ntwo\r\n", "STORED\r\n");
    two.ask("flush_all\r\n", "OK\r\n");
    one.ask("get k\r\n", "VALUE k 0 3\r\none\r\nEND\r\n");
    larder.run(&["cache", "delete", "other", "--yes"]);
    two.set_patience(DEADLINE);
    two.until_closed();
    one.ask("get k\r\n", "VALUE k 0 3\r\none\r\nEND\r\n");
}

#[test]
fn who_has_begun_a_request_may_finish_it_when_the_process_shall_end() {
    let mut larder = Larder::start();
    let mut client = larder.connect();
    client.ask("set k 0 0 5\r\nvalue\r\n", "STORED\r\n");
    let mut idle = larder.connect();
    client.send(b"set k 0 0 10\r\n01234");
    idle.ask("mn\r\n", "MN\r\n");
    larder.process.signal(Signal::TERM);
    idle.expect_close();
    eventually("nobody new is let in", DEADLINE, || {
        Connection::try_open(larder.addr).is_err().then_some(())
    });
    client.ask("56789\r\n", "STORED\r\n");
    client.expect_close();
    let status = larder.process.wait_for_end(DEADLINE);
    assert!(status.success(), "it ended with {status}");
}

#[test]
fn who_does_not_finish_is_not_waited_for() {
    let mut larder = Larder::options().setting("drain_timeout_seconds", "1").start();
    let mut client = larder.connect();
    client.send(b"set k 0 0 10\r\n01234");
    larder.process.signal(Signal::TERM);
    let status = larder.process.wait_for_end(DEADLINE);
    assert!(status.success(), "it ended with {status}");
    client.until_closed();
}

#[test]
fn caches_and_credentials_survive_a_restart() {
    let mut larder = Larder::start();
    survives_the_end_of(&mut larder, Signal::TERM);
}

#[test]
fn caches_and_credentials_survive_being_killed() {
    let mut larder = Larder::start();
    survives_the_end_of(&mut larder, Signal::KILL);
}

#[track_caller]
fn survives_the_end_of(larder: &mut Larder, signal: Signal) {
    let reader = larder.add_reader();
    let gone = larder.add_credential(&[]);
    larder.run(&["credential", "remove", &gone.username]);
    let caches = larder.run(&["cache", "list"]);
    larder.process.signal(signal);
    larder.process.wait_for_end(DEADLINE);

    let again = Larder::options().dir(&larder.dir()).start();
    assert_eq!(again.login, larder.login, "the printed credential is another");
    again.connect().ask("mn\r\n", "MN\r\n");
    let mut client = Connection::open_as(again.addr, &reader);
    client.ask("set k 0 0 1\r\n1\r\n", "CLIENT_ERROR this credential may not write\r\n");
    Connection::open(again.addr).ask(&gone.text(), "CLIENT_ERROR authentication failure\r\n");
    let names = |caches: &serde_json::Value| {
        let caches = caches.as_array().expect("a list of caches").clone();
        caches.into_iter().map(|cache| cache["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&again.run(&["cache", "list"])), names(&caches));
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_the_old_ones_stay() {
    let dir = DataDir::new();
    let path = |name: &str| dir.path().join(name);
    let files = (path("certificate.pem"), path("key.pem"));
    make_certificate(&files.0, &files.1);
    let old = fs::read(&files.0).expect("it was written just above");
    let larder = Larder::options()
        .setting("tls_certificate", &files.0.to_string_lossy())
        .setting("tls_key", &files.1.to_string_lossy())
        .start();
    let mut before = Connection::open_tls(larder.tls_addr, &files.0);
    before.ask(&larder.login.text(), "STORED\r\n");

    make_certificate(&files.0, &files.1);
    fs::write(path("old.pem"), old).expect("the folder is writable");
    larder.process.signal(Signal::HUP);
    eventually("the new certificate is shown", DEADLINE, || {
        Connection::try_open_tls(larder.tls_addr, &files.0).ok()
    });
    assert!(Connection::try_open_tls(larder.tls_addr, &path("old.pem")).is_err());
    before.ask("mn\r\n", "MN\r\n");

    // A file that is no certificate changes nothing.
    fs::write(&files.0, "this is no certificate").expect("the folder is writable");
    larder.process.signal(Signal::HUP);
    before.ask("mn\r\n", "MN\r\n");
    Connection::open(larder.addr).ask(&larder.login.text(), "STORED\r\n");
}

fn make_certificate(certificate: &Path, key: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("it is made");
    fs::write(key, made.signing_key.serialize_pem()).expect("the folder is writable");
    fs::write(certificate, made.cert.pem()).expect("the folder is writable");
}
