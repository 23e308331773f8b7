//! What may be written for a setting, and what it becomes.
//!
//! A value in the file has a TOML type; one from the environment or the command line is a bare word.
//! Each kind accepts both, and says in one phrase what it accepts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Written;
use crate::networks::Networks;

/// What may be written, and what it becomes.
pub(super) trait Kind {
    type Used;

    /// Whether a value stands in quotes in the file.
    const IS_TEXT: bool;

    /// The end of "must be …".
    fn expects(&self) -> String;

    /// `None` when what is written is not what is expected.
    fn used(&self, written: &Written) -> Option<Self::Used>;
}

/// [`Kind::IS_TEXT`] of a value, for a constant table.
pub(super) const fn is_text<K: Kind>(_: &K) -> bool {
    K::IS_TEXT
}

/// An IP address with a port. No host names: what they mean can change behind one's back.
pub(super) struct Address;

impl Kind for Address {
    type Used = SocketAddr;
    const IS_TEXT: bool = true;

    fn expects(&self) -> String {
        "an IP address with a port, such as \"0.0.0.0:11211\" or \"[::]:11211\"".to_owned()
    }

    fn used(&self, written: &Written) -> Option<SocketAddr> {
        written.text()?.parse().ok()
    }
}

/// A path of a file. Whether the file is there is seen when it is read.
pub(super) struct File;

impl Kind for File {
    type Used = PathBuf;
    const IS_TEXT: bool = true;

    fn expects(&self) -> String {
        "the path of a file".to_owned()
    }

    fn used(&self, written: &Written) -> Option<PathBuf> {
        written.text().filter(|path| !path.is_empty()).map(PathBuf::from)
    }
}

/// Where a browser finds something: scheme and host, perhaps a port, and nothing behind them.
pub(super) struct WebAddress;

impl Kind for WebAddress {
    type Used = String;
    const IS_TEXT: bool = true;

    fn expects(&self) -> String {
        "a web address without a path, such as \"https://cache.example\"".to_owned()
    }

    fn used(&self, written: &Written) -> Option<String> {
        let text = written.text()?.trim_end_matches('/');
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
        (!host.is_empty() && host.bytes().all(plain)).then(|| text.to_owned())
    }
}

/// Any text on one line.
pub(super) struct Text {
    pub(super) bytes_max: usize,
}

impl Kind for Text {
    type Used = String;
    const IS_TEXT: bool = true;

    fn expects(&self) -> String {
        format!("a text of 1 to {} bytes", self.bytes_max)
    }

    fn used(&self, written: &Written) -> Option<String> {
        let text = written.text()?;
        let fits =
            (1..=self.bytes_max).contains(&text.len()) && !text.chars().any(char::is_control);
        fits.then(|| text.to_owned())
    }
}

/// A text that may be left empty.
pub(super) struct Optional<K>(pub(super) K);

impl<K: Kind> Kind for Optional<K> {
    type Used = Option<K::Used>;
    const IS_TEXT: bool = true;

    fn expects(&self) -> String {
        format!("{}; or empty", self.0.expects())
    }

    fn used(&self, written: &Written) -> Option<Option<K::Used>> {
        match written.text() {
            Some("") => Some(None),
            _ => self.0.used(written).map(Some),
        }
    }
}

/// A whole number from 1; or 0, which leaves the choice to the program (`None`).
pub(super) struct CountOrAuto {
    pub(super) max: u32,
}

impl Kind for CountOrAuto {
    type Used = Option<u32>;
    const IS_TEXT: bool = false;

    fn expects(&self) -> String {
        format!("a whole number from 1 to {}, or 0", self.max)
    }

    fn used(&self, written: &Written) -> Option<Option<u32>> {
        let count = u32::try_from(written.integer()?).ok().filter(|n| *n <= self.max)?;
        Some((count != 0).then_some(count))
    }
}

/// A time in whole microseconds.
pub(super) struct Microseconds {
    pub(super) max: u32,
}

impl Kind for Microseconds {
    type Used = Duration;
    const IS_TEXT: bool = false;

    fn expects(&self) -> String {
        format!("a whole number of microseconds from 0 to {}", self.max)
    }

    fn used(&self, written: &Written) -> Option<Duration> {
        let micros = u32::try_from(written.integer()?).ok().filter(|micros| *micros <= self.max)?;
        Some(Duration::from_micros(micros.into()))
    }
}

/// A time in whole milliseconds.
pub(super) struct Milliseconds {
    pub(super) min: u32,
    pub(super) max: u32,
}

