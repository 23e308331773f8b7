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
    const UNCHECKED: [u8; 7] = [STAT, 0x1b, 0x1c, 0x1d, 0x1e, 0x23, 0x24];
    const INVALID_ARGUMENTS: [u8; 2] = [0, 4];
    match (&memcached.words[..], &larder.words[..]) {
        (
            [_, opaque, ..],
            [Word::Exact([0x81, opcode, _, _, _, _, status @ .., _, _, _, _]), same, ..],
        ) => opaque == same && UNCHECKED.contains(opcode) && *status == INVALID_ARGUMENTS,
        _ => false,
    }
}

/// Whether memcached goes on with the statistics that Larder, in its last answer, refused: they are a
/// frame each, and the first was compared with the refusal, after which Larder closes.
pub fn is_more_statistics(memcached: &Reply<'_>, last_of_larder: &Reply<'_>) -> bool {
    let is_statistics =
        |reply: &Reply<'_>| matches!(reply.words.first(), Some(Word::Exact([0x81, STAT, ..])));
    is_statistics(memcached) && refuses_value(memcached, last_of_larder)
}

/// The opcode of statistics.
const STAT: u8 = 0x10;

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

#[cfg(test)]
mod tests {
    use super::is_more_statistics;
    use crate::differential::reply::Reader;
    use std::collections::HashMap;

    #[test]
    fn only_the_statistics_that_were_refused_may_follow() {
        check(0x10, 7, 4, true);
        check(0x10, 8, 4, false); // of another request
        check(0x10, 7, 0, false); // Larder did not refuse
        check(0x1c, 7, 4, false); // no statistics
    }

    #[track_caller]
    fn check(opcode: u8, opaque: u32, larder_says: u16, expected: bool) {
        let (one, two) = (frame(0x10, opaque, 0), frame(opcode, 7, larder_says));
        let one = if opcode == 0x10 { one } else { frame(opcode, opaque, 0) };
        let (mut first, mut second) = (Reader::default(), Reader::default());
        let (one, two) =
            (first.binary(&one, &HashMap::new()), second.binary(&two, &HashMap::new()));
        assert_eq!(is_more_statistics(&one[0], &two[0]), expected);
    }

    fn frame(opcode: u8, opaque: u32, status: u16) -> Vec<u8> {
        let mut bytes = vec![0x81, opcode, 0, 0, 0, 0];
        bytes.extend(status.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(opaque.to_be_bytes());
        bytes.extend([0; 8]);
        bytes
    }
}
