//! Real memcached clients, driven by the scripts in `clients/`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A script by its path inside `clients/`.
pub fn script(name: &str) -> PathBuf {
    folder().join(name)
}

/// The Python that has the clients.
pub fn python() -> PathBuf {
    installed().join("python/bin/python")
}

/// The folder into which `clients/install.sh` has put the clients; runs it once.
pub fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let status = Command::new(folder().join("install.sh")).status();
        assert!(status.is_ok_and(|status| status.success()), "clients/install.sh failed");
        env::var_os("LARDER_CLIENTS")
            .map_or_else(|| folder().join("../target/clients"), PathBuf::from)
    })
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients"))
}
