//! The command line of `larder bench`, as written.

use crate::dialect::Dialect;
use crate::mix::Mix;
use crate::popularity::Distribution;
use crate::size::Size;
use std::path::PathBuf;
use std::time::Duration;

/// Puts load on a memcached server and reports latency, throughput, hits and wrong values.
///
/// Works with Larder, memcached, and everything that speaks their protocol. Values are computed
/// from their keys, so a wrong value is noticed. Takes the server, the username and the password
/// from MEMCACHIER_SERVERS, MEMCACHIER_USERNAME and MEMCACHIER_PASSWORD, as `larder up` prints
/// them. It stores its own items (keys that begin with k or c); do not point it at a cache whose
/// contents you need.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct BenchArgs {
    /// Servers; connections are dealt out to them in turn
    #[arg(
        long,
        value_name = "HOST[:PORT],...",
        env = "MEMCACHIER_SERVERS",
        default_value = "127.0.0.1:11211",
        value_delimiter = ',',
        help_heading = "Server"
    )]
    pub servers: Vec<String>,

    /// Username; without one, nothing is said about who we are
    #[arg(long, value_name = "NAME", env = "MEMCACHIER_USERNAME", help_heading = "Server")]
    pub username: Option<String>,

    /// Password
    #[arg(
        long,
        value_name = "SECRET",
        env = "MEMCACHIER_PASSWORD",
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub password: Option<String>,

    /// A file with a USERNAME:PASSWORD per line; connections are dealt out to them in turn, so that
    /// one load falls on many caches. The first fill reaches a cache only through its own
    /// connections: store the items beforehand, one cache at a time, and pass --no-fill
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["username", "password"],
        help_heading = "Server"
    )]
    pub logins: Option<PathBuf>,

    /// How to authenticate
    #[arg(long, value_enum, default_value = "auto", help_heading = "Server")]
    pub auth: AuthKind,

    /// How to speak
    #[arg(long, value_enum, default_value = "text", help_heading = "Server")]
    pub dialect: Dialect,

    /// Encrypt connections
    #[arg(long, help_heading = "Server")]
    pub tls: bool,

    /// Certificates to trust, in PEM; default: those of the system
    #[arg(long, value_name = "FILE", requires = "tls", help_heading = "Server")]
    pub ca: Option<PathBuf>,

    /// Trust any certificate; for test servers only
    #[arg(long, requires = "tls", conflicts_with = "ca", help_heading = "Server")]
    pub insecure: bool,

    /// The name that the server's certificate must bear; default: its host
    #[arg(long, value_name = "NAME", requires = "tls", help_heading = "Server")]
    pub tls_name: Option<String>,

    /// Connections that carry the load
    #[arg(short, long, value_name = "N", default_value_t = 50, help_heading = "Load")]
    pub connections: usize,

    /// Requests in flight per connection (closed loop), or at most (with --rate)
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 1,
        visible_alias = "depth",
        help_heading = "Load"
    )]
    pub in_flight: usize,

    /// Requests per second, whatever the server does (open loop); latency then counts from when a
    /// request should have left, so a pause of the server cannot hide
    #[arg(short, long, value_name = "PER_SECOND", help_heading = "Load")]
    pub rate: Option<f64>,

    /// With --rate: random distances between requests, as by many clients, instead of equal ones
    #[arg(long, requires = "rate", help_heading = "Load")]
    pub poisson: bool,

    /// How long to measure: 10s, 500ms, 2m [default: 10s, unless --requests is given]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    pub duration: Option<Duration>,

    /// Stop after so many requests
    #[arg(short = 'n', long, value_name = "N", help_heading = "Load")]
    pub requests: Option<u64>,

    /// Load before measuring, not reported
    #[arg(
        long,
        value_name = "TIME",
        default_value = "0s",
        value_parser = parse_duration,
        help_heading = "Load"
    )]
    pub warm_up: Duration,

    /// Threads of the generator, each with its share of the connections
    #[arg(short, long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub threads: usize,

    /// Further connections that authenticate and then say nothing
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Load")]
    pub idle: usize,

    /// Measure authentications instead of requests
    #[arg(long, value_enum, value_name = "HOW", help_heading = "Load")]
    pub handshakes: Option<Handshakes>,

    /// How often each request comes, by weight: get, set, delete, incr, touch
    #[arg(
        short,
        long,
        value_name = "ACT=WEIGHT,...",
        default_value = "get=90,set=10",
        help_heading = "Requests"
    )]
    pub mix: Mix,

    /// Keys per get
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Requests")]
    pub multiget: u32,

    /// Number of different keys
    #[arg(short, long, value_name = "N", default_value_t = 10_000, help_heading = "Requests")]
    pub keys: u64,

    /// Which keys are asked for: uniform, sequential, zipf, zipf:EXPONENT
    #[arg(long, value_name = "LAW", default_value = "zipf:0.99", help_heading = "Requests")]
    pub distribution: Distribution,

    /// Length of keys in bytes: 16, or 16..40
    #[arg(long, value_name = "SIZE", default_value = "16", help_heading = "Requests")]
    pub key_size: Size,

    /// Length of values in bytes: 100, 4k, 32..4096, or lognormal:MEDIAN,SIGMA[,MAX]
    #[arg(short, long, value_name = "SIZE", default_value = "100", help_heading = "Requests")]
    pub value_size: Size,

    /// Seconds until items expire; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 0, help_heading = "Requests")]
    pub ttl: u32,

    /// Do not store all items before the load begins
    #[arg(long, help_heading = "Requests")]
    pub no_fill: bool,

    /// Decides keys, values and chance; the same seed makes the same load
    #[arg(long, value_name = "NUMBER", default_value_t = 1, help_heading = "Requests")]
    pub seed: u64,

    /// Never sleep: costs whole cores, and notices replies at once
    #[arg(long, help_heading = "Generator")]
    pub spin: bool,

    /// Keep the threads on these cores
    #[arg(long, value_name = "CPU,...", value_delimiter = ',', help_heading = "Generator")]
    pub pin: Vec<usize>,

    /// Report as one JSON object on standard output
    #[arg(long, help_heading = "Generator")]
    pub json: bool,
}

