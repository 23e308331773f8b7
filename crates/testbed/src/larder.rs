//! A running Larder, reached only as its users reach it: command line, printed lines, sockets.

use crate::connection::{Connection, Login};
use crate::disk::Disk;
use crate::process::{Process, command_under};
use serde_json::Value;
use std::env;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;

/// A `larder up` that serves, with a folder of its own.
pub struct Larder {
    pub process: Process,
    /// Where memcached clients connect.
    pub addr: SocketAddr,
    pub tls_addr: SocketAddr,
    /// Certificate file that TLS clients must trust.
    pub tls_ca: PathBuf,
    /// The development cache's credential, with every capability; empty where none is asked for.
    pub login: Login,
    dir: DataDir,
}

/// The folder of one installation; outlives restarts of the process.
#[derive(Clone)]
pub struct DataDir {
    /// Before the folder that it is mounted over.
    disk: Option<Arc<Disk>>,
    folder: Arc<TempDir>,
}

/// How to start a [`Larder`].
#[derive(Default)]
pub struct LarderOptions {
    arguments: Vec<String>,
    settings: Vec<(String, String)>,
    under: Vec<String>,
    program: Option<PathBuf>,
    dir: Option<DataDir>,
}

impl Larder {
    #[track_caller]
    pub fn start() -> Larder {
        LarderOptions::default().start()
    }

    /// A Larder whose clients need no password.
    #[track_caller]
    pub fn start_without_auth() -> Larder {
        LarderOptions::default().argument("--no-auth").start()
    }

    pub fn options() -> LarderOptions {
        LarderOptions::default()
    }

    /// An authenticated text connection.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open_as(self.addr, &self.login)
    }

    pub fn dir(&self) -> DataDir {
        self.dir.clone()
    }

    /// Adds a credential to the development cache that may only read.
    #[track_caller]
    pub fn add_reader(&self) -> Login {
        self.add_credential(&["--read-only"])
    }

    /// Adds a credential to the development cache, as `larder credential add` is told.
    #[track_caller]
    pub fn add_credential(&self, arguments: &[&str]) -> Login {
        let cache = self.cache();
        Login::told(&self.run(&[&["credential", "add", &cache], arguments].concat()))
    }

    /// The development cache, as the command line names it.
    #[track_caller]
    pub fn cache(&self) -> String {
        let caches = self.run(&["cache", "list"]);
        caches[0]["name"].as_str().expect("there is a development cache").to_owned()
    }

    /// Runs `larder <arguments> --data DIR --json` and returns what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Value {
        self.dir.run(arguments)
    }

    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        self.dir.try_run(arguments)
    }
}

