//! What holds for every input: laws that property tests and fuzzers check.
//!
//! Only for tests, so it is behind the feature `transcript`. Each law panics when it is broken.

use crate::binary::HEADER_BYTES;
use crate::command::{Dialect, Needs};
use crate::decode::decode;
use crate::key_room::KeyRoom;
use crate::operation::{
    ArithmeticOutcome, DeleteOutcome, Hit, KEY_BYTES_MAX, Key, Lease, StoreOutcome, TouchOutcome,
};
use crate::reply::{Refusal, Reply};
use crate::request::{
    Body, Decoded, LINE_BYTES_MAX, Limits, Problem, RETRIEVAL_LINE_BYTES_MAX, Request,
};

/// Decodes `bytes` to their end as a connection would, and checks every law on the way. Returns how
/// many whole requests there were.
pub fn check(dialect: Dialect, bytes: &[u8], limits: &Limits) -> usize {
    let mut rest = bytes;
    let mut requests = 0;
    let mut room = KeyRoom::new();
    loop {
        prefixes_agree(dialect, rest, limits);
        let taken = match decode(dialect, rest, limits, &room) {
            Decoded::Complete(request, consumed) => {
                assert!(0 < consumed && consumed <= rest.len(), "a request takes what is there");
                operands_are_within_limits(&request, limits);
                answers_are_whole(dialect, &request.reply);
                requests += 1;
                consumed
            }
            Decoded::NeedMore { .. } => return requests,
            Decoded::Wrong(wrong) => {
                answers_are_whole(dialect, &wrong.reply);
                if wrong.close {
                    return requests;
                }
                assert!(
                    0 < wrong.consumed && wrong.consumed <= rest.len(),
                    "a refused request takes what is there"
                );
                let after = rest.len() - wrong.consumed;
                wrong.consumed + after.min(usize::try_from(wrong.skip).unwrap_or(usize::MAX))
            }
        };
        rest = &rest[taken..];
        room.clear();
    }
}

/// However much of a request has come, the decoder either waits or finds what it finds in the whole;
/// and it never waits for less than it has, nor for more than the limits allow.
fn prefixes_agree(dialect: Dialect, bytes: &[u8], limits: &Limits) {
    let mut room = KeyRoom::new();
    let whole = format!("{:?}", decode(dialect, bytes, limits, &room));
    let mut wanted = 0;
    for length in prefix_lengths(bytes.len()) {
        room.clear();
        match decode(dialect, &bytes[..length], limits, &room) {
            Decoded::NeedMore { bytes_total } => {
                assert!(length < bytes_total, "waits for what it has");
                assert!(bytes_total <= bytes_total_max(limits), "waits for more than the limits");
                wanted = wanted.max(bytes_total);
            }
            found @ (Decoded::Complete(..) | Decoded::Wrong(_)) => {
                assert_eq!(format!("{found:?}"), whole, "the first {length} bytes disagree");
                assert!(wanted <= length, "waited for {wanted} bytes, needed {length}");
                return;
            }
        }
    }
}

/// All of a short input, and of a long one its beginning and some of the rest.
fn prefix_lengths(length: usize) -> impl Iterator<Item = usize> {
    const LOOKED_AT_CLOSELY: usize = 256;
    let step = length.div_ceil(LOOKED_AT_CLOSELY).max(1);
    (0..length.min(LOOKED_AT_CLOSELY)).chain((0..length).step_by(step)).chain([length])
}

fn bytes_total_max(limits: &Limits) -> usize {
    let line = LINE_BYTES_MAX.max(RETRIEVAL_LINE_BYTES_MAX.min(limits.item_bytes_max as usize));
    let header = LINE_BYTES_MAX.max(HEADER_BYTES + KEY_BYTES_MAX + usize::from(u8::MAX));
    let message = crate::sasl::MESSAGE_BYTES_MAX;
    let line_end = 2;
    line.max(header + message.max(limits.item_bytes_max as usize) + line_end)
}

fn operands_are_within_limits(request: &Request<'_>, limits: &Limits) {
    let is_key = |key: Key<'_>| (1..=KEY_BYTES_MAX).contains(&key.bytes().len());
    match request.body {
        Body::GetMany { keys, .. } => {
            assert!(1 < keys.count() && { keys }.all(is_key), "keys of a get");
        }
        Body::Get(get) => {
            assert!(is_key(get.key));
            let changes =
                get.touch.is_some() || get.vivify.is_some() || get.recache_below_seconds.is_some();
            assert!(!changes || request.needs == Needs::Write, "a change needs a capability");
        }
        Body::Store(store) => {
            assert!(is_key(store.key));
            let item_bytes = store.key.bytes().len() + store.value.len();
            assert!(item_bytes <= limits.item_bytes_max as usize, "an item beyond the limit");
        }
        Body::Delete(delete) => assert!(is_key(delete.key)),
        Body::Arithmetic(arithmetic) => assert!(is_key(arithmetic.key)),
        Body::Touch(touch) => assert!(is_key(touch.key)),
        Body::Peek(key) => assert!(is_key(key)),
        Body::Flush { delay } => assert!(0 <= delay.0, "a flush in the past is one now"),
        Body::Stats { .. }
        | Body::Version
        | Body::Verbosity
        | Body::Noop
        | Body::Quit
        | Body::SaslMechanisms
        | Body::Sasl { .. }
        | Body::NotOffered => (),
    }
}

