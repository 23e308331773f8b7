//! `larder audit`: who did what.

use std::thread::sleep;
use std::time::Duration;

use clap::Args;
use control::contract::{AuditView, AuditsView};
use control::model::CacheRef;

use super::cache::CommandError;
use super::output::{print, table, to_json, to_json_line, when};
use crate::client::{Client, ConnectionArgs};

/// Print who changed what, oldest first; lines are kept for more than a year.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder audit                        the last 50 acts
  larder audit --limit 1000 --cache shop
  larder audit --after 4711           what came after line 4711
  larder audit --follow --json        each act as a line of JSON, as it happens")]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    connection: ConnectionArgs,

    /// Begin after the line with this number [default: with the newest ones]
    #[arg(long, value_name = "ID")]
    after: Option<u64>,

    /// How many lines at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,

    /// Only about this cache, by its id or the name it had then
    #[arg(long, value_parser = CacheRef::parse)]
    cache: Option<CacheRef>,

    /// Go on printing what is done
    #[arg(long)]
    follow: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// How often `--follow` looks.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// Lines that `--follow` asks for at a time.
const FOLLOWED_MAX: u64 = 1_000;

pub(crate) fn run(args: &AuditArgs) -> Result<(), CommandError> {
    let client = args.connection.client()?;
    let limit = args.limit;
    let mut lines = match args.after {
        Some(after) => asked(&client, &format!("after={after}&limit={limit}"))?,
        None => asked(&client, &format!("newest=true&limit={limit}"))?,
    };
    let mut last = lines.last().map_or(args.after.unwrap_or(0), |line| line.id);
    lines.retain(|line| args.is_about(line));
    if !args.follow {
        return Ok(print(&if args.json { to_json(&lines) } else { listed(&lines) })?);
    }
    loop {
        for line in lines.iter().filter(|line| args.is_about(line)) {
            let said = if args.json { to_json_line(line) } else { format!("{}\n", told(line)) };
            print(&said)?;
        }
        sleep(FOLLOW_EVERY);
        lines = asked(&client, &format!("after={last}&limit={FOLLOWED_MAX}"))?;
        last = lines.last().map_or(last, |line| line.id);
    }
}

fn asked(client: &Client, query: &str) -> Result<Vec<AuditView>, CommandError> {
    let AuditsView { audit } = client.get(&format!("/v1/audit?{query}"))?;
    Ok(audit)
}

impl AuditArgs {
    fn is_about(&self, line: &AuditView) -> bool {
        match &self.cache {
            None => true,
            Some(CacheRef::Id(id)) => line.cache == Some(id.get()),
            Some(CacheRef::Name(name)) => line.cache_name.as_deref() == Some(name.as_str()),
        }
    }
}

fn listed(lines: &[AuditView]) -> String {
    let rows: Vec<[String; 6]> = lines.iter().map(columns).collect();
    table(["ID", "WHEN", "WHO", "WHAT", "CACHE", "DETAIL"], &rows)
}

fn told(line: &AuditView) -> String {
    columns(line).join("  ")
}

fn columns(line: &AuditView) -> [String; 6] {
    let words = [line.username.as_deref(), Some(line.detail.as_str())];
    let detail: Vec<&str> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    [
        line.id.to_string(),
        when(line.at),
        line.actor.clone(),
        line.action.clone(),
        line.cache_name.clone().unwrap_or_else(|| "-".to_owned()),
        if detail.is_empty() { "-".to_owned() } else { detail.join(" ") },
    ]
}
