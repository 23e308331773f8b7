//! Refusals, and how they are said: as problem details (RFC 9457).

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::contract::Problem;
use crate::data_plane::DataPlaneError;
use crate::error::{ControlError, DatabaseError, DatabaseFault, Fault};

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("send the token of the data directory as \"Authorization: Bearer …\"")]
    NoToken,
    #[error("the bearer token is not this installation's")]
    WrongToken,
    #[error("this credential may not do that")]
    NotYours,
    #[error("too many failed logins; wait {wait_seconds} s")]
    TooManyGuesses { wait_seconds: u64 },
    #[error("there is nothing at {path}")]
    UnknownPath { path: String },
    #[error("{path} does not take {method}")]
    UnknownMethod { method: Method, path: String },
    /// The caller's text, so the detail says what is wrong with it.
    #[error("{0}")]
    BadRequest(String),
    #[error("the request's body is larger than {max} bytes")]
    TooLarge { max: usize },
    #[error("too many requests at once; try again")]
    Busy,
    #[error("no answer in time; the request may have been carried out")]
    Timeout,
    #[error("the request met a fault in this program")]
    Broken,
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Refusal {
    /// Status, type and title: everything about this kind of refusal that is always the same.
    fn kind(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as Is;
        match self {
            Refusal::NoToken | Refusal::WrongToken => {
                (Is::UNAUTHORIZED, "unauthorized", "Not authorized")
            }
            Refusal::NotYours => (Is::FORBIDDEN, "forbidden", "Not allowed"),
            Refusal::TooManyGuesses { .. } => {
                (Is::TOO_MANY_REQUESTS, "too-many-guesses", "Too many failed logins")
            }
            Refusal::UnknownPath { .. } => (Is::NOT_FOUND, "unknown-path", "No such resource"),
            Refusal::UnknownMethod { .. } => {
                (Is::METHOD_NOT_ALLOWED, "unknown-method", "No such method here")
            }
            Refusal::BadRequest(_) => (Is::BAD_REQUEST, "bad-request", "The request is wrong"),
            Refusal::TooLarge { .. } => (Is::PAYLOAD_TOO_LARGE, "too-large", "Body too large"),
            Refusal::Busy => (Is::SERVICE_UNAVAILABLE, "busy", "Try again"),
            Refusal::Timeout => (Is::GATEWAY_TIMEOUT, "timeout", "No answer in time"),
            Refusal::Broken => (Is::INTERNAL_SERVER_ERROR, "internal", "A fault of ours"),
            Refusal::Control(error) => control_kind(error),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.kind().0
    }

    /// Says in the log what is ours to mend.
    pub(super) fn log(&self) {
        if let Refusal::Control(error) = self
            && error.is_for_operators()
        {
            tracing::error!(error = error as &dyn std::error::Error, "request failed");
        }
    }

    pub(super) fn detail(&self) -> String {
        if let Refusal::Control(error) = self { control_detail(error) } else { self.to_string() }
    }
}

fn control_detail(error: &ControlError) -> String {
    if error.fault() == Fault::Ours {
        "the cause is in the log".to_owned()
    } else if let ControlError::DataPlane(source) = error {
        // The variant says little; its source says what a caller wants to know.
        source.to_string()
    } else if let ControlError::Database(source) = error {
        format!("the database did not do it: {source}")
    } else {
        error.to_string()
    }
}

fn control_kind(error: &ControlError) -> (StatusCode, &'static str, &'static str) {
    let status = match error.fault() {
        // As the draft "The Idempotency-Key HTTP Header Field" has it, section 2.7.
        _ if matches!(error, ControlError::KeyReused) => StatusCode::UNPROCESSABLE_ENTITY,
        Fault::Missing => StatusCode::NOT_FOUND,
        Fault::Conflict => StatusCode::CONFLICT,
        Fault::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Fault::Ours => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let (kind, title) = match error {
        ControlError::UnknownCache(_) => ("unknown-cache", "No such cache"),
        ControlError::UnknownCredential { .. } | ControlError::UnknownUsername(_) => {
            ("unknown-credential", "No such credential")
        }
        ControlError::NameTaken(_) => ("name-taken", "The name is taken"),
        ControlError::PrimaryStays { .. } => ("primary-stays", "The primary credential stays"),
        ControlError::TooManyCredentials { .. } => ("too-many-credentials", "Too many credentials"),
        ControlError::TooManyCaches { .. } => ("too-many-caches", "Too many caches"),
        ControlError::DataPlane(DataPlaneError::NoRoom { .. }) => ("no-room", "Not enough memory"),
        ControlError::DataPlane(DataPlaneError::Unavailable { .. }) => {
            ("data-plane-unavailable", "Try again")
        }
        ControlError::UnknownCluster(_) => ("unknown-cluster", "No such cluster"),
        ControlError::ClusterNameTaken(_) => ("name-taken", "The name is taken"),
        ControlError::TooManyClusters { .. } => ("too-many-clusters", "Too many clusters"),
        ControlError::UnknownNode(_) => ("unknown-node", "No such node"),
        ControlError::TooManyNodes { .. } => ("too-many-nodes", "Too many nodes"),
        ControlError::NodeInUse(_) => ("node-in-use", "The node is in use"),
        ControlError::OldEpoch { .. }
        | ControlError::NotPrepared(_)
        | ControlError::NotCommitted(_)
        | ControlError::NotAcknowledged { .. } => ("wrong-epoch", "Not in this epoch"),
        ControlError::UnknownWebhook(_) => ("unknown-webhook", "No such webhook"),
        ControlError::TooManyWebhooks { .. } => ("too-many-webhooks", "Too many webhooks"),
        ControlError::UnknownOperator(_) => ("unknown-operator", "No such operator"),
        ControlError::TooManyOperators { .. } => ("too-many-operators", "Too many operators"),
        ControlError::WrongDashboardSecret => ("wrong-secret", "Not this dashboard's secret"),
        ControlError::UnknownAlert(_) => ("unknown-alert", "No such alert"),
        ControlError::UnknownDelivery(_) => ("unknown-delivery", "No such delivery"),
        ControlError::UnknownPrefix(_) => ("unknown-prefix", "No such prefix"),
        ControlError::DeliveryInUse(_) => ("delivery-in-use", "The delivery is in use"),
        ControlError::TooManyAlerts { .. } => ("too-many-alerts", "Too many alerts"),
        ControlError::UnknownRule(_) => ("unknown-rule", "No such rule"),
        ControlError::TooManyRules { .. } => ("too-many-rules", "Too many rules"),
        ControlError::RuleTooWide { .. } => ("rule-too-wide", "The rule is very wide"),
        ControlError::RuleCuts { .. } => ("rule-cuts", "The rule would cut off connections"),
        ControlError::UnknownCall(_) => ("unknown-call", "No such call"),
        ControlError::KeyReused => ("key-reused", "The idempotency key was used before"),
        ControlError::Superseded => ("superseded", "Done before, and undone"),
        ControlError::NotLeader => ("not-leader", "Another control process leads"),
        ControlError::Database(DatabaseError { fault: DatabaseFault::Unavailable, .. }) => {
            ("database-unavailable", "Try again")
        }
        ControlError::Database(DatabaseError { fault: DatabaseFault::Full, .. }) => {
            ("disk-full", "The database's disk is full")
        }
        ControlError::Database(_)
        | ControlError::Corrupt { .. }
        | ControlError::Sealed { .. }
        | ControlError::SealedWebhook { .. }
        | ControlError::SealedDelivery { .. }
        | ControlError::Random(_) => ("internal", "A fault of ours"),
    };
    (status, kind, title)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.log();
        let (status, kind, title) = self.kind();
        let problem = Problem {
            r#type: kind.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
        };
        let json = serde_json::to_vec(&problem).expect("strings and a number");
        let mut response = (status, json).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Refusal::TooManyGuesses { wait_seconds } = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait_seconds));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
