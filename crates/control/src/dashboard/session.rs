//! Who is asking: sessions by cookie, and forms that only their own pages can send.
//!
//! A cookie says a random id of 160 bits that the server drew when the session began; the database knows
//! its hash. Every cache has its own cookie (by its path), so one browser can have several dashboards
//! open, and a session of one cache is no session of another. Scripts cannot read it, other sites cannot
//! send it along with a form, and every form carries a token derived from it besides.

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::{Form, RequestExt};
use tenancy::id::{CacheId, Username};
use tenancy::secret::Secret;

use super::Dashboard;
use super::failure::Failure;
use crate::control::{OPERATOR_SESSION_SECONDS, OWNER_SESSION_SECONDS};
use crate::model::{Actor, Cache, CacheRef, OperatorName, Session};

const COOKIE_NAME: &str = "larder_session";
/// Fields of a form: a plan's worth of checkboxes is far fewer.
const FIELDS_MAX: usize = 64;

/// A browser with a session of the cache in the path.
pub(super) struct Owner {
    pub(super) cache: Cache,
    pub(super) token: Secret,
    pub(super) id: Secret,
    /// An operator who looks at the cache as its owner does.
    pub(super) operator: Option<OperatorName>,
}

impl Owner {
    pub(super) fn actor(&self) -> Actor {
        self.operator.map_or(Actor::Owner, Actor::Named)
    }

    pub(super) fn cache_ref(&self) -> CacheRef {
        CacheRef::Id(self.cache.id)
    }
}

impl FromRequestParts<Dashboard> for Owner {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Dashboard) -> Result<Self, Failure> {
        let asked = path_parameter(parts, "cache").await.ok_or(Failure::NoPage)?;
        let asked = parse_id(&asked).ok_or(Failure::NoPage)?;
        let id = cookie(&parts.headers).ok_or(Failure::NoSession)?;
        let token = state.control.form_token(&id);
        let found = state
            .call(move |control| {
                let session = control.session(&id)?;
                let entered = session.filter(|session| session.cache == Some(asked));
                let Some(Session { operator, .. }) = entered else { return Ok(None) };
                let cache = control.cache(&CacheRef::Id(asked))?;
                Ok(Some((cache, operator, id)))
            })
            .await?;
        let (cache, operator, id) = found.ok_or(Failure::NoSession)?;
        Ok(Owner { cache, token, id, operator })
    }
}

/// A browser with an operator's session.
pub(super) struct LoggedIn {
    pub(super) name: OperatorName,
    pub(super) token: Secret,
    pub(super) id: Secret,
}

impl FromRequestParts<Dashboard> for LoggedIn {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &Dashboard) -> Result<Self, Failure> {
        let id = cookie(&parts.headers).ok_or(Failure::NoOperator)?;
        let token = state.control.form_token(&id);
        let asked = id.clone();
        let session = state.call(move |control| control.session(&asked)).await?;
        match session {
            // One that looks at a cache is good for that cache only.
            Some(Session { cache: None, operator: Some(name) }) => Ok(LoggedIn { name, token, id }),
            Some(_) | None => Err(Failure::NoOperator),
        }
    }
}

/// A form of a page of this session, which the extractor has checked.
pub(super) struct Sent<Who> {
    pub(super) who: Who,
    pub(super) fields: Fields,
}

/// Who has sent a form, and what its token must be.
pub(super) trait Sender: FromRequestParts<Dashboard, Rejection = Failure> + Send {
    fn token(&self) -> &Secret;
}

impl Sender for Owner {
    fn token(&self) -> &Secret {
        &self.token
    }
}

impl Sender for LoggedIn {
    fn token(&self) -> &Secret {
        &self.token
    }
}

