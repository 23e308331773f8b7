//! What is known of the use of caches: summed over all nodes, every event once.
//!
//! ```text
//!   node n0 ── totals since its process began ──▶ what it said last ─┐ differences ─▶ grown
//!   node n1 ── …                                                     │
//!                                    a run that is over ─▶ past ─────┴─ sums ───────▶ figures
//! ```
//!
//! In memory only: nodes say everything again when they connect. Told the time; nothing here waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tenancy::id::CacheId;
use wire::control::name::NodeName;
use wire::control::usage::{CacheReport, Figure, FigureKind, Figures, UsageReport};

use crate::model::UnixSeconds;

/// What is kept is kept for each node that a cache is used at. These are 300 MB or so; whoever has
/// more should know it, so more is not counted and said.
const PAIRS_MAX: usize = 1_000_000;
/// What the data plane of this process is called among proxies.
pub(crate) const LOCAL: &str = "local";

/// The use of all caches. Shared by those who report and those who ask.
#[derive(Debug, Default)]
pub struct Usage(Mutex<Book>);

/// The use of one cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheUsage {
    /// As `stats` would say it for all nodes together: counters since the nodes' processes began, and
    /// those of earlier runs that this process has seen; `stats reset` sets them to 0.
    pub figures: Figures,
    /// How much counters have grown since this process began. Only ever grows: the difference of two
    /// readings is what happened between them. Gauges are not in it.
    pub grown: Figures,
    /// The part of each node, its proxy and its backends, by name. What every node counts of the same
    /// event is in none of them; all else adds up.
    pub by_proxy: Vec<ProxyUsage>,
    /// When a client used it last. Nothing is known of before the nodes' processes began.
    pub last_used_at: Option<UnixSeconds>,
}

/// What one node has counted of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyUsage {
    /// The node's name; `local` for this process.
    pub proxy: String,
    /// As it stands there now, gauges too.
    pub figures: Figures,
    pub grown: Figures,
}

#[derive(Debug, Default)]
struct Book {
    caches: HashMap<CacheId, OfCache>,
    /// Entries of all caches' nodes together.
    pairs: usize,
    is_full_told: bool,
}

#[derive(Debug, Default)]
struct OfCache {
    nodes: BTreeMap<NodeName, OfNode>,
    /// Counters of runs that are over.
    past: Figures,
    grown: Figures,
    last_used_at: u64,
}

#[derive(Debug, Default)]
struct OfNode {
    run: u64,
    /// Totals of its run, as said last.
    figures: Figures,
    grown: Figures,
}

impl Usage {
    /// Takes in what a node tells. `began` is when this process began, in milliseconds of Unix time:
    /// what a node counted before is no growth.
    pub fn hear(&self, node: &NodeName, report: &UsageReport, began: u64) {
        let mut book = self.lock();
        let may_be_old = report.is_catching_up && report.run < began;
        for cache in &report.caches {
            book.hear(node, report.run, cache, may_be_old);
        }
    }

    /// Takes in what the data plane of this process has counted of a cache.
    pub(crate) fn hear_local(&self, cache: CacheId, figures: &Figures, now: UnixSeconds) {
        let node = NodeName::parse(LOCAL).expect("a good name");
        let mut book = self.lock();
        let known = book.caches.get(&cache).and_then(|known| known.nodes.get(&node));
        let read = |figures: &Figures| figures.get(Figure::BytesRead);
        let is_used = known.map_or(0, |known| read(&known.figures)) != read(figures);
        let report = CacheReport {
            last_used_at: if is_used { now.0 } else { 0 },
            figures: Figure::ALL.iter().map(|&figure| (figure, figures.get(figure))).collect(),
            ..CacheReport::new(cache)
        };
        book.hear(&node, 0, &report, false);
    }

    /// Forgets what nodes that are gone hold; what they counted happened all the same.
    pub(crate) fn retain_nodes(&self, is_there: impl Fn(&NodeName) -> bool) {
        let mut book = self.lock();
        for cache in book.caches.values_mut() {
            let gone: Vec<NodeName> =
                cache.nodes.keys().filter(|node| !is_there(node)).cloned().collect();
            for node in gone {
                let over = cache.nodes.remove(&node).expect("it was just seen");
                cache.end(&over);
            }
        }
        book.count_pairs();
    }

    /// Forgets caches that there are no more.
    pub(crate) fn retain(&self, is_there: impl Fn(CacheId) -> bool) {
        let mut book = self.lock();
        book.caches.retain(|id, _| is_there(*id));
        book.count_pairs();
    }

    /// What is known of a cache; `None` when nobody has used it.
    pub fn cache(&self, cache: CacheId) -> Option<CacheUsage> {
        self.lock().caches.get(&cache).map(OfCache::view)
    }

