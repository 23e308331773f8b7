//! The members of a cluster: backends by name, each with a weight.

use std::fmt;
use std::sync::Arc;

use crate::slot::SLOTS;

/// The most backends one cluster may have: the most for which Maglev's table of [`SLOTS`] keeps
/// their shares within 1 % of one another (Maglev, NSDI 2016, section 5.3: at least 100 entries
/// per member).
pub const MEMBERS_MAX: usize = 655;
const _: () = assert!(MEMBERS_MAX * 100 <= SLOTS as usize);
// A table stores members as a u16.
const _: () = assert!(MEMBERS_MAX <= u16::MAX as usize);

/// Longest name in bytes: that of a DNS label, so that a name can be one.
pub const MEMBER_NAME_BYTES_MAX: usize = 63;

/// The stable logical name of a backend, such as `node-3.backend-1`: 1 to
/// [`MEMBER_NAME_BYTES_MAX`] ASCII lower-case letters, digits, `-`, `_` or `.`.
///
/// It names a *place* in the cluster, not a machine: a machine that takes over the name takes over
/// its slots.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberName(Arc<str>);

impl MemberName {
    pub fn parse(name: &str) -> Result<Self, InvalidMemberName> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > MEMBER_NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(InvalidMemberName);
        }
        Ok(MemberName(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberName({self})")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a member's name is 1 to {MEMBER_NAME_BYTES_MAX} lower-case letters, digits, '-', '_' or '.'"
)]
pub struct InvalidMemberName;

/// Which run of a node: 64 random bits, drawn when its process starts. A node that comes back under
/// its name but with another incarnation has lost its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(u64);

impl Incarnation {
    pub const fn new(random: u64) -> Self {
        Incarnation(random)
    }

    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How much a member should own, relative to the others: its memory in MiB. Only proportions
/// matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// A member that is there but owns nothing: drained, or not yet let in.
    pub const NOTHING: Weight = Weight(0);

    pub const fn new(weight: u32) -> Self {
        Weight(weight)
    }

    /// The weight of a backend with this much memory for items: whole MiB, at least 1, at most
    /// `u32::MAX` (4 PiB).
    pub fn of_memory_bytes(bytes: u64) -> Self {
        Weight(u32::try_from(bytes >> 20).unwrap_or(u32::MAX).max(1))
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One backend of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: MemberName,
    pub weight: Weight,
}

/// The checked members of one cluster, ordered by name.
///
/// Invariant: 1 to [`MEMBERS_MAX`] members, no name twice, at least one with a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members(Vec<Member>);

impl Members {
    /// Takes members in any order.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Result<Self, InvalidMembers> {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(twice) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(InvalidMembers::Twice { name: twice[0].name.clone() });
        }
        if members.len() > MEMBERS_MAX {
            return Err(InvalidMembers::TooMany { count: members.len() });
        }
        if members.iter().all(|member| member.weight == Weight::NOTHING) {
            return Err(InvalidMembers::NoOwner);
        }
        Ok(Members(members))
    }

    pub fn as_slice(&self) -> &[Member] {
        &self.0
    }

    pub fn get(&self, name: &MemberName) -> Option<&Member> {
        let at = self.0.binary_search_by(|member| member.name.cmp(name)).ok()?;
        Some(&self.0[at])
    }

    /// These members, with `member` added, or changed if its name is there already.
    pub fn with(&self, member: Member) -> Result<Self, InvalidMembers> {
        let others = self.0.iter().filter(|other| other.name != member.name).cloned();
        Members::new(others.chain([member.clone()]))
    }

    /// These members without the one of that name.
    pub fn without(&self, name: &MemberName) -> Result<Self, InvalidMembers> {
        Members::new(self.0.iter().filter(|member| member.name != *name).cloned())
    }
}

/// Why a list of members cannot be a cluster's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMembers {
    #[error("member {name} is listed twice")]
    Twice { name: MemberName },
    #[error("{count} members are more than {MEMBERS_MAX}")]
    TooMany { count: usize },
    #[error("no member is left that could own a slot")]
    NoOwner,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_apart_from_addresses_and_spelling() {
        for good in ["a", "node-3.backend-1", "n1_b0", &"x".repeat(63)] {
            assert_eq!(MemberName::parse(good).expect("a good name").as_str(), good);
        }
        for bad in ["", "A", "a b", "a/b", "10.0.0.1:11211", "ü", &"x".repeat(64)] {
            assert_eq!(MemberName::parse(bad), Err(InvalidMemberName), "{bad:?}");
        }
    }

    #[test]
    fn weight_is_memory_in_mebibytes_and_never_nothing() {
        assert_eq!(Weight::of_memory_bytes(4 << 30).get(), 4_096);
        assert_eq!(Weight::of_memory_bytes(1).get(), 1);
        assert_eq!(Weight::of_memory_bytes(u64::MAX).get(), u32::MAX);
    }

    #[test]
    fn members_are_ordered_by_name() {
        let members = Members::new([member("b", 1), member("c", 2), member("a", 3)]);
        let members = members.expect("three good members");
        let names: Vec<_> = members.as_slice().iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(members.get(&member("c", 0).name), Some(&member("c", 2)));
        assert_eq!(members.get(&member("d", 0).name), None);
    }

    #[test]
    fn a_list_that_cannot_own_every_slot_once_is_refused() {
        let twice = InvalidMembers::Twice { name: member("a", 1).name };
        assert_eq!(Members::new([member("a", 1), member("a", 2)]), Err(twice));
        assert_eq!(Members::new([]), Err(InvalidMembers::NoOwner));
        assert_eq!(Members::new([member("a", 0)]), Err(InvalidMembers::NoOwner));
        let many = (0..=MEMBERS_MAX).map(|number| member(&number.to_string(), 1));
        assert_eq!(Members::new(many), Err(InvalidMembers::TooMany { count: MEMBERS_MAX + 1 }));
    }

    fn member(name: &str, weight: u32) -> Member {
        let name = MemberName::parse(name).expect("a good name");
        Member { name, weight: Weight::new(weight) }
    }
}
