//! Changes: what they do, that they fail as a whole, and what is written down about them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use cluster::map::Epoch;
use cluster::member::{Incarnation, MemberName, Weight};
use cluster::scheme::Scheme;
use tenancy::capability::Capability;
use tenancy::directory::AuthenticationError;
use tenancy::rules::{Network, Open, RULES_PER_SCOPE_MAX, RuleId, Ruling};
use wire::control::record::{Delta, Record};
use wire::control::topology::{Placement, Topology, TopologyMember};

use super::*;
use crate::data_plane::DataPlaneError;
use crate::database::faulty::Faults;
use crate::database::{CREDENTIALS_PER_CACHE_MAX, Changes};
use crate::error::Fault;
use crate::feed::Feed;
use crate::model::{EpochState, Node, NodeName, Once};
use crate::pretend::{Engine, Installation, NOW, open};
use crate::push::driver::{Announced, Driver};
use crate::rules::{RuleWish, Scope};

const OPERATOR: Actor = Actor::Operator;
const DEFAULT: ClusterId = ClusterId::DEFAULT;

fn cache_ref(name: &str) -> CacheRef {
    CacheRef::parse(name).expect("a good name")
}

fn plan(name: &str) -> &'static Plan {
    Plan::named(name).expect("in the table")
}

impl Installation {
    fn create(&self, name: &str) -> Issued {
        let name = CacheName::parse(name).expect("a good name");
        let made = self.control.create_cache(OPERATOR, DEFAULT, Some(name), Plan::DEVELOPMENT);
        made.expect("nothing is in the way").value.1
    }

    fn add(&self, cache: &str) -> Issued {
        let added = self.control.add_credential(OPERATOR, &cache_ref(cache), Capabilities::ALL);
        added.expect("nothing is in the way").value.1
    }

    /// Whether this credential opens its cache, as the data plane sees it.
    fn authenticates(&self, issued: &Issued) -> Result<(), AuthenticationError> {
        let Issued { credential, secret } = issued;
        let username = credential.username.as_bytes();
        let grant = self.control.directory().authenticate(username, secret.reveal().as_bytes())?;
        assert_eq!(grant.cache().id(), credential.cache);
        Ok(())
    }

    /// Every row of a table as one line of text.
    fn rows(&self, table: &str) -> Vec<String> {
        let key = if ["changes", "epoch_members"].contains(&table) { "1, 2" } else { "1" };
        self.control.lock().lines(&format!("SELECT * FROM {table} ORDER BY {key}"))
    }

    /// All there is: every row, what the data plane holds, and what the directory answers.
    fn everything(&self, issued: &[Issued]) -> Vec<String> {
        let mut lines = Vec::new();
        let tables =
            ["clusters", "caches", "credentials", "rules", "changes", "audit", "idempotency_keys"];
        for table in tables {
            lines.extend(self.rows(table).into_iter().map(|row| format!("{table}: {row}")));
        }
        lines.push(format!("{:?}", self.data_plane.seen()));
        lines.push(format!("{:?}", self.control.directory().rules()));
        for issued in issued {
            let grant = self.control.directory().grant(&issued.credential.username);
            let capabilities = grant.map(|grant| (grant.capabilities(), grant.is_revoked()));
            lines.push(format!("{:?} {capabilities:?}", self.authenticates(issued)));
        }
        for id in 1..=9 {
            let entry = self.control.directory().cache(CacheId::new(id));
            lines.push(format!("{id}: {entry:?}"));
        }
        lines
    }

    fn revisions(&self) -> Vec<u64> {
        let all = Feed::new(Arc::clone(&self.control), DEFAULT);
        let oldest = self.control.lock().lines("SELECT min(revision) - 1 FROM changes");
        let oldest = oldest[0].trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        following(&all, oldest).iter().map(|delta| delta.revision.get()).collect()
    }
}

/// Two caches: "shop" with a primary credential, another one and a rule, "blog" with one credential.
/// Four changes have made it.
struct Two {
    installation: Installation,
    primary: Issued,
    other: Issued,
    blog: Issued,
}

fn two(engine: &Engine) -> Two {
    let installation = Installation::on(engine);
    let primary = installation.create("shop");
    let blog = installation.create("blog");
    let other = installation.add("shop");
    let rule = block("192.0.2.1", Scope::Cache(cache_ref("shop")));
    let made = installation.control.put_rule(OPERATOR, &rule).expect("nothing is in the way");
    assert_eq!(made.value.rule.id, FIRST_RULE);
    Two { installation, primary, other, blog }
}

/// The one that "shop" has.
const FIRST_RULE: RuleId = RuleId(1);

fn block(network: &str, scope: Scope) -> RuleWish {
    RuleWish {
        scope,
        network: Network::parse(network).expect("a network"),
        ruling: Ruling::Block,
        reason: "a test".to_owned(),
        seconds: 60,
    }
}

impl Two {
    fn issued(&self) -> Vec<Issued> {
        vec![self.primary.clone(), self.other.clone(), self.blog.clone()]
    }

    fn everything(&self) -> Vec<String> {
        self.installation.everything(&self.issued())
    }
}

/// A change that can be made to [`Two`], and whether making it again changes nothing more.
struct Act {
    name: &'static str,
    run: fn(&Two) -> Result<(), ControlError>,
    again: Again,
}

enum Again {
    ChangesNothing,
    IsRefused,
    IsAnotherChange,
}

/// Every change the control plane can make.
const ACTS: &[Act] = &[
    Act {
        name: "create",
        run: |two| {
            let name = CacheName::parse("new").expect("a good name");
            two.installation
                .control
                .create_cache(OPERATOR, DEFAULT, Some(name), plan("100"))
                .map(drop)
        },
        again: Again::IsRefused,
    },
    Act {
        name: "create without a name",
        run: |two| {
            two.installation.control.create_cache(OPERATOR, DEFAULT, None, plan("100")).map(drop)
        },
        again: Again::IsAnotherChange,
    },
    Act {
        name: "development cache",
        run: |two| two.installation.control.ensure_development_cache().map(drop),
        again: Again::ChangesNothing,
    },
    Act {
        name: "delete",
        run: |two| two.installation.control.delete_cache(OPERATOR, &cache_ref("shop")).map(drop),
        again: Again::IsRefused,
    },
    Act {
        name: "change plan",
        run: |two| {
            let control = &two.installation.control;
            control.change_plan(OPERATOR, &cache_ref("shop"), plan("500")).map(drop)
        },
        again: Again::ChangesNothing,
    },
    Act {
        name: "limit rates",
        run: |two| {
            let control = &two.installation.control;
            control.limit_rates(OPERATOR, &cache_ref("shop"), Some(500), None).map(drop)
        },
        again: Again::ChangesNothing,
    },
    Act {
        name: "disable",
        run: |two| {
            let control = &two.installation.control;
            control.set_enabled(OPERATOR, &cache_ref("shop"), false).map(drop)
        },
        again: Again::ChangesNothing,
    },
    Act {
        name: "flush",
        run: |two| two.installation.control.flush_cache(OPERATOR, &cache_ref("shop")).map(drop),
        again: Again::IsAnotherChange,
    },
    Act {
        name: "add credential",
        run: |two| {
            let control = &two.installation.control;
            control.add_credential(OPERATOR, &cache_ref("shop"), Capabilities::NONE).map(drop)
        },
        again: Again::IsAnotherChange,
    },
    Act {
        name: "remove credential",
        run: |two| {
            let username = two.other.credential.username;
            let control = &two.installation.control;
            control.remove_credential(OPERATOR, &cache_ref("shop"), &username).map(drop)
        },
        again: Again::IsRefused,
    },
    Act {
        name: "promote",
        run: |two| {
            let username = two.other.credential.username;
            let control = &two.installation.control;
            control.promote(OPERATOR, &cache_ref("shop"), &username).map(drop)
        },
        again: Again::ChangesNothing,
    },
    Act {
        name: "change capabilities",
        run: |two| {
            let username = two.primary.credential.username;
            let deny = CapabilityChange {
                deny: Capabilities::NONE.with(Capability::Write),
                ..CapabilityChange::default()
            };
            let control = &two.installation.control;
            control.change_capabilities(OPERATOR, &cache_ref("shop"), &username, deny).map(drop)
        },
        again: Again::ChangesNothing,
    },
    Act {
        name: "block an address",
        run: |two| {
            let wish = block("192.0.2.0/24", Scope::Cluster(DEFAULT));
            two.installation.control.put_rule(OPERATOR, &wish).map(drop)
        },
        // It lasts anew.
        again: Again::IsAnotherChange,
    },
    Act {
        name: "allow an address that was blocked",
        run: |two| {
            let wish = block("192.0.2.1", Scope::Cache(cache_ref("shop")));
            let wish = RuleWish { ruling: Ruling::Allow, ..wish };
            two.installation.control.put_rule(OPERATOR, &wish).map(drop)
        },
        again: Again::IsAnotherChange,
    },
    Act {
        name: "remove a rule",
        run: |two| two.installation.control.remove_rule(OPERATOR, FIRST_RULE).map(drop),
        again: Again::IsRefused,
    },
];

