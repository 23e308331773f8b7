//! Which addresses may come in: rules that operators make for a while, for a cluster or for one cache.
//!
//! | asked when | rules that are looked at |
//! |---|---|
//! | a connection is accepted | those of the cluster |
//! | it authenticates, and while it is open | those of the cluster, and those of its cache |
//!
//! Within one of these sets the rule with the longest prefix that holds the address decides; where none
//! does, the address is let in. So `block 0.0.0.0/0` and `allow 10.0.0.0/8` together let in one network
//! only. The sets do not overrule each other: a client must pass both.
//!
//! Pure, and the same everywhere: proxies decide by it, and so does whoever asks beforehand
//! [whom a change would cut off](Rules::cut_by).

use core::net::IpAddr;
use std::collections::HashMap;
use std::fmt;

use ipnet::IpNet;

use crate::id::CacheId;

/// Rules that one cluster, or one cache, has at one time. An emergency has a handful; so few are walked
/// through faster than anything cleverer.
pub const RULES_PER_SCOPE_MAX: usize = 100;
/// Rules of a cluster and all its caches together.
pub const RULES_MAX: usize = 10_000;

/// Which rule. Numbers are never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u64);

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What becomes of an address that a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ruling {
    Allow,
    Block,
}

impl Ruling {
    pub const fn name(self) -> &'static str {
        match self {
            Ruling::Allow => "allow",
            Ruling::Block => "block",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        [Ruling::Allow, Ruling::Block].into_iter().find(|ruling| ruling.name() == name)
    }
}

/// Addresses that begin with the same bits: `203.0.113.0/24`, `2001:db8::/32`; a lone address is a
/// network of one.
///
/// Invariant: no bit is set behind the prefix, and an IPv4 network is said as one, so that a network
/// has one form only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpNet);

/// Bits before the IPv4 address in an IPv6 address that stands for one (RFC 4291, 2.5.5.2).
const MAPPED_BITS: u8 = 96;

impl Network {
    /// # Errors
    /// The prefix has more bits than such an address.
    pub fn new(address: IpAddr, prefix_bits: u8) -> Result<Self, InvalidNetwork> {
        let canonical = address.to_canonical();
        let prefix_bits = match (address, canonical) {
            (IpAddr::V6(_), IpAddr::V4(_)) => {
                prefix_bits.checked_sub(MAPPED_BITS).ok_or(InvalidNetwork)?
            }
            _ => prefix_bits,
        };
        let network = IpNet::new(canonical, prefix_bits).map_err(|_| InvalidNetwork)?;
        Ok(Network(network.trunc()))
    }

    pub fn parse(text: &str) -> Result<Self, InvalidNetwork> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Network(IpNet::from(address.to_canonical())));
        }
        let network: IpNet = text.parse().map_err(|_| InvalidNetwork)?;
        Network::new(network.addr(), network.prefix_len())
    }

    pub fn address(self) -> IpAddr {
        self.0.addr()
    }

    pub fn prefix_bits(self) -> u8 {
        self.0.prefix_len()
    }

    pub fn holds(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether it holds more addresses than anyone blocks who has thought about it: more than a /8 of
    /// IPv4, or than a /16 of IPv6.
    pub fn is_wide(self) -> bool {
        let least = if self.0.addr().is_ipv4() { 8 } else { 16 };
        self.prefix_bits() < least
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return self.0.addr().fmt(f);
        }
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network is an address such as 203.0.113.7 or 2001:db8::7, or one with a prefix: 203.0.113.0/24"
)]
pub struct InvalidNetwork;

/// One rule, as nodes know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub id: RuleId,
    /// `None`: for every connection to the cluster.
    pub cache: Option<CacheId>,
    pub network: Network,
    pub ruling: Ruling,
    /// Unix time in seconds from which on it holds nobody.
    pub expires_at: u64,
}

/// Connections that are open from one address for one cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// `None` before they have authenticated.
    pub cache: Option<CacheId>,
    pub address: IpAddr,
    pub connections: u32,
}

