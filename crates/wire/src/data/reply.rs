//! A reply: what came of a request, or why it was not executed.
//!
//! ```text
//!   8    16      24     25     26   28
//!   ┌────┬───────┬──────┬──────┬────┬───────────────────────────────┐
//!   │ id │ cache │ kind │ code │ 0  │ numbers, value or names, by kind │
//!   └────┴───────┴──────┴──────┴────┴───────────────────────────────┘
//!     u64   u64    u8     u8    u16
//! ```
//!
//! Three sorts of answer, and the difference is what a proxy may do next: [`Answer::Done`] has run;
//! [`Answer::Refused`] has *not* run, so any request may be sent again, an increment too;
//! [`Answer::Failed`] may have run, so only reads may.

use cluster::map::Epoch;
use cluster::member::MEMBER_NAME_BYTES_MAX;
use cluster::ownership::{RunTag, Token};
use protocol::operation::{
    ArithmeticOutcome, DeleteOutcome, GetOutcome, Hit, Lease, StoreOutcome, TouchOutcome,
};
use tenancy::id::CacheId;

use crate::codec::{CodecError, Reader, put_short_str, put_u32, put_u64};
use crate::data::frame::{Decoded, PREFIX_BYTES, Seal, WrongFrame, close, open};
use crate::data::many::{ANSWER_HEAD_BYTES, Answers};

/// What a reply echoes, so that whoever waits can be found, and a stray one recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    pub id: u64,
    pub cache: CacheId,
}

/// One reply as it came.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    pub header: ReplyHeader,
    pub answer: Answer<'a>,
}

#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// Executed.
    Done(Outcome<'a>),
    /// Nothing was executed.
    Refused(Refusal<'a>),
    /// The backend broke down over it, so it may have been executed.
    Failed,
    /// Of several reads: what came of the next ones, in their order.
    Many(Answers<'a>),
}

/// What came of an operation.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// Of a get or a peek.
    Get(GetOutcome<'a>),
    Store(StoreOutcome),
    Delete(DeleteOutcome),
    Arithmetic(ArithmeticOutcome),
    Touch(TouchOutcome),
    /// Of whatever has nothing to tell: a flush, a reset, "is it yours?", "are you there?".
    Done,
    Figures(Figures<'a>),
}

/// Why a backend did not execute a request. Nothing happened, so the request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// The backend had the slot and gave it away. Ask `to`, and give the token along: it proves to
    /// `to` that nobody else serves the slot.
    Moved { to: &'a str, token: Token },
    /// The backend shall have the slot and has not got it yet. Ask `ask`, if anyone is named; he
    /// still has it, or gave it away.
    NotYet { ask: Option<&'a str> },
    /// The slot is none of the backend's by the map of this epoch.
    Unknown { epoch: Epoch },
    /// The backend takes no more just now.
    Busy(Busy),
    /// Its time was over before its turn came.
    Expired,
    /// The backend knows no such cache (it was deleted, or has not been told of yet).
    NoSuchCache,
}

/// Of what there was too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Busy {
    /// Requests of this cache that wait at the backend, by number or bytes.
    Cache,
    /// Requests of this link that wait at the backend, by number or bytes.
    Link,
    /// Requests that wait for a slot on its way to another owner.
    Parked,
    /// The backend is about to stop.
    Draining,
}

/// Figures by name, as `stats` shows them; checked when they were decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures<'a> {
    bytes: &'a [u8],
}

/// Most figures in one reply: several times what a backend counts.
pub const FIGURES_MAX: usize = 256;

impl<'a> Figures<'a> {
    /// Writes figures to `buffer` as a reply can carry them. Names are at most 255 bytes, and of
    /// more than [`FIGURES_MAX`] figures the rest is left out.
    pub fn encode<'n>(
        figures: impl IntoIterator<Item = (&'n str, u64)>,
        buffer: &'a mut Vec<u8>,
    ) -> Self {
        buffer.clear();
        for (name, figure) in figures.into_iter().take(FIGURES_MAX) {
            put_short_str(buffer, name);
            put_u64(buffer, figure);
        }
        Figures { bytes: buffer }
    }

    fn decode(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let mut count = 0;
        while !reader.is_empty() {
            reader.short_str("name of a figure")?;
            reader.u64()?;
            count += 1;
            if FIGURES_MAX < count {
                return Err(CodecError::TooMany { what: "figures", count, max: FIGURES_MAX });
            }
        }
        Ok(Figures { bytes })
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, u64)> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            let name = reader.short_str("name of a figure").ok()?;
            Some((name, reader.u64().ok()?))
        })
    }
}

