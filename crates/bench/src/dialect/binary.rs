//! The binary dialect: a header of 24 bytes, then extras, key and value.
//!
//! ```text
//! 0 magic │ 1 opcode │ 2 key length (2) │ 4 extras length │ 5 data type │ 6 vbucket or status (2)
//! 8 length of extras, key and value (4) │ 12 opaque (4) │ 16 cas (8)
//! ```

use super::{Awaited, Piece, Scan};
use crate::items::VALUE_BYTES_MAX;
use crate::mix::Act;

pub(crate) const HEADER_BYTES: usize = 24;
const MAGIC_REQUEST: u8 = 0x80;
const MAGIC_REPLY: u8 = 0x81;

pub(super) const GET: u8 = 0x00;
const SET: u8 = 0x01;
pub(super) const DELETE: u8 = 0x04;
const INCR: u8 = 0x05;
pub(super) const NOOP: u8 = 0x0a;
pub(super) const GETKQ: u8 = 0x0d;
pub(super) const TOUCH: u8 = 0x1c;
const SASL_AUTH: u8 = 0x21;

const STATUS_OK: u16 = 0;
const STATUS_NOT_FOUND: u16 = 1;

/// Appends a request; the caller appends the `value_len` bytes of its value.
pub(super) fn request(out: &mut Vec<u8>, opcode: u8, extras: &[u8], key: &[u8], value_len: usize) {
    let body_len = (extras.len() + key.len() + value_len) as u32;
    let mut header = [0; HEADER_BYTES];
    header[0] = MAGIC_REQUEST;
    header[1] = opcode;
    header[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
    header[4] = extras.len() as u8;
    header[8..12].copy_from_slice(&body_len.to_be_bytes());
    out.reserve(HEADER_BYTES + body_len as usize);
    out.extend_from_slice(&header);
    out.extend_from_slice(extras);
    out.extend_from_slice(key);
}

pub(super) fn set(key: &[u8], len: usize, ttl: u32, out: &mut Vec<u8>) {
    let mut extras = [0; 8];
    extras[4..].copy_from_slice(&ttl.to_be_bytes());
    request(out, SET, &extras, key, len);
}

pub(super) fn incr(key: &[u8], out: &mut Vec<u8>) {
    let mut extras = [0; 20];
    extras[..8].copy_from_slice(&1_u64.to_be_bytes());
    // This expiry means: do not create what does not exist.
    extras[16..].copy_from_slice(&u32::MAX.to_be_bytes());
    request(out, INCR, &extras, key, 0);
}

/// SASL PLAIN (RFC 4616): an empty authorisation name, the username, the password.
pub(crate) fn sasl_plain(username: &str, password: &str, out: &mut Vec<u8>) {
    let value = [b"\0", username.as_bytes(), b"\0", password.as_bytes()].concat();
    request(out, SASL_AUTH, &[], b"PLAIN", value.len());
    out.extend_from_slice(&value);
}

/// One reply frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply<'a> {
    pub(crate) opcode: u8,
    pub(crate) status: u16,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) consumed: usize,
}

impl Reply<'_> {
    pub(crate) fn answers_sasl(&self) -> bool {
        self.opcode == SASL_AUTH
    }
}

/// Cuts one frame off the front; [`Scan::NeedMore`] or [`Scan::Wrong`] if there is none.
pub(crate) fn reply(bytes: &[u8]) -> Result<Reply<'_>, Scan<'_>> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        // Another dialect is seen at its first byte, before a header's worth has come.
        let is_reply = bytes.first().is_none_or(|&magic| magic == MAGIC_REPLY);
        return Err(if is_reply { Scan::NeedMore } else { Scan::Wrong });
    };
    let key_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let extras_len = usize::from(header[4]);
    let body_len = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
    let too_long = body_len > VALUE_BYTES_MAX + 1024;
    if header[0] != MAGIC_REPLY || too_long || body_len < (key_len + extras_len) as u32 {
        return Err(Scan::Wrong);
    }
    let consumed = HEADER_BYTES + body_len as usize;
    let Some(frame) = bytes.get(..consumed) else { return Err(Scan::NeedMore) };
    let body = &frame[HEADER_BYTES + extras_len..];
    let (key, value) = body.split_at(key_len);
    let status = u16::from_be_bytes([header[6], header[7]]);
    Ok(Reply { opcode: header[1], status, key, value, consumed })
}

