//! What a busy cache is asked for: its top keys and prefixes, and what other sizes would hit.
//!
//! ```text
//!   every request ─▶ one in `sample` ─▶ top keys, top prefixes     (Sketch), wanted prefixes
//!                └─▶ one key in many ─▶ hits at other sizes        (working_set.rs)
//! ```
//!
//! Sketches are Space-Saving (Metwally et al., ICDT 2005): a table of counters in which a newcomer
//! takes over the smallest. Of n counted requests every key with more than n / [`KEYS`] is in the
//! table. How many requests are counted follows how many there are, so that a busy cache pays no more
//! than a quiet one, and counts fade, so that what is hot now stands before what was hot an hour
//! ago.
//!
//! A cache is watched while someone wants it to be, or wants certain prefixes counted, and by itself while
//! it is busy; the latter for [`WATCHES_MAX`] shards at a time.

use std::collections::HashMap;
use std::sync::Arc;

use crate::operation::Seconds;
use crate::sync::{AtomicU32, Relaxed};
use crate::working_set::{Curve, WorkingSet};

/// Keys counted: all that make more than 1 % of the requests are among them.
const KEYS: usize = 104;
/// Prefixes counted.
const PREFIXES: usize = 16;
/// Where a prefix ends: the first of these in the key.
const SEPARATORS: &[u8] = b":/._";
/// One request in so many is counted, at least and at most.
const SAMPLE_MIN: u32 = 8;
const SAMPLE_MAX: u32 = 64;
/// Requests counted in a second, about, between these: a key that makes 1 % of them is counted 20
/// times, and the counting costs a millisecond.
const COUNTED_PER_SECOND: u64 = 2_048;
/// Requests per second from which a shard is watched by itself, and below which no longer.
const BUSY_PER_SECOND: u64 = 100;
const QUIET_PER_SECOND: u64 = BUSY_PER_SECOND / 4;
/// Shards watched for being busy at a time: at about 8 KB each, 8 MB in all.
const WATCHES_MAX: u32 = 1_024;

/// A key or prefix and how it was asked for, about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    pub text: Vec<u8>,
    /// Requests since watching began, older ones counting less.
    pub requests: u64,
    /// Those of `requests` that found an item.
    pub hits: u64,
    /// Those of `requests` that changed an item.
    pub writes: u64,
    /// Value bytes of those hits and of writes.
    pub bytes: u64,
}

/// How keys with a certain prefix were asked for since someone wanted it counted, about. Never fades.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefixCounts {
    pub hits: u64,
    pub misses: u64,
    pub writes: u64,
}

impl PrefixCounts {
    pub fn add(&mut self, other: PrefixCounts) {
        self.hits = self.hits.saturating_add(other.hits);
        self.misses = self.misses.saturating_add(other.misses);
        self.writes = self.writes.saturating_add(other.writes);
    }
}

/// Who may be watched for being busy.
pub(crate) struct Watches {
    left: AtomicU32,
}

/// Leave to watch one shard.
pub(crate) struct Permit(Arc<Watches>);

impl Watches {
    pub(crate) fn new() -> Self {
        Watches { left: AtomicU32::new(WATCHES_MAX) }
    }

    fn permit(self: &Arc<Self>) -> Option<Permit> {
        let taken = self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        taken.is_ok().then(|| Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Relaxed);
    }
}

/// Why a shard is watched, if it is.
#[derive(Default)]
pub(crate) struct Watching {
    watch: Option<Box<Watch>>,
    /// Someone wants to know.
    wanted: bool,
    /// Someone wants prefixes counted, until then.
    prefixes_until: Option<Seconds>,
    /// It is busy.
    permit: Option<Permit>,
}

impl Watching {
    /// What is being seen, if anyone looks.
    #[inline]
    pub(crate) fn watch(&mut self) -> Option<&mut Watch> {
        self.watch.as_deref_mut()
    }

    pub(crate) fn seen(&self) -> Option<&Watch> {
        self.watch.as_deref()
    }

    pub(crate) fn want(&mut self, wanted: bool, seed: u64, limit_bytes: u64) {
        self.wanted = wanted;
        self.begin_or_end(seed, limit_bytes);
    }

