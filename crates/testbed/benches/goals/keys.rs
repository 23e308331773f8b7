//! Keys from numbers.

/// A key of 16 bytes.
pub(crate) fn key(number: u64) -> [u8; 16] {
    let mut key = *b"k:00000000000000";
    let mut rest = number;
    for byte in key[2..].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}
