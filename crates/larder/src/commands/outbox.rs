//! `larder outbox …`: calls to webhooks that wait, were made, or were given up.

use clap::{Args, Subcommand, ValueEnum};
use control::contract::{CallView, CallsView};

use super::cache::CommandError;
use super::output::{done, pairs, print, table, to_json, when};
use crate::client::ConnectionArgs;

/// Look at calls to webhooks, and try again what was given up.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder outbox list                    what was given up: nobody tries it again by itself
  larder outbox list --state waiting    what is still tried, and why it failed last
  larder outbox show 17                 one call with its body
  larder outbox retry 17")]
pub(crate) struct OutboxArgs {
    #[command(subcommand)]
    command: OutboxCommand,

    #[command(flatten)]
    connection: ConnectionArgs,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum OutboxCommand {
    /// List calls, the newest first
    List {
        #[arg(long, value_enum, default_value_t = StateArg::Dead)]
        state: StateArg,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one call with its body
    Show {
        /// As `larder outbox list` shows it
        id: u64,
    },
    /// Give a call that was given up all its attempts again
    Retry {
        /// As `larder outbox list` shows it
        id: u64,
    },
}

/// How a call is.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateArg {
    /// It is tried, or will be
    Waiting,
    /// It was answered
    Sent,
    /// It was given up
    Dead,
}

impl StateArg {
    const fn name(self) -> &'static str {
        match self {
            StateArg::Waiting => "waiting",
            StateArg::Sent => "sent",
            StateArg::Dead => "dead",
        }
    }
}

pub(crate) fn run(args: &OutboxArgs) -> Result<(), CommandError> {
    let client = args.connection.client()?;
    let text = match &args.command {
        OutboxCommand::List { state, limit } => {
            let path = format!("/v1/outbox?state={}&limit={limit}", state.name());
            let CallsView { calls } = client.get(&path)?;
            if args.json { to_json(&calls) } else { listed(&calls, *state) }
        }
        OutboxCommand::Show { id } => {
            let call: CallView = client.get(&format!("/v1/outbox/{id}"))?;
            if args.json { to_json(&call) } else { shown(&call) }
        }
        OutboxCommand::Retry { id } => {
            client.post_silent(&format!("/v1/outbox/{id}/retry"))?;
            done(args.json, "retried", &id.to_string(), &format!("call {id} is tried again\n"))
        }
    };
    Ok(print(&text)?)
}

fn listed(calls: &[CallView], state: StateArg) -> String {
    if calls.is_empty() {
        return format!("No call is {}.\n", state.name());
    }
    let row = |it: &CallView| {
        let problem = it.problem.clone().unwrap_or_else(|| "-".to_owned());
        [it.id.to_string(), it.url.clone(), when(it.created_at), it.attempts.to_string(), problem]
    };
    let rows: Vec<_> = calls.iter().map(row).collect();
    table(["ID", "URL", "SINCE", "ATTEMPTS", "LAST PROBLEM"], &rows)
}

fn shown(call: &CallView) -> String {
    pairs([
        ("id", call.id.to_string()),
        ("url", call.url.clone()),
        ("webhook-id", call.idempotency_key.clone()),
        ("state", call.state.clone()),
        ("attempts", call.attempts.to_string()),
        ("since", when(call.created_at)),
        ("problem", call.problem.clone().unwrap_or_else(|| "-".to_owned())),
        ("body", call.body.clone()),
    ])
}
