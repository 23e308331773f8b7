//! The text dialect: `get`, `set`, `delete`, `incr`, `touch`.

use super::{Awaited, LINE_BYTES_MAX, Piece, Scan};
use crate::items::VALUE_BYTES_MAX;
use crate::mix::Act;
use std::io::Write as _;

pub(super) fn line(out: &mut Vec<u8>, before: &[u8], key: &[u8], after: &[u8]) {
    out.reserve(before.len() + key.len() + after.len());
    out.extend_from_slice(before);
    out.extend_from_slice(key);
    out.extend_from_slice(after);
}

pub(super) fn set(key: &[u8], len: usize, ttl: u32, out: &mut Vec<u8>) {
    line(out, b"set ", key, b" 0 ");
    number(u64::from(ttl), out);
    out.push(b' ');
    number(len as u64, out);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn touch(key: &[u8], ttl: u32, out: &mut Vec<u8>) {
    line(out, b"touch ", key, b" ");
    number(u64::from(ttl), out);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub(super) fn number(number: u64, out: &mut Vec<u8>) {
    // The commonest number by far is the TTL 0.
    if number < 10 {
        out.push(b'0' + number as u8);
    } else {
        write!(out, "{number}").expect("a vector takes all that is written");
    }
}

pub(super) fn scan(awaited: Awaited, bytes: &[u8]) -> Scan<'_> {
    let (line, consumed) = match split_line(bytes) {
        Ok(found) => found,
        Err(scan) => return scan,
    };
    if let (Awaited::One | Awaited::Many, Some(head)) = (awaited, line.strip_prefix(b"VALUE ")) {
        return value(head, consumed, bytes);
    }
    let piece = match (awaited, line) {
        (Awaited::One | Awaited::Many, b"END") => Piece::End,
        (Awaited::Change(Act::Set), b"STORED")
        | (Awaited::Change(Act::Delete), b"DELETED")
        | (Awaited::Change(Act::Touch), b"TOUCHED") => Piece::Done,
        (Awaited::Change(Act::Delete | Act::Incr | Act::Touch), b"NOT_FOUND") => Piece::Missing,
        (Awaited::Change(Act::Incr), number) if is_number(number) => Piece::Number,
        (_, line) if is_refusal(line) => Piece::Refused(line),
        _ => return Scan::Wrong,
    };
    Scan::Piece { piece, consumed }
}

/// `VALUE <key> <flags> <bytes> [<cas>]`, the value, and a line end; `head` is what follows the
/// first word, `consumed` the length of the whole line.
fn value<'a>(head: &'a [u8], consumed: usize, bytes: &'a [u8]) -> Scan<'a> {
    let mut words = head.split(|&byte| byte == b' ');
    let (Some(key), Some(_flags), Some(len)) = (words.next(), words.next(), words.next()) else {
        return Scan::Wrong;
    };
    match parse_len(len) {
        Some(len) => block(key, len, consumed, bytes),
        None => Scan::Wrong,
    }
}

/// A value of `len` bytes that begins at `start`, and its line end.
pub(super) fn block<'a>(key: &'a [u8], len: usize, start: usize, bytes: &'a [u8]) -> Scan<'a> {
    let end = start + len;
    match bytes.get(start..end + 2) {
        None => Scan::NeedMore,
        Some(block) => match block.strip_suffix(b"\r\n") {
            Some(data) => Scan::Piece { piece: Piece::Value { key, data }, consumed: end + 2 },
            None => Scan::Wrong,
        },
    }
}

/// A line without its end, and how many bytes it took with it.
pub(super) fn split_line(bytes: &[u8]) -> Result<(&[u8], usize), Scan<'_>> {
    let window = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    match memchr::memchr(b'\n', window) {
        Some(end) => match bytes[..end].strip_suffix(b"\r") {
            Some(line) => Ok((line, end + 1)),
            None => Err(Scan::Wrong),
        },
        None if window.len() == LINE_BYTES_MAX => Err(Scan::Wrong),
        None => Err(Scan::NeedMore),
    }
}

/// A length, if it is one and not beyond what any server may say.
pub(super) fn parse_len(digits: &[u8]) -> Option<usize> {
    // Seven digits hold the maximum; more would only overflow.
    if digits.is_empty() || digits.len() > 7 || !is_number(digits) {
        return None;
    }
    let len = digits.iter().fold(0, |len, &digit| len * 10 + u32::from(digit - b'0'));
    (len <= VALUE_BYTES_MAX).then_some(len as usize)
}

pub(super) fn is_refusal(line: &[u8]) -> bool {
    line == b"ERROR"
        || line == b"NOT_STORED"
        || line.starts_with(b"CLIENT_ERROR")
        || line.starts_with(b"SERVER_ERROR")
}

fn is_number(digits: &[u8]) -> bool {
    // memcached pads a number that became shorter with spaces, but only in its store.
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(awaited: Awaited, reply: &[u8], piece: Piece<'_>) {
        // Every shorter beginning must ask for more, and bytes that follow must be left alone.
        for end in 0..reply.len() {
            assert_eq!(scan(awaited, &reply[..end]), Scan::NeedMore, "cut at {end}");
        }
        let followed = [reply, b"more"].concat();
        assert_eq!(scan(awaited, &followed), Scan::Piece { piece, consumed: reply.len() });
    }

    #[test]
    fn a_value_is_read_whole() {
        let piece = Piece::Value { key: b"k", data: b"a\r\nb" };
        check(Awaited::One, b"VALUE k 0 4\r\na\r\nb\r\n", piece);
    }

    #[test]
    fn each_change_has_its_own_word() {
        check(Awaited::Change(Act::Set), b"STORED\r\n", Piece::Done);
        check(Awaited::Change(Act::Delete), b"DELETED\r\n", Piece::Done);
        check(Awaited::Change(Act::Touch), b"TOUCHED\r\n", Piece::Done);
        check(Awaited::Change(Act::Incr), b"18446744073709551615\r\n", Piece::Number);
        check(Awaited::Change(Act::Incr), b"NOT_FOUND\r\n", Piece::Missing);
        check(Awaited::Many, b"END\r\n", Piece::End);
    }

    #[test]
    fn a_refusal_keeps_the_servers_words() {
        let words = b"SERVER_ERROR out of memory storing object";
        check(Awaited::Change(Act::Set), &[words, &b"\r\n"[..]].concat(), Piece::Refused(words));
    }

    #[test]
    fn an_answer_to_something_else_is_wrong() {
        assert_eq!(scan(Awaited::Change(Act::Set), b"DELETED\r\n"), Scan::Wrong);
        assert_eq!(scan(Awaited::One, b"STORED\r\n"), Scan::Wrong);
        assert_eq!(scan(Awaited::One, b"VALUE k 0 99999999\r\n"), Scan::Wrong);
        assert_eq!(scan(Awaited::One, b"VALUE k 0 1\r\nabc"), Scan::Wrong);
    }

    #[test]
    fn requests_are_written_as_the_protocol_says() {
        let mut out = Vec::new();
        set(b"k", 120, 9, &mut out);
        touch(b"k", 60, &mut out);
        assert_eq!(out, b"set k 0 9 120\r\ntouch k 60\r\n");
    }
}