/// Makes SQLite give up once, after so many steps of its virtual machine; or not any more.
fn fail_after(two: &Two, steps: Option<u64>) {
    let handler = steps.map(|mut left| {
        move || {
            let now = left == 0;
            left = left.wrapping_sub(1);
            now
        }
    });
    two.installation.control.lock().sqlite().progress_handler(1, handler);
}

#[test]
fn a_change_that_fails_at_any_step_leaves_nothing_behind() {
    for act in ACTS {
        let two = two(&Engine::Sqlite);
        let before = two.everything();
        let mut failures = 0u64;
        loop {
            fail_after(&two, Some(failures));
            let result = (act.run)(&two);
            fail_after(&two, None);
            match result {
                Ok(()) => break,
                Err(ControlError::Database(_)) => {
                    // A flush cannot be taken back; all else is as before.
                    if act.name != "flush" {
                        assert_eq!(two.everything(), before, "{} at step {failures}", act.name);
                    }
                }
                Err(other) => panic!("{} at step {failures}: {other:?}", act.name),
            }
            failures += 1;
            assert!(failures < 10_000, "{} never gets through", act.name);
        }
        assert!(failures > 20, "{} failed at only {failures} steps", act.name);
        assert_ne!(two.everything(), before, "{} did nothing in the end", act.name);
        assert_eq!(two.installation.revisions(), [1, 2, 3, 4, 5], "{}", act.name);
    }
}

#[test]
fn a_change_whose_commit_fails_leaves_nothing_behind() {
    for act in ACTS.iter().filter(|act| act.name != "flush") {
        let two = two(&Engine::Sqlite);
        // A cache without its primary credential is allowed until the commit and not beyond it.
        let spoil = "CREATE TEMP TRIGGER spoil AFTER INSERT ON changes BEGIN
            UPDATE caches SET primary_username = 'NOBODY' WHERE name = 'blog'; END";
        two.installation.run_sql(spoil).expect("a good trigger");
        let before = two.everything();
        let result = (act.run)(&two);
        assert!(matches!(result, Err(ControlError::Database(_))), "{}: {result:?}", act.name);
        assert_eq!(two.everything(), before, "{}", act.name);
        two.installation.run_sql("DROP TRIGGER spoil").expect("it is there");
        (act.run)(&two).expect("nothing is in the way now");
        assert_ne!(two.everything(), before, "{}", act.name);
    }
}

fn a_change_that_the_data_plane_refuses_leaves_nothing_behind(engine: &Engine) {
    let refused = DataPlaneError::NoRoom { available_bytes: 7 };
    let asking = ["create", "create without a name", "development cache", "change plan", "flush"];
    for act in ACTS.iter().filter(|act| asking.contains(&act.name)) {
        let two = two(engine);
        let before = two.everything();
        two.installation.data_plane.refuse(Some(refused.clone()));
        match (act.run)(&two) {
            Err(ControlError::DataPlane(error)) => assert_eq!(error, refused),
            other => panic!("{}: {other:?}", act.name),
        }
        assert_eq!(two.everything(), before, "{}", act.name);
    }
}

fn a_change_made_twice_is_harmless(engine: &Engine) {
    for act in ACTS {
        let two = two(engine);
        (act.run)(&two).expect("nothing is in the way");
        let once = two.everything();
        let result = (act.run)(&two);
        match act.again {
            Again::ChangesNothing => {
                result.expect("nothing to do");
                assert_eq!(two.everything(), once, "{}", act.name);
            }
            Again::IsRefused => {
                let fault = result.expect_err(act.name).fault();
                assert_ne!(fault, Fault::Ours, "{}", act.name);
                assert_eq!(two.everything(), once, "{}", act.name);
            }
            Again::IsAnotherChange => {
                result.expect("it can be done again");
                assert_ne!(two.everything(), once, "{}", act.name);
            }
        }
    }
}

fn every_change_is_written_down_with_who_and_what(engine: &Engine) {
    for act in ACTS {
        let two = two(engine);
        let before = two.installation.rows("audit");
        (act.run)(&two).expect("nothing is in the way");
        let after = two.installation.rows("audit");
        assert_eq!(after.len(), before.len() + 1, "{}", act.name);
        assert_eq!(after[..before.len()], before);
        let actor = if act.name == "development cache" { Actor::Installation } else { OPERATOR };
        let row = after.last().expect("one was added");
        assert!(row.contains(&format!("Text({:?})", actor.name())), "{row}");
        assert!(row.contains(&format!("Int({})", NOW.0)), "{row}");
    }
}

#[test]
fn no_password_is_in_any_table() {
    let two = two(&Engine::Sqlite);
    let tables = ["caches", "credentials", "changes", "audit"];
    let all: Vec<u8> = {
        let files = ["control.sqlite", "control.sqlite-wal"];
        let dir = two.installation.dir.path();
        files.iter().flat_map(|file| std::fs::read(dir.join(file)).expect("it is there")).collect()
    };
    for issued in two.issued() {
        let (secret, username) = (issued.secret.reveal(), issued.credential.username);
        let contains = |text: &str| all.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(contains(username.as_str()), "the test looks in the wrong place");
        assert!(!contains(secret));
        assert!(tables.iter().all(|t| !two.installation.rows(t).concat().contains(secret)));
    }
}

fn a_new_cache_has_one_credential_that_opens_it_and_may_do_everything(engine: &Engine) {
    let installation = Installation::on(engine);
    let issued = installation.create("shop");
    assert_eq!(installation.authenticates(&issued), Ok(()));
    let (cache, credentials) =
        installation.control.credentials(&cache_ref("shop")).expect("just made");
    assert_eq!(credentials, std::slice::from_ref(&issued.credential));
    assert_eq!((cache.primary, cache.created_at), (issued.credential.username, NOW));
    assert!(issued.credential.primary);
    assert_eq!(issued.credential.capabilities, Capabilities::ALL);
    let limits = Plan::DEVELOPMENT.limits;
    assert_eq!(installation.data_plane.seen()[&cache.id.get()], (limits, 0));
}

fn a_cache_is_found_by_id_and_by_name(engine: &Engine) {
    let installation = Installation::on(engine);
    let id = installation.create("shop").credential.cache;
    for text in [id.to_string().as_str(), "shop"] {
        assert_eq!(installation.control.cache(&cache_ref(text)).expect("found").id, id);
    }
    for text in ["0", "18446744073709551615", "2", "Shop", "shop2"] {
        let error = installation.control.cache(&cache_ref(text)).expect_err("there is none");
        assert_eq!(error.to_string(), format!("there is no cache {text}"));
    }
}

