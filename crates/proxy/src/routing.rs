//! Who is asked about a key: the cluster's view, and what backends have said since.
//!
//! A backend that has handed a slot over says to whom. That is newer than the view, so it is
//! remembered until the next view comes and every request is spared the hop.

use std::collections::HashMap;
use std::sync::Arc;

use cluster::slot::Slot;
use protocol::operation::Key;
use tenancy::id::CacheId;

use crate::outbox::Far;
use crate::view::{ClusterView, Place};

/// Who is asked about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A backend of this process. The slot is for its check of ownership; without a view there is
    /// none, and nothing to check.
    Here {
        backend: usize,
        slot: Option<Slot>,
    },
    There(Far),
}

impl Owner {
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        matches!(self, Owner::Here { .. })
    }
}

/// What one event loop routes by.
#[derive(Debug)]
pub(crate) struct Routing {
    view: Arc<ClusterView>,
    /// Slots whose owner is another than in the view: its place in the view's members.
    moved: HashMap<Slot, usize>,
    version: u64,
}

impl Routing {
    pub(crate) fn new(view: Arc<ClusterView>, version: u64) -> Self {
        Routing { view, moved: HashMap::new(), version }
    }

    pub(crate) fn view(&self) -> &Arc<ClusterView> {
        &self.view
    }

    /// Grows whenever a slot may have got another owner. Requests that were routed by different
    /// versions may meet different backends.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    #[inline]
    pub(crate) fn owner(&self, cache: CacheId, key: Key<'_>) -> Owner {
        let slot = self.view.slot(cache, key.bytes());
        let member = self.member_of(slot);
        match self.view.members()[member].place {
            Place::Here { backend } => Owner::Here { backend, slot: Some(slot) },
            Place::There { .. } | Place::Refused { .. } => {
                Owner::There(Far { member, slot: Some(slot) })
            }
        }
    }

    /// The owner of a slot, by its place in the view's members.
    #[inline]
    pub(crate) fn member_of(&self, slot: Slot) -> usize {
        if !self.moved.is_empty()
            && let Some(&member) = self.moved.get(&slot)
        {
            return member;
        }
        self.view.owner(slot)
    }

    /// A backend said who has the slot now.
    pub(crate) fn note_moved(&mut self, slot: Slot, member: usize) {
        if self.member_of(slot) != member {
            // At most as many as there are slots.
            self.moved.insert(slot, member);
            self.version += 1;
        }
    }

    /// Whether any owner is on another node.
    pub(crate) fn is_elsewhere_too(&self) -> bool {
        self.owners_elsewhere().next().is_some()
    }

    /// The owners on other nodes, each meant as a whole.
    pub(crate) fn owners_elsewhere(&self) -> impl Iterator<Item = Far> {
        self.view.owners().iter().enumerate().filter_map(|(member, owner)| match owner.place {
            Place::There { .. } | Place::Refused { .. } => Some(Far { member, slot: None }),
            Place::Here { .. } => None,
        })
    }
}