/// How to say who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AuthKind {
    /// With a username: sasl in the binary dialect, memcachier in the others; without: none
    Auto,
    /// Say nothing, even if there is a username
    None,
    /// SASL PLAIN, in the binary dialect
    Sasl,
    /// First a `set` of the username to the password (MemCachier, Larder)
    Memcachier,
    /// First a `set` of any key to `username password` (memcached -Y, Larder)
    Memcached,
}

/// How to measure authentications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Handshakes {
    /// Connect, authenticate, close, and again
    Connect,
    /// Authenticate again and again on the same connections; memcached refuses the second time,
    /// Larder does not
    Repeat,
}

const EXAMPLES: &str = "\
Examples:
  The server that `larder up` printed, ten seconds, 90 % gets:
    larder bench

  As much as it can take: gets, 64 in flight on each of 50 connections, two threads:
    larder bench --mix get --in-flight 64 --threads 2

  Latency at 20,000 requests per second, as its clients see it:
    larder bench --rate 20000 --poisson --duration 30s

  Larger values, few of them very large, over TLS in the binary dialect:
    larder bench --value-size lognormal:800,1.5 --dialect binary --tls --ca ca.pem

  Gets of a hundred keys each, beside 5,000 connections that say nothing:
    larder bench --mix get --multiget 100 --idle 5000

  How many clients can log in per second:
    larder bench --dialect binary --handshakes connect

Exit status: 0 if all was answered and right, otherwise not.
";

/// Reads `10s`, `500ms`, `2m`, or a plain number of seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a time such as 500ms, 10s or 2m".to_owned()),
    };
    match digits.parse::<f64>() {
        Ok(number) if (0.0..=SECONDS_MAX).contains(&(number * unit)) => {
            Ok(Duration::from_secs_f64(number * unit))
        }
        _ => Err("write a time such as 500ms, 10s or 2m, of at most a week".to_owned()),
    }
}

/// A week: longer is a mistake in the unit.
const SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for text in ["", "s", "-1s", "10 s", "1y", "NaN", "1e99", "9999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
