//! Several reads in one frame, and their answers in as few.
//!
//! ```text
//!   request header │ kind MANY, 0, 0 │ slot │ length │ operation │ slot │ length │ operation …
//!                                      u32    u16
//!   reply header   │ kind MANY, 0, 0 │ length │ kind │ code │ 0 │ as in a reply of one … │ length …
//!                                      u32      u8     u8     u16
//! ```
//!
//! Around a key in a frame of its own stand 48 bytes, a checksum, and on either side a table entry;
//! here it is 6 bytes. Only what changes nothing goes together: a read that is refused (its slot has
//! moved) can be asked again by itself, whatever became of the others.
//!
//! Answers come in the order of the reads. They need not come in one frame: a backend closes a frame
//! that has grown long and goes on in another with the same id.
//!
//! Spoken since version 2 ([`crate::data::handshake`]).

use cluster::slot::Slot;

use crate::codec::{CodecError, Reader};
use crate::data::frame::{PREFIX_BYTES, Seal, close};
use crate::data::operation::{self, Operation};
use crate::data::reply::{self, Answer, ReplyHeader};
use crate::frame::BODY_BYTES_MAX;

/// The first version that speaks of many.
pub const VERSION: u8 = 2;

/// Most reads in one request: more would save nothing, and hold up what comes behind them.
pub const READS_MAX: usize = 128;

/// A reply that is longer than this is closed, and the next answer begins another.
const REPLY_BYTES: usize = 256 * 1024;

// An item has at most 4 MiB.
const _: () = assert!(REPLY_BYTES + (5 << 20) < BODY_BYTES_MAX);

/// Slot and length before each read.
const READ_HEAD_BYTES: usize = 6;
/// Length, kind, code and filling before each answer.
pub(super) const ANSWER_HEAD_BYTES: usize = 8;

/// Reads as they stand in a frame.
#[derive(Debug, Clone, Copy)]
pub struct Reads<'a> {
    /// Without the head of the operation.
    bytes: &'a [u8],
}

/// One read of many.
#[derive(Debug, Clone, Copy)]
pub struct ReadAt<'a> {
    /// Of its key.
    pub slot: Slot,
    /// As it would stand in a frame of its own.
    pub operation: &'a [u8],
}

impl<'a> Reads<'a> {
    /// Checks that there are some, not too many, and that they fill `bytes`. Each is
    /// [decoded](ReadAt::decode) when its turn comes.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let (reads, mut rest, mut count) = (Reads { bytes }, bytes, 0);
        while !rest.is_empty() {
            rest = ReadAt::split_first(rest)?.1;
            count += 1;
        }
        match count {
            0 => Err(CodecError::Short),
            1..=READS_MAX => Ok(reads),
            _ => Err(CodecError::TooMany { what: "reads", count, max: READS_MAX }),
        }
    }

    /// Reads that [`begin`] and [`push`] have put together.
    ///
    /// # Panics
    /// They were not.
    pub fn of_own(operation: &'a [u8]) -> Self {
        match operation.split_at_checked(operation::HEAD_BYTES) {
            Some(([operation::MANY, ..], bytes)) => Reads { bytes },
            _ => panic!("not begun as many"),
        }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn iter(&self) -> impl Iterator<Item = ReadAt<'a>> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let (read, behind) = ReadAt::split_first(rest).ok()?;
            rest = behind;
            Some(read)
        })
    }
}

impl<'a> ReadAt<'a> {
    #[inline]
    fn split_first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), CodecError> {
        let mut reader = Reader::new(bytes);
        let slot = Slot::new(reader.u32()?).ok_or(CodecError::Invalid { what: "slot" })?;
        let length = usize::from(reader.u16()?);
        let operation = reader.bytes(length)?;
        Ok((ReadAt { slot, operation }, reader.rest()))
    }

    /// # Errors
    /// It is no operation, or none that may go together with others.
    #[inline]
    pub fn decode(&self) -> Result<Operation<'a>, CodecError> {
        let operation = Operation::decode(self.operation)?;
        match matches!(operation, Operation::Get(_) | Operation::Peek(_)) {
            true => Ok(operation),
            false => Err(CodecError::Invalid { what: "read" }),
        }
    }
}

