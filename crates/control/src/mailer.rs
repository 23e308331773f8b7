//! Sends e-mail through the operator's mail server.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::{SmtpTransport, Transport};

use crate::alerts::Message;

/// A mail server takes a message within seconds; one that does not is tried again later.
const SEND_MAX: Duration = Duration::from_secs(15);

/// A mail server and whom messages are from.
#[derive(Clone)]
pub struct Mailer {
    transport: SmtpTransport,
    from: Mailbox,
}

#[derive(Debug, thiserror::Error)]
pub enum MailerError {
    #[error("smtp_url is not as smtp://host:25 or smtps://user:password@host")]
    Url(#[source] lettre::transport::smtp::Error),
    #[error("mail_from is not an e-mail address")]
    From(#[source] lettre::address::AddressError),
}

impl Mailer {
    /// `url` is `smtp://host:port` (`?tls=required` for STARTTLS) or `smtps://user:password@host:port`.
    pub fn new(url: &str, from: &str) -> Result<Self, MailerError> {
        let transport = SmtpTransport::from_url(url).map_err(MailerError::Url)?;
        let transport = transport.timeout(Some(SEND_MAX)).build();
        Ok(Mailer { transport, from: from.parse().map_err(MailerError::From)? })
    }

    /// Says why it could not be sent, without the server's address.
    pub(crate) fn send(&self, to: &str, id: &str, message: &Message) -> Result<(), String> {
        let to: Mailbox = to.parse().map_err(|_| "the address is not one".to_owned())?;
        let mail = lettre::Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(&message.subject)
            // The same for every attempt, so that a mailbox can tell repetitions.
            .message_id(Some(format!("<{id}@larder.invalid>")))
            .body(format!("{}\r\n", message.text))
            .map_err(|error| error.to_string())?;
        self.transport.send(&mail).map(drop).map_err(|error| error.to_string())
    }
}
