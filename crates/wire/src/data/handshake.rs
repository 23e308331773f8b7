//! Who is at the other end of a link, and in which version the two will speak.
//!
//! The proxy says whom it wants; the backend says who it is. A proxy that was led to the wrong
//! machine (an old address, another cluster on the same port) is told so in words, before one
//! request went where it should not.
//!
//! These are frames of [`crate::frame`]: they must be readable by every version there will ever be,
//! so they say their version themselves, and what follows a known field may grow.

use cluster::digest::Digest;
use cluster::map::Epoch;
use cluster::member::{Incarnation, MemberName};

use crate::codec::{CodecError, Reader, put_short_str, put_u8, put_u64};
use crate::control::name::{ClusterId, NodeName};
use crate::frame::{self, FrameError};

/// The versions of the frames in [`crate::data`] that this program speaks.
pub const VERSION_MIN: u8 = 1;
pub const VERSION_MAX: u8 = crate::data::many::VERSION;

/// The version of the handshake itself.
const HANDSHAKE_VERSION: u8 = 1;

/// Longest handshake: three names and some numbers, with as much again for what later versions add.
pub const HANDSHAKE_BYTES_MAX: usize = 512;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSED: u8 = 3;

/// What a proxy says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The versions it speaks, both ends included.
    pub version_min: u8,
    pub version_max: u8,
    pub cluster: ClusterId,
    /// [`cluster::slot::SlotHasher::fingerprint`]: whether both find the same slot for a key.
    pub slot_fingerprint: u64,
    /// The node that calls.
    pub from: NodeName,
    /// The member it wants to reach, and the run of it that its map names.
    pub to: MemberName,
    pub to_incarnation: Incarnation,
    /// Its newest committed map.
    pub epoch: Epoch,
    pub digest: Digest,
    /// Which run of its node it is; `None` where its version does not say it.
    pub from_incarnation: Option<Incarnation>,
}

/// What a backend says to a proxy that is right here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// In which both go on.
    pub version: u8,
    /// The backend's newest committed map. Of two with one epoch and two digests, one is wrong:
    /// someone must be told.
    pub epoch: Epoch,
    pub digest: Digest,
    /// The newest epoch that the backend was told of, in force or only prepared, in which the caller's
    /// node is no member; 0 when it is one in all of them. `None` where its version does not say it.
    pub without_caller: Option<Epoch>,
}

/// Why a backend will not speak with a proxy. It closes the link after saying so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it speaks versions {min} to {max} only")]
    Version { min: u8, max: u8 },
    #[error("it belongs to another cluster")]
    Cluster,
    #[error("it finds other slots for the same keys")]
    SlotKey,
    #[error("no member of that name is here, but {here}")]
    Member { here: MemberName },
    #[error("the member runs as {here} now")]
    Incarnation { here: Incarnation },
    #[error("the caller's certificate is not the one of the node it says it is")]
    Certificate,
    #[error("it has all the links it takes")]
    Full,
    #[error("it is about to stop")]
    Draining,
}

/// What a backend says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    Welcome(Welcome),
    Refused(Refused),
}

/// Why a handshake cannot be understood. Close the link; nothing was asked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("no frame of ours")]
    Frame(#[from] FrameError),
    #[error("a handshake of version {version}, which is unknown")]
    Version { version: u8 },
    #[error("another message where the handshake should be")]
    Kind { kind: u8 },
    #[error("a handshake that cannot be")]
    Content(#[from] CodecError),
}

/// A message and the bytes it took; `None` when more bytes are needed.
pub type Read<T> = Result<Option<(T, usize)>, HandshakeError>;

impl Hello {
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::write(out, HANDSHAKE_VERSION, HELLO, |out| {
            put_u8(out, self.version_min);
            put_u8(out, self.version_max);
            out.extend_from_slice(self.cluster.bytes());
            put_u64(out, self.slot_fingerprint);
            put_short_str(out, self.from.as_str());
            put_short_str(out, self.to.as_str());
            put_u64(out, self.to_incarnation.get());
            put_u64(out, self.epoch.get());
            out.extend_from_slice(self.digest.as_bytes());
            put_later(out, self.from_incarnation.map(Incarnation::get));
        });
    }

    pub fn decode(input: &[u8]) -> Read<Self> {
        read(input, |kind, mut reader| {
            if kind != HELLO {
                return Err(HandshakeError::Kind { kind });
            }
            Ok(Hello {
                version_min: reader.u8()?,
                version_max: reader.u8()?,
                cluster: ClusterId::new(reader.array()?),
                slot_fingerprint: reader.u64()?,
                from: NodeName::parse(reader.short_str("node's name")?)
                    .map_err(|_| CodecError::Invalid { what: "node's name" })?,
                to: member(&mut reader)?,
                to_incarnation: Incarnation::new(reader.u64()?),
                epoch: Epoch::new(reader.u64()?),
                digest: Digest::new(reader.array()?),
                from_incarnation: later(&mut reader)?.map(Incarnation::new),
            })
        })
    }

    /// The newest version that both speak.
    pub fn version(&self) -> Option<u8> {
        let version = self.version_max.min(VERSION_MAX);
        (self.version_min.max(VERSION_MIN) <= version).then_some(version)
    }
}

