//! `larder cache …`: caches of a running Larder.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use control::contract::{
    CacheView, CachesView, ChangePlan, CreateCache, LimitRates, PlanView, PlansView, SetEnabled,
    StatisticsView,
};
use control::model::{CacheName, CacheRef};

use super::credential::{credential_table, variables};
use super::output::{bytes, done, pairs, print, table, to_json};
use crate::client::{Client, ClientError, ConnectionArgs};

/// Create, look at, change and delete caches.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder cache create shop --plan 100     a cache of 100 MiB; prints how to connect to it
  larder cache list
  larder cache show shop --env > .env     MEMCACHIER_… as an application reads it
  larder cache stats shop --json
  larder cache limit shop --ops-per-second 5000
  larder cache delete shop --yes

A cache is named by its name or its id. `larder credential` manages who may use it.")]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,

    #[command(flatten)]
    connection: ConnectionArgs,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Create a cache, with a first credential that may do everything
    Create {
        /// A letter, then letters, digits, '-', '_' or '.' [default: one made up]
        #[arg(value_parser = CacheName::parse)]
        name: Option<CacheName>,
        /// `dev` (25 MiB) or the memory in MiB; `larder cache plans` lists them
        #[arg(long, default_value = "dev")]
        plan: String,
    },
    /// List all caches
    List,
    /// Show one cache and its credentials
    Show {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
        /// Show the passwords and the dashboard's URL, too
        #[arg(long)]
        passwords: bool,
        /// Print only MEMCACHIER_SERVERS, _USERNAME and _PASSWORD, as applications read them
        #[arg(long, conflicts_with = "json")]
        env: bool,
    },
    /// Delete a cache with its items and credentials, and end its connections
    Delete {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Forget all items of a cache
    Flush {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
        #[command(flatten)]
        confirmation: Confirmation,
    },
    /// Print a cache's counters and gauges, under memcached's names
    Stats {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
    },
    /// Give a cache another plan; its items stay as far as they fit
    ChangePlan {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
        /// See `larder cache plans`
        plan: String,
    },
    /// Let a cache be used so fast, and no faster; whoever wants more waits
    Limit {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
        /// Keys and other commands per second at each proxy; 0 is no limit
        #[arg(long, value_name = "N")]
        ops_per_second: Option<u64>,
        /// Bytes from and to clients per second at each proxy; 0 is no limit
        #[arg(long, value_name = "N", required_unless_present = "ops_per_second")]
        bytes_per_second: Option<u64>,
    },
    /// Refuse all clients of a cache until it is enabled; its items stay
    Disable {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
    },
    /// Let the clients of a disabled cache in again
    Enable {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
    },
    /// List the plans a cache can have
    Plans,
}

#[derive(Debug, Args)]
pub(super) struct Confirmation {
    /// Do not ask; needed where nobody can answer
    #[arg(long, short)]
    yes: bool,
}

/// Why a command of `larder cache` or `larder credential` did nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("not without asking: this would {0}; add --yes if that is meant")]
    NobodyToAsk(String),
    #[error("nothing was done")]
    NotConfirmed,
    #[error("the answer could not be printed")]
    Print(#[from] io::Error),
    #[error("{url} did not take the call: {problem}")]
    CallFailed { url: String, problem: String },
    #[error("the password in {path} could not be read")]
    PasswordFile { path: PathBuf, source: io::Error },
    #[error("no random bytes could be had")]
    Random(#[source] io::Error),
    #[error("{nodes} nodes have an alarm")]
    Alarms { nodes: usize },
    #[error("faults found: {count}")]
    Findings { count: usize },
    #[error(
        "it is not done after {seconds} s; control goes on trying: larder cluster status --watch"
    )]
    NotSettled { seconds: u64 },
    #[error("there is no node {name}; `larder node list` shows those there are")]
    UnknownNode { name: String },
}

pub(crate) fn run(args: &CacheArgs) -> Result<(), CommandError> {
    let client = args.connection.client()?;
    let text = answer(&client, &args.command, args.json)?;
    Ok(print(&text)?)
}

