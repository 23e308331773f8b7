//! Decimal numbers in answers.

/// Appends `number` in decimal.
#[inline]
pub(super) fn push(out: &mut Vec<u8>, number: impl Into<u64>) {
    let mut text = Backwards::<DIGITS_MAX>::new();
    text.number(number);
    out.extend_from_slice(text.bytes());
}

/// A short text that is assembled from its end, because that is how digits come.
pub(super) struct Backwards<const BYTES_MAX: usize> {
    bytes: [u8; BYTES_MAX],
    start: usize,
}

/// As many as 2^64 needs.
pub(super) const DIGITS_MAX: usize = 20;

impl<const BYTES_MAX: usize> Backwards<BYTES_MAX> {
    #[inline]
    pub(super) fn new() -> Self {
        Backwards { bytes: [0; BYTES_MAX], start: BYTES_MAX }
    }

    /// Puts `text` before what is there.
    #[inline]
    pub(super) fn text(&mut self, text: &[u8]) {
        let end = self.start;
        self.start -= text.len();
        self.bytes[self.start..end].copy_from_slice(text);
    }

    /// Puts `number` in decimal before what is there.
    #[inline]
    pub(super) fn number(&mut self, number: impl Into<u64>) {
        let mut number = number.into();
        let mut start = self.start;
        loop {
            start -= 1;
            // A digit, so it fits.
            self.bytes[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.start = start;
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// How many bytes [`push`] appends.
pub(super) fn width(number: u64) -> u32 {
    number.checked_ilog10().unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use super::{push, width};

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        let edges = (0..20).flat_map(|power| {
            let edge = 10_u64.pow(power);
            [edge - 1, edge, edge + 1]
        });
        for number in edges.chain([u64::MAX]) {
            let mut out = Vec::new();
            push(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
            assert_eq!(out.len(), width(number) as usize);
        }
    }
}
