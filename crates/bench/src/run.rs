//! One run from beginning to end: connect, fill, warm up, measure.
//!
//! Every phase ends on all threads before the next begins, and no request is in flight in between.
//! So what a server has used between [`Moment::Measuring`] and [`Moment::Measured`] belongs to the
//! requests of the report and to nothing else.

use crate::args::BenchArgs;
use crate::error::BenchError;
use crate::generator::{Task, items_to_fill};
use crate::handshakes;
use crate::pace::Pace;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Report;
use crate::tally::Tally;
use crate::worker::{Cost, Goal, Worker};
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

/// Where a run has come to; told to whoever watches the server meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// All connections are open and authenticated, nothing else has been asked.
    Connected,
    /// Filled and warmed up; the measured part begins when this returns.
    Measuring,
    /// The last measured request is answered.
    Measured,
}

/// Runs a benchmark; shows its progress if standard error is a terminal.
pub fn run(args: &BenchArgs) -> Result<Report, BenchError> {
    run_observed(args, &mut |_| ())
}

/// Runs a benchmark and tells the observer where it has come to. The connections stay open while
/// the observer looks.
pub fn run_observed(
    args: &BenchArgs,
    observe: &mut dyn FnMut(Moment),
) -> Result<Report, BenchError> {
    let plan = Plan::check(args)?;
    if let Some(how) = plan.handshakes {
        return handshakes::run(&plan, how, observe);
    }
    let counts: Vec<AtomicU64> = (0..plan.threads).map(|_| AtomicU64::new(0)).collect();
    let mut workers = counts
        .iter()
        .enumerate()
        .map(|(part, count)| Worker::new(&plan, part, count))
        .collect::<Result<Vec<_>, _>>()?;

    let progress = Progress::new(&counts);
    let connections = (plan.connections + plan.idle) as u64;
    progress.phase("connecting", Some(connections), || each(&mut workers, Worker::connect))?;
    observe(Moment::Connected);
    if plan.fill {
        let total = items_to_fill(&plan);
        progress.phase("filling", Some(total), || fill(&plan, &mut workers))?;
    }
    if !plan.warm_up.is_zero() {
        let goal = |_| mixed(&plan, Some(plan.warm_up), u64::MAX);
        progress.phase("warming up", None, || all(&mut workers, &goal))?;
    }
    for worker in &mut workers {
        worker.tally = Tally::new();
    }
    observe(Moment::Measuring);
    let goal = |part| mixed(&plan, plan.duration, plan.requests_of(part));
    let costs = progress.phase("measuring", plan.requests, || all(&mut workers, &goal))?;
    observe(Moment::Measured);

    let mut tally = Tally::new();
    workers.iter().for_each(|worker| tally.add(&worker.tally));
    Ok(Report::new(&tally, &costs, plan.spin))
}

/// The goal of each thread for a part of the run that is made of the mix.
fn mixed(plan: &Plan, duration: Option<Duration>, requests: u64) -> Goal {
    let Plan { pace, in_flight, .. } = *plan;
    Goal { task: Task::Mix(requests), duration, pace, in_flight }
}

fn fill(plan: &Plan, workers: &mut [Worker<'_>]) -> Result<(), BenchError> {
    let total = items_to_fill(plan);
    let parts = plan.threads as u64;
    let in_flight = match plan.tls {
        // memcached before 1.6.39 can forget a set that came right behind another one over TLS.
        Some(_) => 1,
        None => (FILL_BYTES_IN_FLIGHT / plan.value_size.max().max(1) as usize)
            .clamp(1, FILL_IN_FLIGHT_MAX),
    };
    let filled = all(workers, &|part| {
        let part = part as u64;
        let places = total * part / parts..total * (part + 1) / parts;
        Goal { task: Task::Fill(places), duration: None, pace: Pace::Closed, in_flight }
    });
    // First the refusal: it explains whatever else went wrong.
    match workers.iter().find_map(Worker::refusal) {
        Some(said) => Err(BenchError::FillRefused { said: said.to_owned(), hint: fill_hint(said) }),
        None => filled.map(drop),
    }
}

/// The first fill keeps so much under way on each connection, in bytes and in requests: enough to
/// be quick, little enough for every server's limits.
const FILL_BYTES_IN_FLIGHT: usize = 64 * 1024;
const FILL_IN_FLIGHT_MAX: usize = 32;

fn fill_hint(said: &str) -> &'static str {
    let said = said.to_ascii_lowercase();
    if said.contains("auth") {
        "; pass --username and --password"
    } else if said.contains("large") {
        "; choose a smaller --value-size"
    } else {
        ""
    }
}

fn all(
    workers: &mut [Worker<'_>],
    goal: &(impl Fn(usize) -> Goal + Sync),
) -> Result<Vec<Cost>, BenchError> {
    each_numbered(workers, |part, worker| worker.run(&goal(part)))
}

fn each<'p, T: Send>(
    workers: &mut [Worker<'p>],
    act: impl Fn(&mut Worker<'p>) -> Result<T, BenchError> + Sync,
) -> Result<Vec<T>, BenchError> {
    each_numbered(workers, |_, worker| act(worker))
}

/// Does something on all workers at once, each on a thread of its own.
fn each_numbered<'p, T: Send>(
    workers: &mut [Worker<'p>],
    act: impl Fn(usize, &mut Worker<'p>) -> Result<T, BenchError> + Sync,
) -> Result<Vec<T>, BenchError> {
    let act = &act;
    thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .enumerate()
            .map(|(part, worker)| scope.spawn(move || act(part, worker)))
            .collect();
        threads.into_iter().map(join).collect()
    })
}

/// Waits for a thread; if it panicked, so does the caller.
pub(crate) fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
