//! What a cache is asked for: its popular keys and prefixes, the prefixes that its owner watches, one key,
//! the last commands, and what it would hit with more or less memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tenancy::id::CacheId;
use wire::control::inquiry::{Command, KeyFigures, Popular, Popularity};

use super::{CacheFrame, Done, back, frame};
use crate::control::Control;
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, in_query, render};
use crate::dashboard::session::{Owner, Sent};
use crate::dashboard::units;
use crate::error::ControlError;
use crate::model::{Cache, CacheRef, UnixSeconds};

const TAB: &str = "introspection";
/// Keys or prefixes in a list: what one takes in at a glance.
const LIST_MAX: usize = 10;
/// Last commands that are shown, of all proxies together.
const COMMANDS_MAX: usize = 25;
/// Longest key and prefix in bytes, as in memcached.
const KEY_BYTES_MAX: usize = 250;
/// Further hits in percent of all gets from which on more memory is worth a word.
const GAIN_PERCENT_MIN: f64 = 1.0;

#[derive(Template)]
#[template(path = "introspection.html")]
struct IntrospectionPage {
    frame: Frame,
    cache: CacheFrame,
    panel: Panel,
    /// The key that was asked about.
    asked: String,
    found: Option<Found>,
}

/// The part of the page that is kept fresh.
#[derive(Template)]
#[template(path = "popular.html")]
struct Panel {
    cache: CacheId,
    token: String,
    keys: Vec<Ranking>,
    prefixes: Vec<PrefixRow>,
    watched: Vec<WatchedRow>,
    sizes: Vec<SizeRow>,
    /// What more memory would bring, in words.
    verdict: Option<String>,
    commands: Vec<CommandRow>,
    /// Whether there is more than one proxy, so that it matters which one was asked.
    has_proxies: bool,
    at: String,
}

/// What proxies and backends say of a cache.
#[derive(Default)]
struct Seen {
    popular: Popular,
    /// By the proxy's address, the oldest first.
    recent: BTreeMap<String, Vec<Command>>,
}

/// The keys with most of one kind of request.
struct Ranking {
    /// Distinguishes it on its page.
    id: &'static str,
    title: &'static str,
    column: &'static str,
    rows: Vec<KeyRow>,
}

struct KeyRow {
    key: Shown,
    count: String,
}

struct PrefixRow {
    prefix: Shown,
    figures: Figures,
    is_watched: bool,
}

struct WatchedRow {
    id: u64,
    name: String,
    /// `None` where none of its keys is among those asked for most.
    figures: Option<Figures>,
    keys: Vec<Shown>,
}

/// How a key or prefix was asked for of late, about.
struct Figures {
    hits: String,
    misses: String,
    writes: String,
}

struct SizeRow {
    label: String,
    memory: String,
    hits: String,
    /// For the bar.
    percent: u64,
    is_now: bool,
}

/// One of the last commands.
struct CommandRow {
    time: String,
    proxy: String,
    key: Shown,
    command: String,
    status: &'static str,
    size: Option<String>,
}

/// The last of all, the newest first.
fn last_commands(cache: CacheId, recent: BTreeMap<String, Vec<Command>>) -> Vec<CommandRow> {
    let of_proxy = |(proxy, commands): (String, Vec<Command>)| {
        commands.into_iter().rev().map(move |command| (proxy.clone(), command))
    };
    let mut all: Vec<(String, Command)> = recent.into_iter().flat_map(of_proxy).collect();
    // Within a second those of a proxy stay in their order.
    all.sort_by_key(|(_, command)| Reverse(command.at));
    all.truncate(COMMANDS_MAX);
    let row = |(proxy, command): (String, Command)| CommandRow {
        time: units::clock_with_seconds(UnixSeconds(command.at)),
        proxy,
        key: Shown::new(cache, &command.key),
        command: command.name,
        status: command.status.name(),
        size: (command.value_bytes != 0).then(|| units::bytes(command.value_bytes.into())),
    };
    all.into_iter().map(row).collect()
}

/// What is known of one key.
enum Found {
    Known { value: Option<String>, figures: Option<Figures> },
    Wrong(String),
}