const HIT: u8 = 1;
const MISS: u8 = 2;
const STORED: u8 = 3;
const NOT_STORED: u8 = 4;
const DELETE: u8 = 5;
const COUNTED: u8 = 6;
const NOT_COUNTED: u8 = 7;
const TOUCHED: u8 = 8;
const NOT_TOUCHED: u8 = 9;
const DONE: u8 = 10;
const FIGURES: u8 = 11;
const MOVED: u8 = 32;
const NOT_YET: u8 = 33;
const UNKNOWN: u8 = 34;
const BUSY: u8 = 35;
const EXPIRED: u8 = 36;
const NO_SUCH_CACHE: u8 = 37;
const FAILED: u8 = 48;
const MANY: u8 = 49;

// The code of a hit, or of what was counted.
const WON: u8 = 1 << 0;
const STALE: u8 = 1 << 1;
const TAKEN: u8 = 1 << 2;
const READ_BEFORE: u8 = 1 << 3;
const HAS_TTL: u8 = 1 << 4;
const HIT_BITS: u8 = WON | STALE | TAKEN | READ_BEFORE | HAS_TTL;

const HEADER_BYTES: usize = 20;
/// `cas`, `flags`, `ttl`, `idle` of a hit.
const HIT_BYTES: usize = 20;

impl<'a> Reply<'a> {
    /// Appends a whole reply.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>, seal: Seal) {
        let start = out.len();
        Lead::Frame(&self.header).write(out, &self.answer);
        close(out, start, seal);
    }

    /// Looks for a reply at the front of `input`.
    #[inline]
    pub fn decode(input: &'a [u8], seal: Seal) -> Result<Decoded<Self>, WrongFrame> {
        match open(input, seal)? {
            Decoded::NeedMore { bytes_total } => Ok(Decoded::NeedMore { bytes_total }),
            Decoded::Complete { frame, consumed } => {
                Ok(Decoded::Complete { frame: Reply::of_body(frame)?, consumed })
            }
        }
    }

    #[inline]
    fn of_body(body: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let id = reader.u64()?;
        let cache = CacheId::new(reader.u64()?);
        let header = ReplyHeader { id, cache };
        Ok(Reply { header, answer: decode_answer(reader)? })
    }
}

/// What stands before an answer's kind.
#[derive(Clone, Copy)]
enum Lead<'h> {
    /// It has a frame of its own.
    Frame(&'h ReplyHeader),
    /// It is one of many; before it stands its length, which is filled in afterwards.
    Part,
}

/// Appends one of many answers, with room for its length before it.
#[inline]
pub(super) fn write_part(out: &mut Vec<u8>, answer: &Answer<'_>) {
    Lead::Part.write(out, answer);
}

/// Begins a frame of many answers.
#[inline]
pub(super) fn head_of_many(out: &mut Vec<u8>, header: &ReplyHeader) {
    Lead::Frame(header).head(out, MANY, 0);
}

