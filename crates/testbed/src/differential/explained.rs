//! Differences that are meant, each with its reason; whatever is not here is a mistake.
//!
//! For people these are argued in `docs/compatibility.md`.

use crate::differential::reply::{Apart, Reply, Word};

/// The reason why memcached's answer and Larder's may differ as they do, if there is one.
pub fn explained(memcached: &Reply<'_>, larder: &Reply<'_>, apart: Apart) -> Option<&'static str> {
    if refuses_value(memcached, larder) {
        return Some(VALUE_REFUSED);
    }
    let (one, two) = (without_key(memcached), without_key(larder));
    let is_meta = [&b"HD"[..], b"VA", b"ME"].contains(&memcached.verb());
    let alike =
        one.len() == two.len() && one.iter().zip(&two).all(|(one, two)| one.agrees(two, apart));
    (is_meta && alike).then_some(KEY_FORM)
}

const KEY_FORM: &str =
    "memcached repeats a key in the form it was stored in, Larder in the form it was asked in";

const VALUE_REFUSED: &str =
    "a binary touch, verbosity or stat that brings a value: memcached lets it, Larder refuses it";

/// Larder says "invalid arguments" to a binary command of which memcached does not check all lengths.
fn refuses_value(memcached: &Reply<'_>, larder: &Reply<'_>) -> bool {
    const UNCHECKED: [u8; 7] = [0x10, 0x1b, 0x1c, 0x1d, 0x1e, 0x23, 0x24];
    const INVALID_ARGUMENTS: [u8; 2] = [0, 4];
    match (&memcached.words[..], &larder.words[..]) {
        (
            [_, opaque, ..],
            [Word::Exact([0x81, opcode, _, _, _, _, status @ .., _, _, _, _]), same, ..],
        ) => opaque == same && UNCHECKED.contains(opcode) && *status == INVALID_ARGUMENTS,
        _ => false,
    }
}

/// A binary answer that says that nobody has logged in (status 0x20).
pub fn is_failed_login(reply: &Reply<'_>) -> bool {
    const AUTHENTICATION_ERROR: [u8; 2] = [0, 0x20];
    matches!(
        &reply.words[..],
        [Word::Exact([0x81, _, _, _, _, _, status @ .., _, _, _, _]), ..]
            if *status == AUTHENTICATION_ERROR
    )
}

/// A meta answer without the key and the flag that says how it is written.
fn without_key<'a>(reply: &'a Reply<'_>) -> Vec<&'a Word<'a>> {
    let is_key = |(at, word): &(usize, &Word<'_>)| {
        let Word::Exact(bytes) = word else { return false };
        bytes.starts_with(b"k") || *bytes == b"b" || (reply.verb() == b"ME" && *at == 1)
    };
    reply.words.iter().enumerate().filter(|word| !is_key(word)).map(|(_, word)| word).collect()
}
