//! Any bytes, as a SASL PLAIN message and as the value of a first `set`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::command::Dialect;
use protocol::decode::decode;
use protocol::key_room::KeyRoom;
use protocol::request::{Body, Decoded, Limits};
use protocol::sasl::{Candidate, SECRET_BYTES_MAX, candidates_of_store, plain};

const LIMITS: Limits = Limits { item_bytes_max: 4096, is_login: true };

fuzz_target!(|bytes: &[u8]| {
    if let Some(candidate) = plain(bytes) {
        is_sensible(candidate);
        let parts = [candidate.username, candidate.password];
        assert!(bytes.ends_with(&parts.join(&0)), "the parts are those of the message");
    }
    let set = [format!("set key 0 0 {}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let room = KeyRoom::new();
    if let Decoded::Complete(request, _) = decode(Dialect::Text, &set, &LIMITS, &room) {
        let Body::Store(store) = request.body else {
            panic!("a set stores");
        };
        candidates_of_store(&store).for_each(is_sensible);
    }
});

fn is_sensible(candidate: Candidate<'_>) {
    for part in [candidate.username, candidate.password] {
        assert!((1..=SECRET_BYTES_MAX).contains(&part.len()));
    }
}
