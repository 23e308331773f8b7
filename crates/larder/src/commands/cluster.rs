//! `larder cluster …`: the cluster of a running control plane as a whole.

use std::time::Duration;

use clap::{Args, Subcommand};
use control::contract::{
    ChangeMembers, ClusterStatusView, ClusterView, ClustersView, CreateCluster, DiagnosisView,
    FindingView, PushedView,
};
use control::model::ClusterName;
use serde_json::json;

use super::cache::CommandError;
use super::members::{CarryingOut, carry_out};
use super::output::{done, pairs, print, table, to_json, when};
use crate::client::{Client, ConnectionArgs};

/// Look at the cluster: what each node has, and whether it is the same everywhere.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder cluster create west          another cluster, with caches and nodes of its own
  larder cluster status
  larder cluster status --watch
  larder cluster diagnose             name what is wrong, and what to do about it
  larder cluster reweight node-3 512  let it own half of what one with 1024 MiB does
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
    /// Make another cluster in this installation, without nodes and caches
    Create {
        /// A letter, then letters, digits, '-', '_' or '.'
        #[arg(value_parser = ClusterName::parse)]
        name: ClusterName,
    },
    /// List the clusters of this installation
    List,
    /// Show revision, digest, epoch and alarms of every node; fails when one has an alarm
    Status {
        /// Show it again every second
        #[arg(long)]
        watch: bool,
    },
    /// Compare what all nodes have and reach, name each fault and what to do; fails when there is one
    Diagnose,
    /// Have every node make sure of its link to every member, by a new epoch of the same members
    RefreshLinks {
        #[command(flatten)]
        carrying_out: CarryingOut,
    },
    /// Let a member, or each member of a node, own more or less; what moves is lost, never stale
    Reweight {
        /// A node or one of its members, such as node-3.b0
        name: String,
        /// In proportion to the others'; it begins as the backend's memory in MiB
        weight: u32,
        #[command(flatten)]
        carrying_out: CarryingOut,
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
        ClusterCommand::Create { name } => {
            let wish = CreateCluster { name: name.to_string() };
            let made: ClusterView = client.post("/v1/clusters", &wish)?;
            let said = format!("cluster {name} is made, with id {}\n", made.id);
            Ok(print(&if args.json { to_json(&made) } else { said })?)
        }
        ClusterCommand::List => {
            let ClustersView { clusters } = client.get("/v1/clusters")?;
            let row = |it: &ClusterView| {
                let (id, revision) = (it.id.to_string(), it.revision.to_string());
                [id, it.name.clone(), revision, when(it.created_at)]
            };
            let rows: Vec<_> = clusters.iter().map(row).collect();
            let said = || table(["ID", "NAME", "REVISION", "SINCE"], &rows);
            Ok(print(&if args.json { to_json(&clusters) } else { said() })?)
        }
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
        ClusterCommand::Diagnose => {
            let diagnosis: DiagnosisView = client.get("/v1/cluster/diagnosis")?;
            print(&if args.json { to_json(&diagnosis) } else { told(&diagnosis) })?;
            match diagnosis.findings.len() {
                0 => Ok(()),
                count => Err(CommandError::Findings { count }),
            }
        }
        ClusterCommand::RefreshLinks { carrying_out } => {
            let change = ChangeMembers { refresh_links: true, ..ChangeMembers::default() };
            carry_out(&client, change, "have every node check its links", carrying_out, args.json)
        }
        ClusterCommand::Reweight { name, weight, carrying_out } => {
            let change = ChangeMembers {
                weights: [(name.clone(), *weight)].into(),
                ..ChangeMembers::default()
            };
            let what = format!("give {name} weight {weight}");
            carry_out(&client, change, &what, carrying_out, args.json)
        }
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

/// Findings as paragraphs: what, then what to do.
pub(super) fn told(diagnosis: &DiagnosisView) -> String {
    if diagnosis.findings.is_empty() {
        return "Every node has the same view and reaches every other.\n".to_owned();
    }
    let paragraph =
        |it: &FindingView| format!("{}: {} {}\n  {}\n", it.fault, it.node, it.what, it.advice);
    diagnosis.findings.iter().map(paragraph).collect()
}

/// Enough of a digest to be compared by eye.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}
