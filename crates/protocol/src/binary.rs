//! Reads the binary dialect: frames of 24 bytes and what they announce.
//!
//! ```text
//!    0        1        2        4         5         6         8         12       16       24
//!   ┌────────┬────────┬────────┬─────────┬─────────┬─────────┬─────────┬────────┬────────┐
//!   │ 0x80   │ opcode │ key    │ extras  │ data    │ vbucket │ body    │ opaque │ CAS    │
//!   │        │        │ length │ length  │ type    │         │ length  │ (echo) │        │
//!   ├────────┴────────┴────────┴─────────┴─────────┴─────────┴─────────┴────────┴────────┤
//!   │ extras │ key │ value                              = body length in all             │
//!   └────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Numbers are big-endian; data type and vbucket are ignored (memcached `doc/protocol-binary.txt`,
//! `proto_bin.c`). Unlike memcached we judge the header before we wait for what it announces, so a
//! frame that lies is refused at once and never makes us hold anything.

use crate::command::{BINARY_REQUEST_MAGIC, CommandSpec, Grammar, find_opcode};
use crate::operation::{
    Arithmetic, Delete, Direction, Exptime, Get, Initial, KEY_BYTES_MAX, Key, Store, StoreMode,
    Touch,
};
use crate::reply::{BinaryForm, Form, Reply};
use crate::request::{Body, Decoded, Limits, Problem, Request, Wrong};
use crate::sasl::{MECHANISM_BYTES_MAX, MESSAGE_BYTES_MAX};

/// Bytes of every header, of requests and of answers.
pub(crate) const HEADER_BYTES: usize = 24;

/// Longest body that keeps a connection in step, even if only to be thrown away (memcached
/// `ITEM_SIZE_MAX_UPPER_LIMIT`).
const BODY_BYTES_MAX: u32 = 1024 * 1024 * 1024;

/// An expiry in extras that tells a counter not to be created.
const DO_NOT_CREATE: u32 = u32::MAX;

/// Reads the first request of a connection that speaks binary.
#[inline]
pub(crate) fn decode<'a>(buffer: &'a [u8], limits: &Limits) -> Decoded<'a> {
    match buffer.first() {
        Some(magic) if *magic == BINARY_REQUEST_MAGIC => (),
        Some(_) => return out_of_step(),
        None => return Decoded::NeedMore { bytes_total: 1 },
    }
    let Some((header, after)) = buffer.split_first_chunk::<HEADER_BYTES>() else {
        return Decoded::NeedMore { bytes_total: HEADER_BYTES };
    };
    let header = Header::read(header);
    match find_opcode(header.opcode) {
        Some(command) => header.decode(command, after, limits),
        None => header.unknown(),
    }
}

/// What is neither a frame nor anything we could answer.
#[cold]
fn out_of_step<'a>() -> Decoded<'a> {
    Decoded::Wrong(Wrong {
        reply: Reply(Form::Binary(BinaryForm { opcode: 0, opaque: [0; 4] })),
        problem: Problem::OutOfStep,
        consumed: 0,
        skip: 0,
        close: true,
        forget: None,
    })
}

#[derive(Clone, Copy)]
struct Header {
    opcode: u8,
    key_bytes: u16,
    extras_bytes: u8,
    body_bytes: u32,
    opaque: [u8; 4],
    cas: u64,
}

