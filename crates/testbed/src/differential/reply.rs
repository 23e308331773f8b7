//! Answers as words that can be compared, with what may rightly differ made alike.
//!
//! Two servers hand out different CAS tokens, so a token becomes the number of its first appearance;
//! a token that the client chose stays. Times may differ by the seconds that passed in between.

use crate::connection::shown;
use crate::differential::command::{Tokens, from_base64};
use crate::differential::times::LATE_APART_SECONDS;
use std::collections::HashMap;
use std::fmt;

/// One answer: a line, with the value after it if there is one, or a binary frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    pub words: Vec<Word<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    Exact(&'a [u8]),
    /// The how-manyth different token this server handed out.
    Token(usize),
    /// A token that a client chose.
    Chosen(u64),
    /// Seconds, with the letter or name that says which.
    Seconds(&'a [u8], i64),
    /// Something that only describes the server, such as its version.
    Own,
}

/// How far apart two servers may be in the seconds that they tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart {
    pub seconds_max: u64,
    /// The seconds since an item was last read do not matter.
    pub ignores_idle: bool,
}

/// From here on tokens are those that clients chose (`meta::OWN_TOKENS`).
const CHOSEN_TOKENS: u64 = 9_000_000_000_000_000_000;

impl Reply<'_> {
    pub fn agrees(&self, other: &Reply<'_>, apart: Apart) -> bool {
        self.words.len() == other.words.len()
            && self.words.iter().zip(&other.words).all(|(one, two)| one.agrees(two, apart))
    }

    /// The first word, or nothing where that is not fixed text.
    pub fn verb(&self) -> &[u8] {
        match self.words.first() {
            Some(Word::Exact(word)) => word,
            _ => b"",
        }
    }
}

impl Word<'_> {
    pub fn agrees(&self, other: &Word<'_>, apart: Apart) -> bool {
        match (self, other) {
            (Word::Seconds(which, one), Word::Seconds(as_well, two)) => {
                let idle = [&b"l"[..], b"la="].contains(which);
                let between = one.abs_diff(*two);
                which == as_well
                    && ((idle && apart.ignores_idle)
                        || between <= apart.seconds_max
                        || between.abs_diff(LATE_APART_SECONDS) <= apart.seconds_max)
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.words.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            match word {
                Word::Exact(bytes) => f.write_str(&shown(bytes))?,
                Word::Token(number) => write!(f, "<token {number}>")?,
                Word::Chosen(token) => write!(f, "<chosen token {token}>")?,
                Word::Seconds(which, seconds) => write!(f, "{}{seconds}", shown(which))?,
                Word::Own => f.write_str("…")?,
            }
        }
        Ok(())
    }
}

/// Reads one server's answers; remembers its tokens from round to round.
#[derive(Default)]
pub struct Reader {
    pub tokens: Tokens,
    /// The backends of a cluster count their tokens each for itself, so that items of different keys
    /// may have the same: which one a token is then only shows when it is used.
    pub counts_per_backend: bool,
    numbers: HashMap<u64, usize>,
}