/// Bytes that a client chose, as a page shows them.
#[derive(Template)]
#[template(path = "key.html")]
struct Shown {
    cache: CacheId,
    text: String,
    /// As part of an address; `None` for what is no text and can be asked for in no form.
    in_query: Option<String>,
}

impl Shown {
    fn new(cache: CacheId, bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(char::is_control) => {
                Shown { cache, text: text.to_owned(), in_query: Some(in_query(text)) }
            }
            Ok(_) | Err(_) => {
                Shown { cache, text: bytes.escape_ascii().to_string(), in_query: None }
            }
        }
    }
}

impl Figures {
    fn new(counted: &Popularity) -> Self {
        Figures {
            hits: units::count(counted.hits),
            misses: units::count(counted.misses),
            writes: units::count(counted.writes),
        }
    }
}

fn requests(counted: &Popularity) -> u64 {
    counted.hits + counted.misses + counted.writes
}

/// Those with most of what is counted, the first with most; none without any.
fn most(of: &[Popularity], count: fn(&Popularity) -> u64) -> Vec<&Popularity> {
    let mut most: Vec<&Popularity> = of.iter().filter(|one| count(one) > 0).collect();
    most.sort_by(|a, b| count(b).cmp(&count(a)).then_with(|| a.text.cmp(&b.text)));
    most.truncate(LIST_MAX);
    most
}

impl WatchedRow {
    fn new(cache: CacheId, (id, name): (u64, String), keys: &[Popularity]) -> Self {
        let under: Vec<Popularity> =
            keys.iter().filter(|key| key.text.starts_with(name.as_bytes())).cloned().collect();
        let sum = under.iter().fold(Popularity::default(), |sum, key| Popularity {
            hits: sum.hits + key.hits,
            misses: sum.misses + key.misses,
            writes: sum.writes + key.writes,
            ..sum
        });
        let figures = (requests(&sum) > 0).then(|| Figures::new(&sum));
        let keys = most(&under, requests).into_iter().map(|key| Shown::new(cache, &key.text));
        WatchedRow { id, name, figures, keys: keys.collect() }
    }
}

impl SizeRow {
    fn new((size, hits): (u32, f64), limit_bytes: u64) -> Self {
        let label = match size {
            100 => "as it is".to_owned(),
            200 => "twice".to_owned(),
            size if size.is_multiple_of(100) => format!("{} times", size / 100),
            50 => "half".to_owned(),
            25 => "a quarter".to_owned(),
            size => format!("{size} %"),
        };
        SizeRow {
            label,
            memory: units::bytes((u128::from(limit_bytes) * u128::from(size) / 100) as u64),
            hits: format!("{} %", units::three_digits(hits)),
            percent: hits.round() as u64,
            is_now: size == 100,
        }
    }
}

/// What the curve says about twice the memory.
fn verdict(curve: &[(u32, f64)], limit_bytes: u64) -> Option<String> {
    let at = |size| curve.iter().find(|(one, _)| *one == size).map(|(_, hits)| *hits);
    let (now, twice) = (at(100)?, at(200)?);
    if twice - now < GAIN_PERCENT_MIN {
        return Some("Twice the memory would bring hardly any more hits.".to_owned());
    }
    let (memory, more) = (units::bytes(limit_bytes.saturating_mul(2)), units::three_digits(twice));
    let now = units::three_digits(now);
    Some(format!("With twice the memory, {memory}, about {more} % of gets would hit, not {now} %."))
}

impl Panel {
    fn new(
        cache: &Cache,
        token: String,
        Seen { popular, recent }: Seen,
        watched: Vec<(u64, String)>,
        at: String,
    ) -> Self {
        let (id, limit_bytes) = (cache.id, cache.plan.limits.memory_bytes);
        let ranking = |name, title, column, count: fn(&Popularity) -> u64| {
            let row = |key: &Popularity| KeyRow {
                key: Shown::new(id, &key.text),
                count: units::count(count(key)),
            };
            let rows = most(&popular.keys, count).into_iter().map(row).collect();
            Ranking { id: name, title, column, rows }
        };
        let prefix = |prefix: &Popularity| PrefixRow {
            prefix: Shown::new(id, &prefix.text),
            figures: Figures::new(prefix),
            is_watched: watched.iter().any(|(_, name)| name.as_bytes() == prefix.text),
        };
        let curve = popular.sizes.hits_percent();
        let mut sizes = curve.clone();
        sizes.sort_by_key(|(size, _)| Reverse(*size));
        Panel {
            cache: id,
            token,
            keys: vec![
                ranking("hit", "Most hit", "Hits", |key| key.hits),
                ranking("missed", "Most missed", "Misses", |key| key.misses),
                ranking("changed", "Most changed", "Changes", |key| key.writes),
            ],
            prefixes: most(&popular.prefixes, requests).into_iter().map(prefix).collect(),
            watched: watched
                .into_iter()
                .map(|one| WatchedRow::new(id, one, &popular.keys))
                .collect(),
            sizes: sizes.into_iter().map(|size| SizeRow::new(size, limit_bytes)).collect(),
            verdict: verdict(&curve, limit_bytes),
            has_proxies: 1 < recent.len(),
            commands: last_commands(id, recent),
            at,
        }
    }

