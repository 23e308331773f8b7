//! Answers of the text dialect.

use super::Refusal;
use super::decimal::{self, Backwards, DIGITS_MAX};
use crate::operation::{ArithmeticOutcome, DeleteOutcome, Hit, Key, StoreOutcome, TouchOutcome};
use crate::request::Problem;

/// How a text command wants its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TextForm {
    /// `noreply`: not a word, not even about an error.
    pub(crate) quiet: bool,
    /// `gets`, `gats`: items carry their CAS value.
    pub(crate) with_cas: bool,
}

impl TextForm {
    pub(crate) const ANSWERED: TextForm = TextForm { quiet: false, with_cas: false };

    /// `VALUE <key> <flags> <bytes> [<cas>]`, then the value.
    #[inline]
    pub(super) fn item(self, out: &mut Vec<u8>, key: Key<'_>, hit: &Hit<'_>) {
        let mut numbers = Backwards::<NUMBERS_BYTES_MAX>::new();
        numbers.text(b"\r\n");
        if self.with_cas {
            numbers.number(hit.cas);
            numbers.text(b" ");
        }
        numbers.number(hit.value.len() as u64);
        if hit.flags == 0 {
            numbers.text(b" 0 ");
        } else {
            numbers.text(b" ");
            numbers.number(hit.flags);
            numbers.text(b" ");
        }
        out.reserve(ITEM_BYTES_BESIDES_MAX + key.bytes().len() + hit.value.len());
        for part in [b"VALUE ", key.bytes(), numbers.bytes(), hit.value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }

    pub(super) fn store(self, out: &mut Vec<u8>, outcome: StoreOutcome) {
        self.line(
            out,
            match outcome {
                StoreOutcome::Stored { .. } => "STORED",
                StoreOutcome::NotStored => "NOT_STORED",
                StoreOutcome::Exists => "EXISTS",
                StoreOutcome::NotFound => "NOT_FOUND",
                StoreOutcome::TooLarge => TOO_LARGE,
                StoreOutcome::OutOfMemory => "SERVER_ERROR out of memory storing object",
            },
        );
    }

    pub(super) fn delete(self, out: &mut Vec<u8>, outcome: DeleteOutcome) {
        self.line(
            out,
            match outcome {
                DeleteOutcome::Deleted => "DELETED",
                DeleteOutcome::NotFound => "NOT_FOUND",
                DeleteOutcome::Exists => "EXISTS",
            },
        );
    }

    pub(super) fn arithmetic(self, out: &mut Vec<u8>, outcome: ArithmeticOutcome) {
        let line = match outcome {
            ArithmeticOutcome::Counted { .. } if self.quiet => return,
            ArithmeticOutcome::Counted { number, .. } => {
                decimal::push(out, number);
                ""
            }
            ArithmeticOutcome::NotFound => "NOT_FOUND",
            ArithmeticOutcome::NotNumeric => NOT_NUMERIC,
            ArithmeticOutcome::Exists => "EXISTS",
            ArithmeticOutcome::OutOfMemory => "SERVER_ERROR out of memory",
        };
        self.line(out, line);
    }

    pub(super) fn touch(self, out: &mut Vec<u8>, outcome: TouchOutcome) {
        self.line(
            out,
            match outcome {
                TouchOutcome::Touched { .. } => "TOUCHED",
                TouchOutcome::NotFound => "NOT_FOUND",
            },
        );
    }

    pub(super) fn refused(self, out: &mut Vec<u8>, refusal: Refusal) {
        if self.quiet {
            return;
        }
        let blames = match refusal {
            Refusal::Unauthenticated
            | Refusal::AuthenticationFailed
            | Refusal::Capability(_)
            | Refusal::NotOffered => "CLIENT_ERROR ",
            Refusal::Limit(_) | Refusal::Unavailable(_) => "SERVER_ERROR ",
        };
        out.extend_from_slice(blames.as_bytes());
        self.line(out, refusal.text());
    }

    pub(super) fn wrong(self, out: &mut Vec<u8>, problem: Problem) {
        self.line(
            out,
            match problem {
                Problem::UnknownCommand => "ERROR",
                Problem::BadFormat => "CLIENT_ERROR bad command line format",
                Problem::Line(line) => line,
                Problem::BadDataChunk => "CLIENT_ERROR bad data chunk",
                Problem::TooLarge => TOO_LARGE,
                // Whoever is there does not speak our language.
                Problem::OutOfStep => return,
            },
        );
    }

    #[inline]
    pub(super) fn line(self, out: &mut Vec<u8>, line: &str) {
        if !self.quiet {
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Three numbers, a space before each, and a line end.
const NUMBERS_BYTES_MAX: usize = 3 * (1 + DIGITS_MAX) + 2;

/// What an item takes besides key and value: `VALUE `, its numbers, and a line end.
const ITEM_BYTES_BESIDES_MAX: usize = 6 + NUMBERS_BYTES_MAX + 2;

pub(super) const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";
pub(super) const NOT_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

#[cfg(test)]
mod tests {
    use super::TextForm;
    use crate::operation::{Hit, Key, Lease};

    #[test]
    fn an_item_with_longest_numbers_has_room() {
        let hit = Hit {
            value: b"v",
            flags: u32::MAX,
            cas: u64::MAX,
            ttl_seconds: None,
            read_before: false,
            idle_seconds: 0,
            lease: Lease::default(),
        };
        let mut out = Vec::new();
        let key = Key::new(b"key").expect("it has three bytes");
        TextForm { quiet: false, with_cas: true }.item(&mut out, key, &hit);
        assert_eq!(out, b"VALUE key 4294967295 1 18446744073709551615\r\nv\r\n");
    }
}