impl Greeting {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Greeting::Welcome(welcome) => frame::write(out, HANDSHAKE_VERSION, WELCOME, |out| {
                put_u8(out, welcome.version);
                put_u64(out, welcome.epoch.get());
                out.extend_from_slice(welcome.digest.as_bytes());
                put_later(out, welcome.without_caller.map(Epoch::get));
            }),
            Greeting::Refused(refused) => {
                frame::write(out, HANDSHAKE_VERSION, REFUSED, |out| refused.encode(out));
            }
        }
    }

    pub fn decode(input: &[u8]) -> Read<Self> {
        read(input, |kind, mut reader| match kind {
            WELCOME => Ok(Greeting::Welcome(Welcome {
                version: reader.u8()?,
                epoch: Epoch::new(reader.u64()?),
                digest: Digest::new(reader.array()?),
                without_caller: later(&mut reader)?.map(Epoch::new),
            })),
            REFUSED => Ok(Greeting::Refused(Refused::decode(&mut reader)?)),
            _ => Err(HandshakeError::Kind { kind }),
        })
    }
}

impl Refused {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Refused::Version { min, max } => out.extend_from_slice(&[1, *min, *max]),
            Refused::Cluster => put_u8(out, 2),
            Refused::SlotKey => put_u8(out, 3),
            Refused::Member { here } => {
                put_u8(out, 4);
                put_short_str(out, here.as_str());
            }
            Refused::Incarnation { here } => {
                put_u8(out, 5);
                put_u64(out, here.get());
            }
            Refused::Certificate => put_u8(out, 6),
            Refused::Full => put_u8(out, 7),
            Refused::Draining => put_u8(out, 8),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(match reader.u8()? {
            1 => Refused::Version { min: reader.u8()?, max: reader.u8()? },
            2 => Refused::Cluster,
            3 => Refused::SlotKey,
            4 => Refused::Member { here: member(reader)? },
            5 => Refused::Incarnation { here: Incarnation::new(reader.u64()?) },
            6 => Refused::Certificate,
            7 => Refused::Full,
            8 => Refused::Draining,
            _ => return Err(CodecError::Invalid { what: "reason" }),
        })
    }
}

