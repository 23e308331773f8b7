//! The clients' connections of one event loop, as the links see them.

use std::collections::VecDeque;

use protocol::operation::Key;
use slab::Slab;
use wire::data::reply::Outcome;

use crate::answers::Failure;
use crate::connection::Connection;
use crate::link::BackendLink;
use crate::links::{Asker, Sink};

/// The clients' connections, and which of them want a turn.
pub(crate) struct Clients<L: BackendLink> {
    pub(crate) connections: Slab<Connection<L>>,
    /// Connections that have more to do although the kernel will not say so again. None is in it
    /// twice.
    pub(crate) again: VecDeque<usize>,
}

impl<L: BackendLink> Clients<L> {
    pub(crate) fn new() -> Self {
        Clients { connections: Slab::new(), again: VecDeque::new() }
    }

    pub(crate) fn queue(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.is_queued
        {
            connection.is_queued = true;
            self.again.push_back(key);
        }
    }

    /// Whoever asked, if it is still there.
    fn asker(&mut self, asker: &Asker) -> Option<&mut Connection<L>> {
        let connection = self.connections.get_mut(asker.connection)?;
        (connection.serial() == asker.serial).then_some(connection)
    }
}

impl<L: BackendLink> Sink for Clients<L> {
    fn answered(
        &mut self,
        asker: &Asker,
        was_held_to: bool,
        key: Option<Key<'_>>,
        result: &Result<Outcome<'_>, Failure>,
    ) {
        if let Some(connection) = self.asker(asker) {
            connection.answered(asker.number, was_held_to, key, result);
            self.queue(asker.connection);
        }
    }

    fn hold(&mut self, asker: &Asker) {
        if let Some(connection) = self.asker(asker) {
            connection.note_resent();
        }
    }

    fn may_repeat(&mut self, asker: &Asker) -> bool {
        self.asker(asker).is_some_and(Connection::may_repeat)
    }
}
