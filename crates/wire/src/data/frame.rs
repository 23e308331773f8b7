//! How requests and replies lie in a stream of bytes, and how damage is found out.
//!
//! ```text
//!   0        4          8
//!   ┌────────┬──────────┬─────────┐
//!   │ length │ checksum │ body …  │     numbers are little-endian
//!   └────────┴──────────┴─────────┘
//!     of body   of body
//! ```
//!
//! TCP's own checksum of 16 bits lets one damaged segment in some ten thousand through, and a
//! damaged value or id in a shared cache is another tenant's data. So every frame on a plain link
//! carries 32 bits of XXH3; a link under TLS has something better already and leaves the field 0.
//! Reasons and prices: `docs/decisions/0018-frames-between-proxy-and-backend.md`.

use cluster::mistake::{Mistake, is_made};
use twox_hash::XxHash3_64;

use crate::codec::CodecError;
use crate::frame::BODY_BYTES_MAX;

/// Bytes before the body.
pub const PREFIX_BYTES: usize = 8;

/// What keeps a link's frames whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// A plain link: each frame carries a checksum.
    Checksum,
    /// TLS sees to it; the checksum is 0.
    Tls,
}

/// Why a frame cannot be understood. The link is lost: where the next frame begins is unknown, and
/// nothing that came on it since can be trusted. Close it; what was sent on it may have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongFrame {
    #[error("a frame of {bytes} bytes is longer than {BODY_BYTES_MAX}")]
    TooLong { bytes: u32 },
    #[error("a frame does not match its checksum")]
    Damaged,
    #[error("a frame holds what no frame may hold")]
    Content(#[from] CodecError),
}

/// What one look at the buffer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A whole frame, and how many bytes of the buffer it took.
    Complete { frame: T, consumed: usize },
    /// Nothing wrong so far; come back when the buffer holds this many bytes.
    NeedMore { bytes_total: usize },
}

/// Finds the body of the frame at the front of `input`.
#[inline]
pub(super) fn open(input: &[u8], seal: Seal) -> Result<Decoded<&[u8]>, WrongFrame> {
    let Some((prefix, rest)) = input.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(Decoded::NeedMore { bytes_total: PREFIX_BYTES });
    };
    let bytes = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
    let length = usize::try_from(bytes).unwrap_or(usize::MAX);
    if BODY_BYTES_MAX < length {
        return Err(WrongFrame::TooLong { bytes });
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Decoded::NeedMore { bytes_total: PREFIX_BYTES + length });
    };
    let said = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
    if said != checksum(body, seal) && !is_made(Mistake::ChecksNoChecksum) {
        return Err(WrongFrame::Damaged);
    }
    Ok(Decoded::Complete { frame: body, consumed: PREFIX_BYTES + length })
}

/// Fills in the prefix of the frame that begins at `start` and ends with `out`.
///
/// # Panics
///
/// When the body is longer than [`BODY_BYTES_MAX`]: an item is at most 4 MiB.
#[inline]
pub(super) fn close(out: &mut [u8], start: usize, seal: Seal) {
    let (prefix, body) = out[start..].split_at_mut(PREFIX_BYTES);
    assert!(body.len() <= BODY_BYTES_MAX, "an item has outgrown its frame");
    let length = u32::try_from(body.len()).expect("BODY_BYTES_MAX fits");
    prefix[..4].copy_from_slice(&length.to_le_bytes());
    prefix[4..].copy_from_slice(&checksum(body, seal).to_le_bytes());
}

#[inline]
fn checksum(body: &[u8], seal: Seal) -> u32 {
    match seal {
        // The low half: every bit of XXH3 depends on every bit of the body.
        Seal::Checksum => XxHash3_64::oneshot(body) as u32,
        Seal::Tls => 0,
    }
}
