//! The skew of a hash ring: the published experiment.

use cluster::experiment::{Distribution, Setup, Spread, spread};
use cluster::member::MEMBERS_MAX;
use cluster::ring::POINTS_MAX;
use cluster::scheme::Scheme;
use serde_json::json;

use super::plot::{Content, Panel, Picture};
use super::{Common, Outcome, SimulateError, percent, progress};

#[derive(Debug, clap::Args)]
pub(super) struct RingArgs {
    /// How many back-ends share the ring
    #[arg(long, value_name = "N", default_value_t = 9,
        value_parser = clap::value_parser!(u16).range(1..=MEMBERS_MAX as i64))]
    backends: u16,

    /// How many points each of them has; several numbers are compared
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,100",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(POINTS_MAX)))]
    points: Vec<u32>,

    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn run(args: &RingArgs) -> Result<Outcome, SimulateError> {
    if args.points.len() > RINGS_MAX {
        return Err(SimulateError::TooManyRings { count: args.points.len() });
    }
    let Common { rounds, seed, .. } = args.common;
    let setup = Setup { backends: args.backends.into(), rounds, seed };
    let bar = progress(args.points.len() as u64 * u64::from(rounds.get()));
    let mut spreads = Vec::new();
    for &points in &args.points {
        spreads.push((points, spread(Scheme::Ring { points }, setup, || bar.inc(1))?));
    }
    bar.finish_and_clear();
    Ok(Outcome {
        text: text(&setup, &spreads),
        csv: csv(&setup, &spreads),
        json: json(&setup, &spreads),
        picture: picture(&setup, &spreads),
    })
}

/// More panels side by side would be a picture that no screen shows.
pub(super) const RINGS_MAX: usize = 8;

fn text(setup: &Setup, spreads: &[(u32, Spread)]) -> String {
    let Setup { backends, rounds, seed } = setup;
    let even = percent(1.0 / *backends as f64);
    let mut text = format!(
        "A ring of 2^64 shared by {backends} back-ends; {rounds} rounds, seed {seed}.

Each back-end has points on the ring, from a hash of its name, and owns all keys between each of its
points and the next point of anyone. An even share would be {even:.1} %. Every round has other names.

           the largest share     the smallest share    largest ÷ smallest
 points    median  97.5 %-ile    median   2.5 %-ile        of the medians
"
    );
    for (points, spread) in spreads {
        let (largest, smallest) = (spread.largest(), spread.smallest());
        let ratio = largest.median() / smallest.median();
        text += &format!(
            "{points:>7} {:>8.1} % {:>9.1} % {:>7.2} % {:>9.2} % {:>21.2}\n",
            percent(largest.median()),
            percent(largest.quantile(0.975)),
            percent(smallest.median()),
            percent(smallest.quantile(0.025)),
            ratio,
        );
    }
    text.push_str(&ranks(*backends, spreads));
    text.push_str(
        "
What you see: with one point, where names happen to fall decides everything: one back-end owns a
multiple of its due, another next to nothing. Many points even it out, but slowly: ten times as many
points make the differences only about a third.

Why it matters: a cache is spread over all back-ends. The one with the largest share is full first, and
evicts while others have room; so with a largest share of 14 % where 11 % is even, a cache starts to
evict when a fifth of its memory is unused. `larder simulate maglev` shows what we do instead.
",
    );
    text
}

/// The median share of each rank, from the smallest to the largest; left out when it would fill
/// screens.
fn ranks(backends: usize, spreads: &[(u32, Spread)]) -> String {
    if backends > RANKS_SHOWN_MAX {
        return String::new();
    }
    let mut text =
        "\nMedian share by rank, from the smallest to the largest of a round:\n\n".to_owned();
    let heading: String = (1..=backends).map(|rank| format!("{rank:>8}")).collect();
    text += &format!(" points{heading}\n");
    for (points, spread) in spreads {
        let median = |rank: &Distribution| percent(rank.median());
        let row: String =
            spread.ranks().iter().map(|rank| format!(" {:>5.1} %", median(rank))).collect();
        text += &format!("{points:>7}{row}\n");
    }
    text
}

/// What fits a line of 100 characters.
const RANKS_SHOWN_MAX: usize = 11;

fn csv(setup: &Setup, spreads: &[(u32, Spread)]) -> String {
    let mut csv = "figure,scheme,backends,round,rank,share\n".to_owned();
    for (points, spread) in spreads {
        super::maglev::share_rows(&mut csv, Scheme::Ring { points: *points }, setup, spread);
    }
    csv
}

fn json(setup: &Setup, spreads: &[(u32, Spread)]) -> serde_json::Value {
    let of = |(points, spread): &(u32, Spread)| {
        let (largest, smallest) = (spread.largest(), spread.smallest());
        json!({
            "points": points,
            "largest_share_median": largest.median(),
            "largest_share_p97_5": largest.quantile(0.975),
            "smallest_share_median": smallest.median(),
            "smallest_share_p2_5": smallest.quantile(0.025),
            "ratio_of_medians": largest.median() / smallest.median(),
            "rank_share_medians": spread.ranks().iter().map(|r| r.median()).collect::<Vec<_>>(),
        })
    };
    json!({
        "backends": setup.backends,
        "rounds": setup.rounds,
        "seed": setup.seed,
        "rings": spreads.iter().map(of).collect::<Vec<_>>(),
    })
}

/// All rings on one scale, and the last once more, enlarged.
fn picture(setup: &Setup, spreads: &[(u32, Spread)]) -> Picture {
    let name = |points: u32| match points {
        1 => "1 point each".to_owned(),
        points => format!("{points} points each"),
    };
    let most = spreads.iter().map(|(_, spread)| percent(spread.largest().quantile(1.0)));
    let top = (most.fold(0.0, f64::max) / 10.0).ceil() * 10.0;
    let mut panels: Vec<Panel> = spreads
        .iter()
        .map(|(points, spread)| share_panel(name(*points), spread, 0.0..top, 10.0))
        .collect();
    if let Some((points, spread)) = spreads.last() {
        let (low, high) = (spread.smallest().quantile(0.0), spread.largest().quantile(1.0));
        // A lone back-end has all, which would leave the axis no length.
        let range = percent(low).floor().min(99.0)..percent(high).ceil();
        let step = if range.end - range.start > 15.0 { 5.0 } else { 1.0 };
        panels.push(share_panel(format!("{}, enlarged", name(*points)), spread, range, step));
    }
    let title =
        format!("Shares of {} back-ends on a hash ring, {} rounds", setup.backends, setup.rounds);
    Picture { title, panels }
}

/// One box per rank.
pub(super) fn share_panel(
    title: String,
    spread: &Spread,
    range: std::ops::Range<f64>,
    tick_step: f64,
) -> Panel {
    let ranks = spread.ranks();
    let even = percent(1.0 / ranks.len() as f64);
    let boxes = ranks.iter().enumerate().map(|(rank, shares)| {
        (format!("{}", rank + 1), shares.values().iter().copied().map(percent).collect())
    });
    Panel {
        title,
        x_label: "back-ends of a round, from the smallest share to the largest".to_owned(),
        y_label: "share of all keys".to_owned(),
        range,
        tick_step,
        mark: Some((even, format!("an even share, {even:.1} %"))),
        content: Content::Boxes(boxes.collect()),
    }
}
