//! What a browser is shown instead of a page, and why.

use askama::Template;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};

use super::page::{Frame, render};
use crate::alerts::WrongWish;
use crate::api::problem::Refusal;
use crate::data_plane::DataPlaneError;
use crate::error::{ControlError, Fault};

/// Why a request is not answered with its page.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("There is no such page.")]
    NoPage,
    /// The secret is wrong, or was until it was rotated.
    #[error("This is not the URL of a dashboard, or not any more.")]
    WrongUrl,
    #[error("Your session is over, or the dashboard's URL was changed.")]
    NoSession,
    /// Sent to the login.
    #[error("Log in first.")]
    NoOperator,
    #[error("This form does not come from a page of your session, so nothing was done.")]
    Forged,
    #[error("{0}")]
    Wrong(String),
    #[error("Too many wrong passwords. Try again in {wait_seconds} s.")]
    Guessing { wait_seconds: u64 },
    #[error("Too many requests at once. Try again.")]
    Busy,
    #[error("A fault of ours. The cause is in the log.")]
    Broken,
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Control(error) => Failure::Control(error),
            Refusal::Busy => Failure::Busy,
            Refusal::BadRequest(problem) => Failure::Wrong(problem),
            // Said by the API before a call is made, or of a call that panicked.
            other @ (Refusal::NoToken
            | Refusal::WrongToken
            | Refusal::NotYours
            | Refusal::TooManyGuesses { .. }
            | Refusal::UnknownPath { .. }
            | Refusal::UnknownMethod { .. }
            | Refusal::TooLarge { .. }
            | Refusal::Timeout
            | Refusal::Broken) => {
                tracing::error!(error = &other as &dyn std::error::Error, "page refused");
                Failure::Broken
            }
        }
    }
}

impl From<WrongWish> for Failure {
    fn from(wrong: WrongWish) -> Self {
        Failure::Wrong(wrong.to_string())
    }
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Failure::NoPage => StatusCode::NOT_FOUND,
            Failure::WrongUrl | Failure::NoSession | Failure::NoOperator | Failure::Forged => {
                StatusCode::FORBIDDEN
            }
            Failure::Wrong(_) => StatusCode::BAD_REQUEST,
            Failure::Guessing { .. } => StatusCode::TOO_MANY_REQUESTS,
            Failure::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Broken => StatusCode::INTERNAL_SERVER_ERROR,
            Failure::Control(error) => match error.fault() {
                _ if matches!(error, ControlError::WrongDashboardSecret) => StatusCode::FORBIDDEN,
                Fault::Missing => StatusCode::NOT_FOUND,
                Fault::Conflict => StatusCode::CONFLICT,
                Fault::Busy => StatusCode::SERVICE_UNAVAILABLE,
                Fault::Ours => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Failure::NoPage => "Not found",
            Failure::WrongUrl => "Wrong dashboard URL",
            Failure::NoSession | Failure::NoOperator => "Not logged in",
            Failure::Forged => "Nothing was done",
            Failure::Wrong(_) => "That cannot be",
            Failure::Guessing { .. } => "Too many tries",
            Failure::Busy => "Busy",
            Failure::Broken => "Something broke",
            Failure::Control(error) => match error.fault() {
                Fault::Missing => "Not found",
                Fault::Conflict => "That cannot be",
                Fault::Busy => "Not now",
                Fault::Ours => "Something broke",
            },
        }
    }

    /// For people, and without what only the log should know.
    pub(super) fn detail(&self) -> String {
        let text = if let Failure::Control(ControlError::DataPlane(source)) = self {
            refusal(source)
        } else if matches!(self, Failure::Control(error) if error.fault() == Fault::Ours) {
            Failure::Broken.to_string()
        } else {
            self.to_string()
        };
        let mut letters = text.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        let sentence: String = first.into_iter().chain(letters).collect();
        if sentence.ends_with('.') { sentence } else { format!("{sentence}.") }
    }

    /// What someone can do about it.
    fn advice(&self) -> &'static str {
        if matches!(self, Failure::WrongUrl | Failure::NoSession) {
            "Open the dashboard by its URL again: your platform has it, and so has the command line, \
             with \u{201c}larder cache show NAME --passwords\u{201d}."
        } else if matches!(self, Failure::Forged) {
            "Go back, load the page again, and repeat what you did."
        } else {
            ""
        }
    }
}

fn refusal(error: &DataPlaneError) -> String {
    match error {
        DataPlaneError::NoRoom { available_bytes } => format!(
            "there is not enough memory: {} are left",
            super::units::bytes(*available_bytes)
        ),
        DataPlaneError::Unavailable { .. } => error.to_string(),
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
struct FailurePage {
    frame: Frame,
    detail: String,
    advice: &'static str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if let Failure::NoOperator = self {
            return Redirect::to("/operator/login").into_response();
        }
        if let Failure::Control(error) = &self
            && error.is_for_operators()
        {
            tracing::error!(error = error as &dyn std::error::Error, "page failed");
        }
        let page = FailurePage {
            frame: Frame::outside(self.title()),
            detail: self.detail(),
            advice: self.advice(),
        };
        let mut response = (self.status(), render(&page)).into_response();
        if let Failure::Guessing { wait_seconds } = self {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait_seconds));
        }
        response
    }
}
