//! How a stream of bytes becomes messages.
//!
//! ```text
//!   0        4         5      6
//!   ┌────────┬─────────┬──────┬─────────┐
//!   │ length │ version │ kind │ body …  │
//!   └────────┴─────────┴──────┴─────────┘
//!     u32 LE   u8        u8     length − 2 bytes
//! ```
//!
//! Who receives says how long a body may be; a longer one is refused when its length has come, before
//! any of it is kept. What version and kind mean is for [`crate::control`] and [`crate::data`].

/// Bytes before the body.
pub const HEADER_BYTES: usize = 6;

/// The longest body any of our protocols may allow. Larger than the largest item of the largest
/// plan (4 MiB) with its key and words.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

// The length field holds it.
const _: () = assert!(BODY_BYTES_MAX + 2 <= u32::MAX as usize);

/// One message as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub version: u8,
    pub kind: u8,
    pub body: &'a [u8],
}

/// What one look at the buffer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A whole frame, and how many bytes it took.
    Frame { frame: Frame<'a>, consumed: usize },
    /// Nothing wrong so far; at least `missing` more bytes are needed.
    NeedMore { missing: usize },
}

/// The stream is lost: where the next frame begins is unknown. Close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {length} bytes is shorter than its header")]
    TooShort { length: u32 },
    #[error("a frame of {length} bytes is longer than {max}")]
    TooLong { length: u32, max: usize },
}

/// Looks for a frame at the front of `buffer` whose body has at most `body_bytes_max` bytes.
pub fn decode(buffer: &[u8], body_bytes_max: usize) -> Result<Decoded<'_>, FrameError> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(Decoded::NeedMore { missing: HEADER_BYTES - buffer.len() });
    };
    let length = u32::from_le_bytes(*length);
    let after = usize::try_from(length).unwrap_or(usize::MAX);
    if after < 2 {
        return Err(FrameError::TooShort { length });
    }
    if after - 2 > body_bytes_max {
        return Err(FrameError::TooLong { length, max: body_bytes_max });
    }
    match rest.get(..after) {
        Some([version, kind, body @ ..]) => {
            let frame = Frame { version: *version, kind: *kind, body };
            Ok(Decoded::Frame { frame, consumed: 4 + after })
        }
        Some(_) | None => {
            Ok(Decoded::NeedMore { missing: after.saturating_sub(rest.len()).max(1) })
        }
    }
}

/// Appends a frame to `out`; `body` appends the body.
///
/// # Panics
///
/// When the body is longer than [`BODY_BYTES_MAX`]: whoever builds a message knows its limits.
pub fn write(out: &mut Vec<u8>, version: u8, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, version, kind]);
    body(out);
    let after = out.len() - start - 4;
    assert!(after - 2 <= BODY_BYTES_MAX, "a message has outgrown its frame");
    let length = u32::try_from(after).expect("BODY_BYTES_MAX fits");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_its_bytes_come() {
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xff], 10),
            Err(FrameError::TooLong { length: u32::MAX, max: 10 })
        );
        assert_eq!(decode(&[1, 0, 0, 0], 10), Err(FrameError::TooShort { length: 1 }));
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(
            version in any::<u8>(), kind in any::<u8>(), body: Vec<u8>, tail: Vec<u8>,
        ) {
            let mut bytes = Vec::new();
            write(&mut bytes, version, kind, |out| out.extend_from_slice(&body));
            let whole = bytes.len();
            for cut in 0..whole {
                let Ok(Decoded::NeedMore { missing }) = decode(&bytes[..cut], body.len()) else {
                    panic!("half a frame is not a frame");
                };
                assert!(0 < missing && missing <= whole - cut);
            }
            bytes.extend_from_slice(&tail);
            let frame = Frame { version, kind, body: &body };
            prop_assert_eq!(
                decode(&bytes, body.len()),
                Ok(Decoded::Frame { frame, consumed: whole })
            );
        }

        #[test]
        fn any_bytes_have_an_answer(bytes: Vec<u8>) {
            if let Ok(Decoded::Frame { frame, consumed }) = decode(&bytes, 64) {
                prop_assert_eq!(consumed, frame.body.len() + HEADER_BYTES);
            }
        }
    }
}
