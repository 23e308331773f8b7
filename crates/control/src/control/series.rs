//! Sampling what caches do, and telling it over time.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;

use tenancy::id::CacheId;
use wire::control::usage::{Figure, FigureKind, Figures};

use super::Control;
use crate::database::{SERIES_BATCH, SeriesRow, WHOLE};
use crate::error::ControlError;
use crate::model::{Cache, CacheRef};
use crate::series::prefixes::is_server;
use crate::series::sample::Sample;
use crate::series::sampler::Reading;
use crate::series::step::Step;
use crate::series::{Series, ServerSeries, fill};
use crate::usage::{CacheUsage, ProxyUsage};

/// Windows that are summed up at one time: after a long absence the rest follows with the next minute.
const WINDOWS_AT_ONCE: usize = 20;

impl Control {
    /// Reads what all caches did since the last time and adds it to the minute that is ending, or that
    /// this process is being stopped in. Nothing is written by a process that does not lead. Returns
    /// how many caches had anything to tell.
    pub fn sample(&self) -> Result<usize, ControlError> {
        if !self.leads() {
            return Ok(0);
        }
        let mut readings = self.readings()?;
        let mut prefixes = self.read_prefixes()?;
        for reading in &mut readings {
            reading.servers.extend(prefixes.remove(&reading.cache).unwrap_or_default());
        }
        let changed = {
            let mut sampler = self.sampler.lock().unwrap_or_else(PoisonError::into_inner);
            sampler.take(readings)
        };
        let now = self.environment.now();
        // Called at the end of the minute, which is the beginning of the next.
        let at = Step::Minute.begin(now.0.saturating_sub(1));
        let mut numbers: HashMap<String, u64> = HashMap::new();
        let mut rows = Vec::with_capacity(changed.len());
        for one in &changed {
            rows.push(SeriesRow { cache: one.cache, server: WHOLE, sample: one.whole });
            for (name, sample) in &one.servers {
                let server = match numbers.get(name) {
                    Some(number) => *number,
                    None => {
                        let number = self.lock().server_number(now, name)?;
                        numbers.insert(name.clone(), number);
                        number
                    }
                };
                rows.push(SeriesRow { cache: one.cache, server, sample: *sample });
            }
        }
        for batch in rows.chunks(SERIES_BATCH) {
            self.lock().add_samples(now, at, batch)?;
        }
        self.watch_alerts(&changed.iter().map(|one| one.cache).collect::<HashSet<_>>())?;
        Ok(changed.len())
    }

    /// Totals of every cache that is known to have been used.
    fn readings(&self) -> Result<Vec<Reading>, ControlError> {
        let of_server = |it: ProxyUsage| (it.proxy, totals(&it.grown, &it.figures));
        let reading = |(cache, usage): (CacheId, CacheUsage)| Reading {
            cache,
            whole: totals(&usage.grown, &usage.figures),
            servers: match self.local {
                Some(_) => Vec::new(),
                None => usage.by_proxy.into_iter().map(of_server).collect(),
            },
        };
        Ok(self.usages()?.into_iter().map(reading).collect())
    }

    /// Sums up what is complete: minutes to ten minutes, these to hours, these to days.
    pub fn roll_up(&self) -> Result<(), ControlError> {
        let now = self.environment.now();
        for step in Step::ALL {
            for _ in 0..WINDOWS_AT_ONCE {
                let Some(window) = self.lock_reader().next_window(now, step)? else { break };
                for batch in window.rows.chunks(SERIES_BATCH) {
                    self.lock().put_window(now, step, window.at, batch)?;
                }
                self.lock().note_rolled(now, step, window.at + step.seconds())?;
            }
        }
        Ok(())
    }

    /// Forgets rows that are older than is kept. Returns whether there may be more.
    pub fn trim_series(&self) -> Result<bool, ControlError> {
        self.lock().trim_series(self.environment.now())
    }