/// What someone is about to do to a set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleChange {
    /// Makes a rule, or puts it in the place of the one for the same network and cache.
    Put(Rule),
    Remove(RuleId),
}

/// All rules that one process knows.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    of_cluster: Vec<Rule>,
    of_caches: HashMap<CacheId, Vec<Rule>>,
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.of_cluster.is_empty() && self.of_caches.is_empty()
    }

    /// Makes a rule, or changes the one with this id; another one for the same network and cache ends.
    pub fn put(&mut self, rule: Rule) {
        self.remove(rule.id);
        let scope = match rule.cache {
            None => &mut self.of_cluster,
            Some(cache) => self.of_caches.entry(cache).or_default(),
        };
        scope.retain(|other| other.network != rule.network);
        scope.push(rule);
    }

    /// Does nothing when it is not there.
    pub fn remove(&mut self, id: RuleId) {
        self.of_cluster.retain(|rule| rule.id != id);
        self.of_caches.retain(|_, scope| {
            scope.retain(|rule| rule.id != id);
            !scope.is_empty()
        });
    }

    /// Whether a client at this address may be connected: to `cache`, or to anything if it has not
    /// authenticated. `now` is Unix time in seconds.
    pub fn admit(&self, address: IpAddr, cache: Option<CacheId>, now: u64) -> bool {
        let address = address.to_canonical();
        let of_cache = cache.and_then(|cache| self.of_caches.get(&cache));
        ruling(&self.of_cluster, address, now) == Ruling::Allow
            && of_cache.is_none_or(|rules| ruling(rules, address, now) == Ruling::Allow)
    }

    /// Those of these connections that are let in now, and would not be after the change.
    pub fn cut_by<'a>(
        &'a self,
        change: RuleChange,
        open: impl Iterator<Item = Open> + 'a,
        now: u64,
    ) -> impl Iterator<Item = Open> + 'a {
        let mut after = self.clone();
        match change {
            RuleChange::Put(rule) => after.put(rule),
            RuleChange::Remove(id) => after.remove(id),
        }
        open.filter(move |one| {
            let is_admitted = |rules: &Rules| rules.admit(one.address, one.cache, now);
            is_admitted(self) && !is_admitted(&after)
        })
    }
}

