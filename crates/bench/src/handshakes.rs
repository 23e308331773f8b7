//! Authentications per second, instead of requests.
//!
//! Two ways, for they measure different things: `connect` opens a connection, authenticates and
//! closes it, and so pays for TCP and TLS as real clients do; `repeat` authenticates again and
//! again on the same connections, and so shows what the check of a password itself costs.
//!
//! In the first way connections are reset instead of closed politely: a closed connection keeps its
//! local port for a minute, and a second of this would use up all of them.

use crate::args::Handshakes;
use crate::connection::{Connection, Role};
use crate::entry;
use crate::error::BenchError;
use crate::events::{self, LOOK_AROUND, STALL};
use crate::machine::thread_cpu;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Report;
use crate::run::{Moment, join};
use crate::tally::Tally;
use crate::worker::Cost;
use mio::{Poll, Token};
use slab::Slab;
use socket2::SockRef;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Runs until the time or the number of authentications of the plan is reached.
pub(crate) fn run(
    plan: &Plan,
    how: Handshakes,
    observe: &mut dyn FnMut(Moment),
) -> Result<Report, BenchError> {
    let counts: Vec<AtomicU64> = (0..plan.threads).map(|_| AtomicU64::new(0)).collect();
    let progress = Progress::new(&counts);
    observe(Moment::Connected);
    observe(Moment::Measuring);
    let results = progress.phase("authenticating", plan.requests, || {
        thread::scope(|scope| {
            let threads: Vec<_> = counts
                .iter()
                .enumerate()
                .map(|(part, count)| scope.spawn(move || Guest::new(plan, how, part, count)?.run()))
                .collect();
            threads.into_iter().map(join).collect::<Result<Vec<_>, BenchError>>()
        })
    })?;
    observe(Moment::Measured);
    let mut tally = Tally::new();
    results.iter().for_each(|(part, _)| tally.add(part));
    let costs: Vec<Cost> = results.iter().map(|&(_, cost)| cost).collect();
    Ok(Report::new(&tally, &costs, plan.spin))
}

/// One thread that knocks, shows its password and leaves.
struct Guest<'p> {
    plan: &'p Plan,
    how: Handshakes,
    part: usize,
    poll: Poll,
    visits: Slab<Visit>,
    /// Authentications still to be begun.
    left: u64,
    tally: Tally,
    input: Vec<u8>,
    count: &'p AtomicU64,
}

struct Visit {
    connection: Connection,
    since: Instant,
}

impl<'p> Guest<'p> {
    fn new(
        plan: &'p Plan,
        how: Handshakes,
        part: usize,
        count: &'p AtomicU64,
    ) -> Result<Guest<'p>, BenchError> {
        Ok(Guest {
            plan,
            how,
            part,
            poll: events::queue()?,
            visits: Slab::new(),
            left: plan.requests_of(part),
            tally: Tally::new(),
            input: Vec::new(),
            count,
        })
    }

    fn run(mut self) -> Result<(Tally, Cost), BenchError> {
        self.plan.pin_thread(self.part)?;
        let cpu_before = thread_cpu();
        let start = Instant::now();
        let end = self.plan.duration.map(|duration| start + duration);
        let mut busy = Duration::ZERO;
        let mut last = (start, 0);
        let mut events = events::room();
        let patience = if self.plan.spin { Duration::ZERO } else { LOOK_AROUND };
        for number in self.plan.connections_of(self.plan.connections, self.part) {
            self.knock(number)?;
        }
        while !self.visits.is_empty() {
            if end.is_some_and(|end| Instant::now() >= end) {
                self.left = 0;
            }
            events::wait(&mut self.poll, &mut events, patience)?;
            let woke = Instant::now();
            for event in &events {
                self.go_on(event.token().0)?;
            }
            if !events.is_empty() {
                busy += woke.elapsed();
            }
            let done = self.tally.logins;
            self.count.store(done, Ordering::Relaxed);
            if done != last.1 {
                last = (woke, done);
            } else if woke.duration_since(last.0) > STALL {
                return Err(self.stalled());
            }
        }
        let cost = Cost { elapsed: start.elapsed(), cpu: thread_cpu() - cpu_before, busy };
        Ok((self.tally, cost))
    }

    /// Opens the `number`-th connection, again or for the first time, if there is one more authentication to do.
    fn knock(&mut self, number: usize) -> Result<(), BenchError> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let since = Instant::now();
        let slot = self.visits.vacant_entry();
        let (registry, token) = (self.poll.registry(), Token(slot.key()));
        let connection = entry::open(self.plan, number, Role::Active, registry, token)?;
        slot.insert(Visit { connection, since });
        Ok(())
    }

    fn go_on(&mut self, token: usize) -> Result<(), BenchError> {
        let Some(Visit { connection, since }) = self.visits.get_mut(token) else { return Ok(()) };
        if !entry::advance(self.plan, connection, &mut self.input)? {
            return Ok(());
        }
        self.tally.logins += 1;
        let nanoseconds = since.elapsed().as_nanos() as u64;
        self.tally.latencies.saturating_record(nanoseconds);
        if self.how == Handshakes::Repeat && self.left > 0 {
            self.left -= 1;
            *since = Instant::now();
            return entry::begin_login(self.plan, connection);
        }
        let number = connection.number;
        // A reset frees the port at once; if it cannot be had, a close will do.
        let socket = connection.transport.socket();
        SockRef::from(&*socket).set_linger(Some(Duration::ZERO)).ok();
        self.visits.remove(token);
        self.knock(number)
    }

    fn stalled(&self) -> BenchError {
        let server = self.visits.iter().next().map_or(0, |(_, visit)| visit.connection.server);
        BenchError::Stalled {
            server: self.plan.server_name(server),
            seconds: STALL.as_secs(),
            in_flight: self.visits.len(),
        }
    }
}
