//! What control is told of the use of caches on one connection: everything first, then changes.

use wire::control::usage::UsageReport;

use crate::serving::DataPlane;

/// How far a connection has come with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Telling {
    #[default]
    Nothing,
    /// Some of all there is to tell.
    All,
    /// All; only changes are told from now on.
    Changes,
}

impl Telling {
    /// What is to be said now, [`crate::link::USAGE_EVERY`] after the last time, and how far that gets.
    pub fn next(self, data_plane: &dyn DataPlane) -> (Vec<UsageReport>, Telling) {
        let mut is_first = self == Telling::Nothing;
        let changes = data_plane.usage(is_first);
        let (run, is_catching_up) = (changes.run, self != Telling::Changes);
        let mut caches = changes.caches.into_iter();
        let mut reports = Vec::new();
        while is_first || 0 < caches.len() {
            let head = UsageReport { run, is_first, is_catching_up, caches: Vec::new() };
            reports.push(head.filled(&mut caches));
            is_first = false;
        }
        if changes.is_all && is_catching_up {
            // Says that this was everything.
            reports.push(UsageReport { run, ..UsageReport::default() });
        }
        (reports, if changes.is_all { Telling::Changes } else { Telling::All })
    }
}
