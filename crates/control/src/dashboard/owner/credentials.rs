//! The credentials panel: who may use the cache, and what they may do.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use tenancy::capability::{Capabilities, Capability};

use super::{CacheFrame, Done, Question, ask, back, frame};
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::{Fields, Owner, Sent};
use crate::dashboard::units;
use crate::model::{CapabilityChange, Issued, UnixSeconds};

const TAB: &str = "credentials";

#[derive(Template)]
#[template(path = "credentials.html")]
struct CredentialsPage {
    frame: Frame,
    cache: CacheFrame,
    credentials: Vec<Row>,
    /// Development caches keep the credential they were made with.
    fixed: bool,
}

struct Row {
    username: String,
    primary: bool,
    write: bool,
    flush: bool,
    api: bool,
    /// Only of the one that was asked for: a password nobody looks at stays off the screen.
    password: Option<String>,
    created: String,
}

impl Row {
    fn new(issued: &Issued, shown: Option<&str>, now: UnixSeconds) -> Self {
        let credential = &issued.credential;
        let username = credential.username.to_string();
        let has = |capability| credential.capabilities.has(capability);
        Row {
            primary: credential.primary,
            write: has(Capability::Write),
            flush: has(Capability::Flush),
            api: has(Capability::Api),
            password: (shown == Some(username.as_str())).then(|| issued.secret.reveal().to_owned()),
            created: units::ago(credential.created_at, now),
            username,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// The username whose password is shown.
    show: Option<String>,
}

pub(super) async fn show(
    State(dashboard): State<Dashboard>,
    owner: Owner,
    Query(asked): Query<Asked>,
    Query(done): Query<Done>,
) -> Result<Response, Failure> {
    let cache = owner.cache_ref();
    let (issued, now) =
        dashboard.call(move |control| Ok((control.issued(&cache)?.1, control.now()))).await?;
    let shown = asked.show.as_deref();
    Ok(render(&CredentialsPage {
        frame: frame(&owner, "Credentials", done.done.as_deref()),
        cache: CacheFrame::new(&owner, TAB),
        fixed: !owner.cache.may_manage_credentials(),
        credentials: issued.iter().map(|issued| Row::new(issued, shown, now)).collect(),
    }))
}

pub(super) async fn add(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, .. }: Sent<Owner>,
) -> Result<Response, Failure> {
    may_manage(&owner)?;
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    let add = move |control: &crate::control::Control| {
        control.add_credential(actor, &cache, Capabilities::ALL)
    };
    dashboard.call(add).await?;
    Ok(back(&owner, TAB, "added"))
}

/// All three checkboxes come with the form, so what is not checked is taken away.
pub(super) async fn change(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    may_manage(&owner)?;
    let username = fields.username()?;
    let asked = asked(&fields);
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard
        .call(move |control| control.change_capabilities(actor, &cache, &username, asked))
        .await?;
    Ok(back(&owner, TAB, "changed"))
}

fn may_manage(owner: &Owner) -> Result<(), Failure> {
    if owner.cache.may_manage_credentials() {
        return Ok(());
    }
    Err(Failure::Wrong("A development cache keeps the credential it was made with.".to_owned()))
}

fn asked(fields: &Fields) -> CapabilityChange {
    let (allow, deny): (Vec<_>, Vec<_>) =
        Capability::ALL.into_iter().partition(|capability| fields.has(capability.name()));
    CapabilityChange { allow: allow.into_iter().collect(), deny: deny.into_iter().collect() }
}

pub(super) async fn promote(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    may_manage(&owner)?;
    let username = fields.username()?;
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.promote(actor, &cache, &username)).await?;
    Ok(back(&owner, TAB, "promoted"))
}

/// Asks first: whoever still uses the credential is cut off.
pub(super) async fn remove(
    State(dashboard): State<Dashboard>,
    Sent { who: owner, fields }: Sent<Owner>,
) -> Result<Response, Failure> {
    may_manage(&owner)?;
    let username = fields.username()?;
    if !fields.has("confirmed") {
        let question = Question {
            title: "Delete a credential",
            text: &format!("Delete credential {username}?"),
            consequences: &[
                "Connections that use it are closed at once, and nobody can log in with it again.",
                "If you have just promoted another one, give your applications an hour or two to \
                 take it up before you delete this one.",
            ],
            tab: TAB,
            act: "remove",
            fields: &[("username", &username.to_string())],
            button: "Delete it",
        };
        return Ok(ask(&owner, question));
    }
    let (actor, cache) = (owner.actor(), owner.cache_ref());
    dashboard.call(move |control| control.remove_credential(actor, &cache, &username)).await?;
    Ok(back(&owner, TAB, "removed"))
}
