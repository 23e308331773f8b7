//! Decimal numbers, appended to an answer.

/// As many as 2^64 needs.
const DIGITS_MAX: usize = 20;

/// Appends `number` in decimal.
#[inline]
pub(super) fn push(out: &mut Vec<u8>, number: impl Into<u64>) {
    let mut number = number.into();
    let mut digits = [0; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        // A digit, so it fits.
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
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