/// Reads one message; whatever follows its known fields belongs to a later version.
fn read<T>(
    input: &[u8],
    message: impl FnOnce(u8, Reader<'_>) -> Result<T, HandshakeError>,
) -> Read<T> {
    match frame::decode(input, HANDSHAKE_BYTES_MAX)? {
        frame::Decoded::NeedMore { .. } => Ok(None),
        frame::Decoded::Frame { frame, consumed } => {
            if frame.version != HANDSHAKE_VERSION {
                return Err(HandshakeError::Version { version: frame.version });
            }
            Ok(Some((message(frame.kind, Reader::new(frame.body))?, consumed)))
        }
    }
}

/// A number that versions before it leave out.
fn put_later(out: &mut Vec<u8>, number: Option<u64>) {
    if let Some(number) = number {
        put_u64(out, number);
    }
}

fn later(reader: &mut Reader<'_>) -> Result<Option<u64>, CodecError> {
    if reader.is_empty() { Ok(None) } else { reader.u64().map(Some) }
}

fn member(reader: &mut Reader<'_>) -> Result<MemberName, CodecError> {
    MemberName::parse(reader.short_str("member's name")?)
        .map_err(|_| CodecError::Invalid { what: "member's name" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn hello() -> Hello {
        Hello {
            version_min: 1,
            version_max: 3,
            cluster: ClusterId::new([7; 16]),
            slot_fingerprint: 8,
            from: NodeName::parse("node-1").expect("a good name"),
            to: MemberName::parse("node-2.b0").expect("a good name"),
            to_incarnation: Incarnation::new(9),
            epoch: Epoch::new(10),
            digest: Digest::new([11; 32]),
            from_incarnation: Some(Incarnation::new(12)),
        }
    }

    fn greetings() -> Vec<Greeting> {
        let here = MemberName::parse("node-3.b0").expect("a good name");
        let digest = Digest::new([3; 32]);
        let without_caller = Some(Epoch::new(4));
        let welcome = Welcome { version: 1, epoch: Epoch::new(2), digest, without_caller };
        let refused = [
            Refused::Version { min: 2, max: 4 },
            Refused::Cluster,
            Refused::SlotKey,
            Refused::Member { here },
            Refused::Incarnation { here: Incarnation::new(5) },
            Refused::Certificate,
            Refused::Full,
            Refused::Draining,
        ];
        let mut greetings = vec![Greeting::Welcome(welcome)];
        greetings.extend(refused.map(Greeting::Refused));
        greetings
    }

    #[test]
    fn what_is_said_is_heard_once_it_is_whole() {
        let mut bytes = Vec::new();
        hello().encode(&mut bytes);
        assert_eq!(Hello::decode(&bytes), Ok(Some((hello(), bytes.len()))));
        for cut in 0..bytes.len() {
            assert_eq!(Hello::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        for greeting in greetings() {
            let mut bytes = Vec::new();
            greeting.encode(&mut bytes);
            assert_eq!(Greeting::decode(&bytes), Ok(Some((greeting, bytes.len()))));
        }
    }

    #[test]
    fn a_later_version_may_add_fields() {
        let mut bytes = Vec::new();
        hello().encode(&mut bytes);
        bytes.push(99);
        let body = u32::try_from(bytes.len() - 4).expect("short");
        bytes[..4].copy_from_slice(&body.to_le_bytes());
        assert_eq!(Hello::decode(&bytes), Ok(Some((hello(), bytes.len()))));
    }

    #[test]
    fn what_an_earlier_version_does_not_say_is_not_known() {
        let mut bytes = Vec::new();
        let hello = Hello { from_incarnation: None, ..hello() };
        hello.encode(&mut bytes);
        assert_eq!(Hello::decode(&bytes), Ok(Some((hello, bytes.len()))));
        let digest = Digest::new([3; 32]);
        let welcome = Welcome { version: 1, epoch: Epoch::new(2), digest, without_caller: None };
        bytes.clear();
        Greeting::Welcome(welcome).encode(&mut bytes);
        let said = Ok(Some((Greeting::Welcome(welcome), bytes.len())));
        assert_eq!(Greeting::decode(&bytes), said);
    }

    #[test]
    fn both_go_on_in_the_newest_version_that_both_speak() {
        let check = |version_min, version_max, expected| {
            assert_eq!(Hello { version_min, version_max, ..hello() }.version(), expected);
        };
        check(VERSION_MIN, VERSION_MAX, Some(VERSION_MAX));
        check(VERSION_MIN, VERSION_MAX + 1, Some(VERSION_MAX));
        check(VERSION_MAX + 1, VERSION_MAX + 2, None);
        check(0, VERSION_MIN - 1, None);
        check(9, 1, None);
    }

    #[test]
    fn the_longest_handshake_fits() {
        let mut bytes = Vec::new();
        let long = NodeName::parse(&"x".repeat(40)).expect("a good name");
        let to = MemberName::parse(&"y".repeat(63)).expect("a good name");
        Hello { from: long, to, ..hello() }.encode(&mut bytes);
        assert!(bytes.len() * 2 < HANDSHAKE_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes: Vec<u8>) {
            drop(Hello::decode(&bytes));
            drop(Greeting::decode(&bytes));
        }

        #[test]
        fn a_damaged_hello_does_no_harm(at in any::<proptest::sample::Index>(), bits in 1..=255u8) {
            let mut bytes = Vec::new();
            hello().encode(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            if let Ok(Some((read, consumed))) = Hello::decode(&bytes) {
                prop_assert_eq!(consumed, bytes.len());
                assert_ne!(read, hello());
            }
        }
    }
}
