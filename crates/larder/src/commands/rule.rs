//! `larder rule …`: which addresses may connect.

use clap::{Args, Subcommand};
use control::contract::{AppliedView, PutRule, RulePreviewView, RuleView, RulesView};
use control::model::CacheRef;
use serde::Deserialize;
use tenancy::rules::Network;

use super::cache::{CommandError, Confirmation};
use super::output::{done, print, table, to_json, when};
use crate::client::{Client, ConnectionArgs};

/// Block or allow addresses for a while, for all caches or one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder rule add 203.0.113.0/24 --reason 'a flood' --dry-run     whom would it cut off?
  larder rule add 203.0.113.0/24 --reason 'a flood' --minutes 30
  larder rule add 198.51.100.7 --cache shop --reason 'a lost laptop' --minutes 10080
  larder rule list
  larder rule remove 3

Of the rules that hold an address the one with the longest prefix decides; where none does, it may
connect. So `add 0.0.0.0/0 --force` and `add 10.0.0.0/8 --allow` let in one network only. A client must
pass the rules for all caches and those of its own. Open connections of an address that becomes blocked
are closed within a second. Limits of a cache (`larder cache change-plan`) are often the better tool.")]
pub(crate) struct RuleArgs {
    #[command(subcommand)]
    command: RuleCommand,

    #[command(flatten)]
    connection: ConnectionArgs,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RuleCommand {
    /// Make a rule; one for the same network and the same clients is changed
    Add {
        /// An address, or a network such as 203.0.113.0/24 or 2001:db8::/32
        #[arg(value_parser = Network::parse)]
        network: Network,
        /// Why, for those who find it
        #[arg(long)]
        reason: String,
        /// Only for clients of this cache
        #[arg(long, value_parser = CacheRef::parse)]
        cache: Option<CacheRef>,
        /// Only for clients of this cluster, where there are several
        #[arg(long, conflicts_with = "cache")]
        cluster: Option<String>,
        /// Let the addresses in, although a shorter prefix blocks them
        #[arg(long)]
        allow: bool,
        /// How long it lasts: an hour at most for all caches, a year for one
        #[arg(long, value_name = "MINUTES", default_value_t = 60)]
        minutes: u64,
        /// Although it is very wide, or cuts off open connections
        #[arg(long)]
        force: bool,
        /// Only say whom it would cut off
        #[arg(long)]
        dry_run: bool,
    },
    /// List the rules
    List,
    /// Remove a rule
    Remove {
        /// As `larder rule list` shows it
        id: u64,
        /// Only say whom it would cut off
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        confirmation: Confirmation,
    },
}

/// A rule that was made, and how far the nodes have come with it.
#[derive(Deserialize)]
struct Made {
    #[serde(flatten)]
    rule: RuleView,
    applied: AppliedView,
}

pub(crate) fn run(args: &RuleArgs) -> Result<(), CommandError> {
    let client = args.connection.client()?;
    let text = answer(&client, &args.command, args.json)?;
    Ok(print(&text)?)
}

fn answer(client: &Client, command: &RuleCommand, json: bool) -> Result<String, CommandError> {
    match command {
        RuleCommand::Add { network, reason, cache, cluster, allow, minutes, force, dry_run } => {
            let wish = PutRule {
                network: network.to_string(),
                ruling: allow.then(|| "allow".to_owned()),
                cache: cache.as_ref().map(ToString::to_string),
                cluster: cluster.clone(),
                reason: reason.clone(),
                seconds: Some(minutes.saturating_mul(60)),
                force: *force,
            };
            if *dry_run {
                let preview: RulePreviewView = client.post("/v1/rules/preview", &wish)?;
                return Ok(if json { to_json(&preview) } else { previewed(&preview) });
            }
            let made: serde_json::Value = client.post("/v1/rules?wait=applied", &wish)?;
            if json {
                return Ok(to_json(&made));
            }
            let Made { rule, applied } =
                serde_json::from_value(made).map_err(|_| client.strange())?;
            Ok(format!(
                "Rule {}: {} {} until {}; {}\n",
                rule.id,
                rule.ruling,
                rule.network,
                when(rule.expires_at),
                came_to(&applied)
            ))
        }
        RuleCommand::List => {
            let mut rules = Vec::new();
            let mut after = 0;
            loop {
                let page: RulesView = client.get(&format!("/v1/rules?after={after}"))?;
                rules.extend(page.rules);
                match page.next_after {
                    Some(next) => after = next,
                    None => break,
                }
            }
            Ok(if json { to_json(&rules) } else { listed(&rules) })
        }
        RuleCommand::Remove { id, dry_run, confirmation } => {
            let preview: RulePreviewView = client.get(&format!("/v1/rules/{id}/preview"))?;
            if *dry_run {
                return Ok(if json { to_json(&preview) } else { previewed(&preview) });
            }
            if 0 < preview.connections {
                let cut = preview.connections;
                confirmation.get(&format!("remove rule {id} and cut off {cut} connections"))?;
            }
            client.delete(&format!("/v1/rules/{id}?wait=applied"))?;
            Ok(done(json, "removed", &id.to_string(), &format!("Rule {id} is removed.\n")))
        }
    }
}

fn came_to(applied: &AppliedView) -> String {
    let AppliedView { nodes, applied, .. } = applied;
    if nodes == applied {
        return format!("every node has it ({nodes})");
    }
    format!("{applied} of {nodes} nodes have it, the others have it when they are back")
}

fn previewed(preview: &RulePreviewView) -> String {
    let mut text = match preview.connections {
        0 => "It would cut off nobody who is connected now.\n".to_owned(),
        connections => {
            let caches = preview.caches_total;
            format!("It would cut off {connections} connections, of {caches} caches.\n")
        }
    };
    if !preview.silent_nodes.is_empty() {
        let nodes = preview.silent_nodes.join(", ");
        text.push_str(&format!("Not known of nodes that do not answer: {nodes}\n"));
    }
    if let Some(objection) = &preview.objection {
        text.push_str(&format!("Without --force it is refused: {objection}\n"));
    }
    if !preview.caches.is_empty() {
        let rows = preview.caches.iter().map(|cut| {
            let name = cut.name.clone().unwrap_or_else(|| cut.cache.to_string());
            [name, cut.connections.to_string()]
        });
        text.push('\n');
        text.push_str(&table(["CACHE", "CONNECTIONS"], &rows.collect::<Vec<_>>()));
    }
    if !preview.clients.is_empty() {
        let rows = preview.clients.iter().map(|client| {
            let cache = client.cache.map_or_else(|| "-".to_owned(), |cache| cache.to_string());
            [client.address.clone(), cache, client.connections.to_string()]
        });
        text.push('\n');
        text.push_str(&table(["ADDRESS", "CACHE", "CONNECTIONS"], &rows.collect::<Vec<_>>()));
    }
    text
}

fn listed(rules: &[RuleView]) -> String {
    if rules.is_empty() {
        return "There is no rule: clients may connect from everywhere.\n".to_owned();
    }
    let row = |rule: &RuleView| {
        let clients_of = rule.cache_name.clone().unwrap_or_else(|| "all caches".to_owned());
        [
            rule.id.to_string(),
            rule.ruling.clone(),
            rule.network.clone(),
            clients_of,
            when(rule.expires_at),
            rule.made_by.clone(),
            rule.reason.clone(),
        ]
    };
    let heads = ["ID", "RULING", "NETWORK", "CLIENTS OF", "ENDS", "BY", "REASON"];
    table(heads, &rules.iter().map(row).collect::<Vec<_>>())
}
