//! What this process tells control of the use of its caches: what its backends hold and count, and what
//! its proxy does.
//!
//! ```text
//!   backends: parts, counters ─┐
//!   proxy: bytes, connections ─┼─▶ compared with what was told last ─▶ changes, a bounded number
//!   directory: open now ───────┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use backend::Backend;
use backend::parts::Reported;
use backend::statistics::counted;
use daemon::clock::Now;
use node::serving::UsageChanges;
use proxy::usage::ProxyUsage;
use tenancy::directory::Directory;
use tenancy::id::CacheId;
use wire::control::usage::{CacheReport, Figure, Figures};

/// Caches told of at once: more have changed in a second only after a start. The others come first the
/// next time.
const CACHES_AT_ONCE_MAX: usize = 4_096;

/// Remembers what it has told, so that it tells changes only.
pub(crate) struct Usage {
    /// When the process began, in milliseconds of Unix time.
    run: u64,
    backends: Vec<Arc<Backend>>,
    proxy: Arc<ProxyUsage>,
    directory: Arc<Directory>,
    told: HashMap<CacheId, Told>,
    /// Where the last call stopped, because it had enough.
    next: Option<CacheId>,
}

struct Told {
    figures: Said,
    parts: Vec<Reported>,
    last_used_at: u64,
    /// Bytes read from its clients when that was noted.
    bytes_read: u64,
}

impl Usage {
    /// `backends` in the order of their numbers.
    pub(crate) fn new(
        backends: Vec<Arc<Backend>>,
        proxy: Arc<ProxyUsage>,
        directory: Arc<Directory>,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Usage { run, backends, proxy, directory, told: HashMap::new(), next: None }
    }

    /// What has changed since the last call; with `anew`, everything.
    pub(crate) fn changes(&mut self, anew: bool, now: Now) -> UsageChanges {
        if anew {
            self.next = None;
            for told in self.told.values_mut() {
                told.figures.forget();
                told.parts.iter_mut().for_each(Reported::forget);
            }
        }
        let all = self.backends.first().map(|backend| backend.caches()).unwrap_or_default();
        let mut ids: Vec<CacheId> = all.iter().map(|cache| cache.id()).collect();
        ids.sort_unstable();
        if ids.len() < self.told.len() {
            self.told.retain(|id, _| ids.binary_search(id).is_ok());
        }
        let begin = self.next.map_or(0, |next| ids.partition_point(|id| *id < next));
        ids.rotate_left(begin);
        let mut caches = Vec::new();
        self.next = None;
        for id in ids {
            if caches.len() == CACHES_AT_ONCE_MAX {
                self.next = Some(id);
                break;
            }
            caches.extend(self.change(id, now));
        }
        UsageChanges { run: self.run, caches, is_all: self.next.is_none() }
    }

    /// The sum over all caches.
    pub(crate) fn all(&self) -> Figures {
        let mut all = Figures::default();
        let caches = self.backends.first().map(|backend| backend.caches()).unwrap_or_default();
        for cache in caches {
            self.look(cache.id()).0.counted().for_each(|(figure, count)| all.add(figure, count));
        }
        all
    }

    /// What has changed of one cache.
    fn change(&mut self, id: CacheId, now: Now) -> Option<CacheReport> {
        if self.proxy.known(id).is_some_and(|usage| usage.recent.lapses(now)) {
            let parts = self.backends.iter().filter_map(|backend| backend.cache(id));
            parts.for_each(|part| part.watch(false));
        }
        let (figures, stats) = self.look(id);
        // What an empty cache takes for its index is no use of it.
        let is_unused =
            figures.counted().all(|(figure, count)| figure == Figure::HeldBytes || count == 0);
        if is_unused && !self.told.contains_key(&id) {
            return None;
        }
        let told = self.told.entry(id).or_insert_with(|| Told {
            figures: Said::default(),
            parts: vec![Reported::default(); self.backends.len()],
            last_used_at: 0,
            bytes_read: 0,
        });
        let bytes_read = figures.get(Figure::BytesRead);
        if std::mem::replace(&mut told.bytes_read, bytes_read) != bytes_read {
            told.last_used_at = u64::try_from(now.unix).unwrap_or(0);
        }
        let mut report = CacheReport { last_used_at: told.last_used_at, ..CacheReport::new(id) };
        report.figures = told.figures.changed(&figures);
        for ((number, part), stats) in (0..).zip(&mut told.parts).zip(&stats) {
            report.parts.extend(part.changed(number, stats));
        }
        (!report.figures.is_empty() || !report.parts.is_empty()).then_some(report)
    }

    /// All figures of a cache here, and what each backend counts of it.
    fn look(&self, id: CacheId) -> (Figures, Vec<store::stats::CacheStats>) {
        let parts = self.backends.iter().map(|backend| backend.cache(id));
        let stats: Vec<_> =
            parts.map(|cache| cache.map(|it| it.stats()).unwrap_or_default()).collect();
        let mut figures = Figures::default();
        for part in &stats {
            counted(part).into_iter().for_each(|(figure, count)| figures.join(figure, count));
        }
        if let Some(usage) = self.proxy.known(id) {
            usage.figures().into_iter().for_each(|(figure, count)| figures.join(figure, count));
        }
        if let Some(entry) = self.directory.cache(id) {
            figures.join(Figure::CurrConnections, entry.connections().into());
        }
        (figures, stats)
    }
}

/// The figures of a cache as they were said last.
#[derive(Debug, Default)]
struct Said(Figures);

/// Stands for what was said on a connection that is lost: nobody knows whether it was heard.
const PERHAPS_HEARD: u64 = u64::MAX;

impl Said {
    /// Those that are to be said now.
    fn changed(&mut self, now: &Figures) -> Vec<(Figure, u64)> {
        let counts = Figure::ALL.iter().map(|&figure| (figure, now.get(figure)));
        let changed: Vec<_> =
            counts.filter(|&(figure, count)| count != self.0.get(figure)).collect();
        changed.iter().for_each(|&(figure, count)| self.0.set(figure, count));
        changed
    }

    /// Has all be said anew, also that something is nothing any more.
    fn forget(&mut self) {
        let said: Vec<Figure> = self.0.counted().map(|(figure, _)| figure).collect();
        said.into_iter().for_each(|figure| self.0.set(figure, PERHAPS_HEARD));
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Figures, Said};

    #[test]
    fn what_may_not_have_been_heard_is_said_again_even_if_it_is_nothing_now() {
        let mut said = Said::default();
        let mut figures = Figures::default();
        assert_eq!(said.changed(&figures), []);
        figures.set(Figure::CmdGet, 5);
        figures.set(Figure::CurrItems, 3);
        assert_eq!(said.changed(&figures), [(Figure::CmdGet, 5), (Figure::CurrItems, 3)]);
        assert_eq!(said.changed(&figures), []);
        // Flushed, and told on a connection that was lost: control may have heard of the items only.
        figures.set(Figure::CurrItems, 0);
        assert_eq!(said.changed(&figures), [(Figure::CurrItems, 0)]);
        said.forget();
        assert_eq!(said.changed(&figures), [(Figure::CmdGet, 5), (Figure::CurrItems, 0)]);
        said.forget();
        said.forget();
        assert_eq!(said.changed(&figures), [(Figure::CmdGet, 5), (Figure::CurrItems, 0)]);
        assert_eq!(said.changed(&figures), []);
    }
}
