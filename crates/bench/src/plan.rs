//! The settings as used: checked, in the units that the load wants.

use crate::args::{AuthKind, BenchArgs, Handshakes};
use crate::dialect::Dialect;
use crate::error::BenchError;
use crate::items::{Items, KEY_BYTES_MAX, KEY_BYTES_MIN, VALUE_BYTES_MAX};
use crate::login::Login;
use crate::machine::{CPU_MAX, pin_to, raise_descriptor_limit};
use crate::mix::Mix;
use crate::pace::{Pace, Rate, Spacing};
use crate::popularity::Distribution;
use crate::size::Size;
use crate::tls::{self, TlsPlan};
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) servers: Vec<Server>,
    /// Connections are dealt out to them in turn; empty where nothing is said about who we are.
    pub(crate) logins: Vec<Login>,
    pub(crate) tls: Option<TlsPlan>,
    pub(crate) dialect: Dialect,
    pub(crate) connections: usize,
    pub(crate) idle: usize,
    pub(crate) threads: usize,
    pub(crate) in_flight: usize,
    pub(crate) pace: Pace,
    pub(crate) duration: Option<Duration>,
    pub(crate) requests: Option<u64>,
    pub(crate) warm_up: Duration,
    pub(crate) handshakes: Option<Handshakes>,
    pub(crate) mix: Mix,
    pub(crate) multiget: u32,
    pub(crate) keys: u64,
    pub(crate) distribution: Distribution,
    pub(crate) key_size: Size,
    pub(crate) value_size: Size,
    pub(crate) ttl: u32,
    pub(crate) fill: bool,
    pub(crate) seed: u64,
    pub(crate) spin: bool,
    pub(crate) pin: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// As written, for messages.
    pub(crate) name: String,
    /// Without the port, for the certificate.
    pub(crate) host: String,
    pub(crate) address: SocketAddr,
}

/// Ten seconds are enough for a figure and short enough to repeat.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
const PORT_DEFAULT: u16 = 11211;
/// More threads than any machine has cores that one server could keep busy.
const THREADS_MAX: usize = 256;
/// A connection with more in flight only fills buffers.
const IN_FLIGHT_MAX: usize = 4096;
/// As many keys as Larder takes in one command.
const MULTIGET_MAX: u32 = 1000;
/// One message names the limit, before the operating system does.
const CONNECTIONS_MAX: usize = 1_000_000;

impl Plan {
    /// Checks all settings and reports every problem at once; then looks up the servers and reads
    /// the certificates.
    pub(crate) fn check(args: &BenchArgs) -> Result<Plan, BenchError> {
        let mut problems = Vec::new();
        check_load(args, &mut problems);
        check_requests(args, &mut problems);
        let logins = logins(args, &mut problems);
        if !problems.is_empty() {
            return Err(BenchError::Settings(problems));
        }
        let servers = args.servers.iter().map(|name| resolve(name)).collect::<Result<_, _>>()?;
        let pace = match args.rate {
            None => Pace::Closed,
            Some(rate) => Pace::Open(Rate {
                per_second: rate / args.threads as f64,
                spacing: if args.poisson { Spacing::Poisson } else { Spacing::Even },
            }),
        };
        let duration = match (args.duration, args.requests) {
            (None, None) => Some(DURATION_DEFAULT),
            (duration, _) => duration,
        };
        Ok(Plan {
            servers,
            logins,
            tls: tls::plan(args)?,
            dialect: args.dialect,
            connections: args.connections,
            idle: args.idle,
            threads: args.threads,
            in_flight: args.in_flight,
            pace,
            duration,
            requests: args.requests,
            warm_up: args.warm_up,
            handshakes: args.handshakes,
            mix: args.mix.clone(),
            multiget: args.multiget,
            keys: args.keys,
            distribution: args.distribution,
            key_size: args.key_size,
            value_size: args.value_size,
            ttl: args.ttl,
            fill: !args.no_fill && args.connections > 0 && args.handshakes.is_none(),
            seed: args.seed,
            spin: args.spin,
            pin: args.pin.clone(),
        })
    }

