//! One Larder with thousands of caches, and a load that is dealt out to some of them.

use super::contest::{GENERATOR_CPU, Load};
use super::outcome::Sample;
use super::{Effort, contest};
use clap::Parser;
use serde_json::json;
use std::collections::HashSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use tempfile::TempDir;
use testbed::connection::Login;
use testbed::kill_control::api::Api;
use testbed::larder::Larder;

pub(super) struct ManyCaches {
    larder: Larder,
    logins: Vec<Login>,
    /// For these numbers of caches the first ones hold their items.
    filled: HashSet<usize>,
    dir: TempDir,
}

/// As many connections whatever the number of caches, so that only that differs.
const CONNECTIONS: usize = 4_000;

/// Items of all caches together.
const ITEMS: usize = 40_000;

/// Each of the caches is promised its memory; nobody uses a thousandth of it.
const MEMORY: &str = "200GiB";

/// For the first cache, which must take all the connections.
const PLAN_OF_FIRST: &str = "500";
/// For those that share them with nine others, or more.
const PLAN: &str = "dev";

impl ManyCaches {
    /// Starts on the core of the calling thread.
    pub(super) fn start(caches: usize) -> Result<ManyCaches, Box<dyn Error + Send + Sync>> {
        let larder = Larder::options()
            .argument("--threads")
            .argument("1")
            .argument("--memory")
            .argument(MEMORY)
            .start();
        let url = larder.process.line_after("LARDER_CONTROL=").ok_or("no control API was told")?;
        let api = Api::new(&url, larder.dir().path());
        let logins: Result<Vec<Login>, String> = (0..caches)
            .map(|number| {
                let plan = if number == 0 { PLAN_OF_FIRST } else { PLAN };
                let key = format!("many-{number}");
                let made = api.change("POST", "/v1/caches", &key, &json!({ "plan": plan }));
                let made = made.ok_or("the control API did not answer")?;
                let word = |name: &str| made.body["credentials"][0][name].as_str();
                match (word("username"), word("password")) {
                    (Some(username), Some(password)) => {
                        Ok(Login { username: username.to_owned(), password: password.to_owned() })
                    }
                    _ => Err(format!("no cache was made: {} {}", made.status, made.body)),
                }
            })
            .collect();
        Ok(ManyCaches { larder, logins: logins?, filled: HashSet::new(), dir: TempDir::new()? })
    }

    /// Puts the load on the first `caches` of them.
    pub(super) fn sample(
        &mut self,
        caches: usize,
        load: &str,
        effort: Effort,
    ) -> Result<Sample, Box<dyn Error>> {
        let keys = (ITEMS / caches).max(1);
        let logins = self.logins.get(..caches).ok_or("so many caches were not made")?;
        let addr = self.larder.addr;
        // The fewer items of a larger number are among those of a smaller one.
        if self.filled.insert(caches) {
            for Login { username, password } in logins {
                let words = format!(
                    "load --servers {addr} --username {username} --password {password} -c 1 -n 1 \
                     --keys {keys}"
                );
                bench::run(&Load::try_parse_from(words.split_whitespace())?.bench)?;
            }
        }
        let mut text = String::new();
        for Login { username, password } in logins {
            writeln!(text, "{username}:{password}")?;
        }
        let file = self.dir.path().join("logins");
        fs::write(&file, text)?;
        let words = format!(
            "load --servers {addr} --logins {} {load} -c {CONNECTIONS} --no-fill --keys {keys} \
             --distribution uniform --pin {GENERATOR_CPU} --warm-up {}ms --duration {}ms",
            file.display(),
            effort.warm_up.as_millis(),
            effort.duration.as_millis()
        );
        contest::sample(&words, &[&self.larder.process])
    }
}
