//! The data directory: everything that must survive a restart, and the way in for whoever may read it.
//!
//! | file | content | who reads it |
//! |---|---|---|
//! | `control.lock` | nothing; locked while a process uses the directory | – |
//! | `control.key` | the master key, hexadecimal | this process |
//! | `control.sqlite` | caches and credentials, passwords sealed under the key | this process; backups |
//! | `control.token` | the bearer token of the control API | the command line |
//! | `control.json` | where the control API listens, while it does ([`Endpoint`]) | the command line |
//!
//! All are readable by their owner only. The key stands beside what it protects: it guards a copy of
//! the database (a backup, a forgotten dump), not a stolen machine.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tenancy::secret::{SECRET_RANDOM_BYTES, Secret};

use crate::environment::Environment;
use crate::seal::MasterKey;

const LOCK_FILE: &str = "control.lock";
const KEY_FILE: &str = "control.key";
const DATABASE_FILE: &str = "control.sqlite";
/// The token's file, for whoever is told only the directory.
pub const TOKEN_FILE: &str = "control.token";
/// Where [`Endpoint`] lies.
pub const ENDPOINT_FILE: &str = "control.json";

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked for as long as it is open; the kernel unlocks it however the process ends.
    lock: File,
}

impl DataDir {
    /// Takes the directory into use, making it when it is not there.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| DataDirError::io("make", path, source))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&lock_path)
            .map_err(|source| DataDirError::io("open", &lock_path, source))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DataDir { path: path.to_owned(), lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(DataDirError::InUse { path: path.to_owned() })
            }
            Err(errno) => Err(DataDirError::io("lock", &lock_path, errno.into())),
        }
    }

    /// Names whoever holds this directory: another directory, or a copy of it, has another name.
    pub(crate) fn holder(&self) -> String {
        let machine = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let inode = self.lock.metadata().map_or(0, |metadata| metadata.ino());
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        format!("{} {} {inode}", machine.trim(), path.display())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database's file, made empty and private when it is not there: SQLite would make it
    /// readable by others.
    pub(crate) fn database_file(&self) -> Result<PathBuf, DataDirError> {
        let path = self.path.join(DATABASE_FILE);
        private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&path)
            .map_err(|source| DataDirError::io("open", &path, source))?;
        Ok(path)
    }

    /// The master key; made at the first start. A database without its key is an error and not a
    /// first start: a new key would make every password in it unreadable.
    pub(crate) fn master_key(&self, environment: &Environment) -> Result<MasterKey, DataDirError> {
        let path = self.path.join(KEY_FILE);
        if let Some(text) = read_private(&path)? {
            let key = from_hex(text.trim()).ok_or(DataDirError::NotAKey { path })?;
            return Ok(MasterKey(key));
        }
        if self.path.join(DATABASE_FILE).exists() {
            return Err(DataDirError::KeyMissing { path });
        }
        let key: [u8; 32] = environment.random().map_err(DataDirError::Random)?;
        self.write_private(KEY_FILE, &format!("{}\n", to_hex(&key)))?;
        Ok(MasterKey(key))
    }

    /// The bearer token of the control API; made when there is none.
    pub(crate) fn token(&self, environment: &Environment) -> Result<Secret, DataDirError> {
        if let Some(token) = read_token(&self.path.join(TOKEN_FILE))? {
            return Ok(token);
        }
        let random: [u8; SECRET_RANDOM_BYTES] =
            environment.random().map_err(DataDirError::Random)?;
        let token = Secret::from_random(random);
        self.write_private(TOKEN_FILE, &format!("{}\n", token.reveal()))?;
        Ok(token)
    }

    /// Says in the directory where the control API listens, until the value is dropped.
    pub(crate) fn announce(&self, listening: SocketAddr) -> Result<Announcement, DataDirError> {
        let endpoint = Endpoint {
            url: format!("http://{}", reachable(listening)),
            token_file: TOKEN_FILE.into(),
            pid: std::process::id(),
        };
        let json = serde_json::to_string_pretty(&endpoint).expect("three plain fields");
        self.write_private(ENDPOINT_FILE, &format!("{json}\n"))?;
        Ok(Announcement { path: self.path.join(ENDPOINT_FILE) })
    }

    /// Puts a whole file in place at once: a crash leaves the old one or the new one.
    fn write_private(&self, name: &str, text: &str) -> Result<(), DataDirError> {
        let (path, draft) = (self.path.join(name), self.path.join(format!("{name}.new")));
        let write = || -> io::Result<()> {
            let mut file =
                private(OpenOptions::new().write(true).create(true).truncate(true)).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| DataDirError::io("write", &path, source))
    }
}