    /// What a cache did from `from` to before `to`, in Unix time: in the step that the length of the
    /// range asks for. The step that is under way is told as far as its minutes have ended.
    pub fn series(
        &self,
        cache: &CacheRef,
        from: u64,
        to: u64,
    ) -> Result<(Cache, Series), ControlError> {
        let cache = self.cache(cache)?;
        let (step, from, to) = self.range(from, to);
        let rows = self.rows(cache.id, step, (from, to), false)?;
        let rows: Vec<(u64, Sample)> = rows.into_iter().map(|(at, _, it)| (at, it)).collect();
        let latest = self.sampler.lock().unwrap_or_else(PoisonError::into_inner).last(cache.id);
        Ok((cache, fill(step, from, to, &rows, latest)))
    }

    /// The same of each server that had part in it, by name. Empty where there is only one.
    pub fn series_by_server(
        &self,
        cache: &CacheRef,
        from: u64,
        to: u64,
    ) -> Result<(Cache, Vec<ServerSeries>), ControlError> {
        let cache = self.cache(cache)?;
        let (step, from, to) = self.range(from, to);
        let rows = self.rows(cache.id, step, (from, to), true)?;
        let names = self.lock().server_names()?;
        let mut servers: BTreeMap<&str, Vec<(u64, Sample)>> = BTreeMap::new();
        for (at, server, sample) in rows {
            let name = names.get(&server).map_or("", String::as_str);
            if !is_server(name) {
                continue;
            }
            servers.entry(name).or_default().push((at, sample));
        }
        let series = |(server, rows): (&str, Vec<(u64, Sample)>)| ServerSeries {
            server: server.to_owned(),
            series: fill(step, from, to, &rows, None),
        };
        Ok((cache, servers.into_iter().map(series).collect()))
    }

    /// The step of a range, and the range without what nobody keeps and what has not happened.
    pub(super) fn range(&self, from: u64, to: u64) -> (Step, u64, u64) {
        let now = self.environment.now().0;
        let to = to.min(Step::Minute.begin(now));
        let from = from.max(now.saturating_sub(Step::Day.kept_seconds()));
        (Step::for_range(from, to, now), from, to)
    }

    /// Rows of a step; that which is under way is summed up from finer ones.
    pub(super) fn rows(
        &self,
        cache: CacheId,
        step: Step,
        (from, to): (u64, u64),
        of_servers: bool,
    ) -> Result<Vec<(u64, u64, Sample)>, ControlError> {
        let under_way = step.begin(self.environment.now().0);
        let mut rows = self.lock().series(cache, step, (from, to.min(under_way)), of_servers)?;
        if let Some(finer) = step.finer()
            && under_way < to
        {
            let mut sums: BTreeMap<u64, Sample> = BTreeMap::new();
            for (_, server, sample) in self.rows(cache, finer, (under_way, to), of_servers)? {
                sums.entry(server).or_default().then(&sample);
            }
            rows.extend(sums.into_iter().map(|(server, sample)| (under_way, server, sample)));
        }
        Ok(rows)
    }
}

