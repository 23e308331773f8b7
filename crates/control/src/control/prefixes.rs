//! Asking what comes under watched prefixes, at the end of every minute, and telling it over time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{MutexGuard, PoisonError};

use tenancy::id::CacheId;
use wire::control::inquiry::{Answer, PrefixFigures, Question};

use super::Control;
use crate::error::ControlError;
use crate::model::{Cache, CacheRef};
use crate::series::prefixes::{PrefixReadings, server_name};
use crate::series::sample::Sample;
use crate::series::{Series, fill};

/// How long a minute's asking takes at most, in seconds, when nodes do not answer. Who has not been asked
/// then is first the next time: servers count on, so nothing is lost but when it was.
const ASKING_SECONDS_MAX: u64 = 10;

impl Control {
    /// Asks of all watched prefixes, and returns what each comes to, as servers of their caches.
    pub(super) fn read_prefixes(
        &self,
    ) -> Result<HashMap<CacheId, Vec<(String, Sample)>>, ControlError> {
        let all = self.lock_reader().all_prefixes()?;
        let mut watched: BTreeMap<CacheId, Vec<(u64, String)>> = BTreeMap::new();
        for (cache, prefix, name) in all {
            watched.entry(cache).or_default().push((prefix, name));
        }
        let known: HashSet<u64> = watched.values().flatten().map(|(prefix, _)| *prefix).collect();
        let first = {
            let mut readings = self.lock_prefixes();
            readings.readings.retain(|prefix| known.contains(&prefix));
            readings.next.take()
        };
        let until = self.now().0.saturating_add(ASKING_SECONDS_MAX);
        let from = first.unwrap_or(CacheId::new(0));
        for (id, prefixes) in watched.range(from..).chain(watched.range(..from)) {
            if until < self.now().0 {
                self.lock_prefixes().next = Some(*id);
                break;
            }
            match self.cache(&CacheRef::Id(*id)) {
                Ok(cache) => self.read_prefixes_of(&cache, prefixes),
                // Deleted since.
                Err(ControlError::UnknownCache(_)) => (),
                Err(error) => return Err(error),
            }
        }
        let readings = self.lock_prefixes();
        let sum = |(prefix, _): &(u64, String)| {
            Some((server_name(*prefix), readings.readings.sum(*prefix)?))
        };
        let sums = |(cache, prefixes): (CacheId, Vec<(u64, String)>)| {
            (cache, prefixes.iter().filter_map(sum).collect())
        };
        Ok(watched.into_iter().map(sums).collect())
    }

    /// Asks of the prefixes of one cache. Servers count them from the first question on; those that do not
    /// answer are asked again with the next minute.
    pub(super) fn read_prefixes_of(&self, cache: &Cache, prefixes: &[(u64, String)]) {
        let names = prefixes.iter().map(|(_, name)| name.clone().into_bytes()).collect();
        let question = Question::Prefixes { cache: cache.id, prefixes: names };
        let Ok(answers) = self.ask(cache, &question) else { return };
        let figures = |answer: &Answer, at: usize| -> Option<PrefixFigures> {
            let Answer::Prefixes(figures) = answer else { return None };
            figures.get(at).copied()
        };
        let mut readings = self.lock_prefixes();
        for (at, (prefix, _)) in prefixes.iter().enumerate() {
            let said = answers
                .iter()
                .filter_map(|(server, answer)| Some((server.as_str(), figures(answer, at)?)));
            readings.readings.hear(*prefix, &said.collect());
        }
    }

