//! A memcached to compare with.

use crate::connection::Login;
use crate::eventually::{DEADLINE, eventually};
use crate::process::{Process, command_under};
use std::env;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A running memcached on a free port, with enough memory that nothing is evicted in a test.
pub struct Memcached {
    pub process: Process,
    pub addr: SocketAddr,
    _dir: TempDir,
}

impl Memcached {
    /// The program to compare with: `LARDER_MEMCACHED`, or else what the distribution installed.
    pub fn program() -> PathBuf {
        env::var_os("LARDER_MEMCACHED").map_or_else(|| "/usr/bin/memcached".into(), PathBuf::from)
    }

    /// Whether this machine has it.
    pub fn is_here() -> bool {
        Self::program().exists()
    }

    #[track_caller]
    pub fn start() -> Memcached {
        Self::start_in(new_dir(), |command| command)
    }

    /// A memcached whose flush forgets all that was stored before it. Its housekeeping threads, which
    /// sort and move items in the background, can hide an item of the current second from a flush.
    #[track_caller]
    pub fn start_exact() -> Memcached {
        const WITHOUT_HOUSEKEEPING: &str =
            "no_lru_maintainer,no_lru_crawler,no_slab_reassign,no_hashexpand,hashpower=18";
        Self::start_in(new_dir(), |command| command.args(["-o", WITHOUT_HOUSEKEEPING]))
    }

    /// A memcached with so much memory for items, which it evicts when that is full.
    #[track_caller]
    pub fn start_with_memory(megabytes: u64) -> Memcached {
        // The last of two counts.
        Self::start_in(new_dir(), |command| command.args(["-m", &megabytes.to_string()]))
    }

    /// A memcached whose text connections must log in.
    #[track_caller]
    pub fn start_with_password(login: &Login) -> Memcached {
        let dir = new_dir();
        let file = write_passwords(&dir, login);
        Self::start_in(dir, |command| command.arg("-Y").arg(&file))
    }

    /// The same with room for very many connections, and for as many that it has not accepted yet as
    /// the kernel gives.
    #[track_caller]
    pub fn start_for_crowds(login: &Login) -> Memcached {
        let dir = new_dir();
        let file = write_passwords(&dir, login);
        Self::start_in(dir, |command| command.args(["-c", "20000", "-b", "4096", "-Y"]).arg(&file))
    }

    /// A memcached whose binary connections must log in, and how to.
    #[track_caller]
    pub fn start_with_sasl(login: &Login) -> (Memcached, Login) {
        let dir = new_dir();
        let database = dir.path().join("sasldb");
        let config = format!("mech_list: plain\nsasldb_path: {}\n", database.display());
        write(&dir.path().join("memcached.conf"), &config);
        const REALM: &str = "larder";
        let mut tool = Command::new("/usr/sbin/saslpasswd2")
            .args(["-p", "-c", "-a", "memcached", "-u", REALM, "-f"])
            .arg(&database)
            .arg(&login.username)
            .stdin(Stdio::piped())
            .spawn()
            .expect("saslpasswd2 is installed");
        let mut input = tool.stdin.take().expect("it was piped just above");
        input.write_all(login.password.as_bytes()).expect("the tool reads the password");
        drop(input);
        assert!(tool.wait().is_ok_and(|status| status.success()), "saslpasswd2 failed");
        let login = Login { username: format!("{}@{REALM}", login.username), ..login.clone() };
        let config = dir.path().to_owned();
        (Self::start_in(dir, |command| command.arg("-S").env("SASL_CONF_PATH", config)), login)
    }

    /// A memcached that valgrind watches: these words come before its own.
    #[track_caller]
    pub fn start_under(words: &[String]) -> Memcached {
        // Under valgrind it must ask for exactly the descriptors that are left to it: 1,024 less 12.
        const CONNECTIONS: &str = "1012";
        let command = command_under(words, &Self::program());
        Self::start_as(command, CONNECTIONS, new_dir(), |command| command)
    }

    fn start_in(dir: TempDir, more: impl FnOnce(&mut Command) -> &mut Command) -> Memcached {
        Self::start_as(Command::new(Self::program()), "4096", dir, more)
    }

    fn start_as(
        mut command: Command,
        connections: &str,
        dir: TempDir,
        more: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Memcached {
        let ports = dir.path().join("ports");
        command
            .args(["-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", "0", "-m", "1024"])
            .args(["-c", connections, "-t", "1"])
            .env("MEMCACHED_PORT_FILENAME", &ports);
        let mut process = Process::start(more(&mut command));
        let port = eventually("memcached told its port", DEADLINE, || {
            assert!(!process.has_ended(), "memcached ended:\n{}", process.log());
            let text = fs::read_to_string(&ports).ok()?;
            text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.trim().parse().ok())
        });
        Memcached { process, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), _dir: dir }
    }

    /// The version, as `memcached -V` states it: (1, 6, 18).
    pub fn version() -> (u32, u32, u32) {
        let output = Command::new(Self::program()).arg("-V").output().expect("memcached runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text
            .trim()
            .rsplit(' ')
            .next()
            .expect("splitting yields at least one part")
            .split('.')
            .map(|part| part.parse().expect("memcached prints a version of three numbers"));
        let mut next = || numbers.next().expect("memcached prints a version of three numbers");
        (next(), next(), next())
    }
}

fn new_dir() -> TempDir {
    TempDir::new().expect("the temporary folder is writable")
}

fn write_passwords(dir: &TempDir, login: &Login) -> PathBuf {
    let file = dir.path().join("passwords");
    write(&file, &format!("{}:{}\n", login.username, login.password));
    file
}

fn write(file: &Path, text: &str) {
    fs::write(file, text).expect("the temporary folder is writable");
}
