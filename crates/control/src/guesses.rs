//! Slows down whoever guesses passwords: after a few failures an address waits before it may try again.
//!
//! Passwords made here have 160 random bits, so nobody finds one by guessing; the limit keeps the log
//! and the processor free, and protects the passwords that people choose for themselves. It is kept for
//! each address and username together, so that one script with an old password does not lock out its
//! neighbours behind the same gateway, and, more generously, for each address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::model::UnixSeconds;

/// Failures in a row that are a slip: someone pastes the wrong line, a script is started again.
const OF_ONE_NAME: u32 = 10;
/// Failures from one address, whatever the name: an office behind one gateway.
const OF_ONE_ADDRESS: u32 = 100;
/// One failure is forgotten in so many seconds.
const FORGET_SECONDS: u64 = 6;
/// Guessers remembered: about 2 MB. Whoever has more addresses than this is not stopped by a limit.
const GUESSERS_MAX: usize = 20_000;

/// Who tries: an address, and under which name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Guesser {
    network: IpAddr,
    name: Option<Box<[u8]>>,
}

/// Names longer than any of ours count as one.
const NAME_BYTES_MAX: usize = 64;

impl Guesser {
    pub(crate) fn new(address: IpAddr, name: &[u8]) -> Self {
        let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
        Guesser { network: network(address), name: Some(name.into()) }
    }

    fn without_name(&self) -> Self {
        Guesser { network: self.network, name: None }
    }
}

/// One customer of a provider has a whole /64 to himself (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        },
        IpAddr::V4(_) => address,
    }
}

/// The failures of late.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    failures: HashMap<Guesser, Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    /// When `count` was right; since then some were forgotten.
    at: UnixSeconds,
}

impl Failures {
    fn count(self, now: UnixSeconds) -> u32 {
        let forgotten = now.0.saturating_sub(self.at.0) / FORGET_SECONDS;
        self.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }
}

impl Guesses {
    /// Whether a password may be looked at; otherwise the seconds to wait.
    pub(crate) fn may_try(&self, who: &Guesser, now: UnixSeconds) -> Result<(), u64> {
        let limits = [(who, OF_ONE_NAME), (&who.without_name(), OF_ONE_ADDRESS)];
        let full = limits.iter().any(|(who, limit)| self.count(who, now) >= *limit);
        if full { Err(FORGET_SECONDS) } else { Ok(()) }
    }

    pub(crate) fn failed(&mut self, who: &Guesser, now: UnixSeconds) {
        if self.failures.len() >= GUESSERS_MAX {
            self.failures.retain(|_, failures| failures.count(now) > 0);
        }
        if self.failures.len() >= GUESSERS_MAX {
            self.failures.clear();
        }
        for who in [who.without_name(), who.clone()] {
            let count = self.count(&who, now).saturating_add(1);
            self.failures.insert(who, Failures { count, at: now });
        }
    }

    fn count(&self, who: &Guesser, now: UnixSeconds) -> u32 {
        self.failures.get(who).map_or(0, |failures| failures.count(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann(address: &str) -> Guesser {
        Guesser::new(address.parse().expect("an address"), b"ann")
    }

    #[test]
    fn after_some_failures_one_waits_and_then_may_try_again() {
        let (mut guesses, start) = (Guesses::default(), UnixSeconds(1_000));
        for _ in 0..OF_ONE_NAME {
            assert_eq!(guesses.may_try(&ann("192.0.2.1"), start), Ok(()));
            guesses.failed(&ann("192.0.2.1"), start);
        }
        assert_eq!(guesses.may_try(&ann("192.0.2.1"), start), Err(FORGET_SECONDS));
        assert_eq!(guesses.may_try(&ann("192.0.2.2"), start), Ok(()), "another address");
        let later = UnixSeconds(start.0 + FORGET_SECONDS);
        assert_eq!(guesses.may_try(&ann("192.0.2.1"), later), Ok(()));
        guesses.failed(&ann("192.0.2.1"), later);
        assert!(guesses.may_try(&ann("192.0.2.1"), later).is_err(), "only one was forgotten");
    }

    #[test]
    fn many_names_from_one_address_are_one_guesser() {
        let (mut guesses, now) = (Guesses::default(), UnixSeconds(1_000));
        let of = |name: u32| {
            Guesser::new("2001:db8::7".parse().expect("an address"), &name.to_le_bytes())
        };
        (0..OF_ONE_ADDRESS).for_each(|name| guesses.failed(&of(name), now));
        assert!(guesses.may_try(&of(OF_ONE_ADDRESS), now).is_err());
        let neighbour = Guesser::new("2001:db8::8".parse().expect("an address"), b"x");
        assert!(guesses.may_try(&neighbour, now).is_err(), "the same network");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut guesses, now) = (Guesses::default(), UnixSeconds(1_000));
        for name in 0..2 * GUESSERS_MAX as u64 {
            let address = IpAddr::V6(Ipv6Addr::from_bits(u128::from(name) << 64));
            guesses.failed(&Guesser::new(address, b"x"), now);
        }
        assert!(guesses.failures.len() <= GUESSERS_MAX + 1);
    }
}