/// Whatever the outcome, the answer is whole lines or whole frames.
fn answers_are_whole(dialect: Dialect, reply: &Reply<'_>) {
    let key = Key::new(b"key").expect("it has three bytes");
    let hit = Hit {
        value: b"value\n",
        flags: u32::MAX,
        cas: u64::MAX,
        ttl_seconds: Some(u32::MAX),
        read_before: true,
        idle_seconds: u32::MAX,
        lease: Lease { won: true, stale: true, taken: true },
    };
    let stored = StoreOutcome::Stored { cas: 1, value_bytes: 1 };
    let counted = ArithmeticOutcome::Counted { number: u64::MAX, cas: 1, ttl_seconds: None };
    let mut answers = Vec::new();
    let mut check = |say: &dyn Fn(&mut Vec<u8>)| {
        answers.clear();
        say(&mut answers);
        match dialect {
            Dialect::Text => {
                assert!(answers.is_empty() || answers.ends_with(b"\r\n"), "{answers:?}");
            }
            Dialect::Binary => frames_are_whole(&answers),
        }
    };
    check(&|out| reply.get(out, key, &Some(hit)));
    check(&|out| reply.get(out, key, &None));
    check(&|out| reply.item(out, key, &hit));
    check(&|out| reply.items_end(out));
    for outcome in [
        stored,
        StoreOutcome::NotStored,
        StoreOutcome::Exists,
        StoreOutcome::NotFound,
        StoreOutcome::TooLarge,
        StoreOutcome::OutOfMemory,
    ] {
        check(&|out| reply.store(out, key, outcome));
    }
    for outcome in [DeleteOutcome::Deleted, DeleteOutcome::NotFound, DeleteOutcome::Exists] {
        check(&|out| reply.delete(out, key, outcome));
    }
    for outcome in [
        counted,
        ArithmeticOutcome::NotFound,
        ArithmeticOutcome::NotNumeric,
        ArithmeticOutcome::Exists,
        ArithmeticOutcome::OutOfMemory,
    ] {
        check(&|out| reply.arithmetic(out, key, outcome));
    }
    for outcome in [TouchOutcome::Touched { cas: 1, flags: 2 }, TouchOutcome::NotFound] {
        check(&|out| reply.touch(out, key, outcome));
    }
    check(&|out| reply.peek(out, key, Some(&hit)));
    check(&|out| reply.peek(out, key, None));
    check(&|out| reply.ok(out));
    check(&|out| reply.version(out, "1.6.45"));
    check(&|out| reply.noop(out));
    check(&|out| reply.quit(out));
    check(&|out| reply.stat(out, "name", "value"));
    check(&|out| reply.stats_end(out));
    check(&|out| reply.stats_reset(out));
    check(&|out| reply.stats_unknown(out));
    check(&|out| reply.sasl_mechanisms(out));
    check(&|out| reply.sasl_continue(out));
    check(&|out| reply.authenticated(out));
    for refusal in [
        Refusal::Unauthenticated,
        Refusal::AuthenticationFailed,
        Refusal::Capability(Needs::Write),
        Refusal::NotOffered,
        Refusal::Limit("too many requests"),
    ] {
        check(&|out| reply.refused(out, refusal));
    }
    for problem in [
        Problem::UnknownCommand,
        Problem::BadFormat,
        Problem::Line("CLIENT_ERROR line"),
        Problem::BadDataChunk,
        Problem::TooLarge,
        Problem::OutOfStep,
    ] {
        check(&|out| reply.wrong(out, problem));
    }
}

fn frames_are_whole(mut answers: &[u8]) {
    while let Some((header, rest)) = answers.split_first_chunk::<HEADER_BYTES>() {
        let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let key = usize::from(u16::from_be_bytes([header[2], header[3]]));
        assert!(key + usize::from(header[4]) <= body && body <= rest.len(), "{answers:?}");
        answers = &rest[body..];
    }
    assert!(answers.is_empty(), "half a frame: {answers:?}");
}
