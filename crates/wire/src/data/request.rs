//! A request: who asks for what, where he thinks it is, and how long he waits.
//!
//! ```text
//!   8    16      24      32         36            40
//!   ┌────┬───────┬───────┬──────────┬─────────────┬──────────────┬─────────────┐
//!   │ id │ cache │ epoch │ deadline │ slot │ hops │ [token]      │ operation … │
//!   └────┴───────┴───────┴──────────┴─────────────┴──────────────┴─────────────┘
//!     u64   u64    u64      u32         u32        two u64, if bit 31 of the word before says so
//! ```

use cluster::map::Epoch;
use cluster::ownership::{RunTag, Token};
use cluster::slot::Slot;
use tenancy::id::CacheId;

use crate::codec::{CodecError, Reader};
use crate::data::frame::{Decoded, PREFIX_BYTES, Seal, WrongFrame, close, open};
use crate::data::operation::Operation;

/// Times a request may be sent on to another backend. Two changes of the map at once need three
/// (there, back, and there again); one more for a proxy that had none of them yet.
pub const HOPS_MAX: u8 = 4;

/// All that a request says besides what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// The reply carries it back. No two requests that wait on one link have the same.
    pub id: u64,
    /// The reply carries it back, so that no value can reach another tenant.
    pub cache: CacheId,
    /// Of the newest committed map that the proxy holds.
    pub epoch: Epoch,
    /// What is left of the request's time when it is sent, in milliseconds. A backend that comes to
    /// it later does not execute it: nobody waits any more.
    pub deadline_ms: u32,
    /// Of the key; 0 where the operation has none.
    pub slot: Slot,
    /// How many more times it may be sent on; at most [`HOPS_MAX`].
    pub hops_left: u8,
    /// What the backend that had the slot before gave along.
    pub token: Option<Token>,
}

/// One request as it came.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub header: RequestHeader,
    pub operation: Operation<'a>,
}

const HEADER_BYTES: usize = 32;
const TOKEN_BIT: u32 = 1 << 31;
/// A slot has 17 bits.
const HOPS_SHIFT: u32 = 24;
const SLOT_MASK: u32 = (1 << HOPS_SHIFT) - 1;
const HOPS_MASK: u32 = 0x7f;

const _: () = assert!(cluster::slot::SLOTS <= SLOT_MASK);
const _: () = assert!(HOPS_MAX as u32 <= HOPS_MASK);

impl RequestHeader {
    /// Appends a whole request whose operation has been encoded before.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>, operation: &[u8], seal: Seal) {
        let start = out.len();
        self.write(out);
        out.extend_from_slice(operation);
        close(out, start, seal);
    }

    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        debug_assert!(self.hops_left <= HOPS_MAX);
        let mut bytes = [0; PREFIX_BYTES + HEADER_BYTES];
        let mut word = self.slot.get() | u32::from(self.hops_left) << HOPS_SHIFT;
        if self.token.is_some() {
            word |= TOKEN_BIT;
        }
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.cache.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.get().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.deadline_ms.to_le_bytes());
        bytes[36..40].copy_from_slice(&word.to_le_bytes());
        out.extend_from_slice(&bytes);
        if let Some(token) = self.token {
            out.extend_from_slice(&token.epoch.get().to_le_bytes());
            out.extend_from_slice(&token.to.get().to_le_bytes());
        }
    }
}

impl<'a> Request<'a> {
    /// Appends a whole request.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>, seal: Seal) {
        let start = out.len();
        self.header.write(out);
        self.operation.encode(out);
        close(out, start, seal);
    }

    /// Looks for a request at the front of `input`.
    #[inline]
    pub fn decode(input: &'a [u8], seal: Seal) -> Result<Decoded<Self>, WrongFrame> {
        match open(input, seal)? {
            Decoded::NeedMore { bytes_total } => Ok(Decoded::NeedMore { bytes_total }),
            Decoded::Complete { frame, consumed } => {
                Ok(Decoded::Complete { frame: Request::of_body(frame)?, consumed })
            }
        }
    }

    #[inline]
    fn of_body(body: &'a [u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(body);
        let id = reader.u64()?;
        let cache = CacheId::new(reader.u64()?);
        let epoch = Epoch::new(reader.u64()?);
        let deadline_ms = reader.u32()?;
        let word = reader.u32()?;
        let slot = Slot::new(word & SLOT_MASK).ok_or(CodecError::Invalid { what: "slot" })?;
        let hops_left = (word >> HOPS_SHIFT & HOPS_MASK) as u8;
        if HOPS_MAX < hops_left {
            return Err(CodecError::Invalid { what: "number of hops" });
        }
        let token = if word & TOKEN_BIT == 0 {
            None
        } else {
            Some(Token { epoch: Epoch::new(reader.u64()?), to: RunTag::new(reader.u64()?) })
        };
        let operation = Operation::decode(reader.rest())?;
        let header = RequestHeader { id, cache, epoch, deadline_ms, slot, hops_left, token };
        Ok(Request { header, operation })
    }
}
