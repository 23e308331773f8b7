//! Makes the requests, one after the other: which act, which key, which value.

use crate::dialect::Dialect;
use crate::items::{Items, Kind, counter_of};
use crate::mix::{Act, Acts};
use crate::pipeline::{Pipeline, Sent, What};
use crate::plan::Plan;
use crate::popularity::Popularity;
use crate::random::Random;
use std::ops::Range;

/// Counters for `incr`: enough that threads seldom meet on one, few enough to be filled at once.
const COUNTERS_MAX: u64 = 1000;

/// The requests of one thread.
#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) dialect: Dialect,
    pub(crate) items: Items,
    task: Task,
    acts: Acts,
    popularity: Popularity,
    random: Random,
    /// Keys per get.
    multiget: u32,
    ttl: u32,
    keys: u64,
    counters: u64,
    /// Counts the writes of this thread, so that two writes of a key have different values. The
    /// first fill writes version 0.
    version: u32,
}

/// What a phase of the run asks for.
#[derive(Debug, Clone)]
pub(crate) enum Task {
    /// Stores items one after the other; those past the last key are counters.
    Fill(Range<u64>),
    /// So many requests out of the mix.
    Mix(u64),
}

impl Generator {
    pub(crate) fn new(plan: &Plan, part: usize) -> Generator {
        let (part, parts) = (part as u64, plan.threads as u64);
        Generator {
            dialect: plan.dialect,
            items: Items::new(plan.seed, plan.key_size, plan.value_size),
            task: Task::Mix(0),
            acts: Acts::new(&plan.mix),
            popularity: Popularity::new(plan.distribution, plan.keys, part, parts),
            random: Random::new(plan.seed ^ (part + 1).wrapping_mul(crate::random::GOLDEN)),
            multiget: plan.multiget,
            ttl: plan.ttl,
            keys: plan.keys,
            counters: counters(plan),
            version: 0,
        }
    }

    pub(crate) fn begin(&mut self, task: Task) {
        self.task = task;
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        match &self.task {
            Task::Fill(range) => range.is_empty(),
            Task::Mix(left) => *left == 0,
        }
    }

    /// Appends the next request and notes what its reply must be; false if there is none left.
    pub(crate) fn next(
        &mut self,
        intended: u64,
        pipeline: &mut Pipeline,
        out: &mut Vec<u8>,
    ) -> bool {
        let what = match &mut self.task {
            Task::Fill(range) => match range.next() {
                Some(place) => self.fill(place, out),
                None => return false,
            },
            Task::Mix(0) => return false,
            Task::Mix(left) => {
                *left -= 1;
                self.mixed(pipeline, out)
            }
        };
        pipeline.push(Sent { intended, what });
        true
    }

    fn fill(&mut self, place: u64, out: &mut Vec<u8>) -> What {
        if place < self.keys {
            self.set(place, 0, out);
        } else {
            let key = self.items.key(Kind::Counter, place - self.keys);
            self.dialect.open_set(key, 1, self.ttl, out);
            out.push(b'0');
            self.dialect.close_set(out);
        }
        What::Change(Act::Set)
    }

    fn mixed(&mut self, pipeline: &mut Pipeline, out: &mut Vec<u8>) -> What {
        let act = self.acts.draw(&mut self.random);
        let index = self.popularity.draw(&mut self.random);
        match act {
            Act::Get if self.multiget > 1 => return self.get_many(index, pipeline, out),
            Act::Get => {
                self.dialect.get(self.items.key(Kind::Value, index), out);
                return What::One(index);
            }
            Act::Set => {
                self.version = self.version.wrapping_add(1);
                self.set(index, self.version, out);
            }
            Act::Delete => self.dialect.delete(self.items.key(Kind::Value, index), out),
            Act::Incr => {
                let counter = counter_of(index, self.counters);
                self.dialect.incr(self.items.key(Kind::Counter, counter), out);
            }
            Act::Touch => self.dialect.touch(self.items.key(Kind::Value, index), self.ttl, out),
        }
        What::Change(act)
    }

    fn set(&mut self, index: u64, version: u32, out: &mut Vec<u8>) {
        let len = self.items.value_len(index, version);
        let key = self.items.key(Kind::Value, index);
        self.dialect.open_set(key, len, self.ttl, out);
        self.items.write_value(index, version, len, out);
        self.dialect.close_set(out);
    }

    fn get_many(&mut self, first: u64, pipeline: &mut Pipeline, out: &mut Vec<u8>) -> What {
        let mut index = first;
        self.dialect.open_many(out);
        for place in 0..self.multiget {
            if place > 0 {
                index = self.popularity.draw(&mut self.random);
            }
            self.dialect.one_of_many(self.items.key(Kind::Value, index), out);
            pipeline.push_key(index);
        }
        self.dialect.close_many(out);
        What::Many(self.multiget)
    }
}

/// How many items the first fill stores: all keys, and the counters if the mix has an `incr`.
pub(crate) fn items_to_fill(plan: &Plan) -> u64 {
    plan.keys + if plan.mix.has(Act::Incr) { counters(plan) } else { 0 }
}

fn counters(plan: &Plan) -> u64 {
    plan.keys.min(COUNTERS_MAX)
}
