//! Who may open the dashboard: owners by the secret in its URL, operators by their passwords; and the
//! sessions that come of it.
//!
//! An owner's secret is derived from a nonce in the database under a key that is not there, so that it
//! can be shown again and a copy of the database tells nothing; see `docs/decisions/0038`.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use tenancy::id::CacheId;
use tenancy::secret::Secret;

use super::Control;
use crate::database::{DashboardNonce, Database, SessionDigest};
use crate::error::ControlError;
use crate::guesses::Guesser;
use crate::model::{
    Actor, Cache, CacheRef, Operator, OperatorName, Session, SessionOf, UnixSeconds,
};
use crate::password::{self, Password, PasswordHash};

/// How long an owner's session lasts. The URL that began it begins another one.
pub(crate) const OWNER_SESSION_SECONDS: u64 = 24 * 60 * 60;
/// How long an operator's session lasts: a working day with some to spare.
pub(crate) const OPERATOR_SESSION_SECONDS: u64 = 12 * 60 * 60;

/// What became of an operator's name and password.
pub(crate) enum OperatorLogin {
    /// What the cookie of his session says.
    Session(Secret),
    Wrong,
    TooMany {
        wait_seconds: u64,
    },
}

impl Control {
    /// The secret in the URL of a cache's dashboard.
    pub fn dashboard_secret(&self, cache: &CacheRef) -> Result<(Cache, Secret), ControlError> {
        let database = &mut *self.lock();
        let cache = database.cache(cache)?;
        let secret = self.dashboard_secret_in(database, cache.id)?;
        Ok((cache, secret))
    }

    /// Draws the nonce at its first use: most caches are looked at seldom or never.
    fn dashboard_secret_in(
        &self,
        database: &mut Database,
        cache: CacheId,
    ) -> Result<Secret, ControlError> {
        let nonce = match database.dashboard_nonce(cache)? {
            Some(nonce) => nonce,
            None => {
                let nonce: DashboardNonce = self.environment.random()?;
                let mut change = database.begin(Actor::Installation, self.environment.now())?;
                change.put_dashboard_nonce(cache, &nonce)?;
                change.commit()?;
                nonce
            }
        };
        Ok(self.dashboard_keys.secret(cache, &nonce))
    }

    /// Gives a cache's dashboard another URL. The one before opens nothing from now on, and whoever came
    /// by it is let out.
    pub fn rotate_dashboard_secret(
        &self,
        actor: Actor,
        cache: &CacheRef,
    ) -> Result<(Cache, Secret), ControlError> {
        let nonce: DashboardNonce = self.environment.random()?;
        let mut database = self.lock();
        let mut change = database.begin(actor, self.environment.now())?;
        let cache = change.cache(cache)?;
        change.put_dashboard_nonce(cache.id, &nonce)?;
        change.end_sessions_of(cache.id)?;
        change.audit_cache("dashboard secret rotated", &cache)?;
        change.commit()?;
        let secret = self.dashboard_keys.secret(cache.id, &nonce);
        Ok((cache, secret))
    }

    /// Begins an owner's session, for whoever has the cache's secret.
    pub(crate) fn enter_dashboard(
        &self,
        cache: CacheId,
        presented: &str,
    ) -> Result<Secret, ControlError> {
        let database = &mut *self.lock();
        let secret = match self.dashboard_secret_in(database, cache) {
            Ok(secret) => secret,
            // A stranger does not learn which caches there are.
            Err(_) if database.cache(&CacheRef::Id(cache)).is_err() => {
                return Err(ControlError::WrongDashboardSecret);
            }
            Err(error) => return Err(error),
        };
        // Compared as keyed hashes, as the token is.
        let hash = |text: &str| self.secret_key.hash(b"dashboard", text.as_bytes());
        if !hash(secret.reveal()).matches(&hash(presented)) {
            return Err(ControlError::WrongDashboardSecret);
        }
        self.begin_session_in(database, SessionOf::Owner(cache))
    }

