//! The meta dialect: `mg`, `ms`, `md`, `ma`, and `mg` with `T` for a touch.

use super::text::{block, is_refusal, line, number, parse_len, split_line};
use super::{Awaited, Piece, Scan};
use crate::mix::Act;

pub(super) fn set(key: &[u8], len: usize, ttl: u32, out: &mut Vec<u8>) {
    line(out, b"ms ", key, b" ");
    number(len as u64, out);
    if ttl > 0 {
        out.extend_from_slice(b" T");
        number(u64::from(ttl), out);
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn touch(key: &[u8], ttl: u32, out: &mut Vec<u8>) {
    line(out, b"mg ", key, b" T");
    number(u64::from(ttl), out);
    out.extend_from_slice(b"\r\n");
}

pub(super) fn scan(awaited: Awaited, bytes: &[u8]) -> Scan<'_> {
    let (line, consumed) = match split_line(bytes) {
        Ok(found) => found,
        Err(scan) => return scan,
    };
    let piece = match (awaited, line) {
        (Awaited::One, b"EN") | (Awaited::Change(Act::Touch), b"EN") => Piece::Missing,
        (Awaited::Change(Act::Delete | Act::Incr), b"NF") => Piece::Missing,
        (Awaited::Many, b"MN") => Piece::End,
        (Awaited::Change(Act::Set | Act::Delete | Act::Touch), b"HD") => Piece::Done,
        (Awaited::One | Awaited::Many | Awaited::Change(Act::Incr), line) => {
            match line.strip_prefix(b"VA ") {
                Some(head) => return value(awaited, head, consumed, bytes),
                None if is_refusal(line) => Piece::Refused(line),
                None => return Scan::Wrong,
            }
        }
        (Awaited::Change(_), b"NS" | b"NF" | b"EX") => Piece::Refused(line),
        (Awaited::Change(_), line) if is_refusal(line) => Piece::Refused(line),
        (Awaited::Change(_), _) => return Scan::Wrong,
    };
    Scan::Piece { piece, consumed }
}

/// `VA <bytes> [k<key>]`, the value, and a line end.
fn value<'a>(awaited: Awaited, head: &'a [u8], consumed: usize, bytes: &'a [u8]) -> Scan<'a> {
    let mut words = head.split(|&byte| byte == b' ');
    let Some(len) = words.next().and_then(parse_len) else { return Scan::Wrong };
    let key = words.find_map(|word| word.strip_prefix(b"k")).unwrap_or(b"");
    match (awaited, block(key, len, consumed, bytes)) {
        (Awaited::Change(_), Scan::Piece { consumed, .. }) => {
            Scan::Piece { piece: Piece::Number, consumed }
        }
        (_, scan) => scan,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(awaited: Awaited, reply: &[u8], piece: Piece<'_>) {
        for end in 0..reply.len() {
            assert_eq!(scan(awaited, &reply[..end]), Scan::NeedMore, "cut at {end}");
        }
        assert_eq!(scan(awaited, reply), Scan::Piece { piece, consumed: reply.len() });
    }

    #[test]
    fn a_value_may_repeat_its_key() {
        check(Awaited::One, b"VA 2\r\nab\r\n", Piece::Value { key: b"", data: b"ab" });
        check(Awaited::Many, b"VA 2 kxyz\r\nab\r\n", Piece::Value { key: b"xyz", data: b"ab" });
    }

    #[test]
    fn each_act_has_its_own_answers() {
        check(Awaited::One, b"EN\r\n", Piece::Missing);
        check(Awaited::Many, b"MN\r\n", Piece::End);
        check(Awaited::Change(Act::Set), b"HD\r\n", Piece::Done);
        check(Awaited::Change(Act::Delete), b"NF\r\n", Piece::Missing);
        check(Awaited::Change(Act::Incr), b"VA 2\r\n12\r\n", Piece::Number);
        check(Awaited::Change(Act::Touch), b"EN\r\n", Piece::Missing);
        check(Awaited::Change(Act::Set), b"NS\r\n", Piece::Refused(b"NS"));
    }

    #[test]
    fn an_answer_to_something_else_is_wrong() {
        assert_eq!(scan(Awaited::One, b"HD\r\n"), Scan::Wrong);
        assert_eq!(scan(Awaited::Change(Act::Set), b"VA 1\r\na\r\n"), Scan::Wrong);
        assert_eq!(scan(Awaited::Many, b"EN\r\n"), Scan::Wrong);
    }

    #[test]
    fn a_set_says_its_ttl_only_when_it_has_one() {
        let mut out = Vec::new();
        set(b"k", 10, 0, &mut out);
        set(b"k", 10, 30, &mut out);
        assert_eq!(out, b"ms k 10\r\nms k 10 T30\r\n");
    }
}
