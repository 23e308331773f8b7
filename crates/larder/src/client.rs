//! The command line's side of the control API: finding it, asking it, and saying what went wrong.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::contract::Problem;
use control::data_dir::{DataDirError, Endpoint, TOKEN_FILE, read_token};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tenancy::secret::Secret;
use ureq::http::{Method, Request, StatusCode};
use ureq::{Agent, Body};

/// Longer than the API takes at most, so that its own answer is heard.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);
/// A page of caches has some 500 KB.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Which Larder to talk to. On its own machine the data directory is enough.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// Data directory of the Larder to talk to, when it runs on this machine
    #[arg(long, global = true, value_name = "DIR", env = "LARDER_DATA", hide_env_values = true,
        default_value = crate::DATA_DIR_DEFAULT, help_heading = "Which Larder")]
    data: PathBuf,

    /// Control API to talk to, such as http://10.0.0.7:11280 [default: as DIR says]
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LARDER_CONTROL",
        hide_env_values = true,
        help_heading = "Which Larder"
    )]
    control: Option<String>,

    /// File with the control API's token [default: DIR/control.token]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LARDER_TOKEN_FILE",
        hide_env_values = true,
        help_heading = "Which Larder"
    )]
    token_file: Option<PathBuf>,
}

impl ConnectionArgs {
    /// For the Larder with this data directory.
    pub(crate) fn of(data: &Path) -> Self {
        ConnectionArgs { data: data.to_owned(), control: None, token_file: None }
    }

    /// Finds out where the API is and what token it wants. Does not connect yet.
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        let announced = match self.control {
            Some(_) => None,
            None => Endpoint::read(&self.data)?,
        };
        let url = match (&self.control, &announced) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(endpoint)) => endpoint.url.clone(),
            (None, None) => return Err(ClientError::NotRunning { data: self.data.clone() }),
        };
        let token_file = match (&self.token_file, announced) {
            (Some(file), _) => file.clone(),
            (None, Some(endpoint)) => endpoint.token_file,
            (None, None) => self.data.join(TOKEN_FILE),
        };
        let token = read_token(&token_file)?
            .ok_or_else(|| ClientError::NoToken { path: token_file.clone() })?;
        Ok(Client::new(url, token, token_file))
    }
}

/// A control API and the right to use it.
pub(crate) struct Client {
    agent: Agent,
    url: String,
    token: Secret,
    token_file: PathBuf,
}

impl Client {
    fn new(url: String, token: Secret, token_file: PathBuf) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // The API is on this machine or a private network; a proxy would only learn the token.
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(ANSWER_TIME_MAX))
            .build()
            .new_agent();
        Client { agent, url, token, token_file }
    }

    pub(crate) fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.json(&self.send(Method::GET, path, Vec::new())?)
    }

    pub(crate) fn post<A: DeserializeOwned>(
        &self,
        path: &str,
        wish: &impl Serialize,
    ) -> Result<A, ClientError> {
        self.json(&self.send(Method::POST, path, body(wish))?)
    }

    pub(crate) fn put<A: DeserializeOwned>(
        &self,
        path: &str,
        wish: &impl Serialize,
    ) -> Result<A, ClientError> {
        self.json(&self.send(Method::PUT, path, body(wish))?)
    }

    pub(crate) fn patch<A: DeserializeOwned>(
        &self,
        path: &str,
        wish: &impl Serialize,
    ) -> Result<A, ClientError> {
        self.json(&self.send(Method::PATCH, path, body(wish))?)
    }

    /// A `POST` without a wish, answered without a word.
    pub(crate) fn post_silent(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::POST, path, Vec::new()).map(drop)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, Vec::new()).map(drop)
    }

    /// The body of a good answer. `path` must hold only characters that a URL may have; our checked
    /// names do.
    fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Vec<u8>, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token.reveal()))
            .body(body)
            .map_err(|source| self.unreachable(io::Error::other(source)))?;
        let answer = self.agent.run(request).map_err(|error| self.unreachable(error.into_io()))?;
        let (parts, body) = answer.into_parts();
        let bytes = read(body).map_err(|error| self.unreachable(error.into_io()))?;
        if parts.status.is_success() {
            return Ok(bytes);
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(_) if parts.status == StatusCode::UNAUTHORIZED => Err(ClientError::WrongToken {
                url: self.url.clone(),
                path: self.token_file.clone(),
            }),
            Ok(problem) => Err(ClientError::Refused(problem)),
            Err(_) => Err(self.strange()),
        }
    }

    fn json<A: DeserializeOwned>(&self, bytes: &[u8]) -> Result<A, ClientError> {
        serde_json::from_slice(bytes).map_err(|_| self.strange())
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        ClientError::Unreachable { url: self.url.clone(), source }
    }

    /// What answers is no control API.
    pub(crate) fn strange(&self) -> ClientError {
        ClientError::Strange { url: self.url.clone() }
    }
}

fn body(wish: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(wish).expect("the contract's types are plain")
}

fn read(mut body: Body) -> Result<Vec<u8>, ureq::Error> {
    body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()
}

/// Why the command line got no good answer; each says what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error(
        "no Larder is running with the data directory {data}; start one with `larder up --data \
         {data}`, or say which one is meant with --data DIR or --control URL"
    )]
    NotRunning { data: PathBuf },
    #[error("no Larder answers at {url}; is `larder up` still running?")]
    Unreachable { url: String, source: io::Error },
    #[error("there is no token in {path}; say where it is with --token-file FILE")]
    NoToken { path: PathBuf },
    #[error(
        "the Larder at {url} does not accept the token in {path}; it is in the file control.token \
         of that Larder's data directory"
    )]
    WrongToken { url: String, path: PathBuf },
    #[error("what answers at {url} is not a Larder's control API")]
    Strange { url: String },
    #[error("{}{}", .0.detail, Advice(.0))]
    Refused(Problem),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// What to try after a problem, by its type.
struct Advice<'a>(&'a Problem);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.0.r#type.as_str() {
            "unknown-cache" => "`larder cache list` shows those there are",
            "unknown-credential" => "`larder credential list CACHE` shows those there are",
            "primary-stays" => "`larder credential promote USERNAME` does that",
            "rule-cuts" | "rule-too-wide" => "`--dry-run` shows whom, --force does it all the same",
            "unknown-rule" => "`larder rule list` shows those there are",
            "no-room" => "choose a smaller plan, or give `larder up` more --memory",
            _ => return Ok(()),
        };
        write!(f, "; {advice}")
    }
}
