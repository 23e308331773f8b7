//! Expiry times and delays whose effect does not depend on when in a second a command arrives.
//!
//! memcached's clock is a number of seconds that a timer sets, about once in a second and now and then
//! two steps at once; Larder's is exact. So a time is either so far ahead that no run reaches it, or
//! past, or ([`Near`](Times::Near)) surely ahead for as long as a round takes and surely past when the
//! next one begins.

use crate::differential::command::Command;
use crate::differential::random::Random;
use std::time::Duration;

/// Which times a sequence uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// None that comes to pass.
    Far,
    /// Some that come to pass between two rounds.
    Near,
}

/// Longest that a round with [`Times::Near`] may take for it to be judged.
pub const ROUND_MAX: Duration = Duration::from_secs(1);

/// From the end of one round with [`Times::Near`] to the beginning of the next. After it all of
/// [`NEAR_SECONDS`] are past, even for a clock that is late by one step of two seconds.
pub const PAUSE: Duration = Duration::from_millis(6_500);

/// Beyond a round and one step of memcached's clock that takes two seconds.
const NEAR_SECONDS: [u32; 2] = [3, 4];

const _: () = assert!(ROUND_MAX.as_secs() + 2 <= NEAR_SECONDS[0] as u64);
const _: () = assert!(NEAR_SECONDS[1] as u64 * 1_000 + 2_000 < PAUSE.as_millis() as u64);

/// A moment after 2038 as Larder is told it. memcached, whose times end there, is told the last moment
/// that it knows.
const LATE: [&str; 2] = ["2147483647", "4102444800"];

/// By how much the two tell different times left for an item that was given [`LATE`].
pub const LATE_APART_SECONDS: u64 = 4_102_444_800 - 2_147_483_647;

const FAR: &[&str] = &["0", "0", "0", "0", "100", "2592000", "2592001", "-1", "-100", "2147483647"];
const ODD: &[&str] = &["00100", "0000000000", "-2147483648", "-2"];
const NEAR: &[&str] = &["0", "0", "3", "3", "4", "4", "100", "-1"];

/// Those that leave an item alive: what memcached tells of one that has just been ended is chance.
const FAR_AHEAD: &[&str] = &["0", "0", "100", "2592000", "2147483647"];
const NEAR_AHEAD: &[&str] = &["0", "3", "4", "100"];

/// Adds a time, with nothing around it.
pub fn any(random: &mut Random, command: &mut Command) {
    match (random.times, random.below(20)) {
        (Times::Near, _) => command.push(random.pick(NEAR)),
        (Times::Far, 0) => command.each(LATE[0], LATE[1]),
        (Times::Far, 1) => command.push(random.pick(ODD)),
        (Times::Far, _) => command.push(random.pick(FAR)),
    }
}

/// Adds a time that leaves an item alive for the rest of the round.
pub fn ahead(random: &mut Random, command: &mut Command) {
    match (random.times, random.below(20)) {
        (Times::Near, _) => command.push(random.pick(NEAR_AHEAD)),
        (Times::Far, 0) => command.each(LATE[0], LATE[1]),
        (Times::Far, _) => command.push(random.pick(FAR_AHEAD)),
    }
}

/// A time for a binary frame, where it has no sign.
pub fn binary(random: &mut Random) -> u32 {
    const FAR: &[u32] =
        &[0, 0, 0, 100, 2_592_000, 2_592_001, 2_147_483_647, 2_147_483_648, 4_294_967_294];
    const NEAR: &[u32] = &[0, 3, 4, 100];
    let among = match random.times {
        Times::Far => FAR,
        Times::Near => NEAR,
    };
    among[random.below(among.len())]
}

/// Which flushes a batch has. Not both: in memcached one with a delay takes back what the flush
/// before it did to items that it has not yet met again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushes {
    None,
    AtOnce,
    Delayed,
}

/// The delay of a flush, with what comes before and after it in the line.
pub fn flush_words(random: &mut Random) -> Option<&'static str> {
    const AT_ONCE: &[&str] =
        &["", " 0", " noreply", " 0 noreply", " x", " -1", " -100 noreply", " 00"];
    const FAR: &[&str] = &[" 100", " 100 noreply", " 2592000", " 2147483647", " 0100", " x"];
    const NEAR: &[&str] = &[" 4", " 4 noreply", " 100"];
    match (random.flushes, random.times) {
        (Flushes::None, _) => None,
        (Flushes::AtOnce, _) => Some(random.pick(AT_ONCE)),
        (Flushes::Delayed, Times::Far) => Some(random.pick(FAR)),
        (Flushes::Delayed, Times::Near) => Some(random.pick(NEAR)),
    }
}

/// The same as extras of a binary frame.
pub fn flush_extras(random: &mut Random) -> Option<Vec<u8>> {
    let delay: u32 = match (random.flushes, random.times) {
        (Flushes::None, _) => return None,
        (Flushes::AtOnce, _) if random.once_in(2) => return Some(Vec::new()),
        (Flushes::AtOnce, _) => 0,
        (Flushes::Delayed, Times::Far) => 2_592_000,
        (Flushes::Delayed, Times::Near) => 4,
    };
    Some(delay.to_be_bytes().to_vec())
}
