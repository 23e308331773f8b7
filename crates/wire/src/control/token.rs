//! What a node needs to join a cluster: one line of text, made by the control plane.
//!
//! ```text
//!   larder1_ base64url( expires at u64 │ nonce 8 │ authority 32 │ name (short string, or empty) │ mac 16 )
//! ```
//!
//! It says which authority the control plane must show, so the very first connection is already
//! checked; until when it is good; and for which node, when it is for one only. The mac is the control
//! plane's own: nothing need be remembered of a token, and none can be made up.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::name::NodeName;
use crate::codec::{CodecError, Reader, put_short_str, put_u64};

const PREFIX: &str = "larder1_";
/// Bytes of the mac: 128 bits, more than anyone can guess over a network within an hour.
pub const MAC_BYTES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Unix time in seconds.
    pub expires_at: u64,
    /// Makes no two tokens alike.
    pub nonce: [u8; 8],
    /// SHA-256 of the authority's certificate (DER).
    pub authority: [u8; 32],
    /// The one node that may join with it; `None` for any that is not there yet.
    pub node: Option<NodeName>,
    pub mac: [u8; MAC_BYTES],
}

impl JoinToken {
    /// The bytes that the mac is made of: everything before it.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, self.expires_at);
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.authority);
        put_short_str(&mut bytes, self.node.as_ref().map_or("", NodeName::as_str));
        bytes
    }

    pub fn to_text(&self) -> String {
        let bytes = [self.signed_bytes(), self.mac.to_vec()].concat();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(InvalidToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidToken)?;
        JoinToken::decode(&bytes).map_err(|_| InvalidToken)
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let (expires_at, nonce, authority) = (reader.u64()?, reader.array()?, reader.array()?);
        let node = match reader.short_str("node name")? {
            "" => None,
            name => {
                Some(NodeName::parse(name).map_err(|_| CodecError::Invalid { what: "node name" })?)
            }
        };
        let mac = reader.array()?;
        reader.end()?;
        Ok(JoinToken { expires_at, nonce, authority, node, mac })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token; `larder node token` prints one")]
pub struct InvalidToken;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn a_token_comes_back_from_its_text(
            expires_at: u64, nonce: [u8; 8], authority: [u8; 32], mac: [u8; 16],
            name in proptest::option::of("[a-z][a-z0-9]{0,39}"),
        ) {
            let node = name.map(|name| NodeName::parse(&name).expect("plain"));
            let token = JoinToken { expires_at, nonce, authority, node, mac };
            let text = token.to_text();
            assert!(text.len() <= crate::codec::SHORT_STR_BYTES_MAX);
            assert_eq!(JoinToken::parse(&format!(" {text}\n")), Ok(token));
        }

        #[test]
        fn any_text_has_an_answer(text in any::<String>()) {
            assert!(JoinToken::parse(&text).is_err());
            assert!(JoinToken::parse(&format!("{PREFIX}{text}")).is_err());
        }
    }
}
