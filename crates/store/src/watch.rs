//! Which keys and which prefixes of keys a cache is asked for most, by sampling.
//!
//! Space-Saving (Metwally et al., ICDT 2005): a table of counters in which a newcomer takes over
//! the smallest. Of n requests every key with more than n / [`KEYS`] is in the table. Only one
//! request in [`SAMPLE`] is looked at, so a busy cache pays little, and counts fade, so that what
//! is hot now stands before what was hot an hour ago.

use std::collections::HashMap;

/// One request in so many is counted.
const SAMPLE: u64 = 8;
/// Keys counted: all that make more than 0.8 % of the requests are among them.
const KEYS: usize = 128;
/// Prefixes counted.
const PREFIXES: usize = 32;
/// Where a prefix ends: the first of these in the key.
const SEPARATORS: &[u8] = b":/._";

/// A key or prefix and how it was asked for, about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    pub text: Vec<u8>,
    /// Requests since watching began, older ones counting less.
    pub requests: u64,
    /// Those of `requests` that found an item.
    pub hits: u64,
    /// Value bytes of those hits and of writes.
    pub bytes: u64,
}

/// What one watched slice has seen.
pub(crate) struct Watch {
    keys: Sketch,
    prefixes: Sketch,
    /// Chance, so that no rhythm of a client hides from the sample.
    random: u64,
}

impl Watch {
    pub(crate) fn new(seed: u64) -> Self {
        Watch { keys: Sketch::new(KEYS), prefixes: Sketch::new(PREFIXES), random: seed | 1 }
    }

    /// Notes a request, or lets it pass.
    #[inline]
    pub(crate) fn see(&mut self, key: &[u8], hash: u64, is_hit: bool, bytes: usize) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if self.random.is_multiple_of(SAMPLE) {
            self.keys.count(key, hash, is_hit, bytes as u64);
            if let Some(end) = key.iter().position(|byte| SEPARATORS.contains(byte)) {
                let prefix = &key[..=end];
                self.prefixes.count(prefix, fnv(prefix), is_hit, bytes as u64);
            }
        }
    }

    /// Halves all counts.
    pub(crate) fn fade(&mut self) {
        self.keys.fade();
        self.prefixes.fade();
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Top> {
        self.keys.tops()
    }

    pub(crate) fn prefixes(&self) -> impl Iterator<Item = Top> {
        self.prefixes.tops()
    }
}

/// Adds up what several slices of a cache have seen, the most asked for first.
pub(crate) fn merge(tops: impl Iterator<Item = Top>) -> Vec<Top> {
    let mut sums: HashMap<Vec<u8>, Top> = HashMap::new();
    for top in tops {
        let sum = sums.entry(top.text.clone()).or_default();
        *sum = Top {
            requests: sum.requests + top.requests,
            hits: sum.hits + top.hits,
            bytes: sum.bytes + top.bytes,
            text: top.text,
        };
    }
    let mut all: Vec<Top> = sums.into_values().collect();
    all.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.text.cmp(&b.text)));
    all
}

/// Counters for the most frequent texts.
struct Sketch {
    size: usize,
    /// Apart from the rest, because every look-up runs through all of them.
    hashes: Vec<u64>,
    counters: Vec<Counter>,
}

struct Counter {
    count: u64,
    /// How much of `count` may belong to those it was taken over from.
    inherited: u64,
    hits: u64,
    bytes: u64,
    text: Vec<u8>,
}

impl Sketch {
    fn new(size: usize) -> Self {
        Sketch { size, hashes: Vec::with_capacity(size), counters: Vec::with_capacity(size) }
    }

    fn count(&mut self, text: &[u8], hash: u64, is_hit: bool, bytes: u64) {
        let at = self.hashes.iter().position(|&other| other == hash).unwrap_or_else(|| {
            if self.counters.len() < self.size {
                self.hashes.push(hash);
                self.counters.push(Counter::new(text, 0));
                return self.counters.len() - 1;
            }
            let least = self.counters.iter().enumerate().min_by_key(|(_, counter)| counter.count);
            let (at, least) = least.expect("the table is full, so not empty");
            let inherited = least.count;
            self.hashes[at] = hash;
            self.counters[at] = Counter::new(text, inherited);
            at
        });
        let counter = &mut self.counters[at];
        counter.count += 1;
        counter.hits += u64::from(is_hit);
        counter.bytes += bytes;
    }

    fn fade(&mut self) {
        for counter in &mut self.counters {
            counter.count /= 2;
            counter.inherited /= 2;
            counter.hits /= 2;
            counter.bytes /= 2;
        }
    }

    fn tops(&self) -> impl Iterator<Item = Top> {
        self.counters.iter().map(|counter| Top {
            text: counter.text.clone(),
            // What surely was its own. Hits and bytes were counted from when it came in.
            requests: (counter.count - counter.inherited) * SAMPLE,
            hits: counter.hits * SAMPLE,
            bytes: counter.bytes * SAMPLE,
        })
    }
}

impl Counter {
    fn new(text: &[u8], inherited: u64) -> Self {
        Counter { count: inherited, inherited, hits: 0, bytes: 0, text: text.to_vec() }
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

    #[test]
    fn frequent_keys_are_found_among_many() {
        let mut watch = Watch::new(7);
        // Each of ten keys makes 2 % of the requests; the rest come once each.
        for request in 0..200_000_u64 {
            let key = if request % 5 == 0 {
                format!("hot:{}", request / 5 % 10)
            } else {
                format!("cold:{request}")
            };
            watch.see(key.as_bytes(), fnv(key.as_bytes()), request % 2 == 0, 100);
        }
        let tops = merge(watch.keys());
        let first: Vec<_> = tops[..10].iter().map(|top| &top.text[..4]).collect();
        assert!(first.iter().all(|text| *text == b"hot:"), "{first:?}");
        for top in &tops[..10] {
            assert!((2_500..5_500).contains(&top.requests), "about 4,000 each: {top:?}");
        }
        let prefixes = merge(watch.prefixes());
        assert_eq!(prefixes[0].text, b"cold:");
        let requests = prefixes[0].requests;
        assert!((152_000..168_000).contains(&requests), "160,000 within 5 %: {requests}");
        let hits = prefixes[0].hits;
        assert!((72_000..88_000).contains(&hits), "half of them: {hits}");
    }

    #[test]
    fn old_fame_fades() {
        let mut watch = Watch::new(7);
        let ask = |watch: &mut Watch, key: &str, times: u64| {
            (0..times).for_each(|_| watch.see(key.as_bytes(), fnv(key.as_bytes()), true, 1));
        };
        ask(&mut watch, "was", 8_000);
        (0..4).for_each(|_| watch.fade());
        ask(&mut watch, "is", 2_000);
        let tops = merge(watch.keys());
        assert_eq!((tops[0].text.as_slice(), tops[1].text.as_slice()), (&b"is"[..], &b"was"[..]));
    }
}
