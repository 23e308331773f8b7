//! One thread of the load: an event loop over its share of the connections.
//!
//! ```text
//!            ┌──────────────────────────── turn ────────────────────────────┐
//!  due? ──► generator ──► output ──► socket      (open loop: at its time)   │
//!            ▲                                                              │
//!  epoll ──► socket ──► input ──► pipeline checks ──► as many new requests  │
//!            │                    and counts          (closed loop)         │
//!            └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! A generator must cost less than what it measures: one read and one write per connection and
//! turn, shared buffers, no allocation per request, one look at the clock per readable connection.
//!
//! **Open loop.** Requests have a time at which they should leave, decided beforehand. Their
//! latency counts from then, even when no connection was free: a server that pauses for a second
//! is charged for every request that should have come in that second (no coordinated omission).

use crate::connection::{Connection, Role, State};
use crate::entry;
use crate::error::BenchError;
use crate::events::{self, LOOK_AROUND, STALL};
use crate::generator::{Generator, Task};
use crate::login::said;
use crate::machine::thread_cpu;
use crate::pace::{Arrivals, Pace};
use crate::plan::Plan;
use crate::tally::Tally;
use crate::timer::Timer;
use mio::event::Event;
use mio::{Poll, Token};
use slab::Slab;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a phase of the run is to do.
#[derive(Debug, Clone)]
pub(crate) struct Goal {
    pub(crate) task: Task,
    /// After this, no more requests are sent.
    pub(crate) duration: Option<Duration>,
    pub(crate) pace: Pace,
    /// Requests in flight per connection.
    pub(crate) in_flight: usize,
}

/// What a phase cost this thread.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) elapsed: Duration,
    /// User and system time of the thread.
    pub(crate) cpu: Duration,
    /// Length of the turns in which something came or left. Says something only of a thread that
    /// spins: one that sleeps does so within such turns.
    pub(crate) busy: Duration,
}

pub(crate) struct Worker<'p> {
    plan: &'p Plan,
    part: usize,
    poll: Poll,
    timer: Timer,
    connections: Slab<Connection>,
    /// The connections that carry load, in the order in which an open loop takes them.
    active: Vec<usize>,
    generator: Generator,
    pub(crate) tally: Tally,
    in_flight: usize,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Time zero of every nanosecond here.
    began: Instant,
    last_reply: u64,
    pub(crate) progress: &'p AtomicU64,
}

/// Connections being opened at once: below the backlog of every server we know.
const CONNECTING_MAX: usize = 128;
/// A server that has not let one more connection in for so long never will.
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// How long the last requests of a phase may take to be answered.
const DRAIN: Duration = Duration::from_secs(5);
/// The timer's place among the connections.
const TIMER: Token = Token(usize::MAX);

