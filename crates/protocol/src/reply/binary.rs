//! Answers of the binary dialect: a header of 24 bytes and what it announces.

use super::Refusal;
use crate::command::{CommandSpec, Grammar, Wire, find_opcode};
use crate::operation::{
    ArithmeticOutcome, DeleteOutcome, Hit, Key, StoreMode, StoreOutcome, TouchOutcome,
};
use crate::request::Problem;

/// How a binary command wants its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BinaryForm {
    /// Comes back as it came. Its row in the table says how quiet to be.
    pub(crate) opcode: u8,
    /// Comes back as it came.
    pub(crate) opaque: [u8; 4],
}

/// How it went, as the header says it (memcached `doc/protocol-binary.txt`, "Response Status").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
enum Status {
    Success = 0x00,
    NotFound = 0x01,
    Exists = 0x02,
    TooLarge = 0x03,
    InvalidArguments = 0x04,
    NotStored = 0x05,
    NotNumeric = 0x06,
    Authentication = 0x20,
    AuthenticationContinues = 0x21,
    UnknownCommand = 0x81,
    OutOfMemory = 0x82,
    TemporaryFailure = 0x86,
}

impl Status {
    /// The words that memcached sends along.
    fn text(self) -> &'static str {
        match self {
            Status::Success | Status::AuthenticationContinues => "",
            Status::NotFound => "Not found",
            Status::Exists => "Data exists for key.",
            Status::TooLarge => "Too large.",
            Status::InvalidArguments => "Invalid arguments",
            Status::NotStored => "Not stored.",
            Status::NotNumeric => "Non-numeric server-side value for incr or decr",
            Status::Authentication => "Auth failure.",
            Status::UnknownCommand => "Unknown command",
            Status::OutOfMemory => "Out of memory",
            Status::TemporaryFailure => "Temporary failure",
        }
    }
}

/// One answer, but for what its request echoes.
#[derive(Clone, Copy)]
struct Frame<'a> {
    status: Status,
    cas: u64,
    extras: &'a [u8],
    key: &'a [u8],
    value: &'a [u8],
}

const SUCCESS: Frame<'static> =
    Frame { status: Status::Success, cas: 0, extras: b"", key: b"", value: b"" };

const RESPONSE_MAGIC: u8 = 0x81;

impl BinaryForm {
    #[inline]
    pub(super) fn get(self, out: &mut Vec<u8>, key: Key<'_>, hit: Option<&Hit<'_>>) {
        let (quiet, with_key) = self.manner();
        let key = if with_key { key.bytes() } else { b"" };
        match hit {
            Some(hit) => {
                let extras = &hit.flags.to_be_bytes();
                self.frame(out, Frame { cas: hit.cas, extras, key, value: hit.value, ..SUCCESS });
            }
            None if quiet => (),
            // A miss that names its key has no words besides.
            None if with_key => {
                self.frame(out, Frame { status: Status::NotFound, key, ..SUCCESS });
            }
            None => self.error(out, Status::NotFound),
        }
    }

    pub(super) fn store(self, out: &mut Vec<u8>, outcome: StoreOutcome) {
        match outcome {
            StoreOutcome::Stored { cas, .. } => self.done(out, Frame { cas, ..SUCCESS }),
            StoreOutcome::NotStored => self.error(out, self.not_stored()),
            StoreOutcome::Exists => self.error(out, Status::Exists),
            StoreOutcome::NotFound => self.error(out, Status::NotFound),
            StoreOutcome::TooLarge => self.error(out, Status::TooLarge),
            StoreOutcome::OutOfMemory => self.error(out, Status::OutOfMemory),
        }
    }

    /// What it means that a mode's condition did not hold.
    fn not_stored(self) -> Status {
        match find_opcode(self.opcode).map(|command| command.grammar) {
            Some(Grammar::Store(StoreMode::Add)) => Status::Exists,
            Some(Grammar::Store(StoreMode::Replace)) => Status::NotFound,
            Some(_) | None => Status::NotStored,
        }
    }

    pub(super) fn delete(self, out: &mut Vec<u8>, outcome: DeleteOutcome) {
        match outcome {
            DeleteOutcome::Deleted => self.done(out, SUCCESS),
            DeleteOutcome::NotFound => self.error(out, Status::NotFound),
            DeleteOutcome::Exists => self.error(out, Status::Exists),
        }
    }

    pub(super) fn arithmetic(self, out: &mut Vec<u8>, outcome: ArithmeticOutcome) {
        match outcome {
            ArithmeticOutcome::Counted { number, cas, .. } => {
                self.done(out, Frame { cas, value: &number.to_be_bytes(), ..SUCCESS });
            }
            ArithmeticOutcome::NotFound => self.error(out, Status::NotFound),
            ArithmeticOutcome::NotNumeric => self.error(out, Status::NotNumeric),
            ArithmeticOutcome::Exists => self.error(out, Status::Exists),
            ArithmeticOutcome::OutOfMemory => self.error(out, Status::OutOfMemory),
        }
    }