fn the_id_of_a_deleted_cache_is_never_given_again(engine: &Engine) {
    let installation = Installation::on(engine);
    let first = installation.create("shop").credential.cache;
    installation.control.delete_cache(OPERATOR, &cache_ref("shop")).expect("it is there");
    let installation = installation.restart();
    assert!(first < installation.create("shop").credential.cache);
}

fn a_deleted_cache_is_gone_everywhere(engine: &Engine) {
    let two = two(engine);
    let grant = two
        .installation
        .control
        .directory()
        .grant(&two.primary.credential.username)
        .expect("it was made");
    two.installation.control.delete_cache(OPERATOR, &cache_ref("shop")).expect("it is there");
    assert!(grant.is_revoked());
    for gone in [&two.primary, &two.other] {
        assert_eq!(two.installation.authenticates(gone), Err(AuthenticationError::BadCredential));
    }
    assert_eq!(two.installation.authenticates(&two.blog), Ok(()));
    assert_eq!(two.installation.rows("credentials").len(), 1);
    assert_eq!(two.installation.data_plane.seen().len(), 1);
}

fn the_primary_credential_can_be_removed_only_after_another_is_promoted(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    let shop = cache_ref("shop");
    let (old, new) = (two.primary.credential.username, two.other.credential.username);
    let refused = control.remove_credential(OPERATOR, &shop, &old);
    assert!(matches!(refused, Err(ControlError::PrimaryStays { .. })), "{refused:?}");
    assert!(control.promote(OPERATOR, &shop, &new).expect("it is there").value.primary);
    // Rotation without downtime: both open the cache until the old one is removed.
    assert_eq!(two.installation.authenticates(&two.primary), Ok(()));
    control.remove_credential(OPERATOR, &shop, &old).expect("no longer primary");
    let gone = two.installation.authenticates(&two.primary);
    assert_eq!(gone, Err(AuthenticationError::BadCredential));
    assert_eq!(two.installation.authenticates(&two.other), Ok(()));
}

fn a_credential_of_another_cache_is_unknown_here(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    let (shop, stranger) = (cache_ref("shop"), two.blog.credential.username);
    let before = two.everything();
    let change = CapabilityChange { deny: Capabilities::ALL, ..CapabilityChange::default() };
    for refused in [
        control.promote(OPERATOR, &shop, &stranger).map(drop),
        control.remove_credential(OPERATOR, &shop, &stranger).map(drop),
        control.change_capabilities(OPERATOR, &shop, &stranger, change).map(drop),
    ] {
        assert!(matches!(refused, Err(ControlError::UnknownCredential { .. })), "{refused:?}");
    }
    assert_eq!(two.everything(), before);
}

fn capabilities_change_under_an_open_session(engine: &Engine) {
    let two = two(engine);
    let grant = two
        .installation
        .control
        .directory()
        .grant(&two.primary.credential.username)
        .expect("it was made");
    for act in ACTS.iter().filter(|act| act.name == "change capabilities") {
        (act.run)(&two).expect("nothing is in the way");
    }
    assert_eq!(grant.capabilities().to_string(), "flush,api");
}

fn a_disabled_cache_refuses_and_an_enabled_one_serves_again(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    control.set_enabled(OPERATOR, &cache_ref("shop"), false).expect("it is there");
    let answer = two.installation.authenticates(&two.primary);
    assert_eq!(answer, Err(AuthenticationError::CacheDisabled));
    assert_eq!(two.installation.authenticates(&two.blog), Ok(()));
    control.set_enabled(OPERATOR, &cache_ref("shop"), true).expect("it is there");
    assert_eq!(two.installation.authenticates(&two.primary), Ok(()));
}

fn a_plan_change_reaches_data_plane_and_directory(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    let changed = control.change_plan(OPERATOR, &cache_ref("shop"), plan("5000"));
    let cache = changed.expect("it fits").value;
    let limits = plan("5000").limits;
    assert_eq!(two.installation.data_plane.seen()[&cache.id.get()].0, limits);
    let entry = control.directory().cache(cache.id).expect("it is there");
    assert_eq!(entry.item_bytes_max(), limits.item_bytes_max);
    assert_eq!(entry.connections_max(), limits.connections_max);
    let rates = |operations_per_second, bytes_per_second| {
        let limit = |rate: u64| Some(rate).filter(|&rate| rate != 1);
        let (operations, bytes) = (limit(operations_per_second), limit(bytes_per_second));
        let limited = control.limit_rates(OPERATOR, &cache_ref("shop"), operations, bytes);
        limited.expect("it is there");
        (entry.rates().operations_per_second, entry.rates().bytes_per_second)
    };
    // What is not named stays (1 stands for that here).
    assert_eq!(rates(500, 1), (500, 0));
    assert_eq!(rates(1, 9_000), (500, 9_000));
    assert_eq!(rates(0, 1), (0, 9_000));
}

fn a_cache_has_no_more_credentials_than_allowed(engine: &Engine) {
    let installation = Installation::on(engine);
    installation.create("shop");
    for _ in 1..CREDENTIALS_PER_CACHE_MAX {
        installation.add("shop");
    }
    let before = installation.everything(&[]);
    let refused =
        installation.control.add_credential(OPERATOR, &cache_ref("shop"), Capabilities::ALL);
    assert!(matches!(refused, Err(ControlError::TooManyCredentials { .. })), "{refused:?}");
    assert_eq!(installation.everything(&[]), before);
}

fn a_restart_keeps_everything(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    for act in ACTS.iter().filter(|act| ["change plan", "disable"].contains(&act.name)) {
        (act.run)(&two).expect("nothing is in the way");
    }
    control.set_enabled(OPERATOR, &cache_ref("shop"), true).expect("it is there");
    control.set_enabled(OPERATOR, &cache_ref("blog"), false).expect("it is there");
    let issued = two.issued();
    let before = two.everything();
    let (_, secrets) = control.issued(&cache_ref("shop")).expect("it is there");
    let after = two.installation.restart();
    assert_eq!(after.everything(&issued), before);
    let (_, secrets_after) = after.control.issued(&cache_ref("shop")).expect("it is there");
    assert_eq!(secrets_after, secrets);
    let mut made = vec![two.primary, two.other];
    made.sort_by_key(|issued| issued.credential.username);
    assert_eq!(secrets_after, made);
}

fn the_development_cache_is_made_once_and_shows_its_primary_credential(engine: &Engine) {
    let installation = Installation::on(engine);
    let (cache, first) = installation.control.ensure_development_cache().expect("made");
    assert_eq!((cache.name.as_str(), cache.plan.name), (DEVELOPMENT_CACHE, "dev"));
    let installation = installation.restart();
    let (_, again) = installation.control.ensure_development_cache().expect("found");
    assert_eq!(again, first);
    assert_eq!(installation.authenticates(&again), Ok(()));
    let added = installation.add(DEVELOPMENT_CACHE);
    let development = cache_ref(DEVELOPMENT_CACHE);
    let username = added.credential.username;
    installation.control.promote(OPERATOR, &development, &username).expect("it is there");
    let (_, promoted) = installation.control.ensure_development_cache().expect("found");
    assert_eq!(promoted.secret, added.secret);
}

#[test]
fn a_directory_in_use_is_not_opened() {
    let installation = Installation::new();
    let refused = open(installation.dir.path(), &installation.data_plane).err();
    assert!(matches!(refused, Some(OpenError::DataDir(DataDirError::InUse { .. }))), "{refused:?}");
}