impl Lead<'_> {
    #[inline]
    fn write(self, out: &mut Vec<u8>, answer: &Answer<'_>) {
        match *answer {
            Answer::Done(Outcome::Get(Some(hit))) => self.hit(out, &hit),
            Answer::Done(outcome) => self.outcome(out, outcome),
            Answer::Refused(refusal) => self.refusal(out, refusal),
            Answer::Failed => self.head(out, FAILED, 0),
            Answer::Many(answers) => {
                self.head(out, MANY, 0);
                out.extend_from_slice(answers.bytes());
            }
        }
    }

    #[inline]
    fn head(self, out: &mut Vec<u8>, kind: u8, code: u8) {
        match self {
            Lead::Frame(header) => {
                let mut bytes = [0; PREFIX_BYTES + HEADER_BYTES];
                bytes[8..16].copy_from_slice(&header.id.to_le_bytes());
                bytes[16..24].copy_from_slice(&header.cache.get().to_le_bytes());
                bytes[24..26].copy_from_slice(&[kind, code]);
                out.extend_from_slice(&bytes);
            }
            Lead::Part => {
                let mut bytes = [0; ANSWER_HEAD_BYTES];
                bytes[4..6].copy_from_slice(&[kind, code]);
                out.extend_from_slice(&bytes);
            }
        }
    }

    #[inline]
    fn hit(self, out: &mut Vec<u8>, hit: &Hit<'_>) {
        let bit = |bit, set| if set { bit } else { 0 };
        let code = bit(WON, hit.lease.won)
            | bit(STALE, hit.lease.stale)
            | bit(TAKEN, hit.lease.taken)
            | bit(READ_BEFORE, hit.read_before)
            | bit(HAS_TTL, hit.ttl_seconds.is_some());
        let mut numbers = [0; HIT_BYTES];
        numbers[..8].copy_from_slice(&hit.cas.to_le_bytes());
        numbers[8..12].copy_from_slice(&hit.flags.to_le_bytes());
        numbers[12..16].copy_from_slice(&hit.ttl_seconds.unwrap_or(0).to_le_bytes());
        numbers[16..].copy_from_slice(&hit.idle_seconds.to_le_bytes());
        out.reserve(PREFIX_BYTES + HEADER_BYTES + HIT_BYTES + hit.value.len());
        self.head(out, HIT, code);
        out.extend_from_slice(&numbers);
        out.extend_from_slice(hit.value);
    }

    fn outcome(self, out: &mut Vec<u8>, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Get(Some(hit)) => self.hit(out, &hit),
            Outcome::Get(None) => self.head(out, MISS, 0),
            Outcome::Store(StoreOutcome::Stored { cas, value_bytes }) => {
                self.head(out, STORED, 0);
                put_u64(out, cas);
                put_u32(out, value_bytes);
            }
            Outcome::Store(other) => self.head(out, NOT_STORED, store_code(other)),
            Outcome::Delete(outcome) => self.head(out, DELETE, delete_code(outcome)),
            Outcome::Arithmetic(ArithmeticOutcome::Counted { number, cas, ttl_seconds }) => {
                self.head(out, COUNTED, if ttl_seconds.is_some() { HAS_TTL } else { 0 });
                put_u64(out, number);
                put_u64(out, cas);
                put_u32(out, ttl_seconds.unwrap_or(0));
            }
            Outcome::Arithmetic(other) => self.head(out, NOT_COUNTED, arithmetic_code(other)),
            Outcome::Touch(TouchOutcome::Touched { cas, flags }) => {
                self.head(out, TOUCHED, 0);
                put_u64(out, cas);
                put_u32(out, flags);
            }
            Outcome::Touch(TouchOutcome::NotFound) => self.head(out, NOT_TOUCHED, 0),
            Outcome::Done => self.head(out, DONE, 0),
            Outcome::Figures(figures) => {
                self.head(out, FIGURES, 0);
                out.extend_from_slice(figures.bytes);
            }
        }
    }

    fn refusal(self, out: &mut Vec<u8>, refusal: Refusal<'_>) {
        match refusal {
            Refusal::Moved { to, token } => {
                self.head(out, MOVED, 0);
                put_u64(out, token.epoch.get());
                put_u64(out, token.to.get());
                put_short_str(out, to);
            }
            Refusal::NotYet { ask } => {
                self.head(out, NOT_YET, 0);
                put_short_str(out, ask.unwrap_or_default());
            }
            Refusal::Unknown { epoch } => {
                self.head(out, UNKNOWN, 0);
                put_u64(out, epoch.get());
            }
            Refusal::Busy(busy) => self.head(out, BUSY, busy_code(busy)),
            Refusal::Expired => self.head(out, EXPIRED, 0),
            Refusal::NoSuchCache => self.head(out, NO_SUCH_CACHE, 0),
        }
    }
}