/// How the command line finds the control API of a process on the same machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Such as `http://127.0.0.1:11280`.
    pub url: String,
    /// Relative to the data directory.
    pub token_file: PathBuf,
    /// The process that wrote this. It may have died without removing it.
    pub pid: u32,
}

impl Endpoint {
    /// What a running process has said in this directory; `None` when none has.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, DataDirError> {
        let path = data_dir.join(ENDPOINT_FILE);
        let Some(text) = read_private(&path)? else { return Ok(None) };
        let mut endpoint: Endpoint = serde_json::from_str(&text)
            .map_err(|source| DataDirError::io("read", &path, source.into()))?;
        endpoint.token_file = data_dir.join(endpoint.token_file);
        Ok(Some(endpoint))
    }
}

/// The bearer token in this file; `None` when there is no such file.
pub fn read_token(path: &Path) -> Result<Option<Secret>, DataDirError> {
    let Some(text) = read_private(path)? else { return Ok(None) };
    let token = Secret::parse(text.trim())
        .map_err(|_| DataDirError::NotAToken { path: path.to_owned() })?;
    Ok(Some(token))
}

/// The endpoint file; removed when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Announcement {
    path: PathBuf,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // A file that stays behind names a process that no longer answers, which its readers expect.
        drop(fs::remove_file(&self.path));
    }
}

/// Whoever reads the endpoint file is on this machine, so "every address" becomes loopback.
fn reachable(listening: SocketAddr) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    let loopback = match listening {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(loopback, listening.port())
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options.mode(0o600)
}

