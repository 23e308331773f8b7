//! How one request wants to hear its outcome, and the saying of it.
//!
//! A [`Reply`] is made by the decoder and travels with the request. Whoever carries the request out
//! calls the one method that fits the outcome; which dialect it is, whether it is quiet and what is
//! to be echoed is the reply's own business.

mod binary;
mod decimal;
mod meta;
mod text;

pub(crate) use binary::BinaryForm;
pub(crate) use meta::MetaForm;
pub(crate) use text::TextForm;

use crate::command::Needs;
use crate::operation::{
    ArithmeticOutcome, DeleteOutcome, GetOutcome, Hit, Key, StoreOutcome, TouchOutcome,
};
use crate::request::Problem;
use crate::words::Words;

/// How the outcome of one request is to be said. Every method appends to `out`, and appends nothing
/// where the client asked for silence.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a>(pub(crate) Form<'a>);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    Text(TextForm),
    Meta(MetaForm<'a>),
    Binary(BinaryForm),
}

/// A [`Reply`] that outlives the bytes of its request: for an answer that comes later.
#[derive(Debug)]
pub struct KeptReply {
    form: Form<'static>,
    /// The words of a meta command, which `form` lacks. Empty otherwise, and then no allocation.
    words: Box<[u8]>,
}

impl KeptReply {
    /// The reply as it was.
    #[inline]
    pub fn reply(&self) -> Reply<'_> {
        match self.form {
            Form::Meta(form) => Reply(Form::Meta(MetaForm { words: Words(&self.words), ..form })),
            Form::Text(_) | Form::Binary(_) => Reply(self.form),
        }
    }
}

/// Why a request that can be read is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The session has not authenticated.
    Unauthenticated,
    /// Username or password are wrong.
    AuthenticationFailed,
    /// The credential lacks the capability for this.
    Capability(Needs),
    /// A service of many tenants does not offer this command.
    NotOffered,
    /// A limit of the cache or of the service was met. The text says which, without a line end.
    Limit(&'static str),
    /// Whoever holds the item cannot be asked now, or did not answer in time. The text says which,
    /// without a line end.
    Unavailable(&'static str),
}

impl Refusal {
    /// What people read of it.
    fn text(self) -> &'static str {
        match self {
            Refusal::Unauthenticated => "unauthenticated",
            Refusal::AuthenticationFailed => "authentication failure",
            Refusal::Capability(Needs::Nothing | Needs::Read) => "this credential may not read",
            Refusal::Capability(Needs::Write) => "this credential may not write",
            Refusal::Capability(Needs::Flush) => "this credential may not flush",
            Refusal::NotOffered => "command not offered by this service",
            Refusal::Limit(text) | Refusal::Unavailable(text) => text,
        }
    }
}

