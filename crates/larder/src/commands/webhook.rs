//! `larder webhook …`: who is called when caches change.

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use control::contract::{CallView, PutWebhook, WebhookView, WebhooksView};

use super::cache::CommandError;
use super::output::{done, print, table, to_json, when};
use crate::client::{Client, ConnectionArgs};

/// Have URLs called when caches and credentials change.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder webhook add https://example.org/larder   prints the secret that calls are signed with
  larder webhook test 1                           calls it now, and says what it answered
  larder webhook list
  larder webhook remove 1

Calls are POST requests with JSON, signed as Standard Webhooks says (webhook-id, webhook-timestamp,
webhook-signature). One that fails is repeated for some three hours, so a receiver may hear the same
twice: webhook-id tells it. `larder outbox` shows what waits and what was given up.")]
pub(crate) struct WebhookArgs {
    #[command(subcommand)]
    command: WebhookCommand,

    #[command(flatten)]
    connection: ConnectionArgs,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum WebhookCommand {
    /// Call this URL from now on; once more with the same URL gives it another secret
    Add {
        /// http or https
        url: String,
    },
    /// List the webhooks; secrets are not shown again
    List,
    /// Call a URL no more, and forget what waits for it
    Remove {
        /// As `larder webhook list` shows it
        id: u64,
    },
    /// Call a webhook now with a body of type `test`, and wait for what comes of it
    Test {
        /// As `larder webhook list` shows it
        id: u64,
    },
}

/// How often is looked whether the test call has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// One attempt takes at most ten seconds, and may wait for others to the same receiver.
const TEST_TIME_MAX: Duration = Duration::from_secs(25);

pub(crate) fn run(args: &WebhookArgs) -> Result<(), CommandError> {
    let client = args.connection.client()?;
    match &args.command {
        WebhookCommand::Add { url } => {
            let made: WebhookView =
                client.post("/v1/webhooks", &PutWebhook { url: url.clone() })?;
            Ok(print(&if args.json { to_json(&made) } else { added(&made) })?)
        }
        WebhookCommand::List => {
            let WebhooksView { webhooks } = client.get("/v1/webhooks")?;
            Ok(print(&if args.json { to_json(&webhooks) } else { listed(&webhooks) })?)
        }
        WebhookCommand::Remove { id } => {
            client.delete(&format!("/v1/webhooks/{id}"))?;
            let said = format!("webhook {id} is removed\n");
            Ok(print(&done(args.json, "removed", &id.to_string(), &said))?)
        }
        WebhookCommand::Test { id } => {
            let began = Instant::now();
            let call = test(&client, *id)?;
            let took = began.elapsed().as_millis();
            if args.json {
                print(&to_json(&call))?;
            }
            match (call.state.as_str(), call.problem) {
                ("sent", _) if args.json => Ok(()),
                ("sent", _) => Ok(print(&format!("{} answered after {took} ms\n", call.url))?),
                (_, problem) => Err(CommandError::CallFailed {
                    url: call.url,
                    problem: problem.unwrap_or_else(|| "no answer yet".to_owned()),
                }),
            }
        }
    }
}

/// Makes a test call, and waits until its first attempt has ended.
fn test(client: &Client, id: u64) -> Result<CallView, CommandError> {
    let began = Instant::now();
    let mut call: CallView = client.post(&format!("/v1/webhooks/{id}/test"), &())?;
    while call.state == "waiting" && call.problem.is_none() && began.elapsed() < TEST_TIME_MAX {
        sleep(LOOK_EVERY);
        call = client.get(&format!("/v1/outbox/{}", call.id))?;
    }
    Ok(call)
}

fn added(webhook: &WebhookView) -> String {
    format!(
        "{} is called from now on (webhook {}).\nIts calls are signed with this secret, which is not \
         shown again:\n  {}\nTry it: larder webhook test {}\n",
        webhook.url,
        webhook.id,
        webhook.secret.as_deref().unwrap_or_default(),
        webhook.id
    )
}

fn listed(webhooks: &[WebhookView]) -> String {
    if webhooks.is_empty() {
        return "Nobody is called; `larder webhook add URL` changes that.\n".to_owned();
    }
    let row = |it: &WebhookView| [it.id.to_string(), it.url.clone(), when(it.created_at)];
    table(["ID", "URL", "SINCE"], &webhooks.iter().map(row).collect::<Vec<_>>())
}
