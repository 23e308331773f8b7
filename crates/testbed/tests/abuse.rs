//! Bad input and scarce resources: a clear error each, the connection in step or closed, memory bounded,
//! and a well-behaved client beside that notices nothing.

use std::time::{Duration, Instant};
use testbed::connection::{Connection, Login};
use testbed::eventually::{DEADLINE, eventually};
use testbed::larder::Larder;
use testbed::oracle::Oracle;

/// What a passing attack may cost in memory beyond what the settings allow it.
const MEMORY_SLACK_BYTES: u64 = 48 << 20;
/// For who shall be thrown out because he does not log in: soon, and yet those who do log in are not
/// thrown out with him when the machine stands still for a moment.
const LOGIN_SECONDS: &str = "3";

#[test]
fn keys_and_values_beyond_the_limits_are_refused_in_step() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let mut client = larder.connect();
    let key = "k".repeat(251);
    let value = "x".repeat((1 << 20) + 1);
    let set = format!("{}\r\n{value}\r\n", value.len());

    client.ask(&format!("get {key}\r\n"), "CLIENT_ERROR bad command line format\r\n");
    client.ask(&format!("delete {key}\r\n"), "CLIENT_ERROR bad command line format\r\n");
    client.ask("set big 0 0 3\r\nold\r\n", "STORED\r\n");
    client.ask(&format!("set big 0 0 {set}"), "SERVER_ERROR object too large for cache\r\n");
    // The old value must not be taken for the new one.
    client.ask("get big\r\n", "END\r\n");
    client.ask("ms big 3\r\nold\r\n", "HD\r\n");
    client.ask(&format!("ms big {set}"), "SERVER_ERROR object too large for cache\r\n");
    client.ask("mg big v\r\n", "EN\r\n");
    client.ask("mn\r\n", "MN\r\n");

    let mut client = Connection::open(larder.addr);
    client.log_in_binary(&larder.login);
    client.send(&frame(0x01, &[0; 8], b"big", value.as_bytes()));
    assert_eq!(status(&mut client), 0x03);
    client.send(&frame(0x00, &[], key.as_bytes(), b""));
    assert_eq!(status(&mut client), 0x04);
    drop(client);
    oracle.finish();
}

#[test]
fn a_value_that_is_longer_than_any_memory_costs_none() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let before = larder.process.memory_bytes();
    for _ in 0..50 {
        let mut client = larder.connect();
        client.send(b"set k 0 0 2000000000\r\n");
        client.ask(&"x".repeat(1 << 20), "SERVER_ERROR object too large for cache\r\n");
    }
    for _ in 0..50 {
        let mut client = Connection::open(larder.addr);
        client.log_in_binary(&larder.login);
        // A frame that claims four gigabytes.
        let mut lie = frame(0x01, &[0; 8], b"k", b"");
        lie[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        client.send(&lie);
        // Either is fair: to refuse and throw the rest away, or to close.
        if client.try_send(&[b'x'; 1 << 20]).is_ok() {
            client.finish_sending();
            client.until_closed();
        }
    }
    assert_memory_grew_at_most(&larder, before, MEMORY_SLACK_BYTES);
    oracle.finish();
}

#[test]
fn strangers_cannot_make_us_hold_a_value() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let mut stranger = Connection::open(larder.addr);
    stranger.send(b"set somebody 0 0 1000000\r\n");
    // It may be told so at once, or after the value; in any case it is not let in.
    drop(stranger.try_send(&[b'x'; 1_000_002]));
    let said = String::from_utf8_lossy(&stranger.until_closed()).into_owned();
    assert!(said.is_empty() || said.contains("ERROR"), "{said}");
    oracle.finish();
}