/// Counters as far as this process has seen them grow, and gauges as they stand.
fn totals(grown: &Figures, figures: &Figures) -> Sample {
    let gauges = Figure::ALL.iter().filter(|figure| figure.kind() == FigureKind::Gauge);
    Sample::of(grown.iter().chain(gauges.map(|gauge| (gauge.name(), figures.get(*gauge)))))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tenancy::plan::Plan;

    use super::*;
    use crate::control::Backing;
    use crate::data_plane::DataPlane;
    use crate::environment::Environment;
    use crate::model::{Actor, ClusterId, UnixSeconds};
    use crate::pretend::{Engine, PretendDataPlane};
    use crate::series::sample::Figure;

    const DAY: u64 = 86_400;

    /// A control plane with a clock of its own.
    struct Clocked {
        control: Control,
        data_plane: Arc<PretendDataPlane>,
        clock: Arc<AtomicU64>,
        backing: Backing,
        dir: tempfile::TempDir,
        cache: CacheId,
    }

    impl Clocked {
        fn new(engine: &Engine) -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            // The beginning of a day.
            let clock = Arc::new(AtomicU64::new(20_000 * DAY));
            let (backing, data_plane) = (engine.backing(), Arc::default());
            let control = open(&backing, &dir, &clock, &data_plane);
            let made =
                control.create_cache(Actor::Operator, ClusterId::DEFAULT, None, Plan::DEVELOPMENT);
            let cache = made.expect("room for one").value.0.id;
            Clocked { control, data_plane, clock, backing, dir, cache }
        }

        /// Ends the process as a signal does, and begins another, whose data plane counts from 0.
        fn restart(self) -> Self {
            self.control.sample().expect("sampled");
            let Clocked { control, clock, backing, dir, cache, .. } = self;
            control.resign();
            drop(control);
            let data_plane = Arc::default();
            let control = open(&backing, &dir, &clock, &data_plane);
            Clocked { control, data_plane, clock, backing, dir, cache }
        }

        fn now(&self) -> u64 {
            self.clock.load(Ordering::Relaxed)
        }

        fn pass(&self, seconds: u64) {
            self.clock.fetch_add(seconds, Ordering::Relaxed);
        }

        fn gets(&self, total: u64) {
            self.data_plane.count(self.cache, "cmd_get", total);
        }

        /// The end of a minute.
        fn minute(&self) {
            self.control.sample().expect("sampled");
            self.control.roll_up().expect("rolled up");
        }

        /// The step, and where there were any gets: how many points ago, and how many.
        fn seen(&self, seconds: u64) -> (Step, Vec<(u64, u64)>) {
            let now = self.now();
            let cache = CacheRef::Id(self.cache);
            let (_, series) = self.control.series(&cache, now - seconds, now).expect("it is there");
            let end = series.points.last().expect("a point").at;
            let ago = |at: u64| (end - at) / series.step.seconds();
            let counted =
                series.points.iter().map(|it| (ago(it.at), it.sample.get(Figure::CmdGet)));
            (series.step, counted.filter(|(_, gets)| *gets != 0).collect())
        }

        fn total(&self, seconds: u64) -> u64 {
            self.seen(seconds).1.iter().map(|(_, gets)| gets).sum()
        }
    }

    fn open(
        backing: &Backing,
        dir: &tempfile::TempDir,
        clock: &Arc<AtomicU64>,
        data_plane: &Arc<PretendDataPlane>,
    ) -> Control {
        let clock = Arc::clone(clock);
        let random = AtomicU64::new(clock.load(Ordering::Relaxed));
        let environment = Environment::new(
            move || UnixSeconds(clock.load(Ordering::Relaxed)),
            move |bytes| {
                for byte in bytes {
                    let drawn = random.fetch_add(1, Ordering::Relaxed);
                    *byte = (drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
                }
                Ok(())
            },
        );
        let data_plane = Arc::clone(data_plane) as Arc<dyn DataPlane>;
        let control = Control::open_on(backing, dir.path(), environment, Some(data_plane));
        let control = control.expect("it opens");
        if *backing != Backing::Sqlite {
            control.lead("a test", Duration::from_secs(600), true);
        }
        control
    }

    fn on_each_database(check: impl Fn(Clocked)) {
        check(Clocked::new(&Engine::Sqlite));
        #[cfg(feature = "postgres")]
        check(Clocked::new(&Engine::Postgres(crate::pretend::PostgresServer::start())));
    }

    #[test]
    fn a_minute_has_what_happened_in_it() {
        on_each_database(|it| {
            it.gets(5);
            it.pass(60);
            it.minute();
            it.pass(60);
            it.minute();
            it.gets(12);
            it.pass(60);
            it.minute();
            assert_eq!(it.seen(DAY), (Step::Minute, vec![(2, 5), (0, 7)]));
            // Idle minutes have no rows.
            let rows = it.control.lock().lines("SELECT at FROM series WHERE step = 60");
            assert_eq!(rows.len(), 2);
        });
    }

    #[test]
    fn a_restart_counts_nothing_twice() {
        on_each_database(|it| {
            it.gets(5);
            it.pass(20);
            let it = it.restart();
            // The same minute, in a process whose counters began anew.
            it.gets(3);
            it.pass(40);
            it.minute();
            assert_eq!(it.seen(DAY).1, [(0, 8)]);
            it.pass(60);
            it.minute();
            assert_eq!(it.total(DAY), 8);
        });
    }

    #[test]
    fn every_step_says_the_same_sum() {
        on_each_database(|it| {
            let mut gets = 0;
            // Every seven minutes for two days.
            for minute in 0..2 * 24 * 60 {
                if minute % 7 == 0 {
                    gets += 1 + minute;
                    it.gets(gets);
                }
                it.pass(60);
                if minute % 7 == 0 || minute % 10 == 9 {
                    it.minute();
                }
            }
            it.minute();
            for (days, step) in
                [(3, Step::TenMinutes), (7, Step::TenMinutes), (30, Step::Hour), (400, Step::Day)]
            {
                assert_eq!(it.seen(days * DAY).0, step);
                assert_eq!(it.total(days * DAY), gets, "{step:?}");
            }
            let (_, days) = it.seen(400 * DAY);
            assert_eq!(days.len(), 2);
        });
    }

    #[test]
    fn the_step_under_way_is_told_as_far_as_it_has_come() {
        on_each_database(|it| {
            it.gets(4);
            it.pass(60);
            it.minute();
            it.gets(9);
            it.pass(60);
            it.minute();
            assert_eq!(it.seen(400 * DAY), (Step::Day, vec![(0, 9)]));
        });
    }

    #[test]
    fn latency_is_told_in_every_step_and_forgotten_when_it_is_old() {
        on_each_database(|it| {
            let told = |seconds: u64| {
                let now = it.now();
                let series = it.control.latency(now - seconds, now).expect("readable");
                let points = series.servers.get("local").cloned().unwrap_or_default();
                let counted = points.iter().map(|point| (point.at, point.histogram.total()));
                (series.step_seconds, counted.collect::<Vec<_>>())
            };
            let begun = it.now();
            it.data_plane.time(5_000);
            assert_eq!(told(DAY), (20, vec![(begun, 1)]), "before it is sampled");
            it.pass(20);
            it.control.sample_latency().expect("sampled");
            [6_000, 7_000].into_iter().for_each(|time| it.data_plane.time(time));
            it.pass(20);
            it.control.sample_latency().expect("sampled");
            it.pass(20);
            // Nothing was measured in it.
            it.control.sample_latency().expect("sampled");
            assert_eq!(told(DAY), (20, vec![(begun, 1), (begun + 20, 2)]));
            for (days, seconds) in [(7, 600), (30, 3_600), (400, DAY)] {
                assert_eq!(told(days * DAY), (seconds, vec![(begun, 3)]));
            }
            it.pass(3 * DAY);
            while it.control.trim_latency().expect("trimmed") {}
            let steps = it.control.lock().lines("SELECT step FROM latency ORDER BY step");
            assert_eq!(steps.len(), 3, "the samples are gone: {steps:?}");
            assert_eq!(told(7 * DAY), (600, vec![(begun, 3)]));
            it.pass(1_200 * DAY);
            while it.control.trim_latency().expect("trimmed") {}
            assert_eq!(it.control.lock().lines("SELECT step FROM latency"), Vec::<String>::new());
        });
    }

    #[test]
    fn what_is_old_is_forgotten() {
        on_each_database(|it| {
            it.gets(5);
            it.pass(60);
            it.minute();
            // Later rows make the sums complete.
            it.pass(2 * DAY);
            it.gets(6);
            it.minute();
            while it.control.trim_series().expect("trimmed") {}
            let steps = it.control.lock().lines("SELECT step FROM series ORDER BY step, at");
            // The minute is gone; ten minutes, hour and day stay.
            assert_eq!(steps.iter().filter(|row| row.contains("(60)")).count(), 1, "{steps:?}");
            assert_eq!(it.total(7 * DAY), 6);
            it.pass(1_200 * DAY);
            while it.control.trim_series().expect("trimmed") {}
            assert_eq!(it.control.lock().lines("SELECT step FROM series"), Vec::<String>::new());
        });
    }
}
