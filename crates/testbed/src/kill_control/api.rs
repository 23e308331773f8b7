//! The control API as one of its clients sees it, whose server may die at any moment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

/// Longer than any answer takes, also on a machine that is busy.
const ANSWER_MAX: Duration = Duration::from_secs(20);

pub struct Api {
    agent: Agent,
    url: String,
    token: String,
}

/// An answer that arrived.
pub struct Answer {
    pub status: u16,
    pub revision: Option<u64>,
    pub body: Value,
}

impl Api {
    /// The one of the process that uses this data directory.
    pub fn new(url: &str, data_dir: &Path) -> Self {
        let token = fs::read_to_string(data_dir.join("control.token")).expect("made at the start");
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .proxy(None)
            .timeout_global(Some(ANSWER_MAX))
            .build()
            .into();
        Api { agent, url: url.to_owned(), token: token.trim().to_owned() }
    }

    /// The one that this data directory says is there now; `None` when there is none, or it does not
    /// answer.
    pub fn announced(data_dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(data_dir.join("control.json")).ok()?;
        let endpoint: Value = serde_json::from_str(&text).ok()?;
        let api = Api::new(endpoint["url"].as_str()?, data_dir);
        let request = api.request("/v1/clusters");
        let answer = api.agent.run(request).ok()?;
        answer.status().is_success().then_some(api)
    }

    fn request(&self, path: &str) -> Request<()> {
        Request::builder()
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token))
            .body(())
            .expect("a good request")
    }

    /// Sends a request that changes something; `None` when no whole answer came.
    pub fn change(&self, method: &str, path: &str, key: &str, body: &Value) -> Option<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Idempotency-Key", key)
            .body(body)
            .expect("a good request");
        let mut answer = self.agent.run(request).ok()?;
        let revision = answer
            .headers()
            .get("larder-revision")
            .and_then(|revision| revision.to_str().ok().and_then(|revision| revision.parse().ok()));
        let text = answer.body_mut().read_to_string().ok()?;
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).ok()? };
        Some(Answer { status: answer.status().as_u16(), revision, body })
    }

    /// # Panics
    ///
    /// When the process does not answer: this is asked while nobody kills it.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|| panic!("{path}: no answer, and nobody kills it now"))
    }

    /// The same while something is done to the process; `None` when no whole answer came.
    pub fn try_get(&self, path: &str) -> Option<Value> {
        let mut answer = self.agent.run(self.request(path)).ok()?;
        serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()
    }
}
