//! Rules for addresses: those there are, and making one, which is shown before it is done.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use tenancy::rules::{RULES_PER_SCOPE_MAX, RuleId, Ruling};

use super::{OperatorFrame, frame};
use crate::contract::{PutRule, RulePreviewView};
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::{Fields, LoggedIn, Sent, parse_id};
use crate::dashboard::units;
use crate::model::{Actor, UnixSeconds};
use crate::rules::{CACHE_RULE_SECONDS_MAX, KeptRule, REASON_BYTES_MAX};

/// Rules on a page: all of an emergency's.
const PAGE_RULES: usize = RULES_PER_SCOPE_MAX;

/// How long a rule may last, in seconds, and how that is said.
const LIVES: [(u64, &str); 5] = [
    (10 * 60, "10 minutes"),
    (60 * 60, "1 hour"),
    (24 * 60 * 60, "1 day (one cache)"),
    (30 * 24 * 60 * 60, "30 days (one cache)"),
    (CACHE_RULE_SECONDS_MAX, "1 year (one cache)"),
];

#[derive(Template)]
#[template(path = "operator_rules.html")]
struct RulesPage {
    frame: Frame,
    operator: OperatorFrame,
    rules: Vec<Row>,
    next: Option<u64>,
    is_first: bool,
    lives: [(u64, &'static str); LIVES.len()],
    reason_bytes_max: usize,
    /// Of the cache from whose page someone comes.
    cache: String,
}

struct Row {
    id: u64,
    network: String,
    blocks: bool,
    cache: Option<(u64, String)>,
    reason: String,
    made: String,
    ends: String,
}

impl Row {
    fn new(kept: &KeptRule, now: UnixSeconds) -> Self {
        let rule = &kept.rule;
        let name = kept.cache.as_ref().map(ToString::to_string);
        let left = rule.expires_at.saturating_sub(now.0);
        Row {
            id: rule.id.0,
            network: rule.network.to_string(),
            blocks: rule.ruling == Ruling::Block,
            cache: rule.cache.map(|cache| cache.get()).zip(name),
            reason: kept.reason.clone(),
            made: format!("{} by {}", units::time(kept.made_at), kept.made_by),
            ends: match left {
                0 => "ended".to_owned(),
                left => format!("in {}", units::duration(left)),
            },
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    after: Option<u64>,
    done: Option<String>,
    #[serde(default)]
    cache: String,
}

pub(super) async fn list(
    State(dashboard): State<Dashboard>,
    who: LoggedIn,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let after = asked.after.unwrap_or(0);
    let (mut kept, now) = dashboard
        .call(move |control| Ok((control.rules(after, PAGE_RULES + 1)?, control.now())))
        .await?;
    let more = kept.len() > PAGE_RULES;
    kept.truncate(PAGE_RULES);
    Ok(render(&RulesPage {
        frame: frame(&who, "IP rules").after(asked.done.as_deref()),
        operator: OperatorFrame::new(&who, "rules"),
        next: kept.last().filter(|_| more).map(|last| last.rule.id.0),
        rules: kept.iter().map(|kept| Row::new(kept, now)).collect(),
        is_first: after == 0,
        lives: LIVES,
        reason_bytes_max: REASON_BYTES_MAX,
        cache: asked.cache,
    }))
}

/// What an act would do, and the question whether to do it.
#[derive(Template)]
#[template(path = "operator_rule.html")]
struct RulePage {
    frame: Frame,
    operator: OperatorFrame,
    question: String,
    preview: RulePreviewView,
    action: String,
    fields: Vec<(&'static str, String)>,
    button: &'static str,
}

/// Shows whom the rule would cut off; makes it when that was seen.
pub(super) async fn put(
    State(dashboard): State<Dashboard>,
    Sent { who, fields }: Sent<LoggedIn>,
) -> Result<Response, Failure> {
    let asked = asked(&fields)?;
    let wish = dashboard.api.rule_wish(asked.clone()).await?;
    if fields.has("confirmed") {
        let actor = Actor::Named(who.name);
        dashboard.call(move |control| control.put_rule(actor, &wish).map(drop)).await?;
        return Ok(Redirect::to("/operator/rules?done=ruled").into_response());
    }
    let preview = dashboard.api.preview_rule(&wish).await?;
    let objection = wish.dare(&preview).err().map(|objection| objection.to_string());
    let preview = dashboard.api.preview_view(preview).await?;
    let act = if wish.ruling == Ruling::Block { "Block" } else { "Allow" };
    let whom =
        asked.cache.as_deref().map_or_else(String::new, |cache| format!(" for cache {cache}"));
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Ok(render(&RulePage {
        frame: frame(&who, "IP rules"),
        operator: OperatorFrame::new(&who, "rules"),
        question: format!("{act} {}{whom} for {}?", wish.network, units::duration(wish.seconds)),
        preview: RulePreviewView { objection, ..preview },
        action: "/operator/rules".to_owned(),
        fields: vec![
            ("network", wish.network.to_string()),
            ("ruling", wish.ruling.name().to_owned()),
            ("cache", text(&asked.cache)),
            ("reason", wish.reason.clone()),
            ("seconds", wish.seconds.to_string()),
        ],
        button: act,
    }))
}

fn asked(fields: &Fields) -> Result<PutRule, Failure> {
    let seconds = fields.get("seconds").parse();
    let given = |name| Some(fields.get(name).to_owned()).filter(|text| !text.is_empty());
    Ok(PutRule {
        network: fields.get("network").to_owned(),
        ruling: given("ruling"),
        cache: given("cache"),
        cluster: None,
        reason: fields.get("reason").to_owned(),
        seconds: Some(seconds.map_err(|_| Failure::Wrong("How long shall it last?".to_owned()))?),
        force: false,
    })
}

/// Shows whom it would cut off to remove the rule; removes it when that was seen.
pub(super) async fn remove(
    State(dashboard): State<Dashboard>,
    Path(rule): Path<String>,
    Sent { who, fields }: Sent<LoggedIn>,
) -> Result<Response, Failure> {
    let id = RuleId(parse_id(&rule).ok_or(Failure::NoPage)?.get());
    if fields.has("confirmed") {
        let actor = Actor::Named(who.name);
        dashboard.call(move |control| control.remove_rule(actor, id).map(drop)).await?;
        return Ok(Redirect::to("/operator/rules?done=unruled").into_response());
    }
    let (kept, preview) = dashboard.api.preview_removal(id).await?;
    let preview = dashboard.api.preview_view(preview).await?;
    let (ruling, network) = (kept.rule.ruling.name(), kept.rule.network);
    Ok(render(&RulePage {
        frame: frame(&who, "IP rules"),
        operator: OperatorFrame::new(&who, "rules"),
        question: format!("Remove the rule that says {ruling} {network}?"),
        preview,
        action: format!("/operator/rules/{id}/remove"),
        fields: Vec::new(),
        button: "Remove",
    }))
}
