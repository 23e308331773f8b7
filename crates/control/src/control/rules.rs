//! Rules for addresses: keeping them, and having those end whose time is over.

use tenancy::rules::{RuleChange, RuleId};
use wire::control::record::{Key, Record};
use wire::control::rules::Cut;

use super::Control;
use crate::database::{Change, Database, Effect, Kind, Made};
use crate::error::ControlError;
use crate::model::{Actor, By, ClusterId, Committed};
use crate::rules::{KeptRule, Preview, RuleWish, Scope};

/// Rules that are ended at one time; the rest waits for the next look. To nodes they have ended already.
const ENDED_RULES_AT_ONCE: usize = 100;

impl Control {
    /// Rules by rising id, those after `after`; also those that have ended and are still kept.
    pub(crate) fn rules(&self, after: u64, limit: usize) -> Result<Vec<KeptRule>, ControlError> {
        self.lock().rules(after, limit)
    }

    pub(crate) fn rule(&self, id: RuleId) -> Result<KeptRule, ControlError> {
        self.lock().rule(id)
    }

    /// What a wish would change, and in which cluster.
    pub(crate) fn rule_change(
        &self,
        wish: &RuleWish,
    ) -> Result<(ClusterId, RuleChange), ControlError> {
        let mut database = self.lock();
        let (cluster, cache) = match &wish.scope {
            Scope::Cluster(cluster) => (database.cluster(*cluster)?.id, None),
            Scope::Cache(cache) => {
                let cache = database.cache(cache)?;
                (cache.cluster, Some(cache))
            }
        };
        Ok((cluster, wish.change(cache.as_ref(), self.environment.now())))
    }

    /// Whom a change would cut off: in this process, or at the nodes. Waits for them as for any answer.
    pub(crate) fn preview(&self, cluster: ClusterId, change: RuleChange) -> Preview {
        if let Some(local) = self.local(cluster) {
            let (rules, open) = (local.directory.rules(), local.data_plane.open());
            let cut = rules.cut_by(change, open.into_iter(), self.environment.now().0);
            return Preview { nodes: 1, cut: Cut::of(cut), silent: Vec::new() };
        }
        match self.nodes.get() {
            Some(nodes) if cluster == ClusterId::DEFAULT => nodes.preview(change),
            // Its nodes have another control process.
            Some(_) | None => Preview::default(),
        }
    }

    /// Makes a rule, or changes the one for the same network and the same connections.
    pub(crate) fn put_rule(
        &self,
        by: impl Into<By>,
        wish: &RuleWish,
    ) -> Result<Committed<KeptRule>, ControlError> {
        let mut database = self.lock();
        let by = by.into();
        if let Some((id, done)) = done_before(&mut database, &by)? {
            return match database.rule(id) {
                Ok(kept) => Ok(done.map(|()| kept)),
                Err(ControlError::UnknownRule(_)) => Err(ControlError::Superseded),
                Err(error) => Err(error),
            };
        }
        let mut change = database.begin(by, self.environment.now())?;
        let (cluster, cache) = match &wish.scope {
            Scope::Cluster(cluster) => (change.cluster(*cluster)?.id, None),
            Scope::Cache(cache) => {
                let cache = change.cache(cache)?;
                (cache.cluster, Some(cache))
            }
        };
        let (kept, is_new) = change.put_rule(wish, cluster, cache.as_ref())?;
        let kind = if is_new { Kind::RuleAdded } else { Kind::RuleChanged };
        let revision = change.record_rule(kind, &kept, &Effect::put(Record::Rule(kept.rule)))?;
        change.keep_made(Made { id: kept.rule.id.0, at: Some((cluster, revision)) })?;
        self.commit_in(change, cluster, revision)?;
        if let Some(local) = self.local(cluster) {
            local.directory.put_rule(kept.rule);
        }
        Ok(Committed { value: kept, cluster, revision })
    }

    pub(crate) fn remove_rule(
        &self,
        by: impl Into<By>,
        id: RuleId,
    ) -> Result<Committed<()>, ControlError> {
        let mut database = self.lock();
        let by = by.into();
        if let Some((_, done)) = done_before(&mut database, &by)? {
            return Ok(done);
        }
        let change = database.begin(by, self.environment.now())?;
        self.take_rule_out(change, id, Kind::RuleRemoved)
    }

    /// Ends the rules whose time is over, for the logs' sake: nodes do not go by them any more. Returns
    /// those that were.
    pub(crate) fn end_rules(&self) -> Result<Vec<KeptRule>, ControlError> {
        let now = self.environment.now();
        let mut database = self.lock();
        let ended = database.ended_rules(now, ENDED_RULES_AT_ONCE)?;
        for kept in &ended {
            let change = database.begin(Actor::Installation, now)?;
            self.take_rule_out(change, kept.rule.id, Kind::RuleEnded)?;
        }
        Ok(ended)
    }

    fn take_rule_out(
        &self,
        mut change: Change<'_>,
        id: RuleId,
        kind: Kind,
    ) -> Result<Committed<()>, ControlError> {
        let kept = change.rule(id)?;
        change.delete_rule(id)?;
        let effect = Effect { deletes: vec![Key::Rule(id)], ..Effect::NONE };
        let revision = change.record_rule(kind, &kept, &effect)?;
        change.keep_made(Made { id: id.0, at: Some((kept.cluster, revision)) })?;
        self.commit_in(change, kept.cluster, revision)?;
        if let Some(local) = self.local(kept.cluster) {
            local.directory.remove_rule(id);
        }
        Ok(Committed { value: (), cluster: kept.cluster, revision })
    }
}

/// What a request for a rule had done when it was carried out before.
fn done_before(
    database: &mut Database,
    by: &By,
) -> Result<Option<(RuleId, Committed<()>)>, ControlError> {
    let Some(Made { id, at }) = database.made_before(by)? else { return Ok(None) };
    // A key of a request that nodes did not hear of is not one for a rule.
    let (cluster, revision) = at.ok_or(ControlError::KeyReused)?;
    Ok(Some((RuleId(id), Committed { value: (), cluster, revision })))
}
