//! The nodes whose proxies have links to a backend now: a sign of life that does not depend on control.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wire::control::name::NodeName;

/// Shared by all links to one backend.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<BTreeMap<NodeName, usize>>);

/// One link of a node, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Caller {
    of: Arc<Callers>,
    node: NodeName,
}

impl Callers {
    /// Counts a link.
    pub(crate) fn note(self: &Arc<Self>, node: &NodeName) -> Caller {
        *self.lock().entry(node.clone()).or_default() += 1;
        Caller { of: Arc::clone(self), node: node.clone() }
    }

    pub(crate) fn has(&self, node: &NodeName) -> bool {
        self.lock().contains_key(node)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let mut callers = self.of.lock();
        if let Some(links) = callers.get_mut(&self.node) {
            *links -= 1;
            if *links == 0 {
                callers.remove(&self.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_calls_for_as_long_as_one_of_its_links_lives() {
        let callers = Arc::<Callers>::default();
        let node = NodeName::parse("node-1").expect("a good name");
        let first = callers.note(&node);
        let second = callers.note(&node);
        drop(first);
        assert!(callers.has(&node));
        drop(second);
        assert!(!callers.has(&node));
    }
}
