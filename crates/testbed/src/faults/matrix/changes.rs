//! Somebody who adds and removes credentials through the control API, whatever becomes of control, and
//! knows which must be there: what was acknowledged is never lost, and what was refused never done.
//!
//! A request that got no answer is repeated under its idempotency key until it has one. One thing at a
//! time, so that what is there is known whenever nothing is on its way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::connection::Login;
use crate::eventually::{DEADLINE, eventually};
use crate::kill_control::api::{Answer, Api};

const CACHE: &str = "/v1/caches/shop";
/// Credentials of its own at one time: below what a cache may have.
const OWN_MAX: usize = 5;
/// Between two requests: a person or a script, not a load.
const PAUSE: Duration = Duration::from_millis(20);

/// At work until [`Changes::finish`].
pub(super) struct Changes {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    folder: PathBuf,
    number: usize,
    /// Credentials that the cache had before.
    before: BTreeSet<String>,
}

/// What control has said so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    /// Of the refusals, those that do not say why.
    pub(super) unclear: Vec<String>,
    /// Requests that got no answer and were repeated.
    pub(super) unanswered: u64,
    /// Added by this one, and not removed.
    pub(super) own: BTreeSet<String>,
}

#[derive(Debug, Clone)]
enum Wish {
    Add,
    Remove(String),
}

impl Changes {
    /// Begins, with control's data directory as this process sees it. No other one of this cluster may
    /// have the same number: its requests would be taken for this one's.
    pub(super) fn start(folder: PathBuf, number: usize) -> Changes {
        let before = listed(&folder);
        let (stop, told) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Told>>::default());
        let thread = thread::spawn({
            let (stop, told, folder) = (Arc::clone(&stop), Arc::clone(&told), folder.clone());
            move || {
                for wish_number in 0.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let own = lock(&told).own.clone();
                    let wish = match own.first() {
                        Some(one) if OWN_MAX <= own.len() => Wish::Remove(one.clone()),
                        Some(_) | None => Wish::Add,
                    };
                    let key = format!("wish-{number}-{wish_number}");
                    have_done(&folder, &key, &wish, &told, &stop);
                    thread::sleep(PAUSE);
                }
            }
        });
        Changes { thread: Some(thread), stop, told, folder, number, before }
    }

    /// A credential that control has just acknowledged, once it does.
    #[track_caller]
    pub(super) fn add_one(&self) -> Login {
        let (path, key) = (format!("{CACHE}/credentials"), format!("add-{}", self.number));
        eventually("a change is acknowledged", DEADLINE, || {
            let api = Api::announced(&self.folder)?;
            let answer = api.change("POST", &path, &key, &Value::Null)?;
            is_done(&answer).then(|| Login::told(&answer.body))
        })
    }

    /// Takes it away again.
    #[track_caller]
    pub(super) fn remove_one(&self, login: &Login) {
        let path = format!("{CACHE}/credentials/{}", login.username);
        let key = format!("remove-{}", self.number);
        eventually("a change is acknowledged", DEADLINE, || {
            let api = Api::announced(&self.folder)?;
            let answer = api.change("DELETE", &path, &key, &Value::Null)?;
            is_done(&answer).then_some(())
        });
    }

    /// Stops, once the last request is answered; says which credentials the cache must have now.
    #[track_caller]
    pub(super) fn finish(mut self) -> (Told, BTreeSet<String>) {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().expect("it is taken only here");
        thread.join().expect("it counts what goes wrong and does not panic");
        let told = lock(&self.told).clone();
        let wanted = self.before.union(&told.own).cloned().collect();
        (told, wanted)
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // The experiment has failed already, and said why.
            drop(thread.join());
        }
    }
}

/// Credentials that the cache has, by their names.
#[track_caller]
pub(super) fn listed(folder: &Path) -> BTreeSet<String> {
    let api = eventually("control answers", DEADLINE, || Api::announced(folder));
    let cache = api.get(CACHE);
    let all = cache["credentials"].as_array().expect("a list").clone();
    all.iter().map(|it| it["username"].as_str().expect("a word").to_owned()).collect()
}

/// Asks until it is done, or refused at the first time. Gives up only when nobody needs it any more
/// and control stays away.
fn have_done(folder: &Path, key: &str, wish: &Wish, told: &Mutex<Told>, stop: &AtomicBool) {
    let (method, path) = match wish {
        Wish::Add => ("POST", format!("{CACHE}/credentials")),
        Wish::Remove(username) => ("DELETE", format!("{CACHE}/credentials/{username}")),
    };
    let mut is_unknown = false;
    let mut left_after_stop = 1_000;
    while left_after_stop > 0 {
        left_after_stop -= u32::from(stop.load(Relaxed));
        let answer = Api::announced(folder).map(|api| api.change(method, &path, key, &Value::Null));
        match answer {
            // Nobody is there to be asked: nothing was sent.
            None => (),
            Some(None) => {
                is_unknown = true;
                lock(told).unanswered += 1;
            }
            Some(Some(answer)) if is_done(&answer) => {
                let mut told = lock(told);
                told.acknowledged += 1;
                match wish {
                    Wish::Add => drop(told.own.insert(Login::told(&answer.body).username)),
                    Wish::Remove(username) => drop(told.own.remove(username)),
                }
                return;
            }
            // It says of itself that it may have been carried out.
            Some(Some(answer)) if answer.status == 504 => {
                is_unknown = true;
                lock(told).unanswered += 1;
            }
            Some(Some(answer)) => {
                let mut told = lock(told);
                told.refused += 1;
                if !says_why(&answer) {
                    told.unclear.push(format!("{} {}", answer.status, answer.body));
                }
                // One that may have been carried out before its answer was lost is asked about again.
                if !is_unknown {
                    return;
                }
            }
        }
        thread::sleep(PAUSE);
    }
}

fn is_done(answer: &Answer) -> bool {
    (200..300).contains(&answer.status)
}

/// Whether a caller learns more than that something of ours is broken.
fn says_why(answer: &Answer) -> bool {
    let has = |name: &str| answer.body[name].as_str().is_some_and(|text| !text.is_empty());
    has("title") && has("detail") && answer.body["type"] != "internal"
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}
