//! `larder credential …`: who may use a cache, and what they may do.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, Subcommand, ValueEnum};
use control::contract::{
    AddCredential, CacheView, Capable, ChangeCapabilities, CredentialView, CredentialsView,
    OwnerView, SetPrimary,
};
use control::model::CacheRef;
use tenancy::id::Username;

use super::cache::CommandError;
use super::output::{done, print, table, to_json};
use crate::client::{Client, ClientError, ConnectionArgs};

/// Manage the usernames and passwords of a cache.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder credential add shop                      may do everything
  larder credential add shop --read-only
  larder credential list shop --passwords
  larder credential deny 7G2KQ0V9XA write flush   open connections feel it at once
  larder credential allow 7G2KQ0V9XA write

To change a password without downtime:
  larder credential add shop                      the new one; both work now
  larder credential promote NEW                   and give it to your applications
  larder credential remove OLD                    when they have it

Reading needs no capability. `write` allows every change to items, `flush` forgetting all of them,
`api` the cache's own HTTP API.")]
pub(crate) struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,

    #[command(flatten)]
    connection: ConnectionArgs,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Make another credential for a cache, and print it
    Add {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
        /// What it may do beyond reading, separated by commas [default: everything]
        #[arg(long, value_name = "CAPABILITY", value_delimiter = ',')]
        allow: Vec<CapabilityArg>,
        /// It may do nothing but read
        #[arg(long, conflicts_with = "allow")]
        read_only: bool,
    },
    /// List a cache's credentials
    List {
        #[arg(value_parser = CacheRef::parse)]
        cache: CacheRef,
        /// Show the passwords, too
        #[arg(long)]
        passwords: bool,
    },
    /// Delete a credential and end its connections; the primary one stays
    Remove {
        #[arg(value_parser = Username::parse)]
        username: Username,
    },
    /// Make a credential its cache's primary one; the one before stays valid
    Promote {
        #[arg(value_parser = Username::parse)]
        username: Username,
    },
    /// Give capabilities to a credential
    Allow {
        #[arg(value_parser = Username::parse)]
        username: Username,
        #[arg(required = true, value_name = "CAPABILITY")]
        capabilities: Vec<CapabilityArg>,
    },
    /// Take capabilities from a credential, on open connections, too
    Deny {
        #[arg(value_parser = Username::parse)]
        username: Username,
        #[arg(required = true, value_name = "CAPABILITY")]
        capabilities: Vec<CapabilityArg>,
    },
}

/// A capability as the command line spells it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum CapabilityArg {
    Write,
    Flush,
    Api,
}

impl From<CapabilityArg> for Capable {
    fn from(capability: CapabilityArg) -> Self {
        match capability {
            CapabilityArg::Write => Capable::Write,
            CapabilityArg::Flush => Capable::Flush,
            CapabilityArg::Api => Capable::Api,
        }
    }
}

pub(crate) fn run(args: &CredentialArgs) -> Result<(), CommandError> {
    let client = args.connection.client()?;
    let text = answer(&client, &args.command, args.json)?;
    Ok(print(&text)?)
}

