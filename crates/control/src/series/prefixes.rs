//! What was asked for under watched prefixes between readings, summed over servers. Pure.
//!
//! Over time it is kept as if each prefix were a server of its cache ([`server_name`]): sampled, summed up
//! and forgotten with all else.

use std::collections::{BTreeMap, HashMap};

use wire::control::inquiry::PrefixFigures;

use super::sample::{Figure, Sample};

/// No node's name has such a letter.
const MARK: char = '/';

/// As what a prefix, by its number, stands among the servers of its cache.
pub(crate) fn server_name(prefix: u64) -> String {
    format!("prefix{MARK}{prefix}")
}

/// Whether the name is that of a server.
pub(crate) fn is_server(name: &str) -> bool {
    !name.contains(MARK)
}

/// Remembers what every server has said last of each watched prefix, by its number.
#[derive(Debug, Default)]
pub(crate) struct PrefixReadings {
    last: HashMap<(u64, String), PrefixFigures>,
    /// Counted since this process began, and held when servers were last asked.
    sums: HashMap<u64, Sample>,
}

impl PrefixReadings {
    /// Takes in what servers that have answered say of a prefix. What one had counted before it was ever
    /// read may be long ago, and is left out.
    pub(crate) fn hear(&mut self, prefix: u64, said: &BTreeMap<&str, PrefixFigures>) {
        if said.is_empty() {
            return;
        }
        let sum = self.sums.entry(prefix).or_default();
        let (mut items, mut bytes) = (0_u64, 0_u64);
        for (server, now) in said {
            items = items.saturating_add(now.items);
            bytes = bytes.saturating_add(now.bytes);
            let before = self.last.insert((prefix, (*server).to_owned()), *now);
            let Some(before) = before else { continue };
            // One that fell began anew in between, and all it says is news.
            let is_anew =
                now.hits < before.hits || now.misses < before.misses || now.writes < before.writes;
            let before = if is_anew { PrefixFigures::default() } else { before };
            for (figure, more) in [
                (Figure::GetHits, now.hits - before.hits),
                (Figure::GetMisses, now.misses - before.misses),
                (Figure::CmdSet, now.writes - before.writes),
            ] {
                sum.set(figure, sum.get(figure).saturating_add(more));
            }
        }
        sum.set(Figure::CurrItems, items);
        sum.set(Figure::Bytes, bytes);
    }

    /// What a prefix comes to by now.
    pub(crate) fn sum(&self, prefix: u64) -> Option<Sample> {
        self.sums.get(&prefix).copied()
    }

    /// Forgets what is watched no longer.
    pub(crate) fn retain(&mut self, is_watched: impl Fn(u64) -> bool) {
        self.last.retain(|(prefix, _), _| is_watched(*prefix));
        self.sums.retain(|prefix, _| is_watched(*prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(readings: &mut PrefixReadings, server: &str, hits: u64, items: u64) {
        let figures = PrefixFigures { hits, items, bytes: items * 10, ..PrefixFigures::default() };
        readings.hear(7, &BTreeMap::from([(server, figures)]));
    }

    #[track_caller]
    fn check(readings: &PrefixReadings, hits: u64, items: u64) {
        let sum = readings.sum(7).expect("it was read");
        let told = (sum.get(Figure::GetHits), sum.get(Figure::CurrItems), sum.get(Figure::Bytes));
        assert_eq!(told, (hits, items, items * 10));
    }

    #[test]
    fn every_request_is_told_once() {
        let mut readings = PrefixReadings::default();
        hear(&mut readings, "n0", 100, 3);
        check(&readings, 0, 3);
        hear(&mut readings, "n0", 105, 4);
        check(&readings, 5, 4);
        hear(&mut readings, "n0", 105, 4);
        hear(&mut readings, "n1", 0, 2);
        check(&readings, 5, 2);
        let both = [("n0", 106), ("n1", 9)].map(|(server, hits)| {
            (server, PrefixFigures { hits, items: 1, bytes: 10, ..PrefixFigures::default() })
        });
        readings.hear(7, &BTreeMap::from(both));
        check(&readings, 15, 2);
        // Its process began anew.
        hear(&mut readings, "n1", 4, 0);
        check(&readings, 19, 0);
        // None answered.
        readings.hear(7, &BTreeMap::new());
        check(&readings, 19, 0);
        readings.retain(|prefix| prefix != 7);
        assert_eq!(readings.sum(7), None);
    }

    #[test]
    fn a_prefix_is_no_server() {
        assert!(!is_server(&server_name(7)));
        assert!(is_server("n0") && is_server(crate::usage::LOCAL));
    }
}