impl Header {
    #[inline]
    fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [_, opcode, k0, k1, extras_bytes, _, _, _, b0, b1, b2, b3, o0, o1, o2, o3, cas @ ..] =
            *bytes;
        Header {
            opcode,
            key_bytes: u16::from_be_bytes([k0, k1]),
            extras_bytes,
            body_bytes: u32::from_be_bytes([b0, b1, b2, b3]),
            opaque: [o0, o1, o2, o3],
            cas: u64::from_be_bytes(cas),
        }
    }

    #[inline]
    fn decode<'a>(
        self,
        command: &'static CommandSpec,
        after: &'a [u8],
        limits: &Limits,
    ) -> Decoded<'a> {
        let before_value = u32::from(self.key_bytes) + u32::from(self.extras_bytes);
        let Some(value_bytes) = self.body_bytes.checked_sub(before_value) else {
            return self.wrong(Problem::UnknownCommand, 0, CLOSE);
        };
        if BODY_BYTES_MAX < self.body_bytes
            || KEY_BYTES_MAX < usize::from(self.key_bytes)
            || !self.has_shape_of(command.grammar, value_bytes)
        {
            return self.wrong(Problem::BadFormat, 0, CLOSE);
        }
        // What comes before the value fits any buffer, and names the key of a value that does not.
        let before_value = before_value as usize;
        let Some((before, after)) = after.split_at_checked(before_value) else {
            return Decoded::NeedMore { bytes_total: HEADER_BYTES + before_value };
        };
        let (extras, key_bytes) = before.split_at(usize::from(self.extras_bytes));
        let key = Key::new(key_bytes);
        if let Some(refused) = self.refuse_value(command.grammar, key, value_bytes, limits) {
            return refused;
        }
        let Some(value) = after.get(..value_bytes as usize) else {
            return Decoded::NeedMore { bytes_total: HEADER_BYTES + self.body_bytes as usize };
        };
        match self.body(command.grammar, Extras(extras), key, key_bytes, value) {
            Some(body) => Decoded::Complete(
                Request { command, needs: command.needs, body, reply: self.reply() },
                HEADER_BYTES + self.body_bytes as usize,
            ),
            None => self.wrong(Problem::BadFormat, 0, CLOSE),
        }
    }

    /// Whether the lengths of extras, key and value are those of the command (memcached
    /// `dispatch_bin_command`).
    #[inline]
    fn has_shape_of(self, grammar: Grammar, value_bytes: u32) -> bool {
        let has_key = 0 < self.key_bytes;
        let has_value = 0 < value_bytes;
        match grammar {
            Grammar::Get { .. } | Grammar::Delete => {
                self.extras_bytes == 0 && has_key && !has_value
            }
            Grammar::Store(StoreMode::Set | StoreMode::Add | StoreMode::Replace) => {
                self.extras_bytes == 8 && has_key
            }
            Grammar::Store(StoreMode::Append | StoreMode::Prepend)
            | Grammar::SaslStart
            | Grammar::SaslStep => self.extras_bytes == 0 && has_key,
            Grammar::Arithmetic(_) => self.extras_bytes == 20 && has_key && !has_value,
            Grammar::Touch | Grammar::GetAndTouch { .. } => {
                self.extras_bytes == 4 && has_key && !has_value
            }
            Grammar::Flush => matches!(self.extras_bytes, 0 | 4) && !has_key && !has_value,
            Grammar::Verbosity => self.extras_bytes == 4 && !has_key && !has_value,
            Grammar::Stats => self.extras_bytes == 0 && !has_value,
            Grammar::Noop | Grammar::Quit | Grammar::Version | Grammar::SaslList => {
                self.body_bytes == 0
            }
            Grammar::CompareAndStore
            | Grammar::MetaGet
            | Grammar::MetaSet
            | Grammar::MetaDelete
            | Grammar::MetaArithmetic
            | Grammar::MetaDebug
            | Grammar::NotOffered => false,
        }
    }

    /// An answer to a value that will not be read, if it is too large.
    #[inline]
    fn refuse_value<'a>(
        self,
        grammar: Grammar,
        key: Option<Key<'a>>,
        value_bytes: u32,
        limits: &Limits,
    ) -> Option<Decoded<'a>> {
        let skip = u64::from(value_bytes);
        let refuse = |problem, forget| {
            Some(Decoded::Wrong(Wrong {
                reply: self.reply(),
                problem,
                consumed: HEADER_BYTES + self.body_bytes as usize - value_bytes as usize,
                skip,
                close: false,
                forget,
            }))
        };
        match (grammar, key) {
            (Grammar::Store(mode), Some(key)) if limits.exceeded_by(key, value_bytes) => {
                refuse(Problem::TooLarge, (mode == StoreMode::Set).then_some(key))
            }
            (Grammar::SaslStart | Grammar::SaslStep, _)
                if MECHANISM_BYTES_MAX < usize::from(self.key_bytes)
                    || MESSAGE_BYTES_MAX < value_bytes as usize =>
            {
                refuse(Problem::BadFormat, None)
            }
            _ => None,
        }
    }

    /// `None` cannot be for a frame that [`Header::has_shape_of`] let pass.
    #[inline]
    fn body<'a>(
        self,
        grammar: Grammar,
        extras: Extras<'a>,
        key: Option<Key<'a>>,
        key_bytes: &'a [u8],
        value: &'a [u8],
    ) -> Option<Body<'a>> {
        let compare_cas = (self.cas != 0).then_some(self.cas);
        Some(match grammar {
            Grammar::Get { .. } => Body::Get(Get::plain(key?)),
            Grammar::GetAndTouch { .. } => {
                Body::Get(Get { touch: Some(extras.exptime(0)?), ..Get::plain(key?) })
            }
            Grammar::Store(mode) => {
                let (flags, exptime) = match mode {
                    StoreMode::Set | StoreMode::Add | StoreMode::Replace => {
                        (extras.u32(0)?, extras.exptime(4)?)
                    }
                    StoreMode::Append | StoreMode::Prepend => (0, Exptime(0)),
                };
                // With a CAS value, add and replace are what set is: store if it is still that.
                let is_set =
                    matches!(mode, StoreMode::Add | StoreMode::Replace) && compare_cas.is_some();
                let mode = if is_set { StoreMode::Set } else { mode };
                Body::Store(Store {
                    key: key?,
                    value,
                    flags,
                    exptime,
                    mode,
                    compare_cas,
                    new_cas: None,
                    invalidate: false,
                    vivify: None,
                })
            }
            Grammar::Delete => Body::Delete(Delete {
                key: key?,
                compare_cas,
                new_cas: None,
                invalidate: false,
                touch: None,
                remove_value: false,
            }),
            Grammar::Arithmetic(direction) => {
                Body::Arithmetic(self.arithmetic(direction, extras, key?, compare_cas)?)
            }
            Grammar::Touch => Body::Touch(Touch { key: key?, exptime: extras.exptime(0)? }),
            Grammar::Flush => Body::Flush { delay: extras.exptime(0).unwrap_or(Exptime(0)) },
            Grammar::Stats => Body::Stats { argument: key_bytes },
            Grammar::Version => Body::Version,
            Grammar::Verbosity => Body::Verbosity,
            Grammar::Noop => Body::Noop,
            Grammar::Quit => Body::Quit,
            Grammar::SaslList => Body::SaslMechanisms,
            Grammar::SaslStart | Grammar::SaslStep => {
                Body::Sasl { mechanism: key_bytes, data: value }
            }
            Grammar::CompareAndStore
            | Grammar::MetaGet
            | Grammar::MetaSet
            | Grammar::MetaDelete
            | Grammar::MetaArithmetic
            | Grammar::MetaDebug
            | Grammar::NotOffered => return None,
        })
    }

    fn arithmetic<'a>(
        self,
        direction: Direction,
        extras: Extras<'_>,
        key: Key<'a>,
        compare_cas: Option<u64>,
    ) -> Option<Arithmetic<'a>> {
        let initial = Initial { number: extras.u64(8)?, exptime: extras.exptime(16)? };
        Some(Arithmetic {
            key,
            direction,
            delta: extras.u64(0)?,
            initial: (extras.u32(16)? != DO_NOT_CREATE).then_some(initial),
            compare_cas,
            new_cas: None,
            touch: None,
        })
    }

    /// Skips the body of a frame whose opcode nobody knows, unless its key is too long for any.
    #[cold]
    fn unknown<'a>(self) -> Decoded<'a> {
        let before_value = u32::from(self.key_bytes) + u32::from(self.extras_bytes);
        if before_value <= self.body_bytes && KEY_BYTES_MAX < usize::from(self.key_bytes) {
            return self.wrong(Problem::BadFormat, 0, CLOSE);
        }
        let close = if BODY_BYTES_MAX < self.body_bytes { CLOSE } else { STAY };
        self.wrong(Problem::UnknownCommand, self.body_bytes, close)
    }

    #[cold]
    fn wrong<'a>(self, problem: Problem, skip: u32, close: bool) -> Decoded<'a> {
        Decoded::Wrong(Wrong {
            reply: self.reply(),
            problem,
            consumed: HEADER_BYTES,
            skip: if close { 0 } else { u64::from(skip) },
            close,
            forget: None,
        })
    }

    #[inline]
    fn reply<'a>(self) -> Reply<'a> {
        Reply(Form::Binary(BinaryForm { opcode: self.opcode, opaque: self.opaque }))
    }
}

const CLOSE: bool = true;
const STAY: bool = false;

/// The numbers between header and key.
#[derive(Clone, Copy)]
struct Extras<'a>(&'a [u8]);

impl Extras<'_> {
    #[inline]
    fn u32(self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    #[inline]
    fn u64(self, at: usize) -> Option<u64> {
        Some(u64::from_be_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    /// An expiry here has no sign, so it cannot be in the past but as a Unix time.
    #[inline]
    fn exptime(self, at: usize) -> Option<Exptime> {
        self.u32(at).map(|exptime| Exptime(i64::from(exptime)))
    }
}
