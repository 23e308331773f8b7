//! What placement costs: a table when members change, a slot for every request.

use std::hint::black_box;

use cluster::member::{Member, MemberName, Members, Weight};
use cluster::scheme::Scheme;
use cluster::slot::{SlotHasher, SlotKey};
use criterion::{Criterion, criterion_group, criterion_main};
use tenancy::id::CacheId;

fn placement(c: &mut Criterion) {
    for count in [3, 9, 24, 100] {
        let members = members(count);
        c.bench_function(&format!("Maglev table of {count} members"), |b| {
            b.iter(|| Scheme::Maglev.place(black_box(&members)));
        });
    }
    let members = members(9);
    c.bench_function("table of a ring, 9 members of 100 points", |b| {
        b.iter(|| Scheme::Ring { points: 100 }.place(black_box(&members)));
    });
    let hasher = SlotHasher::new(&SlotKey::new([7; 16]));
    for bytes in [8, 30, 250] {
        let key = vec![b'k'; bytes];
        c.bench_function(&format!("slot of a key of {bytes} bytes"), |b| {
            b.iter(|| hasher.slot(CacheId::new(1), black_box(&key)));
        });
    }
}

fn members(count: u32) -> Members {
    let member = |number| Member {
        name: MemberName::parse(&format!("backend-{number}")).expect("a good name"),
        weight: Weight::new(4_096),
    };
    Members::new((0..count).map(member)).expect("few members, each with a weight")
}

criterion_group!(benches, placement);
criterion_main!(benches);
