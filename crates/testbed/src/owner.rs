//! The owner of a cache, who knows its URL and one of its credentials and uses curl.

use std::process::Command;

use serde_json::Value;

use crate::connection::{Connection, Login};

/// One cache as its owner reaches it.
#[derive(Clone)]
pub struct Owner {
    pub login: Login,
    pub cache: u64,
    /// The control plane's, without a slash at its end.
    pub control: String,
}

impl Owner {
    /// `cache` is what `larder cache create` printed; `control` is where the API answers.
    #[track_caller]
    pub fn of(cache: &Value, control: &str) -> Owner {
        let word = |name: &str| {
            cache["credentials"][0][name].as_str().expect("credentials are text").to_owned()
        };
        let login = Login { username: word("username"), password: word("password") };
        let cache = cache["id"].as_u64().expect("a number");
        Owner { login, cache, control: control.to_owned() }
    }

    /// The same owner with another of the cache's credentials.
    #[must_use]
    pub fn with(&self, login: Login) -> Owner {
        Owner { login, ..self.clone() }
    }

    /// Where the API that owners' scripts know is, with this path at its end.
    pub fn url(&self, path: &str) -> String {
        format!("{}/api/v2/caches/{}/{path}", self.control, self.cache)
    }

    /// Status and JSON, or text, of what curl brings from that API.
    #[track_caller]
    pub fn curl(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.curl_at(method, &self.url(path), body)
    }

    /// The same of any URL.
    ///
    /// # Panics
    /// When curl brings no answer.
    #[track_caller]
    pub fn curl_at(&self, method: &str, url: &str, body: &str) -> (u16, Value) {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"])
            .args(["--write-out", "\n%{http_code}", "--request", method])
            .args(["--user", &format!("{}:{}", self.login.username, self.login.password)])
            .args(["--header", "Content-Type: application/json", "--data", body, url])
            .output()
            .expect("curl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("an answer is text");
        let (body, status) = text.rsplit_once('\n').expect("the status is written last");
        let body = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
        (status.parse().expect("a status is a number"), body)
    }
}

/// The login that a credential's JSON holds, in the words of the API that owners' scripts know.
#[track_caller]
pub fn login(credential: &Value) -> Login {
    let word = |name: &str| credential[name].as_str().expect("credentials are text").to_owned();
    Login { username: word("sasl_username"), password: word("sasl_password") }
}

/// The numbers that `stats` tells, by name.
#[track_caller]
pub fn statistics(connection: &mut Connection) -> Vec<(String, u64)> {
    connection.send(b"stats\r\n");
    let mut figures = Vec::new();
    loop {
        let line = connection.line();
        let line = line.trim_end();
        if line == "END" {
            return figures;
        }
        let mut words = line.split(' ').skip(1);
        let (name, value) = (words.next().expect("a name"), words.next().expect("a value"));
        figures.extend(value.parse().ok().map(|value| (name.to_owned(), value)));
    }
}
