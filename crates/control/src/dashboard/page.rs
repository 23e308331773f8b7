//! What all pages have in common: the frame around them, and how they become an answer.

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use tenancy::secret::Secret;

use super::assets;

/// What stands around a page's content.
pub(super) struct Frame {
    /// Of the window, and the page's heading.
    pub(super) title: String,
    pub(super) assets: &'static str,
    /// What was done just now, for whoever comes from a form.
    pub(super) notice: Option<&'static str>,
    /// What every form of the page sends along; empty where nobody is logged in.
    pub(super) token: String,
}

impl Frame {
    pub(super) fn new(title: impl Into<String>, token: &Secret, done: Option<&str>) -> Self {
        Frame {
            title: title.into(),
            assets: assets::version(),
            notice: done.and_then(notice),
            token: token.reveal().to_owned(),
        }
    }

    /// Says what was done just now.
    pub(super) fn after(self, done: Option<&str>) -> Self {
        Frame { notice: done.and_then(notice), ..self }
    }

    /// Of a page for nobody in particular.
    pub(super) fn outside(title: impl Into<String>) -> Self {
        Frame { title: title.into(), assets: assets::version(), notice: None, token: String::new() }
    }
}

/// What `?done=` may say. A table, so that nobody can put his own words into a page.
const NOTICES: &[(&str, &str)] = &[
    ("added", "New credential added. It works at once."),
    ("removed", "The credential is gone, and its connections are closed."),
    (
        "promoted",
        "Promoted. Give your applications the new username and password, then remove the old one.",
    ),
    ("changed", "Saved. Open connections have it with their next request."),
    ("rotated", "This dashboard has a new URL; the one before opens nothing any more."),
    ("enabled", "The cache is enabled."),
    ("disabled", "The cache is disabled. It keeps its items and refuses every client."),
    ("plan", "The plan is changed."),
    ("flushed", "All items are forgotten."),
    ("alert", "The alert is saved."),
    ("unalert", "The alert is gone."),
    ("delivery", "Alerts can go there now. Choose it in an alert, and send yourself a test."),
    ("undelivery", "No alert can go there any more."),
    ("tested", "A test message is on its way."),
    ("watched", "The prefix is watched."),
    ("unwatched", "The prefix is not watched any more."),
    ("ruled", "The rule is made. Nodes go by it within a second."),
    ("unruled", "The rule is gone."),
];

fn notice(done: &str) -> Option<&'static str> {
    NOTICES.iter().find(|(name, _)| *name == done).map(|(_, text)| *text)
}

/// A page as an answer. A template that fails is a mistake of ours.
pub(super) fn render(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "page not rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "a fault of ours\n").into_response()
        }
    }
}

/// As a query in an address says it: what is not a letter, a digit or harmless is escaped.
pub(super) fn in_query(text: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let one = |byte| match byte {
        byte if harmless(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_search_becomes_part_of_the_address() {
        assert_eq!(in_query("shop-2.eu_x"), "shop-2.eu_x");
        assert_eq!(in_query("a&b=c d\"<ü"), "a%26b%3Dc%20d%22%3C%C3%BC");
    }
}