    /// Every cache of which anything is known, by number.
    pub fn caches(&self) -> Vec<(CacheId, CacheUsage)> {
        let mut all: Vec<_> =
            self.lock().caches.iter().map(|(id, cache)| (*id, cache.view())).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn count_pairs(&mut self) {
        self.pairs = self.caches.values().map(|cache| cache.nodes.len()).sum();
    }

    fn hear(&mut self, node: &NodeName, run: u64, report: &CacheReport, may_be_old: bool) {
        let cache = self.caches.entry(report.cache).or_default();
        if !cache.nodes.contains_key(node) {
            if PAIRS_MAX <= self.pairs {
                if !std::mem::replace(&mut self.is_full_told, true) {
                    tracing::error!(max = PAIRS_MAX, "too many caches at too many nodes to count");
                }
                return;
            }
            self.pairs += 1;
        }
        cache.hear(node, run, report, may_be_old);
    }
}

impl OfCache {
    fn hear(&mut self, node: &NodeName, run: u64, report: &CacheReport, may_be_old: bool) {
        let is_new = !self.nodes.contains_key(node);
        let known = self.nodes.entry(node.clone()).or_default();
        if !is_new && known.run != run {
            let over = std::mem::take(known);
            known.grown = over.grown.clone();
            self.end(&over);
        }
        self.last_used_at = self.last_used_at.max(report.last_used_at);
        // Of what everybody counts, only what nobody has counted before is growth.
        let everywhere = self.everywhere();
        let known = self.nodes.get_mut(node).expect("just made");
        known.run = run;
        for &(figure, total) in &report.figures {
            let before = known.figures.get(figure);
            known.figures.set(figure, total);
            if total < before {
                self.past.set(figure, 0);
            }
            let counted = match figure.kind() {
                FigureKind::Gauge => continue,
                FigureKind::Counter if total < before => total,
                FigureKind::Counter => total - before,
                FigureKind::Everywhere if total < before => 0,
                FigureKind::Everywhere => total.saturating_sub(everywhere.get(figure)),
            };
            if is_new && may_be_old {
                continue;
            }
            self.grown.add(figure, counted);
            if figure.kind() == FigureKind::Counter {
                known.grown.add(figure, counted);
            }
        }
    }

    /// The most that any node has counted of what all of them count.
    fn everywhere(&self) -> Figures {
        let mut most = Figures::default();
        let counted = self.nodes.values().flat_map(|node| node.figures.counted());
        counted
            .filter(|(figure, _)| figure.kind() == FigureKind::Everywhere)
            .for_each(|(figure, count)| most.join(figure, count));
        most
    }

    /// A run is over: what it counted stays, what it held is gone. What all count is with the others.
    fn end(&mut self, over: &OfNode) {
        for (figure, count) in over.figures.counted() {
            if figure.kind() == FigureKind::Counter {
                self.past.add(figure, count);
            }
        }
    }

