//! Answers to clients, noted in the history and held against the laws of one answer.

use crate::client::{self, Answer, Ask, Item, Pending, State};
use crate::history::{Deed, KeyId, Number, What};
use crate::laws;
use crate::scenario::CROWD;
use crate::time::{MILLISECOND, Micros, SECOND};
use crate::world::{Phase, World};

/// A proxy answers within its deadline of a second, and a moment for its clock to tick.
const ANSWERED_WITHIN: Micros = SECOND + 250 * MILLISECOND;

impl World {
    /// Takes every answer that has come whole.
    pub(crate) fn client_hears(&mut self, number: usize) {
        loop {
            match self.clients[number].next_answer() {
                Ok(None) => return,
                Ok(Some((pending, answer))) => self.judge(number, &pending, answer),
                Err(seen) => {
                    return self.violate("an answer belongs to its request", None, seen);
                }
            }
            if self.violation.is_some() {
                return;
            }
        }
    }

    fn judge(&mut self, number: usize, pending: &Pending, answer: Answer) {
        self.story_of(number, pending, &answer);
        self.count(&answer);
        self.invariant_all_is_well_after_healing(number, pending, &answer);
        let client = &self.clients[number];
        let key_id = |key| client.key_id(key);
        match (&pending.ask, answer) {
            (Ask::Login, Answer::Done) => self.counts.logins += 1,
            (Ask::Login, _) => {
                // Its proxy does not know it yet.
                if let State::Ready { stream } = self.clients[number].state {
                    self.client_leaves(number, stream);
                }
            }
            (Ask::Set { key, number: value } | Ask::Add { key, number: value }, Answer::Done) => {
                self.note(number, pending, key_id(*key), What::Wrote(*value), true);
            }
            (Ask::Cas { key, number: value, token, of }, Answer::Done) => {
                let key_id = key_id(*key);
                self.clients[number].forget_token(*key);
                self.invariant_one_token_changes_one_value(key_id, *token, *of);
                self.note(number, pending, key_id, What::Wrote(*value), true);
            }
            (Ask::Cas { key, .. }, Answer::Not) => self.clients[number].forget_token(*key),
            (
                Ask::Set { key, number: value }
                | Ask::Add { key, number: value }
                | Ask::Cas { key, number: value, .. },
                Answer::Unsure(_),
            ) => self.note(number, pending, key_id(*key), What::Wrote(*value), false),
            (
                Ask::Set { key, number: value }
                | Ask::Add { key, number: value }
                | Ask::Cas { key, number: value, .. },
                Answer::Refused(_),
            ) => self.note(number, pending, key_id(*key), What::Refused(*value), true),
            (Ask::Delete { key }, Answer::Done) => {
                self.note(number, pending, key_id(*key), What::Deleted, true);
            }
            (Ask::Delete { key }, Answer::Unsure(_)) => {
                self.note(number, pending, key_id(*key), What::Deleted, false);
            }
            (Ask::Flush, answer @ (Answer::Done | Answer::Unsure(_))) => {
                self.flushed(number, pending, answer == Answer::Done);
            }
            (Ask::Get { key }, Answer::Found(items)) => {
                self.found(number, pending, &[*key], &items);
                if items.is_empty() {
                    self.missed(number, pending, *key);
                }
            }
            (Ask::GetMany { keys }, Answer::Found(items)) => {
                self.found(number, pending, keys, &items);
            }
            (Ask::Count { base }, Answer::Done) => self.clients[number].counter.begun(*base),
            (Ask::Count { base }, Answer::Unsure(_)) => {
                self.clients[number].counter.perhaps_begun(*base);
            }
            (Ask::Increment, Answer::Not) => self.clients[number].counter.lost(),
            (Ask::Increment, Answer::Unsure(_)) => {
                self.clients[number].counter.perhaps_counted();
            }
            (Ask::Increment, Answer::Number(counted)) => {
                if let Err(expected) = self.clients[number].counter.counted(counted) {
                    let seen = format!("client {number} counted {counted}, and not {expected}");
                    self.violate("an increment happens once", None, seen);
                }
            }
            // Nothing was changed.
            (_, Answer::Refused(_) | Answer::Not | Answer::Unsure(_)) => (),
            (ask, answer) => {
                let seen = format!("{answer:?} answered {ask:?}");
                self.violate("an answer belongs to its request", None, seen);
            }
        }
    }