fn answer(
    client: &Client,
    command: &CredentialCommand,
    json: bool,
) -> Result<String, CommandError> {
    match command {
        CredentialCommand::Add { cache, allow, read_only } => {
            let all = allow.is_empty() && !read_only;
            let names = || allow.iter().copied().map(Capable::from).collect();
            let wish = AddCredential { capabilities: (!all).then(names) };
            let path = format!("/v1/caches/{cache}/credentials");
            let credential: CredentialView = client.post(&path, &wish)?;
            if json {
                return Ok(to_json(&credential));
            }
            let cache: CacheView = client.get(&format!("/v1/caches/{cache}"))?;
            Ok(added(&cache, &credential))
        }
        CredentialCommand::List { cache, passwords } => {
            let path = format!("/v1/caches/{cache}/credentials?passwords={passwords}");
            let CredentialsView { credentials } = client.get(&path)?;
            let said = || credential_table(&credentials, *passwords);
            Ok(if json { to_json(&credentials) } else { said() })
        }
        CredentialCommand::Remove { username } => {
            let owner = owner(client, username)?;
            client.delete(&owner.path(username))?;
            let said = format!("Removed {username} from cache {}.\n", owner.0.name);
            Ok(done(json, "removed", username.as_str(), &said))
        }
        CredentialCommand::Promote { username } => {
            let owner = owner(client, username)?;
            let path = format!("/v1/caches/{}/primary", owner.0.cache);
            let wish = SetPrimary { username: username.to_string() };
            let credential: CredentialView = client.put(&path, &wish)?;
            let said = format!(
                "{username} is the primary credential of cache {}; `larder cache show {} --env` \
                 prints it.\n",
                owner.0.name, owner.0.name
            );
            Ok(if json { to_json(&credential) } else { said })
        }
        CredentialCommand::Allow { username, capabilities } => {
            change(client, username, capabilities, true, json)
        }
        CredentialCommand::Deny { username, capabilities } => {
            change(client, username, capabilities, false, json)
        }
    }
}

fn change(
    client: &Client,
    username: &Username,
    named: &[CapabilityArg],
    given: bool,
    json: bool,
) -> Result<String, CommandError> {
    let changes: BTreeMap<Capable, bool> = named.iter().map(|one| ((*one).into(), given)).collect();
    let path = owner(client, username)?.path(username);
    let credential: CredentialView = client.patch(&path, &ChangeCapabilities(changes))?;
    let said = format!("{username} may now: {}.\n", capabilities(&credential));
    Ok(if json { to_json(&credential) } else { said })
}

/// The cache that a credential belongs to: usernames are unique, so nobody need say it.
struct Owner(OwnerView);

fn owner(client: &Client, username: &Username) -> Result<Owner, ClientError> {
    client.get(&format!("/v1/credentials/{username}")).map(Owner)
}

impl Owner {
    fn path(&self, username: &Username) -> String {
        format!("/v1/caches/{}/credentials/{username}", self.0.cache)
    }
}

fn added(cache: &CacheView, credential: &CredentialView) -> String {
    let variables = variables(&cache.servers, credential);
    let (name, may) = (&cache.name, capabilities(credential));
    format!("Added {} to cache {name}: {may}.\n\n{variables}", credential.username)
}

/// How an application connects, as it reads it from its environment.
pub(super) fn variables(servers: &[String], credential: &CredentialView) -> String {
    let CredentialView { username, password, .. } = credential;
    let mut lines = format!("MEMCACHIER_SERVERS={}\n", servers.join(","));
    writeln!(lines, "MEMCACHIER_USERNAME={username}").expect("a String takes all");
    if let Some(password) = password {
        writeln!(lines, "MEMCACHIER_PASSWORD={password}").expect("a String takes all");
    }
    lines
}

pub(super) fn credential_table(credentials: &[CredentialView], passwords: bool) -> String {
    let row = |credential: &CredentialView| {
        let primary = if credential.primary { "primary" } else { "" };
        [credential.username.clone(), primary.to_owned(), capabilities(credential)]
    };
    if passwords {
        let rows: Vec<_> = credentials
            .iter()
            .map(|credential| {
                let [username, primary, may] = row(credential);
                let password = credential.password.clone().unwrap_or_default();
                [username, primary, may, password]
            })
            .collect();
        table(["USERNAME", "PRIMARY", "CAPABILITIES", "PASSWORD"], &rows)
    } else {
        let rows: Vec<_> = credentials.iter().map(row).collect();
        table(["USERNAME", "PRIMARY", "CAPABILITIES"], &rows)
    }
}

fn capabilities(credential: &CredentialView) -> String {
    if credential.capabilities.is_empty() {
        "read-only".to_owned()
    } else {
        credential.capabilities.join(",")
    }
}