/// What one set of rules says of an address.
fn ruling(rules: &[Rule], address: IpAddr, now: u64) -> Ruling {
    let holding = rules.iter().filter(|rule| now < rule.expires_at && rule.network.holds(address));
    // Networks of one length that hold the same address are the same, and a network stands once.
    holding.max_by_key(|rule| rule.network.prefix_bits()).map_or(Ruling::Allow, |rule| rule.ruling)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;
    const SHOP: CacheId = CacheId::new(7);
    const BLOG: CacheId = CacheId::new(8);

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn network(text: &str) -> Network {
        Network::parse(text).expect("a network")
    }

    /// `block 10.0.0.0/8`, `allow 10.0.0.7 for 7 until 900`.
    fn rules(lines: &[&str]) -> Rules {
        let mut rules = Rules::default();
        for (id, line) in (1..).zip(lines) {
            rules.put(rule(id, line));
        }
        rules
    }

    fn rule(id: u64, line: &str) -> Rule {
        let words: Vec<&str> = line.split(' ').collect();
        let after = |word: &str| {
            let at = words.iter().position(|one| *one == word)?;
            words[at + 1].parse::<u64>().ok()
        };
        Rule {
            id: RuleId(id),
            cache: after("for").map(CacheId::new),
            network: network(words[1]),
            ruling: Ruling::named(words[0]).expect("allow or block"),
            expires_at: after("until").unwrap_or(NOW + 1),
        }
    }

    #[track_caller]
    fn check(lines: &[&str], from: &str, cache: Option<CacheId>, admitted: bool) {
        let found = rules(lines).admit(address(from), cache, NOW);
        assert_eq!(found, admitted, "{from} for {cache:?} under {lines:?}");
    }

    #[test]
    fn a_network_has_one_form() {
        for (text, said) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7/32", "203.0.113.7"),
            ("203.0.113.7/24", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7/120", "203.0.113.0/24"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(network(text).to_string(), said);
            assert_eq!(network(said), network(text));
        }
        let too_short = "::ffff:1.2.3.4/95";
        for wrong in
            ["", "10.0.0.0/33", "10.0.0/8", "host.example", "::/129", "1.2.3.4/x", too_short]
        {
            assert_eq!(Network::parse(wrong), Err(InvalidNetwork), "{wrong}");
        }
    }

    #[test]
    fn wide_is_what_nobody_means() {
        for (text, is_wide) in
            [("0.0.0.0/0", true), ("128.0.0.0/1", true), ("10.0.0.0/8", false), ("::/0", true)]
        {
            assert_eq!(network(text).is_wide(), is_wide, "{text}");
        }
    }

    #[test]
    fn the_longest_prefix_decides() {
        let only_ours = ["block 0.0.0.0/0", "allow 10.0.0.0/8", "block 10.0.0.7"];
        check(&only_ours, "10.0.0.1", None, true);
        check(&only_ours, "10.0.0.7", None, false);
        check(&only_ours, "192.0.2.1", None, false);
        check(&only_ours, "::ffff:192.0.2.1", None, false);
        check(&only_ours, "2001:db8::1", None, true);
        check(&[], "192.0.2.1", Some(SHOP), true);
    }

    #[test]
    fn a_cache_and_its_cluster_do_not_overrule_each_other() {
        let both = ["block 192.0.2.0/24", "allow 192.0.2.1 for 7", "block 198.51.100.1 for 7"];
        check(&both, "192.0.2.1", Some(SHOP), false);
        check(&both, "198.51.100.1", Some(SHOP), false);
        check(&both, "198.51.100.1", Some(BLOG), true);
        check(&both, "198.51.100.1", None, true);
    }

    #[test]
    fn a_rule_ends_by_itself() {
        check(&["block 192.0.2.1 until 1001"], "192.0.2.1", None, false);
        check(&["block 192.0.2.1 until 1000"], "192.0.2.1", None, true);
        check(&["block 192.0.2.0/24", "allow 192.0.2.1 until 1000"], "192.0.2.1", None, false);
    }

    #[test]
    fn a_rule_for_the_same_network_takes_the_others_place() {
        check(&["block 192.0.2.1", "allow 192.0.2.1"], "192.0.2.1", None, true);
        check(&["block 192.0.2.1", "allow 192.0.2.1 for 7"], "192.0.2.1", Some(SHOP), false);
        let mut rules = rules(&["block 192.0.2.1 for 7"]);
        rules.put(rule(1, "block 192.0.2.2 for 8"));
        assert!(rules.admit(address("192.0.2.1"), Some(SHOP), NOW), "its own former self");
        rules.remove(RuleId(1));
        assert!(rules.is_empty());
    }

    #[test]
    fn whom_a_change_cuts_off_is_known_before() {
        let rules = rules(&["block 192.0.2.0/24", "allow 192.0.2.1"]);
        let open = |cache, from: &str| Open { cache, address: address(from), connections: 2 };
        let all = [
            open(None, "192.0.2.1"),
            open(Some(SHOP), "198.51.100.1"),
            open(Some(BLOG), "198.51.100.1"),
        ];
        let cut = |change| -> Vec<Open> { rules.cut_by(change, all.into_iter(), NOW).collect() };
        let block = rule(9, "block 198.51.100.0/24 for 7");
        assert_eq!(cut(RuleChange::Put(block)), [all[1]]);
        assert_eq!(cut(RuleChange::Put(rule(9, "allow 198.51.100.0/24"))), []);
        assert_eq!(cut(RuleChange::Remove(RuleId(2))), [all[0]]);
        assert_eq!(cut(RuleChange::Remove(RuleId(1))), []);
    }
}