    fn is_empty(&self) -> bool {
        self.prefixes.is_empty() && self.keys.iter().all(|ranking| ranking.rows.is_empty())
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    key: Option<String>,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    owner: Owner,
    Query(asked): Query<Asked>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let asked = asked.key.unwrap_or_default().trim().to_owned();
    let (cache, key) = (owner.cache.id, asked.clone());
    let found = match asked.len() {
        0 => None,
        1..=KEY_BYTES_MAX => {
            let look = move |control: &Control| look(control, &CacheRef::Id(cache), key.as_bytes());
            Some(dashboard.call(look).await?)
        }
        _ => Some(Found::Wrong(format!("A key is at most {KEY_BYTES_MAX} bytes long."))),
    };
    Ok(render(&IntrospectionPage {
        frame: frame(&owner, "Introspection", done.done.as_deref()),
        cache: CacheFrame::new(&owner, TAB),
        panel: panel(&dashboard, &owner).await?,
        asked,
        found,
    }))
}

/// Only the panel: what the script asks for every few seconds.
pub(super) async fn live(
    State(dashboard): State<Dashboard>,
    owner: Owner,
) -> Result<Response, Failure> {
    Ok(render(&panel(&dashboard, &owner).await?))
}

async fn panel(dashboard: &Dashboard, owner: &Owner) -> Result<Panel, Failure> {
    let (cache, token) = (owner.cache.clone(), owner.token.reveal().to_owned());
    let api = dashboard.api.clone();
    dashboard
        .call(move |control| {
            let which = CacheRef::Id(cache.id);
            let seen = match see(control, &which, |proxy| api.server(proxy)) {
                // Nodes that do not answer have nothing to tell.
                Err(ControlError::DataPlane(_)) => Seen::default(),
                other => other?,
            };
            let watched = control.prefixes(&which)?;
            Ok(Panel::new(&cache, token, seen, watched, units::time(control.now())))
        })
        .await
}

/// `server` is what clients call a proxy.
fn see(
    control: &Control,
    cache: &CacheRef,
    server: impl Fn(&str) -> String,
) -> Result<Seen, ControlError> {
    let (popular, recent) = (control.popular(cache)?, control.recent(cache)?);
    let recent = recent.into_iter().map(|(proxy, commands)| (server(&proxy), commands));
    Ok(Seen { popular, recent: recent.collect() })
}

fn look(control: &Control, cache: &CacheRef, key: &[u8]) -> Result<Found, ControlError> {
    match control.key(cache, key) {
        Ok(KeyFigures { value_bytes, counted }) => Ok(Found::Known {
            value: value_bytes.map(units::bytes),
            figures: counted.as_ref().map(Figures::new),
        }),
        Err(ControlError::DataPlane(_)) => {
            Ok(Found::Wrong("The nodes that serve this cache cannot be asked now.".to_owned()))
        }
        Err(error) => Err(error),
    }
}

pub(super) async fn watch(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let name = fields.get("prefix").to_owned();
    if !(1..=KEY_BYTES_MAX).contains(&name.len()) || name.chars().any(char::is_control) {
        let wrong = format!("A prefix is 1 to {KEY_BYTES_MAX} printable bytes.");
        return Err(Failure::Wrong(wrong));
    }
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.watch_prefix(actor, &cache, &name)).await?;
    Ok(back(&owner, TAB, "watched"))
}

