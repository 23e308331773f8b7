//! Any bytes, as frames of the binary dialect.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::command::Dialect;
use protocol::laws::check;
use protocol::request::Limits;

/// Small, so that values beyond it are seen.
const LIMITS: Limits = Limits { item_bytes_max: 100, is_login: false };

fuzz_target!(|bytes: &[u8]| {
    check(Dialect::Binary, bytes, &LIMITS);
    // And with the beginning that lets it get anywhere.
    check(Dialect::Binary, &[&[0x80], bytes].concat(), &LIMITS);
});