    fn view(&self) -> CacheUsage {
        let mut figures = self.past.clone();
        for node in self.nodes.values() {
            node.figures.counted().for_each(|(figure, count)| figures.join(figure, count));
        }
        let by_proxy = self.nodes.iter().map(|(name, node)| {
            let mut figures = Figures::default();
            node.figures
                .counted()
                .filter(|(figure, _)| figure.kind() != FigureKind::Everywhere)
                .for_each(|(figure, count)| figures.set(figure, count));
            ProxyUsage { proxy: name.to_string(), figures, grown: node.grown.clone() }
        });
        CacheUsage {
            figures,
            grown: self.grown.clone(),
            by_proxy: by_proxy.collect(),
            last_used_at: (0 < self.last_used_at).then_some(UnixSeconds(self.last_used_at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: CacheId = CacheId::new(7);
    /// When this process began.
    const BEGAN: u64 = 1_000;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).expect("a good name")
    }

    /// A message of a node: its run, whether it catches up, and its figures.
    fn tell(usage: &Usage, node: &str, run: u64, old: bool, figures: &[(Figure, u64)]) {
        let mut cache = CacheReport::new(CACHE);
        cache.figures = figures.to_vec();
        let caches = vec![cache];
        let report = UsageReport { run, is_first: false, is_catching_up: old, caches };
        usage.hear(&name(node), &report, BEGAN);
    }

    #[track_caller]
    fn check(usage: &Usage, figure: Figure, figures: u64, grown: u64) {
        let cache = usage.cache(CACHE).expect("it was used");
        let found = (cache.figures.get(figure), cache.grown.get(figure));
        assert_eq!(found, (figures, grown), "{}", figure.name());
    }

    #[test]
    fn all_nodes_are_summed_and_nothing_counts_twice() {
        let usage = Usage::default();
        assert_eq!(usage.cache(CACHE), None);
        tell(&usage, "n0", 2_000, true, &[(Figure::CmdGet, 10), (Figure::Bytes, 100)]);
        tell(&usage, "n1", 2_000, true, &[(Figure::CmdGet, 5), (Figure::Bytes, 50)]);
        check(&usage, Figure::CmdGet, 15, 15);
        check(&usage, Figure::Bytes, 150, 0);
        // The same said again, as after a new connection; then what came to it.
        tell(&usage, "n0", 2_000, true, &[(Figure::CmdGet, 10), (Figure::Bytes, 90)]);
        tell(&usage, "n0", 2_000, false, &[(Figure::CmdGet, 12)]);
        check(&usage, Figure::CmdGet, 17, 17);
        check(&usage, Figure::Bytes, 140, 0);
    }

    #[test]
    fn a_run_that_is_over_has_counted_and_holds_nothing() {
        let usage = Usage::default();
        tell(&usage, "n0", 2_000, false, &[(Figure::CmdGet, 10), (Figure::Bytes, 100)]);
        tell(&usage, "n0", 3_000, true, &[(Figure::CmdGet, 4)]);
        check(&usage, Figure::CmdGet, 14, 14);
        check(&usage, Figure::Bytes, 0, 0);
        usage.retain_nodes(|_| false);
        check(&usage, Figure::CmdGet, 14, 14);
    }

    #[test]
    fn what_was_counted_before_this_process_began_is_no_growth() {
        let usage = Usage::default();
        tell(&usage, "n0", 500, true, &[(Figure::CmdGet, 1_000)]);
        check(&usage, Figure::CmdGet, 1_000, 0);
        tell(&usage, "n0", 500, false, &[(Figure::CmdGet, 1_003)]);
        check(&usage, Figure::CmdGet, 1_003, 3);
        // A cache that nobody had used when the node connected.
        tell(&usage, "n1", 500, false, &[(Figure::CmdGet, 2)]);
        check(&usage, Figure::CmdGet, 1_005, 5);
    }

    #[test]
    fn a_reset_sets_figures_to_nothing_and_takes_no_growth_back() {
        let usage = Usage::default();
        tell(&usage, "n0", 2_000, false, &[(Figure::CmdGet, 10)]);
        tell(&usage, "n0", 3_000, false, &[(Figure::CmdGet, 5)]);
        check(&usage, Figure::CmdGet, 15, 15);
        tell(&usage, "n0", 3_000, false, &[(Figure::CmdGet, 1)]);
        check(&usage, Figure::CmdGet, 1, 16);
    }

    #[test]
    fn what_every_backend_counts_is_counted_once() {
        let usage = Usage::default();
        tell(&usage, "n0", 2_000, false, &[(Figure::CmdFlush, 1)]);
        tell(&usage, "n1", 2_000, false, &[(Figure::CmdFlush, 1)]);
        check(&usage, Figure::CmdFlush, 1, 1);
        tell(&usage, "n1", 2_000, false, &[(Figure::CmdFlush, 2)]);
        check(&usage, Figure::CmdFlush, 2, 2);
    }

    #[test]
    fn each_node_is_told_apart() {
        let usage = Usage::default();
        tell(&usage, "n0", 2_000, false, &[(Figure::BytesRead, 10), (Figure::CmdGet, 1)]);
        tell(&usage, "n1", 2_000, false, &[(Figure::BytesRead, 3)]);
        tell(&usage, "n1", 3_000, true, &[(Figure::BytesRead, 4)]);
        let proxies = usage.cache(CACHE).expect("it was used").by_proxy;
        let read: Vec<_> =
            proxies.iter().map(|it| (it.proxy.as_str(), it.grown.get(Figure::BytesRead))).collect();
        assert_eq!(read, [("n0", 10), ("n1", 7)]);
        assert_eq!(proxies[0].grown.get(Figure::CmdGet), 1);
        assert_eq!(proxies[1].figures.get(Figure::BytesRead), 4, "of its newest run");
    }

    #[test]
    fn a_cache_of_this_process_is_used_when_its_clients_say_something() {
        let usage = Usage::default();
        let mut figures = Figures::default();
        figures.set(Figure::CmdFlush, 1);
        let at = |seconds| UnixSeconds(seconds);
        usage.hear_local(CACHE, &figures, at(5));
        assert_eq!(usage.cache(CACHE).expect("known").last_used_at, None);
        figures.set(Figure::BytesRead, 10);
        usage.hear_local(CACHE, &figures, at(6));
        usage.hear_local(CACHE, &figures, at(7));
        assert_eq!(usage.cache(CACHE).expect("known").last_used_at, Some(at(6)));
    }
}
