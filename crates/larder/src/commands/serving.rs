//! What the commands that serve (`up`, `control`, `node`) do alike.

use std::io;
use std::path::Path;

use control::environment::Environment;
use control::model::UnixSeconds;
use daemon::clock::Clock;
use daemon::settings::{self, Flag, Settings, SettingsError};
use daemon::shutdown::Shutdown;
use proxy::tls::Tls;
use tracing::{info, warn};

/// A flag of the command line that sets a setting: its name, the flag, and what was given, if it was.
pub(super) type Given<'a> = (&'a str, &'a str, &'a Option<String>);

/// Settings from the file and the environment, and what the command line says instead.
pub(super) fn settings(
    config: Option<&Path>,
    given: &[Given<'_>],
) -> Result<Settings, SettingsError> {
    let flags: Vec<_> = given
        .iter()
        .filter_map(|(setting, flag, value)| Some(Flag { setting, flag, value: value.as_deref()? }))
        .collect();
    settings::load(config, &flags)
}

/// The time and chance of this machine, for a control plane.
pub(super) fn environment(clock: Clock) -> Environment {
    let now = move || UnixSeconds(u64::try_from(clock.now().unix).unwrap_or(0));
    let random = |bytes: &mut [u8]| getrandom::fill(bytes).map_err(io::Error::other);
    Environment::new(now, random)
}

/// Reads the certificate again whenever the process is told to.
pub(super) fn reload_certificate(shutdown: &Shutdown, tls: &Tls) {
    let tls = tls.clone();
    shutdown.on_reload(move || match tls.reload() {
        Ok(()) => info!("certificate read again"),
        Err(error) => warn!(
            error = &error as &dyn std::error::Error,
            "certificate not read again, the old one stays"
        ),
    });
}
