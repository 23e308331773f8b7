//! What a change of members means for slots: which move, from whom, to whom.
//!
//! Decides, does nothing. Whoever carries a plan out hands the slots of each [`Move`] over, group by
//! group, and publishes maps as it goes; asking again from the table reached so far gives the moves
//! that are still missing.

use crate::member::{InvalidMembers, Member, MemberName, Members, Weight};
use crate::scheme::Scheme;
use crate::table::{Move, Table};

/// What an operator wants of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new member takes its share from all others.
    Join(Member),
    /// A member gives all it has to the others and stays, owning nothing.
    Drain(MemberName),
    /// A member is gone. After a drain nothing moves; without one, what it held is lost, and its
    /// slots begin empty with their new owners.
    Remove(MemberName),
    /// Another machine takes a member's name, and with it its slots: no slot changes its owner, and
    /// what the old machine holds goes to the new one alone.
    Replace(MemberName),
    /// A member shall own more or less, as when its memory changed.
    Reweight { name: MemberName, weight: Weight },
    /// The same members, by another rule: how a cluster leaves the ring.
    Scheme(Scheme),
}

/// A change, worked out.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub scheme: Scheme,
    /// The members once all is done.
    pub members: Members,
    /// The table once all is done.
    pub table: Table,
    /// What must be handed over, ascending by giver and taker.
    pub moves: Vec<Move>,
    /// The part of all slots that would move if only those did that must, 0 to 1.
    pub share_moved_min: f64,
}

impl Plan {
    /// The part of all slots that moves, 0 to 1.
    pub fn share_moved(&self) -> f64 {
        self.moves.iter().map(Move::share).sum()
    }
}

/// Works out what `change` means for a cluster with these members that owns its slots by `table`.
///
/// `table` is what *is*, so a cluster whose last change was left half-way is planned from there.
pub fn plan(
    scheme: Scheme,
    members: &Members,
    table: &Table,
    change: &Change,
) -> Result<Plan, PlanError> {
    let (scheme, members) = after(scheme, members, change)?;
    let target = scheme.place(&members);
    let moves = table.moves_to(&target);
    let share_moved_min = share_gained(table, &target);
    Ok(Plan { scheme, members, table: target, moves, share_moved_min })
}

fn after(
    scheme: Scheme,
    members: &Members,
    change: &Change,
) -> Result<(Scheme, Members), PlanError> {
    let known = |name: &MemberName| {
        members.get(name).cloned().ok_or_else(|| PlanError::NoSuchMember { name: name.clone() })
    };
    let members = match change {
        Change::Join(member) if members.get(&member.name).is_some() => {
            return Err(PlanError::AlreadyMember { name: member.name.clone() });
        }
        Change::Join(member) => members.with(member.clone())?,
        Change::Drain(name) => members.with(Member { weight: Weight::NOTHING, ..known(name)? })?,
        Change::Remove(name) => members.without(&known(name)?.name)?,
        Change::Replace(name) => members.with(known(name)?)?,
        Change::Reweight { name, weight } => {
            members.with(Member { weight: *weight, ..known(name)? })?
        }
        Change::Scheme(scheme) => return Ok((*scheme, members.clone())),
    };
    Ok((scheme, members))
}

/// What those who own more than before have more: the least that must move between the two tables'
/// shares.
fn share_gained(before: &Table, after: &Table) -> f64 {
    let had = before.shares();
    let gained = |(name, has): (&MemberName, f64)| {
        let had = before.index_of(name).map_or(0.0, |member| had[member.index()]);
        (has - had).max(0.0)
    };
    after.names().iter().zip(after.shares()).map(gained).sum()
}

/// Why a change cannot be planned. The operator asked for it; nothing has happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("the cluster has no member {name}")]
    NoSuchMember { name: MemberName },
    #[error("the cluster has a member {name} already")]
    AlreadyMember { name: MemberName },
    #[error("the cluster would not be left with members it can have")]
    Members(#[from] InvalidMembers),
}