    /// Keeps the calling thread, which does this part of the work, where `--pin` wants it.
    pub(crate) fn pin_thread(&self, part: usize) -> Result<(), BenchError> {
        match self.pin.len() {
            0 => Ok(()),
            count => pin_to(self.pin[part % count]),
        }
    }

    /// How many of the requests fall to one thread; without a number, as many as time allows.
    pub(crate) fn requests_of(&self, part: usize) -> u64 {
        let (part, parts) = (part as u64, self.threads as u64);
        self.requests.map_or(u64::MAX, |all| all / parts + u64::from(part < all % parts))
    }

    /// Which of `total` connections fall to one thread.
    pub(crate) fn connections_of(
        &self,
        total: usize,
        part: usize,
    ) -> impl Iterator<Item = usize> + use<> {
        (0..total).skip(part).step_by(self.threads)
    }

    /// Who a connection says it is.
    pub(crate) fn login_of(&self, number: usize) -> Option<&Login> {
        self.logins.get(number.checked_rem(self.logins.len())?)
    }

    /// How a server was called on the command line, for messages.
    pub(crate) fn server_name(&self, server: usize) -> String {
        self.servers[server].name.clone()
    }
}

fn check_load(args: &BenchArgs, problems: &mut Vec<String>) {
    if !(1..=THREADS_MAX).contains(&args.threads) {
        problems.push(format!("--threads must be from 1 to {THREADS_MAX}"));
    }
    if !(1..=IN_FLIGHT_MAX).contains(&args.in_flight) {
        problems.push(format!("--in-flight must be from 1 to {IN_FLIGHT_MAX}"));
    }
    let connections = args.connections.saturating_add(args.idle);
    if connections == 0 || connections > CONNECTIONS_MAX {
        problems
            .push(format!("--connections and --idle together must be from 1 to {CONNECTIONS_MAX}"));
    } else if let Err(problem) = raise_descriptor_limit(connections as u64) {
        problems.push(problem);
    }
    if args.connections > 0 && args.connections < args.threads {
        problems.push("--threads needs at least one of --connections each".to_owned());
    }
    if args.connections == 0 && args.requests.is_some() {
        problems.push("--requests needs --connections to send them on".to_owned());
    }
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate <= RATE_MAX)) {
        problems.push(format!("--rate must be above 0 and at most {RATE_MAX}"));
    }
    if args.requests == Some(0) {
        problems.push("--requests must be at least 1".to_owned());
    }
    if args.handshakes.is_some() && args.rate.is_some() {
        problems.push("--handshakes go as fast as they can, so leave out --rate".to_owned());
    }
    if args.handshakes.is_some() && args.connections == 0 {
        problems.push("--handshakes need --connections".to_owned());
    }
    if let Some(cpu) = args.pin.iter().find(|&&cpu| cpu > CPU_MAX) {
        problems.push(format!("--pin {cpu} is no core of any machine"));
    }
}

/// A request per nanosecond.
const RATE_MAX: f64 = 1e9;

fn check_requests(args: &BenchArgs, problems: &mut Vec<String>) {
    if !(1..=MULTIGET_MAX).contains(&args.multiget) {
        problems.push(format!("--multiget must be from 1 to {MULTIGET_MAX}"));
    }
    let lengths = KEY_BYTES_MIN as u32..=KEY_BYTES_MAX as u32;
    if !lengths.contains(&args.key_size.min()) || !lengths.contains(&args.key_size.max()) {
        problems.push(format!("--key-size must be from {KEY_BYTES_MIN} to {KEY_BYTES_MAX}"));
    } else if args.keys > Items::keys_max(args.key_size.min()) {
        problems.push(format!(
            "there are only {} keys of {} bytes: ask for fewer --keys or longer ones",
            Items::keys_max(args.key_size.min()),
            args.key_size.min()
        ));
    }
    if args.keys == 0 {
        problems.push("--keys must be at least 1".to_owned());
    }
    if args.value_size.max() > VALUE_BYTES_MAX {
        problems.push(format!("--value-size must be at most {VALUE_BYTES_MAX}"));
    }
}

