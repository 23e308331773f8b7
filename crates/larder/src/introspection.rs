//! What this process tells of a cache when a person wants to know: its backends what they sampled, its
//! proxy the last commands and how long requests take.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use backend::Backend;
use daemon::clock::Clock;
use protocol::operation::Hit;
use proxy::usage::{CacheUsage, ProxyUsage};
use store::operation::Seconds;
use store::scan::Cursor;
use store::store::Cache;
use store::watch::{Top, merge};
use store::working_set::{Curve, SIZES_PERCENT};
use tenancy::id::CacheId;
use wire::control::inquiry::{
    Answer, KEY_BYTES_MAX, KeyFigures, Popular, Popularity, PrefixFigures, Question, Sizes,
    TOPS_OF_A_KIND_MAX,
};

/// The parts that know something.
pub struct Introspection<'a> {
    /// In the order of their numbers.
    pub backends: &'a [Arc<Backend>],
    pub proxy: &'a ProxyUsage,
    pub clock: Clock,
}

impl Introspection<'_> {
    pub fn answer(&self, question: &Question) -> Answer {
        let answer = match question {
            Question::Popular(cache) => self.popular(*cache).map(Answer::Popular),
            Question::Key { cache, backend, key } => {
                self.key(*cache, *backend, key).map(Answer::Key)
            }
            Question::Recent(cache) => {
                let has = !self.parts(*cache).is_empty();
                has.then(|| Answer::Recent(self.want(*cache).recent.commands()))
            }
            Question::ResetStatistics(cache) => self.reset(*cache),
            Question::Prefixes { cache, prefixes } => self.prefixes(*cache, prefixes),
            Question::Latency => Some(Answer::Latency(Box::new(self.proxy.latency.histogram()))),
            // Asked of whoever has the rules.
            Question::Cut(_) => None,
        };
        answer.unwrap_or(Answer::NoCache)
    }

    /// Notes that someone wants to know about a cache; it is looked at for as long as someone does.
    fn want(&self, id: CacheId) -> Arc<CacheUsage> {
        let usage = self.proxy.cache(id);
        usage.recent.want(self.clock.now());
        usage
    }

    /// The cache's part in each backend that has one.
    fn parts(&self, id: CacheId) -> Vec<Arc<Cache>> {
        self.backends.iter().filter_map(|backend| backend.cache(id)).collect()
    }

    fn popular(&self, id: CacheId) -> Option<Popular> {
        let parts = self.parts(id);
        if parts.is_empty() {
            return None;
        }
        self.want(id);
        let mut sizes = Sizes::default();
        for part in &parts {
            part.watch(true);
            sizes.add(&hits_at(&part.working_set()));
        }
        let keys = most(merge(parts.iter().flat_map(|part| part.top_keys())));
        let prefixes = most(merge(parts.iter().flat_map(|part| part.top_prefixes())));
        Some(Popular { keys, prefixes, sizes })
    }

    fn key(&self, id: CacheId, backend: u8, key: &[u8]) -> Option<KeyFigures> {
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Some(KeyFigures::default());
        }
        let cache = self.backends.get(usize::from(backend))?.cache(id)?;
        let at = cache.locate(key);
        let bytes = |hit: Option<Hit<'_>>| hit.map(|hit| hit.value.len() as u64);
        // In one statement: whoever has a turn must not ask the cache anything else.
        let value_bytes = backend::peek(&mut cache.turn(), &at, self.clock.now(), bytes);
        let counted = cache.top_keys().into_iter().find(|top| top.text == key).map(popularity);
        Some(KeyFigures { value_bytes, counted })
    }

    /// What was counted under these prefixes, and what is held of them.
    fn prefixes(&self, id: CacheId, prefixes: &[Vec<u8>]) -> Option<Answer> {
        let (parts, now) = (self.parts(id), Seconds(self.clock.now().since_start));
        let until = Seconds(now.0.saturating_add(PREFIXES_WANTED_SECONDS));
        let mut figures = vec![PrefixFigures::default(); prefixes.len()];
        for part in &parts {
            part.watch_prefixes(prefixes, until);
            for (sum, counts) in figures.iter_mut().zip(part.prefix_counts(prefixes)) {
                sum.hits += counts.hits;
                sum.misses += counts.misses;
                sum.writes += counts.writes;
            }
            for (sum, held) in figures.iter_mut().zip(held(part, prefixes, now)) {
                sum.items += held.items;
                sum.bytes += held.bytes;
            }
        }
        (!parts.is_empty()).then_some(Answer::Prefixes(figures))
    }

    fn reset(&self, id: CacheId) -> Option<Answer> {
        let parts = self.parts(id);
        parts.iter().for_each(|part| part.reset_stats());
        if let Some(usage) = self.proxy.known(id) {
            usage.reset();
        }
        (!parts.is_empty()).then_some(Answer::Done)
    }
}

