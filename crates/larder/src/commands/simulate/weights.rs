//! Back-ends of different sizes: does each get what its memory can hold?

use cluster::experiment::{Weighted, weighted};
use cluster::scheme::Scheme;
use cluster::slot::SLOTS;
use serde_json::json;

use super::plot::{Content, Panel, Picture};
use super::{Common, Outcome, SimulateError, percent, progress};

#[derive(Debug, clap::Args)]
pub(super) struct WeightsArgs {
    /// The memory of each back-end, in any unit
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,3")]
    weights: Vec<u32>,

    #[command(flatten)]
    pub(super) common: Common,
}

const RING: Scheme = Scheme::Ring { points: 100 };

pub(super) fn run(args: &WeightsArgs) -> Result<Outcome, SimulateError> {
    let Common { rounds, seed, .. } = args.common;
    let bar = progress(2 * u64::from(rounds.get()));
    let place = |scheme| weighted(scheme, &args.weights, rounds, seed, || bar.inc(1));
    let (maglev, ring) = (place(Scheme::Maglev)?, place(RING)?);
    bar.finish_and_clear();
    Ok(Outcome {
        text: text(args, &maglev, &ring),
        csv: csv(args, &maglev, &ring),
        json: json(args, &maglev, &ring),
        picture: picture(args, &maglev, &ring),
    })
}

fn text(args: &WeightsArgs, maglev: &Weighted, ring: &Weighted) -> String {
    let Common { rounds, seed, .. } = args.common;
    let mut text = format!(
        "{} back-ends of different memory; {rounds} rounds, seed {seed}.

With Maglev a back-end has turns in proportion to its weight. A ring of 100 points each is blind to it.

 weight   share asked for    maglev: all rounds     ring:100: median (least to most)
",
        args.weights.len(),
    );
    for (index, weight) in args.weights.iter().enumerate() {
        let (even, skewed) = (&maglev.got[index], &ring.got[index]);
        text += &format!(
            "{weight:>7} {:>15.3} % {:>9.3} – {:.3} % {:>14.1} % ({:.1} – {:.1} %)\n",
            percent(maglev.wanted[index]),
            percent(even.quantile(0.0)),
            percent(even.quantile(1.0)),
            percent(skewed.median()),
            percent(skewed.quantile(0.0)),
            percent(skewed.quantile(1.0)),
        );
    }
    text += &format!(
        "
The furthest that Maglev ever was from what was asked for: {:.1} slots of {SLOTS}.
When the last back-end's weight doubles, {:.2} % of all keys move (the round with the most: {:.2} %);
{:.2} % is the least possible.

What you see: Maglev's shares follow the weights to a slot, whatever the names.

Why it matters: machines are replaced by larger ones, one at a time. With shares by memory a cluster of
mixed machines is full everywhere at once; without, its smallest back-end decides.
",
        maglev.error_slots_max,
        percent(maglev.moved.median()),
        percent(maglev.moved.quantile(1.0)),
        percent(maglev.share_moved_min),
    );
    text
}

fn csv(args: &WeightsArgs, maglev: &Weighted, ring: &Weighted) -> String {
    let mut csv = "figure,scheme,backend,weight,share\n".to_owned();
    for (scheme, got) in [(Scheme::Maglev, maglev), (RING, ring)] {
        for (backend, (weight, shares)) in (1..).zip(args.weights.iter().zip(&got.got)) {
            for share in shares.values() {
                csv += &format!("share,{scheme},{backend},{weight},{share}\n");
            }
        }
        for share in got.moved.values() {
            csv += &format!("moved by doubling the last,{scheme},,,{share}\n");
        }
    }
    csv
}

fn json(args: &WeightsArgs, maglev: &Weighted, ring: &Weighted) -> serde_json::Value {
    let of = |scheme: Scheme, got: &Weighted| {
        let shares = got.got.iter().map(|shares| {
            json!({
                "median": shares.median(),
                "min": shares.quantile(0.0),
                "max": shares.quantile(1.0),
            })
        });
        json!({
            "scheme": scheme.to_string(),
            "shares": shares.collect::<Vec<_>>(),
            "error_slots_max": got.error_slots_max,
            "share_moved_median": got.moved.median(),
            "share_moved_max": got.moved.quantile(1.0),
        })
    };
    json!({
        "weights": args.weights,
        "rounds": args.common.rounds,
        "seed": args.common.seed,
        "shares_wanted": maglev.wanted,
        "share_moved_min": maglev.share_moved_min,
        "schemes": [of(Scheme::Maglev, maglev), of(RING, ring)],
    })
}

fn picture(args: &WeightsArgs, maglev: &Weighted, ring: &Weighted) -> Picture {
    let medians = |got: &Weighted, index: usize| percent(got.got[index].median());
    let groups = args.weights.iter().enumerate().map(|(index, weight)| {
        let asked = percent(maglev.wanted[index]);
        let shares = vec![asked, medians(maglev, index), medians(ring, index)];
        (format!("weight {weight}"), shares)
    });
    let highest = maglev.wanted.iter().copied().fold(0.0, f64::max);
    let top = (percent(highest) / 10.0).floor() * 10.0 + 10.0;
    let panel = Panel {
        title: "Shares asked for and got".to_owned(),
        x_label: "back-ends".to_owned(),
        y_label: "share of all keys".to_owned(),
        range: 0.0..top,
        tick_step: 10.0,
        mark: None,
        content: Content::Groups {
            names: ["asked for", "maglev", "ring:100"].map(str::to_owned).to_vec(),
            groups: groups.collect(),
        },
    };
    Picture { title: "Back-ends of different memory".to_owned(), panels: vec![panel] }
}
