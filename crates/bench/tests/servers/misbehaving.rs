//! The load generator against servers that lie, stall, refuse and hang up.

use crate::support::{answer_lines, bench, pretend};
use bench::BenchError;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Answers a `get` with a value of its own making.
fn value_of(line: &str) -> String {
    let key = line.strip_prefix("get ").expect("these tests only get");
    format!("VALUE {key} 0 100\r\n{}\r\nEND\r\n", "x".repeat(100))
}

#[test]
fn values_that_nobody_wrote_are_counted() {
    let server = pretend(|socket| answer_lines(socket, value_of));
    let report = bench(server, "--mix get --no-fill -n 200 -c 4").expect("it answers");
    assert_eq!((report.hits, report.wrong_values), (200, 200));
    assert!(!report.is_clean());
    assert!(report.to_string().contains("200 values were WRONG"), "{report}");
}

#[test]
fn refusals_are_counted_and_quoted() {
    let server =
        pretend(|socket| answer_lines(socket, |_| "SERVER_ERROR over quota\r\n".to_owned()));
    let report = bench(server, "--mix get --no-fill -n 20").expect("it answers");
    assert_eq!((report.requests, report.refused), (20, 20));
    assert_eq!(report.refusals, ["SERVER_ERROR over quota"]);
}

#[test]
fn a_refused_fill_says_why() {
    let server = pretend(|socket| {
        answer_lines(socket, |line| match line.starts_with("set ") {
            true => "CLIENT_ERROR unauthenticated\r\n".to_owned(),
            false => String::new(),
        });
    });
    let text = bench(server, "--keys 50").expect_err("nothing is stored").to_string();
    assert!(text.contains("unauthenticated") && text.contains("--username"), "{text}");
}

#[test]
fn an_answer_to_another_question_ends_the_run() {
    let server = pretend(|socket| answer_lines(socket, |_| "STORED\r\n".to_owned()));
    match bench(server, "--mix get --no-fill -n 20") {
        Err(BenchError::OutOfStep { said, .. }) => assert_eq!(said, "STORED"),
        other => panic!("wanted the end of the run, got {other:?}"),
    }
}

#[test]
fn lost_connections_are_counted_while_others_live() {
    let has_hung_up = AtomicBool::new(false);
    let server = pretend(move |socket| {
        // Only the first connection ends early.
        let mut left = if has_hung_up.swap(true, Ordering::Relaxed) { u32::MAX } else { 3 };
        let other = socket.try_clone().expect("a socket can be shared");
        answer_lines(socket, |line| {
            left -= 1;
            if left == 0 {
                other.shutdown(std::net::Shutdown::Both).expect("it is connected");
            }
            value_of(line)
        });
    });
    let report = bench(server, "--mix get --no-fill -n 500 -c 5").expect("four are left");
    assert_eq!((report.connections_lost, report.unanswered), (1, 1), "{report}");
    assert_eq!(report.requests, 499);
}

#[test]
fn the_last_connection_lost_ends_the_run() {
    let server = pretend(|mut socket| socket.write_all(b"").expect("it was just connected"));
    match bench(server, "--mix get --no-fill -n 500 -c 3") {
        Err(BenchError::AllLost { .. }) => (),
        other => panic!("wanted the end of the run, got {other:?}"),
    }
}

/// A closed loop sends nothing while the server pauses, and so sees one slow answer. At a fixed
/// rate every request that was due meanwhile must be charged for its wait.
#[test]
fn a_pause_of_the_server_is_charged_to_every_request_that_was_due() {
    let server = || {
        pretend(|socket| {
            let mut asked = 0;
            answer_lines(socket, move |line| {
                asked += 1;
                if asked == 100 {
                    thread::sleep(Duration::from_millis(400));
                }
                value_of(line)
            });
        })
    };
    let words = "--mix get --no-fill -c 1 -n 1000";
    let open = bench(server(), &format!("{words} --rate 1000")).expect("it answers");
    // 400 of 1,000 were due in the pause; a quarter of these waited for more than 300 ms.
    assert!(open.latency_us.p90 > 250_000.0, "{open}");
    let closed = bench(server(), words).expect("it answers");
    assert!(closed.latency_us.max > 350_000.0, "{closed}");
    assert!(closed.latency_us.p90 < open.latency_us.p90, "{closed}");
}

#[test]
fn all_wrong_settings_are_told_at_once() {
    let server = pretend(drop);
    let words = "--threads 0 --multiget 0 --key-size 3 --keys 99999 --rate 0";
    match bench(server, words) {
        Err(BenchError::Settings(problems)) => assert_eq!(problems.len(), 4, "{problems:?}"),
        other => panic!("wanted all problems, got {other:?}"),
    }
}
