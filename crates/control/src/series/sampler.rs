//! Turns readings of totals into what happened between them. Pure: told the readings, remembers the
//! last ones.

use std::collections::HashMap;

use tenancy::id::CacheId;

use super::sample::Sample;

/// What is read of one cache: totals since something began, and how things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) cache: CacheId,
    pub(crate) whole: Sample,
    /// The same of each server, by name, where there are several.
    pub(crate) servers: Vec<(String, Sample)>,
}

/// What changed of one cache since the reading before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) cache: CacheId,
    pub(crate) whole: Sample,
    pub(crate) servers: Vec<(String, Sample)>,
}

/// Remembers what was read last: about 250 bytes for each cache that was ever used.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    last: HashMap<CacheId, Reading>,
}

impl Sampler {
    /// Returns the caches of which anything changed. One that was not read before began at 0.
    pub(crate) fn take(&mut self, readings: Vec<Reading>) -> Vec<Changed> {
        let mut changed = Vec::new();
        let mut last = HashMap::with_capacity(readings.len());
        for reading in readings {
            let before = self.last.remove(&reading.cache);
            if before.as_ref() != Some(&reading) {
                changed.extend(changes(&reading, before.as_ref()));
            }
            last.insert(reading.cache, reading);
        }
        self.last = last;
        changed
    }

    /// How a cache stood when it was last read.
    pub(crate) fn last(&self, cache: CacheId) -> Option<Sample> {
        self.last.get(&cache).map(|reading| reading.whole)
    }
}

fn changes(now: &Reading, before: Option<&Reading>) -> Option<Changed> {
    let nothing = Sample::default();
    let whole = now.whole.since(before.map_or(&nothing, |before| &before.whole));
    if before.is_none() && whole == nothing {
        return None;
    }
    let of_server = |(name, sample): &(String, Sample)| {
        let servers = before.map_or(&[][..], |before| &before.servers);
        let before = servers.iter().find(|(known, _)| known == name);
        (name.clone(), sample.since(before.map_or(&nothing, |(_, sample)| sample)))
    };
    let servers = now.servers.iter().map(of_server).filter(|(_, sample)| *sample != nothing);
    Some(Changed { cache: now.cache, whole, servers: servers.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::sample::Figure;

    fn reading(cache: u64, gets: u64, items: u64) -> Reading {
        let mut whole = Sample::default();
        whole.set(Figure::CmdGet, gets);
        whole.set(Figure::CurrItems, items);
        let servers = vec![("n0".to_owned(), whole)];
        Reading { cache: CacheId::new(cache), whole, servers }
    }

    fn seen(changed: &[Changed]) -> Vec<(u64, u64, u64)> {
        let of = |it: &Changed| {
            (it.cache.get(), it.whole.get(Figure::CmdGet), it.whole.get(Figure::CurrItems))
        };
        changed.iter().map(of).collect()
    }

    #[test]
    fn only_what_changed_is_told_and_every_event_once() {
        let mut sampler = Sampler::default();
        let changed = sampler.take(vec![reading(1, 5, 2), reading(2, 0, 0)]);
        assert_eq!(seen(&changed), [(1, 5, 2)]);
        assert_eq!(seen(&sampler.take(vec![reading(1, 5, 2), reading(2, 0, 0)])), []);
        assert_eq!(
            seen(&sampler.take(vec![reading(1, 9, 2), reading(2, 0, 1)])),
            [(1, 4, 2), (2, 0, 1)]
        );
        assert_eq!(sampler.take(vec![reading(1, 9, 3)])[0].servers[0].1.get(Figure::CmdGet), 0);
    }

    #[test]
    fn a_cache_that_is_gone_is_forgotten() {
        let mut sampler = Sampler::default();
        sampler.take(vec![reading(1, 5, 2)]);
        assert!(sampler.last(CacheId::new(1)).is_some());
        sampler.take(Vec::new());
        assert!(sampler.last(CacheId::new(1)).is_none());
    }
}