pub(super) async fn unwatch(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    let id = fields.number("id")?;
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.unwatch_prefix(actor, &cache, id)).await?;
    Ok(back(&owner, TAB, "unwatched"))
}

#[cfg(test)]
mod tests {
    use wire::control::inquiry::Status;

    use super::*;

    const CACHE: CacheId = CacheId::new(1);

    fn popularity(text: &str, hits: u64, misses: u64) -> Popularity {
        Popularity { text: text.into(), hits, misses, writes: 0 }
    }

    #[test]
    fn a_list_has_the_most_first_and_nothing_without_any() {
        let keys = [popularity("a", 1, 0), popularity("b", 5, 0), popularity("c", 0, 9)];
        let named = |most: Vec<&Popularity>| -> Vec<String> {
            most.iter().map(|one| String::from_utf8_lossy(&one.text).into_owned()).collect()
        };
        assert_eq!(named(most(&keys, |key| key.hits)), ["b", "a"]);
        assert_eq!(named(most(&keys, requests)), ["c", "b", "a"]);
    }

    #[test]
    fn a_watched_prefix_is_the_sum_of_its_keys() {
        let keys = [popularity("user:1", 3, 1), popularity("user:2", 2, 0), popularity("x", 9, 9)];
        let row = WatchedRow::new(CACHE, (7, "user:".to_owned()), &keys);
        let figures = row.figures.expect("two of its keys are known");
        assert_eq!((figures.hits.as_str(), figures.misses.as_str()), ("5", "1"));
        let keys: Vec<_> = row.keys.iter().map(|key| key.text.as_str()).collect();
        assert_eq!(keys, ["user:1", "user:2"]);
        assert!(WatchedRow::new(CACHE, (8, "none".to_owned()), &[]).figures.is_none());
    }

    #[test]
    fn the_last_commands_of_all_proxies_are_told_the_newest_first() {
        let command = |at: u64, key: &str| Command {
            at,
            key: key.into(),
            name: "get".to_owned(),
            status: Status::Hit,
            value_bytes: 5,
        };
        let one = vec![command(9, "a"), command(10, "b"), command(10, "c")];
        let many = (0..100).map(|at| command(at % 10, "old")).collect();
        let recent = [("p:1", one), ("q:1", vec![command(11, "d")]), ("r:1", many)];
        let recent = recent.map(|(proxy, commands)| (proxy.to_owned(), commands));
        let rows = last_commands(CACHE, recent.into());
        assert_eq!(rows.len(), COMMANDS_MAX);
        let told = |row: &CommandRow| (row.time.clone(), row.proxy.clone(), row.key.text.clone());
        let first: Vec<_> = rows.iter().take(4).map(told).collect();
        let expected =
            [("11", "q:1", "d"), ("10", "p:1", "c"), ("10", "p:1", "b"), ("09", "p:1", "a")];
        let expected = expected.map(|(seconds, proxy, key)| {
            (format!("00:00:{seconds}"), proxy.to_owned(), key.to_owned())
        });
        assert_eq!(first, expected);
        assert_eq!((rows[0].status, rows[0].size.as_deref()), ("HIT", Some("5 bytes")));
    }

    #[test]
    fn what_is_no_text_is_shown_with_escapes_and_cannot_be_asked_for() {
        for (bytes, text, link) in [
            (&b"user:1"[..], "user:1", Some("user%3A1")),
            ("schön".as_bytes(), "schön", Some("sch%C3%B6n")),
            (b"\xff\n", "\\xff\\n", None),
            (b"a\x1bb", "a\\x1bb", None),
        ] {
            let shown = Shown::new(CACHE, bytes);
            assert_eq!((shown.text.as_str(), shown.in_query.as_deref()), (text, link));
        }
    }

    #[test]
    fn more_memory_is_recommended_only_where_it_helps() {
        let limit = 100 << 20;
        let helps = verdict(&[(50, 60.0), (100, 80.0), (200, 91.26)], limit).expect("known");
        assert_eq!(
            helps,
            "With twice the memory, 200 MiB, about 91.3 % of gets would hit, not 80 %."
        );
        let useless = verdict(&[(100, 99.5), (200, 99.9)], limit).expect("known");
        assert!(useless.contains("hardly"), "{useless}");
        assert_eq!(verdict(&[], limit), None);
    }
}
