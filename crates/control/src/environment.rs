//! Time and chance, handed in by the program, so that tests decide what they are.

use std::io;
use std::sync::Arc;

use crate::model::UnixSeconds;

/// Where this control plane gets the time and random bytes from.
#[derive(Clone)]
pub struct Environment {
    now: Arc<dyn Fn() -> UnixSeconds + Send + Sync>,
    random: Arc<Random>,
}

/// Fills a buffer with random bytes.
type Random = dyn Fn(&mut [u8]) -> io::Result<()> + Send + Sync;

impl Environment {
    /// `random` must be fit for secrets: a program passes its operating system's.
    pub fn new(
        now: impl Fn() -> UnixSeconds + Send + Sync + 'static,
        random: impl Fn(&mut [u8]) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Environment { now: Arc::new(now), random: Arc::new(random) }
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        (self.now)()
    }

    pub(crate) fn random<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        (self.random)(&mut bytes)?;
        Ok(bytes)
    }
}
