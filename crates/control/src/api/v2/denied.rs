//! Refusals in the words that owners' scripts know.

use axum::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::super::problem::Refusal;
use crate::alerts::WrongWish;
use crate::error::{ControlError, Fault};

/// Why an owner does not get what he asked for.
#[derive(Debug)]
pub(super) enum Denied {
    /// His mistake, in words.
    Wrong(String),
    /// No credential of ours.
    BadUser,
    /// After too many wrong passwords.
    TooMany {
        wait_seconds: u64,
    },
    /// A good credential, but not for this.
    Forbidden(&'static str),
    NoCache,
    Other(Refusal),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Denied::Other(refusal)
    }
}

impl From<WrongWish> for Denied {
    fn from(wrong: WrongWish) -> Self {
        Denied::Wrong(wrong.to_string())
    }
}

impl Denied {
    fn status(&self) -> StatusCode {
        match self {
            Denied::Wrong(_) => StatusCode::BAD_REQUEST,
            Denied::BadUser => StatusCode::UNAUTHORIZED,
            Denied::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Denied::Forbidden(_) => StatusCode::FORBIDDEN,
            Denied::NoCache => StatusCode::NOT_FOUND,
            // The documentation knows no 404 beside "Cache not found" and no 409.
            Denied::Other(Refusal::Control(error)) => match error.fault() {
                Fault::Missing | Fault::Conflict => StatusCode::BAD_REQUEST,
                Fault::Busy => StatusCode::SERVICE_UNAVAILABLE,
                Fault::Ours => StatusCode::INTERNAL_SERVER_ERROR,
            },
            Denied::Other(other) => other.status(),
        }
    }

    fn message(&self) -> String {
        match self {
            Denied::Wrong(what) => what.clone(),
            Denied::BadUser => "Bad user".to_owned(),
            Denied::TooMany { .. } => "Too many failed logins".to_owned(),
            Denied::Forbidden(why) => (*why).to_owned(),
            Denied::NoCache => "Cache not found".to_owned(),
            Denied::Other(Refusal::Control(ControlError::PrimaryStays { .. })) => {
                "The primary credentials cannot be deleted".to_owned()
            }
            Denied::Other(refusal) => refusal.detail(),
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        if let Denied::Other(refusal) = &self {
            refusal.log();
        }
        let (status, message) = (self.status(), self.message());
        let text = format!("code={}, message={message}", status.as_u16());
        let mut response = (status, text).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Denied::TooMany { wait_seconds } = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait_seconds));
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        } else if status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"Larder\", charset=\"UTF-8\"");
            headers.insert(WWW_AUTHENTICATE, basic);
        }
        response
    }
}