#[test]
fn binary_frames_that_lie_are_refused_or_end_the_connection() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let lies: &[(&str, usize, &[u8])] = &[
        ("a key longer than the body", 2, &[0, 250]),
        ("extras longer than the body", 4, &[255]),
        ("a body shorter than its parts", 8, &[0, 0, 0, 1]),
        ("magic of an answer", 0, &[0x81]),
        ("magic of nothing", 0, &[0x00]),
        ("an unknown data type", 5, &[7]),
    ];
    for opcode in 0..=0x25 {
        for (lie, at, bytes) in lies {
            let mut client = Connection::open(larder.addr);
            client.log_in_binary(&larder.login);
            let mut sent = frame(opcode, &[0; 8], b"key", b"value");
            sent[*at..at + bytes.len()].copy_from_slice(bytes);
            client.send(&sent);
            client.finish_sending();
            // Whatever it says, it says in whole frames, and then it ends.
            let said = client.until_closed();
            assert!(are_frames(&said), "opcode {opcode:#x} with {lie}: {}", said.escape_ascii());
        }
    }
    oracle.finish();
}

#[test]
fn unknown_commands_are_errors_and_nothing_more() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let mut client = larder.connect();
    for line in ["", "foo", "GET k", "mgx k", "shutdown", "slabs reassign 1 2", "\0\u{1}\u{2}"] {
        client.send(format!("{line}\r\n").as_bytes());
        let answer = client.line();
        assert!(answer.contains("ERROR"), "{line:?} was answered {answer:?}");
    }
    client.ask("mn\r\n", "MN\r\n");
    oracle.finish();
}

#[test]
fn a_line_without_an_end_is_not_waited_for() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let before = larder.process.memory_bytes();
    for _ in 0..20 {
        let mut client = larder.connect();
        // The server may close before it has all.
        drop(client.try_send(&vec![b'x'; 4 << 20]));
        let said = String::from_utf8_lossy(&client.until_closed()).into_owned();
        assert!(said.is_empty() || said.contains("ERROR"), "{said}");
    }
    assert_memory_grew_at_most(&larder, before, MEMORY_SLACK_BYTES);
    oracle.finish();
}

#[test]
fn half_requests_are_disconnected() {
    let larder = Larder::options().setting("request_timeout_seconds", "1").start();
    let oracle = Oracle::beside(&larder);
    let halves: &[&[u8]] = &[b"ge", b"set k 0 0 10\r\nabc", b"set k 0 0 3\r\nabc", b"ms k 5\r\n1"];
    let mut clients: Vec<Connection> = halves
        .iter()
        .map(|half| {
            let mut client = larder.connect();
            client.send(half);
            client
        })
        .collect();
    let mut binary = Connection::open(larder.addr);
    binary.log_in_binary(&larder.login);
    binary.send(&frame(0x01, &[0; 8], b"k", b"value")[..30]);
    clients.push(binary);
    // A client that is merely idle stays.
    let mut idle = larder.connect();
    idle.ask("mn\r\n", "MN\r\n");
    for mut client in clients {
        client.until_closed();
    }
    idle.ask("mn\r\n", "MN\r\n");
    oracle.finish();
}

#[test]
fn idle_connections_end_when_the_setting_says_so() {
    let larder = Larder::options().setting("idle_timeout_seconds", "1").start();
    // Nobody works beside it: on a machine that stands still for a second he would be idle, too.
    larder.connect().expect_close();
}

#[test]
fn who_does_not_log_in_is_disconnected() {
    let larder = Larder::options().setting("authentication_timeout_seconds", LOGIN_SECONDS).start();
    let oracle = Oracle::beside(&larder);
    let start = Instant::now();
    let mut silent: Vec<Connection> = (0..100).map(|_| Connection::open(larder.addr)).collect();
    let mut slow = Connection::open(larder.addr);
    slow.send(b"set somebody 0 0 10\r\nabc");
    silent.push(slow);
    for mut stranger in silent {
        stranger.until_closed();
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(2_900), "they were disconnected after {took:?} already");
    oracle.finish();
}

