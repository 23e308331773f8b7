//! libmemcached's own judge of servers, over the text and the binary protocol.

use std::net::SocketAddr;
use std::process::Command;
use testbed::eventually::DEADLINE;
use testbed::larder::Larder;
use testbed::memcached::Memcached;
use testbed::process::Process;

#[test]
fn all_text_tests_pass() {
    check(Larder::start_without_auth().addr, "-a");
}

#[test]
fn all_binary_tests_pass() {
    check(Larder::start_without_auth().addr, "-b");
}

/// So that a judge that passes everything would be noticed to be none.
#[test]
fn the_judge_knows_memcached() {
    check(Memcached::start().addr, "-a");
    check(Memcached::start().addr, "-b");
}

#[track_caller]
fn check(addr: SocketAddr, dialect: &str) {
    let mut judge = Process::start(Command::new("/usr/bin/memccapable").args([
        "-h",
        &addr.ip().to_string(),
        "-p",
        &addr.port().to_string(),
        dialect,
    ]));
    let status = judge.wait_for_end(DEADLINE * 3);
    let said = judge.whole_log();
    assert!(status.success(), "{status}:\n{said}");
    let passed = said.matches("[pass]").count();
    // 28 in the text dialect, 52 in the binary one (libmemcached 1.1.4).
    assert!(passed >= 25, "only {passed} tests were run:\n{said}");
    assert!(!said.contains("[FAIL]"), "{said}");
}
