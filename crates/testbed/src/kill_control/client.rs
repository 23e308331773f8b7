//! A client that changes caches of its own, and knows what must be there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::api::{Answer, Api};
use crate::differential::random::Random;

/// Caches that one client has at a time: more would only fill the memory that they reserve.
const CACHES_MAX: usize = 4;
/// Credentials that one cache has at a time.
const CREDENTIALS_MAX: usize = 5;
/// Rules for addresses that one cache has at a time.
const RULES_MAX: usize = 3;

/// Longer than any run: a rule that ends by itself would be a change that nobody asked for.
const RULE_SECONDS: u64 = 30 * 24 * 60 * 60;

pub(super) struct Client {
    number: usize,
    random: Random,
    /// Requests it has thought of, for their keys and for the names of caches.
    thought: u64,
    /// What was not answered yet.
    pending: Option<Wish>,
    caches: BTreeMap<String, Cache>,
    /// Every request that was answered, in order.
    pub(super) changes: Vec<Change>,
    pub(super) repeated: u64,
    pub(super) already_done: u64,
    /// The newest revision there was when the pending request was sent first.
    revision_before: u64,
}

/// What a client knows of one of its caches.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cache {
    enabled: bool,
    primary: String,
    /// Read-only or not, by username.
    credentials: BTreeMap<String, bool>,
    /// Blocked networks by the numbers of their rules.
    rules: BTreeMap<u64, String>,
}

/// A request that was answered.
pub(super) struct Change {
    pub(super) revision: u64,
    /// As the log names it.
    pub(super) action: &'static str,
    pub(super) cache: String,
}

/// A request, and what it is for.
#[derive(Debug, Clone)]
struct Wish {
    key: String,
    cache: String,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Create,
    Delete,
    SetEnabled(bool),
    Flush,
    AddCredential,
    RemoveCredential(String),
    Promote(String),
    SetReadOnly(String, bool),
    Block(String),
    RemoveRule(u64),
}

impl Act {
    const fn logged_as(&self) -> &'static str {
        match self {
            Act::Create => "cache created",
            Act::Delete => "cache deleted",
            Act::SetEnabled(true) => "cache enabled",
            Act::SetEnabled(false) => "cache disabled",
            Act::Flush => "cache flushed",
            Act::AddCredential => "credential added",
            Act::RemoveCredential(_) => "credential removed",
            Act::Promote(_) => "credential promoted",
            Act::SetReadOnly(..) => "capabilities changed",
            Act::Block(_) => "rule added",
            Act::RemoveRule(_) => "rule removed",
        }
    }

    fn request(&self, cache: &str) -> (&'static str, String, Value) {
        let path = format!("/v1/caches/{cache}");
        match self {
            Act::Create => ("POST", "/v1/caches".to_owned(), json!({ "name": cache })),
            Act::Delete => ("DELETE", path, Value::Null),
            Act::SetEnabled(enabled) => {
                ("PUT", format!("{path}/enabled"), json!({ "enabled": enabled }))
            }
            Act::Flush => ("POST", format!("{path}/flush"), Value::Null),
            Act::AddCredential => ("POST", format!("{path}/credentials"), Value::Null),
            Act::RemoveCredential(username) => {
                ("DELETE", format!("{path}/credentials/{username}"), Value::Null)
            }
            Act::Promote(username) => {
                ("PUT", format!("{path}/primary"), json!({ "username": username }))
            }
            Act::SetReadOnly(username, read_only) => {
                let wish = json!({ "write": !read_only });
                ("PATCH", format!("{path}/credentials/{username}"), wish)
            }
            Act::Block(network) => {
                let wish = json!({ "network": network, "cache": cache, "reason": "a test",
                    "seconds": RULE_SECONDS, "force": true });
                ("POST", "/v1/rules".to_owned(), wish)
            }
            Act::RemoveRule(id) => ("DELETE", format!("/v1/rules/{id}"), Value::Null),
        }
    }
}

impl Client {
    pub(super) fn new(number: usize, seed: u64) -> Self {
        Client {
            number,
            random: Random::new(seed.wrapping_mul(1_000).wrapping_add(number as u64)),
            thought: 0,
            pending: None,
            caches: BTreeMap::new(),
            changes: Vec::new(),
            repeated: 0,
            already_done: 0,
            revision_before: 0,
        }
    }

    /// Changes one thing after another, until an answer fails to come.
    pub(super) fn work(&mut self, api: &Api) {
        loop {
            let wish = self.think();
            self.pending = Some(wish);
            if !self.ask(api) {
                return;
            }
        }
    }

    /// Repeats the request that got no answer, until it gets one.
    pub(super) fn settle(&mut self, api: &Api) {
        if self.pending.is_none() {
            return;
        }
        self.repeated += 1;
        let clusters = api.get("/v1/clusters");
        self.revision_before = clusters["clusters"][0]["revision"].as_u64().expect("a number");
        let before = self.changes.len();
        assert!(self.ask(api), "client {}: no answer, and nobody kills it now", self.number);
        let done_before = |change: &Change| change.revision <= self.revision_before;
        self.already_done += u64::from(self.changes[before..].iter().any(done_before));
    }

    /// Sends what is pending. Returns whether it was answered.
    fn ask(&mut self, api: &Api) -> bool {
        let Some(wish) = self.pending.clone() else { return true };
        let (method, path, body) = wish.act.request(&wish.cache);
        match api.change(method, &path, &wish.key, &body) {
            // The server may be on its way up or down; it says so, and has done nothing.
            None | Some(Answer { status: 503 | 504, .. }) => false,
            Some(answer) => {
                self.pending = None;
                self.believe(&wish, &answer);
                true
            }
        }
    }