pub(super) fn scan(awaited: Awaited, bytes: &[u8]) -> Scan<'_> {
    let Reply { opcode, status, key, value, consumed } = match reply(bytes) {
        Ok(reply) => reply,
        Err(scan) => return scan,
    };
    let is_awaited = match awaited {
        Awaited::One => opcode == GET,
        Awaited::Many => opcode == GETKQ || opcode == NOOP,
        Awaited::Change(Act::Set) => opcode == SET,
        Awaited::Change(Act::Delete) => opcode == DELETE,
        Awaited::Change(Act::Incr) => opcode == INCR,
        Awaited::Change(Act::Touch) => opcode == TOUCH,
        Awaited::Change(Act::Get) => false,
    };
    if !is_awaited {
        return Scan::Wrong;
    }
    let piece = match (status, opcode) {
        (STATUS_OK, GET | GETKQ) => Piece::Value { key, data: value },
        (STATUS_OK, NOOP) => Piece::End,
        (STATUS_OK, INCR) => Piece::Number,
        (STATUS_OK, _) => Piece::Done,
        (STATUS_NOT_FOUND, GET | DELETE | INCR | TOUCH) => Piece::Missing,
        _ => Piece::Refused(value),
    };
    Scan::Piece { piece, consumed }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply frame; `extras` are given by length only, for nothing reads them.
    fn frame(opcode: u8, status: u16, extras: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        request(&mut bytes, opcode, &vec![0; usize::from(extras)], key, value.len());
        bytes.extend_from_slice(value);
        bytes[0] = MAGIC_REPLY;
        bytes[6..8].copy_from_slice(&status.to_be_bytes());
        bytes
    }

    #[track_caller]
    fn check(awaited: Awaited, reply: &[u8], piece: Piece<'_>) {
        for end in 0..reply.len() {
            assert_eq!(scan(awaited, &reply[..end]), Scan::NeedMore, "cut at {end}");
        }
        assert_eq!(scan(awaited, reply), Scan::Piece { piece, consumed: reply.len() });
    }

    #[test]
    fn frames_are_read_whole() {
        check(Awaited::One, &frame(GET, 0, 4, b"", b"ab"), Piece::Value { key: b"", data: b"ab" });
        let piece = Piece::Value { key: b"k", data: b"ab" };
        check(Awaited::Many, &frame(GETKQ, 0, 4, b"k", b"ab"), piece);
        check(Awaited::Many, &frame(NOOP, 0, 0, b"", b""), Piece::End);
        check(Awaited::One, &frame(GET, 1, 0, b"", b"Not found"), Piece::Missing);
        check(Awaited::Change(Act::Set), &frame(SET, 0, 0, b"", b""), Piece::Done);
        check(Awaited::Change(Act::Incr), &frame(INCR, 0, 0, b"", &[0; 8]), Piece::Number);
        let refused = frame(SET, 0x82, 0, b"", b"Out of memory");
        check(Awaited::Change(Act::Set), &refused, Piece::Refused(b"Out of memory"));
    }

    #[test]
    fn a_frame_that_lies_about_its_lengths_is_wrong() {
        let mut bytes = frame(GET, 0, 4, b"", b"ab");
        bytes[8..12].copy_from_slice(&3_u32.to_be_bytes());
        assert_eq!(scan(Awaited::One, &bytes), Scan::Wrong);
        bytes[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(scan(Awaited::One, &bytes), Scan::Wrong);
    }

    #[test]
    fn text_instead_of_a_frame_is_wrong_at_once() {
        assert_eq!(scan(Awaited::One, b"ERROR\r\n"), Scan::Wrong);
    }

    #[test]
    fn sasl_plain_is_written_as_the_rfc_says() {
        let mut out = Vec::new();
        sasl_plain("me", "secret", &mut out);
        assert_eq!(out[1], SASL_AUTH);
        assert_eq!(&out[HEADER_BYTES..], b"PLAIN\0me\0secret");
    }
}