impl Reply<'_> {
    /// A copy that needs the request no longer.
    #[inline]
    pub fn keep(&self) -> KeptReply {
        match self.0 {
            Form::Text(form) => KeptReply { form: Form::Text(form), words: Box::default() },
            Form::Binary(form) => KeptReply { form: Form::Binary(form), words: Box::default() },
            Form::Meta(form) => KeptReply {
                form: Form::Meta(MetaForm { words: Words(b""), ..form }),
                words: form.words.0.into(),
            },
        }
    }

    /// Whether the client asked not to hear of the ordinary outcome: of a write, that it was done;
    /// of a read, that nothing was found.
    pub fn is_quiet(&self) -> bool {
        match &self.0 {
            Form::Text(form) => form.quiet,
            Form::Meta(form) => form.quiet,
            Form::Binary(form) => form.manner().0,
        }
    }

    /// One item of a text multi-get.
    #[inline]
    pub fn item(&self, out: &mut Vec<u8>, key: Key<'_>, hit: &Hit<'_>) {
        match &self.0 {
            Form::Text(form) => form.item(out, key, hit),
            Form::Meta(form) => form.get(out, key, Some(hit)),
            Form::Binary(form) => form.get(out, key, Some(hit)),
        }
    }

    /// The end of a text multi-get. Other dialects have none.
    #[inline]
    pub fn items_end(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(_) => out.extend_from_slice(b"END\r\n"),
            Form::Meta(_) | Form::Binary(_) => (),
        }
    }

    /// The outcome of a [`crate::request::Body::Get`], whole.
    #[inline]
    pub fn get(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: &GetOutcome<'_>) {
        match &self.0 {
            Form::Text(form) => {
                if let Some(hit) = outcome {
                    form.item(out, key, hit);
                }
                out.extend_from_slice(b"END\r\n");
            }
            Form::Meta(form) => form.get(out, key, outcome.as_ref()),
            Form::Binary(form) => form.get(out, key, outcome.as_ref()),
        }
    }

    #[inline]
    pub fn store(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: StoreOutcome) {
        match &self.0 {
            Form::Text(form) => form.store(out, outcome),
            Form::Meta(form) => form.store(out, key, outcome),
            Form::Binary(form) => form.store(out, outcome),
        }
    }

    pub fn delete(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: DeleteOutcome) {
        match &self.0 {
            Form::Text(form) => form.delete(out, outcome),
            Form::Meta(form) => form.delete(out, key, outcome),
            Form::Binary(form) => form.delete(out, outcome),
        }
    }

    pub fn arithmetic(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: ArithmeticOutcome) {
        match &self.0 {
            Form::Text(form) => form.arithmetic(out, outcome),
            Form::Meta(form) => form.arithmetic(out, key, outcome),
            Form::Binary(form) => form.arithmetic(out, outcome),
        }
    }

    /// The key is not part of any answer to a touch; it is here so that all outcomes of one item
    /// are said alike.
    pub fn touch(&self, out: &mut Vec<u8>, _key: Key<'_>, outcome: TouchOutcome) {
        match &self.0 {
            Form::Text(form) => form.touch(out, outcome),
            // The meta dialect touches with `mg`.
            Form::Meta(_) => (),
            Form::Binary(form) => form.touch(out, outcome),
        }
    }

    /// The outcome of a meta debug.
    pub fn peek(&self, out: &mut Vec<u8>, key: Key<'_>, outcome: Option<&Hit<'_>>) {
        match &self.0 {
            Form::Meta(form) => form.peek(out, key, outcome),
            // Only the meta dialect can ask.
            Form::Text(_) | Form::Binary(_) => (),
        }
    }

    /// A flush, a verbosity, or a `stats detail` was done.
    pub fn ok(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(form) => form.line(out, "OK"),
            Form::Meta(_) => (),
            Form::Binary(form) => form.ok(out),
        }
    }

    pub fn version(&self, out: &mut Vec<u8>, version: &str) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => {
                out.extend_from_slice(b"VERSION ");
                out.extend_from_slice(version.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Form::Binary(form) => form.text(out, version),
        }
    }

    pub fn noop(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => out.extend_from_slice(b"MN\r\n"),
            Form::Binary(form) => form.ok(out),
        }
    }

    /// The last words before the connection is closed.
    pub fn quit(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => (),
            Form::Binary(form) => form.ok(out),
        }
    }

    pub fn stat(&self, out: &mut Vec<u8>, name: &str, value: &str) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => {
                for part in ["STAT ", name, " ", value, "\r\n"] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            Form::Binary(form) => form.stat(out, name, value),
        }
    }

    pub fn stats_end(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => out.extend_from_slice(b"END\r\n"),
            Form::Binary(form) => form.stat(out, "", ""),
        }
    }

    /// `stats reset` was done.
    pub fn stats_reset(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => out.extend_from_slice(b"RESET\r\n"),
            Form::Binary(form) => form.stat(out, "", ""),
        }
    }

    /// There are no statistics of that name.
    pub fn stats_unknown(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => out.extend_from_slice(b"ERROR\r\n"),
            Form::Binary(form) => form.not_found(out),
        }
    }

    pub fn sasl_mechanisms(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => (),
            Form::Binary(form) => form.text(out, "PLAIN"),
        }
    }

    /// The mechanism was chosen without a message; the message shall come with a step.
    pub fn sasl_continue(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(_) | Form::Meta(_) => (),
            Form::Binary(form) => form.authentication_continues(out),
        }
    }

    pub fn authenticated(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Form::Text(form) => form.line(out, "STORED"),
            Form::Meta(_) => (),
            Form::Binary(form) => form.text(out, "Authenticated"),
        }
    }

    pub fn refused(&self, out: &mut Vec<u8>, refusal: Refusal) {
        match &self.0 {
            Form::Text(form) => form.refused(out, refusal),
            Form::Meta(_) => TextForm::ANSWERED.refused(out, refusal),
            Form::Binary(form) => form.refused(out, refusal),
        }
    }

    pub fn wrong(&self, out: &mut Vec<u8>, problem: Problem) {
        match &self.0 {
            Form::Text(form) => form.wrong(out, problem),
            // Errors are said however quiet the request wanted its answer.
            Form::Meta(_) => TextForm::ANSWERED.wrong(out, problem),
            Form::Binary(form) => form.wrong(out, problem),
        }
    }
}
