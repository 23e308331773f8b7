//! Changes: what they do, that they fail as a whole, and what is written down about them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tenancy::capability::Capability;
use tenancy::directory::AuthenticationError;
use wire::control::record::{Delta, Record};

use super::*;
use crate::data_plane::DataPlaneError;
use crate::database::{CREDENTIALS_PER_CACHE_MAX, Changes};
use crate::error::Fault;
use crate::feed::Feed;
use crate::model::Once;
use crate::pretend::{Installation, NOW, open};

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
        let database = self.control.lock();
        let sql = format!("SELECT * FROM {table} ORDER BY 1");
        let mut statement = database.sqlite().prepare(&sql).expect("the table is there");
        let columns = statement.column_count();
        let rows = statement
            .query_map([], |row| {
                let values: Result<Vec<_>, _> =
                    (0..columns).map(|at| row.get_ref(at).map(|v| format!("{v:?}"))).collect();
                Ok(values?.join(" "))
            })
            .expect("readable");
        rows.map(|row| row.expect("readable")).collect()
    }

    /// All there is: every row, what the data plane holds, and what the directory answers.
    fn everything(&self, issued: &[Issued]) -> Vec<String> {
        let mut lines = Vec::new();
        for table in ["caches", "credentials", "changes", "audit", "sqlite_sequence"] {
            lines.extend(self.rows(table).into_iter().map(|row| format!("{table}: {row}")));
        }
        lines.push(format!("{:?}", self.data_plane.seen()));
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
        let database = self.control.lock();
        let sql = "SELECT revision FROM changes WHERE cluster_id = 1 ORDER BY revision";
        let mut statement = database.sqlite().prepare(sql).expect("the table is there");
        let rows = statement.query_map([], |row| row.get(0)).expect("readable");
        rows.map(|row| row.expect("a number")).collect()
    }
}

/// Two caches: "shop" with a primary credential and another, "blog" with one.
struct Two {
    installation: Installation,
    primary: Issued,
    other: Issued,
    blog: Issued,
}

fn two() -> Two {
    let installation = Installation::new();
    let primary = installation.create("shop");
    let blog = installation.create("blog");
    let other = installation.add("shop");
    Two { installation, primary, other, blog }
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
        let two = two();
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
        // Making the two caches and the credential took three changes.
        assert_eq!(two.installation.revisions(), [1, 2, 3, 4], "{}", act.name);
    }
}

