//! What is sent or expected: bytes with gaps, and binary frames made of fields.

use std::collections::HashMap;

use crate::binary::HEADER_BYTES;
use crate::command::BINARY_REQUEST_MAGIC;

/// Values that a transcript refers to by name: those the runner knows (username, password) and those
/// an earlier answer told (a CAS value).
#[derive(Debug, Clone, Default)]
pub struct Names(HashMap<String, Vec<u8>>);

impl Names {
    /// The names of a locked server's transcripts: `{username}`, `{password}`,
    /// `{password_length}` and `{pair_length}`, which is the length of both with a space between.
    pub fn of_credential(username: &str, password: &str) -> Self {
        let lengths = [
            ("password_length", password.len()),
            ("pair_length", username.len() + 1 + password.len()),
        ];
        let mut names: HashMap<_, _> = lengths
            .into_iter()
            .map(|(name, length)| (name.to_owned(), length.to_string().into_bytes()))
            .collect();
        names.insert("username".to_owned(), username.as_bytes().to_vec());
        names.insert("password".to_owned(), password.as_bytes().to_vec());
        Names(names)
    }
}

#[derive(Debug, Clone)]
pub(super) enum Message {
    Text(Vec<Piece>),
    Frame(Frame),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    /// `{name}`: the first answer that has it gives it its value.
    Named(String),
    /// `{~}`: any word.
    Any,
    /// `{~100}`: the seconds that are left of so many.
    LeftOf(u64),
}

/// How many seconds may pass between two lines of a transcript: a machine that stands still for some is
/// no difference.
const PASSED_SECONDS_MAX: u64 = 20;

#[derive(Debug, Clone)]
pub(super) struct Frame {
    pub(super) magic: u8,
    pub(super) opcode: u8,
    pub(super) status: u16,
    pub(super) opaque: u32,
    pub(super) cas: Cas,
    pub(super) extras: Vec<u8>,
    pub(super) key: Vec<Piece>,
    pub(super) value: Vec<Piece>,
    /// Lengths that are not the true ones.
    pub(super) key_length: Option<u16>,
    pub(super) extras_length: Option<u8>,
    pub(super) body_length: Option<u32>,
}

#[derive(Debug, Clone)]
pub(super) enum Cas {
    /// In a request 0, in an answer whatever it is.
    Unsaid,
    Number(u64),
    Named(String),
}

/// How what was received compares with what was expected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// As expected; this many bytes.
    Same(usize),
    NeedMore,
    Different,
}

impl Message {
    /// The bytes to send.
    pub(super) fn bytes(&self, names: &Names) -> Result<Vec<u8>, String> {
        match self {
            Message::Text(pieces) => fill(pieces, names),
            Message::Frame(frame) => frame.bytes(names),
        }
    }

    /// Compares the beginning of `received`, and learns names from it.
    pub(super) fn compare(&self, received: &[u8], names: &mut Names) -> Comparison {
        match self {
            Message::Text(pieces) => compare(pieces, received, names),
            Message::Frame(frame) => frame.compare(received, names),
        }
    }

    /// The length of the first line or frame of `received`, if it is whole.
    pub(super) fn unit(&self, received: &[u8]) -> Option<usize> {
        match self {
            Message::Text(_) => received.iter().position(|b| *b == b'\n').map(|end| end + 1),
            Message::Frame(_) => {
                let total = HEADER_BYTES + body_length(received)?;
                (total <= received.len()).then_some(total)
            }
        }
    }
}

fn fill(pieces: &[Piece], names: &Names) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(literal) => bytes.extend_from_slice(literal),
            Piece::Named(name) => match names.0.get(name) {
                Some(value) => bytes.extend_from_slice(value),
                None => return Err(format!("nothing has told {{{name}}} yet")),
            },
            Piece::Any | Piece::LeftOf(_) => return Err("{~} cannot be sent".to_owned()),
        }
    }
    Ok(bytes)
}

fn compare(pieces: &[Piece], received: &[u8], names: &mut Names) -> Comparison {
    let mut at = 0;
    for piece in pieces {
        let rest = &received[at..];
        let expected = match piece {
            Piece::Bytes(literal) => literal,
            Piece::Named(name) if names.0.contains_key(name) => &names.0[name],
            Piece::Named(_) | Piece::Any | Piece::LeftOf(_) => {
                let Some(end) = rest.iter().position(u8::is_ascii_whitespace) else {
                    return Comparison::NeedMore;
                };
                if end == 0 {
                    return Comparison::Different;
                }
                let word = &rest[..end];
                if let Piece::Named(name) = piece {
                    names.0.insert(name.clone(), word.to_vec());
                }
                if let Piece::LeftOf(seconds) = piece {
                    let left = seconds.saturating_sub(PASSED_SECONDS_MAX)..=*seconds;
                    if !number(word).is_some_and(|told| left.contains(&told)) {
                        return Comparison::Different;
                    }
                }
                at += end;
                continue;
            }
        };
        if rest.len() < expected.len() {
            let same = expected.starts_with(rest);
            return if same { Comparison::NeedMore } else { Comparison::Different };
        }
        if !rest.starts_with(expected) {
            return Comparison::Different;
        }
        at += expected.len();
    }
    Comparison::Same(at)
}

