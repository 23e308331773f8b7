//! Sampling how long requests take at each proxy, and telling it over time.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use super::Control;
use crate::error::ControlError;
use crate::series::latency::{Fineness, LatencyPoint, LatencySeries};
use crate::series::step::Step;
use crate::usage::LOCAL;

impl Control {
    /// Reads what all proxies have measured since the last time and keeps it, every
    /// [`crate::series::latency::SAMPLE_SECONDS`]. Nothing is written by a process that does not lead.
    pub fn sample_latency(&self) -> Result<(), ControlError> {
        if !self.leads() {
            return Ok(());
        }
        let read = self.latencies();
        let news = {
            let mut readings = self.latency_readings.lock().unwrap_or_else(PoisonError::into_inner);
            readings.news(read, LOCAL, true)
        };
        if news.is_empty() {
            return Ok(());
        }
        let now = self.environment.now();
        let mut database = self.lock();
        let mut measured = Vec::with_capacity(news.len());
        for (server, histogram) in news {
            measured.push((database.server_number(now, &server)?, histogram));
        }
        // Called at the end of a step, which is the beginning of the next.
        database.add_latencies(now, now.0.saturating_sub(1), &measured)
    }

    /// How long requests took at each proxy from `from` to before `to`, in Unix time, all caches
    /// together: in the step that the length of the range asks for, and up to this moment.
    pub fn latency(&self, from: u64, to: u64) -> Result<LatencySeries, ControlError> {
        let read = self.latencies();
        let under_way = {
            let mut readings = self.latency_readings.lock().unwrap_or_else(PoisonError::into_inner);
            readings.news(read, LOCAL, false)
        };
        let now = self.environment.now().0;
        let from = from.max(now.saturating_sub(Step::Day.kept_seconds()));
        let step = Fineness::for_range(from, to, now);
        let mut series = self.latency_sampled(step, from, to)?;
        if now <= to {
            let at = step.begin(now);
            for (server, histogram) in under_way {
                let points = series.servers.entry(server).or_default();
                match points.last_mut().filter(|last| last.at == at) {
                    Some(last) => last.histogram.add(&histogram),
                    None => points.push(LatencyPoint { at, histogram }),
                }
            }
        }
        Ok(series)
    }

    /// The same as far as it has been sampled, in this step. Asks no proxy, so it costs little enough for
    /// pages that renew themselves.
    pub(crate) fn latency_sampled(
        &self,
        step: Fineness,
        from: u64,
        to: u64,
    ) -> Result<LatencySeries, ControlError> {
        let mut servers: BTreeMap<String, Vec<LatencyPoint>> = BTreeMap::new();
        let mut database = self.lock_reader();
        let names = database.server_names()?;
        for (at, server, histogram) in database.latencies(step, (from, to))? {
            let Some(name) = names.get(&server) else { continue };
            servers.entry(name.clone()).or_default().push(LatencyPoint { at, histogram });
        }
        Ok(LatencySeries { step_seconds: step.seconds(), servers })
    }

    /// Forgets what is older than is kept. Returns whether there may be more.
    pub fn trim_latency(&self) -> Result<bool, ControlError> {
        self.lock().trim_latencies(self.environment.now())
    }
}
