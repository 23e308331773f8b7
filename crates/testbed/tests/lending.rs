//! Memory that one cache does not use is lent to others, and is there again when its owner comes.

use testbed::connection::{Connection, Login};
use testbed::larder::Larder;

const MIB: u64 = 1 << 20;
/// Guarantee of each of two caches; together, with allowance for overhead, nearly all the memory.
const PLAN: &str = "dev";
const PLAN_BYTES: u64 = 25 * MIB;
const MEMORY: &str = "64MiB";
const VALUE: [u8; 2_000] = [b'v'; 2_000];

#[test]
fn a_quiet_cache_gets_its_guarantee_while_a_noisy_one_borrows() {
    let larder = Larder::options().argument("--memory").argument(MEMORY).start();
    let mut noisy = larder.connect();
    larder.run(&["cache", "create", "quiet", "--plan", PLAN]);
    let made = larder.run(&["credential", "add", "quiet"]);
    let login = Login::told(&made);
    let mut quiet = Connection::open_as(larder.addr, &login);

    // The noisy cache writes more than there is memory, so it borrows what there is.
    let (mut next, more) = (0, 40_000);
    set(&mut noisy, next..more);
    next = more;
    let held = noisy.statistics()["bytes"];
    assert_eq!(noisy.statistics()["limit_maxbytes"], PLAN_BYTES);
    assert!(held > PLAN_BYTES * 5 / 4, "it borrowed nothing: {held} bytes");

    // The quiet one comes for what it pays for, while the noisy one goes on.
    let items = (PLAN_BYTES * 97 / 100) / (VALUE.len() as u64 + 10);
    for begin in (0..items).step_by(1_000) {
        set(&mut quiet, begin..(begin + 1_000).min(items));
        set(&mut noisy, next..next + 1_000);
        next += 1_000;
    }
    assert_eq!(quiet.statistics()["evictions"], 0, "it evicted what it pays for");
    assert_eq!(quiet.statistics()["curr_items"], items);
    for number in (0..items).step_by(97) {
        quiet.send(format!("mg {} s\r\n", key(number)).as_bytes());
        assert_eq!(quiet.line().trim_end(), "HD s2000");
    }
    // And the other keeps what it pays for.
    let left = noisy.statistics()["bytes"];
    assert!(left >= PLAN_BYTES * 97 / 100, "{left} bytes are less than its guarantee");
}

/// Keys of ten bytes.
fn key(number: u64) -> String {
    format!("k:{number:08}")
}

/// Stores these keys and waits until it is done.
fn set(connection: &mut Connection, numbers: std::ops::Range<u64>) {
    let mut request = Vec::new();
    for number in numbers {
        let head = format!("set {} 0 0 {} noreply\r\n", key(number), VALUE.len());
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(&VALUE);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"mn\r\n");
    connection.send(&request);
    connection.expect(b"MN\r\n");
}