/// Reads an answer from its kind on; it ends with the bytes.
#[inline]
pub(super) fn decode_answer(mut reader: Reader<'_>) -> Result<Answer<'_>, CodecError> {
    let [kind, code, 0, 0] = reader.array()? else {
        return Err(CodecError::Invalid { what: "filling" });
    };
    if kind == HIT {
        let hit = decode_hit(code, &mut reader)?;
        return Ok(Answer::Done(Outcome::Get(Some(hit))));
    }
    let answer = decode_other(kind, code, &mut reader)?;
    reader.end()?;
    Ok(answer)
}

#[inline]
fn decode_hit<'a>(code: u8, reader: &mut Reader<'a>) -> Result<Hit<'a>, CodecError> {
    if code & !HIT_BITS != 0 {
        return Err(CodecError::Invalid { what: "bit" });
    }
    let cas = reader.u64()?;
    let flags = reader.u32()?;
    let ttl = reader.u32()?;
    let idle_seconds = reader.u32()?;
    Ok(Hit {
        value: reader.rest(),
        flags,
        cas,
        ttl_seconds: decode_ttl(code, ttl)?,
        read_before: code & READ_BEFORE != 0,
        idle_seconds,
        lease: Lease { won: code & WON != 0, stale: code & STALE != 0, taken: code & TAKEN != 0 },
    })
}

/// One value has one encoding: without a time to live the field is 0.
#[inline]
fn decode_ttl(code: u8, ttl: u32) -> Result<Option<u32>, CodecError> {
    match (code & HAS_TTL != 0, ttl) {
        (true, ttl) => Ok(Some(ttl)),
        (false, 0) => Ok(None),
        (false, _) => Err(CodecError::Invalid { what: "time to live" }),
    }
}

fn decode_other<'a>(kind: u8, code: u8, reader: &mut Reader<'a>) -> Result<Answer<'a>, CodecError> {
    let has_code = matches!(kind, NOT_STORED | DELETE | COUNTED | NOT_COUNTED | BUSY);
    if code != 0 && !has_code {
        return Err(CodecError::Invalid { what: "code" });
    }
    let outcome = match kind {
        MISS => Outcome::Get(None),
        STORED => {
            Outcome::Store(StoreOutcome::Stored { cas: reader.u64()?, value_bytes: reader.u32()? })
        }
        NOT_STORED => Outcome::Store(store_of(code)?),
        DELETE => Outcome::Delete(delete_of(code)?),
        COUNTED => {
            if code & !HAS_TTL != 0 {
                return Err(CodecError::Invalid { what: "bit" });
            }
            let (number, cas, ttl) = (reader.u64()?, reader.u64()?, reader.u32()?);
            let ttl_seconds = decode_ttl(code, ttl)?;
            Outcome::Arithmetic(ArithmeticOutcome::Counted { number, cas, ttl_seconds })
        }
        NOT_COUNTED => Outcome::Arithmetic(arithmetic_of(code)?),
        TOUCHED => {
            Outcome::Touch(TouchOutcome::Touched { cas: reader.u64()?, flags: reader.u32()? })
        }
        NOT_TOUCHED => Outcome::Touch(TouchOutcome::NotFound),
        DONE => Outcome::Done,
        FIGURES => {
            let bytes = reader.bytes(reader.rest().len())?;
            Outcome::Figures(Figures::decode(bytes)?)
        }
        FAILED => return Ok(Answer::Failed),
        MANY => return Answers::new(reader.bytes(reader.rest().len())?).map(Answer::Many),
        _ => return decode_refusal(kind, code, reader).map(Answer::Refused),
    };
    Ok(Answer::Done(outcome))
}

