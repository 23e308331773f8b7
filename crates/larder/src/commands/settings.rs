//! `larder settings`: an example file that explains every setting.

use std::io::{self, Write};

pub(crate) fn run() -> io::Result<()> {
    match io::stdout().write_all(daemon::settings::example().as_bytes()) {
        // `larder settings | head` is no mistake.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
