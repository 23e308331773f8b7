//! Log lines on stderr.

use tracing::Level;

/// The words for levels in settings.
pub(crate) const LEVELS: &[(&str, Level)] = &[
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// The words for formats in settings.
pub(crate) const FORMATS: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];