impl Frame {
    pub(super) fn request(opcode: u8) -> Self {
        Frame {
            magic: BINARY_REQUEST_MAGIC,
            opcode,
            status: 0,
            opaque: 0,
            cas: Cas::Unsaid,
            extras: Vec::new(),
            key: Vec::new(),
            value: Vec::new(),
            key_length: None,
            extras_length: None,
            body_length: None,
        }
    }

    fn bytes(&self, names: &Names) -> Result<Vec<u8>, String> {
        let key = fill(&self.key, names)?;
        let value = fill(&self.value, names)?;
        let cas = match &self.cas {
            Cas::Unsaid => 0,
            Cas::Number(number) => *number,
            Cas::Named(name) => {
                number(&fill(&[Piece::Named(name.clone())], names)?).ok_or("a CAS is a number")?
            }
        };
        // Transcripts are short; a longer part would be a mistake that shows.
        let key_length = self.key_length.unwrap_or(key.len() as u16);
        let extras_length = self.extras_length.unwrap_or(self.extras.len() as u8);
        let body = self.extras.len() + key.len() + value.len();
        let body_length = self.body_length.unwrap_or(body as u32);
        let mut bytes = vec![self.magic, self.opcode];
        bytes.extend_from_slice(&key_length.to_be_bytes());
        bytes.extend_from_slice(&[extras_length, 0]);
        bytes.extend_from_slice(&self.status.to_be_bytes());
        bytes.extend_from_slice(&body_length.to_be_bytes());
        bytes.extend_from_slice(&self.opaque.to_be_bytes());
        bytes.extend_from_slice(&cas.to_be_bytes());
        for part in [&self.extras, &key, &value] {
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    fn compare(&self, received: &[u8], names: &mut Names) -> Comparison {
        let Some(body_length) = body_length(received) else {
            return Comparison::NeedMore;
        };
        let (header, rest) = received.split_at(HEADER_BYTES);
        let Some(body) = rest.get(..body_length) else {
            return Comparison::NeedMore;
        };
        let cas: Vec<u8> = number_of(&header[16..24]).to_string().into_bytes();
        if let Cas::Named(name) = &self.cas {
            names.0.entry(name.clone()).or_insert_with(|| cas.clone());
        }
        let same_cas = match &self.cas {
            Cas::Unsaid => true,
            Cas::Number(number) => cas == number.to_string().as_bytes(),
            Cas::Named(name) => cas == names.0[name],
        };
        let extras_length = usize::from(header[4]);
        let key_length = number_of(&header[2..4]) as usize;
        let same_header = header[0] == self.magic
            && header[1] == self.opcode
            && number_of(&header[6..8]) == u64::from(self.status)
            && number_of(&header[12..16]) == u64::from(self.opaque)
            && extras_length + key_length <= body.len();
        if !same_cas || !same_header {
            return Comparison::Different;
        }
        let (extras, body) = body.split_at(extras_length);
        let (key, value) = body.split_at(key_length);
        let mut same = |pieces: &[Piece], part: &[u8]| {
            // A line end after the part, so that a word at its end is seen to end.
            let part = [part, b"\n"].concat();
            let pieces = [pieces, &[Piece::Bytes(b"\n".to_vec())]].concat();
            compare(&pieces, &part, names) == Comparison::Same(part.len())
        };
        if extras == self.extras && same(&self.key, key) && same(&self.value, value) {
            Comparison::Same(HEADER_BYTES + body_length)
        } else {
            Comparison::Different
        }
    }
}

fn body_length(received: &[u8]) -> Option<usize> {
    received.get(..HEADER_BYTES).map(|header| number_of(&header[8..12]) as usize)
}

fn number_of(big_endian: &[u8]) -> u64 {
    big_endian.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn number(decimal: &[u8]) -> Option<u64> {
    std::str::from_utf8(decimal).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Names, Piece, compare};

    #[test]
    fn seconds_that_are_left_are_as_many_or_a_few_less() {
        check(b"100 x", Comparison::Same(3));
        check(b"81 x", Comparison::Same(2));
        check(b"79 x", Comparison::Different);
        check(b"101 x", Comparison::Different);
        check(b"-1 x", Comparison::Different);
        check(b"10", Comparison::NeedMore);
    }

    #[track_caller]
    fn check(received: &[u8], expected: Comparison) {
        let found = compare(&[Piece::LeftOf(100)], received, &mut Names::default());
        assert_eq!(found, expected, "{}", received.escape_ascii());
    }
}