    /// Counts these prefixes, and no others, until then; those that are counted already go on.
    pub(crate) fn want_prefixes(
        &mut self,
        prefixes: &[Vec<u8>],
        until: Seconds,
        seed: u64,
        limit_bytes: u64,
    ) {
        self.prefixes_until = (!prefixes.is_empty()).then_some(until);
        self.begin_or_end(seed, limit_bytes);
        if let Some(watch) = &mut self.watch {
            watch.count_prefixes(prefixes);
        }
    }

    /// Has prefixes counted no longer if nobody has wanted it for a while.
    pub(crate) fn lapse(&mut self, now: Seconds) {
        if self.prefixes_until.is_some_and(|until| until <= now) {
            // Whether a watch goes on for another reason is seen when the pace is next.
            self.prefixes_until = None;
            if let Some(watch) = &mut self.watch {
                watch.count_prefixes(&[]);
            }
        }
    }

    /// Told from time to time how many requests came in a second.
    pub(crate) fn pace(
        &mut self,
        per_second: u64,
        watches: &Arc<Watches>,
        seed: u64,
        limit_bytes: u64,
    ) {
        if per_second >= BUSY_PER_SECOND && self.permit.is_none() {
            self.permit = watches.permit();
        } else if per_second < QUIET_PER_SECOND {
            self.permit = None;
        }
        self.begin_or_end(seed, limit_bytes);
        if let Some(watch) = &mut self.watch {
            watch.pace(per_second);
            watch.working_set.set_limit(limit_bytes);
        }
    }

    fn begin_or_end(&mut self, seed: u64, limit_bytes: u64) {
        let is_on = self.wanted || self.prefixes_until.is_some() || self.permit.is_some();
        if self.watch.is_some() != is_on {
            self.watch = is_on.then(|| Box::new(Watch::new(seed, limit_bytes)));
        }
    }
}

/// What one watched slice has seen.
pub(crate) struct Watch {
    keys: Sketch,
    prefixes: Sketch,
    working_set: WorkingSet,
    /// Few, and looked at for counted requests only.
    wanted: Vec<WantedPrefix>,
    /// One request in so many is counted.
    sample: u32,
    /// Requests until the next that is counted.
    left: u32,
    /// Chance, so that no rhythm of a client hides from the sample.
    random: u64,
}

impl Watch {
    fn new(seed: u64, limit_bytes: u64) -> Self {
        Watch {
            keys: Sketch::new(KEYS),
            prefixes: Sketch::new(PREFIXES),
            working_set: WorkingSet::new(limit_bytes),
            wanted: Vec::new(),
            sample: SAMPLE_MIN,
            left: 1,
            random: seed | 1,
        }
    }

    /// Notes a read. `value_bytes` is what it found.
    #[inline]
    pub(crate) fn see_read(&mut self, key: &[u8], hash: u64, value_bytes: Option<usize>) {
        let bytes = value_bytes.map(|bytes| key.len() + bytes);
        self.working_set.see_read(hash, bytes);
        let kind = if value_bytes.is_some() { Kind::Hit } else { Kind::Miss };
        self.see(key, hash, kind, value_bytes.unwrap_or(0));
    }

    /// Notes a write.
    #[inline]
    pub(crate) fn see_write(&mut self, key: &[u8], hash: u64, value_bytes: usize) {
        self.working_set.see_write(hash, key.len() + value_bytes);
        self.see(key, hash, Kind::Write, value_bytes);
    }

    /// Counts a request, or lets it pass.
    #[inline]
    fn see(&mut self, key: &[u8], hash: u64, kind: Kind, bytes: usize) {
        self.left -= 1;
        if self.left == 0 {
            self.count(key, hash, kind, bytes as u64);
        }
    }

