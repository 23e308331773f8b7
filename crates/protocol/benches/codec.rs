//! What a request costs the codec: the commonest requests decoded, the commonest outcomes encoded.
//!
//! `cargo bench -p protocol`. Times are only comparable on an idle machine; instructions are always, and
//! `cargo xtask instructions` counts them: with `COUNTED` and `TIMES` in the environment this program
//! does that one thing so many times and nothing else.

use std::env;
use std::hint::black_box;

use criterion::{Criterion, criterion_group};
use protocol::command::Dialect;
use protocol::decode::decode;
use protocol::key_room::KeyRoom;
use protocol::operation::{Hit, Key, Lease, StoreOutcome};
use protocol::reply::Reply;
use protocol::request::{Decoded, Limits};

const LIMITS: Limits = Limits { item_bytes_max: 1024 * 1024, is_login: false };

const VALUE_BYTES: usize = 100;

/// One request each, as sent: name, dialect, bytes.
fn requests() -> Vec<(&'static str, Dialect, Vec<u8>)> {
    let value = "v".repeat(VALUE_BYTES);
    let text = |line: String| line.into_bytes();
    vec![
        ("text_get", Dialect::Text, text("get user:profile:123456\r\n".to_owned())),
        ("text_get_many", Dialect::Text, text(format!("get{}\r\n", " user:profile:12".repeat(10)))),
        (
            "text_set",
            Dialect::Text,
            text(format!("set user:profile:123456 0 60 100\r\n{value}\r\n")),
        ),
        ("text_incr", Dialect::Text, text("incr user:profile:123456 1\r\n".to_owned())),
        ("meta_get", Dialect::Text, text("mg user:profile:123456 v\r\n".to_owned())),
        ("meta_get_flags", Dialect::Text, text("mg user:profile:123456 v f c Oab1\r\n".to_owned())),
        ("meta_get_base64", Dialect::Text, text("mg dXNlcjpwcm9maWxlOjEy b v\r\n".to_owned())),
        ("meta_set", Dialect::Text, text(format!("ms user:profile:123456 100 T60\r\n{value}\r\n"))),
        ("binary_get", Dialect::Binary, frame(0x00, &[], &[])),
        ("binary_set", Dialect::Binary, frame(0x01, &[0; 8], value.as_bytes())),
    ]
}

fn frame(opcode: u8, extras: &[u8], value: &[u8]) -> Vec<u8> {
    let key = b"user:profile:123456";
    let body = u32::try_from(extras.len() + key.len() + value.len()).expect("short");
    let mut frame = vec![0; 24];
    frame[0] = 0x80;
    frame[1] = opcode;
    frame[3] = u8::try_from(key.len()).expect("short");
    frame[4] = u8::try_from(extras.len()).expect("short");
    frame[8..12].copy_from_slice(&body.to_be_bytes());
    [frame.as_slice(), extras, key, value].concat()
}

fn decoding(criterion: &mut Criterion) {
    let mut room = KeyRoom::new();
    for (name, dialect, bytes) in requests() {
        criterion.bench_function(&format!("decode/{name}"), |bencher| {
            bencher.iter(|| {
                let decoded = decode(black_box(dialect), black_box(&bytes), &LIMITS, &room);
                assert!(matches!(black_box(decoded), Decoded::Complete(..)));
                room.clear();
            });
        });
    }
}

fn encoding(criterion: &mut Criterion) {
    let value = [b'v'; VALUE_BYTES];
    let mut out = Vec::with_capacity(4096);
    for (name, dialect, bytes) in requests() {
        let room = KeyRoom::new();
        let reply = reply_of(dialect, &bytes, &room);
        criterion.bench_function(&format!("encode/{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                answer(name, black_box(&reply), &value, &mut out);
                black_box(&out);
            });
        });
    }
}

fn reply_of<'a>(dialect: Dialect, bytes: &'a [u8], room: &'a KeyRoom) -> Reply<'a> {
    match decode(dialect, bytes, &LIMITS, room) {
        Decoded::Complete(request, _) => request.reply,
        Decoded::NeedMore { .. } | Decoded::Wrong(_) => panic!("a whole request"),
    }
}

criterion_group!(benches, decoding, encoding);

fn main() {
    let word = |name| env::var(name).ok();
    match (word("COUNTED"), word("TIMES").and_then(|times| times.parse().ok())) {
        (Some(name), Some(times)) => count(&name, times),
        _ => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}

/// Decodes the request of this name and encodes its answer, so many times.
fn count(name: &str, times: u32) {
    let found = requests().into_iter().find(|(known, ..)| *known == name);
    let (_, dialect, bytes) = found.expect("a name from the list above");
    let mut room = KeyRoom::new();
    let mut out = Vec::with_capacity(4096);
    let value = [b'v'; VALUE_BYTES];
    for _ in 0..times {
        out.clear();
        room.clear();
        let decoded = decode(black_box(dialect), black_box(&bytes), &LIMITS, &room);
        let Decoded::Complete(request, _) = decoded else { panic!("a whole request") };
        answer(name, &request.reply, &value, &mut out);
        black_box(&out);
    }
}

fn answer(name: &str, reply: &Reply<'_>, value: &[u8], out: &mut Vec<u8>) {
    let key = Key::new(b"user:profile:123456").expect("a short key");
    if name.contains("set") {
        let stored = StoreOutcome::Stored { cas: 123_456, value_bytes: 100 };
        reply.store(out, key, black_box(stored));
    } else {
        reply.get(out, key, black_box(&Some(hit(value))));
    }
}

fn hit(value: &[u8]) -> Hit<'_> {
    Hit {
        value,
        flags: 0,
        cas: 123_456,
        ttl_seconds: Some(60),
        read_before: true,
        idle_seconds: 1,
        lease: Lease::default(),
    }
}
