//! One look at the bytes a connection has received.

use crate::command::Dialect;
use crate::key_room::KeyRoom;
use crate::request::{Decoded, Limits};
use crate::{binary, text};

/// Reads the first request in `buffer`.
///
/// Pure and incremental: given a longer buffer with the same beginning it finds the same request.
/// `buffer` may hold any number of requests; an empty one asks for more. `room` takes the keys
/// that are not in `buffer` as they are meant.
#[inline]
pub fn decode<'a>(
    dialect: Dialect,
    buffer: &'a [u8],
    limits: &Limits,
    room: &'a KeyRoom,
) -> Decoded<'a> {
    match dialect {
        Dialect::Text => text::decode(buffer, limits, room),
        Dialect::Binary => binary::decode(buffer, limits),
    }
}
