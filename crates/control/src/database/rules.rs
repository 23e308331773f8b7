//! Rules for addresses: which may come in, until when, and why.

use tenancy::id::CacheId;
use tenancy::rules::{Network, RULES_MAX, RULES_PER_SCOPE_MAX, Rule, RuleId, Ruling};

use super::Database;
use super::change::{Change, natural};
use super::rows::corrupt;
use super::sql::{Row, Sql, Value};
use crate::error::ControlError;
use crate::model::{Cache, CacheName, ClusterId, UnixSeconds};
use crate::rules::{KeptRule, RuleWish};

const SELECT_RULE: &str = "SELECT rules.id, rules.cluster_id, rules.cache_id, caches.name, network,
        ruling, reason, made_by, made_at, ends_at
    FROM rules LEFT JOIN caches ON caches.id = rules.cache_id";

fn kept(row: &Row) -> Result<KeptRule, ControlError> {
    let name = row.optional_text(3)?.map(CacheName::parse).transpose();
    Ok(KeptRule {
        rule: Rule {
            id: RuleId(row.natural(0)?),
            cache: row.optional_natural(2)?.map(CacheId::new),
            network: Network::parse(row.text(4)?).map_err(|_| corrupt("network"))?,
            ruling: Ruling::named(row.text(5)?).ok_or(corrupt("ruling"))?,
            expires_at: row.natural(9)?,
        },
        cluster: ClusterId(row.natural(1)?),
        cache: name.map_err(|_| corrupt("cache name"))?,
        reason: row.text(6)?.to_owned(),
        made_by: row.text(7)?.to_owned(),
        made_at: UnixSeconds(row.natural(8)?),
    })
}

fn find(sql: &mut dyn Sql, id: RuleId) -> Result<KeptRule, ControlError> {
    let row = sql.row(&format!("{SELECT_RULE} WHERE rules.id = $1"), &[id.0.into()])?;
    kept(&row.ok_or(ControlError::UnknownRule(id))?)
}

/// Every rule of a cluster, for its nodes.
pub(super) fn rules_of(sql: &mut dyn Sql, cluster: ClusterId) -> Result<Vec<Rule>, ControlError> {
    let select = format!("{SELECT_RULE} WHERE rules.cluster_id = $1 ORDER BY rules.id");
    let rows = sql.rows(&select, &[cluster.0.into()])?;
    rows.iter().map(|row| Ok(kept(row)?.rule)).collect()
}

impl Database {
    pub(crate) fn rule(&mut self, id: RuleId) -> Result<KeptRule, ControlError> {
        find(&mut *self.sql, id)
    }

    /// Rules by rising id, those after `after`.
    pub(crate) fn rules(
        &mut self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<KeptRule>, ControlError> {
        let select = format!("{SELECT_RULE} WHERE rules.id > $1 ORDER BY rules.id LIMIT $2");
        self.sql.rows(&select, &[after.into(), limit.into()])?.iter().map(kept).collect()
    }

    /// Every rule of a cluster.
    pub(crate) fn rules_of(&mut self, cluster: ClusterId) -> Result<Vec<Rule>, ControlError> {
        rules_of(&mut *self.sql, cluster)
    }

    /// Rules that have ended by now, and are still kept.
    pub(crate) fn ended_rules(
        &mut self,
        now: UnixSeconds,
        limit: usize,
    ) -> Result<Vec<KeptRule>, ControlError> {
        let select = format!("{SELECT_RULE} WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2");
        self.sql.rows(&select, &[now.0.into(), limit.into()])?.iter().map(kept).collect()
    }
}

impl Change<'_> {
    pub(crate) fn rule(&mut self, id: RuleId) -> Result<KeptRule, ControlError> {
        find(self.sql, id)
    }

    /// Makes a rule for a cluster or for one cache of it, or changes the one for the same network.
    /// Returns whether it is new.
    pub(crate) fn put_rule(
        &mut self,
        wish: &RuleWish,
        cluster: ClusterId,
        cache: Option<&Cache>,
    ) -> Result<(KeptRule, bool), ControlError> {
        let of_cache = cache.map(|cache| cache.id.get());
        let scope: [Value<'_>; 2] = [cluster.0.into(), of_cache.unwrap_or(0).into()];
        let network = wish.network.to_string();
        let actor = self.actor_name();
        let ends_at = self.now.0.saturating_add(wish.seconds);
        let select = "SELECT id FROM rules
            WHERE cluster_id = $1 AND coalesce(cache_id, 0) = $2 AND network = $3";
        let before = self.sql.row(select, &[scope[0], scope[1], network.as_str().into()])?;
        let values: [Value<'_>; 5] = [
            wish.ruling.name().into(),
            wish.reason.as_str().into(),
            actor.as_str().into(),
            self.now.0.into(),
            ends_at.into(),
        ];
        if let Some(row) = before {
            let id = RuleId(row.natural(0)?);
            let update = "UPDATE rules SET ruling = $1, reason = $2, made_by = $3, made_at = $4,
                ends_at = $5 WHERE id = $6";
            self.sql.execute(update, &[values.as_slice(), &[id.0.into()]].concat())?;
            return Ok((self.rule(id)?, false));
        }
        let count = "SELECT count(*) FROM rules
            WHERE cluster_id = $1 AND coalesce(cache_id, 0) = $2 AND ends_at > $3";
        if self.count(count, &[scope[0], scope[1], self.now.0.into()])? >= RULES_PER_SCOPE_MAX {
            return Err(ControlError::TooManyRules { max: RULES_PER_SCOPE_MAX });
        }
        // Those that have ended are counted here, because nodes still have them.
        let count = "SELECT count(*) FROM rules WHERE cluster_id = $1";
        if self.count(count, &[scope[0]])? >= RULES_MAX {
            return Err(ControlError::TooManyRules { max: RULES_MAX });
        }
        let insert = "INSERT INTO rules
                (ruling, reason, made_by, made_at, ends_at, cluster_id, cache_id, network)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id";
        let rest: [Value<'_>; 3] = [cluster.0.into(), of_cache.into(), network.as_str().into()];
        let id = natural(self.sql.number(insert, &[values.as_slice(), &rest].concat())?)?;
        Ok((self.rule(RuleId(id))?, true))
    }

    pub(crate) fn delete_rule(&mut self, id: RuleId) -> Result<(), ControlError> {
        self.sql.execute("DELETE FROM rules WHERE id = $1", &[id.0.into()])?;
        Ok(())
    }

    /// The rules of a cache that is about to be deleted with them.
    pub(super) fn rules_of_cache(&mut self, cache: CacheId) -> Result<Vec<RuleId>, ControlError> {
        let select = "SELECT id FROM rules WHERE cache_id = $1";
        let rows = self.sql.rows(select, &[cache.get().into()])?;
        rows.iter().map(|row| Ok(RuleId(row.natural(0)?))).collect()
    }
}
