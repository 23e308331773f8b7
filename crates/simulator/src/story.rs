//! What happened, for people. Told only when somebody reads it, because telling takes longer than
//! playing.

use crate::time::{Micros, shown};

/// The lines of one play.
#[derive(Debug, Default)]
pub struct Story(Option<Vec<(Micros, String)>>);

impl Story {
    /// Nobody listens.
    pub fn silent() -> Self {
        Story(None)
    }

    pub fn told() -> Self {
        Story(Some(Vec::new()))
    }

    pub(crate) fn tell(&mut self, at: Micros, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push((at, line()));
        }
    }

    /// The last lines, oldest first.
    pub fn last(&self, count: usize) -> impl Iterator<Item = String> {
        let lines = self.0.as_deref().unwrap_or_default();
        let skipped = lines.len().saturating_sub(count);
        lines[skipped..].iter().map(|(at, line)| format!("{} {line}", shown(*at)))
    }
}
