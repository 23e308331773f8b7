//! One event as one line.
//!
//! ```text
//! 2026-11-21T05:31:26.123456Z  WARN proxy::link: link lost node.name="b 1" tries=3 suppressed=990
//! {"timestamp":"2026-…","level":"WARN","target":"proxy::link","message":"link lost",…}
//! ```

use std::error::Error;
use std::fmt::{self, Write};

use tracing::Event;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::Format;

/// Longest value of one field, and longest message, in bytes. Long enough for an error with its
/// causes; ten such lines a second stay under a megabyte a minute.
const VALUE_BYTES_MAX: usize = 512;

/// Writes an event, with a line end. `suppressed` is left out when nothing was.
pub(super) fn line(format: Format, event: &Event<'_>, suppressed: u32) -> String {
    let metadata = event.metadata();
    let mut fields = Fields::default();
    event.record(&mut fields);
    if suppressed != 0 {
        fields.others.push(("suppressed", Value::Bare(suppressed.to_string())));
    }
    written(format, metadata.level().as_str(), metadata.target(), &fields)
}

/// Says that so many lines were lost on the way to stderr.
pub(super) fn lost(format: Format, lines: u64) -> String {
    let fields = Fields {
        message: "log lines were lost, because stderr is read too slowly".to_owned(),
        others: vec![("lost", Value::Bare(lines.to_string()))],
    };
    written(format, "WARN", module_path!(), &fields)
}

fn written(format: Format, level: &str, target: &str, fields: &Fields) -> String {
    match format {
        Format::Text => text(&timestamp(), level, target, fields),
        Format::Json => json(&timestamp(), level, target, fields),
    }
}

/// The time of day, as RFC 3339 in UTC with microseconds.
fn timestamp() -> String {
    let mut text = String::new();
    SystemTime.format_time(&mut Writer::new(&mut text)).expect("a String can be written to");
    text
}

fn text(timestamp: &str, level: &str, target: &str, fields: &Fields) -> String {
    let mut line = format!("{timestamp} {level:>5} {target}:");
    if !fields.message.is_empty() {
        line.push(' ');
        push_without_controls(&mut line, &fields.message);
    }
    for (name, value) in &fields.others {
        match value {
            Value::Bare(bare) => write!(line, " {name}={bare}"),
            Value::Text(text) if is_plain(text) => write!(line, " {name}={text}"),
            Value::Text(text) => write!(line, " {name}={text:?}"),
        }
        .expect("a String can be written to");
    }
    line.push('\n');
    line
}

/// Whether a value reads unmistakably without quotes.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_.:/[]+…".contains(c))
}

/// A message often holds what a stranger sent: no line end or escape of it may reach a terminal.
fn push_without_controls(line: &mut String, message: &str) {
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
}

fn json(timestamp: &str, level: &str, target: &str, fields: &Fields) -> String {
    let mut line = String::from("{");
    for (name, text) in [("timestamp", timestamp), ("level", level), ("target", target)] {
        push_member(&mut line, name, &quoted(text));
    }
    push_member(&mut line, "message", &quoted(&fields.message));
    for (name, value) in &fields.others {
        match value {
            Value::Bare(bare) => push_member(&mut line, name, bare),
            Value::Text(text) => push_member(&mut line, name, &quoted(text)),
        }
    }
    line.push_str("}\n");
    line
}

fn push_member(line: &mut String, name: &str, value: &str) {
    if !line.ends_with('{') {
        line.push(',');
    }
    write!(line, "{}:{value}", quoted(name)).expect("a String can be written to");
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("any text can be JSON")
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

enum Value {
    /// A number or a truth value, the same in text and JSON.
    Bare(String),
    Text(String),
}

impl Fields {
    fn put_text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        let mut bounded = Bounded::default();
        // It stops with an error where the bound is reached, which is not an error here.
        _ = bounded.write_fmt(text);
        match field.name() {
            "message" => self.message = bounded.text,
            name => self.others.push((name, Value::Text(bounded.text))),
        }
    }

    fn put_bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.others.push((field.name(), Value::Bare(value.to_string())));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        self.put_text(field, format_args!("{}", WithCauses(error)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put_bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put_bare(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put_bare(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.put_bare(field, value);
        } else {
            // JSON has no such number.
            self.put_text(field, format_args!("{value}"));
        }
    }
}

/// An error and what caused it, outermost first.
struct WithCauses<'a>(&'a (dyn Error + 'static));

impl fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A text that takes no more than [`VALUE_BYTES_MAX`], so that formatting something huge ends early.
#[derive(Default)]
struct Bounded {
    text: String,
}

impl Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let space = VALUE_BYTES_MAX - self.text.len();
        if part.len() <= space {
            self.text.push_str(part);
            return Ok(());
        }
        let end = (0..=space).rev().find(|&end| part.is_char_boundary(end)).unwrap_or(0);
        self.text.push_str(&part[..end]);
        self.text.push('…');
        Err(fmt::Error)
    }
}