    #[cold]
    fn count(&mut self, key: &[u8], hash: u64, kind: Kind, bytes: u64) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // From 1 to 2 × sample - 1, so on average every `sample`th is counted.
        self.left = (self.random >> 32) as u32 % (2 * self.sample - 1) + 1;
        let seen = Seen { weight: self.sample, kind, bytes };
        for wanted in self.wanted.iter_mut().filter(|wanted| key.starts_with(&wanted.text)) {
            wanted.counts.add(seen.alone());
        }
        self.keys.count(key, hash, seen);
        if let Some(end) = key.iter().position(|byte| SEPARATORS.contains(byte)) {
            let prefix = &key[..=end];
            self.prefixes.count(prefix, fnv(prefix), seen);
        }
    }

    fn count_prefixes(&mut self, prefixes: &[Vec<u8>]) {
        let mut before = std::mem::take(&mut self.wanted);
        let wanted = |text: &Vec<u8>| match before.iter().position(|one| *one.text == **text) {
            Some(at) => before.swap_remove(at),
            None => WantedPrefix { text: text.as_slice().into(), counts: PrefixCounts::default() },
        };
        self.wanted = prefixes.iter().map(wanted).collect();
    }

    /// What was counted of a prefix; nothing of one that nobody wanted.
    pub(crate) fn prefix(&self, text: &[u8]) -> PrefixCounts {
        let wanted = self.wanted.iter().find(|wanted| *wanted.text == *text);
        wanted.map_or_else(PrefixCounts::default, |wanted| wanted.counts)
    }

    fn pace(&mut self, per_second: u64) {
        let sample = (per_second / COUNTED_PER_SECOND).min(u64::from(SAMPLE_MAX)) as u32;
        self.sample = sample.next_power_of_two().clamp(SAMPLE_MIN, SAMPLE_MAX);
    }

    /// Halves all counts.
    pub(crate) fn fade(&mut self) {
        self.keys.fade();
        self.prefixes.fade();
        self.working_set.fade();
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Top> {
        self.keys.tops()
    }

    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Top> {
        self.prefixes.tops()
    }

    pub(crate) fn curve(&self) -> Curve {
        self.working_set.curve()
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let wanted = self.wanted.iter().map(|it| size_of::<WantedPrefix>() + it.text.len());
        size_of::<Self>() as u64
            + wanted.sum::<usize>() as u64
            + self.keys.bytes()
            + self.prefixes.bytes()
            + self.working_set.bytes()
    }
}

/// Adds up what several slices of a cache have seen, the most asked for first.
pub fn merge(tops: impl Iterator<Item = Top>) -> Vec<Top> {
    let mut sums: HashMap<Vec<u8>, Top> = HashMap::new();
    for top in tops {
        let sum = sums.entry(top.text.clone()).or_default();
        *sum = Top {
            requests: sum.requests + top.requests,
            hits: sum.hits + top.hits,
            writes: sum.writes + top.writes,
            bytes: sum.bytes + top.bytes,
            text: top.text,
        };
    }
    let mut all: Vec<Top> = sums.into_values().collect();
    all.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.text.cmp(&b.text)));
    all
}

/// What a request was to its key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hit,
    Miss,
    Write,
}

/// One counted request.
#[derive(Clone, Copy)]
struct Seen {
    /// Requests it stands for.
    weight: u32,
    kind: Kind,
    bytes: u64,
}

impl Seen {
    fn alone(self) -> PrefixCounts {
        let (weight, nothing) = (u64::from(self.weight), PrefixCounts::default());
        match self.kind {
            Kind::Hit => PrefixCounts { hits: weight, ..nothing },
            Kind::Miss => PrefixCounts { misses: weight, ..nothing },
            Kind::Write => PrefixCounts { writes: weight, ..nothing },
        }
    }
}

/// A prefix that someone wants counted.
struct WantedPrefix {
    text: Box<[u8]>,
    counts: PrefixCounts,
}

/// Counters for the most frequent texts.
struct Sketch {
    size: usize,
    /// Apart from the rest, because every look-up runs through all of them …
    hashes: Vec<u32>,
    /// … and every newcomer through these.
    counts: Vec<u32>,
    counters: Vec<Counter>,
}

struct Counter {
    /// How much of the count may belong to those it was taken over from.
    inherited: u32,
    hits: u32,
    writes: u32,
    /// To seven digits, in half the room.
    bytes: f32,
    /// Empty until it was seen twice: most newcomers are not.
    text: Box<[u8]>,
}

