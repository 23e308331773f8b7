//! Numbers and times as people read them.

use crate::model::UnixSeconds;

/// `25 MiB`, `1.4 GiB`, `312 bytes`.
pub(super) fn bytes(count: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => format!("{} {name}", three_digits(count as f64 / unit as f64)),
        None if count == 1 => "1 byte".to_owned(),
        None => format!("{count} bytes"),
    }
}

/// `7`, `12,345`, `1.23 million`.
pub(super) fn count(count: u64) -> String {
    match count {
        0..1_000_000 => grouped(count),
        1_000_000..1_000_000_000 => format!("{} million", three_digits(count as f64 / 1e6)),
        _ => format!("{} billion", three_digits(count as f64 / 1e9)),
    }
}

/// Digits in groups of three: `1,234,567`.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `97.4 %`; a dash when there is nothing to divide by.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{} %", trimmed(part as f64 / whole as f64 * 100.0, 1))
}

/// `2 d 3 h`, `4 min`, `12 s`: the two largest units that matter.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// `3 min ago`, `just now`.
pub(super) fn ago(at: UnixSeconds, now: UnixSeconds) -> String {
    match now.0.saturating_sub(at.0) {
        0..10 => "just now".to_owned(),
        seconds => format!("{} ago", duration(seconds)),
    }
}

/// `12.3`, `1,234`, `1.23 million`: of something that is not counted in whole numbers.
pub(super) fn three_digits_or_words(value: f64) -> String {
    if value < 1_000.0 { three_digits(value) } else { count(value.round() as u64) }
}

/// `11:34`.
pub(super) fn clock(at: UnixSeconds) -> String {
    format!("{:02}:{:02}", at.0 / 3_600 % 24, at.0 / 60 % 60)
}

/// `11:34:05`.
pub(super) fn clock_with_seconds(at: UnixSeconds) -> String {
    format!("{}:{:02}", clock(at), at.0 % 60)
}

/// `11-21 11:34`.
pub(super) fn day_and_clock(at: UnixSeconds) -> String {
    let (_, month, day) = date(at.0 / 86_400);
    format!("{month:02}-{day:02} {}", clock(at))
}

/// `2026-11-21 11:34 UTC`.
pub(super) fn time(at: UnixSeconds) -> String {
    let (year, month, day) = date(at.0 / 86_400);
    let (hour, minute) = (at.0 / 3_600 % 24, at.0 / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// Year, month and day in the Gregorian calendar, after so many days since 1970-01-01. Counts years from
/// 0000-03-01, so that the leap day is a year's last (Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Three digits that matter: `0.123`, `1.23`, `12.3`, `123`, and no zeros behind the point.
pub(super) fn three_digits(value: f64) -> String {
    let places = if value < 1.0 {
        3
    } else if value < 10.0 {
        2
    } else if value < 100.0 {
        1
    } else {
        0
    };
    trimmed(value, places)
}

fn trimmed(value: f64, places: usize) -> String {
    let text = format!("{value:.places$}");
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        for (number, said) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1_023, "1023 bytes"),
            (1_024, "1 KiB"),
            (26_214_400, "25 MiB"),
            (1_503_238_553, "1.4 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(number), said);
        }
    }

    #[test]
    fn large_counts_are_said_in_words() {
        for (number, said) in [
            (0, "0"),
            (999, "999"),
            (12_345, "12,345"),
            (999_999, "999,999"),
            (1_234_567, "1.23 million"),
            (7_000_000_000, "7 billion"),
        ] {
            assert_eq!(count(number), said);
        }
    }

    #[test]
    fn nothing_of_nothing_is_no_percentage() {
        assert_eq!(percent(0, 0), "–");
        assert_eq!(percent(0, 7), "0 %");
        assert_eq!(percent(974, 1_000), "97.4 %");
        assert_eq!(percent(5, 5), "100 %");
    }

    #[test]
    fn times_are_utc() {
        for (at, said) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_795_261_199, "2026-11-21 11:39 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(time(UnixSeconds(at)), said);
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, said) in
            [(0, "0 s"), (59, "59 s"), (61, "1 min"), (3_600, "1 h"), (90_061, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), said);
        }
        assert_eq!(ago(UnixSeconds(100), UnixSeconds(99)), "just now");
        assert_eq!(ago(UnixSeconds(100), UnixSeconds(220)), "2 min ago");
    }
}