impl Reader {
    /// Splits what a server wrote in the text and meta dialects.
    pub fn text<'a>(&mut self, mut bytes: &'a [u8]) -> Vec<Reply<'a>> {
        let mut replies = Vec::new();
        while !bytes.is_empty() {
            let (line, rest) = cut_line(bytes);
            bytes = rest;
            let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let mut reply = match words[0] {
                b"VALUE" => self.value_line(&words),
                b"VA" | b"HD" | b"EN" | b"NS" | b"EX" | b"NF" => self.meta_line(&words),
                b"ME" => self.debug_line(&words),
                b"VERSION" => vec![Word::Exact(words[0]), Word::Own],
                b"STAT" => continue,
                _ => vec![Word::Exact(line)],
            };
            let size = match words[0] {
                b"VALUE" => words.get(3),
                b"VA" => words.get(1),
                _ => None,
            };
            if let Some(size) = size.and_then(|size| usize::try_from(number(size)?).ok()) {
                let with_ending = bytes.len().min(size.saturating_add(2));
                let (data, rest) = bytes.split_at(with_ending);
                reply.push(Word::Exact(data));
                bytes = rest;
            }
            replies.push(Reply { words: reply });
        }
        replies
    }

    /// `VALUE <key> <flags> <bytes> [<token>]`
    fn value_line<'a>(&mut self, words: &[&'a [u8]]) -> Vec<Word<'a>> {
        let mut reply: Vec<Word<'a>> = words.iter().map(|word| Word::Exact(word)).collect();
        if let Some(token) = words.get(4).and_then(|word| number(word)) {
            reply[4] = self.token(token);
            self.tokens.insert(words[1].to_vec(), token);
        }
        reply
    }

    /// `VA <bytes> <flags>*`, `HD <flags>*` and the other meta answers.
    fn meta_line<'a>(&mut self, words: &[&'a [u8]]) -> Vec<Word<'a>> {
        let mut key = None;
        let mut token = None;
        let mut reply = Vec::with_capacity(words.len());
        let fixed = if words[0] == b"VA" { 2 } else { 1 };
        for (at, word) in words.iter().enumerate() {
            let flag = if at < fixed { None } else { word.first() };
            let after = word.get(1..).unwrap_or_default();
            reply.push(match flag {
                Some(b'c') => match number(after) {
                    Some(number) => {
                        token = Some(number);
                        self.token(number)
                    }
                    None => Word::Exact(word),
                },
                Some(b't' | b'l') => seconds(&word[..1], after).unwrap_or(Word::Exact(word)),
                Some(b'k') => {
                    key = Some(after);
                    Word::Exact(word)
                }
                _ => Word::Exact(word),
            });
        }
        if let (Some(key), Some(token)) = (key, token) {
            let encoded = words.contains(&&b"b"[..]);
            let key = if encoded { from_base64(key) } else { key.to_vec() };
            self.tokens.insert(key, token);
        }
        reply
    }

    /// `ME <key> exp=… la=… cas=… fetch=… cls=… size=…`; class and size are those of the server's own
    /// memory, and so is whether counting made a new item, which was not yet fetched.
    fn debug_line<'a>(&mut self, words: &[&'a [u8]]) -> Vec<Word<'a>> {
        let mut reply = Vec::with_capacity(words.len());
        for word in words {
            let (name, value) = match word.iter().position(|byte| *byte == b'=') {
                Some(at) => word.split_at(at + 1),
                None => (*word, &[][..]),
            };
            reply.push(match (name, number(value)) {
                (b"exp=" | b"la=", _) => seconds(name, value).unwrap_or(Word::Exact(word)),
                (b"cas=", Some(token)) => self.token(token),
                (b"fetch=" | b"cls=" | b"size=", _) => Word::Own,
                _ => Word::Exact(word),
            });
        }
        reply
    }

    /// Splits what a server wrote in the binary dialect. `key_of` names the key that the request with
    /// an opaque was about.
    pub fn binary<'a>(
        &mut self,
        mut bytes: &'a [u8],
        key_of: &HashMap<u32, Vec<u8>>,
    ) -> Vec<Reply<'a>> {
        const HEADER_BYTES: usize = 24;
        const VERSION: u8 = 0x0b;
        let mut replies = Vec::new();
        while bytes.len() >= HEADER_BYTES {
            let (header, rest) = bytes.split_at(HEADER_BYTES);
            let body_bytes = four(&header[8..12]) as usize;
            let (body, rest) = rest.split_at(body_bytes.min(rest.len()));
            bytes = rest;
            let opaque = four(&header[12..16]);
            let token = u64::from(four(&header[16..20])) << 32 | u64::from(four(&header[20..24]));
            if token != 0
                && let Some(key) = key_of.get(&opaque)
            {
                self.tokens.insert(key.clone(), token);
            }
            let own = header[1] == VERSION;
            replies.push(Reply {
                words: vec![
                    // Magic, opcode, lengths and status; the length of a version is the server's own.
                    Word::Exact(if own { &header[..8] } else { &header[..12] }),
                    Word::Exact(&header[12..16]),
                    if token == 0 { Word::Exact(b"no token") } else { self.token(token) },
                    if own { Word::Own } else { Word::Exact(body) },
                ],
            });
        }
        if !bytes.is_empty() {
            replies.push(Reply { words: vec![Word::Exact(bytes)] });
        }
        replies
    }

    fn token<'a>(&mut self, token: u64) -> Word<'a> {
        if token > CHOSEN_TOKENS && token < CHOSEN_TOKENS + 100 {
            return Word::Chosen(token);
        }
        if self.counts_per_backend {
            return Word::Token(0);
        }
        let next = self.numbers.len();
        Word::Token(*self.numbers.entry(token).or_insert(next))
    }
}

/// A line without its ending, and what follows; the rest as it is where no line ends.
fn cut_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.windows(2).position(|two| two == b"\r\n") {
        Some(end) => (&bytes[..end], &bytes[end + 2..]),
        None => (bytes, &[]),
    }
}

fn number(word: &[u8]) -> Option<u64> {
    str::from_utf8(word).ok()?.parse().ok()
}

fn seconds<'a>(which: &'a [u8], word: &[u8]) -> Option<Word<'a>> {
    let seconds = str::from_utf8(word).ok()?.parse().ok()?;
    Some(Word::Seconds(which, seconds))
}

fn four(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes were cut out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_agree_by_the_order_of_their_first_appearance() {
        assert!(agree(b"HD c7\r\nHD c9\r\nHD c7\r\n", b"HD c1\r\nHD c2\r\nHD c1\r\n"));
        assert!(!agree(b"HD c7\r\nHD c9\r\nHD c7\r\n", b"HD c1\r\nHD c2\r\nHD c2\r\n"));
    }

    #[test]
    fn tokens_that_clients_chose_must_be_equal() {
        assert!(agree(b"HD c9000000000000000001\r\n", b"HD c9000000000000000001\r\n"));
        assert!(!agree(b"HD c9000000000000000001\r\n", b"HD c17\r\n"));
    }

    #[test]
    fn seconds_may_differ_a_little() {
        assert!(agree(b"HD t100\r\n", b"HD t99\r\n"));
        assert!(!agree(b"HD t100\r\n", b"HD t-1\r\n"));
        assert!(!agree(b"HD t100\r\n", b"HD t90\r\n"));
    }

    #[test]
    fn a_value_may_look_like_an_answer() {
        let mut reader = Reader::default();
        let replies = reader.text(b"VALUE k 0 5 8\r\nEND\r\n\r\nEND\r\n");
        assert_eq!(replies.len(), 2);
        assert_eq!(reader.tokens.get(&b"k"[..]), Some(&8));
    }

    fn agree(one: &[u8], two: &[u8]) -> bool {
        let (mut first, mut second) = (Reader::default(), Reader::default());
        let (one, two) = (first.text(one), second.text(two));
        let apart = Apart { seconds_max: 3, ignores_idle: false };
        one.len() == two.len() && one.iter().zip(&two).all(|(one, two)| one.agrees(two, apart))
    }
}
