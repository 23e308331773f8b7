//! When to stop, and when to read files again.
//!
//! ```text
//!  SIGTERM, SIGINT ──▶ drain: finish what is begun, take nothing new     every loop is woken once
//!        a second one ──▶ exit at once
//!  SIGHUP ──▶ reload: certificates are read again
//! ```
//!
//! Loops over epoll hear of it by a callback that wakes them; tasks await [`Shutdown::draining`].
//! Neither this nor they need to know each other's runtime.

use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The process's wish to stop. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Shutdown {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    draining: bool,
    on_drain: Vec<Box<dyn FnOnce() + Send>>,
    on_reload: Vec<Arc<dyn Fn() + Send + Sync>>,
    /// Tasks in [`Draining`], by the number each was given.
    waiting: Vec<(u64, Waker)>,
    waiting_last: u64,
}

impl Shutdown {
    /// Hears signals from now on, on a thread of its own. Call once, before other threads start.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Shutdown::default();
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let heard = shutdown.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGHUP => heard.reload(),
                    // Whoever asks twice is tired of waiting. The code is the shell's for a
                    // process that a signal ended.
                    _ if heard.is_draining() => std::process::exit(128 + signal),
                    _ => heard.drain(),
                }
            }
        })?;
        Ok(shutdown)
    }

    /// Begins to drain, as the first signal does. Again it does nothing.
    pub fn drain(&self) {
        let mut state = self.state();
        state.draining = true;
        let callbacks = mem::take(&mut state.on_drain);
        let waiting = mem::take(&mut state.waiting);
        // Whoever is woken may look here at once.
        drop(state);
        callbacks.into_iter().for_each(|callback| callback());
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Begins to drain when nobody holds the other end of standard input any more: for a process that
    /// shall not outlive the one that started it, however that one ends.
    pub fn drain_when_stdin_ends(&self) -> io::Result<()> {
        let heard = self.clone();
        let wait = move || {
            // What is written there is nothing to us, and a failure is an end as well.
            drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
            heard.drain();
        };
        std::thread::Builder::new().name("stdin".to_owned()).spawn(wait).map(drop)
    }

    /// Has files read again, as SIGHUP does.
    pub fn reload(&self) {
        let callbacks = self.state().on_reload.clone();
        callbacks.iter().for_each(|callback| callback());
    }

    pub fn is_draining(&self) -> bool {
        self.state().draining
    }

    /// Calls `act` once when draining begins, at once if it has begun. It runs on the thread that
    /// hears signals and holds up the next one, so it shall be quick: wake a loop, set a flag.
    pub fn on_drain(&self, act: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.draining {
            drop(state);
            act();
        } else {
            state.on_drain.push(Box::new(act));
        }
    }

    /// Calls `act` on each SIGHUP, on the thread that hears signals.
    pub fn on_reload(&self, act: impl Fn() + Send + Sync + 'static) {
        self.state().on_reload.push(Arc::new(act));
    }

    /// Completes when draining begins. Needs no particular runtime.
    pub fn draining(&self) -> Draining {
        let mut state = self.state();
        state.waiting_last += 1;
        Draining { shutdown: self.clone(), number: state.waiting_last }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing that can panic happens while it is locked")
    }
}

/// See [`Shutdown::draining`].
#[must_use = "a future does nothing unless awaited"]
pub struct Draining {
    shutdown: Shutdown,
    number: u64,
}

impl Future for Draining {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shutdown.state();
        if state.draining {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        match state.waiting.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, old)) => *old = waker,
            None => state.waiting.push((self.number, waker)),
        }
        Poll::Pending
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.shutdown.state().waiting.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::Shutdown;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counted(count: &Arc<Count>) -> impl Fn() + Send + Sync + 'static {
        let count = Arc::clone(count);
        move || Arc::clone(&count).wake()
    }

    #[test]
    fn draining_wakes_each_once() {
        let shutdown = Shutdown::default();
        let (before, after) = (Arc::<Count>::default(), Arc::<Count>::default());
        shutdown.on_drain(counted(&before));
        assert!(!shutdown.is_draining());
        shutdown.drain();
        shutdown.clone().drain();
        assert!(shutdown.is_draining());
        shutdown.on_drain(counted(&after));
        assert_eq!((before.get(), after.get()), (1, 1));
    }

    #[test]
    fn who_is_called_may_look_back() {
        let shutdown = Shutdown::default();
        let (inner, count) = (shutdown.clone(), Arc::<Count>::default());
        let counted = counted(&count);
        shutdown.on_drain(move || {
            assert!(inner.is_draining());
            inner.on_drain(counted);
        });
        shutdown.drain();
        assert_eq!(count.get(), 1);
    }

    #[test]
    fn reloading_wakes_each_every_time() {
        let shutdown = Shutdown::default();
        let count = Arc::<Count>::default();
        shutdown.on_reload(counted(&count));
        shutdown.reload();
        shutdown.reload();
        assert_eq!(count.get(), 2);
    }

    #[test]
    fn a_task_is_woken_when_draining_begins() {
        let shutdown = Shutdown::default();
        let count = Arc::<Count>::default();
        let waker = Arc::clone(&count).into();
        let mut context = Context::from_waker(&waker);
        let mut task = pin!(shutdown.draining());
        assert_eq!(task.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(task.as_mut().poll(&mut context), Poll::Pending);
        shutdown.drain();
        assert_eq!(count.get(), 1);
        assert_eq!(task.as_mut().poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn a_task_that_gave_up_is_forgotten() {
        let shutdown = Shutdown::default();
        let count = Arc::<Count>::default();
        let waker = Arc::clone(&count).into();
        {
            let mut task = pin!(shutdown.draining());
            assert_eq!(task.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        }
        shutdown.drain();
        assert_eq!(count.get(), 0);
    }
}