#[test]
fn a_client_that_does_not_read_stops_only_itself() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let mut writer = larder.connect();
    let value = "x".repeat(1_000_000);
    writer.ask(&format!("set big 0 0 1000000\r\n{value}\r\n"), "STORED\r\n");
    let before = larder.process.memory_bytes();
    let deaf: Vec<Connection> = (0..8)
        .map(|_| {
            let mut client = larder.connect();
            client.set_patience(Duration::from_millis(200));
            // Asks for two gigabytes and reads nothing. That it cannot even ask any more is what shall
            // happen.
            let request = "get big\r\n".repeat(2_000);
            drop(client.try_send(request.as_bytes()));
            client
        })
        .collect();
    oracle.wait_for_rounds(20);
    // Each may keep its output limit (4 MiB by default) and what the answer in progress takes.
    assert_memory_grew_at_most(&larder, before, 8 * (6 << 20) + MEMORY_SLACK_BYTES);
    drop(deaf);
    oracle.finish();
}

#[test]
fn ten_thousand_idle_connections_cost_little() {
    const COUNT: usize = 10_000;
    // The development plan allows a thousand connections, this one twice what is needed.
    let larder = Larder::options().setting("memory_bytes", "2 GiB").start();
    larder.run(&["cache", "change-plan", &larder.cache(), "1000"]);
    let oracle = Oracle::beside(&larder);
    let before = larder.process.memory_bytes();
    let clients: Vec<Connection> = (0..COUNT).map(|_| larder.connect()).collect();
    oracle.wait_for_rounds(5);
    let per_connection = (larder.process.memory_bytes().saturating_sub(before)) / COUNT as u64;
    // Far below what one buffer each would take; performance.md's goal is measured elsewhere.
    assert!(per_connection < 12 << 10, "each idle connection costs {per_connection} bytes");
    let busy = cpu_share(&larder);
    assert!(busy < 0.5, "with idle connections {busy:.2} of a core is used");
    for mut client in clients.into_iter().step_by(500) {
        client.ask("mn\r\n", "MN\r\n");
    }
    oracle.finish();
}

#[test]
fn connections_beyond_the_plan_are_refused_with_a_reason() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let mut clients = Vec::new();
    let refusal = loop {
        let mut client = Connection::open(larder.addr);
        client.send(larder.login.text().as_bytes());
        match client.line().as_str() {
            "STORED\r\n" => clients.push(client),
            refusal => break refusal.to_owned(),
        }
    };
    assert_eq!(refusal, "SERVER_ERROR too many connections for this cache\r\n");
    // Those of the development plan, and the well-behaved client is one of them.
    assert_eq!(clients.len(), 999);
    clients.clear();
    eventually("somebody new is let in again", DEADLINE, || {
        let mut client = Connection::open(larder.addr);
        client.send(larder.login.text().as_bytes());
        (client.line() == "STORED\r\n").then_some(())
    });
    oracle.finish();
}

#[test]
fn what_is_not_tls_ends_at_the_tls_listener() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    let mut garbage: Vec<Vec<u8>> = vec![
        b"get k\r\n".to_vec(),
        b"\x80\x0a".iter().copied().chain([0; 22]).collect(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100],
        vec![0xff; 20_000],
    ];
    // The beginning of a handshake, and then something else.
    garbage
        .push([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[0xaa; 600]].concat());
    for bytes in garbage {
        let mut client = Connection::open(larder.tls_addr);
        // The server may close before it has all.
        drop(client.try_send(&bytes));
        client.until_closed();
    }
    // A client that trusts somebody else.
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("it is made");
    let file = larder.dir().path().join("other.pem");
    std::fs::write(&file, other.cert.pem()).expect("the folder is writable");
    assert!(Connection::try_open_tls(larder.tls_addr, &file).is_err());

    let mut client = Connection::open_tls(larder.tls_addr, &larder.tls_ca);
    client.ask(&larder.login.text(), "STORED\r\n");
    client.ask("mn\r\n", "MN\r\n");
    oracle.finish();
}

#[test]
fn half_a_tls_handshake_is_not_waited_for() {
    let larder = Larder::options().setting("authentication_timeout_seconds", LOGIN_SECONDS).start();
    let oracle = Oracle::beside(&larder);
    let mut clients: Vec<Connection> = (0..50).map(|_| Connection::open(larder.tls_addr)).collect();
    for client in clients.iter_mut().step_by(2) {
        client.send(b"\x16\x03\x01");
    }
    for mut client in clients {
        client.until_closed();
    }
    oracle.finish();
}

