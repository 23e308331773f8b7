//! Any bytes, as lines of the text and meta dialects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::command::Dialect;
use protocol::laws::check;
use protocol::request::Limits;

/// Small, so that values beyond it are seen.
const LIMITS: Limits = Limits { item_bytes_max: 100, is_login: false };

fuzz_target!(|bytes: &[u8]| {
    check(Dialect::Text, bytes, &LIMITS);
});
