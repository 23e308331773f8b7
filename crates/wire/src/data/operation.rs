//! What is asked of a backend: the operations of clients, and a few of our own.
//!
//! ```text
//!   ┌──────┬────────────┬──────┬──────────────────────────────┬───────┬─────────┐
//!   │ kind │ key length │ bits │ numbers the kind or bits ask │ key … │ value … │
//!   └──────┴────────────┴──────┴──────────────────────────────┴───────┴─────────┘
//!     u8      u8          u16    8 or 4 bytes each, in order
//! ```
//!
//! An operation has bytes of its own, apart from the header of its request, so that a proxy encodes
//! it once and can send it again, to another backend under another header.
//!
//! Expiry travels as the client wrote it: whoever holds the items knows what time it is there.

use protocol::operation::{
    Arithmetic, Delete, Direction, Exptime, Get, Initial, Key, Store, StoreMode, Touch,
};

use crate::codec::{CodecError, Reader};
use crate::data::many::{self, Reads};

/// One thing asked.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    Get(Get<'a>),
    /// Everything about an item, without a trace.
    Peek(Key<'a>),
    Store(Store<'a>),
    Delete(Delete<'a>),
    Arithmetic(Arithmetic<'a>),
    Touch(Touch<'a>),
    /// Forget every item of the cache, now or after `delay`. Not about a slot: every backend is
    /// asked.
    Flush {
        delay: Exptime,
    },
    /// The backend's own figures for the cache. Not about a slot.
    Figures,
    /// Set the backend's counters for the cache to zero. Not about a slot.
    ResetFigures,
    /// Whose is the slot? Done when it is the backend's own, else refused as any request would be.
    Who,
    /// Are you there? Answered in turn with all else, so its time is that of a request.
    Ping,
    /// Several reads, each of a slot of its own.
    Many(Reads<'a>),
}

const GET: u8 = 1;
const PEEK: u8 = 2;
const STORE: u8 = 3;
const DELETE: u8 = 4;
const ARITHMETIC: u8 = 5;
const TOUCH: u8 = 6;
const FLUSH: u8 = 7;
const FIGURES: u8 = 8;
const RESET_FIGURES: u8 = 9;
const WHO: u8 = 10;
const PING: u8 = 11;
pub(super) const MANY: u8 = 12;

/// Kind, key length and bits.
pub(super) const HEAD_BYTES: usize = 4;

// One bit for each field that need not be there. Shared, so that a bit means one thing.
const HAS_TOUCH: u16 = 1 << 0;
const HAS_VIVIFY: u16 = 1 << 1;
const HAS_RECACHE: u16 = 1 << 2;
const HAS_COMPARE_CAS: u16 = 1 << 3;
const HAS_NEW_CAS: u16 = 1 << 4;
const HAS_INITIAL: u16 = 1 << 5;
const UNSEEN: u16 = 1 << 6;
const LEASES: u16 = 1 << 7;
const INVALIDATE: u16 = 1 << 8;
const REMOVE_VALUE: u16 = 1 << 9;
const DECREMENT: u16 = 1 << 10;
/// Of a store; three bits.
const MODE_SHIFT: u32 = 11;
const MODE_MASK: u16 = 0b111 << MODE_SHIFT;

const GET_BITS: u16 = HAS_TOUCH | HAS_VIVIFY | HAS_RECACHE | HAS_NEW_CAS | UNSEEN | LEASES;
const STORE_BITS: u16 = HAS_COMPARE_CAS | HAS_NEW_CAS | INVALIDATE | HAS_VIVIFY | MODE_MASK;
const DELETE_BITS: u16 = HAS_COMPARE_CAS | HAS_NEW_CAS | INVALIDATE | HAS_TOUCH | REMOVE_VALUE;
const ARITHMETIC_BITS: u16 = DECREMENT | HAS_INITIAL | HAS_COMPARE_CAS | HAS_NEW_CAS | HAS_TOUCH;

/// Most bytes that stand before key and value: the head of four, and six numbers of eight.
const NUMBERS_BYTES_MAX: usize = HEAD_BYTES + 6 * 8;

impl<'a> Operation<'a> {
    /// Appends the operation's bytes.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Operation::Get(get) => {
                Head::new(GET, get.key)
                    .number(HAS_TOUCH, get.touch.map(exptime_bits))
                    .number(HAS_VIVIFY, get.vivify.map(exptime_bits))
                    .number(HAS_RECACHE, get.recache_below_seconds.map(i64::cast_unsigned))
                    .number(HAS_NEW_CAS, get.new_cas)
                    .bit(UNSEEN, get.unseen)
                    .bit(LEASES, get.leases)
                    .write(out);
                out.extend_from_slice(get.key.bytes());
            }
            Operation::Peek(key) => key_alone(out, PEEK, *key),
            Operation::Store(store) => {
                Head::new(STORE, store.key)
                    .fixed(exptime_bits(store.exptime))
                    .fixed(u64::from(store.flags))
                    .number(HAS_COMPARE_CAS, store.compare_cas)
                    .number(HAS_NEW_CAS, store.new_cas)
                    .number(HAS_VIVIFY, store.vivify.map(exptime_bits))
                    .bit(INVALIDATE, store.invalidate)
                    .bit(mode_bits(store.mode), true)
                    .write(out);
                out.extend_from_slice(store.key.bytes());
                out.extend_from_slice(store.value);
            }
            Operation::Delete(delete) => {
                Head::new(DELETE, delete.key)
                    .number(HAS_COMPARE_CAS, delete.compare_cas)
                    .number(HAS_NEW_CAS, delete.new_cas)
                    .number(HAS_TOUCH, delete.touch.map(exptime_bits))
                    .bit(INVALIDATE, delete.invalidate)
                    .bit(REMOVE_VALUE, delete.remove_value)
                    .write(out);
                out.extend_from_slice(delete.key.bytes());
            }
            Operation::Arithmetic(arithmetic) => {
                let initial = arithmetic.initial;
                Head::new(ARITHMETIC, arithmetic.key)
                    .fixed(arithmetic.delta)
                    .number(HAS_INITIAL, initial.map(|initial| initial.number))
                    .number(HAS_INITIAL, initial.map(|initial| exptime_bits(initial.exptime)))
                    .number(HAS_COMPARE_CAS, arithmetic.compare_cas)
                    .number(HAS_NEW_CAS, arithmetic.new_cas)
                    .number(HAS_TOUCH, arithmetic.touch.map(exptime_bits))
                    .bit(DECREMENT, arithmetic.direction == Direction::Decrement)
                    .write(out);
                out.extend_from_slice(arithmetic.key.bytes());
            }
            Operation::Touch(touch) => {
                Head::new(TOUCH, touch.key).fixed(exptime_bits(touch.exptime)).write(out);
                out.extend_from_slice(touch.key.bytes());
            }
            Operation::Flush { delay } => {
                Head::without_key(FLUSH).fixed(exptime_bits(*delay)).write(out);
            }
            Operation::Figures => Head::without_key(FIGURES).write(out),
            Operation::ResetFigures => Head::without_key(RESET_FIGURES).write(out),
            Operation::Who => Head::without_key(WHO).write(out),
            Operation::Ping => Head::without_key(PING).write(out),
            Operation::Many(reads) => {
                head_of_many(out);
                out.extend_from_slice(reads.bytes());
            }
        }
    }

    /// Reads an operation that fills `bytes`.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut fields = Fields::new(bytes)?;
        let operation = match fields.kind {
            GET => {
                fields.allow(GET_BITS)?;
                let touch = fields.exptime(HAS_TOUCH)?;
                let vivify = fields.exptime(HAS_VIVIFY)?;
                let recache = fields.number(HAS_RECACHE)?;
                let new_cas = fields.number(HAS_NEW_CAS)?;
                Operation::Get(Get {
                    key: fields.key()?,
                    touch,
                    vivify,
                    recache_below_seconds: recache.map(u64::cast_signed),
                    new_cas,
                    unseen: fields.has(UNSEEN),
                    leases: fields.has(LEASES),
                })
            }
            PEEK => {
                fields.allow(0)?;
                Operation::Peek(fields.key()?)
            }
            STORE => return fields.store(),
            DELETE => {
                fields.allow(DELETE_BITS)?;
                let compare_cas = fields.number(HAS_COMPARE_CAS)?;
                let new_cas = fields.number(HAS_NEW_CAS)?;
                let touch = fields.exptime(HAS_TOUCH)?;
                Operation::Delete(Delete {
                    key: fields.key()?,
                    compare_cas,
                    new_cas,
                    invalidate: fields.has(INVALIDATE),
                    touch,
                    remove_value: fields.has(REMOVE_VALUE),
                })
            }
            ARITHMETIC => fields.arithmetic()?,
            TOUCH => {
                fields.allow(0)?;
                let exptime = Exptime(fields.fixed()?.cast_signed());
                Operation::Touch(Touch { key: fields.key()?, exptime })
            }
            FLUSH => Operation::Flush { delay: Exptime(fields.keyless()?.fixed()?.cast_signed()) },
            FIGURES => fields.keyless().map(|_| Operation::Figures)?,
            RESET_FIGURES => fields.keyless().map(|_| Operation::ResetFigures)?,
            WHO => fields.keyless().map(|_| Operation::Who)?,
            PING => fields.keyless().map(|_| Operation::Ping)?,
            MANY => return Reads::new(fields.keyless()?.reader.rest()).map(Operation::Many),
            _ => return Err(CodecError::Invalid { what: "operation" }),
        };
        fields.reader.end()?;
        Ok(operation)
    }

    /// The key it is about; `None` when it is about the whole cache, a slot, or nothing.
    #[inline]
    pub fn key(&self) -> Option<Key<'a>> {
        match self {
            Operation::Get(get) => Some(get.key),
            Operation::Peek(key) => Some(*key),
            Operation::Store(store) => Some(store.key),
            Operation::Delete(delete) => Some(delete.key),
            Operation::Arithmetic(arithmetic) => Some(arithmetic.key),
            Operation::Touch(touch) => Some(touch.key),
            Operation::Flush { .. }
            | Operation::Figures
            | Operation::ResetFigures
            | Operation::Who
            | Operation::Ping
            | Operation::Many(_) => None,
        }
    }
}

