//! The settings of `larder up` and `larder node`.
//!
//! One table, below, is the only place that names a setting: the [`Settings`] struct, reading and
//! checking, the environment variables, and the example file that `larder settings` prints are all
//! made from it.
//!
//! ```text
//!  written:  default ◀ file ◀ LARDER_… ◀ flag     the later wins, but every one is checked
//!                │ kind (what may be written, and what it becomes)
//!                ▼
//!  used:     Settings { idle_timeout: Option<Duration>, … }
//! ```

mod example;
mod kind;
mod read;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use example::example;
pub use read::{Flag, Place, Problem, SettingsError, Written, check, load};

use tracing::Level;

use crate::log::{FORMATS, Format, LEVELS};
use crate::networks::Networks;
use kind::{
    Address, Bytes, Choice, CountOrAuto, File, Kind, Microseconds, Milliseconds, NetworkList,
    Optional, Seconds, SecondsOrNever, Text, WebAddress,
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const TIB: u64 = 1024 * 1024 * MIB;

/// The largest plan has items of 4 MiB, and a client sends keys and words besides.
const INPUT_BYTES_PER_THREAD_MIN: u64 = 8 * MIB;

/// One row of the table: all there is to say about a setting, but for its type.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key in the file. The environment variable is `LARDER_` and this in capitals.
    pub name: &'static str,
    /// The heading it stands under in the example file.
    pub section: &'static str,
    /// What it is, a line each.
    pub help: &'static [&'static str],
    /// As one would write it in the environment; empty is "not set".
    pub default: &'static str,
    /// Why the default is what it is.
    pub why: &'static str,
    /// What may be written, as the end of "must be …".
    pub expects: fn() -> String,
    /// Whether a value stands in quotes in the file.
    pub is_text: bool,
}

