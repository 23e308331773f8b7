//! Authentications per second, instead of requests.
//!
//! Two ways, for they measure different things: `connect` opens a connection, authenticates and
//! closes it, and so pays for TCP and TLS as real clients do; `repeat` authenticates again and
//! again on the same connections, and so shows what the check of a password itself costs.
//!
//! In the first way connections are reset instead of closed politely: a closed connection keeps its
//! local port for a minute, and a second of this would use up all of them.

use crate::args::Handshakes;
use crate::connection::{Connection, Role, State};
use crate::error::BenchError;
use crate::login::{Login, Verdict};
use crate::machine::{pin_to, thread_cpu};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Report;
use crate::run::{Moment, join};
use crate::tally::Tally;
use crate::worker::Cost;
use mio::{Events, Poll, Token};
use slab::Slab;
use socket2::SockRef;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Runs until the time or the number of authentications of the plan is reached.
pub(crate) fn run(
    plan: &Plan,
    how: Handshakes,
    observe: &mut dyn FnMut(Moment),
) -> Result<Report, BenchError> {
    let login = plan.login.as_ref().expect("the plan was checked to have a login");
    let counts: Vec<AtomicU64> = (0..plan.threads).map(|_| AtomicU64::new(0)).collect();
    let progress = Progress::new(&counts);
    observe(Moment::Connected);
    observe(Moment::Measuring);
    let results = progress.phase("authenticating", plan.requests, || {
        thread::scope(|scope| {
            let threads: Vec<_> = counts
                .iter()
                .enumerate()
                .map(|(part, count)| {
                    scope.spawn(move || Guest::new(plan, login, how, part, count)?.run())
                })
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
    login: &'p Login,
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

const EVENTS_MAX: usize = 1024;
/// A server that has accepted nobody for so long is broken.
const STALL: Duration = Duration::from_secs(10);
const LOOK_AROUND: Duration = Duration::from_millis(100);

impl<'p> Guest<'p> {
    fn new(
        plan: &'p Plan,
        login: &'p Login,
        how: Handshakes,
        part: usize,
        count: &'p AtomicU64,
    ) -> Result<Guest<'p>, BenchError> {
        let poll = Poll::new().map_err(BenchError::machine("could not make an event queue"))?;
        let left = plan.requests.map_or(u64::MAX, |all| {
            all / plan.threads as u64 + u64::from((part as u64) < all % plan.threads as u64)
        });
        Ok(Guest {
            plan,
            login,
            how,
            part,
            poll,
            visits: Slab::new(),
            left,
            tally: Tally::new(),
            input: Vec::new(),
            count,
        })
    }

    fn run(mut self) -> Result<(Tally, Cost), BenchError> {
        if let Some(&cpu) = self.plan.pin.get(self.part % self.plan.pin.len().max(1)) {
            pin_to(cpu)?;
        }
        let cpu_before = thread_cpu();
        let start = Instant::now();
        let end = self.plan.duration.map(|duration| start + duration);
        let mut busy = Duration::ZERO;
        let mut last = (start, 0);
        let mut events = Events::with_capacity(EVENTS_MAX);
        for number in crate::worker::share(self.plan.connections, self.part, self.plan.threads) {
            self.knock(number % self.plan.servers.len())?;
        }
        while !self.visits.is_empty() {
            if end.is_some_and(|end| Instant::now() >= end) {
                self.left = 0;
            }
            self.wait(&mut events)?;
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

    fn wait(&mut self, events: &mut Events) -> Result<(), BenchError> {
        let patience = if self.plan.spin { Duration::ZERO } else { LOOK_AROUND };
        match self.poll.poll(events, Some(patience)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(BenchError::Machine { what: "could not wait for events", source: error })
            }
            _ => Ok(()),
        }
    }

    /// Opens one more connection, if there is one more authentication to do.
    fn knock(&mut self, server: usize) -> Result<(), BenchError> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        let since = Instant::now();
        let entry = self.visits.vacant_entry();
        let transport = self.plan.open(server, self.poll.registry(), Token(entry.key()))?;
        entry.insert(Visit { connection: Connection::new(transport, Role::Active, server), since });
        Ok(())
    }

    fn go_on(&mut self, token: usize) -> Result<(), BenchError> {
        let Some(Visit { connection, since }) = self.visits.get_mut(token) else { return Ok(()) };
        let server = connection.server;
        let closed = |_| self.plan.login_closed(server);
        if connection.state == State::Connecting {
            if !self.plan.is_open(connection)? {
                return Ok(());
            }
            connection.state = State::LoggingIn;
            connection.send(self.login.request()).map_err(closed)?;
        }
        connection.flush().map_err(closed)?;
        let arrived = connection.receive(&mut self.input).map_err(closed)?;
        let bytes = &self.input[..arrived.len];
        match self.login.verdict(bytes) {
            Verdict::NeedMore if arrived.closed => return Err(self.plan.login_closed(server)),
            Verdict::NeedMore => {
                connection.keep(bytes);
                return Ok(());
            }
            Verdict::Refused(said) => {
                let server = self.plan.servers[server].name.clone();
                return Err(BenchError::LoginRefused { server, said });
            }
            Verdict::Accepted { consumed } => connection.keep(&bytes[consumed..]),
        }
        self.tally.logins += 1;
        let nanoseconds = since.elapsed().as_nanos() as u64;
        self.tally.latencies.saturating_record(nanoseconds);
        if self.how == Handshakes::Repeat && self.left > 0 {
            self.left -= 1;
            *since = Instant::now();
            connection.send(self.login.request()).map_err(closed)?;
            return Ok(());
        }
        // A reset frees the port at once; if it cannot be had, a close will do.
        let socket = connection.transport.socket();
        SockRef::from(&*socket).set_linger(Some(Duration::ZERO)).ok();
        self.visits.remove(token);
        self.knock(server)
    }

    fn stalled(&self) -> BenchError {
        let server = self.visits.iter().next().map_or(0, |(_, visit)| visit.connection.server);
        BenchError::Stalled {
            server: self.plan.servers[server].name.clone(),
            seconds: STALL.as_secs(),
            in_flight: self.visits.len(),
        }
    }
}
