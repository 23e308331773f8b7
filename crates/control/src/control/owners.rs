//! What owners do with their own cache, known by one of its credentials.

use std::net::IpAddr;

use tenancy::capability::Capability;
use tenancy::id::Username;

use super::Control;
use crate::error::ControlError;
use crate::guesses::Guesser;
use crate::model::{Cache, Credential};

/// What became of someone's wish to be let in.
#[derive(Debug)]
pub(crate) enum LoggedIn {
    /// With this credential, of this cache.
    As(Box<(Cache, Credential)>),
    /// The username is unknown or the password is wrong.
    Wrong,
    /// Too many failures of late; the password was not looked at.
    TooMany { wait_seconds: u64 },
}

impl Control {
    /// Lets an owner in by a credential of his cache, also while the cache is disabled: its owner must
    /// be able to enable it. Takes the same time for an unknown username as for a wrong password.
    pub(crate) fn log_in(
        &self,
        from: IpAddr,
        username: &[u8],
        password: &[u8],
    ) -> Result<LoggedIn, ControlError> {
        let (who, now) = (Guesser::new(from, username), self.environment.now());
        if let Err(wait_seconds) = self.guesses().may_try(&who, now) {
            return Ok(LoggedIn::TooMany { wait_seconds });
        }
        let presented = self.secret_key.hash(username, password);
        let named = str::from_utf8(username).ok().and_then(|name| Username::parse(name).ok());
        let found = match named {
            Some(username) => self.stored(&username)?,
            None => None,
        };
        match found {
            Some((cache, stored)) if presented.matches(&stored.hash) => {
                Ok(LoggedIn::As(Box::new((cache, stored.credential))))
            }
            Some(_) | None => {
                self.guesses().failed(&who, now);
                tracing::info!(address = %from, "an owner's login failed");
                Ok(LoggedIn::Wrong)
            }
        }
    }

    fn stored(
        &self,
        username: &Username,
    ) -> Result<Option<(Cache, crate::database::StoredCredential)>, ControlError> {
        let mut database = self.lock();
        match database.cache_of(username) {
            Ok(cache) => {
                let stored = database.credential(&cache, username)?;
                Ok(Some((cache, stored)))
            }
            Err(ControlError::UnknownUsername(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Credential {
    pub(crate) fn may(&self, capability: Capability) -> bool {
        self.capabilities.has(capability)
    }
}
