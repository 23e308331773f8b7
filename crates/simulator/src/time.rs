//! The simulation's only clock: microseconds since its beginning.

use std::time::Duration;

/// Microseconds since the simulation began.
pub type Micros = u64;

pub const MILLISECOND: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

pub(crate) const fn micros(duration: Duration) -> Micros {
    duration.as_secs() * SECOND + duration.subsec_micros() as Micros
}

/// Seconds and milliseconds, for people.
pub fn shown(at: Micros) -> String {
    format!("{:>4}.{:06}", at / SECOND, at % SECOND)
}