fn decode_refusal<'a>(
    kind: u8,
    code: u8,
    reader: &mut Reader<'a>,
) -> Result<Refusal<'a>, CodecError> {
    Ok(match kind {
        MOVED => {
            let epoch = Epoch::new(reader.u64()?);
            let token = Token { epoch, to: RunTag::new(reader.u64()?) };
            let to = name(reader)?.ok_or(CodecError::Invalid { what: "member's name" })?;
            Refusal::Moved { to, token }
        }
        NOT_YET => Refusal::NotYet { ask: name(reader)? },
        UNKNOWN => Refusal::Unknown { epoch: Epoch::new(reader.u64()?) },
        BUSY => Refusal::Busy(busy_of(code)?),
        EXPIRED => Refusal::Expired,
        NO_SUCH_CACHE => Refusal::NoSuchCache,
        _ => return Err(CodecError::Invalid { what: "answer" }),
    })
}

/// A member's name, or `None` where it is empty. Only its length is checked: it is looked up among
/// the members one knows, never believed.
fn name<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a str>, CodecError> {
    let name = reader.short_str("member's name")?;
    if MEMBER_NAME_BYTES_MAX < name.len() {
        return Err(CodecError::Invalid { what: "member's name" });
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

fn store_code(outcome: StoreOutcome) -> u8 {
    match outcome {
        // Has a kind of its own.
        StoreOutcome::Stored { .. } => 0,
        StoreOutcome::NotStored => 1,
        StoreOutcome::Exists => 2,
        StoreOutcome::NotFound => 3,
        StoreOutcome::TooLarge => 4,
        StoreOutcome::OutOfMemory => 5,
    }
}

fn store_of(code: u8) -> Result<StoreOutcome, CodecError> {
    match code {
        1 => Ok(StoreOutcome::NotStored),
        2 => Ok(StoreOutcome::Exists),
        3 => Ok(StoreOutcome::NotFound),
        4 => Ok(StoreOutcome::TooLarge),
        5 => Ok(StoreOutcome::OutOfMemory),
        _ => Err(CodecError::Invalid { what: "outcome of a store" }),
    }
}

fn delete_code(outcome: DeleteOutcome) -> u8 {
    match outcome {
        DeleteOutcome::Deleted => 0,
        DeleteOutcome::NotFound => 1,
        DeleteOutcome::Exists => 2,
    }
}

fn delete_of(code: u8) -> Result<DeleteOutcome, CodecError> {
    match code {
        0 => Ok(DeleteOutcome::Deleted),
        1 => Ok(DeleteOutcome::NotFound),
        2 => Ok(DeleteOutcome::Exists),
        _ => Err(CodecError::Invalid { what: "outcome of a delete" }),
    }
}

fn arithmetic_code(outcome: ArithmeticOutcome) -> u8 {
    match outcome {
        // Has a kind of its own.
        ArithmeticOutcome::Counted { .. } => 0,
        ArithmeticOutcome::NotFound => 1,
        ArithmeticOutcome::NotNumeric => 2,
        ArithmeticOutcome::Exists => 3,
        ArithmeticOutcome::OutOfMemory => 4,
    }
}

fn arithmetic_of(code: u8) -> Result<ArithmeticOutcome, CodecError> {
    match code {
        1 => Ok(ArithmeticOutcome::NotFound),
        2 => Ok(ArithmeticOutcome::NotNumeric),
        3 => Ok(ArithmeticOutcome::Exists),
        4 => Ok(ArithmeticOutcome::OutOfMemory),
        _ => Err(CodecError::Invalid { what: "outcome of counting" }),
    }
}

fn busy_code(busy: Busy) -> u8 {
    match busy {
        Busy::Cache => 0,
        Busy::Link => 1,
        Busy::Parked => 2,
        Busy::Draining => 3,
    }
}

fn busy_of(code: u8) -> Result<Busy, CodecError> {
    match code {
        0 => Ok(Busy::Cache),
        1 => Ok(Busy::Link),
        2 => Ok(Busy::Parked),
        3 => Ok(Busy::Draining),
        _ => Err(CodecError::Invalid { what: "reason" }),
    }
}