    /// What was asked for under a watched prefix, by its number, as [`Control::series`] tells of a cache.
    pub fn prefix_series(
        &self,
        cache: &CacheRef,
        prefix: u64,
        from: u64,
        to: u64,
    ) -> Result<Series, ControlError> {
        let cache = self.cache(cache)?;
        if self.prefixes(&CacheRef::Id(cache.id))?.iter().all(|(known, _)| *known != prefix) {
            return Err(ControlError::UnknownPrefix(prefix));
        }
        let (step, from, to) = self.range(from, to);
        let rows = self.rows(cache.id, step, (from, to), true)?;
        let names = self.lock_reader().server_names()?;
        let own = server_name(prefix);
        let is_own = |server: &u64| names.get(server).is_some_and(|name| *name == own);
        let own = rows.into_iter().filter(|(_, server, _)| is_own(server));
        let own: Vec<(u64, Sample)> = own.map(|(at, _, sample)| (at, sample)).collect();
        let latest = self.lock_prefixes().readings.sum(prefix);
        Ok(fill(step, from, to, &own, latest))
    }

    fn lock_prefixes(&self) -> MutexGuard<'_, WatchedPrefixes> {
        self.prefix_readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of watched prefixes.
#[derive(Debug, Default)]
pub(super) struct WatchedPrefixes {
    readings: PrefixReadings,
    /// Whom there was no time to ask.
    next: Option<CacheId>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tenancy::plan::Plan;

    use super::*;
    use crate::environment::Environment;
    use crate::model::{Actor, ClusterId, UnixSeconds};
    use crate::pretend::PretendDataPlane;
    use crate::series::sample::Figure;

    #[test]
    fn what_comes_under_a_watched_prefix_is_told_over_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = Arc::new(AtomicU64::new(20_000 * 86_400));
        let hand = Arc::clone(&clock);
        let chance = |bytes: &mut [u8]| {
            bytes.fill(5);
            Ok(())
        };
        let now = move || UnixSeconds(hand.load(Ordering::Relaxed));
        let data_plane = Arc::<PretendDataPlane>::default();
        let environment = Environment::new(now, chance);
        let control = Control::open(dir.path(), environment, Arc::clone(&data_plane) as Arc<_>);
        let control = control.expect("a new directory");
        let made =
            control.create_cache(Actor::Operator, ClusterId::DEFAULT, None, Plan::DEVELOPMENT);
        let id = made.expect("room").value.0.id;
        let cache = CacheRef::Id(id);
        let figures =
            |hits: u64| PrefixFigures { hits, misses: hits / 10, writes: 1, items: 4, bytes: 400 };
        // Asked for before anyone wanted to know.
        data_plane.ask_under(id, "user:", figures(1_000));
        let user = control.watch_prefix(Actor::Owner, &cache, "user:").expect("room");
        let page = control.watch_prefix(Actor::Owner, &cache, "page:").expect("room");
        for minute in 1..=3 {
            data_plane.ask_under(id, "user:", figures(1_000 + minute * 60));
            data_plane.count(id, "cmd_get", minute);
            clock.fetch_add(60, Ordering::Relaxed);
            control.sample().expect("sampled");
        }
        let told = |prefix: u64| {
            let now = clock.load(Ordering::Relaxed);
            let series =
                control.prefix_series(&cache, prefix, now - 240, now).expect("it is there");
            let point = |sample: &Sample| {
                (
                    sample.get(Figure::GetHits),
                    sample.get(Figure::GetMisses),
                    sample.get(Figure::CurrItems),
                )
            };
            series.points.iter().map(|it| point(&it.sample)).collect::<Vec<_>>()
        };
        assert_eq!(told(user), [(0, 0, 4), (60, 6, 4), (60, 6, 4), (60, 6, 4)]);
        assert_eq!(told(page), [(0, 0, 0); 4]);
        // Whoever asks for servers is told of servers.
        let now = clock.load(Ordering::Relaxed);
        let (_, servers) = control.series_by_server(&cache, now - 240, now).expect("there");
        assert!(servers.is_empty(), "{servers:?}");
        control.unwatch_prefix(Actor::Owner, &cache, user).expect("it was watched");
        let gone = control.prefix_series(&cache, user, now - 240, now);
        assert!(matches!(gone, Err(ControlError::UnknownPrefix(_))), "{gone:?}");
    }
}