#[test]
fn a_cache_that_no_longer_fits_is_named_at_the_start() {
    let installation = Installation::new();
    let id = installation.create("shop").credential.cache;
    let Installation { control, data_plane, dir, .. } = installation;
    drop(control);
    data_plane.refuse(Some(DataPlaneError::NoRoom { available_bytes: 0 }));
    match open(dir.path(), &data_plane).err() {
        Some(OpenError::DataPlane { cache, .. }) => assert_eq!(cache, id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_key_is_noticed_at_the_start() {
    let Installation { control, data_plane, dir, .. } = Installation::new();
    drop(control);
    std::fs::remove_file(dir.path().join("control.key")).expect("it is there");
    let refused = open(dir.path(), &data_plane).err();
    let missing =
        |error: &OpenError| matches!(error, OpenError::DataDir(DataDirError::KeyMissing { .. }));
    assert!(refused.as_ref().is_some_and(missing), "{refused:?}");
}

#[test]
fn another_key_is_refused_at_the_start() {
    let Installation { control, data_plane, dir, .. } = Installation::new();
    drop(control);
    let key = dir.path().join("control.key");
    std::fs::write(key, "5".repeat(64)).expect("writable");
    let refused = open(dir.path(), &data_plane).err();
    assert!(matches!(refused, Some(OpenError::WrongKey)), "{refused:?}");
}

fn many_at_once_leave_a_log_without_gaps(engine: &Engine) {
    let installation = Installation::on(engine);
    installation.create("shared");
    let (made, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|threads| {
        for number in 0..4 {
            let (control, made, refused) = (&installation.control, &made, &refused);
            threads.spawn(move || {
                for round in 0..10 {
                    // The same names on every thread, so that most of these collide.
                    let name = CacheName::parse(&format!("cache-{round}")).expect("a good name");
                    match control.create_cache(OPERATOR, DEFAULT, Some(name), Plan::DEVELOPMENT) {
                        Ok(_) => made.fetch_add(1, Ordering::Relaxed),
                        Err(ControlError::NameTaken(_)) => refused.fetch_add(1, Ordering::Relaxed),
                        Err(other) => panic!("thread {number}: {other:?}"),
                    };
                    let shared = cache_ref("shared");
                    control
                        .add_credential(OPERATOR, &shared, Capabilities::ALL)
                        .expect("fewer than the limit");
                    made.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((made.load(Ordering::Relaxed), refused.load(Ordering::Relaxed)), (50, 30));
    assert_eq!(installation.revisions(), (1..=51).collect::<Vec<_>>());
    assert_eq!(installation.rows("audit").len(), 51);
    let names: Vec<String> = (0..10).map(|round| format!("cache-{round}")).collect();
    for name in names.iter().map(String::as_str).chain(["shared"]) {
        for issued in installation.control.issued(&cache_ref(name)).expect("made").1 {
            assert_eq!(installation.authenticates(&issued), Ok(()));
        }
    }
}

/// What no program may store, the database itself refuses.
fn the_database_refuses_what_must_not_be(engine: &Engine) {
    let two = two(engine);
    let (primary, blog) = (two.primary.credential.username, two.blog.credential.username);
    let before = two.everything();
    for wrong in [
        format!("DELETE FROM credentials WHERE username = '{primary}'"),
        format!("UPDATE caches SET primary_username = '{blog}' WHERE name = 'shop'"),
        "UPDATE caches SET primary_username = 'NOBODY'".to_owned(),
        "UPDATE caches SET primary_username = NULL".to_owned(),
        "UPDATE caches SET name = 'blog' WHERE name = 'shop'".to_owned(),
        "UPDATE caches SET enabled = 2".to_owned(),
        "UPDATE credentials SET capabilities = 8".to_owned(),
        "UPDATE credentials SET password_hash = x'00'".to_owned(),
        "UPDATE credentials SET cache_id = 77".to_owned(),
        "INSERT INTO changes VALUES (1, 6, 0, 'cache created', 1, NULL, '{}')".to_owned(),
        "INSERT INTO changes VALUES (1, 5, 0, 'cache eaten', 1, NULL, '{}')".to_owned(),
        "INSERT INTO changes VALUES (9, 1, 0, 'cache created', 1, NULL, '{}')".to_owned(),
        "UPDATE clusters SET revision = revision + 1".to_owned(),
        "UPDATE clusters SET revision = revision - 1".to_owned(),
        "DELETE FROM changes".to_owned(),
        "UPDATE leadership SET fence = fence - 1".to_owned(),
        "UPDATE changes SET cache_id = 9".to_owned(),
        "UPDATE audit SET actor = 'nobody'".to_owned(),
        "UPDATE rules SET ruling = 'perhaps'".to_owned(),
        "UPDATE rules SET ends_at = made_at".to_owned(),
        "UPDATE rules SET cache_id = 77".to_owned(),
        "INSERT INTO rules (cluster_id, cache_id, network, ruling, reason, made_by, made_at, ends_at)
             SELECT cluster_id, cache_id, network, ruling, reason, made_by, made_at, ends_at FROM rules"
            .to_owned(),
    ] {
        assert!(two.installation.run_sql(&wrong).is_err(), "{wrong}");
        assert_eq!(two.everything(), before, "{wrong}");
    }
}

fn pages_of_caches_follow_one_another(engine: &Engine) {
    let installation = Installation::on(engine);
    for name in ["a", "b", "c"] {
        installation.create(name);
    }
    let page = |after, limit| -> Vec<u64> {
        let caches = installation.control.caches(CacheId::new(after), limit).expect("readable");
        caches.iter().map(|cache| cache.id.get()).collect()
    };
    assert_eq!(page(0, 2), [1, 2]);
    assert_eq!(page(2, 2), [3]);
    assert!(page(u64::MAX, 2).is_empty());
}

/// What a node holds that applies the changes one by one.
fn applied(deltas: &[Delta], before: &[Record]) -> BTreeMap<Key, Record> {
    let mut records: BTreeMap<Key, Record> = before.iter().map(|one| (one.key(), *one)).collect();
    for delta in deltas {
        for key in &delta.deletes {
            assert!(records.remove(key).is_some(), "{key:?} was never put");
        }
        for record in &delta.puts {
            if let Record::Credential(credential) = record {
                let cache = Key::Cache(credential.cache);
                assert!(records.contains_key(&cache), "a credential came before its cache");
            }
            records.insert(record.key(), *record);
        }
    }
    records
}

fn following(feed: &Feed, after: u64) -> Vec<Delta> {
    match feed.changes_since(Revision::new(after), 1_000).expect("readable") {
        Changes::Following(deltas) => deltas,
        Changes::TakeSnapshot => panic!("nothing was trimmed"),
    }
}

fn whoever_applies_the_changes_has_what_a_snapshot_has(engine: &Engine) {
    for act in ACTS {
        let two = two(engine);
        let feed = Feed::new(Arc::clone(&two.installation.control), DEFAULT);
        let newest = feed.watch();
        let (_, before) = feed.snapshot().expect("readable");
        (act.run)(&two).expect("nothing is in the way");
        let (revision, after) = feed.snapshot().expect("readable");
        assert_eq!((revision.get(), *newest.borrow()), (5, revision), "{}", act.name);
        let expected = applied(&[], &after);
        assert_eq!(applied(&following(&feed, 4), &before), expected, "{}", act.name);
        let all = following(&feed, 0);
        assert_eq!(applied(&all, &[]), expected, "{}", act.name);
        let revisions: Vec<u64> = all.iter().map(|delta| delta.revision.get()).collect();
        assert_eq!(revisions, [1, 2, 3, 4, 5]);
        let never = feed.changes_since(Revision::new(6), 9).expect("readable");
        assert_eq!(never, Changes::TakeSnapshot, "a revision that never was");
    }
}

fn what_is_trimmed_is_only_to_be_had_as_a_snapshot(engine: &Engine) {
    let two = two(engine);
    let control = Arc::clone(&two.installation.control);
    let feed = Feed::new(Arc::clone(&control), DEFAULT);
    let kept_one = Retention { changes_max: 1, ..Retention::default() };
    assert!(!control.trim(&kept_one).expect("nothing is in the way"), "all of it fits one batch");
    assert_eq!(two.installation.revisions(), [4]);
    assert_eq!(following(&feed, 3).len(), 1);
    let too_old = feed.changes_since(Revision::new(1), 9).expect("readable");
    assert_eq!(too_old, Changes::TakeSnapshot);
    // The newest one stays whatever is asked: the next must follow on it.
    let kept_none = Retention { changes_max: 0, ..kept_one };
    assert!(control.trim(&kept_none).is_err(), "the newest change stays");
}

fn unused_development_caches_are_disabled_and_can_be_enabled_again(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    control.change_plan(OPERATOR, &cache_ref("blog"), plan("100")).expect("it fits");
    let disabled = |control: &Control| -> Vec<String> {
        let caches = control.disable_unused(DEFAULT).expect("nothing is in the way");
        caches.iter().map(|cache| cache.name.to_string()).collect()
    };
    assert!(disabled(control).is_empty(), "all of them are new");
    let old = NOW.0 - UNUSED_SECONDS_MAX;
    let age = |seconds| format!("UPDATE caches SET used_at = {seconds}");
    two.installation.run_sql(&age(old + 1)).expect("a good statement");
    assert!(disabled(control).is_empty(), "a second is missing");
    two.installation.run_sql(&age(old)).expect("a good statement");
    assert_eq!(disabled(control), ["shop"], "blog has a plan that is paid for");
    let answer = two.installation.authenticates(&two.primary);
    assert_eq!(answer, Err(AuthenticationError::CacheDisabled));
    control.set_enabled(OPERATOR, &cache_ref("shop"), true).expect("it is there");
    assert_eq!(two.installation.authenticates(&two.primary), Ok(()));
    assert!(disabled(control).is_empty(), "enabling counts as use");
    two.installation.run_sql(&age(old)).expect("a good statement");
    control.note_used(&[two.primary.credential.cache]).expect("nothing is in the way");
    assert!(disabled(control).is_empty(), "it was used");
}

fn rules_are_served_by_until_they_end(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    let shop = two.primary.credential.cache;
    let admitted = |address: &str, cache| {
        let address = address.parse().expect("an address");
        control.directory().rules().admit(address, cache, NOW.0)
    };
    assert!(!admitted("192.0.2.1", Some(shop)));
    assert!(admitted("192.0.2.1", Some(two.blog.credential.cache)));
    let everyone = block("198.51.100.0/24", Scope::Cluster(DEFAULT));
    let made = control.put_rule(OPERATOR, &everyone).expect("there is room").value;
    assert!(!admitted("198.51.100.9", None));
    assert_eq!((made.made_by.as_str(), made.made_at), ("operator", NOW));
    assert_eq!((made.cache, made.rule.expires_at), (None, NOW.0 + 60));

    // One for the same network and the same clients takes the other's place, under its number.
    let allow = RuleWish { ruling: Ruling::Allow, ..everyone.clone() };
    let changed = control.put_rule(OPERATOR, &allow).expect("there is room").value;
    assert_eq!(changed.rule.id, made.rule.id);
    assert!(admitted("198.51.100.9", None));
    assert_eq!(control.rules(0, 9).expect("readable").len(), 2);
    assert_eq!(control.rules(1, 9).expect("readable"), std::slice::from_ref(&changed));

    // When their time is over they are taken out of the log and the nodes' copies.
    assert_eq!(control.end_rules().expect("nothing is in the way"), []);
    let over = format!("UPDATE rules SET made_at = 1, ends_at = {}", NOW.0);
    two.installation.run_sql(&over).expect("a good statement");
    assert_eq!(control.end_rules().expect("nothing is in the way").len(), 2);
    assert_eq!(control.rules(0, 9).expect("readable"), []);
    assert!(control.directory().rules().is_empty());
    let (_, records) = Feed::new(Arc::clone(control), DEFAULT).snapshot().expect("readable");
    assert!(!records.iter().any(|record| matches!(record, Record::Rule(_))));
    let last = control.newest_audit(1).expect("readable");
    assert_eq!((last[0].action.as_str(), last[0].actor.as_str()), ("rule ended", "installation"));
}

fn requests_for_rules_are_carried_out_once(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    let wish = block("203.0.113.7", Scope::Cluster(DEFAULT));
    let made = control.put_rule(by("a", 1), &wish).expect("there is room");
    // The answer tells the revision of then, whatever has happened since.
    two.installation.add("shop");
    assert_eq!(control.put_rule(by("a", 1), &wish).expect("done before"), made);
    let id = made.value.rule.id;
    let removed = control.remove_rule(by("b", 2), id).expect("it is there");
    two.installation.add("shop");
    assert_eq!(control.remove_rule(by("b", 2), id).expect("done before"), removed);
    let gone = control.put_rule(by("a", 1), &wish);
    assert!(matches!(gone, Err(ControlError::Superseded)), "{gone:?}");
    let unknown = control.remove_rule(OPERATOR, id);
    assert!(matches!(unknown, Err(ControlError::UnknownRule(_))), "{unknown:?}");
    let nowhere = block("203.0.113.7", Scope::Cache(cache_ref("nowhere")));
    let refused = control.put_rule(OPERATOR, &nowhere);
    assert!(matches!(refused, Err(ControlError::UnknownCache(_))), "{refused:?}");
}

fn a_cache_has_no_more_rules_than_allowed(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    let wish = |number: usize, cache: &str| {
        block(&format!("10.0.{}.{}", number / 256, number % 256), Scope::Cache(cache_ref(cache)))
    };
    for number in 1..RULES_PER_SCOPE_MAX {
        control.put_rule(OPERATOR, &wish(number, "shop")).expect("there is room");
    }
    let refused = control.put_rule(OPERATOR, &wish(0, "shop"));
    assert!(matches!(refused, Err(ControlError::TooManyRules { .. })), "{refused:?}");
    control.put_rule(OPERATOR, &wish(1, "shop")).expect("that one is changed");
    control.put_rule(OPERATOR, &wish(0, "blog")).expect("another cache has its own");
}

#[test]
fn whom_a_rule_would_cut_off_is_known_before() {
    let two = two(&Engine::Sqlite);
    let control = &two.installation.control;
    let open = |cache: &Issued, last: u8, connections| Open {
        cache: Some(cache.credential.cache),
        address: [198, 51, 100, last].into(),
        connections,
    };
    let all = vec![open(&two.primary, 1, 3), open(&two.primary, 2, 1), open(&two.blog, 1, 5)];
    two.installation.data_plane.connect(all);
    let cut = |wish: &RuleWish| {
        let (cluster, change) = control.rule_change(wish).expect("the cache is there");
        control.preview(cluster, change).cut
    };
    let shop = cut(&block("198.51.100.0/24", Scope::Cache(cache_ref("shop"))));
    assert_eq!(shop.connections, 4);
    assert_eq!(shop.caches, [(two.primary.credential.cache, 4)]);
    let one = cut(&block("198.51.100.1", Scope::Cluster(DEFAULT)));
    assert_eq!((one.connections, one.caches.len(), one.clients.len()), (8, 2, 2));
    assert_eq!(cut(&block("203.0.113.7", Scope::Cluster(DEFAULT))).connections, 0);
    assert_eq!(control.rules(1, 9).expect("readable"), [], "asking makes no rule");
}

/// A request under an idempotency key; its digest stands for all that it says.
fn by(key: &str, digest: u8) -> By {
    let once = Some(Once { key: key.to_owned(), request_digest: [digest; 32] });
    By { actor: OPERATOR, once }
}

fn a_repeated_request_is_carried_out_once(engine: &Engine) {
    let two = two(engine);
    let control = &two.installation.control;
    let shop = cache_ref("shop");
    let add = |by| control.add_credential(by, &shop, Capabilities::ALL);
    let first = add(by("a", 1)).expect("nothing is in the way");
    let before = two.everything();
    assert_eq!(add(by("a", 1)).expect("done before"), first);
    let refused = add(by("a", 2));
    assert!(matches!(refused, Err(ControlError::KeyReused)), "{refused:?}");
    assert_eq!(two.everything(), before);
    let second = add(by("b", 1)).expect("another key");
    assert_ne!(second.value.1, first.value.1);
    assert_eq!(second.revision, first.revision.next());
    let username = first.value.1.credential.username;
    control.remove_credential(by("c", 3), &shop, &username).expect("it is not primary");
    control.remove_credential(by("c", 3), &shop, &username).expect("done before");
    let gone = add(by("a", 1));
    assert!(matches!(gone, Err(ControlError::Superseded)), "{gone:?}");
}

fn a_change_that_fails_at_any_statement_leaves_nothing_behind(engine: &Engine) {
    for act in ACTS {
        let two = two(engine);
        let before = two.everything();
        let faults = Faults::new();
        two.installation.control.lock().make_faulty(&faults);
        let mut failures = 0;
        loop {
            faults.fail_after(failures);
            let result = (act.run)(&two);
            faults.stop();
            match result {
                Ok(()) => break,
                // A flush cannot be taken back; all else is as before.
                Err(ControlError::Database(_)) if act.name == "flush" => (),
                Err(ControlError::Database(_)) => {
                    assert_eq!(two.everything(), before, "{} at statement {failures}", act.name);
                }
                Err(other) => panic!("{} at statement {failures}: {other:?}", act.name),
            }
            failures += 1;
        }
        assert!((7..60).contains(&failures), "{} has {failures} statements", act.name);
        assert_eq!(two.installation.revisions(), [1, 2, 3, 4, 5], "{}", act.name);
    }
}

fn a_commit_whose_answer_is_lost_counts(engine: &Engine) {
    for act in ACTS {
        let two = two(engine);
        let faults = Faults::new();
        two.installation.control.lock().make_faulty(&faults);
        faults.lose_commit();
        (act.run)(&two).expect("it took effect, and the rows say so");
        assert_eq!(two.installation.revisions(), [1, 2, 3, 4, 5], "{}", act.name);
    }
}

fn a_fence_keeps_out_who_led_before(engine: &Engine) {
    let (mut first, mut second, _dir) = engine.two_databases();
    let led = |database: &mut Database, name, lease_ms| match database.lead(name, lease_ms, false) {
        Ok(Lease::Ours(fence)) => Some(fence),
        Ok(Lease::Theirs { .. }) => None,
        Err(error) => panic!("{name}: {error:?}"),
    };
    let make = |database: &mut Database, name: &str| {
        let name = CacheName::parse(name).expect("a good name");
        database.begin(OPERATOR, NOW)?.insert_cluster(name, [1; 16]).map(drop)
    };
    // On SQLite the second one took the lead when it opened the file; so begin from the same state.
    second.resign().expect("writable");
    let fence = led(&mut first, "first", 0).expect("nobody leads");
    // Its lease of 0 ms has run out, and it does not know yet.
    let next = led(&mut second, "second", 600_000).expect("the lease has run out");
    assert!(fence < next);
    for _ in 0..2 {
        let refused = make(&mut first, "late");
        assert!(matches!(refused, Err(ControlError::NotLeader)), "{refused:?}");
        make(&mut second, "timely").expect("it leads");
    }
    assert_eq!(led(&mut first, "first", 600_000), None, "the second one's lease lasts");
    assert!(!first.leads() && second.leads());
    assert_eq!(led(&mut second, "second", 600_000), Some(next), "prolonging changes no fence");
    second.resign().expect("writable");
    assert!(led(&mut first, "first", 600_000) > Some(next), "nobody has to wait for a lease");
    // As after a restart of the first one, which knows that its earlier run has ended.
    first.step_down();
    assert_eq!(led(&mut first, "first", 600_000), None, "its own lease lasts, too");
    let again = first.lead("first", 600_000, true).expect("readable");
    assert!(matches!(again, Lease::Ours(fence) if fence > next), "{again:?}");
    let refused = second.lead("second", 600_000, true).expect("readable");
    assert!(matches!(refused, Lease::Theirs { .. }), "another name: {refused:?}");
    let refused = make(&mut second, "late");
    assert!(matches!(refused, Err(ControlError::NotLeader)), "{refused:?}");
}

/// A node that registers, as the tests need it.
fn node(name: &str, incarnation: u64) -> Node {
    Node {
        name: NodeName::parse(name).expect("a good name"),
        key_digest: [4; 32],
        incarnation,
        peers: Some("10.0.0.1:11300".parse().expect("an address")),
        backends_mib: vec![512, 512],
    }
}

fn epochs_are_committed_when_every_node_has_acknowledged(engine: &Engine) {
    let installation = Installation::on(engine);
    let feed = Feed::new(Arc::clone(&installation.control), DEFAULT);
    let (one, two) = (node("one", u64::MAX), node("two", 2));
    for node in [&one, &two, &two] {
        feed.register_node(node).expect("there is room");
    }
    assert_eq!(feed.nodes().expect("readable"), [one.clone(), two.clone()]);
    let audited = installation.rows("audit").len();
    feed.register_node(&one).expect("known");
    assert_eq!(installation.rows("audit").len(), audited, "nothing new, nothing written");

    let names = [one.name.clone(), two.name.clone()];
    let epoch = |number| Epoch::new(number);
    let prepare = |number| feed.prepare_epoch(epoch(number), b"topology", &[7; 32], &names);
    let wrong = |result: Result<(), ControlError>, expected: &str| {
        let error = result.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    prepare(1).expect("the first");
    wrong(prepare(1), "does not follow");
    wrong(feed.commit_epoch(epoch(1)), "2 members have not acknowledged");
    for _ in 0..2 {
        feed.acknowledge_epoch(epoch(1), &one.name).expect("a member");
    }
    wrong(feed.commit_epoch(epoch(1)), "1 members have not acknowledged");
    wrong(feed.acknowledge_epoch(epoch(2), &one.name), "not being prepared");
    let stranger = NodeName::parse("stranger").expect("a good name");
    wrong(feed.acknowledge_epoch(epoch(1), &stranger), "no node stranger");
    let refused = installation.run_sql("UPDATE epochs SET state = 'committed', decided_at = 1");
    assert!(refused.is_err(), "the database lets nobody commit too early");
    feed.acknowledge_epoch(epoch(1), &two.name).expect("a member");
    wrong(feed.settle_epoch(epoch(1)), "not in force");
    feed.commit_epoch(epoch(1)).expect("all have acknowledged");
    let committed = feed.epoch(EpochState::Committed).expect("readable").expect("just made");
    assert_eq!((committed.epoch, committed.settled), (epoch(1), false));
    assert_eq!(committed.topology, b"topology");
    feed.settle_epoch(epoch(1)).expect("in force");
    wrong(feed.commit_epoch(epoch(1)), "not being prepared");
    wrong(feed.remove_node(&two.name).map(drop), "member of the epoch in force");

    // The next but one takes the place of one that is still being prepared.
    prepare(2).expect("newer");
    prepare(3).expect("newer");
    wrong(feed.commit_epoch(epoch(2)), "not being prepared");
    for node in &names {
        feed.acknowledge_epoch(epoch(3), node).expect("a member");
    }
    feed.commit_epoch(epoch(3)).expect("all have acknowledged");
    prepare(4).expect("newer");
    feed.abort_epoch(epoch(4), "changed our mind").expect("being prepared");
    assert_eq!(feed.newest_epoch().expect("readable"), epoch(4));
    let states = installation.control.lock().lines("SELECT state FROM epochs ORDER BY epoch");
    let state = |name: &str| format!("Row([Text({name:?})])");
    assert_eq!(states, ["superseded", "aborted", "committed", "aborted"].map(state));
    assert!(installation.revisions().is_empty(), "nodes follow another log for this");
}

/// Control goes on with what it knew: whom it may give up depends on what others may have on their disks.
fn what_was_in_force_since_an_epoch_was_settled_is_found_after_a_restart(engine: &Engine) {
    let mut installation = Installation::on(engine);
    let mut expected = Announced::default();
    let check = |installation: &Installation, expected: &Announced| {
        let feed = Feed::new(Arc::clone(&installation.control), DEFAULT);
        let driver = Driver::open(Arc::new(feed), Arc::default()).expect("readable");
        assert_eq!(*driver.subscribe().borrow(), *expected);
    };
    check(&installation, &expected);
    let feed = Feed::new(Arc::clone(&installation.control), DEFAULT);
    for name in ["one", "two", "three"] {
        feed.register_node(&node(name, 1)).expect("there is room");
    }
    drop(feed);

    // Epochs by the nodes that are members, and whether they are settled; aborted ones have none.
    let epochs: [(&[&str], bool); 7] = [
        (&["one", "two", "three"], false),
        (&["one", "two"], true),
        (&["one", "two", "three"], false),
        (&[], false),
        (&["one", "three"], false),
        (&["three"], false),
        (&["two", "three"], true),
    ];
    let kept_few = Retention { epochs_max: 1, ..Retention::default() };
    for ((members, is_settled), epoch) in epochs.into_iter().zip(1..) {
        let feed = Feed::new(Arc::clone(&installation.control), DEFAULT);
        let names: Vec<NodeName> = members.iter().map(|name| node(name, 1).name).collect();
        let epoch = Epoch::new(epoch);
        if names.is_empty() {
            feed.prepare_epoch(epoch, b"", &[7; 32], &[]).expect("newer");
            feed.abort_epoch(epoch, "a test").expect("being prepared");
        } else {
            let topology = topology(epoch, members);
            let mut bytes = Vec::new();
            topology.encode(&mut bytes);
            let digest = *topology.digest().as_bytes();
            feed.prepare_epoch(epoch, &bytes, &digest, &names).expect("newer");
            names.iter().for_each(|it| feed.acknowledge_epoch(epoch, it).expect("a member"));
            feed.commit_epoch(epoch).expect("all have acknowledged");
            expected.put_in_force(Arc::new(topology));
        }
        check(&installation, &expected);
        if is_settled {
            feed.settle_epoch(epoch).expect("in force");
            expected.settle();
            check(&installation, &expected);
        }
        drop(feed);
        installation.control.trim(&kept_few).expect("nothing is in the way");
        installation = installation.restart();
        check(&installation, &expected);
    }
    let left = installation.control.lock().lines("SELECT count(*) FROM epochs");
    assert_eq!(left, ["Row([Int(1)])"], "the others are of no use any more");
}

fn topology(epoch: Epoch, nodes: &[&str]) -> Topology {
    let members = nodes.iter().map(|name| TopologyMember {
        name: MemberName::parse(&format!("{name}.b0")).expect("a good name"),
        node: wire::control::name::NodeName::parse(name).expect("a good name"),
        incarnation: Incarnation::new(1),
        address: "10.0.0.1:11300".parse().expect("an address"),
        weight: Weight::new(512),
    });
    let placement = Placement::Scheme(Scheme::Maglev);
    Topology::new(epoch, [1; 16], members.collect(), placement).expect("good")
}

fn clusters_have_logs_of_their_own(engine: &Engine) {
    let installation = Installation::on(engine);
    let control = &installation.control;
    installation.create("shop");
    let name = NodeName::parse("west").expect("a good name");
    let west = control.create_cluster(OPERATOR, name.clone()).expect("there is room");
    let again = control.create_cluster(OPERATOR, name.clone());
    assert!(matches!(again, Err(ControlError::ClusterNameTaken(_))), "{again:?}");
    assert_eq!(control.cluster_named(&name).expect("just made"), west);
    assert_ne!(west.slot_key, control.cluster(DEFAULT).expect("always there").slot_key);
    let seen = installation.data_plane.seen();
    let blog = CacheName::parse("blog").expect("a good name");
    let made = control.create_cache(OPERATOR, west.id, Some(blog), Plan::DEVELOPMENT);
    assert_eq!(made.expect("there is room").revision, Revision::new(1));
    assert_eq!(installation.data_plane.seen(), seen, "it is served elsewhere");
    let feed = Feed::new(Arc::clone(control), west.id);
    let (revision, records) = feed.snapshot().expect("readable");
    assert_eq!((revision, records.len()), (Revision::new(1), 2));
    assert_eq!(applied(&following(&feed, 0), &[]), applied(&[], &records));
    let unknown = control.create_cache(OPERATOR, ClusterId(77), None, Plan::DEVELOPMENT);
    assert!(matches!(unknown, Err(ControlError::UnknownCluster(_))), "{unknown:?}");
}

fn requests_that_are_no_caches_are_carried_out_once(engine: &Engine) {
    let installation = Installation::on(engine);
    let control = &installation.control;
    let west = NodeName::parse("west").expect("a good name");
    let made = control.create_cluster(by("cluster", 1), west.clone()).expect("there is room");
    let again = control.create_cluster(by("cluster", 1), west).expect("it was made");
    assert_eq!(made, again);
    let url = "http://127.0.0.1:9/";
    let put = || control.put_webhook(by("webhook", 2), url).expect("there is room");
    let ((webhook, secret), (same, again)) = (put(), put());
    assert_eq!((&webhook, secret.reveal()), (&same, again.reveal()), "the secret it has");
    let test = || control.test_webhook(by("test", 3), webhook.id).expect("it is there");
    assert_eq!(test(), test());
    let other = control.test_webhook(by("test again", 3), webhook.id).expect("it is there");
    assert_ne!(other.idempotency_key, test().idempotency_key);
    assert_eq!(control.calls(CallState::Waiting, 9).expect("readable").len(), 2);
    for _ in 0..2 {
        control.delete_webhook(by("delete", 4), webhook.id).expect("it was there");
    }
    let unknown = control.delete_webhook(by("delete more", 5), webhook.id);
    assert!(matches!(unknown, Err(ControlError::UnknownWebhook(_))), "{unknown:?}");
    let gone = control.put_webhook(by("webhook", 2), url);
    assert!(matches!(gone, Err(ControlError::Superseded)), "{gone:?}");
    // One key for two requests, here and among those of caches.
    installation.create("shop");
    let shop = cache_ref("shop");
    control.flush_cache(by("flush", 6), &shop).expect("it is there");
    let acts = [
        control.delete_webhook(by("webhook", 9), 1),
        control.delete_webhook(by("flush", 6), 1),
        control.flush_cache(by("webhook", 2), &shop).map(drop),
    ];
    for act in acts {
        assert!(matches!(act, Err(ControlError::KeyReused)), "{act:?}");
    }
    let lines = control.newest_audit(3).expect("readable");
    let actions: Vec<&str> = lines.iter().map(|line| line.action.as_str()).collect();
    assert_eq!(actions, ["webhook removed", "cache created", "cache flushed"]);
}

fn a_claimed_call_is_nobody_elses_until_the_claim_runs_out(engine: &Engine) {
    let installation = Installation::on(engine);
    let count = |state| installation.control.calls(state, 9).expect("readable").len();
    let long = Duration::from_secs(600);
    let control = &installation.control;
    control.put_webhook(OPERATOR, "http://127.0.0.1:9/").expect("there is room");
    installation.create("one");
    let claim = |claim: Duration| control.claim_call(claim, &[0; COURIERS]).expect("it leads");
    let Claimed::Call(first) = claim(Duration::ZERO) else { panic!("one is waiting") };
    // As after a death in the middle of the call: the claim has run out.
    let Claimed::Call(second) = claim(long) else { panic!("the claim has run out") };
    assert_eq!((first.attempts, second.attempts), (1, 2));
    assert_eq!(first.idempotency_key, second.idempotency_key);
    assert!(matches!(claim(long), Claimed::Later { .. }), "it is under way");
    // The first one's late word does not count any more; the second one's does.
    let problem = "too late".to_owned();
    control.settle_call(&first, &Outcome::Dead { problem }).expect("it leads");
    assert_eq!(count(CallState::Dead), 0);
    control.settle_call(&second, &Outcome::Sent).expect("it leads");
    assert_eq!(count(CallState::Sent), 1);
    let busy = [second.receiver.number(), 0, 0, 0];
    installation.create("two");
    let claimed = control.claim_call(long, &busy).expect("it leads");
    assert_eq!(claimed, Claimed::Nothing, "its webhook is being called");
}

/// Runs every check on every database. On SQLite each is a test of its own; on PostgreSQL they share
/// one test and one server, because starting a server takes longer than all of them.
macro_rules! conformance {
    ($($check:ident,)*) => {
        mod on_sqlite {
            use crate::pretend::Engine;
            $(
                #[test]
                fn $check() {
                    super::$check(&Engine::Sqlite);
                }
            )*
        }

        #[cfg(feature = "postgres")]
        const CHECKS: &[(&str, fn(&Engine))] = &[$((stringify!($check), $check),)*];
    };
}

conformance! {
    a_change_that_the_data_plane_refuses_leaves_nothing_behind,
    a_change_made_twice_is_harmless,
    every_change_is_written_down_with_who_and_what,
    a_new_cache_has_one_credential_that_opens_it_and_may_do_everything,
    a_cache_is_found_by_id_and_by_name,
    the_id_of_a_deleted_cache_is_never_given_again,
    a_deleted_cache_is_gone_everywhere,
    the_primary_credential_can_be_removed_only_after_another_is_promoted,
    a_credential_of_another_cache_is_unknown_here,
    capabilities_change_under_an_open_session,
    a_disabled_cache_refuses_and_an_enabled_one_serves_again,
    a_plan_change_reaches_data_plane_and_directory,
    a_cache_has_no_more_credentials_than_allowed,
    a_restart_keeps_everything,
    the_development_cache_is_made_once_and_shows_its_primary_credential,
    many_at_once_leave_a_log_without_gaps,
    the_database_refuses_what_must_not_be,
    pages_of_caches_follow_one_another,
    whoever_applies_the_changes_has_what_a_snapshot_has,
    what_is_trimmed_is_only_to_be_had_as_a_snapshot,
    unused_development_caches_are_disabled_and_can_be_enabled_again,
    rules_are_served_by_until_they_end,
    requests_for_rules_are_carried_out_once,
    a_cache_has_no_more_rules_than_allowed,
    a_repeated_request_is_carried_out_once,
    a_change_that_fails_at_any_statement_leaves_nothing_behind,
    a_commit_whose_answer_is_lost_counts,
    a_fence_keeps_out_who_led_before,
    epochs_are_committed_when_every_node_has_acknowledged,
    what_was_in_force_since_an_epoch_was_settled_is_found_after_a_restart,
    clusters_have_logs_of_their_own,
    requests_that_are_no_caches_are_carried_out_once,
    a_claimed_call_is_nobody_elses_until_the_claim_runs_out,
}

#[cfg(feature = "postgres")]
mod on_postgres {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Instant;

    use super::*;
    use crate::campaign::{Campaign, Pace};
    use crate::error::DatabaseFault;
    use crate::pretend::{PostgresServer, environment};

    #[test]
    fn everything_holds() {
        let engine = Engine::Postgres(PostgresServer::start());
        let holds = |check: fn(&Engine)| catch_unwind(AssertUnwindSafe(|| check(&engine))).is_ok();
        let failed: Vec<&str> =
            CHECKS.iter().filter(|(_, check)| !holds(*check)).map(|(name, _)| *name).collect();
        assert!(failed.is_empty(), "on PostgreSQL: {failed:?}");
    }

    /// The server says it in the middle of a change, as it does when a table has to grow: by a trigger, as
    /// it must not fill the disk of whoever runs this.
    #[test]
    fn a_server_whose_disk_is_full_says_so_and_changes_nothing() {
        let full = "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'no space left on device' USING ERRCODE = 'disk_full'; END $$;
            CREATE TRIGGER no_room BEFORE INSERT ON credentials EXECUTE FUNCTION no_room()";
        let engine = Engine::Postgres(PostgresServer::start());
        let on = Installation::on(&engine);
        let issued = [on.create("before")];
        on.run_sql(full).expect("a new trigger");
        let everything = on.everything(&issued);
        let late = CacheName::parse("late").expect("a good name");
        let create =
            || on.control.create_cache(OPERATOR, DEFAULT, Some(late.clone()), Plan::DEVELOPMENT);
        let refused = create().expect_err("there is no room");
        let ControlError::Database(error) = &refused else { panic!("{refused:?}") };
        assert_eq!(error.fault, DatabaseFault::Full, "{refused:?}");
        assert_eq!(refused.fault(), Fault::Busy, "the caller may try again");
        assert!(refused.is_for_operators(), "somebody has to make room");
        assert_eq!(on.everything(&issued), everything);
        on.run_sql("DROP TRIGGER no_room ON credentials").expect("it is there");
        create().expect("there is room again");
    }

    /// Two control processes on one server: the one that leads stands still, the other takes over, and
    /// the first one's late change does nothing.
    #[test]
    fn a_follower_takes_over_and_nothing_is_done_twice() {
        let server = PostgresServer::start();
        let access = server.new_database();
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let key = |at: usize| dirs[at].path().join("control.key");
        let open = |at: usize| {
            Control::open_postgres(dirs[at].path(), &access, environment()).map(Arc::new)
        };
        let first = open(0).expect("the server is there");
        assert!(matches!(open(1).err(), Some(OpenError::WrongKey)), "a key of its own");
        std::fs::copy(key(0), key(1)).expect("writable");
        let second = open(1).expect("the same key");
        let soon = Duration::from_millis(10);
        let pace = Pace { tick: soon, renewal: soon, lease: Duration::from_millis(300) };
        // The first one takes the lead and never asks again, as a process that stands still.
        first.lead("first", pace.lease, false);
        assert!(first.leads());
        let create = |control: &Control, name: &str| {
            let name = CacheName::parse(name).expect("a good name");
            control.create_cache(OPERATOR, DEFAULT, Some(name), Plan::DEVELOPMENT)
        };
        create(&first, "before").expect("it leads");
        // Nobody has led before, so the leader's authority is the nodes'; another one never leads.
        let (ours, others) = ([1; 32], [2; 32]);
        second.check_authority(&others, false).expect("there is none yet");
        first.check_authority(&ours, true).expect("it is the first");
        for adopt in [false, true] {
            let refused = second.check_authority(&others, adopt);
            assert!(matches!(refused, Err(OpenError::WrongAuthority)), "{refused:?}");
            second.check_authority(&ours, adopt).expect("a copy of the leader's");
        }
        let follower = create(&second, "early");
        assert!(matches!(follower, Err(ControlError::NotLeader)), "{follower:?}");

        let campaign = Campaign::start(&second, "second".to_owned(), pace).expect("a thread");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !second.leads() {
            assert!(Instant::now() < deadline, "the lease ran out long ago");
            thread::sleep(soon);
        }
        let late = create(&first, "late");
        assert!(matches!(late, Err(ControlError::NotLeader)), "{late:?}");
        let late = first.claim_call(soon, &[0; COURIERS]);
        assert!(matches!(late, Err(ControlError::NotLeader)), "it carries no calls either");
        let made = create(&second, "after").expect("it leads");
        assert_eq!(made.revision, Revision::new(2), "no gap, nothing doubled");
        let names = |control: &Control| -> Vec<String> {
            let caches = control.caches(CacheId::new(0), 9).expect("readable");
            caches.iter().map(|cache| cache.name.to_string()).collect()
        };
        assert_eq!(names(&first), ["before", "after"]);

        // The first one is a follower now: it hears of the other's changes, and takes over in turn.
        let mut newest = first.watch(DEFAULT);
        let back = Campaign::start(&first, "first".to_owned(), pace).expect("a thread");
        while *newest.borrow_and_update() < made.revision {
            assert!(Instant::now() < deadline, "a follower looks at the revisions");
            thread::sleep(soon);
        }
        drop(campaign);
        while !first.leads() {
            assert!(Instant::now() < deadline, "the second one has given up its lead");
            thread::sleep(soon);
        }
        assert_eq!(create(&first, "last").expect("it leads").revision, Revision::new(3));
        drop(back);
    }
}