/// Reads a file that no one else may read, and refuses when someone could; `None` when absent.
fn read_private(path: &Path) -> Result<Option<String>, DataDirError> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataDirError::io("read", path, source)),
    };
    if mode & 0o077 != 0 {
        return Err(DataDirError::TooOpen { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map(Some).map_err(|source| DataDirError::io("read", path, source))
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Why the data directory cannot be used. All are the operator's to mend; none goes away by itself,
/// but [`DataDirError::InUse`] does when the other process ends.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("could not {act} {path}")]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("another process is using {path}")]
    InUse { path: PathBuf },
    #[error("{path} can be read by others (mode {mode:o}); run: chmod 600 {path}")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{path} is missing, and without it the passwords in the database cannot be read")]
    KeyMissing { path: PathBuf },
    #[error("{path} is not a key of 64 hexadecimal digits")]
    NotAKey { path: PathBuf },
    #[error("{path} is not a token of 16 to 128 printable characters")]
    NotAToken { path: PathBuf },
    #[error("no random bytes could be had")]
    Random(#[source] io::Error),
}

impl DataDirError {
    fn io(act: &'static str, path: &Path, source: io::Error) -> Self {
        DataDirError::Io { act, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::model::UnixSeconds;

    fn environment() -> Environment {
        Environment::new(
            || UnixSeconds(0),
            |bytes| {
                bytes.fill(0xa5);
                Ok(())
            },
        )
    }

    fn temporary() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it was made").mode() & 0o777
    }

    #[test]
    fn everything_in_it_is_private() {
        let parent = temporary();
        let path = parent.path().join("new/deep");
        let data_dir = DataDir::open(&path).expect("made");
        data_dir.master_key(&environment()).expect("made");
        data_dir.token(&environment()).expect("made");
        data_dir.database_file().expect("made");
        let announcement =
            data_dir.announce("127.0.0.1:1".parse().expect("an address")).expect("written");
        assert_eq!(mode(&path), 0o700);
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).expect("readable") {
            let entry = entry.expect("readable");
            assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
            names.push(entry.file_name().into_string().expect("ASCII"));
        }
        names.sort();
        let all =
            ["control.json", "control.key", "control.lock", "control.sqlite", "control.token"];
        assert_eq!(names, all);
        drop(announcement);
        assert!(!path.join(ENDPOINT_FILE).exists());
    }

    #[test]
    fn key_and_token_are_made_once() {
        let dir = temporary();
        let data_dir = DataDir::open(dir.path()).expect("opened");
        let (key, token) = (data_dir.master_key(&environment()), data_dir.token(&environment()));
        assert_eq!(key.expect("made").0, [0xa5; 32]);
        let other = Environment::new(|| UnixSeconds(0), |_| panic!("nothing new is drawn"));
        assert_eq!(data_dir.master_key(&other).expect("read").0, [0xa5; 32]);
        assert_eq!(data_dir.token(&other).expect("read"), token.expect("made"));
    }

    #[test]
    fn two_processes_cannot_use_it() {
        let dir = temporary();
        let first = DataDir::open(dir.path()).expect("free");
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::InUse { .. })));
        drop(first);
        assert!(DataDir::open(dir.path()).is_ok());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = temporary();
        let data_dir = DataDir::open(dir.path()).expect("free");
        data_dir.master_key(&environment()).expect("made");
        let open = fs::Permissions::from_mode(0o640);
        fs::set_permissions(dir.path().join(KEY_FILE), open).expect("ours");
        let error = data_dir.master_key(&environment()).err().expect("refused");
        assert!(matches!(error, DataDirError::TooOpen { mode: 0o640, .. }), "{error}");
    }

    #[test]
    fn a_database_without_its_key_is_not_a_first_start() {
        let dir = temporary();
        let data_dir = DataDir::open(dir.path()).expect("free");
        data_dir.database_file().expect("made");
        let error = data_dir.master_key(&environment()).err().expect("refused");
        assert!(matches!(error, DataDirError::KeyMissing { .. }), "{error}");
    }

    #[test]
    fn a_broken_key_or_token_is_said_to_be_one() {
        let dir = temporary();
        let data_dir = DataDir::open(dir.path()).expect("free");
        for broken in ["", "zz", &"g".repeat(64), &"ä".repeat(32)] {
            data_dir.write_private(KEY_FILE, broken).expect("written");
            data_dir.write_private(TOKEN_FILE, broken).expect("written");
            let error = data_dir.master_key(&environment()).err().expect("refused");
            assert!(matches!(error, DataDirError::NotAKey { .. }), "{error}");
        }
        data_dir.write_private(TOKEN_FILE, "two words and more than sixteen").expect("written");
        let error = data_dir.token(&environment()).expect_err("refused");
        assert!(matches!(error, DataDirError::NotAToken { .. }), "{error}");
    }

    #[test]
    fn the_endpoint_is_where_someone_on_this_machine_reaches_it() {
        let dir = temporary();
        let data_dir = DataDir::open(dir.path()).expect("free");
        assert_eq!(Endpoint::read(dir.path()).expect("readable"), None);
        for (listening, url) in [
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("0.0.0.0:81", "http://127.0.0.1:81"),
            ("[::]:82", "http://[::1]:82"),
            ("10.0.0.7:83", "http://10.0.0.7:83"),
        ] {
            let _announcement =
                data_dir.announce(listening.parse().expect("an address")).expect("written");
            let endpoint = Endpoint::read(dir.path()).expect("readable").expect("announced");
            assert_eq!(endpoint.url, url);
            assert_eq!(endpoint.token_file, dir.path().join(TOKEN_FILE));
        }
    }
}