#[test]
fn wrong_passwords_in_a_loop_disturb_nobody() {
    let larder = Larder::start();
    let oracle = Oracle::beside(&larder);
    for round in 0..500 {
        let login = Login {
            username: larder.login.username.clone(),
            password: format!("wrong-password-number-{round}"),
        };
        let mut stranger = Connection::open(larder.addr);
        stranger.send(login.text().as_bytes());
        let said = String::from_utf8_lossy(&stranger.until_closed()).into_owned();
        assert!(said.starts_with("CLIENT_ERROR authentication failure"), "{said}");
        let mut stranger = Connection::open(larder.addr);
        stranger.send(&login.binary());
        assert_eq!(status(&mut stranger), 0x20);
    }
    larder.connect().ask("mn\r\n", "MN\r\n");
    oracle.finish();
}

#[test]
fn when_descriptors_run_out_those_who_are_in_stay_and_nothing_spins() {
    let larder = Larder::options().descriptors_max(512).start();
    let oracle = Oracle::beside(&larder);
    let mut strangers: Vec<Connection> =
        (0..700).filter_map(|_| Connection::try_open(larder.addr).ok()).collect();
    oracle.wait_for_rounds(10);
    let busy = cpu_share(&larder);
    assert!(busy < 0.5, "without descriptors {busy:.2} of a core is used");
    assert!(larder.process.descriptors() <= 512);
    strangers.clear();
    eventually("somebody new is let in again", DEADLINE, || {
        let mut client = Connection::try_open(larder.addr).ok()?;
        client.set_patience(Duration::from_secs(1));
        client.try_send(larder.login.text().as_bytes()).ok()?;
        (client.try_line().ok()? == "STORED\r\n").then_some(())
    });
    oracle.finish();
}

/// A binary request.
fn frame(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let key_bytes = u16::try_from(key.len()).expect("test keys are short");
    let body_bytes = u32::try_from(extras.len() + key.len() + value.len()).expect("so is the body");
    let mut frame = vec![0x80, opcode];
    frame.extend(key_bytes.to_be_bytes());
    frame.extend([u8::try_from(extras.len()).expect("extras are short"), 0, 0, 0]);
    frame.extend(body_bytes.to_be_bytes());
    frame.extend([0; 12]);
    frame.extend([extras, key, value].concat());
    frame
}

/// The status of the next binary answer, which is read to its end.
#[track_caller]
fn status(client: &mut Connection) -> u16 {
    let header = client.bytes(24);
    assert_eq!(header[0], 0x81, "an answer begins with its magic");
    let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    client.bytes(body_bytes as usize);
    u16::from_be_bytes([header[6], header[7]])
}

/// Whether the bytes are whole binary answers and nothing else.
fn are_frames(mut bytes: &[u8]) -> bool {
    while let Some((header, rest)) = bytes.split_first_chunk::<24>() {
        let body_bytes = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let Some((_, rest)) = rest.split_at_checked(body_bytes as usize) else { return false };
        if header[0] != 0x81 {
            return false;
        }
        bytes = rest;
    }
    bytes.is_empty()
}

#[track_caller]
fn assert_memory_grew_at_most(larder: &Larder, before: u64, limit: u64) {
    let grown = larder.process.memory_bytes().saturating_sub(before);
    assert!(grown <= limit, "memory grew by {} MiB", grown >> 20);
}

/// How much of one core the process uses, looked at for a moment.
fn cpu_share(larder: &Larder) -> f64 {
    const MOMENT: Duration = Duration::from_millis(500);
    let (before, began) = (larder.process.cpu_time(), Instant::now());
    // A share is of a time, so this time has to pass.
    std::thread::sleep(MOMENT);
    let used = larder.process.cpu_time() - before;
    // It may have been longer: this thread is woken when the machine has time.
    used.as_secs_f64() / began.elapsed().as_secs_f64()
}