fn answer(client: &Client, command: &CacheCommand, json: bool) -> Result<String, CommandError> {
    match command {
        CacheCommand::Create { name, plan } => {
            let name = name.as_ref().map(ToString::to_string);
            let wish = CreateCache { name, plan: Some(plan.clone()), cluster: None };
            let cache: CacheView = client.post("/v1/caches", &wish)?;
            Ok(if json { to_json(&cache) } else { created(&cache) })
        }
        CacheCommand::List => {
            let caches = all_caches(client)?;
            Ok(if json { to_json(&caches) } else { listed(&caches) })
        }
        CacheCommand::Show { cache, passwords, env } => {
            let passwords = *passwords || *env;
            let cache: CacheView =
                client.get(&format!("/v1/caches/{cache}?passwords={passwords}"))?;
            Ok(match (json, *env) {
                (true, _) => to_json(&cache),
                (false, true) => variables_of_primary(&cache),
                (false, false) => shown(&cache, passwords),
            })
        }
        CacheCommand::Delete { cache, confirmation } => {
            // Asked for first, so that a wrong name is said before anybody confirms it; then named by
            // its id, so that what is confirmed is what goes.
            let CacheView { id, name, .. } = client.get(&format!("/v1/caches/{cache}"))?;
            confirmation.get(&format!("delete cache {name} with its items and credentials"))?;
            client.delete(&format!("/v1/caches/{id}"))?;
            Ok(done(json, "deleted", &name, &format!("Deleted cache {name}.\n")))
        }
        CacheCommand::Flush { cache, confirmation } => {
            let CacheView { id, name, .. } = client.get(&format!("/v1/caches/{cache}"))?;
            confirmation.get(&format!("forget all items of cache {name}"))?;
            client.post_silent(&format!("/v1/caches/{id}/flush"))?;
            Ok(done(json, "flushed", &name, &format!("Flushed cache {name}.\n")))
        }
        CacheCommand::Stats { cache } => {
            let view: StatisticsView = client.get(&format!("/v1/caches/{cache}/stats"))?;
            Ok(if json { to_json(&view.statistics) } else { counted(&view) })
        }
        CacheCommand::ChangePlan { cache, plan } => {
            let wish = ChangePlan { plan: plan.clone() };
            let cache: CacheView = client.put(&format!("/v1/caches/{cache}/plan"), &wish)?;
            let said = format!("Cache {} has plan {}.\n", cache.name, plan_of(&cache));
            Ok(if json { to_json(&cache) } else { said })
        }
        CacheCommand::Limit { cache, ops_per_second, bytes_per_second } => {
            let wish = LimitRates {
                operations_per_second: *ops_per_second,
                bytes_per_second: *bytes_per_second,
            };
            let cache: CacheView = client.put(&format!("/v1/caches/{cache}/rates"), &wish)?;
            let said = format!("Cache {} has {} per proxy.\n", cache.name, rates_of(&cache));
            Ok(if json { to_json(&cache) } else { said })
        }
        CacheCommand::Disable { cache } => set_enabled(client, cache, false, json),
        CacheCommand::Enable { cache } => set_enabled(client, cache, true, json),
        CacheCommand::Plans => {
            let view: PlansView = client.get("/v1/plans")?;
            Ok(if json { to_json(&view.plans) } else { plans(&view) })
        }
    }
}

fn all_caches(client: &Client) -> Result<Vec<CacheView>, ClientError> {
    let mut caches = Vec::new();
    let mut after = Some(0);
    // Ends, because each page begins after the last id of the one before.
    while let Some(id) = after {
        let page: CachesView = client.get(&format!("/v1/caches?limit=1000&after={id}"))?;
        caches.extend(page.caches);
        after = page.next_after.filter(|next| *next > id);
    }
    Ok(caches)
}

fn set_enabled(
    client: &Client,
    cache: &CacheRef,
    enabled: bool,
    json: bool,
) -> Result<String, CommandError> {
    let path = format!("/v1/caches/{cache}/enabled");
    let cache: CacheView = client.put(&path, &SetEnabled { enabled })?;
    let said = format!("Cache {} is {}.\n", cache.name, state(&cache));
    Ok(if json { to_json(&cache) } else { said })
}

