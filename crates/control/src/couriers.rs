//! Carries the calls of the outbox to their receivers: webhooks over HTTP, signed; alerts of caches as
//! e-mail or to Slack.
//!
//! ```text
//!   change ──┐ one transaction          ┌── 2xx ─────────────────────▶ sent
//!            ▼                          │
//!   outbox row ── claim ──▶ POST ───────┼── anything else, attempts left ─▶ waits, full jitter
//!                 (fenced, for a while) │
//!                                       └── no attempts left, or 410 ────▶ dead, until revived
//! ```
//!
//! A receiver gets each call at least once: a courier that dies after the call and before its mark
//! leaves it to be made again. It tells repetitions by `webhook-id`, which never changes.
//!
//! Headers and signature are those of the specification "Standard Webhooks" 1.0: HMAC-SHA-256 of
//! `id.timestamp.body` under the bytes that the secret's base64 part stands for.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::alerts::{Message, Way};
use crate::bell::{Bell, Heard};
use crate::control::Control;
use crate::database::{Call, Claimed, Outcome, Receiver, StoredDelivery, Webhook};
use crate::error::ControlError;
use crate::mailer::Mailer;

/// Calls that are under way at one time, each to another receiver: one that hangs holds up only what
/// waits for itself.
pub(crate) const COURIERS: usize = 4;
/// How long to wait when there is nothing to do: for a call that another process wrote, and for
/// leadership.
const IDLE: Duration = Duration::from_secs(2);
/// Added to a call's own limit before it is taken for lost.
const CLAIM_SLACK: Duration = Duration::from_secs(20);
/// Bytes of a receiver's words that are kept as the reason of a failure.
const PROBLEM_BYTES_MAX: usize = 200;
/// Where Linux distributions keep the certificates that they trust.
const AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// What a call may take, and how often it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Of one attempt, from the connection to the answer's head.
    pub call: Duration,
    /// Attempts before a call is given up.
    pub attempts_max: u32,
    /// The longest wait after the first failure; it doubles with each further one.
    pub backoff: Duration,
    /// It doubles up to this.
    pub backoff_max: Duration,
}

impl Default for Patience {
    /// Some three hours until a call is given up: a deployment that went wrong is mended by then, and
    /// a receiver that comes back is not buried under a day's calls.
    fn default() -> Self {
        Patience {
            call: Duration::from_secs(10),
            attempts_max: 14,
            backoff: Duration::from_secs(5),
            backoff_max: Duration::from_secs(3600),
        }
    }
}

impl Patience {
    /// Full jitter: any time up to the limit, so that calls that failed together do not come back
    /// together. `chance` is uniform.
    fn wait(&self, attempts: u32, chance: u64) -> Duration {
        let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let most = self.backoff.saturating_mul(doubled).min(self.backoff_max);
        let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(chance % most_ms.saturating_add(1))
    }
}

/// Threads that carry calls while this process leads, until this is dropped.
#[must_use]
pub struct Couriers {
    bell: Arc<Bell>,
}

impl Couriers {
    /// Without a mail server: messages that are to go by e-mail are given up, and say why.
    pub fn start(control: &Arc<Control>, patience: Patience) -> std::io::Result<Self> {
        Couriers::start_with(control, patience, None)
    }

    pub fn start_with(
        control: &Arc<Control>,
        patience: Patience,
        mailer: Option<Mailer>,
    ) -> std::io::Result<Self> {
        let bell = Arc::clone(control.outbox_bell());
        // One receiver each; 0 is nobody.
        let busy = Arc::new(Mutex::new([0; COURIERS]));
        let agent = agent(patience.call, authorities());
        for number in 0..COURIERS {
            let (control, busy) = (Arc::clone(control), Arc::clone(&busy));
            let (agent, mailer) = (agent.clone(), mailer.clone());
            let courier = Courier { control, agent, mailer, patience, busy, number };
            let bell = Arc::clone(&bell);
            thread::Builder::new()
                .name(format!("courier-{number}"))
                .spawn(move || courier.run(&bell))?;
        }
        Ok(Couriers { bell })
    }
}

impl Drop for Couriers {
    /// Begins no further call. One that is under way ends with its thread or with the process; then
    /// its claim runs out, and it is made again.
    fn drop(&mut self) {
        self.bell.stop();
    }
}

struct Courier {
    control: Arc<Control>,
    agent: Agent,
    mailer: Option<Mailer>,
    patience: Patience,
    /// Whom each courier is calling.
    busy: Arc<Mutex<[i64; COURIERS]>>,
    number: usize,
}

