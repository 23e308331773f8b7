//! Items in a map: what the operations mean, said as simply as can be.

use std::collections::HashMap;

use protocol::operation::{
    Arithmetic, ArithmeticOutcome, Delete, DeleteOutcome, Direction, Exptime, Get, Hit, Key, Lease,
    Store, StoreMode, StoreOutcome, Touch, TouchOutcome,
};

/// The clock stands still here, in 2027.
const NOW: i64 = 1_800_000_000;

const RELATIVE_SECONDS_MAX: i64 = 60 * 60 * 24 * 30;

#[derive(Default)]
pub(crate) struct Items {
    items: HashMap<Vec<u8>, Item>,
    cas: u64,
}

#[derive(Clone, Default)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    cas: u64,
    expires_at: Option<i64>,
    read: bool,
    stale: bool,
    /// Somebody has been told to refill it.
    won: bool,
}

fn expires_at(exptime: Exptime) -> Option<i64> {
    match exptime.0 {
        0 => None,
        ..0 => Some(NOW),
        seconds if seconds <= RELATIVE_SECONDS_MAX => Some(NOW + seconds),
        at => Some(at),
    }
}

impl Item {
    fn hit(&self, lease: Lease) -> Hit<'_> {
        Hit {
            value: &self.value,
            flags: self.flags,
            cas: self.cas,
            ttl_seconds: self.expires_at.map(|at| u32::try_from(at - NOW).unwrap_or(0)),
            read_before: self.read,
            idle_seconds: 0,
            lease,
        }
    }

    fn has_expired(&self) -> bool {
        self.expires_at.is_some_and(|at| at <= NOW)
    }
}

impl Items {
    pub(crate) fn clear(&mut self) {
        self.items.clear();
    }

    pub(crate) fn forget(&mut self, key: Key<'_>) {
        self.items.remove(key.bytes());
    }

    fn next_cas(&mut self, given: Option<u64>) -> u64 {
        self.cas += 1;
        given.unwrap_or(self.cas)
    }

    fn live(&mut self, key: Key<'_>) -> Option<&mut Item> {
        if self.items.get(key.bytes()).is_some_and(Item::has_expired) {
            self.items.remove(key.bytes());
        }
        self.items.get_mut(key.bytes())
    }

