//! `larder operator …`: who may log in at the dashboard and see everything.

use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use control::contract::{OperatorView, OperatorsView, PutOperator};
use control::model::OperatorName;
use tenancy::secret::Secret;

use super::cache::CommandError;
use super::output::{done, print, table, to_json};
use crate::client::{Client, ConnectionArgs};

/// Manage who may log in at the dashboard and see every cache.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  larder operator add ann                      makes a password and prints it
  larder operator add ann --password-file -    reads it from standard input
  larder operator list
  larder operator remove ann                   and end his sessions

They log in at /operator of the dashboard.")]
pub(crate) struct OperatorArgs {
    #[command(subcommand)]
    command: OperatorCommand,

    #[command(flatten)]
    connection: ConnectionArgs,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum OperatorCommand {
    /// Add an operator, or give the one of this name another password
    Add {
        #[arg(value_parser = OperatorName::parse)]
        name: OperatorName,
        /// File with the password in its first line, `-` for standard input [default: make one]
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List who may log in
    List,
    /// Remove an operator and end his sessions
    Remove {
        #[arg(value_parser = OperatorName::parse)]
        name: OperatorName,
    },
}

pub(crate) fn run(args: &OperatorArgs) -> Result<(), CommandError> {
    let client = args.connection.client()?;
    let text = answer(&client, &args.command, args.json)?;
    Ok(print(&text)?)
}

fn answer(client: &Client, command: &OperatorCommand, json: bool) -> Result<String, CommandError> {
    match command {
        OperatorCommand::Add { name, password_file } => {
            let password = match password_file {
                Some(path) => read(path)
                    .map_err(|source| CommandError::PasswordFile { path: path.clone(), source })?,
                None => made()?,
            };
            let wish = PutOperator { name: name.to_string(), password: password.clone() };
            let operator: OperatorView = client.post("/v1/operators", &wish)?;
            let is_made = password_file.is_none();
            Ok(match (json, is_made) {
                (true, true) => to_json(&wish),
                (true, false) => to_json(&operator),
                (false, true) => format!("Added operator {name}, with the password {password}\n"),
                (false, false) => format!("Added operator {name}.\n"),
            })
        }
        OperatorCommand::List => {
            let OperatorsView { operators } = client.get("/v1/operators")?;
            let rows: Vec<_> = operators.iter().map(|one| [one.name.clone()]).collect();
            Ok(if json { to_json(&operators) } else { table(["NAME"], &rows) })
        }
        OperatorCommand::Remove { name } => {
            client.delete(&format!("/v1/operators/{name}"))?;
            let said = format!("Removed operator {name}.\n");
            Ok(done(json, "removed", name.as_str(), &said))
        }
    }
}

/// The first line of a file.
fn read(path: &Path) -> io::Result<String> {
    let mut line = String::new();
    if path == Path::new("-") {
        io::stdin().lock().read_line(&mut line)?;
    } else {
        line = fs::read_to_string(path)?;
    }
    Ok(line.lines().next().unwrap_or_default().to_owned())
}

/// One that nobody can guess.
fn made() -> Result<String, CommandError> {
    let mut random = [0; tenancy::secret::SECRET_RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|error| CommandError::Random(io::Error::other(error)))?;
    Ok(Secret::from_random(random).reveal().to_owned())
}
