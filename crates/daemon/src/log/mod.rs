//! Log lines on stderr, which cost little even when everything fails at once.
//!
//! ```text
//!  event ──level──▶ limit: 10 a second and site ──▶ line: text or JSON, bounded
//!                        │ the rest is counted              │
//!                        ▼                                  ▼
//!            suppressed=N on the site's          queue of 1,024 ──▶ thread ──▶ stderr
//!            next line                             full: lost, and counted
//! ```
//!
//! A storm of errors is when a service has least to spare, so a suppressed line is an atomic
//! addition and never text, and no caller waits for whoever reads stderr. Volume is for metrics to
//! count; a line tells that something happens, not how often.
//!
//! Lines carry no secrets, no keys and no values of tenants: whoever writes an event sees to it.

mod limit;
mod line;
mod writer;

use tracing::level_filters::LevelFilter;
use tracing::subscriber::set_global_default;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use crate::clock::Clock;
use limit::Limit;
use writer::Lines;

pub use writer::Guard;

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

/// The words for levels in settings.
pub(crate) const LEVELS: &[(&str, Level)] = &[
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];

/// Writes all events of this process from now on to stderr.
///
/// Keep the guard until the end: dropping it writes what is still queued.
pub fn start(level: Level, format: Format) -> Result<Guard, StartError> {
    let (lines, guard) = writer::start(std::io::stderr(), format).map_err(StartError::Thread)?;
    let log = Log { format, limit: Limit::default(), clock: Clock::start(), lines };
    set_global_default(registry().with(log.with_filter(LevelFilter::from_level(level))))
        .map_err(|_| StartError::Twice)?;
    Ok(guard)
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("could not start the thread that writes the log")]
    Thread(#[source] std::io::Error),
    #[error("the log was started before")]
    Twice,
}

/// Takes events in on whatever thread they happen.
struct Log {
    format: Format,
    limit: Limit,
    clock: Clock,
    lines: Lines,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let site = event.metadata().callsite();
        if let Some(suppressed) = self.limit.admit(site, self.clock.now().since_start) {
            self.lines.send(line::line(self.format, event, suppressed));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    use super::{Clock, Format, Limit, Log, writer};
    use crate::clock::Hand;

    #[test]
    fn a_text_line_tells_when_how_bad_where_and_what() {
        let lines = logged(Format::Text, |_| {
            tracing::warn!(node.name = "b 1", tries = 3, ok = false, "link {}", "lost");
        });
        let (stamp, rest) = lines.split_once("  WARN ").expect("the level stands after the time");
        assert!(stamp.ends_with('Z') && stamp.contains('T'), "{stamp}");
        assert_eq!(rest, "daemon::log::tests: link lost node.name=\"b 1\" tries=3 ok=false\n");
    }

    #[test]
    fn a_json_line_is_one_object() {
        let lines = logged(Format::Json, |_| {
            tracing::error!(tries = 3_u64, share = 0.5, quote = "a\"b\n", "lost");
        });
        let object: serde_json::Value = serde_json::from_str(&lines).expect("it is JSON");
        assert_eq!(lines.matches('\n').count(), 1);
        assert_eq!(object["level"], "ERROR");
        assert_eq!(object["target"], "daemon::log::tests");
        assert_eq!(object["message"], "lost");
        assert_eq!(object["tries"], 3);
        assert_eq!(object["share"], 0.5);
        assert_eq!(object["quote"], "a\"b\n");
        assert_eq!(object.get("suppressed"), None);
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("could not connect")]
        struct Connect(#[source] std::io::Error);

        let lines = logged(Format::Text, |_| {
            let error = Connect(std::io::Error::other("no route"));
            tracing::info!(error = &error as &dyn std::error::Error, "retrying");
        });
        assert!(lines.ends_with("retrying error=\"could not connect: no route\"\n"), "{lines}");
    }

    #[test]
    fn what_a_stranger_sent_cannot_begin_a_line_of_its_own() {
        let lines = logged(Format::Text, |_| {
            tracing::info!(name = "x\ny=\u{1b}[31m", "said {}", "a\nb\r\u{7f}");
        });
        assert_eq!(lines.matches('\n').count(), 1, "{lines:?}");
        assert!(
            lines.ends_with(": said a\\nb\\r\\u{7f} name=\"x\\ny=\\u{1b}[31m\"\n"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = "é".repeat(100_000);
        for format in [Format::Text, Format::Json] {
            let lines = logged(format, |_| tracing::info!(%long, "{long}"));
            assert!(lines.len() < 1_300, "{} bytes", lines.len());
            assert!(lines.contains("é…"), "{lines}");
        }
    }

    #[test]
    fn a_storm_is_ten_lines_a_second_and_a_count() {
        let lines = logged(Format::Json, |hand| {
            let storm = || (0..1_000).for_each(|n| tracing::info!(n, "one site"));
            let another = || tracing::info!("another site");
            storm();
            another();
            hand.advance(1);
            storm();
        });
        let objects: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
        assert_eq!(objects.len(), 21);
        assert_eq!(objects[9]["n"], 9);
        assert_eq!(objects[10]["message"], "another site");
        assert_eq!((&objects[11]["n"], &objects[11]["suppressed"]), (&0.into(), &990.into()));
        assert_eq!(objects[12].get("suppressed"), None);
    }

    /// Gives what `events` logs; the hand moves the clock of the limit.
    fn logged(format: Format, events: impl FnOnce(&Hand)) -> String {
        let out = Out::default();
        let (lines, guard) = writer::start(out.clone(), format).expect("a thread can be started");
        let (clock, hand) = Clock::by_hand(0);
        let log = Log { format, limit: Limit::default(), clock, lines };
        tracing::subscriber::with_default(registry().with(log), || events(&hand));
        drop(guard);
        let bytes = out.0.lock().expect("nobody panics with it").clone();
        String::from_utf8(bytes).expect("lines are text")
    }

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panics with it").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