impl<Who: Sender + 'static> FromRequest<Dashboard> for Sent<Who> {
    type Rejection = Failure;

    async fn from_request(mut request: Request, state: &Dashboard) -> Result<Self, Failure> {
        let who = request.extract_parts_with_state::<Who, _>(state).await?;
        let fields = Fields::read(request, state).await?;
        if !fields.has_token(who.token(), state) {
            return Err(Failure::Forged);
        }
        Ok(Sent { who, fields })
    }
}

/// What a form says.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) async fn read(request: Request, state: &Dashboard) -> Result<Self, Failure> {
        let form = Form::<Vec<(String, String)>>::from_request(request, state).await;
        let Form(fields) = form.map_err(|error| Failure::Wrong(error.body_text()))?;
        if fields.len() > FIELDS_MAX {
            return Err(Failure::Wrong(format!("a form has at most {FIELDS_MAX} fields")));
        }
        Ok(Fields(fields))
    }

    /// The first field of this name, without white space around it; empty when there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.trim()).unwrap_or_default()
    }

    /// Whether a checkbox of this name was checked, or a button of this name pressed.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    pub(super) fn username(&self) -> Result<Username, Failure> {
        Username::parse(self.get("username")).map_err(|error| Failure::Wrong(error.to_string()))
    }

    /// A number as the pages' own forms say it.
    pub(super) fn number(&self, name: &str) -> Result<u64, Failure> {
        let text = self.get(name);
        text.parse().map_err(|_| Failure::Wrong(format!("{name} is a number.")))
    }

    fn has_token(&self, expected: &Secret, state: &Dashboard) -> bool {
        // Compared as keyed hashes, so that the time taken tells nothing.
        let hash = |text: &str| state.control.secret_key().hash(b"form", text.as_bytes());
        hash(self.get("token")).matches(&hash(expected.reveal()))
    }
}

/// A number as the paths have it, digits only.
pub(super) fn parse_id(text: &str) -> Option<CacheId> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(CacheId::new)
}

async fn path_parameter(parts: &mut Parts, name: &str) -> Option<String> {
    let parameters = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    parameters.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

/// Whether the browser says that a form comes from a page of another site (Fetch Metadata). Programs and
/// old browsers say nothing.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// The session that the browser says it has. Of several the first: browsers send the one with the longest
/// path first (RFC 6265, 5.4).
fn cookie(headers: &HeaderMap) -> Option<Secret> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE_NAME).then_some(value)
    });
    pairs.next().and_then(|value| Secret::parse(value).ok())
}

/// Whom a cookie is for.
#[derive(Clone, Copy)]
pub(super) enum CookieFor {
    Owner(CacheId),
    Visit(CacheId),
    Operator,
}

/// `Set-Cookie` for a session that has begun.
pub(super) fn set_cookie(of: CookieFor, id: &Secret, secure: bool) -> HeaderValue {
    let life = match of {
        CookieFor::Owner(_) => OWNER_SESSION_SECONDS,
        CookieFor::Visit(_) | CookieFor::Operator => OPERATOR_SESSION_SECONDS,
    };
    header(of, id.reveal(), life, secure)
}

/// `Set-Cookie` for a session that has ended.
pub(super) fn clear_cookie(of: CookieFor, secure: bool) -> HeaderValue {
    header(of, "", 0, secure)
}

fn header(of: CookieFor, value: &str, life: u64, secure: bool) -> HeaderValue {
    // Owners come by a link on their platform's pages, and a strict cookie would not be sent with it.
    let (path, same_site) = match of {
        CookieFor::Owner(cache) | CookieFor::Visit(cache) => (format!("/dashboard/{cache}"), "Lax"),
        CookieFor::Operator => ("/operator".to_owned(), "Strict"),
    };
    let secure = if secure { "; Secure" } else { "" };
    let text = format!(
        "{COOKIE_NAME}={value}; Path={path}; Max-Age={life}; HttpOnly; SameSite={same_site}{secure}"
    );
    HeaderValue::from_str(&text).expect("letters, digits and punctuation")
}