#[test]
fn a_change_whose_commit_fails_leaves_nothing_behind() {
    for act in ACTS.iter().filter(|act| act.name != "flush") {
        let two = two();
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

#[test]
fn a_change_that_the_data_plane_refuses_leaves_nothing_behind() {
    let refused = DataPlaneError::NoRoom { available_bytes: 7 };
    let asking = ["create", "create without a name", "development cache", "change plan", "flush"];
    for act in ACTS.iter().filter(|act| asking.contains(&act.name)) {
        let two = two();
        let before = two.everything();
        two.installation.data_plane.refuse(Some(refused.clone()));
        match (act.run)(&two) {
            Err(ControlError::DataPlane(error)) => assert_eq!(error, refused),
            other => panic!("{}: {other:?}", act.name),
        }
        assert_eq!(two.everything(), before, "{}", act.name);
    }
}

#[test]
fn a_change_made_twice_is_harmless() {
    for act in ACTS {
        let two = two();
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

#[test]
fn every_change_is_written_down_with_who_and_what() {
    for act in ACTS {
        let two = two();
        let before = two.installation.rows("audit");
        (act.run)(&two).expect("nothing is in the way");
        let after = two.installation.rows("audit");
        assert_eq!(after.len(), before.len() + 1, "{}", act.name);
        assert_eq!(after[..before.len()], before);
        let actor = if act.name == "development cache" { Actor::Installation } else { OPERATOR };
        let row = after.last().expect("one was added");
        assert!(
            row.contains(&format!(
                "{:?}",
                rusqlite::types::ValueRef::Text(actor.name().as_bytes())
            )),
            "{row}"
        );
        assert!(row.contains(&format!("Integer({})", NOW.0)), "{row}");
    }
}

#[test]
fn no_password_is_in_any_table() {
    let two = two();
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

#[test]
fn a_new_cache_has_one_credential_that_opens_it_and_may_do_everything() {
    let installation = Installation::new();
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

#[test]
fn a_cache_is_found_by_id_and_by_name() {
    let installation = Installation::new();
    let id = installation.create("shop").credential.cache;
    for text in [id.to_string().as_str(), "shop"] {
        assert_eq!(installation.control.cache(&cache_ref(text)).expect("found").id, id);
    }
    for text in ["0", "18446744073709551615", "2", "Shop", "shop2"] {
        let error = installation.control.cache(&cache_ref(text)).expect_err("there is none");
        assert_eq!(error.to_string(), format!("there is no cache {text}"));
    }
}

#[test]
fn the_id_of_a_deleted_cache_is_never_given_again() {
    let installation = Installation::new();
    let first = installation.create("shop").credential.cache;
    installation.control.delete_cache(OPERATOR, &cache_ref("shop")).expect("it is there");
    let installation = installation.restart();
    assert!(first < installation.create("shop").credential.cache);
}

#[test]
fn a_deleted_cache_is_gone_everywhere() {
    let two = two();
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

#[test]
fn the_primary_credential_can_be_removed_only_after_another_is_promoted() {
    let two = two();
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

#[test]
fn a_credential_of_another_cache_is_unknown_here() {
    let two = two();
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

#[test]
fn capabilities_change_under_an_open_session() {
    let two = two();
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

#[test]
fn a_disabled_cache_refuses_and_an_enabled_one_serves_again() {
    let two = two();
    let control = &two.installation.control;
    control.set_enabled(OPERATOR, &cache_ref("shop"), false).expect("it is there");
    let answer = two.installation.authenticates(&two.primary);
    assert_eq!(answer, Err(AuthenticationError::CacheDisabled));
    assert_eq!(two.installation.authenticates(&two.blog), Ok(()));
    control.set_enabled(OPERATOR, &cache_ref("shop"), true).expect("it is there");
    assert_eq!(two.installation.authenticates(&two.primary), Ok(()));
}

#[test]
fn a_plan_change_reaches_data_plane_and_directory() {
    let two = two();
    let control = &two.installation.control;
    let changed = control.change_plan(OPERATOR, &cache_ref("shop"), plan("5000"));
    let cache = changed.expect("it fits").value;
    let limits = plan("5000").limits;
    assert_eq!(two.installation.data_plane.seen()[&cache.id.get()].0, limits);
    let entry = control.directory().cache(cache.id).expect("it is there");
    assert_eq!(entry.item_bytes_max(), limits.item_bytes_max);
    assert_eq!(entry.connections_max(), limits.connections_max);
}

#[test]
fn a_cache_has_no_more_credentials_than_allowed() {
    let installation = Installation::new();
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

#[test]
fn a_restart_keeps_everything() {
    let two = two();
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

#[test]
fn the_development_cache_is_made_once_and_shows_its_primary_credential() {
    let installation = Installation::new();
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
    let Installation { control, data_plane, dir } = installation;
    drop(control);
    data_plane.refuse(Some(DataPlaneError::NoRoom { available_bytes: 0 }));
    match open(dir.path(), &data_plane).err() {
        Some(OpenError::DataPlane { cache, .. }) => assert_eq!(cache, id),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_key_is_noticed_at_the_start() {
    let Installation { control, data_plane, dir } = Installation::new();
    drop(control);
    std::fs::remove_file(dir.path().join("control.key")).expect("it is there");
    let refused = open(dir.path(), &data_plane).err();
    let missing =
        |error: &OpenError| matches!(error, OpenError::DataDir(DataDirError::KeyMissing { .. }));
    assert!(refused.as_ref().is_some_and(missing), "{refused:?}");
}

#[test]
fn another_key_opens_no_password() {
    let installation = Installation::new();
    installation.create("shop");
    let Installation { control, data_plane, dir } = installation;
    drop(control);
    let key = dir.path().join("control.key");
    std::fs::write(key, "5".repeat(64)).expect("writable");
    let control = open(dir.path(), &data_plane).expect("nothing is unsealed at the start");
    let error = control.issued(&cache_ref("shop")).expect_err("another key");
    assert!(matches!(error, ControlError::Sealed { .. }), "{error}");
}

#[test]
fn many_at_once_leave_a_log_without_gaps() {
    let installation = Installation::new();
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
#[test]
fn the_database_refuses_what_must_not_be() {
    let two = two();
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
        "INSERT INTO changes VALUES (1, 5, 0, 'cache created', 1, NULL, '{}')".to_owned(),
        "INSERT INTO changes VALUES (1, 4, 0, 'cache eaten', 1, NULL, '{}')".to_owned(),
        "INSERT INTO changes VALUES (9, 1, 0, 'cache created', 1, NULL, '{}')".to_owned(),
        "UPDATE clusters SET revision = revision + 1".to_owned(),
        "UPDATE clusters SET revision = revision - 1".to_owned(),
        "DELETE FROM changes".to_owned(),
        "UPDATE leadership SET fence = fence - 1".to_owned(),
        "UPDATE changes SET cache_id = 9".to_owned(),
        "UPDATE audit SET actor = 'nobody'".to_owned(),
    ] {
        assert!(two.installation.run_sql(&wrong).is_err(), "{wrong}");
        assert_eq!(two.everything(), before, "{wrong}");
    }
}

#[test]
fn pages_of_caches_follow_one_another() {
    let installation = Installation::new();
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

#[test]
fn whoever_applies_the_changes_has_what_a_snapshot_has() {
    for act in ACTS {
        let two = two();
        let feed = Feed::new(Arc::clone(&two.installation.control), DEFAULT);
        let newest = feed.watch();
        let (_, before) = feed.snapshot().expect("readable");
        (act.run)(&two).expect("nothing is in the way");
        let (revision, after) = feed.snapshot().expect("readable");
        assert_eq!((revision.get(), *newest.borrow()), (4, revision), "{}", act.name);
        let expected = applied(&[], &after);
        assert_eq!(applied(&following(&feed, 3), &before), expected, "{}", act.name);
        let all = following(&feed, 0);
        assert_eq!(applied(&all, &[]), expected, "{}", act.name);
        let revisions: Vec<u64> = all.iter().map(|delta| delta.revision.get()).collect();
        assert_eq!(revisions, [1, 2, 3, 4]);
        let never = feed.changes_since(Revision::new(5), 9).expect("readable");
        assert_eq!(never, Changes::TakeSnapshot, "a revision that never was");
    }
}

#[test]
fn what_is_trimmed_is_only_to_be_had_as_a_snapshot() {
    let two = two();
    let control = Arc::clone(&two.installation.control);
    let feed = Feed::new(Arc::clone(&control), DEFAULT);
    let kept_one = Retention { changes_max: 1, ..Retention::default() };
    assert!(!control.trim(&kept_one).expect("nothing is in the way"), "all of it fits one batch");
    assert_eq!(two.installation.revisions(), [3]);
    assert_eq!(following(&feed, 2).len(), 1);
    let too_old = feed.changes_since(Revision::new(1), 9).expect("readable");
    assert_eq!(too_old, Changes::TakeSnapshot);
    // The newest one stays whatever is asked: the next must follow on it.
    let kept_none = Retention { changes_max: 0, ..kept_one };
    assert!(control.trim(&kept_none).is_err(), "the newest change stays");
}

#[test]
fn unused_development_caches_are_disabled_and_can_be_enabled_again() {
    let two = two();
    let control = &two.installation.control;
    control.change_plan(OPERATOR, &cache_ref("blog"), plan("100")).expect("it fits");
    let disabled = |control: &Control| -> Vec<String> {
        let caches = control.disable_unused().expect("nothing is in the way");
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

#[test]
fn a_repeated_request_is_carried_out_once() {
    let two = two();
    let control = &two.installation.control;
    let by = |key: &str, digest: u8| By {
        actor: OPERATOR,
        once: Some(Once { key: key.to_owned(), request_digest: [digest; 32] }),
    };
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