impl Courier {
    fn run(&self, bell: &Bell) {
        let mut heard = Heard::default();
        while !bell.is_stopped() {
            let wait = match self.carry_one() {
                Ok(None) => continue,
                Ok(Some(wait)) => wait.min(IDLE),
                // Another process carries them.
                Err(ControlError::NotLeader) => IDLE,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the outbox could not be looked at");
                    IDLE
                }
            };
            bell.wait(&mut heard, wait);
        }
    }

    /// Carries one call, or says how long there is none to carry.
    fn carry_one(&self) -> Result<Option<Duration>, ControlError> {
        let claim = self.patience.call + CLAIM_SLACK;
        let claimed = {
            // Held until the choice is known, so that no other courier makes the same.
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            let claimed = self.control.claim_call(claim, &busy)?;
            if let Claimed::Call(call) = &claimed {
                busy[self.number] = call.receiver.number();
            }
            claimed
        };
        match claimed {
            Claimed::Nothing => Ok(Some(IDLE)),
            Claimed::Later { wait_ms } => Ok(Some(Duration::from_millis(wait_ms))),
            Claimed::Call(call) => {
                let outcome = self.call(&call);
                let settled = self.control.settle_call(&call, &outcome?);
                self.busy.lock().unwrap_or_else(PoisonError::into_inner)[self.number] = 0;
                settled.map(|()| None)
            }
        }
    }

    fn call(&self, call: &Call) -> Result<Outcome, ControlError> {
        let done = match &call.receiver {
            Receiver::Webhook(webhook) => self.call_webhook(call, webhook)?,
            Receiver::Delivery(delivery) => self.deliver(call, delivery.clone())?,
        };
        let problem = match done {
            Attempt::Sent => return Ok(Outcome::Sent),
            Attempt::Hopeless(problem) => return Ok(Outcome::Dead { problem }),
            Attempt::Failed(problem) => problem.chars().take(PROBLEM_BYTES_MAX).collect(),
        };
        if call.attempts >= self.patience.attempts_max {
            tracing::warn!(call = call.id, problem, "a call was given up");
            return Ok(Outcome::Dead { problem });
        }
        let wait = self.patience.wait(call.attempts, self.control.chance()?);
        let after_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        Ok(Outcome::Retry { after_ms, problem })
    }

    /// Sends a message of an alert.
    fn deliver(&self, call: &Call, to: StoredDelivery) -> Result<Attempt, ControlError> {
        let Ok(message) = serde_json::from_str::<Message>(&call.body) else {
            return Err(ControlError::Corrupt { what: "message" });
        };
        match (self.control.open_delivery(to)?.way, &self.mailer) {
            (Way::Email { address }, Some(mailer)) => {
                let sent = mailer.send(&address, &call.idempotency_key, &message);
                Ok(sent.map_or_else(Attempt::Failed, |()| Attempt::Sent))
            }
            (Way::Email { .. }, None) => {
                Ok(Attempt::Hopeless("this Larder has no mail server (smtp_url)".to_owned()))
            }
            (Way::Slack { url, channel }, _) => {
                let mut body = serde_json::json!({ "text": message.text });
                if !channel.is_empty() {
                    body["channel"] = channel.into();
                }
                let post = self.agent.post(url.reveal()).header("content-type", "application/json");
                // Not the error's own words: they may hold the URL, which is a secret.
                Ok(match post.send(body.to_string()) {
                    Ok(answer) => Attempt::answered(answer.status()),
                    Err(_) => Attempt::Failed("it could not be reached".to_owned()),
                })
            }
        }
    }

    fn call_webhook(&self, call: &Call, webhook: &Webhook) -> Result<Attempt, ControlError> {
        let secret = self.control.webhook_secret(webhook)?;
        let timestamp = self.control.now().0;
        let signature = signature(secret.reveal(), &call.idempotency_key, timestamp, &call.body);
        let answer = self
            .agent
            .post(&webhook.url)
            .header("content-type", "application/json")
            .header("idempotency-key", &call.idempotency_key)
            .header("webhook-id", &call.idempotency_key)
            .header("webhook-timestamp", timestamp.to_string())
            .header("webhook-signature", signature)
            .send(&call.body);
        Ok(match answer {
            Ok(answer) => Attempt::answered(answer.status()),
            Err(error) => Attempt::Failed(error.to_string()),
        })
    }
}

/// What came of one attempt.
enum Attempt {
    Sent,
    /// Another one may succeed.
    Failed(String),
    /// No other one will.
    Hopeless(String),
}

impl Attempt {
    fn answered(status: StatusCode) -> Self {
        if status.is_success() {
            Attempt::Sent
        } else if status == StatusCode::GONE {
            Attempt::Hopeless("it answered 410 Gone".to_owned())
        } else {
            Attempt::Failed(format!("it answered {status}"))
        }
    }
}

/// A client that believes these authorities and no others.
fn agent(call_time_max: Duration, authorities: Vec<Certificate<'static>>) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(authorities)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(call_time_max))
        // Whoever moves says so to the operator, not to us.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .user_agent("larder")
        .build()
        .into()
}

/// The authorities that this machine trusts; none when it has no such list, and then no `https` call
/// succeeds and each says why.
fn authorities() -> Vec<Certificate<'static>> {
    let Some(pem) = AUTHORITIES.iter().find_map(|path| fs::read(path).ok()) else {
        return Vec::new();
    };
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        Ok(_) | Err(_) => None,
    };
    parse_pem(&pem).filter_map(certificate).collect()
}

/// What begins every secret, so that people and scanners know it for one.
pub(crate) const SECRET_PREFIX: &str = "whsec_";

fn signature(secret: &str, id: &str, timestamp: u64, body: &str) -> String {
    let encoded = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
    let key = BASE64.decode(encoded).unwrap_or_else(|_| encoded.as_bytes().to_vec());
    let mac = <Hmac<Sha256> as Mac>::new_from_slice(&key).expect("HMAC takes a key of any length");
    let mac = mac.chain_update(format!("{id}.{timestamp}.{body}"));
    format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests;