/// The key of an operation that was encoded here, if it has one. What else it asks is not looked at.
#[inline]
pub fn key_of_own(bytes: &[u8]) -> Option<Key<'_>> {
    let [kind, key_bytes, ..] = *bytes else { return None };
    match kind {
        // Nothing stands behind their keys.
        GET | PEEK | DELETE | ARITHMETIC | TOUCH => {
            let start = bytes.len().checked_sub(usize::from(key_bytes))?;
            Key::new(&bytes[start..])
        }
        STORE => Operation::decode(bytes).ok()?.key(),
        _ => None,
    }
}

/// All that stands before the key, gathered on the stack and written in one piece.
struct Head {
    bytes: [u8; NUMBERS_BYTES_MAX],
    length: usize,
    bits: u16,
}

impl Head {
    #[inline]
    fn new(kind: u8, key: Key<'_>) -> Self {
        let mut head = Head::without_key(kind);
        head.bytes[1] = key_length(key);
        head
    }

    #[inline]
    fn without_key(kind: u8) -> Self {
        let mut bytes = [0; NUMBERS_BYTES_MAX];
        bytes[0] = kind;
        Head { bytes, length: HEAD_BYTES, bits: 0 }
    }

    #[inline]
    fn fixed(mut self, number: u64) -> Self {
        self.bytes[self.length..self.length + 8].copy_from_slice(&number.to_le_bytes());
        self.length += 8;
        self
    }

