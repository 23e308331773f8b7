//! Where clients come from: the connections that are open, by cache and address.
//!
//! Kept as connections come, authenticate and go, so that a question costs those who serve nothing. In
//! parts, each with its lock, so that event loops seldom meet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tenancy::id::CacheId;
use tenancy::rules::Open;

/// Some more than there are event loops on a large machine.
const PARTS: usize = 64;

/// What one connection counts under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    /// `None` before it has authenticated.
    pub(crate) cache: Option<CacheId>,
    pub(crate) address: IpAddr,
}

/// Connections of one proxy process, shared by its event loops.
#[derive(Debug)]
pub(crate) struct Origins([Mutex<HashMap<Origin, u32>>; PARTS]);

impl Default for Origins {
    fn default() -> Self {
        Origins(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Origins {
    pub(crate) fn open(&self) -> Vec<Open> {
        let mut open = Vec::new();
        for part in &self.0 {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            open.extend(part.iter().map(|(&Origin { cache, address }, &connections)| Open {
                cache,
                address,
                connections,
            }));
        }
        open
    }

    pub(crate) fn enter(&self, origin: Origin) {
        *self.part(&origin).entry(origin).or_default() += 1;
    }

    /// Takes back one [`Origins::enter`].
    pub(crate) fn leave(&self, origin: Origin) {
        let mut part = self.part(&origin);
        let Entry::Occupied(mut count) = part.entry(origin) else {
            debug_assert!(false, "left without having entered");
            return;
        };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }

    fn part(&self, origin: &Origin) -> MutexGuard<'_, HashMap<Origin, u32>> {
        let last = match origin.address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        // Whoever panicked had not changed anything, or had done so wholly.
        self.0[usize::from(last) % PARTS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
