//! What Maglev does better than a ring: even shares, and few keys that move.

use cluster::experiment::{Distribution, Happening, Rule, Setup, Spread, moved, spread};
use cluster::member::MEMBERS_MAX;
use cluster::scheme::Scheme;
use cluster::slot::SLOTS;
use serde_json::json;

use super::plot::{Content, Panel, Picture};
use super::ring::share_panel;
use super::{Common, Outcome, SimulateError, percent, progress};

#[derive(Debug, clap::Args)]
pub(super) struct MaglevArgs {
    /// How many back-ends share the table
    #[arg(long, value_name = "N", default_value_t = 9,
        value_parser = clap::value_parser!(u16).range(1..MEMBERS_MAX as i64))]
    backends: u16,

    #[command(flatten)]
    pub(super) common: Common,
}

/// What is compared: no scheme, the two published rings, and Maglev.
const RULES: [(&str, Rule); 4] = [
    ("modulo", Rule::Modulo),
    ("ring:1", Rule::Scheme(Scheme::Ring { points: 1 })),
    ("ring:100", Rule::Scheme(Scheme::Ring { points: 100 })),
    ("maglev", Rule::Scheme(Scheme::Maglev)),
];

/// The published case, whatever `--backends` says.
const PUBLISHED_BACKENDS: usize = 3;

/// What moves when something happens to a cluster, by rule.
struct Movement {
    backends: usize,
    happening: Happening,
    /// In the order of [`RULES`].
    shares: Vec<Distribution>,
}

impl Movement {
    fn name(&self) -> String {
        match self.happening {
            Happening::Join => format!("{} → {}", self.backends, self.backends + 1),
            Happening::Rename => format!("1 of {} renamed", self.backends),
        }
    }

    fn least(&self) -> f64 {
        self.happening.share_moved_min(self.backends)
    }
}

pub(super) fn run(args: &MaglevArgs) -> Result<Outcome, SimulateError> {
    let Common { rounds, seed, .. } = args.common;
    let backends = usize::from(args.backends);
    let setup = Setup { backends, rounds, seed };
    let mut cases = vec![(PUBLISHED_BACKENDS, Happening::Join)];
    if backends != PUBLISHED_BACKENDS {
        cases.push((backends, Happening::Join));
    }
    cases.push((backends, Happening::Rename));

    let bar = progress(u64::from(rounds.get()) * (2 + RULES.len() * cases.len()) as u64);
    let even = spread(Scheme::Maglev, setup, || bar.inc(1))?;
    let ring = spread(Scheme::Ring { points: 100 }, setup, || bar.inc(1))?;
    let mut movements = Vec::new();
    for (backends, happening) in cases {
        let setup = Setup { backends, ..setup };
        let shares = RULES.map(|(_, rule)| moved(rule, happening, setup, || bar.inc(1)));
        let shares = shares.into_iter().collect::<Result<_, _>>()?;
        movements.push(Movement { backends, happening, shares });
    }
    bar.finish_and_clear();
    Ok(Outcome {
        text: text(&setup, &even, &movements),
        csv: csv(&setup, &even, &ring, &movements),
        json: json(&setup, &even, &movements),
        picture: picture(&setup, &even, &ring, &movements),
    })
}

fn text(setup: &Setup, even: &Spread, movements: &[Movement]) -> String {
    let Setup { backends, rounds, seed } = setup;
    let slots = |share: f64| (share * f64::from(SLOTS)).round();
    let (fewest, most) = (even.smallest().quantile(0.0), even.largest().quantile(1.0));
    let mut text = format!(
        "Maglev's table of {SLOTS} slots shared by {backends} back-ends; {rounds} rounds, seed {seed}.

The back-ends take turns, and at its turn each claims the first free slot of an order of its own, which
a hash of its name decides. Every round has other names.

Slots per back-end, in all rounds: {} to {}, that is {:.3} % to {:.3} %.

How many keys move, in percent: the mean of the rounds, and in brackets the round with the most.

                  least           modulo           ring:1         ring:100           maglev
",
        slots(fewest),
        slots(most),
        percent(fewest),
        percent(most),
    );
    for movement in movements {
        text += &format!(" {:<14} {:>7.2}", movement.name(), percent(movement.least()));
        for shares in &movement.shares {
            let (mean, most) = (percent(shares.mean()), percent(shares.quantile(1.0)));
            text += &format!("  {mean:>6.2} ({most:>5.2})");
        }
        text.push('\n');
    }
    text.push_str(
        "
What you see: turns make shares even to a slot. When a back-end joins, the others keep nearly all they
do not have to give; a hash modulo the number of back-ends throws most keys elsewhere. A ring moves as
little as can be on average, but in the single case that is a matter of luck, as its shares are.

Why it matters: even shares let a cache fill its memory before anything is evicted, and what does not
move need not be handed over. The last line is the price of a new *name* in an old place, nearly twice
the least; so our back-ends have names that outlive machines, and replacing a machine moves no slot.
",
    );
    text
}