impl Kind for Milliseconds {
    type Used = Duration;
    const IS_TEXT: bool = false;

    fn expects(&self) -> String {
        format!("a whole number of milliseconds from {} to {}", self.min, self.max)
    }

    fn used(&self, written: &Written) -> Option<Duration> {
        let millis = u32::try_from(written.integer()?).ok()?;
        (self.min..=self.max).contains(&millis).then(|| Duration::from_millis(millis.into()))
    }
}

/// Networks, with blanks or commas between them.
pub(super) struct NetworkList;

impl Kind for NetworkList {
    type Used = Networks;
    const IS_TEXT: bool = true;

    fn expects(&self) -> String {
        "networks such as \"10.1.0.0/16 fd00::/8\"".to_owned()
    }

    fn used(&self, written: &Written) -> Option<Networks> {
        Networks::parse(written.text()?)
    }
}

/// A time in whole seconds.
pub(super) struct Seconds {
    pub(super) min: u32,
    pub(super) max: u32,
}

impl Kind for Seconds {
    type Used = Duration;
    const IS_TEXT: bool = false;

    fn expects(&self) -> String {
        format!("a whole number of seconds from {} to {}", self.min, self.max)
    }

    fn used(&self, written: &Written) -> Option<Duration> {
        let seconds = u32::try_from(written.integer()?).ok()?;
        (self.min..=self.max).contains(&seconds).then(|| Duration::from_secs(seconds.into()))
    }
}

/// A time in whole seconds; or 0, which is never (`None`).
pub(super) struct SecondsOrNever {
    pub(super) max: u32,
}

impl Kind for SecondsOrNever {
    type Used = Option<Duration>;
    const IS_TEXT: bool = false;

    fn expects(&self) -> String {
        format!("a whole number of seconds from 1 to {}, or 0", self.max)
    }

    fn used(&self, written: &Written) -> Option<Option<Duration>> {
        let within = Seconds { min: 0, max: self.max }.used(written)?;
        Some((!within.is_zero()).then_some(within))
    }
}

/// A size in bytes: a number, or a number with a unit.
pub(super) struct Bytes {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Kind for Bytes {
    type Used = u64;
    const IS_TEXT: bool = true;

    fn expects(&self) -> String {
        format!(
            "a size from {} to {}, such as \"512 MiB\" or \"2 GB\", or a number of bytes",
            size(self.min),
            size(self.max)
        )
    }

    fn used(&self, written: &Written) -> Option<u64> {
        let bytes = match written.integer() {
            Some(bytes) => u64::try_from(bytes).ok()?,
            None => parse_size(written.text()?)?,
        };
        (self.min..=self.max).contains(&bytes).then_some(bytes)
    }
}

/// Units of size, each with its bytes. A bare "M" is not here: it is a million to some and 1,048,576
/// to others.
const UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads "512 MiB" or "2GB"; capitals do not matter.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim()))?;
    number.parse::<u64>().ok()?.checked_mul(*bytes)
}

/// Writes a size with the largest binary unit that leaves a whole number.
fn size(bytes: u64) -> String {
    UNITS
        .iter()
        .rev()
        .find(|(name, unit)| name.ends_with("iB") && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes} B"), |(name, unit)| format!("{} {name}", bytes / unit))
}

/// One of a few words, each with what it means.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy> Kind for Choice<T> {
    type Used = T;
    const IS_TEXT: bool = true;

    fn expects(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        format!("one of {}", words.join(", "))
    }

    fn used(&self, written: &Written) -> Option<T> {
        let text = written.text()?;
        self.0.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::{parse_size, size};

    #[test]
    fn sizes_have_a_unit() {
        check("512 MiB", Some(512 << 20));
        check("2GB", Some(2_000_000_000));
        check("1gib", Some(1 << 30));
        check("7 b", Some(7));
    }

    #[test]
    fn what_is_not_plainly_a_size_is_refused() {
        check("64m", None); // a million, or 1,048,576?
        check("1.5 GiB", None);
        check("-1 MB", None);
        check("", None);
        check("MiB", None);
        check("99999999999999999999 B", None);
        check("20000000 TiB", None);
    }

    #[test]
    fn sizes_are_written_as_they_are_read() {
        assert_eq!(size(1024), "1 KiB");
        assert_eq!(size(3 << 20), "3 MiB");
        assert_eq!(size(1500), "1500 B");
    }

    #[track_caller]
    fn check(text: &str, bytes: Option<u64>) {
        assert_eq!(parse_size(text), bytes, "{text:?}");
    }
}
