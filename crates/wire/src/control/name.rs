//! The names of clusters and nodes.

use std::fmt;
use std::sync::Arc;

use crate::codec::{CodecError, Reader, put_short_str};

/// Which installation: 128 random bits, drawn by the control plane at its first start. Keeps a node
/// of one cluster from taking another's state for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    pub const fn new(random: [u8; 16]) -> Self {
        ClusterId(random)
    }

    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:032x}", u128::from_be_bytes(self.0)))
    }
}

/// Longest name of a node in bytes. With `.b` and a number behind it, it is a member's name
/// ([`cluster::member::MEMBER_NAME_BYTES_MAX`]).
pub const NODE_NAME_BYTES_MAX: usize = 40;

/// What people call a node, and what its certificate says: 1 to [`NODE_NAME_BYTES_MAX`] lower-case
/// letters, digits and hyphens, beginning with a letter and ending without a hyphen, as a label in DNS.
///
/// It names a *place* in the cluster: a machine that joins under a name takes over its slots.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

impl NodeName {
    pub fn parse(name: &str) -> Result<Self, InvalidNodeName> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let fits = !name.is_empty() && name.len() <= NODE_NAME_BYTES_MAX;
        let framed = name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-');
        if fits && framed && name.bytes().all(plain) {
            Ok(NodeName(name.into()))
        } else {
            Err(InvalidNodeName)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_short_str(out, &self.0);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        NodeName::parse(reader.short_str("node name")?)
            .map_err(|_| CodecError::Invalid { what: "node name" })
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeName({self})")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a node's name is a lower-case letter and then up to {} letters, digits and hyphens, with no \
     hyphen at its end",
    NODE_NAME_BYTES_MAX - 1
)]
pub struct InvalidNodeName;

/// The name in the control plane's certificate. Nodes find control planes by address and know them
/// by this name under their cluster's own authority, so it need not be anywhere in DNS.
pub const CONTROL_CERTIFICATE_NAME: &str = "control.larder.internal";

const NODE_CERTIFICATE_SUFFIX: &str = ".node.larder.internal";

impl NodeName {
    /// The name in this node's certificate, as a DNS name.
    pub fn certificate_name(&self) -> String {
        format!("{self}{NODE_CERTIFICATE_SUFFIX}")
    }

    /// The node whose certificate has this DNS name.
    pub fn from_certificate_name(name: &str) -> Option<Self> {
        NodeName::parse(name.strip_suffix(NODE_CERTIFICATE_SUFFIX)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_can_stand_in_a_certificate() {
        for good in ["a", "node-1", "a7", &"x".repeat(NODE_NAME_BYTES_MAX)] {
            assert_eq!(NodeName::parse(good).expect("a good name").as_str(), good);
        }
        let long = "x".repeat(NODE_NAME_BYTES_MAX + 1);
        for bad in ["", "7", "-a", "a-", "A", "a.b", "a_b", "ü", "a b", &long] {
            assert_eq!(NodeName::parse(bad), Err(InvalidNodeName), "{bad:?}");
        }
    }
}
