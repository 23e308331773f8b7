//! Answers of the meta dialect: two letters, then what the request's flags asked for, in their order.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::decimal;
use super::text::{NOT_NUMERIC, TOO_LARGE, TextForm};
use crate::operation::{ArithmeticOutcome, DeleteOutcome, Hit, KEY_BYTES_MAX, Key, StoreOutcome};
use crate::words::{Words, unsigned};

/// How a meta command wants its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetaForm<'a> {
    /// The flags as they were written.
    pub(crate) words: Words<'a>,
    /// Which letters are among them.
    pub(crate) seen: u64,
    /// `q`: not a word when all went well; of a get, when nothing was found. Errors are said.
    pub(crate) quiet: bool,
    /// `b`: the key is base64, and goes back as such.
    pub(crate) base64: bool,
    /// Length of the value that came with the request.
    pub(crate) value_bytes: u32,
}

/// What an outcome has to tell. A flag that asks for what is not there is passed over.
#[derive(Clone, Copy, Default)]
struct Facts {
    value_bytes: Option<u32>,
    cas: Option<u64>,
    flags: Option<u32>,
    /// `Some(None)` is an item that never expires.
    ttl_seconds: Option<Option<u32>>,
    read_before: Option<bool>,
    idle_seconds: Option<u32>,
}