    /// Notes what an answer says has been done.
    fn believe(&mut self, wish: &Wish, answer: &Answer) {
        let Wish { cache: name, act, key } = wish;
        assert!(
            (200..300).contains(&answer.status),
            "{key} {act:?} of {name}: {} {}",
            answer.status,
            answer.body
        );
        let revision = answer.revision.expect("every change has its revision");
        self.changes.push(Change { revision, action: act.logged_as(), cache: name.clone() });
        let word = |value: &Value| value.as_str().expect("a word").to_owned();
        if matches!(act, Act::Create) {
            let credential = &answer.body["credentials"][0];
            assert!(credential["password"].is_string(), "{key}: a password that nobody knows");
            let primary = word(&credential["username"]);
            let credentials = BTreeMap::from([(primary.clone(), false)]);
            let cache = Cache { enabled: true, primary, credentials, rules: BTreeMap::new() };
            assert!(self.caches.insert(name.clone(), cache).is_none(), "{key}: made twice");
            return;
        }
        let cache = self.caches.get_mut(name).expect("it was made before");
        match act {
            Act::Create | Act::Flush => (),
            Act::Delete => drop(self.caches.remove(name)),
            Act::SetEnabled(enabled) => cache.enabled = *enabled,
            Act::AddCredential => {
                let before = cache.credentials.insert(word(&answer.body["username"]), false);
                assert_eq!(before, None, "{key}: given twice");
            }
            Act::RemoveCredential(username) => drop(cache.credentials.remove(username)),
            Act::Promote(username) => cache.primary.clone_from(username),
            Act::SetReadOnly(username, read_only) => {
                cache.credentials.insert(username.clone(), *read_only);
            }
            Act::Block(network) => {
                let id = answer.body["id"].as_u64().expect("a number");
                let before = cache.rules.insert(id, network.clone());
                assert_eq!(before, None, "{key}: given twice");
            }
            Act::RemoveRule(id) => drop(cache.rules.remove(id)),
        }
    }

    /// A request that must succeed and that changes something.
    fn think(&mut self) -> Wish {
        self.thought += 1;
        let key = format!("client-{}-{}", self.number, self.thought);
        let names: Vec<String> = self.caches.keys().cloned().collect();
        if names.is_empty() || (names.len() < CACHES_MAX && self.random.below(6) == 0) {
            let cache = format!("c{}-{}", self.number, self.thought);
            return Wish { key, cache, act: Act::Create };
        }
        let name = self.pick(&names);
        let cache = self.caches[&name].clone();
        let others: Vec<String> =
            cache.credentials.keys().filter(|one| **one != cache.primary).cloned().collect();
        let act = match self.random.below(16) {
            0 => Act::Delete,
            1 | 2 => Act::SetEnabled(!cache.enabled),
            3 => Act::Flush,
            4 | 5 if !others.is_empty() => Act::Promote(self.pick(&others)),
            6 | 7 if !others.is_empty() => Act::RemoveCredential(self.pick(&others)),
            8 | 9 if !others.is_empty() => {
                let username = self.pick(&others);
                let read_only = cache.credentials[&username];
                Act::SetReadOnly(username, !read_only)
            }
            12 | 13 if cache.rules.len() < RULES_MAX => {
                let [.., high, low] = self.thought.to_be_bytes();
                Act::Block(format!("10.{}.{high}.{low}", self.number))
            }
            14 | 15 if !cache.rules.is_empty() => {
                let (&id, _) = cache.rules.first_key_value().expect("it is not empty");
                Act::RemoveRule(id)
            }
            _ if cache.credentials.len() < CREDENTIALS_MAX => Act::AddCredential,
            _ => Act::Flush,
        };
        Wish { key, cache: name, act }
    }

    fn pick(&mut self, from: &[String]) -> String {
        from[self.random.below(from.len())].clone()
    }

    /// Compares what there is with what was said to have been done.
    pub(super) fn check(&mut self, api: &Api, seed: u64) {
        let number = self.number;
        let listed = api.get("/v1/caches?limit=1000");
        let own = format!("c{number}-");
        let there: BTreeSet<String> = listed["caches"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|cache| cache["name"].as_str())
            .filter(|name| name.starts_with(&own))
            .map(str::to_owned)
            .collect();
        let known: BTreeSet<String> = self.caches.keys().cloned().collect();
        assert_eq!(there, known, "seed {seed}: caches of client {number}");
        let rules = api.get("/v1/rules?limit=1000");
        let rules = rules["rules"].as_array().expect("a list");
        for (name, known) in &self.caches {
            let there = api.get(&format!("/v1/caches/{name}"));
            let credentials = there["credentials"].as_array().expect("a list");
            let credential = |one: &Value| {
                let capabilities = one["capabilities"].as_array().expect("a list");
                let read_only = !capabilities.iter().any(|capability| capability == "write");
                (one["username"].as_str().expect("a word").to_owned(), read_only)
            };
            let own = rules.iter().filter(|rule| rule["cache_name"] == name.as_str());
            let rule = |rule: &Value| {
                let network = rule["network"].as_str().expect("a word").to_owned();
                (rule["id"].as_u64().expect("a number"), network)
            };
            let there = Cache {
                rules: own.map(rule).collect(),
                enabled: there["enabled"].as_bool().expect("a truth"),
                primary: there["primary_username"].as_str().expect("a word").to_owned(),
                credentials: credentials.iter().map(credential).collect(),
            };
            assert_eq!(there, *known, "seed {seed}: {name}");
        }
    }
}