impl Sketch {
    fn new(size: usize) -> Self {
        Sketch {
            size,
            hashes: Vec::with_capacity(size),
            counts: Vec::with_capacity(size),
            counters: Vec::with_capacity(size),
        }
    }

    fn count(&mut self, text: &[u8], hash: u64, seen: Seen) {
        let hash = (hash ^ hash >> 32) as u32;
        let at = match self.hashes.iter().position(|&other| other == hash) {
            Some(at) => {
                if self.counters[at].text.is_empty() {
                    self.counters[at].text = text.into();
                }
                at
            }
            None => self.newcomer(hash),
        };
        let counter = &mut self.counters[at];
        self.counts[at] = self.counts[at].saturating_add(seen.weight);
        match seen.kind {
            Kind::Hit => counter.hits = counter.hits.saturating_add(seen.weight),
            Kind::Write => counter.writes = counter.writes.saturating_add(seen.weight),
            Kind::Miss => (),
        }
        counter.bytes += (seen.bytes * u64::from(seen.weight)) as f32;
    }

    fn newcomer(&mut self, hash: u32) -> usize {
        if self.counters.len() < self.size {
            self.hashes.push(hash);
            self.counts.push(0);
            self.counters.push(Counter::new(0));
            return self.counters.len() - 1;
        }
        let least = self.counts.iter().enumerate().min_by_key(|(_, count)| **count);
        let (at, &inherited) = least.expect("the table is full, so not empty");
        self.hashes[at] = hash;
        self.counters[at] = Counter::new(inherited);
        at
    }

    fn fade(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        for counter in &mut self.counters {
            counter.inherited /= 2;
            counter.hits /= 2;
            counter.writes /= 2;
            counter.bytes /= 2.0;
        }
    }

    fn tops(&self) -> impl Iterator<Item = Top> {
        let known = self.counters.iter().zip(&self.counts).filter(|(one, _)| !one.text.is_empty());
        known.map(|(counter, count)| Top {
            text: counter.text.to_vec(),
            // What surely was its own. Hits and bytes were counted from when it came in.
            requests: u64::from(count - counter.inherited),
            hits: u64::from(counter.hits),
            writes: u64::from(counter.writes),
            bytes: counter.bytes as u64,
        })
    }

    fn bytes(&self) -> u64 {
        let texts: usize = self.counters.iter().map(|counter| counter.text.len()).sum();
        (self.size * (2 * size_of::<u32>() + size_of::<Counter>()) + texts) as u64
    }
}

impl Counter {
    fn new(inherited: u32) -> Self {
        Counter { inherited, hits: 0, writes: 0, bytes: 0.0, text: Box::default() }
    }
}