impl MetaForm<'_> {
    pub(crate) const PLAIN: MetaForm<'static> =
        MetaForm { words: Words(b""), seen: 0, quiet: false, base64: false, value_bytes: 0 };

    /// The place of a flag in `seen`. Only for the letters from `A` to `z`.
    #[inline]
    pub(crate) fn bit(letter: u8) -> u64 {
        1 << (letter - b'A')
    }

    /// Whether the flag was given.
    #[inline]
    pub(crate) fn has(&self, letter: u8) -> bool {
        self.seen & MetaForm::bit(letter) != 0
    }

    #[inline]
    pub(super) fn get(&self, out: &mut Vec<u8>, key: Key<'_>, hit: Option<&Hit<'_>>) {
        let Some(hit) = hit else {
            if !self.quiet {
                self.line(out, "EN", key, Facts::default());
            }
            return;
        };
        let with_value = self.has(b'v') && !(self.has(b'C') && self.compares_equal(hit.cas));
        // A value is at most an item, whose limit is a u32.
        let value_bytes = hit.value.len() as u32;
        self.begin(out, with_value.then_some(value_bytes));
        self.facts(
            out,
            key,
            Facts {
                value_bytes: Some(value_bytes),
                cas: Some(hit.cas),
                flags: Some(hit.flags),
                ttl_seconds: Some(hit.ttl_seconds),
                read_before: Some(hit.read_before),
                idle_seconds: Some(hit.idle_seconds),
            },
        );
        for (holds, mark) in
            [(hit.lease.taken, b" Z"), (hit.lease.stale, b" X"), (hit.lease.won, b" W")]
        {
            if holds {
                out.extend_from_slice(mark);
            }
        }
        out.extend_from_slice(b"\r\n");
        if with_value {
            out.extend_from_slice(hit.value);
            out.extend_from_slice(b"\r\n");
        }
    }

    #[inline]
    pub(super) fn store(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: StoreOutcome) {
        let unstored =
            Facts { cas: Some(0), value_bytes: Some(self.value_bytes), ..Facts::default() };
        match outcome {
            StoreOutcome::Stored { .. } if self.quiet => (),
            StoreOutcome::Stored { cas, value_bytes } => {
                let facts =
                    Facts { cas: Some(cas), value_bytes: Some(value_bytes), ..Facts::default() };
                self.line(out, "HD", key, facts);
            }
            StoreOutcome::NotStored => self.line(out, "NS", key, unstored),
            StoreOutcome::Exists => self.line(out, "EX", key, unstored),
            StoreOutcome::NotFound => self.line(out, "NF", key, unstored),
            StoreOutcome::TooLarge => error(out, TOO_LARGE),
            StoreOutcome::OutOfMemory => error(out, "SERVER_ERROR out of memory storing object"),
        }
    }

    pub(super) fn delete(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: DeleteOutcome) {
        let code = match outcome {
            DeleteOutcome::Deleted if self.quiet => return,
            DeleteOutcome::Deleted => "HD",
            DeleteOutcome::NotFound => "NF",
            DeleteOutcome::Exists => "EX",
        };
        self.line(out, code, key, Facts::default());
    }

    pub(super) fn arithmetic(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: ArithmeticOutcome) {
        match outcome {
            ArithmeticOutcome::Counted { .. } if self.quiet => (),
            ArithmeticOutcome::Counted { number, cas, ttl_seconds } => {
                let with_value = self.has(b'v');
                self.begin(out, with_value.then(|| decimal::width(number)));
                let facts =
                    Facts { cas: Some(cas), ttl_seconds: Some(ttl_seconds), ..Facts::default() };
                self.facts(out, key, facts);
                out.extend_from_slice(b"\r\n");
                if with_value {
                    decimal::push(out, number);
                    out.extend_from_slice(b"\r\n");
                }
            }
            ArithmeticOutcome::NotFound => self.line(out, "NF", key, Facts::default()),
            ArithmeticOutcome::Exists => self.line(out, "EX", key, Facts::default()),
            ArithmeticOutcome::NotNumeric => error(out, NOT_NUMERIC),
            ArithmeticOutcome::OutOfMemory => error(out, "SERVER_ERROR out of memory"),
        }
    }

    /// `ME <key> exp=… la=… cas=… fetch=… cls=… size=…`. We have no slab classes, so the class is
    /// 0; the size is what the item counts against its cache's limit of item size.
    pub(super) fn peek(&self, out: &mut Vec<u8>, key: Key<'_>, hit: Option<&Hit<'_>>) {
        let Some(hit) = hit else {
            return error(out, "EN");
        };
        out.extend_from_slice(b"ME ");
        self.key(out, key);
        out.extend_from_slice(b" exp=");
        ttl(out, hit.ttl_seconds);
        out.extend_from_slice(b" la=");
        decimal::push(out, hit.idle_seconds);
        out.extend_from_slice(b" cas=");
        decimal::push(out, hit.cas);
        out.extend_from_slice(if hit.read_before { b" fetch=yes" } else { b" fetch=no" });
        out.extend_from_slice(b" cls=0 size=");
        decimal::push(out, (key.bytes().len() + hit.value.len()) as u64);
        out.extend_from_slice(b"\r\n");
    }

    /// Whether `C` names this CAS value.
    #[cold]
    fn compares_equal(&self, cas: u64) -> bool {
        self.words.filter_map(|word| word.strip_prefix(b"C")).next().and_then(unsigned) == Some(cas)
    }

    fn line(&self, out: &mut Vec<u8>, code: &str, key: Key<'_>, facts: Facts) {
        out.extend_from_slice(code.as_bytes());
        self.facts(out, key, facts);
        out.extend_from_slice(b"\r\n");
    }

    /// `HD`, or `VA <bytes>` before a value.
    #[inline]
    fn begin(&self, out: &mut Vec<u8>, value_bytes: Option<u32>) {
        match value_bytes {
            Some(bytes) => {
                out.extend_from_slice(b"VA ");
                decimal::push(out, bytes);
            }
            None => out.extend_from_slice(b"HD"),
        }
    }

    /// What the flags asked for, in their order.
    #[inline]
    fn facts(&self, out: &mut Vec<u8>, key: Key<'_>, facts: Facts) {
        if self.seen & MetaForm::ASKING == 0 {
            return;
        }
        for word in self.words {
            match word {
                [b'O', ..] => {
                    out.push(b' ');
                    out.extend_from_slice(word);
                }
                [b'k', ..] => {
                    out.extend_from_slice(b" k");
                    self.key(out, key);
                    if self.base64 {
                        out.extend_from_slice(b" b");
                    }
                }
                [b's', ..] => number(out, b" s", facts.value_bytes.map(u64::from)),
                [b'c', ..] => number(out, b" c", facts.cas),
                [b'f', ..] => number(out, b" f", facts.flags.map(u64::from)),
                [b'l', ..] => number(out, b" l", facts.idle_seconds.map(u64::from)),
                [b'h', ..] => number(out, b" h", facts.read_before.map(u64::from)),
                [b't', ..] => {
                    if let Some(seconds) = facts.ttl_seconds {
                        out.extend_from_slice(b" t");
                        ttl(out, seconds);
                    }
                }
                _ => (),
            }
        }
    }

    /// The flags that [`MetaForm::facts`] answers.
    const ASKING: u64 = {
        let letters = b"Okscflht";
        let mut bits = 0;
        let mut index = 0;
        while index < letters.len() {
            bits |= 1 << (letters[index] - b'A');
            index += 1;
        }
        bits
    };

    fn key(&self, out: &mut Vec<u8>, key: Key<'_>) {
        if self.base64 {
            let mut encoded = [0; KEY_BYTES_MAX.div_ceil(3) * 4];
            let length = STANDARD
                .encode_slice(key.bytes(), &mut encoded)
                .expect("the longest key in base64 fits, by the array's size");
            out.extend_from_slice(&encoded[..length]);
        } else {
            out.extend_from_slice(key.bytes());
        }
    }
}

fn number(out: &mut Vec<u8>, letter: &[u8], number: Option<u64>) {
    if let Some(number) = number {
        out.extend_from_slice(letter);
        decimal::push(out, number);
    }
}

/// Seconds to live, -1 for ever.
fn ttl(out: &mut Vec<u8>, seconds: Option<u32>) {
    match seconds {
        Some(seconds) => decimal::push(out, seconds),
        None => out.extend_from_slice(b"-1"),
    }
}

fn error(out: &mut Vec<u8>, line: &str) {
    TextForm::ANSWERED.line(out, line);
}
