//! Lines that begin with a meta command: any bytes are keys, flags and values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::command::Dialect;
use protocol::laws::check;
use protocol::request::Limits;

/// Small, so that values beyond it are seen.
const LIMITS: Limits = Limits { item_bytes_max: 100, is_login: false };

const COMMANDS: [&[u8]; 6] = [b"mg ", b"ms ", b"md ", b"ma ", b"me ", b"mn "];

fuzz_target!(|bytes: &[u8]| {
    let Some((chosen, rest)) = bytes.split_first() else {
        return;
    };
    let command = COMMANDS[usize::from(*chosen) % COMMANDS.len()];
    check(Dialect::Text, &[command, rest].concat(), &LIMITS);
});