    #[inline]
    fn number(self, bit: u16, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.fixed(number).bit(bit, true),
            None => self,
        }
    }

    #[inline]
    fn bit(mut self, bit: u16, set: bool) -> Self {
        self.bits |= if set { bit } else { 0 };
        self
    }

    #[inline]
    fn write(mut self, out: &mut Vec<u8>) {
        self.bytes[2..4].copy_from_slice(&self.bits.to_le_bytes());
        out.extend_from_slice(&self.bytes[..self.length]);
    }
}

/// A read as it is asked a second time, of the same bytes: the answer is the same, and whoever executes
/// both counts one. What is no read stays as it is.
pub fn without_trace(operation: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(operation.len());
    match Operation::decode(operation) {
        Ok(Operation::Get(get)) => Operation::Peek(get.key).encode(&mut out),
        Ok(Operation::Many(reads)) => {
            many::begin(&mut out);
            for read in reads.iter() {
                many::push_encoded(&mut out, read.slot, &without_trace(read.operation));
            }
        }
        Ok(_) | Err(_) => out.extend_from_slice(operation),
    }
    out
}

/// What is left to read of an operation.
struct Fields<'a> {
    kind: u8,
    key_bytes: usize,
    bits: u16,
    reader: Reader<'a>,
}

impl<'a> Fields<'a> {
    #[inline]
    fn new(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let [kind, key_bytes, low, high] = reader.array()?;
        let bits = u16::from_le_bytes([low, high]);
        Ok(Fields { kind, key_bytes: usize::from(key_bytes), bits, reader })
    }