    fn found(&mut self, number: usize, pending: &Pending, keys: &[usize], items: &[Item]) {
        for item in items {
            let Some(key) = client::key_of_text(&item.key).filter(|key| keys.contains(key)) else {
                let seen = format!("client {number} got {}", client::shown(&item.key));
                return self.violate("an answer belongs to its request", None, seen);
            };
            let key_id = self.clients[number].key_id(key);
            match client::number_of(key_id, &item.value) {
                Some(value) if item.flags == client::flags_of(key_id) => {
                    self.invariant_tokens_are_unique(key_id, item.token, value);
                    self.clients[number].note_token(key, item.token, value);
                    self.note(number, pending, key_id, What::Read(value), true);
                    self.invariant_a_pipeline_keeps_its_order(number, pending, key_id, Some(value));
                }
                Some(_) | None => {
                    let seen = format!(
                        "client {number} of tenant {} got {} under key {key}",
                        key_id.tenant,
                        client::shown(&item.value)
                    );
                    return self.violate("no client sees another's bytes", Some(key_id), seen);
                }
            }
        }
    }

    fn missed(&mut self, number: usize, pending: &Pending, key: usize) {
        let key_id = self.clients[number].key_id(key);
        if key_id.tenant == CROWD {
            // It stores more than it may hold.
            return;
        }
        let Some(stored) = self.history.kept_before(key_id, pending.began) else { return };
        let miss = self.deed(number, pending, What::Missed, true);
        let lost_until = self.placing.lost_until.get(&key_id).copied().unwrap_or_default();
        // What is on its way may delete it, too.
        let deleting = self.clients.iter().any(|client| {
            let tenant = client.tenant;
            let asked = Ask::Delete { key: key_id.key };
            let deletes = |ask: &Ask| *ask == asked || *ask == Ask::Flush;
            tenant == key_id.tenant && client.pending.iter().any(|pending| deletes(&pending.ask))
        });
        if !deleting
            && let Err(violation) =
                laws::invariant_what_is_acknowledged_is_kept(key_id, stored, &miss, lost_until)
        {
            self.violation.get_or_insert(violation);
        }
    }

    /// Every key of the tenant is deleted.
    fn flushed(&mut self, number: usize, pending: &Pending, sure: bool) {
        for key in 0..self.scenario.keys {
            let key = self.clients[number].key_id(key);
            self.note(number, pending, key, What::Deleted, sure);
        }
    }

    fn note(&mut self, number: usize, pending: &Pending, key: KeyId, what: What, sure: bool) {
        let deed = self.deed(number, pending, what, sure);
        self.history.note(key, deed);
    }

    fn deed(&self, number: usize, pending: &Pending, what: What, sure: bool) -> Deed {
        let ended = sure.then_some(self.now);
        let through = self.clients[number].through;
        Deed { client: number, through, began: pending.began, ended, what }
    }

    /// No answer will be heard any more, as the client has lost its connection, or the play ends: what it
    /// had asked may happen, or have happened.
    pub(crate) fn nobody_knows(&mut self, number: usize) {
        let pending: Vec<Pending> = self.clients[number].pending.drain(..).collect();
        for pending in pending {
            let key_id = |key: usize| self.clients[number].key_id(key);
            match pending.ask {
                Ask::Set { key, number: value }
                | Ask::Add { key, number: value }
                | Ask::Cas { key, number: value, .. } => {
                    self.note(number, &pending, key_id(key), What::Wrote(value), false);
                }
                Ask::Delete { key } => {
                    self.note(number, &pending, key_id(key), What::Deleted, false);
                }
                Ask::Flush => self.flushed(number, &pending, false),
                Ask::Count { base } => self.clients[number].counter.perhaps_begun(base),
                Ask::Increment => self.clients[number].counter.perhaps_counted(),
                Ask::Login | Ask::Get { .. } | Ask::GetMany { .. } => (),
            }
        }
    }

    /// A client has waited for longer than any proxy that runs takes.
    pub(crate) fn late_answer(&mut self, number: usize) {
        let through = self.clients[number].through;
        let began = self.clients[number].pending.front().map_or(0, |pending| pending.began);
        // One that stood still, or was started, meanwhile has lost time.
        let node = &self.nodes[through];
        let stood_still = began <= node.paused_until;
        let ran = node.process.as_ref().is_some_and(|process| process.started <= began);
        if ran && !stood_still && began + ANSWERED_WITHIN < self.now {
            let ask = self.clients[number].pending.front().map(|pending| pending.ask.clone());
            let seen = format!("client {number} waits for {ask:?} through node-{through}");
            self.violate("every request is answered in time", None, seen);
        }
    }

