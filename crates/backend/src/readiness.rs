//! A thread that has the system clear memory before a request needs it.
//!
//! Whoever first writes to a page waits until the system has cleared it: a tenth of a millisecond
//! for a huge one, several on a virtual machine. An event loop must not wait so long, so this
//! thread does, a little ahead of need. It serves nobody and takes no lock while it waits.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::Backend;

/// Between two looks. The store keeps 16 MiB ready, so caches may grow by 1.6 GB a second without
/// meeting a page that is not.
const INTERVAL: Duration = Duration::from_millis(10);

/// Keeps memory ready for as long as the backend is there.
///
/// # Errors
/// The system starts no more threads.
pub fn keep(backend: &Arc<Backend>) -> io::Result<()> {
    let backend = Arc::downgrade(backend);
    thread::Builder::new().name("memory".to_owned()).spawn(move || work(&backend)).map(drop)
}

fn work(backend: &Weak<Backend>) {
    while let Some(backend) = backend.upgrade() {
        while backend.store.prepare() {}
        drop(backend);
        thread::sleep(INTERVAL);
    }
}