    /// memcached answers with the item's flags, though without the value they are about.
    pub(super) fn touch(self, out: &mut Vec<u8>, outcome: TouchOutcome) {
        match outcome {
            TouchOutcome::Touched { cas, flags } => {
                self.done(out, Frame { cas, extras: &flags.to_be_bytes(), ..SUCCESS });
            }
            TouchOutcome::NotFound => self.error(out, Status::NotFound),
        }
    }

    pub(super) fn ok(self, out: &mut Vec<u8>) {
        self.done(out, SUCCESS);
    }

    pub(super) fn text(self, out: &mut Vec<u8>, text: &str) {
        self.done(out, Frame { value: text.as_bytes(), ..SUCCESS });
    }

    /// One statistic; without a name, the end of them.
    pub(super) fn stat(self, out: &mut Vec<u8>, name: &str, value: &str) {
        self.frame(out, Frame { key: name.as_bytes(), value: value.as_bytes(), ..SUCCESS });
    }

    pub(super) fn not_found(self, out: &mut Vec<u8>) {
        self.error(out, Status::NotFound);
    }

    pub(super) fn authentication_continues(self, out: &mut Vec<u8>) {
        self.frame(out, Frame { status: Status::AuthenticationContinues, ..SUCCESS });
    }

    pub(super) fn refused(self, out: &mut Vec<u8>, refusal: Refusal) {
        let status = match refusal {
            Refusal::Unauthenticated | Refusal::AuthenticationFailed => {
                return self.error(out, Status::Authentication);
            }
            // The one refusal after which libmemcached, dalli, memjs and python-binary-memcached all
            // stay connected and in step. "Authentication error" would say it better, but memjs
            // reconnects on it for ever and php-memcached aborts.
            Refusal::Capability(_) => Status::NotStored,
            Refusal::NotOffered => return self.error(out, Status::UnknownCommand),
            Refusal::Limit(_) | Refusal::Unavailable(_) => Status::TemporaryFailure,
        };
        self.frame(out, Frame { status, value: refusal.text().as_bytes(), ..SUCCESS });
    }

    pub(super) fn wrong(self, out: &mut Vec<u8>, problem: Problem) {
        match problem {
            Problem::UnknownCommand => self.error(out, Status::UnknownCommand),
            Problem::BadFormat | Problem::Line(_) | Problem::BadDataChunk => {
                self.error(out, Status::InvalidArguments);
            }
            Problem::TooLarge => self.error(out, Status::TooLarge),
            // What came was no frame, so there is nobody to answer.
            Problem::OutOfStep => (),
        }
    }

    /// Good news, which quiet commands keep to themselves.
    #[inline]
    fn done(self, out: &mut Vec<u8>, frame: Frame<'_>) {
        let (quiet, _) = self.manner();
        if !quiet {
            self.frame(out, frame);
        }
    }

    /// Bad news are said even to quiet commands.
    #[cold]
    fn error(self, out: &mut Vec<u8>, status: Status) {
        self.frame(out, Frame { status, value: status.text().as_bytes(), ..SUCCESS });
    }

    /// Whether the command is quiet, and whether it wants its key back.
    #[inline]
    pub(super) fn manner(self) -> (bool, bool) {
        match find_opcode(self.opcode) {
            Some(&CommandSpec { wire: Wire::Binary { quiet, with_key, .. }, .. }) => {
                (quiet, with_key)
            }
            Some(_) | None => (false, false),
        }
    }

    #[inline]
    fn frame(self, out: &mut Vec<u8>, frame: Frame<'_>) {
        let Frame { status, cas, extras, key, value } = frame;
        // Keys, extras and values that we send are all within the limits of what we accept.
        let key_bytes = key.len() as u16;
        let extras_bytes = extras.len() as u8;
        let body_bytes = (extras.len() + key.len() + value.len()) as u32;
        let mut header = [0; crate::binary::HEADER_BYTES];
        header[0] = RESPONSE_MAGIC;
        header[1] = self.opcode;
        header[2..4].copy_from_slice(&key_bytes.to_be_bytes());
        header[4] = extras_bytes;
        header[6..8].copy_from_slice(&(status as u16).to_be_bytes());
        header[8..12].copy_from_slice(&body_bytes.to_be_bytes());
        header[12..16].copy_from_slice(&self.opaque);
        header[16..24].copy_from_slice(&cas.to_be_bytes());
        out.reserve(header.len() + body_bytes as usize);
        for part in [&header, extras, key, value] {
            out.extend_from_slice(part);
        }
    }
}
