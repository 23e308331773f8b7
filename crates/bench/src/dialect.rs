//! The three dialects of memcached, from the client's side: writing requests, reading replies.
//!
//! This is not Larder's own codec, on purpose: a witness that shared the codec of what it watches
//! would share its mistakes. Facts are from memcached's doc/protocol.txt and
//! doc/protocol-binary.txt.
//!
//! Reading is by pieces. A reply to one get is a value and, in the text dialect, an end; a reply
//! to a get of many keys is many values and an end. [`Dialect::scan`] reads one piece at a time
//! and holds no state; [`crate::pipeline`] knows which request a piece answers.

pub(crate) mod binary;
mod meta;
mod text;

use crate::mix::Act;
use std::fmt;

/// How requests are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// `get key`, as since 2003.
    Text,
    /// `mg key v`, the meta commands.
    Meta,
    /// Frames with a 24-byte header, as SASL clients speak.
    Binary,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Text => "text",
            Dialect::Meta => "meta",
            Dialect::Binary => "binary",
        })
    }
}

/// One thing that a server said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A value; the key is empty where the dialect does not repeat it.
    Value { key: &'a [u8], data: &'a [u8] },
    /// No more values for this get.
    End,
    /// A lone get found nothing, or what should be changed does not exist.
    Missing,
    /// Done as asked.
    Done,
    /// The new number of a counter.
    Number,
    /// Not done; in the server's own words.
    Refused(&'a [u8]),
}

/// What one look at the bytes found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan<'a> {
    Piece {
        piece: Piece<'a>,
        consumed: usize,
    },
    /// Nothing wrong so far; look again with more bytes.
    NeedMore,
    /// No answer to such a request: client and server are out of step.
    Wrong,
}

/// What kind of reply is expected: a get of one key and of many are answered differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    One,
    Many,
    Change(Act),
}

/// No line that a server says is longer: a key, two numbers and a few words.
const LINE_BYTES_MAX: usize = 2048;

impl Dialect {
    /// Whether a value alone answers a get of one key.
    pub(crate) fn value_ends_get(self) -> bool {
        match self {
            Dialect::Text => false,
            Dialect::Meta | Dialect::Binary => true,
        }
    }

    pub(crate) fn get(self, key: &[u8], out: &mut Vec<u8>) {
        match self {
            Dialect::Text => text::line(out, b"get ", key, b"\r\n"),
            Dialect::Meta => text::line(out, b"mg ", key, b" v\r\n"),
            Dialect::Binary => binary::request(out, binary::GET, &[], key, 0),
        }
    }

    /// A get of many keys is opened, given its keys one by one, and closed.
    pub(crate) fn open_many(self, out: &mut Vec<u8>) {
        match self {
            Dialect::Text => out.extend_from_slice(b"get"),
            Dialect::Meta | Dialect::Binary => (),
        }
    }

    pub(crate) fn one_of_many(self, key: &[u8], out: &mut Vec<u8>) {
        match self {
            Dialect::Text => text::line(out, b" ", key, b""),
            // Quiet: a miss says nothing; so the key must come back with the value.
            Dialect::Meta => text::line(out, b"mg ", key, b" k q v\r\n"),
            Dialect::Binary => binary::request(out, binary::GETKQ, &[], key, 0),
        }
    }

    pub(crate) fn close_many(self, out: &mut Vec<u8>) {
        match self {
            Dialect::Text => out.extend_from_slice(b"\r\n"),
            Dialect::Meta => out.extend_from_slice(b"mn\r\n"),
            Dialect::Binary => binary::request(out, binary::NOOP, &[], &[], 0),
        }
    }

    /// A set is opened, then the value is appended, then it is closed.
    pub(crate) fn open_set(self, key: &[u8], len: usize, ttl: u32, out: &mut Vec<u8>) {
        match self {
            Dialect::Text => text::set(key, len, ttl, out),
            Dialect::Meta => meta::set(key, len, ttl, out),
            Dialect::Binary => binary::set(key, len, ttl, out),
        }
    }

    pub(crate) fn close_set(self, out: &mut Vec<u8>) {
        match self {
            Dialect::Text | Dialect::Meta => out.extend_from_slice(b"\r\n"),
            Dialect::Binary => (),
        }
    }

    pub(crate) fn delete(self, key: &[u8], out: &mut Vec<u8>) {
        match self {
            Dialect::Text => text::line(out, b"delete ", key, b"\r\n"),
            Dialect::Meta => text::line(out, b"md ", key, b"\r\n"),
            Dialect::Binary => binary::request(out, binary::DELETE, &[], key, 0),
        }
    }

    pub(crate) fn incr(self, key: &[u8], out: &mut Vec<u8>) {
        match self {
            Dialect::Text => text::line(out, b"incr ", key, b" 1\r\n"),
            Dialect::Meta => text::line(out, b"ma ", key, b" v\r\n"),
            Dialect::Binary => binary::incr(key, out),
        }
    }

    pub(crate) fn touch(self, key: &[u8], ttl: u32, out: &mut Vec<u8>) {
        match self {
            Dialect::Text => text::touch(key, ttl, out),
            Dialect::Meta => meta::touch(key, ttl, out),
            Dialect::Binary => {
                binary::request(out, binary::TOUCH, &ttl.to_be_bytes(), key, 0);
            }
        }
    }

    /// Reads the next piece of a reply of the awaited kind.
    pub(crate) fn scan(self, awaited: Awaited, bytes: &[u8]) -> Scan<'_> {
        match self {
            Dialect::Text => text::scan(awaited, bytes),
            Dialect::Meta => meta::scan(awaited, bytes),
            Dialect::Binary => binary::scan(awaited, bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    const EVERY: [Awaited; 6] = [
        Awaited::One,
        Awaited::Many,
        Awaited::Change(Act::Set),
        Awaited::Change(Act::Delete),
        Awaited::Change(Act::Incr),
        Awaited::Change(Act::Touch),
    ];

    proptest! {
        /// Whatever a server says, the scanner neither panics nor claims bytes that never came.
        #[test]
        fn any_bytes_are_scanned_within_bounds(bytes in any::<Vec<u8>>(), head in 0..8_usize) {
            let heads: [&[u8]; 8] =
                [b"", b"VALUE k 0 ", b"VA ", b"\x81\x00\0\0", b"HD", b"\r\n", b"STORED", b"\x81\x0d"];
            let input = [heads[head], &bytes].concat();
            for dialect in [Dialect::Text, Dialect::Meta, Dialect::Binary] {
                for awaited in EVERY {
                    if let Scan::Piece { consumed, .. } = dialect.scan(awaited, &input) {
                        assert!(0 < consumed && consumed <= input.len());
                    }
                }
            }
        }
    }
}