    /// One value has one encoding: bits that mean nothing here must not be set.
    #[inline]
    fn allow(&self, bits: u16) -> Result<(), CodecError> {
        if self.bits & !bits == 0 { Ok(()) } else { Err(CodecError::Invalid { what: "bit" }) }
    }

    fn keyless(&mut self) -> Result<&mut Self, CodecError> {
        self.allow(0)?;
        if self.key_bytes == 0 { Ok(self) } else { Err(CodecError::Invalid { what: "key" }) }
    }

    #[inline]
    fn has(&self, bit: u16) -> bool {
        self.bits & bit != 0
    }

    #[inline]
    fn fixed(&mut self) -> Result<u64, CodecError> {
        self.reader.u64()
    }

    #[inline]
    fn number(&mut self, bit: u16) -> Result<Option<u64>, CodecError> {
        if self.has(bit) { self.reader.u64().map(Some) } else { Ok(None) }
    }

    #[inline]
    fn exptime(&mut self, bit: u16) -> Result<Option<Exptime>, CodecError> {
        Ok(self.number(bit)?.map(|bits| Exptime(bits.cast_signed())))
    }

    #[inline]
    fn key(&mut self) -> Result<Key<'a>, CodecError> {
        Key::new(self.reader.bytes(self.key_bytes)?).ok_or(CodecError::Invalid { what: "key" })
    }

    #[inline]
    fn store(mut self) -> Result<Operation<'a>, CodecError> {
        self.allow(STORE_BITS)?;
        let exptime = Exptime(self.fixed()?.cast_signed());
        let flags = u32::try_from(self.fixed()?)
            .map_err(|_| CodecError::Invalid { what: "client flags" })?;
        let compare_cas = self.number(HAS_COMPARE_CAS)?;
        let new_cas = self.number(HAS_NEW_CAS)?;
        let vivify = self.exptime(HAS_VIVIFY)?;
        let mode = mode(self.bits)?;
        let key = self.key()?;
        Ok(Operation::Store(Store {
            key,
            value: self.reader.rest(),
            flags,
            exptime,
            mode,
            compare_cas,
            new_cas,
            invalidate: self.has(INVALIDATE),
            vivify,
        }))
    }

    fn arithmetic(&mut self) -> Result<Operation<'a>, CodecError> {
        self.allow(ARITHMETIC_BITS)?;
        let delta = self.fixed()?;
        let number = self.number(HAS_INITIAL)?;
        let exptime = self.exptime(HAS_INITIAL)?;
        let compare_cas = self.number(HAS_COMPARE_CAS)?;
        let new_cas = self.number(HAS_NEW_CAS)?;
        let touch = self.exptime(HAS_TOUCH)?;
        let decrement = self.has(DECREMENT);
        Ok(Operation::Arithmetic(Arithmetic {
            key: self.key()?,
            direction: if decrement { Direction::Decrement } else { Direction::Increment },
            delta,
            initial: number.zip(exptime).map(|(number, exptime)| Initial { number, exptime }),
            compare_cas,
            new_cas,
            touch,
        }))
    }
}

pub(super) fn head_of_many(out: &mut Vec<u8>) {
    Head::without_key(MANY).write(out);
}

fn key_alone(out: &mut Vec<u8>, kind: u8, key: Key<'_>) {
    Head::new(kind, key).write(out);
    out.extend_from_slice(key.bytes());
}

#[inline]
fn key_length(key: Key<'_>) -> u8 {
    u8::try_from(key.bytes().len()).expect("a key has at most 250 bytes")
}

#[inline]
fn exptime_bits(exptime: Exptime) -> u64 {
    exptime.0.cast_unsigned()
}

#[inline]
fn mode_bits(mode: StoreMode) -> u16 {
    let number = match mode {
        StoreMode::Set => 0,
        StoreMode::Add => 1,
        StoreMode::Replace => 2,
        StoreMode::Append => 3,
        StoreMode::Prepend => 4,
    };
    number << MODE_SHIFT
}

#[inline]
fn mode(bits: u16) -> Result<StoreMode, CodecError> {
    match (bits & MODE_MASK) >> MODE_SHIFT {
        0 => Ok(StoreMode::Set),
        1 => Ok(StoreMode::Add),
        2 => Ok(StoreMode::Replace),
        3 => Ok(StoreMode::Append),
        4 => Ok(StoreMode::Prepend),
        _ => Err(CodecError::Invalid { what: "store mode" }),
    }
}