    pub(crate) fn get(&mut self, get: &Get<'_>) -> Option<Hit<'_>> {
        if self.live(get.key).is_none() {
            let exptime = get.vivify?;
            let cas = self.next_cas(get.new_cas);
            let item = Item {
                cas,
                expires_at: expires_at(exptime),
                read: !get.unseen,
                won: true,
                ..Item::default()
            };
            let item = self.items.entry(get.key.bytes().to_vec()).insert_entry(item).into_mut();
            let lease = Lease { won: true, ..Lease::default() };
            return Some(Hit { read_before: false, ..item.hit(lease) });
        }
        let item = self.live(get.key).expect("it was there just now");
        let lease = Lease {
            taken: item.won,
            stale: item.stale,
            won: get.leases
                && !item.won
                && (item.stale
                    || get.recache_below_seconds.is_some_and(|seconds| {
                        item.expires_at.is_some_and(|at| at - NOW < seconds)
                    })),
        };
        item.won |= lease.won;
        if let Some(exptime) = get.touch {
            item.expires_at = expires_at(exptime);
        }
        let read_before = item.read;
        item.read |= !get.unseen;
        Some(Hit { read_before, ..item.hit(lease) })
    }

    pub(crate) fn peek(&mut self, key: Key<'_>) -> Option<Hit<'_>> {
        self.live(key).map(|item| item.hit(Lease::default()))
    }

    pub(crate) fn store(&mut self, store: &Store<'_>) -> StoreOutcome {
        let cas = self.next_cas(store.new_cas);
        let mut new = Item {
            value: store.value.to_vec(),
            flags: store.flags,
            cas,
            expires_at: expires_at(store.exptime),
            ..Item::default()
        };
        let grows = matches!(store.mode, StoreMode::Append | StoreMode::Prepend);
        match (self.live(store.key), store.compare_cas) {
            (Some(old), compare_cas) => {
                match store.mode {
                    StoreMode::Add => return StoreOutcome::NotStored,
                    StoreMode::Set | StoreMode::Replace => (),
                    StoreMode::Append => new.value = [&old.value, store.value].concat(),
                    StoreMode::Prepend => new.value = [store.value, &old.value].concat(),
                }
                if grows {
                    new.flags = old.flags;
                    new.expires_at = old.expires_at;
                }
                match compare_cas {
                    Some(compared) if compared == old.cas => (),
                    Some(compared) if store.invalidate && compared != 0 && compared < old.cas => {
                        new.stale = true;
                        new.won = old.won;
                        new.expires_at = old.expires_at;
                    }
                    Some(_) => return StoreOutcome::Exists,
                    None => (),
                }
            }
            (None, _) if grows => match store.vivify {
                Some(exptime) => new.expires_at = expires_at(exptime),
                None => return StoreOutcome::NotStored,
            },
            (None, Some(_)) => return StoreOutcome::NotFound,
            (None, None) if store.mode == StoreMode::Replace => return StoreOutcome::NotStored,
            (None, None) => (),
        }
        let value_bytes = u32::try_from(new.value.len()).expect("transcripts are short");
        self.items.insert(store.key.bytes().to_vec(), new);
        StoreOutcome::Stored { cas, value_bytes }
    }

    pub(crate) fn delete(&mut self, delete: &Delete<'_>) -> DeleteOutcome {
        let new_cas = self.next_cas(delete.new_cas);
        let Some(item) = self.live(delete.key) else {
            return DeleteOutcome::NotFound;
        };
        if delete.compare_cas.is_some_and(|cas| cas != item.cas) {
            return DeleteOutcome::Exists;
        }
        if delete.remove_value {
            item.value.clear();
            item.flags = 0;
            item.expires_at = delete.touch.and_then(expires_at);
            item.cas = delete.new_cas.unwrap_or(item.cas);
        }
        if delete.invalidate {
            item.stale = true;
            item.won = false;
            item.cas = new_cas;
            if let Some(exptime) = delete.touch {
                item.expires_at = expires_at(exptime);
            }
        } else if !delete.remove_value {
            self.items.remove(delete.key.bytes());
        }
        DeleteOutcome::Deleted
    }

    pub(crate) fn count(&mut self, count: &Arithmetic<'_>) -> ArithmeticOutcome {
        let cas = self.next_cas(count.new_cas);
        let Some(item) = self.live(count.key) else {
            let Some(initial) = count.initial else {
                return ArithmeticOutcome::NotFound;
            };
            let item = Item {
                value: initial.number.to_string().into_bytes(),
                cas,
                expires_at: expires_at(initial.exptime),
                ..Item::default()
            };
            let ttl_seconds = item.hit(Lease::default()).ttl_seconds;
            self.items.insert(count.key.bytes().to_vec(), item);
            return ArithmeticOutcome::Counted { number: initial.number, cas, ttl_seconds };
        };
        // memcached keeps longer ones in pieces, and counts none of these.
        if !(1..=512 << 10).contains(&item.value.len()) {
            return ArithmeticOutcome::NotNumeric;
        }
        if count.compare_cas.is_some_and(|cas| cas != item.cas) {
            return ArithmeticOutcome::Exists;
        }
        let text = String::from_utf8_lossy(&item.value);
        let Ok(old) = text.trim_end_matches(' ').parse::<u64>() else {
            return ArithmeticOutcome::NotNumeric;
        };
        let number = match count.direction {
            Direction::Increment => old.wrapping_add(count.delta),
            Direction::Decrement => old.saturating_sub(count.delta),
        };
        // As in memcached, a number that got shorter is padded, not moved.
        item.value = format!("{number:<width$}", width = item.value.len()).into_bytes();
        item.cas = cas;
        if let Some(exptime) = count.touch {
            item.expires_at = expires_at(exptime);
        }
        let ttl_seconds = item.hit(Lease::default()).ttl_seconds;
        ArithmeticOutcome::Counted { number, cas, ttl_seconds }
    }

    pub(crate) fn touch(&mut self, touch: &Touch<'_>) -> TouchOutcome {
        match self.live(touch.key) {
            Some(item) => {
                item.expires_at = expires_at(touch.exptime);
                item.read = true;
                TouchOutcome::Touched { cas: item.cas, flags: item.flags }
            }
            None => TouchOutcome::NotFound,
        }
    }
}