impl<'p> Worker<'p> {
    pub(crate) fn new(
        plan: &'p Plan,
        part: usize,
        progress: &'p AtomicU64,
    ) -> Result<Worker<'p>, BenchError> {
        let poll = events::queue()?;
        let timer = Timer::new(poll.registry(), TIMER)
            .map_err(BenchError::machine("could not make a timer"))?;
        Ok(Worker {
            plan,
            part,
            poll,
            timer,
            connections: Slab::new(),
            active: Vec::new(),
            generator: Generator::new(plan, part),
            tally: Tally::new(),
            in_flight: 0,
            input: Vec::new(),
            output: Vec::new(),
            began: Instant::now(),
            last_reply: 0,
            progress,
        })
    }

    /// Opens this thread's share of the connections and logs in on each.
    pub(crate) fn connect(&mut self) -> Result<(), BenchError> {
        self.plan.pin_thread(self.part)?;
        let Worker { plan, part, .. } = *self;
        let active = plan.connections_of(plan.connections, part).map(|n| (n, Role::Active));
        let idle = plan.connections_of(plan.idle, part).map(|n| (n, Role::Idle));
        let mut roles = active.chain(idle);
        let mut opening = 0;
        let mut last_success = Instant::now();
        let mut events = events::room();
        loop {
            while opening < CONNECTING_MAX {
                let Some((number, role)) = roles.next() else { break };
                self.open(number, role)?;
                opening += 1;
            }
            if opening == 0 {
                return Ok(());
            }
            if last_success.elapsed() > CONNECT_WAIT {
                return Err(self.connect_timeout(opening));
            }
            events::wait(&mut self.poll, &mut events, LOOK_AROUND)?;
            for event in events.iter().filter(|event| event.token() != TIMER) {
                let token = event.token().0;
                let Some(connection) = self.connections.get_mut(token) else { continue };
                if connection.state == State::Ready {
                    // An idle connection that the server gave up at once.
                    self.hear_idle(token)?;
                } else if entry::advance(self.plan, connection, &mut self.input)? {
                    opening -= 1;
                    last_success = Instant::now();
                    self.progress.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Carries out one phase; ends when its last request is answered.
    pub(crate) fn run(&mut self, goal: &Goal) -> Result<Cost, BenchError> {
        self.plan.pin_thread(self.part)?;
        let cpu_before = thread_cpu();
        let mut busy = 0;
        let mut events = events::room();
        self.generator.begin(goal.task.clone());
        let start = self.now();
        let end = goal.duration.map_or(u64::MAX, |duration| start + nanos(duration));
        let mut arrivals = match goal.pace {
            Pace::Closed => None,
            Pace::Open(rate) => Some(Arrivals::new(rate, start, self.plan.seed, self.part)),
        };
        self.last_reply = start;
        // What one reply calls for: in a closed loop the next request, in an open one nothing.
        let depth = if arrivals.is_none() { goal.in_flight } else { 0 };
        for token in self.active.clone() {
            self.refill(token, depth, start)?;
        }
        let mut was_over = false;
        loop {
            let now = self.now();
            let sent_before = self.tally.bytes_sent;
            let over = now >= end || self.generator.is_exhausted();
            // Once more in the first turn past the end: what came due since the turn before it.
            if let Some(arrivals) = arrivals.as_mut().filter(|_| !was_over) {
                self.send_due(arrivals, goal.in_flight, now.min(end - 1))?;
            }
            was_over = over;
            if over && self.in_flight == 0 {
                break;
            }
            if now > end.saturating_add(nanos(DRAIN)) {
                self.tally.unanswered += self.in_flight as u64;
                break;
            }
            self.check_stall(now)?;
            let wait = self.patience(now, end, over, arrivals.as_ref())?;
            events::wait(&mut self.poll, &mut events, wait)?;
            let depth = if self.now() < end { depth } else { 0 };
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.handle(event, depth)?;
            }
            if self.tally.bytes_sent != sent_before || !events.is_empty() {
                busy += self.now() - now;
            }
            self.progress.store(self.tally.requests(), Ordering::Relaxed);
        }
        if let (Some(arrivals), Some(_)) = (&mut arrivals, goal.duration) {
            self.tally.unsent += arrivals.due_before(end);
        }
        let elapsed = Duration::from_nanos(self.now() - start);
        Ok(Cost { elapsed, cpu: thread_cpu() - cpu_before, busy: Duration::from_nanos(busy) })
    }

    /// The first refusal of the last phase, in the server's words.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.tally.refusals.first().map(String::as_str)
    }

    fn now(&self) -> u64 {
        nanos(self.began.elapsed())
    }

    /// How long the thread may sleep if nothing comes.
    fn patience(
        &mut self,
        now: u64,
        end: u64,
        over: bool,
        arrivals: Option<&Arrivals>,
    ) -> Result<Duration, BenchError> {
        if self.plan.spin {
            return Ok(Duration::ZERO);
        }
        if over {
            return Ok(LOOK_AROUND);
        }
        if let Some(arrivals) = arrivals {
            // Without a free connection only a reply can help; its event ends the sleep.
            if arrivals.next_at() <= now {
                return Ok(LOOK_AROUND);
            }
            // The timer is good to microseconds, the timeout of epoll to milliseconds.
            self.timer
                .arm(Duration::from_nanos(arrivals.next_at() - now))
                .map_err(BenchError::machine("could not set a timer"))?;
        }
        Ok(LOOK_AROUND.min(Duration::from_nanos(end - now)))
    }

    fn check_stall(&self, now: u64) -> Result<(), BenchError> {
        if self.in_flight == 0 || now.saturating_sub(self.last_reply) < nanos(STALL) {
            return Ok(());
        }
        let waiting = self.connections.iter().find(|(_, c)| c.pipeline.len() > 0);
        let server = waiting.map_or(0, |(_, connection)| connection.server);
        Err(BenchError::Stalled {
            server: self.plan.server_name(server),
            seconds: STALL.as_secs(),
            in_flight: self.in_flight,
        })
    }

    /// Sends every request whose time has come, as long as there are connections free for them.
    fn send_due(
        &mut self,
        arrivals: &mut Arrivals,
        in_flight_max: usize,
        now: u64,
    ) -> Result<(), BenchError> {
        while arrivals.next_at() <= now && !self.generator.is_exhausted() {
            if self.in_flight >= in_flight_max * self.active.len() {
                return Ok(());
            }
            let place = arrivals.take_turn(self.active.len());
            let token = self.active[place];
            if self.connections[token].pipeline.len() >= in_flight_max {
                continue;
            }
            let intended = arrivals.next_at();
            if self.in_flight == 0 {
                // Nothing was owed until now: silence before this says nothing of the server.
                self.last_reply = now;
            }
            let lateness = self.now().saturating_sub(intended);
            self.tally.lateness.saturating_record(lateness);
            arrivals.advance();
            self.refill_at(token, 1, intended)?;
        }
        Ok(())
    }

    /// Brings a connection up to `depth` requests in flight.
    fn refill(&mut self, token: usize, depth: usize, now: u64) -> Result<(), BenchError> {
        let missing = depth.saturating_sub(self.connections[token].pipeline.len());
        if missing == 0 { Ok(()) } else { self.refill_at(token, missing, now) }
    }

    fn refill_at(&mut self, token: usize, count: usize, intended: u64) -> Result<(), BenchError> {
        let connection = &mut self.connections[token];
        self.output.clear();
        for _ in 0..count {
            if !self.generator.next(intended, &mut connection.pipeline, &mut self.output) {
                break;
            }
            self.in_flight += 1;
        }
        if self.output.is_empty() {
            return Ok(());
        }
        self.tally.bytes_sent += self.output.len() as u64;
        match connection.send(&self.output) {
            Ok(()) => Ok(()),
            Err(error) => self.lose(token, error),
        }
    }

    fn handle(&mut self, event: &Event, depth: usize) -> Result<(), BenchError> {
        let token = event.token().0;
        // An earlier event of this turn may have lost it.
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        if connection.role == Role::Idle {
            return self.hear_idle(token);
        }
        if event.is_writable()
            && let Err(error) = connection.flush()
        {
            return self.lose(token, error);
        }
        if !event.is_readable() && !event.is_read_closed() && !event.is_error() {
            return Ok(());
        }
        loop {
            let arrived = match self.connections[token].receive(&mut self.input) {
                Ok(arrived) => arrived,
                Err(error) => return self.lose(token, error),
            };
            if arrived.new > 0 {
                self.take(token, arrived.len, depth)?;
                self.tally.bytes_received += arrived.new as u64;
            }
            if !self.connections.contains(token) {
                return Ok(());
            }
            if arrived.closed {
                return self.lose(token, io::ErrorKind::UnexpectedEof.into());
            }
            // The news of a closed stream comes but once, so then the end must be read, too.
            let end_is_near = event.is_read_closed() && arrived.new > 0;
            if !arrived.more && !end_is_near {
                return Ok(());
            }
        }
    }

    /// Checks the replies at the front of the input and sends what follows them.
    fn take(&mut self, token: usize, len: usize, depth: usize) -> Result<(), BenchError> {
        let now = self.now();
        let connection = &mut self.connections[token];
        let bytes = &self.input[..len];
        let before = connection.pipeline.len();
        let Generator { dialect, ref mut items, .. } = self.generator;
        let taken = connection.pipeline.take(bytes, now, dialect, items, &mut self.tally);
        let consumed = taken.map_err(|_| BenchError::OutOfStep {
            server: self.plan.server_name(connection.server),
            said: said(bytes),
        })?;
        connection.keep(&bytes[consumed..]);
        self.in_flight -= before - connection.pipeline.len();
        self.last_reply = now;
        self.refill(token, depth, now)
    }

    /// A connection that asked nothing has nothing to hear but its end.
    fn hear_idle(&mut self, token: usize) -> Result<(), BenchError> {
        let connection = &mut self.connections[token];
        match connection.receive(&mut self.input) {
            Ok(arrived) if arrived.new > 0 => Err(BenchError::OutOfStep {
                server: self.plan.server_name(connection.server),
                said: said(&self.input[..arrived.len]),
            }),
            Ok(arrived) if !arrived.closed => Ok(()),
            Ok(_) => self.lose(token, io::ErrorKind::UnexpectedEof.into()),
            Err(error) => self.lose(token, error),
        }
    }

    fn lose(&mut self, token: usize, source: io::Error) -> Result<(), BenchError> {
        let connection = self.connections.remove(token);
        self.tally.connections_lost += 1;
        self.tally.unanswered += connection.pipeline.len() as u64;
        self.in_flight -= connection.pipeline.len();
        if connection.role == Role::Idle {
            return Ok(());
        }
        self.active.retain(|&other| other != token);
        if self.active.is_empty() {
            let server = self.plan.server_name(connection.server);
            let hint = match self.plan.login_of(0) {
                None => "; does it want a --username and --password?",
                Some(_) => "",
            };
            return Err(BenchError::AllLost { server, hint, source });
        }
        Ok(())
    }

    fn open(&mut self, number: usize, role: Role) -> Result<(), BenchError> {
        let slot = self.connections.vacant_entry();
        let token = slot.key();
        let registry = self.poll.registry();
        slot.insert(entry::open(self.plan, number, role, registry, Token(token))?);
        if role == Role::Active {
            self.active.push(token);
        }
        Ok(())
    }

    fn connect_timeout(&self, waiting: usize) -> BenchError {
        let late = self.connections.iter().find(|(_, c)| c.state != State::Ready);
        let server = late.map_or(0, |(_, connection)| connection.server);
        let server = self.plan.server_name(server);
        BenchError::ConnectTimeout { server, seconds: CONNECT_WAIT.as_secs(), waiting }
    }
}

fn nanos(duration: Duration) -> u64 {
    // Five hundred years fit.
    duration.as_nanos() as u64
}
