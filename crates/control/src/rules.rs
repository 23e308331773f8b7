//! What operators may ask of rules for addresses, and what is refused until they insist.
//!
//! Rules are tools for emergencies, made in a hurry; those of the service that Larder is modelled on cut
//! off its own customers. So every rule has an end and a reason, a wide one and one that would cut off
//! connections need `force`, and whom it would cut off can be asked before.

use tenancy::rules::{Network, Rule, RuleChange, RuleId, Ruling};
use wire::control::rules::Cut;

use crate::error::ControlError;
use crate::model::{Cache, CacheName, CacheRef, ClusterId, UnixSeconds};

/// How long a rule for a whole cluster lasts at most: an hour. Who still needs it then makes it anew,
/// and so has thought of it again.
pub const CLUSTER_RULE_SECONDS_MAX: u64 = 60 * 60;
/// How long a rule for one cache lasts at most: a year. It may say where a cache is used from.
pub const CACHE_RULE_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;
/// How long a rule lasts when nobody says.
pub const RULE_SECONDS: u64 = 60 * 60;
/// A sentence.
pub const REASON_BYTES_MAX: usize = 200;

/// What someone wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleWish {
    pub(crate) scope: Scope,
    pub(crate) network: Network,
    pub(crate) ruling: Ruling,
    pub(crate) reason: String,
    pub(crate) seconds: u64,
}

/// Whose connections a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every connection to the cluster.
    Cluster(ClusterId),
    /// Those of one cache.
    Cache(CacheRef),
}

/// A rule with what people know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptRule {
    pub(crate) rule: Rule,
    pub(crate) cluster: ClusterId,
    /// The name of its cache.
    pub(crate) cache: Option<CacheName>,
    pub(crate) reason: String,
    pub(crate) made_by: String,
    pub(crate) made_at: UnixSeconds,
}

/// Whom a change would cut off, as far as nodes have answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Preview {
    pub(crate) cut: Cut,
    /// How many nodes have answered.
    pub(crate) nodes: usize,
    /// Those that have not: away, deaf, or too old to know rules.
    pub(crate) silent: Vec<String>,
}

/// Why a wish is none that could be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidRule {
    #[error("a rule lasts 1 to {max} seconds here")]
    Life { max: u64 },
    #[error("a reason has 1 to {REASON_BYTES_MAX} bytes, in one line")]
    Reason,
}

impl RuleWish {
    pub(crate) fn check(&self) -> Result<(), InvalidRule> {
        let max = match self.scope {
            Scope::Cluster(_) => CLUSTER_RULE_SECONDS_MAX,
            Scope::Cache(_) => CACHE_RULE_SECONDS_MAX,
        };
        if !(1..=max).contains(&self.seconds) {
            return Err(InvalidRule::Life { max });
        }
        let reason = self.reason.as_str();
        if reason.is_empty() || REASON_BYTES_MAX < reason.len() || reason.contains(char::is_control)
        {
            return Err(InvalidRule::Reason);
        }
        Ok(())
    }

    /// The change that it would be, for whoever asks what it would do.
    pub(crate) fn change(&self, cache: Option<&Cache>, now: UnixSeconds) -> RuleChange {
        RuleChange::Put(Rule {
            // No rule has this number; the one for the same network, if any, gives way all the same.
            id: RuleId(0),
            cache: cache.map(|cache| cache.id),
            network: self.network,
            ruling: self.ruling,
            expires_at: now.0.saturating_add(self.seconds),
        })
    }

    /// Refuses what nobody may mean, knowing what it would do.
    pub(crate) fn dare(&self, preview: &Preview) -> Result<(), ControlError> {
        if self.ruling == Ruling::Block && self.network.is_wide() {
            return Err(ControlError::RuleTooWide { network: self.network });
        }
        let Cut { connections, caches, .. } = &preview.cut;
        if 0 < *connections {
            let (connections, caches) = (*connections, caches.len());
            return Err(ControlError::RuleCuts { connections, caches });
        }
        Ok(())
    }
}

impl KeptRule {
    /// What the audit log says of it.
    pub(crate) fn said(&self) -> String {
        let KeptRule { rule, reason, .. } = self;
        format!("{} {} until {}: {reason}", rule.ruling.name(), rule.network, rule.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(network: &str, scope: Scope) -> RuleWish {
        RuleWish {
            scope,
            network: Network::parse(network).expect("a network"),
            ruling: Ruling::Block,
            reason: "a flood".to_owned(),
            seconds: RULE_SECONDS,
        }
    }

    fn all() -> Scope {
        Scope::Cluster(ClusterId::DEFAULT)
    }

    #[test]
    fn a_rule_has_an_end_and_a_reason() {
        let good = wish("192.0.2.1", all());
        assert_eq!(good.check(), Ok(()));
        let shop = Scope::Cache(CacheRef::parse("shop").expect("a name"));
        let day = 24 * 60 * 60;
        for (scope, seconds, fits) in [
            (all(), 0, false),
            (all(), CLUSTER_RULE_SECONDS_MAX + 1, false),
            (shop.clone(), 30 * day, true),
            (shop, CACHE_RULE_SECONDS_MAX + 1, false),
        ] {
            let wish = RuleWish { scope, seconds, ..good.clone() };
            assert_eq!(wish.check().is_ok(), fits, "{wish:?}");
        }
        for wrong in ["", "two\nlines", &"x".repeat(REASON_BYTES_MAX + 1)] {
            let wish = RuleWish { reason: wrong.to_owned(), ..good.clone() };
            assert_eq!(wish.check(), Err(InvalidRule::Reason), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_wide_or_cuts_somebody_off_needs_insistence() {
        let nobody = Preview::default();
        let mut somebody = Preview::default();
        somebody.cut.connections = 1;
        assert!(wish("192.0.2.1", all()).dare(&nobody).is_ok());
        let refused = wish("192.0.2.1", all()).dare(&somebody);
        assert!(matches!(refused, Err(ControlError::RuleCuts { connections: 1, .. })));
        let refused = wish("0.0.0.0/0", all()).dare(&nobody);
        assert!(matches!(refused, Err(ControlError::RuleTooWide { .. })));
        let allow = RuleWish { ruling: Ruling::Allow, ..wish("0.0.0.0/0", all()) };
        assert!(allow.dare(&nobody).is_ok());
    }
}