fn created(cache: &CacheView) -> String {
    let CacheView { name, id, .. } = cache;
    let variables = variables_of_primary(cache);
    let dashboard = dashboard(cache);
    format!("Created cache {name} (id {id}), plan {}.\n\n{variables}{dashboard}", plan_of(cache))
}

fn listed(caches: &[CacheView]) -> String {
    let row = |cache: &CacheView| {
        let CacheView { id, name, plan, memory_bytes, .. } = cache;
        let memory = bytes(*memory_bytes);
        [id.to_string(), name.clone(), plan.clone(), memory, state(cache).to_owned()]
    };
    let rows: Vec<_> = caches.iter().map(row).collect();
    table(["ID", "NAME", "PLAN", "MEMORY", "STATE"], &rows)
}

fn shown(cache: &CacheView, passwords: bool) -> String {
    let mut text = pairs([
        ("name", cache.name.clone()),
        ("id", cache.id.to_string()),
        ("plan", plan_of(cache)),
        ("state", state(cache).to_owned()),
        ("largest item", bytes(u64::from(cache.item_bytes_max))),
        ("connections", format!("at most {}", cache.connections_max)),
        ("each proxy", rates_of(cache)),
        ("servers", cache.servers.join(",")),
    ]);
    if let Some(url) = &cache.dashboard_url {
        text.push_str(&format!("dashboard     {url}\n"));
    }
    let credentials = cache.credentials.as_deref().unwrap_or_default();
    text.push('\n');
    text.push_str(&credential_table(credentials, passwords));
    text
}

fn counted(view: &StatisticsView) -> String {
    let rows: Vec<_> =
        view.statistics.iter().map(|(name, count)| [name.clone(), count.to_string()]).collect();
    table(["NAME", "VALUE"], &rows)
}

fn plans(view: &PlansView) -> String {
    let row = |plan: &PlanView| {
        let item = bytes(u64::from(plan.item_bytes_max));
        [plan.name.clone(), bytes(plan.memory_bytes), item, plan.connections_max.to_string()]
    };
    let rows: Vec<_> = view.plans.iter().map(row).collect();
    table(["PLAN", "MEMORY", "LARGEST ITEM", "CONNECTIONS"], &rows)
}

fn plan_of(cache: &CacheView) -> String {
    format!("{} ({})", cache.plan, bytes(cache.memory_bytes))
}

fn rates_of(cache: &CacheView) -> String {
    let rate = |rate, unit| match rate {
        0 => format!("any number of {unit}"),
        rate => format!("at most {rate} {unit}"),
    };
    let operations = rate(cache.operations_per_second, "operations per second");
    format!("{operations}, {}", rate(cache.bytes_per_second, "bytes per second"))
}

fn state(cache: &CacheView) -> &'static str {
    if cache.enabled { "enabled" } else { "disabled" }
}

/// The line that says where the cache's dashboard is, for whoever was told.
fn dashboard(cache: &CacheView) -> String {
    let url = cache.dashboard_url.as_ref();
    url.map(|url| format!("LARDER_DASHBOARD={url}\n")).unwrap_or_default()
}

fn variables_of_primary(cache: &CacheView) -> String {
    let credentials = cache.credentials.as_deref().unwrap_or_default();
    let primary = credentials.iter().find(|credential| credential.primary);
    primary.map(|credential| variables(&cache.servers, credential)).unwrap_or_default()
}

impl Confirmation {
    /// Asks on the terminal, unless the command line has already said yes.
    pub(super) fn get(&self, act: &str) -> Result<(), CommandError> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(CommandError::NobodyToAsk(act.to_owned()));
        }
        // To standard error, so that the question is seen where the output goes elsewhere.
        write!(io::stderr(), "This will {act}. Go on? [y/N] ")?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        match line.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CommandError::NotConfirmed),
        }
    }
}