impl LarderOptions {
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Gives a setting another value, by its environment variable.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((format!("LARDER_{}", name.to_uppercase()), value.to_owned()));
        self
    }

    /// Lets the process have at most this many descriptors.
    #[must_use]
    pub fn descriptors_max(self, count: u32) -> Self {
        self.under(&["prlimit".to_owned(), format!("--nofile={count}:{count}")])
    }

    /// Starts it under a program that becomes it, or watches it: these words come before its own.
    #[must_use]
    pub fn under(mut self, words: &[String]) -> Self {
        self.under.extend_from_slice(words);
        self
    }

    /// Starts this program instead of the one under test.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Uses the state of an earlier Larder.
    #[must_use]
    pub fn dir(mut self, dir: &DataDir) -> Self {
        self.dir = Some(dir.clone());
        self
    }

    #[track_caller]
    pub fn start(self) -> Larder {
        let dir = self.dir.unwrap_or_default();
        let mut command =
            command_under(&self.under, self.program.as_deref().unwrap_or_else(|| program()));
        command.args(["up", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0"]);
        command.args(["--control", "127.0.0.1:0", "--data"]).arg(dir.path());
        command.args(&self.arguments).envs(self.settings);
        let mut process = Process::start(&mut command);
        // The last of the lines that applications and tests read.
        process.wait_for_line("LARDER_CONTROL=");
        let line = |prefix| {
            let found = process.line_after(prefix);
            found.unwrap_or_else(|| panic!("no line {prefix}… was written:\n{}", process.log()))
        };
        let login = (!self.arguments.iter().any(|argument| argument == "--no-auth")).then(|| {
            Login { username: line("MEMCACHIER_USERNAME="), password: line("MEMCACHIER_PASSWORD=") }
        });
        Larder {
            addr: resolve(&line("MEMCACHIER_SERVERS=")),
            tls_addr: resolve(&line("LARDER_TLS_SERVERS=")),
            // Not told where the certificate is the operator's own.
            tls_ca: process.line_after("LARDER_TLS_CA=").map(PathBuf::from).unwrap_or_default(),
            login: login.unwrap_or_default(),
            process,
            dir,
        }
    }
}

impl DataDir {
    pub fn new() -> DataDir {
        let folder = TempDir::new().expect("the temporary folder is writable");
        DataDir { disk: None, folder: Arc::new(folder) }
    }

    /// One on a disk of its own, in memory, of this size.
    ///
    /// # Errors
    /// When this machine lets nobody mount anything, in words.
    pub fn on_disk(kilobytes: u32) -> Result<DataDir, String> {
        let dir = DataDir::new();
        let disk = Disk::over(dir.path(), kilobytes)?;
        Ok(DataDir { disk: Some(Arc::new(disk)), ..dir })
    }

    /// For whoever is started [under](DataDir::under) its words.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Words before a program's name with which it finds its files here.
    pub fn under(&self) -> Vec<String> {
        self.disk().map_or_else(Vec::new, Disk::under)
    }

    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_deref()
    }

    /// The same folder for everybody else.
    pub fn seen_from_here(&self) -> PathBuf {
        self.disk().map_or_else(|| self.path().to_owned(), Disk::seen_from_here)
    }

    /// Runs `larder <arguments> --data DIR --json` and returns what it printed.
    ///
    /// # Panics
    ///
    /// When the command fails.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Value {
        let output = self.try_run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "larder {arguments:?} failed: {error}");
        json(arguments, &output)
    }

    /// The same of a command whose exit code tells something about the cluster, as that of
    /// `cluster status` does of alarms: what it printed, whatever the code is.
    ///
    /// # Panics
    ///
    /// When it printed nothing that can be read.
    #[track_caller]
    pub fn ask(&self, arguments: &[&str]) -> Value {
        json(arguments, &self.try_run(arguments))
    }

    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        Command::new(program())
            .args(arguments)
            .args(["--json", "--data"])
            .arg(self.seen_from_here())
            .output()
            .expect("the program that serves can also be run as a command")
    }
}

/// What a command printed.
#[track_caller]
fn json(arguments: &[&str], output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("larder {arguments:?} printed no JSON ({error}): {output:?}")
    })
}

impl Default for DataDir {
    fn default() -> Self {
        Self::new()
    }
}

/// The program under test: `LARDER_BIN`, or else the one of this build, brought up to date first.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| env::var_os("LARDER_BIN").map_or_else(build, PathBuf::from))
}

/// Builds the binary with the profile that this code was built with, so that `cargo test -p testbed`
/// never judges an old one.
fn build() -> PathBuf {
    let this = env::current_exe().expect("a running program has a path");
    // Test programs live in <target>/<profile>/deps, binaries one folder above.
    let folder = this.parent().expect("a program lives in a folder");
    let folder =
        if folder.ends_with("deps") { folder.parent().expect("deps is inside") } else { folder };
    let profile = folder.file_name().expect("the profile's folder has a name");
    let profile = if profile == "debug" { "dev".as_ref() } else { profile };
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "larder", "--profile"])
        .arg(profile)
        .arg("--target-dir")
        .arg(folder.parent().expect("a profile's folder is inside the target folder"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo is there, for it ran this test");
    assert!(status.success(), "larder does not build");
    folder.join("larder")
}

/// The address that a line of ours names.
///
/// # Panics
/// When it is no `host:port`, or no such host is known.
#[track_caller]
pub fn resolve(server: &str) -> SocketAddr {
    server
        .to_socket_addrs()
        .ok()
        .and_then(|mut addrs| addrs.next())
        .unwrap_or_else(|| panic!("{server:?} is not host:port"))
}