    /// Begins a session of someone who was let in. Returns what its cookie says: always a new one, whatever the browser had before.
    pub(crate) fn begin_session(&self, of: SessionOf) -> Result<Secret, ControlError> {
        self.begin_session_in(&mut self.lock(), of)
    }

    fn begin_session_in(
        &self,
        database: &mut Database,
        of: SessionOf,
    ) -> Result<Secret, ControlError> {
        let id = Secret::from_random(self.environment.random()?);
        let now = self.environment.now();
        let life = match of {
            SessionOf::Owner(_) => OWNER_SESSION_SECONDS,
            SessionOf::Operator(_) | SessionOf::Visit(..) => OPERATOR_SESSION_SECONDS,
        };
        let mut change = database.begin(Actor::Installation, now)?;
        change.insert_session(&digest(&id), &of, UnixSeconds(now.0.saturating_add(life)))?;
        change.commit()?;
        Ok(id)
    }

    /// The session that a cookie is of, while it lasts.
    pub(crate) fn session(&self, id: &Secret) -> Result<Option<Session>, ControlError> {
        self.lock_reader().session(&digest(id), self.environment.now())
    }

    pub(crate) fn end_session(&self, id: &Secret) -> Result<(), ControlError> {
        let mut database = self.lock();
        let mut change = database.begin(Actor::Installation, self.environment.now())?;
        change.end_session(&digest(id))?;
        change.commit()
    }

    /// What every form of this session must send along.
    pub(crate) fn form_token(&self, session: &Secret) -> Secret {
        self.dashboard_keys.form_token(session)
    }

    /// Everyone who may log in as an operator, by name.
    pub fn operators(&self) -> Result<Vec<Operator>, ControlError> {
        self.lock_reader().operators()
    }

    /// Adds an operator, or gives the one there is another password and lets his browsers out. Slow: the
    /// password is hashed.
    pub fn put_operator(
        &self,
        actor: Actor,
        name: &OperatorName,
        password: &Password,
    ) -> Result<Operator, ControlError> {
        let hash = password::hash(password, &self.environment.random()?);
        self.change(actor, |change| change.put_operator(name, &hash.0))
    }

    pub fn delete_operator(&self, actor: Actor, name: &OperatorName) -> Result<(), ControlError> {
        self.change(actor, |change| change.delete_operator(name))
    }

    /// Begins an operator's session, for whoever knows his password. Slow, and as slow for a name that
    /// nobody has; and refused for a while when someone has guessed too often.
    pub(crate) fn log_in_operator(
        &self,
        from: IpAddr,
        name: &OperatorName,
        password: &str,
    ) -> Result<OperatorLogin, ControlError> {
        // No username of a credential has a colon in it.
        let guesser = Guesser::new(from, format!("operator:{name}").as_bytes());
        let now = self.environment.now();
        if let Err(wait_seconds) = self.guesses().may_try(&guesser, now) {
            return Ok(OperatorLogin::TooMany { wait_seconds });
        }
        let found = self.lock_reader().operator(name)?;
        let hash = found.map(|found| PasswordHash(found.password_hash));
        if !password::matches(password, hash.as_ref()) {
            self.guesses().failed(&guesser, now);
            return Ok(OperatorLogin::Wrong);
        }
        Ok(OperatorLogin::Session(self.begin_session(SessionOf::Operator(*name))?))
    }

    /// A page of caches for people who look for one: by rising id, those whose name has `part` in it.
    pub(crate) fn find_caches(
        &self,
        part: &str,
        after: CacheId,
        limit: usize,
    ) -> Result<Vec<Cache>, ControlError> {
        let mut database = self.lock_reader();
        if part.is_empty() {
            return database.caches(after, limit);
        }
        database.caches_named_like(part, after, limit)
    }

    pub(crate) fn count_caches(&self) -> Result<u64, ControlError> {
        self.lock_reader().count_caches()
    }
}

fn digest(id: &Secret) -> SessionDigest {
    Sha256::digest(id.reveal().as_bytes()).into()
}
