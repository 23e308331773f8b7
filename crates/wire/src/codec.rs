//! Numbers and strings in bytes: little-endian, lengths first, nothing self-describing.
//!
//! Writing cannot fail and appends to a `Vec`; reading goes through a [`Reader`], which checks that
//! the bytes are there before it looks at them.

/// XXH3-64: finds what a disk or a crash has broken, not what somebody has changed on purpose.
pub fn checksum(bytes: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(bytes)
}

/// Why bytes are not what they should be. Always the sender's fault; a retry gives the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("it ends too early")]
    Short,
    #[error("it goes on for {bytes} bytes after its end")]
    Excess { bytes: usize },
    #[error("it holds an impossible {what}")]
    Invalid { what: &'static str },
    #[error("it holds {count} {what}, more than {max}")]
    TooMany { what: &'static str, count: usize, max: usize },
}

/// Reads values off the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CodecError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CodecError::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn u128(&mut self) -> Result<u128, CodecError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// A number in as few bytes as it needs, seven bits in each, the lowest first (LEB128).
    pub fn varint(&mut self) -> Result<u64, CodecError> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit, and a number has one encoding.
            let is_last = byte & 0x80 == 0;
            if (bits << shift) >> shift != bits || (is_last && byte == 0 && shift > 0) {
                return Err(CodecError::Invalid { what: "number" });
            }
            number |= bits << shift;
            if is_last {
                return Ok(number);
            }
        }
        Err(CodecError::Invalid { what: "number" })
    }

    /// 0 or 1; every other byte is refused, so that one value has one encoding.
    pub fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Invalid { what: "truth value" }),
        }
    }

    /// A string with its length in one byte before it. `what` names it in the error.
    pub fn short_str(&mut self, what: &'static str) -> Result<&'a str, CodecError> {
        let length = usize::from(self.u8()?);
        str::from_utf8(self.bytes(length)?).map_err(|_| CodecError::Invalid { what })
    }

    /// Bytes with their length in four bytes before them, at most `max`.
    pub fn long_bytes(&mut self, what: &'static str, max: usize) -> Result<&'a [u8], CodecError> {
        let count = self.count_u32(what, max)?;
        self.bytes(count)
    }

    /// A number of things to come, in four bytes. Checked against `max` before anyone makes room.
    pub fn count_u32(&mut self, what: &'static str, max: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count > max { Err(CodecError::TooMany { what, count, max }) } else { Ok(count) }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Checks that everything was read.
    pub fn end(self) -> Result<(), CodecError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Excess { bytes: self.rest.len() })
        }
    }
}

pub fn put_u8(out: &mut Vec<u8>, number: u8) {
    out.push(number);
}

pub fn put_u16(out: &mut Vec<u8>, number: u16) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub fn put_u128(out: &mut Vec<u8>, number: u128) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// See [`Reader::varint`].
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    out.push(number as u8);
}

pub fn put_bool(out: &mut Vec<u8>, truth: bool) {
    out.push(u8::from(truth));
}

/// A count or length in four bytes.
///
/// # Panics
///
/// From 4 GiB on: every caller has a limit far below.
pub fn put_count(out: &mut Vec<u8>, count: usize) {
    put_u32(out, u32::try_from(count).expect("every count on the wire has a limit below u32"));
}

/// The longest string that [`put_short_str`] takes, in bytes.
pub const SHORT_STR_BYTES_MAX: usize = u8::MAX as usize;

/// A string with its length in one byte before it; cut at a character when it is longer than
/// [`SHORT_STR_BYTES_MAX`]. Names have a lower limit; only texts for people are ever cut.
pub fn put_short_str(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(SHORT_STR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    put_u8(out, u8::try_from(end).expect("at most SHORT_STR_BYTES_MAX"));
    out.extend_from_slice(&text.as_bytes()[..end]);
}

pub fn put_long_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_nothing_is_left() {
        let mut out = Vec::new();
        put_u8(&mut out, 1);
        put_u16(&mut out, 2);
        put_u32(&mut out, 3);
        put_u64(&mut out, 4);
        put_u128(&mut out, 5);
        put_bool(&mut out, true);
        put_short_str(&mut out, "six");
        put_long_bytes(&mut out, b"seven");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.u128(), Ok(5));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.short_str("text"), Ok("six"));
        assert_eq!(reader.long_bytes("bytes", 5), Ok(&b"seven"[..]));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn a_varint_is_as_short_as_its_number() {
        for (number, length) in [(0, 1), (127, 1), (128, 2), (1 << 32, 5), (u64::MAX, 10)] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!((Reader::new(&out).varint(), out.len()), (Ok(number), length));
        }
        let wrong = Err(CodecError::Invalid { what: "number" });
        assert_eq!(Reader::new(&[0x80, 0]).varint(), wrong, "0 in two bytes");
        assert_eq!(Reader::new(&[0xff; 10]).varint(), wrong, "it does not end");
        assert_eq!(Reader::new(&[0x80]).varint(), Err(CodecError::Short));
    }

    #[test]
    fn wrong_bytes_are_named_and_no_limit_is_passed() {
        assert_eq!(Reader::new(&[1]).u16(), Err(CodecError::Short));
        assert_eq!(Reader::new(&[2]).bool(), Err(CodecError::Invalid { what: "truth value" }));
        assert_eq!(
            Reader::new(&[1, 255]).short_str("name"),
            Err(CodecError::Invalid { what: "name" })
        );
        let many = CodecError::TooMany { what: "things", count: 9, max: 8 };
        assert_eq!(Reader::new(&[9, 0, 0, 0]).count_u32("things", 8), Err(many));
        assert_eq!(Reader::new(&[0, 0]).end(), Err(CodecError::Excess { bytes: 2 }));
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_at_a_character() {
        let mut out = Vec::new();
        put_short_str(&mut out, &"ä".repeat(200));
        assert_eq!(Reader::new(&out).short_str("text"), Ok(&*"ä".repeat(127)));
    }
}