fn logins(args: &BenchArgs, problems: &mut Vec<String>) -> Vec<Login> {
    let file = match &args.logins {
        None => Vec::new(),
        Some(file) => match read_logins(file) {
            Ok(logins) => logins,
            Err(problem) => {
                problems.push(problem);
                return Vec::new();
            }
        },
    };
    let one = args.username.as_deref().zip(args.password.as_deref());
    let many = file.iter().map(|(username, password)| (username.as_str(), password.as_str()));
    let credentials: Vec<(&str, &str)> = many.chain(one).collect();
    let binary = args.dialect == Dialect::Binary;
    let is_silent = args.logins.is_none() && args.username.is_none() && args.password.is_none();
    let kind = match args.auth {
        AuthKind::None => None,
        AuthKind::Auto if is_silent => None,
        AuthKind::Auto if binary => Some(AuthKind::Sasl),
        AuthKind::Auto => Some(AuthKind::Memcachier),
        kind @ (AuthKind::Sasl | AuthKind::Memcachier | AuthKind::Memcached) => Some(kind),
    };
    let Some(kind) = kind else {
        if args.handshakes.is_some() {
            problems.push("--handshakes need --username and --password".to_owned());
        }
        return Vec::new();
    };
    if credentials.is_empty() {
        problems.push("authentication needs both --username and --password".to_owned());
    }
    if binary != (kind == AuthKind::Sasl) {
        problems.push("--auth sasl goes with --dialect binary, the others do not".to_owned());
    }
    let login = match kind {
        AuthKind::Sasl => Login::sasl,
        AuthKind::Memcached => Login::memcached,
        AuthKind::Memcachier | AuthKind::Auto | AuthKind::None => Login::memcachier,
    };
    credentials.into_iter().map(|(username, password)| login(username, password)).collect()
}

/// Lines of `USERNAME:PASSWORD`; empty ones do not count.
fn read_logins(file: &Path) -> Result<Vec<(String, String)>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let logins: Result<Vec<_>, _> = lines
        .map(|(number, line)| match line.split_once(':') {
            Some((username, password)) => Ok((username.to_owned(), password.to_owned())),
            // Without the line itself, which may be a password.
            None => Err(format!("{}:{}: wanted USERNAME:PASSWORD", file.display(), number + 1)),
        })
        .collect();
    match logins {
        Ok(logins) if logins.is_empty() => Err(format!("{} names nobody", file.display())),
        other => other,
    }
}

fn resolve(name: &str) -> Result<Server, BenchError> {
    let name = name.trim().to_owned();
    let has_port = name.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
    });
    let with_port = if has_port { name.clone() } else { format!("{name}:{PORT_DEFAULT}") };
    let found = with_port.to_socket_addrs().and_then(|mut addresses| {
        addresses.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    });
    let address = found.map_err(|source| BenchError::Resolve { server: name.clone(), source })?;
    let host = with_port.rsplit_once(':').map_or(name.as_str(), |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Server { name, host, address })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    #[test]
    fn connections_are_dealt_out_to_the_logins_of_a_file() {
        let plan = check("ann:a:b\n\nbob:c\n").expect("a good file");
        let first = |number| plan.login_of(number).map(|login| login.request().to_vec());
        assert_eq!(plan.logins.len(), 2);
        assert_eq!((first(0), first(1)), (first(2), first(3)));
        assert_ne!(first(0), first(1));
    }

    #[test]
    fn a_file_that_names_nobody_is_refused_with_its_line() {
        let BenchError::Settings(problems) = check("ann:a\nbob\n").expect_err("no colon") else {
            panic!("another error");
        };
        assert!(problems[0].ends_with(":2: wanted USERNAME:PASSWORD"), "{problems:?}");
        assert!(check("\n").is_err());
    }

    fn check(logins: &str) -> Result<Plan, BenchError> {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let file = dir.path().join("logins");
        fs::write(&file, logins).expect("the folder is writable");
        let file = file.to_str().expect("a plain name");
        let words = ["bench", "--servers", "127.0.0.1:1", "--logins", file];
        Plan::check(&Command::parse_from(words).bench)
    }
}
