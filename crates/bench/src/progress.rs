//! Shows how far a run has come, if somebody sits at a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal as _, stderr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Draws on standard error while a phase of the run goes on.
pub(crate) struct Progress<'c> {
    /// What each thread has done in this phase.
    counts: &'c [AtomicU64],
    is_watched: bool,
}

/// Often enough to look alive, seldom enough to cost nothing.
const REDRAW: Duration = Duration::from_millis(200);

impl<'c> Progress<'c> {
    pub(crate) fn new(counts: &'c [AtomicU64]) -> Progress<'c> {
        Progress { counts, is_watched: stderr().is_terminal() }
    }

    /// Does the work of a phase; `total` is how many steps it has, if that is known.
    pub(crate) fn phase<T>(
        &self,
        name: &'static str,
        total: Option<u64>,
        work: impl FnOnce() -> T,
    ) -> T {
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        if !self.is_watched {
            return work();
        }
        let bar = bar(name, total);
        thread::scope(|scope| {
            // Dropped when the work is done, which ends the drawing.
            let (_working, done) = mpsc::channel::<()>();
            scope.spawn(move || {
                while done.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
                    bar.set_position(self.sum());
                }
                bar.finish_and_clear();
            });
            work()
        })
    }

    fn sum(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

fn bar(name: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{msg:12} {wide_bar} {human_pos} of {human_len}, {per_sec}, {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{msg:12} {human_pos}, {per_sec}, {elapsed}"),
    };
    let style = ProgressStyle::with_template(template).expect("both templates are well formed");
    bar.with_style(style).with_message(name)
}