/// Begins an operation of many reads.
pub fn begin(out: &mut Vec<u8>) {
    operation::head_of_many(out);
}

/// Appends a read: a get or a peek, of a key with this slot.
#[inline]
pub fn push(out: &mut Vec<u8>, slot: Slot, read: &Operation<'_>) {
    debug_assert!(matches!(read, Operation::Get(_) | Operation::Peek(_)));
    let start = begin_read(out, slot);
    read.encode(out);
    end_read(out, start);
}

/// As [`push`], with a read that was encoded before.
pub fn push_encoded(out: &mut Vec<u8>, slot: Slot, read: &[u8]) {
    let start = begin_read(out, slot);
    out.extend_from_slice(read);
    end_read(out, start);
}

fn begin_read(out: &mut Vec<u8>, slot: Slot) -> usize {
    let start = out.len();
    let mut head = [0; READ_HEAD_BYTES];
    head[..4].copy_from_slice(&slot.get().to_le_bytes());
    out.extend_from_slice(&head);
    start
}

fn end_read(out: &mut [u8], start: usize) {
    let length = out.len() - start - READ_HEAD_BYTES;
    let length = u16::try_from(length).expect("a key and six numbers are a few hundred bytes");
    out[start + 4..start + READ_HEAD_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Answers as they stand in a frame.
#[derive(Debug, Clone, Copy)]
pub struct Answers<'a> {
    bytes: &'a [u8],
}

impl<'a> Answers<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, CodecError> {
        // Without one, a reply would be none, and nobody would ever wait for less.
        if bytes.is_empty() { Err(CodecError::Short) } else { Ok(Answers { bytes }) }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The answers in order; after an error there is none.
    pub fn iter(&self) -> impl Iterator<Item = Result<Answer<'a>, CodecError>> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let answer = split_answer(rest);
            rest = answer.as_ref().map_or(&[], |(_, behind)| behind);
            Some(answer.map(|(answer, _)| answer))
        })
    }
}

#[inline]
fn split_answer(bytes: &[u8]) -> Result<(Answer<'_>, &[u8]), CodecError> {
    let mut reader = Reader::new(bytes);
    let length = reader.count_u32("bytes of an answer", BODY_BYTES_MAX)?;
    let answer = reply::decode_answer(Reader::new(reader.bytes(length)?))?;
    match answer {
        Answer::Many(_) => Err(CodecError::Invalid { what: "answer" }),
        Answer::Done(_) | Answer::Refused(_) | Answer::Failed => Ok((answer, reader.rest())),
    }
}

/// Writes the answers of one request of many reads, in as many frames as their sizes ask.
pub struct AnswersWriter<'a> {
    out: &'a mut Vec<u8>,
    header: ReplyHeader,
    seal: Seal,
    /// Where the open frame begins.
    start: Option<usize>,
}

impl<'a> AnswersWriter<'a> {
    pub fn new(out: &'a mut Vec<u8>, header: ReplyHeader, seal: Seal) -> Self {
        AnswersWriter { out, header, seal, start: None }
    }

    /// Says the answer of the next read.
    #[inline]
    pub fn push(&mut self, answer: &Answer<'_>) {
        let start = match self.start {
            Some(start) => start,
            None => {
                let start = self.out.len();
                reply::head_of_many(self.out, &self.header);
                *self.start.insert(start)
            }
        };
        let at = self.out.len();
        reply::write_part(self.out, answer);
        let length = self.out.len() - at - 4;
        let length = u32::try_from(length).expect("an item fits into a frame");
        self.out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        if PREFIX_BYTES + REPLY_BYTES < self.out.len() - start {
            self.close();
        }
    }

    /// What is written already, of this and of what was there before.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    fn close(&mut self) {
        if let Some(start) = self.start.take() {
            close(self.out, start, self.seal);
        }
    }
}

impl Drop for AnswersWriter<'_> {
    fn drop(&mut self) {
        self.close();
    }
}
