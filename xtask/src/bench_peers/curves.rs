//! How the cost of a request changes as there is more of something: the charts of the report.

use super::outcome::{Of, Sample, Spread};
use serde::Serialize;

/// Samples of both servers under one load, round by round.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pub(super) ours: Vec<Sample>,
    pub(super) theirs: Vec<Sample>,
}

/// CPU time per request against a number of something.
#[derive(Debug, Serialize)]
pub(super) struct Curve {
    /// Of the picture's file, without its ending.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What there is more and more of.
    pub(super) along: &'static str,
    pub(super) ours: Series,
    /// Empty where nobody can be compared with.
    pub(super) theirs: Series,
}

#[derive(Debug, Serialize)]
pub(super) struct Series {
    pub(super) who: &'static str,
    pub(super) points: Vec<Point>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Point {
    pub(super) at: u64,
    /// µs of CPU per request.
    pub(super) cost: Spread,
}

impl Curve {
    pub(super) fn add(&mut self, at: u64, sides: Sides) {
        for (series, samples) in [(&mut self.ours, sides.ours), (&mut self.theirs, sides.theirs)] {
            let costs: Vec<f64> = samples.iter().map(|sample| Of::Cpu.figure(sample)).collect();
            if !costs.is_empty() {
                series.points.push(Point { at, cost: Spread::of(&costs) });
            }
        }
    }

    /// The points in the other order.
    pub(super) fn turn_round(&mut self) {
        self.ours.points.reverse();
        self.theirs.points.reverse();
    }

    /// Both series, without one that has no points.
    pub(super) fn series(&self) -> impl Iterator<Item = &Series> {
        [&self.ours, &self.theirs].into_iter().filter(|series| !series.points.is_empty())
    }
}

fn curve(
    name: &'static str,
    title: &'static str,
    along: &'static str,
    peer: &'static str,
) -> Curve {
    let series = |who| Series { who, points: Vec::new() };
    Curve { name, title, along, ours: series("Larder"), theirs: series(peer) }
}

pub(super) fn connections() -> Curve {
    let title = "get 100 B, 1 in flight on each connection";
    curve("bench-connections", title, "connections", "memcached")
}

pub(super) fn items() -> Curve {
    let title = "get 32 B at chance among all items, 50 connections × 16 in flight";
    curve("bench-items", title, "items", "memcached")
}

pub(super) fn backends() -> Curve {
    let title = "get 100 B through a proxy, all processes together, 50 × 16";
    curve("bench-backends", title, "backends", "nutcracker and memcached")
}

pub(super) fn caches() -> Curve {
    let title = "get 100 B, 4,000 connections dealt out to so many caches, 1 in flight";
    curve("bench-caches", title, "caches", "")
}

/// What is measured: all, or in a hurry only the first few.
pub(super) fn counts(all: &'static [u64], quick: bool, few: usize) -> &'static [u64] {
    if quick { &all[..few] } else { all }
}