/// How long prefixes are counted after control has asked: it does every minute, and may be away for a
/// while.
const PREFIXES_WANTED_SECONDS: u32 = 10 * 60;
/// Items of a part that are looked at to see what it holds of a prefix: some ten milliseconds, and as many
/// as most caches have. Of a larger part the oldest stand for all.
const ITEMS_LOOKED_AT_MAX: u64 = 50_000;
/// Items looked at in one step, in which one lock is held: about 20 µs.
const ITEMS_PER_STEP: usize = 128;

/// What a part of a cache holds of each prefix, about.
fn held(part: &Cache, prefixes: &[Vec<u8>], now: Seconds) -> Vec<PrefixFigures> {
    let mut held = vec![PrefixFigures::default(); prefixes.len()];
    let (mut cursor, mut looked_at) = (Cursor::default(), 0);
    let mut is_more = true;
    while is_more && looked_at < ITEMS_LOOKED_AT_MAX {
        is_more = part.scan(&mut cursor, ITEMS_PER_STEP, now, |key, hit| {
            looked_at += 1;
            let under = held.iter_mut().zip(prefixes).filter(|(_, it)| key.starts_with(it));
            for (figures, _) in under {
                figures.items += 1;
                figures.bytes += (key.len() + hit.value.len()) as u64;
            }
        });
    }
    if is_more {
        let all = u128::from(part.stats().items.max(looked_at));
        let of_all = |count: u64| (u128::from(count) * all / u128::from(looked_at.max(1))) as u64;
        for figures in &mut held {
            (figures.items, figures.bytes) = (of_all(figures.items), of_all(figures.bytes));
        }
    }
    held
}

/// Those asked for most in each way.
fn most(tops: Vec<Top>) -> Vec<Popularity> {
    let all: Vec<Popularity> = tops.into_iter().map(popularity).collect();
    let mut chosen = BTreeSet::new();
    let ways: [fn(&Popularity) -> u64; 3] = [|it| it.hits, |it| it.misses, |it| it.writes];
    for count in ways {
        let mut order: Vec<usize> = (0..all.len()).filter(|at| count(&all[*at]) != 0).collect();
        order.sort_by_key(|at| Reverse(count(&all[*at])));
        chosen.extend(order.into_iter().take(TOPS_OF_A_KIND_MAX));
    }
    let is_chosen = |(at, _): &(usize, Popularity)| chosen.contains(at);
    all.into_iter().enumerate().filter(is_chosen).map(|(_, top)| top).collect()
}

/// Hits at each size, of the lookups that the estimate stands for.
fn hits_at(curve: &Curve) -> Sizes {
    if curve.requests == 0 {
        return Sizes::default();
    }
    let hits = |percent: f64| (curve.requests as f64 * percent / 100.0).round() as u64;
    let sizes = SIZES_PERCENT.into_iter().zip(curve.hits_percent().map(hits));
    Sizes { requests: curve.requests, hits: sizes.collect() }
}

fn popularity(top: Top) -> Popularity {
    let misses = top.requests.saturating_sub(top.hits + top.writes);
    Popularity { hits: top.hits, misses, writes: top.writes, text: top.text }
}
