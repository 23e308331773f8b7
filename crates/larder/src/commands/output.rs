//! How commands answer: tables and pairs for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;

/// A table: columns as wide as they must be, two spaces between them, nothing at the end of a line.
pub(crate) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let heads = heads.map(str::to_owned);
    std::iter::once(&heads).chain(rows).map(|row| line(row, widths)).collect()
}

fn line<const N: usize>(row: &[String; N], widths: [usize; N]) -> String {
    let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    let line = cells.collect::<Vec<_>>().join("  ");
    format!("{}\n", line.trim_end())
}

/// Names and values, a pair on a line.
pub(crate) fn pairs<const N: usize>(pairs: [(&str, String); N]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

/// Bytes in the largest binary unit that leaves a whole number.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fitting = units.into_iter().find(|(unit, _)| count > 0 && count.is_multiple_of(*unit));
    match fitting {
        Some((unit, name)) => format!("{} {name}", count / unit),
        None => format!("{count} bytes"),
    }
}

/// A value of the contract as JSON, to be read by people, too.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("the contract's types are plain") + "\n"
}

/// The same in one line, for programs that read lines.
pub(crate) fn to_json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the contract's types are plain") + "\n"
}

/// A Unix time in seconds as people and programs read it, in UTC (RFC 3339).
pub(crate) fn when(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a number of days since 1970.
fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // The calendar repeats after 400 years; then no more than as many steps are left.
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let mut year = 1970 + 400 * (days / DAYS_OF_400_YEARS);
    days %= DAYS_OF_400_YEARS;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    (year, month as u64 + 1, days + 1)
}

/// What was done to what, for programs; or the sentence for people.
pub(crate) fn done(json: bool, what: &str, name: &str, said: &str) -> String {
    if json { to_json(&json!({ what: name })) } else { said.to_owned() }
}

/// Whoever reads may have seen enough: a closed pipe is no failure.
pub(crate) fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let rows = [["1".into(), "shop".into()], ["12".into(), String::new()]];
        assert_eq!(table(["ID", "NAME"], &rows), "ID  NAME\n1   shop\n12\n");
        assert_eq!(table(["ID"], &[]), "ID\n");
    }

    #[test]
    fn times_are_said_in_utc() {
        for (unix, said) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (12_622_780_800, "2370-01-01T00:00:00Z"),
        ] {
            assert_eq!(when(unix), said);
        }
    }

    #[test]
    fn bytes_are_said_in_whole_units() {
        for (count, said) in [
            (0, "0 bytes"),
            (1_000, "1000 bytes"),
            (1 << 20, "1 MiB"),
            (26_214_400, "25 MiB"),
            (3 << 30, "3 GiB"),
        ] {
            assert_eq!(bytes(count), said);
        }
    }
}