fn csv(setup: &Setup, even: &Spread, ring: &Spread, movements: &[Movement]) -> String {
    let mut csv = "figure,scheme,backends,round,rank,share\n".to_owned();
    share_rows(&mut csv, Scheme::Maglev, setup, even);
    share_rows(&mut csv, Scheme::Ring { points: 100 }, setup, ring);
    for movement in movements {
        let figure = match movement.happening {
            Happening::Join => "moved by a join",
            Happening::Rename => "moved by a new name",
        };
        for ((name, _), shares) in RULES.iter().zip(&movement.shares) {
            // In ascending order, so the rounds have no number.
            for share in shares.values() {
                csv += &format!("{figure},{name},{},,,{share}\n", movement.backends);
            }
        }
    }
    csv
}

/// Every share of every round.
pub(super) fn share_rows(csv: &mut String, scheme: Scheme, setup: &Setup, spread: &Spread) {
    for (round, shares) in (1..).zip(spread.rounds()) {
        for (rank, share) in (1..).zip(shares) {
            *csv += &format!("share,{scheme},{},{round},{rank},{share}\n", setup.backends);
        }
    }
}

fn json(setup: &Setup, even: &Spread, movements: &[Movement]) -> serde_json::Value {
    let of = |movement: &Movement| {
        let rules = RULES.iter().zip(&movement.shares).map(|((name, _), shares)| {
            json!({"scheme": name, "mean": shares.mean(), "max": shares.quantile(1.0)})
        });
        json!({
            "happening": movement.name(),
            "share_moved_min": movement.least(),
            "share_moved": rules.collect::<Vec<_>>(),
        })
    };
    json!({
        "backends": setup.backends,
        "rounds": setup.rounds,
        "seed": setup.seed,
        "slots": SLOTS,
        "smallest_share": even.smallest().quantile(0.0),
        "largest_share": even.largest().quantile(1.0),
        "movements": movements.iter().map(of).collect::<Vec<_>>(),
    })
}

/// The best ring and Maglev on one scale, and what moves in the published case.
fn picture(setup: &Setup, even: &Spread, ring: &Spread, movements: &[Movement]) -> Picture {
    let low = percent(ring.smallest().quantile(0.0)).floor().min(99.0);
    let high = percent(ring.largest().quantile(1.0)).ceil();
    let mut panels = vec![
        share_panel("Ring, 100 points each".to_owned(), ring, low..high, 1.0),
        share_panel("Maglev, on the same scale".to_owned(), even, low..high, 1.0),
    ];
    if let Some(movement) = movements.first() {
        let bars = RULES.iter().zip(&movement.shares).map(|((name, _), shares)| {
            let share = percent(shares.mean());
            (format!("{name}: {share:.1} %"), share)
        });
        let least = percent(movement.least());
        panels.push(Panel {
            title: format!("Keys that move, {} back-ends", movement.name()),
            x_label: "mean of all rounds".to_owned(),
            y_label: "share of all keys".to_owned(),
            range: 0.0..80.0,
            tick_step: 10.0,
            mark: Some((least, format!("the least possible, {least:.0} %"))),
            content: Content::Bars(bars.collect()),
        });
    }
    let title = format!("Maglev and a ring, {} back-ends, {} rounds", setup.backends, setup.rounds);
    Picture { title, panels }
}
