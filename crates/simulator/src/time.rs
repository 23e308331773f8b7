//! The simulation's only clock: microseconds since its beginning.

/// Microseconds since the simulation began.
pub type Micros = u64;

pub const MILLISECOND: Micros = 1_000;
pub const SECOND: Micros = 1_000_000;

/// Seconds and milliseconds, for people.
pub fn shown(at: Micros) -> String {
    format!("{:>4}.{:06}", at / SECOND, at % SECOND)
}
