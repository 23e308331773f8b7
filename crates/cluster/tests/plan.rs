//! What the planner says of each change, and that its moves add up.

use cluster::member::{InvalidMembers, Member, MemberName, Members, Weight};
use cluster::plan::{Change, Plan, PlanError, plan};
use cluster::scheme::Scheme;
use cluster::table::Table;

#[test]
fn joining_moves_a_share_to_the_newcomer_and_little_else() {
    let plan = check(9, Change::Join(member("n10", 100)));
    assert!((0.100..0.106).contains(&plan.share_moved()), "{}", plan.share_moved());
    let to_newcomer: f64 =
        plan.moves.iter().filter(|each| each.to == name("n10")).map(|each| each.share()).sum();
    assert!((to_newcomer - 0.1).abs() < 1e-4);
    // Everyone gives to the newcomer.
    let givers = plan.moves.iter().filter(|each| each.to == name("n10")).count();
    assert_eq!(givers, 9);
}

#[test]
fn draining_moves_all_of_a_member_and_removing_it_then_moves_nothing() {
    let drain = check(9, Change::Drain(name("n4")));
    assert!((0.111..0.118).contains(&drain.share_moved()), "{}", drain.share_moved());
    let index = drain.table.index_of(&name("n4")).expect("drained, but a member still");
    assert_eq!(drain.table.slot_counts()[index.index()], 0);

    let change = Change::Remove(name("n4"));
    let remove = plan(drain.scheme, &drain.members, &drain.table, &change).expect("a member");
    assert_eq!(remove.moves, []);
    assert_eq!(remove.table.index_of(&name("n4")), None);
}

#[test]
fn removing_without_draining_moves_what_draining_would() {
    let remove = check(9, Change::Remove(name("n4")));
    let drain = check(9, Change::Drain(name("n4")));
    assert_eq!(remove.moves, drain.moves);
}

#[test]
fn replacing_moves_nothing() {
    let plan = check(9, Change::Replace(name("n4")));
    assert_eq!(plan.moves, []);
    let (_, _, table) = cluster(9);
    assert_eq!(plan.table.digest(), table.digest());
}

#[test]
fn a_heavier_member_takes_its_due_and_little_else_moves() {
    let plan = check(9, Change::Reweight { name: name("n4"), weight: Weight::new(200) });
    let index = plan.table.index_of(&name("n4")).expect("a member");
    assert!((plan.table.shares()[index.index()] - 0.2).abs() < 1e-4);
    // From 1/9 to 2/10.
    assert!((plan.share_moved_min - (0.2 - 1.0 / 9.0)).abs() < 1e-4);
    assert!(plan.share_moved() < plan.share_moved_min + 0.004, "{}", plan.share_moved());
}

#[test]
fn leaving_the_ring_moves_nearly_all() {
    let (_, members, _) = cluster(9);
    let ring = Scheme::Ring { points: 1 };
    let change = Change::Scheme(Scheme::Maglev);
    let plan = plan(ring, &members, &ring.place(&members), &change).expect("a good change");
    assert_eq!(plan.scheme, Scheme::Maglev);
    assert!((0.85..0.92).contains(&plan.share_moved()), "{}", plan.share_moved());
}

#[test]
fn asking_again_half_way_gives_the_moves_still_missing() {
    let (scheme, members, table) = cluster(9);
    let whole = check(9, Change::Join(member("n10", 100)));
    for done in 0..=whole.moves.len() {
        let now = table.after_moves(&whole.moves[..done]).expect("moves of this table");
        // The newcomer is a member now; whoever asks again asks for what is to be.
        let again = Change::Reweight { name: name("n10"), weight: Weight::new(100) };
        let members = members.with(member("n10", 0)).expect("ten members");
        let rest = plan(scheme, &members, &now, &again).expect("a member");
        assert_eq!(rest.moves, whole.moves[done..], "after {done} moves");
    }
}

#[test]
fn a_change_that_cannot_be_is_refused() {
    let refused = |count, change: Change, error: PlanError| {
        let (scheme, members, table) = cluster(count);
        assert_eq!(plan(scheme, &members, &table, &change), Err(error));
    };
    refused(2, Change::Join(member("n1", 5)), PlanError::AlreadyMember { name: name("n1") });
    for change in [
        Change::Drain(name("x")),
        Change::Remove(name("x")),
        Change::Replace(name("x")),
        Change::Reweight { name: name("x"), weight: Weight::new(1) },
    ] {
        refused(2, change, PlanError::NoSuchMember { name: name("x") });
    }
    refused(1, Change::Drain(name("n1")), PlanError::Members(InvalidMembers::NoOwner));
    refused(1, Change::Remove(name("n1")), PlanError::Members(InvalidMembers::NoOwner));
}

/// Plans a change of a cluster of equal members, and holds the plan against the tables.
#[track_caller]
fn check(count: u32, change: Change) -> Plan {
    let (scheme, members, table) = cluster(count);
    let plan = plan(scheme, &members, &table, &change).expect("a good change");
    assert_eq!(plan.table, plan.scheme.place(&plan.members));
    assert!((plan.share_moved() - table.share_moved_to(&plan.table)).abs() < 1e-9);
    assert!(plan.share_moved() >= plan.share_moved_min - 1e-9);
    assert!(plan.moves.iter().all(|each| each.from != each.to));
    plan
}

/// Members n1, n2, … of one weight, by Maglev.
fn cluster(count: u32) -> (Scheme, Members, Table) {
    let members = (1..=count).map(|number| member(&format!("n{number}"), 100));
    let members = Members::new(members).expect("distinct names");
    let table = Scheme::Maglev.place(&members);
    (Scheme::Maglev, members, table)
}

fn member(each: &str, weight: u32) -> Member {
    Member { name: name(each), weight: Weight::new(weight) }
}

fn name(name: &str) -> MemberName {
    MemberName::parse(name).expect("a good name")
}