    /// Requests of one connection that were sent together are carried out one after the other, so a
    /// read shows what the same client wrote just before, or what somebody else did meanwhile.
    fn invariant_a_pipeline_keeps_its_order(
        &mut self,
        number: usize,
        pending: &Pending,
        key: KeyId,
        read: Option<Number>,
    ) {
        let is_own = |deed: &&Deed| {
            deed.client == number
                && deed.began == pending.began
                && deed.ended.is_some()
                && matches!(deed.what, What::Wrote(_))
        };
        // What was asked in this batch has ended since.
        let Some(wrote) = self.history.since(key, pending.began).find(is_own) else { return };
        let What::Wrote(written) = wrote.what else { return };
        let Some(read) = read.filter(|&read| read != written) else { return };
        let is_older = |deed: &Deed| {
            deed.what == What::Wrote(read) && deed.ended.is_some_and(|ended| ended < wrote.began)
        };
        let older = self.history.deeds.get(&key).is_some_and(|deeds| deeds.iter().any(is_older));
        if older {
            let seen = format!(
                "client {number} wrote value {written} and then, in the same batch, read {read}, \
                 which is older"
            );
            self.violate("a pipeline keeps its order", Some(key), seen);
        }
    }

    /// Two values of one key never have the same token: else a client would replace what it has not
    /// read.
    fn invariant_tokens_are_unique(&mut self, key: KeyId, token: u64, value: Number) {
        let known = self.tokens.entry((key, token)).or_insert(value);
        if *known != value {
            let seen = format!("token {token} was value {known}'s, and is value {value}'s");
            self.violate("tokens are unique", Some(key), seen);
        }
    }

    /// Of all who hold a token one may replace its value.
    fn invariant_one_token_changes_one_value(&mut self, key: KeyId, token: u64, of: Number) {
        if !self.spent_tokens.insert((key, token)) {
            let seen = format!("token {token} of value {of} was accepted twice");
            self.violate("tokens are unique", Some(key), seen);
        }
    }

    /// Some seconds after everything was mended no request fails.
    fn invariant_all_is_well_after_healing(
        &mut self,
        number: usize,
        pending: &Pending,
        answer: &Answer,
    ) {
        let failed = match answer {
            Answer::Unsure(why) | Answer::Refused(why) => why,
            Answer::Done | Answer::Not | Answer::Found(_) | Answer::Number(_) => return,
        };
        if let Some(healed) = self.healed_at {
            let after = self.now - healed;
            self.counts.healed_after_max = self.counts.healed_after_max.max(after);
        }
        if let Phase::Well { .. } = self.phase
            && self.now < pending.began + ANSWERED_WITHIN
            && self.healed_at.is_some_and(|at| at + crate::world::HEALING <= pending.began)
        {
            let through = self.clients[number].through;
            let seen = format!(
                "client {number} through node-{through}: {:?} failed with {failed:?}",
                pending.ask
            );
            self.violate("all is well after healing", None, seen);
        }
    }

    fn count(&mut self, answer: &Answer) {
        let counter = match answer {
            Answer::Done | Answer::Not | Answer::Number(_) => &mut self.counts.done,
            Answer::Found(items) if items.is_empty() => &mut self.counts.missed,
            Answer::Found(_) => &mut self.counts.found,
            Answer::Unsure(_) => &mut self.counts.unsure,
            Answer::Refused(_) => &mut self.counts.refused,
        };
        *counter += 1;
    }

    fn story_of(&mut self, number: usize, pending: &Pending, answer: &Answer) {
        let (now, client) = (self.now, &self.clients[number]);
        self.story.tell(now, || {
            let who = format!(
                "client {number} (tenant {}) through node-{}: {:?} of batch {}, asked at {}",
                client.tenant,
                client.through,
                pending.ask,
                pending.batch,
                crate::time::shown(pending.began)
            );
            let Answer::Found(items) = answer else {
                return format!("{who}: {answer:?}");
            };
            let found = items.iter().map(|item| {
                let words = String::from_utf8_lossy(&item.value);
                let value = words.split(' ').nth(5).unwrap_or("?").to_owned();
                format!("{}={value}", String::from_utf8_lossy(&item.key))
            });
            let found: Vec<String> = found.collect();
            format!("{who}: found [{}]", found.join(" "))
        });
    }
}
