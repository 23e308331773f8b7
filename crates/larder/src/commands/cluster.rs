//! `larder cluster …`: the cluster of a running control plane as a whole.

use std::time::Duration;

use clap::{Args, Subcommand};
use control::contract::{ClusterStatusView, PushedView};
use serde_json::json;

use super::cache::CommandError;
use super::output::{done, pairs, print, table, to_json};
use crate::client::{Client, ConnectionArgs};

/// Look at the cluster: what each node has, and whether it is the same everywhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder cluster status
  larder cluster status --watch
  larder cluster snapshot node-3      give a node everything anew, and let it drop what it must")]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,

    #[command(flatten)]
    connection: ConnectionArgs,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show revision, digest, epoch and alarms of every node; fails when one has an alarm
    Status {
        /// Show it again every second
        #[arg(long)]
        watch: bool,
    },
    /// Have nodes take everything anew, also what they refuse because it drops or adds very much
    Snapshot {
        /// Only this node [default: all]
        node: Option<String>,
    },
}

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &ClusterArgs) -> Result<(), CommandError> {
    let client = args.connection.client()?;
    match &args.command {
        ClusterCommand::Status { watch: false } => {
            let status = status(&client)?;
            print(&show(&status, args.json))?;
            let troubled = status.nodes.iter().filter(|node| !node.alarms.is_empty()).count();
            if troubled > 0 { Err(CommandError::Alarms { nodes: troubled }) } else { Ok(()) }
        }
        ClusterCommand::Status { watch: true } => loop {
            print(&format!("{}\n", show(&status(&client)?, args.json)))?;
            std::thread::sleep(WATCH_EVERY);
        },
        ClusterCommand::Snapshot { node } => {
            let wish = node.as_ref().map_or(json!({}), |node| json!({ "node": node }));
            let pushed: PushedView = client.post("/v1/cluster/snapshot", &wish)?;
            let count = pushed.nodes.to_string();
            Ok(print(&done(args.json, "nodes", &count, &format!("pushed to {count} nodes\n")))?)
        }
    }
}

pub(super) fn status(client: &Client) -> Result<ClusterStatusView, CommandError> {
    Ok(client.get("/v1/cluster/status")?)
}

fn show(status: &ClusterStatusView, json: bool) -> String {
    if json {
        return to_json(status);
    }
    let head = pairs([
        ("cluster", short(&status.cluster)),
        ("revision", status.revision.to_string()),
        ("digest", short(&status.digest)),
        ("records", format!("{} caches, {} credentials", status.caches, status.credentials)),
        ("epoch", format!("{} (settled {})", status.epoch, status.settled_epoch)),
    ]);
    format!("{head}\n{}", nodes(status))
}

/// The nodes as a table.
pub(super) fn nodes(status: &ClusterStatusView) -> String {
    let rows: Vec<[String; 9]> = status
        .nodes
        .iter()
        .map(|node| {
            [
                node.name.clone(),
                if node.connected { "connected" } else { "away" }.to_owned(),
                node.revision.to_string(),
                node.behind.to_string(),
                node.digest.as_deref().map_or_else(String::new, short),
                node.epoch.to_string(),
                node.clients.clone().unwrap_or_default(),
                node.heard_ms_ago.map_or_else(String::new, |ms| format!("{ms} ms ago")),
                if node.alarms.is_empty() { "-".to_owned() } else { node.alarms.join("; ") },
            ]
        })
        .collect();
    let heads =
        ["NODE", "STATE", "REVISION", "BEHIND", "DIGEST", "EPOCH", "CLIENTS", "HEARD", "ALARMS"];
    table(heads, &rows)
}

/// Enough of a digest to be compared by eye.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
