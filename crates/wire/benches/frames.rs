//! What a get costs in frames: its request encoded and decoded, its reply encoded and decoded.
//!
//! `cargo bench -p wire --bench frames` prints nanoseconds. For instructions, run the program that it
//! builds under callgrind twice, with 10,000 and 20,000 gets as its argument, and take the difference.
#![expect(clippy::print_stdout, reason = "prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use cluster::map::Epoch;
use cluster::slot::Slot;
use protocol::operation::{Get, Hit, Key, Lease};
use tenancy::id::CacheId;
use wire::data::frame::{Decoded, Seal};
use wire::data::operation::Operation;
use wire::data::reply::{Answer, Outcome, Reply, ReplyHeader};
use wire::data::request::{HOPS_MAX, Request, RequestHeader};

/// Frames in one buffer, as they lie there when 16 requests are in flight.
const BATCH: u64 = 16;

fn main() {
    let asked = std::env::args().filter_map(|argument| argument.parse::<u64>().ok()).next();
    let gets = asked.unwrap_or(2_000_000);
    let value = vec![b'x'; 100];
    for seal in [Seal::Checksum, Seal::Tls] {
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        let mut id = 0;
        while id < gets {
            requests.clear();
            replies.clear();
            for _ in 0..BATCH {
                id += 1;
                request(id).encode(&mut requests, seal);
            }
            let mut rest = &requests[..];
            while let Ok(Decoded::Complete { frame, consumed }) = Request::decode(rest, seal) {
                let header = ReplyHeader { id: frame.header.id, cache: frame.header.cache };
                let answer = Answer::Done(Outcome::Get(Some(hit(&value))));
                Reply { header, answer }.encode(&mut replies, seal);
                rest = &rest[consumed..];
            }
            let mut rest = &replies[..];
            while let Ok(Decoded::Complete { frame, consumed }) = Reply::decode(rest, seal) {
                black_box(&frame);
                rest = &rest[consumed..];
            }
        }
        let nanoseconds = begun.elapsed().as_nanos() as f64 / id as f64;
        println!("{seal:?}: {nanoseconds:.0} ns per get of 100 bytes, both frames, both ways");
    }
}

fn request(id: u64) -> Request<'static> {
    Request {
        header: RequestHeader {
            id,
            cache: CacheId::new(7),
            epoch: Epoch::FIRST,
            deadline_ms: 500,
            slot: Slot::new(12_345).expect("there are more"),
            hops_left: HOPS_MAX,
            token: None,
        },
        operation: Operation::Get(Get::plain(Key::new(b"user:42:profile").expect("a good key"))),
    }
}

fn hit(value: &[u8]) -> Hit<'_> {
    Hit {
        value,
        flags: 0,
        cas: 99,
        ttl_seconds: None,
        read_before: true,
        idle_seconds: 3,
        lease: Lease::default(),
    }
}