/// FNV-1a, for the few bytes of a prefix.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_BYTES: u64 = 1 << 20;

    fn ask(watch: &mut Watch, key: &[u8], hit: bool) {
        watch.see_read(key, fnv(key), hit.then_some(100));
    }

    #[test]
    #[cfg_attr(
        miri,
        ignore = "hundreds of thousands of requests take too long there; no `unsafe` is near"
    )]
    fn a_wanted_prefix_is_counted_from_when_it_is_wanted_until_nobody_wants_it() {
        let (mut watching, watches) = (Watching::default(), Arc::new(Watches::new()));
        let wanted = |texts: &[&str]| -> Vec<Vec<u8>> {
            texts.iter().map(|text| text.as_bytes().to_vec()).collect()
        };
        let until = Seconds(100);
        watching.want_prefixes(&wanted(&["user:", "user:1"]), until, 7, LIMIT_BYTES);
        let play = |watching: &mut Watching| {
            let watch = watching.watch().expect("someone wants prefixes");
            for request in 0..80_000_u64 {
                ask(watch, format!("user:{}", request % 2).as_bytes(), request % 4 < 2);
                ask(watch, b"other", true);
            }
        };
        play(&mut watching);
        let about = |watching: &Watching, text: &str, expected: u64| {
            let counts = watching.seen().map(|watch| watch.prefix(text.as_bytes()));
            let PrefixCounts { hits, misses, writes } = counts.unwrap_or_default();
            assert!((hits + misses).abs_diff(expected) <= expected / 20, "{text}: {counts:?}");
            assert!(hits.abs_diff(misses) <= expected / 10 && writes == 0, "{text}: {counts:?}");
        };
        about(&watching, "user:", 80_000);
        about(&watching, "user:1", 40_000);
        about(&watching, "user:2", 0);
        // What fades is what is popular.
        watching.watch().expect("on").fade();
        watching.want_prefixes(&wanted(&["user:"]), until, 7, LIMIT_BYTES);
        play(&mut watching);
        about(&watching, "user:", 160_000);
        about(&watching, "user:1", 0);
        watching.lapse(Seconds(99));
        about(&watching, "user:", 160_000);
        watching.lapse(until);
        watching.pace(0, &watches, 7, LIMIT_BYTES);
        assert!(watching.seen().is_none(), "nothing else is wanted of it");
    }

    #[test]
    #[cfg_attr(miri, ignore = "nearly a million requests take an hour there; no `unsafe` is near")]
    fn frequent_keys_are_found_among_many() {
        // Fast or slow: sampled more or less.
        for per_second in [0, 100_000] {
            let mut watch = Watch::new(7, LIMIT_BYTES);
            watch.pace(per_second);
            // Each of ten keys makes 2 % of the requests; the rest come once each.
            for request in 0..400_000_u64 {
                let key = if request % 5 == 0 {
                    format!("hot:{}", request / 5 % 10)
                } else {
                    format!("cold:{request}")
                };
                ask(&mut watch, key.as_bytes(), request % 2 == 0);
            }
            let tops = merge(watch.keys());
            let first: Vec<_> = tops[..10].iter().map(|top| &top.text[..4]).collect();
            assert!(first.iter().all(|text| *text == b"hot:"), "{first:?}");
            for top in &tops[..10] {
                assert!((5_000..11_000).contains(&top.requests), "about 8,000 each: {top:?}");
            }
            let prefixes = merge(watch.prefixes());
            assert_eq!(prefixes[0].text, b"cold:");
            let requests = prefixes[0].requests;
            assert!((304_000..336_000).contains(&requests), "320,000 within 5 %: {requests}");
            let hits = prefixes[0].hits;
            assert!((144_000..176_000).contains(&hits), "half of them: {hits}");
        }
    }

    #[test]
    fn old_fame_fades() {
        let mut watch = Watch::new(7, LIMIT_BYTES);
        (0..8_000).for_each(|_| ask(&mut watch, b"was", true));
        (0..4).for_each(|_| watch.fade());
        (0..2_000).for_each(|_| ask(&mut watch, b"is", true));
        let tops = merge(watch.keys());
        assert_eq!((tops[0].text.as_slice(), tops[1].text.as_slice()), (&b"is"[..], &b"was"[..]));
    }

    #[test]
    fn a_busy_shard_is_watched_until_it_is_quiet() {
        let watches = Arc::new(Watches::new());
        let mut watching = Watching::default();
        for (per_second, is_watched) in [(99, false), (100, true), (30, true), (24, false)] {
            watching.pace(per_second, &watches, 7, LIMIT_BYTES);
            assert_eq!(watching.seen().is_some(), is_watched, "at {per_second} a second");
        }
        watching.want(true, 7, LIMIT_BYTES);
        watching.pace(0, &watches, 7, LIMIT_BYTES);
        assert!(watching.seen().is_some(), "someone wants to know");
    }

    #[test]
    fn only_so_many_are_watched_for_being_busy() {
        let watches = Arc::new(Watches::new());
        let mut all: Vec<Watching> =
            std::iter::repeat_with(Watching::default).take(WATCHES_MAX as usize + 1).collect();
        all.iter_mut().for_each(|one| one.pace(1_000, &watches, 7, LIMIT_BYTES));
        assert!(all[WATCHES_MAX as usize].seen().is_none());
        // One of them rests, so another may be.
        all.remove(0);
        let last = all.last_mut().expect("there are many");
        last.pace(1_000, &watches, 7, LIMIT_BYTES);
        assert!(last.seen().is_some());
    }
}