/// Writes the rows out as the struct of settings, the table, and the reading of each one.
macro_rules! settings {
    ($(
        section $section:literal;
        $(
            $(#[doc = $help:literal])+
            $name:ident => $field:ident: $used:ty = $kind:expr, default $default:literal,
                because $why:literal;
        )+
    )+) => {
        /// The settings as used: checked, in the units that the code wants.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Settings {
            $($( $(#[doc = $help])+ pub $field: $used, )+)+
        }

        /// Every setting there is, in the order of the example file.
        pub const TABLE: &[Setting] = &[
            $($( Setting {
                name: stringify!($name),
                section: $section,
                help: &[$($help),+],
                default: $default,
                why: $why,
                expects: || $kind.expects(),
                is_text: kind::is_text(&$kind),
            }, )+)+
        ];

        impl Settings {
            /// Takes each setting out of what was written; what does not fit stays at its default
            /// and becomes a problem.
            fn from_written(reader: &mut read::Reader<'_>) -> Settings {
                Settings {
                    $($( $field: reader.take(stringify!($name), $default, &$kind), )+)+
                }
            }
        }
    };
}

settings! {
    section "Where to listen";

    /// Where clients connect without TLS.
    listen => listen: SocketAddr = Address, default "127.0.0.1:11211",
        because "memcached's port, and nobody but this machine until someone decides so";

    /// Where clients connect with TLS, beside the plain listener.
    tls_listen => tls_listen: Option<SocketAddr> = Optional(Address), default "",
        because "a certificate is needed first";

    /// The certificate chain of the TLS listener, PEM. Read again on SIGHUP.
    tls_certificate => tls_certificate: Option<PathBuf> = Optional(File), default "",
        because "only you have one; without one, `larder up` makes one for development";

    /// The private key of that certificate, PEM. Read again on SIGHUP.
    tls_key => tls_key: Option<PathBuf> = Optional(File), default "",
        because "it belongs to the certificate";

    /// Accept TLS only from clients with a certificate of these authorities, PEM.
    tls_client_ca => tls_client_ca: Option<PathBuf> = Optional(File), default "",
        because "a user name and a password suffice for most";

    /// Where the control API answers.
    control_listen => control_listen: SocketAddr = Address, default "127.0.0.1:11280",
        because "who can reach it can ask for secrets, so nobody but this machine";

    /// How browsers reach the dashboard, such as "https://cache.example", when a reverse proxy stands
    /// before control_listen. With https, cookies are sent over TLS only.
    dashboard_url => dashboard_url: Option<String> = Optional(WebAddress), default "",
        because "without a reverse proxy it is http:// and control_listen";

    section "What the machine gives";

    /// Event loops that serve clients; 0 is one per core.
    threads => threads: Option<u32> = CountOrAuto { max: 1024 }, default "0",
        because "an event loop uses up to one core, and more loops than cores only switch";

    /// How long an event loop may look for requests without sleeping, in microseconds. It looks only as
    /// long as that pays, for clients that ask again at once; an idle one sleeps.
    spin_us => spin: Duration = Microseconds { max: 1_000 }, default "0",
        because "it brings a lone client its answer in half of the time, for up to a whole core";

    /// Memory for the items of all caches together.
    memory_bytes => memory_bytes: u64 = Bytes { min: 16 * MIB, max: 16 * TIB }, default "1 GiB",
        because "small enough for a developer's machine";

    /// Client connections at the same time; 0 is as many as the process may have descriptors,
    /// less 256 for listeners, files and the control API.
    connections_max => connections_max: Option<u32> =
        CountOrAuto { max: 10_000_000 }, default "0",
        because "the descriptor limit is what a machine's owner sets anyway";

    section "What one client may do";

    /// A client that has not authenticated by then is disconnected.
    authentication_timeout_seconds => authentication_timeout: Duration =
        Seconds { min: 1, max: 300 }, default "5",
        because "a client sends its password at once, and strangers shall not hold connections";

    /// A client that has sent only half of a request by then is disconnected.
    request_timeout_seconds => request_timeout: Duration =
        Seconds { min: 1, max: 3600 }, default "30",
        because "the largest item over a mobile line takes less";

    /// A client that has asked nothing for so long is disconnected; 0 is never.
    idle_timeout_seconds => idle_timeout: Option<Duration> =
        SecondsOrNever { max: 366 * 86_400 }, default "86400",
        because "pools keep connections over a quiet night, machines that vanished do not come back";

    /// Answers kept for a client that does not read them; until it does, nothing more is read
    /// from it.
    output_bytes_max => output_bytes_max: u64 = Bytes { min: 64 * KIB, max: 1024 * MIB },
        default "4 MiB",
        because "a few of the largest items: more would only fill memory, not the line";

    /// Half-received requests of all clients together, in equal parts for each thread. A client
    /// whose half request does not fit any more is disconnected.
    input_bytes_max => input_bytes_max: u64 = Bytes { min: INPUT_BYTES_PER_THREAD_MIN, max: TIB },
        default "512 MiB",
        because "a hundred clients in the midst of sending the largest item of the largest plan";

    /// How long clients may take to finish what they have begun, once the program shall stop.
    drain_timeout_seconds => drain_timeout: Duration =
        Seconds { min: 1, max: 3600 }, default "10",
        because "service managers kill what has not ended after 30 to 90";

    section "A cluster of nodes";

    /// Networks in which nodes may be, for control and for nodes. An address outside is refused and
    /// never connected to.
    cluster_networks => cluster_networks: Networks = NetworkList,
        default "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 127.0.0.0/8 fc00::/7 fe80::/10 ::1/128",
        because "private, link-local and loopback: what a wrong name resolves to is mostly neither";

    /// For so long nobody must have listened at a node's addresses before its slots go to the others.
    hold_down_seconds => hold_down: Duration = Seconds { min: 1, max: 3600 }, default "10",
        because "a process that is only restarted is back before, with its name and its slots";

    /// Between two nodes that are given up without asking anybody.
    cold_interval_seconds => cold_interval: Duration = Seconds { min: 1, max: 86_400 }, default "600",
        because "what ends one process after another shall not empty a cluster faster than people look";

    /// TLS between nodes: "off" is none; "only" has both ends prove by their certificates which node of the
    /// cluster they are. To change over while it runs, give all nodes "either" first, then the other.
    link_tls => link_tls: LinkTls = Choice(LINK_TLS), default "off",
        because "nodes mostly have a network of their own, and encryption costs a part of each request";

    /// From the moment a client asks until it hears that another node could not be asked.
    link_timeout_ms => link_timeout: Duration = Milliseconds { min: 10, max: 60_000 }, default "1000",
        because "clients give up after a second or so";

    /// A backend of another node that says nothing for so long, while it is asked, is taken for silent.
    link_silence_ms => link_silence: Duration = Milliseconds { min: 5, max: 30_000 }, default "200",
        because "four times the longest pause of a moving slot, and still an answer in a quarter second";

    section "Metrics";

    /// Where `/metrics` answers Prometheus; each process needs an address of its own.
    metrics_listen => metrics_listen: Option<SocketAddr> = Optional(Address), default "",
        because "who can reach it learns how much is done, so it is somebody's decision";

    /// Caches that control tells of one by one, those that hold most first; 0 is none.
    metrics_caches_max => metrics_caches_max: Option<u32> = CountOrAuto { max: 1_000 }, default "0",
        because "a series for every figure of every cache is more than Prometheus should keep";

    section "Alerts of caches";

    /// The mail server that alerts go through, such as smtp://mail.example:25 or
    /// smtps://user:password@mail.example.
    smtp_url => smtp_url: Option<String> = Optional(Text { bytes_max: 512 }), default "",
        because "only you have one; without one, alerts go to Slack only";

    /// Whom those messages are from.
    mail_from => mail_from: String = Text { bytes_max: 254 }, default "larder@localhost",
        because "no other address is known to be yours";

    /// How every Slack URL that an owner gives must begin.
    slack_prefix => slack_prefix: String = Text { bytes_max: 128 },
        default "https://hooks.slack.com/",
        because "owners must not make this machine call whom they like";

    section "What to write to the log (stderr)";

    /// The least severe lines to write.
    log_level => log_level: Level = Choice(LEVELS), default "info",
        because "says what changed, and nothing per request";

    /// Lines for people, or one JSON object a line for collectors.
    log_format => log_format: Format = Choice(FORMATS), default "text",
        because "people read it first";
}

/// Whether links between nodes are under TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkTls {
    Off,
    /// With whom it can be, with others not.
    Either,
    Only,
}

const LINK_TLS: &[(&str, LinkTls)] =
    &[("off", LinkTls::Off), ("either", LinkTls::Either), ("only", LinkTls::Only)];

impl Default for Settings {
    fn default() -> Self {
        Settings::from_written(&mut read::Reader::new(&[], &mut Vec::new()))
    }
}

/// A rule about two settings.
struct Relation {
    /// Where the problem is: the first of these that was written.
    names: [&'static str; 2],
    is_broken: fn(&Settings) -> bool,
    message: &'static str,
}

/// What no setting can know alone.
const RELATIONS: &[Relation] = &[
    Relation {
        names: ["tls_key", "tls_certificate"],
        is_broken: |s| s.tls_certificate.is_some() != s.tls_key.is_some(),
        message: "tls_certificate and tls_key go together: give both or neither",
    },
    Relation {
        names: ["tls_certificate", "tls_listen"],
        is_broken: |s| s.tls_certificate.is_some() && s.tls_listen.is_none(),
        message: "tls_certificate has no use without tls_listen: give an address such as \
                  \"0.0.0.0:11212\"",
    },
    Relation {
        names: ["tls_client_ca", "tls_listen"],
        is_broken: |s| s.tls_client_ca.is_some() && s.tls_listen.is_none(),
        message: "tls_client_ca has no use without tls_listen: give an address such as \
                  \"0.0.0.0:11212\"",
    },
    Relation {
        names: ["tls_listen", "listen"],
        is_broken: |s| s.tls_listen.is_some_and(|tls| clash(tls, s.listen)),
        message: "tls_listen and listen must be different addresses",
    },
    Relation {
        names: ["control_listen", "listen"],
        is_broken: |s| clash(s.control_listen, s.listen),
        message: "control_listen and listen must be different addresses",
    },
    Relation {
        names: ["control_listen", "tls_listen"],
        is_broken: |s| s.tls_listen.is_some_and(|tls| clash(tls, s.control_listen)),
        message: "control_listen and tls_listen must be different addresses",
    },
    Relation {
        names: ["metrics_listen", "listen"],
        is_broken: |s| s.metrics_listen.is_some_and(|metrics| clash(metrics, s.listen)),
        message: "metrics_listen and listen must be different addresses",
    },
    Relation {
        names: ["link_silence_ms", "link_timeout_ms"],
        is_broken: |s| s.link_timeout <= s.link_silence,
        message: "link_silence_ms must be less than link_timeout_ms, or a silent backend would never \
                  be noticed",
    },
    Relation {
        names: ["input_bytes_max", "threads"],
        is_broken: |s| {
            let threads = u64::from(s.threads.unwrap_or(1));
            s.input_bytes_max / threads < INPUT_BYTES_PER_THREAD_MIN
        },
        message: "input_bytes_max must be at least 8 MiB for each of the threads, or the largest \
                  item could not be received",
    },
];

/// Port 0 is any free port, so two of them never clash.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    a == b && a.port() != 0
}
