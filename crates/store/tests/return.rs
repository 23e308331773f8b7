//! Memory that nobody holds goes back to the system. Alone in its program, because it looks at the
//! memory of the whole process.

use store::operation::{Expiry, GetArgs, Seconds, StoreArgs};
use store::store::{Cache, CacheLimits, Settings, Store};
use tenancy::id::CacheId;

const MIB: u64 = 1 << 20;
const LIMITS: CacheLimits = CacheLimits { memory_bytes: 256 * MIB, item_bytes_max: 1 << 20 };
const ITEMS: u64 = 200_000;

fn fill(cache: &Cache, byte: u8) {
    let value = [byte; 1_000];
    for number in 0..ITEMS {
        let set = StoreArgs::set(&value, 0, Expiry::Never);
        cache.store(&cache.locate(&number.to_le_bytes()), set, Seconds(1));
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri's memory is not the system's")]
fn what_a_removed_cache_held_goes_back_to_the_system() {
    let store = Store::new(Settings { memory_bytes: 512 * MIB, seed: 7 });
    let cache = store.create_cache(CacheId::new(1), LIMITS).expect("it is the only cache");
    let before = resident_bytes();
    fill(&cache, 9);
    let held = cache.stats().held_bytes;
    let grown = resident_bytes() - before;
    assert!(held > 190 * MIB && grown > held * 9 / 10, "{held} bytes held, {grown} resident");
    drop(cache);
    store.remove_cache(CacheId::new(1));
    while store.maintain(Seconds(2), 1_000) {}
    let left = resident_bytes().saturating_sub(before);
    // Some is kept for who comes next.
    assert!(left < 48 * MIB, "{left} bytes of {grown} stayed");

    // What comes again is as good as new.
    let cache = store.create_cache(CacheId::new(2), LIMITS).expect("its memory was given back");
    fill(&cache, 7);
    for number in 0..ITEMS {
        let key = number.to_le_bytes();
        cache.get(&cache.locate(&key), GetArgs::default(), Seconds(3), |hit| {
            assert_eq!(hit.expect("all of them fit").value, [7; 1_000]);
        });
    }
}

/// Memory of this process that is in RAM.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("the second figure is resident pages") * 4_096
}
