//! Random frames of the binary dialect.

use crate::differential::command::{Command, Effect, OTHER, Piece};
use crate::differential::keys::{self, KeyId, PREFIX_BYTES, any_key, suffix, value};
use crate::differential::random::Random;
use crate::differential::times;

/// A frame that leaves the connection in step. `opaque` comes back in its answer.
pub fn command(random: &mut Random, opaque: u32) -> Command {
    let key = any_key(random);
    match random.below(32) {
        // get, getq, getk, getkq
        0..6 => frame(opaque, one_of(random, &[0x00, 0x09, 0x0c, 0x0d]), &[], Some(key), &[], None)
            .with(Effect::Reads),
        // set, add, replace and their quiet forms
        6..13 => {
            let mut extras = four(random, FLAGS);
            extras.extend(times::binary(random).to_be_bytes());
            let opcode = one_of(random, &[0x01, 0x02, 0x03, 0x11, 0x12, 0x13]);
            let cas = maybe_cas(random, key);
            frame(opaque, opcode, &extras, Some(key), &value(random), cas)
        }
        // append, prepend and their quiet forms
        13..17 => {
            let opcode = one_of(random, &[0x0e, 0x0f, 0x19, 0x1a]);
            let cas = maybe_cas(random, key);
            frame(opaque, opcode, &[], Some(key), &value(random), cas)
        }
        // delete, deleteq
        17..20 => {
            let cas = maybe_cas(random, key);
            frame(opaque, one_of(random, &[0x04, 0x14]), &[], Some(key), &[], cas)
        }
        // increment, decrement and their quiet forms
        20..25 => {
            let mut extras = number(random).to_be_bytes().to_vec();
            extras.extend(number(random).to_be_bytes());
            // What older versions make of a missing number is not always one.
            let exptimes: &[u32] =
                if random.newest() { &[0, 0, 100, u32::MAX, u32::MAX] } else { &[u32::MAX] };
            extras.extend(four(random, exptimes));
            let cas = if random.once_in(4) { maybe_cas(random, key) } else { None };
            let opcode = one_of(random, &[0x05, 0x06, 0x15, 0x16]);
            frame(opaque, opcode, &extras, Some(key), &[], cas).with(Effect::Counts)
        }
        // touch, gat, gatq, gatk, gatkq
        25..29 => {
            let extras = times::binary(random).to_be_bytes();
            let opcode = one_of(random, &[0x1c, 0x1d, 0x1e, 0x23, 0x24]);
            frame(opaque, opcode, &extras, Some(key), &[], None).with(Effect::Reads)
        }
        // noop, version
        29 => frame(opaque, one_of(random, &[0x0a, 0x0b]), &[], None, &[], None),
        // flush, flushq
        30 if random.once_in(4) => match times::flush_extras(random) {
            Some(extras) => frame(opaque, one_of(random, &[0x08, 0x18]), &extras, None, &[], None),
            None => unknown(random, opaque),
        },
        _ => unknown(random, opaque),
    }
}

/// A command that nobody knows. With a body memcached would close.
fn unknown(random: &mut Random, opaque: u32) -> Command {
    frame(opaque, one_of(random, &[0x1f, 0x40, 0x77, 0xff]), &[], None, &[], None)
}

/// A frame that is about no key of the sequence: `name` stands where a key would.
pub fn nameless(opaque: u32, opcode: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, opcode];
    bytes.extend((name.len() as u16).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(((name.len() + value.len()) as u32).to_be_bytes());
    bytes.extend(opaque.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(value);
    bytes
}

/// A noop, whose answer shows how far the quiet commands before it got.
pub fn noop(opaque: u32) -> Command {
    frame(opaque, 0x0a, &[], None, &[], None)
}

/// A frame whose lengths lie, or that ends the connection: nothing may follow.
pub fn last(random: &mut Random, opaque: u32) -> Command {
    // Not those of SASL, which memcached without passwords does not know.
    let opcode = [random.below(0x20), 0x23 + random.below(0x10)][random.below(2)] as u8;
    if random.once_in(3) {
        return frame(opaque, one_of(random, &[0x07, 0x17]), &[], None, &[], None);
    }
    let body = value(random);
    let mut header = vec![0x80, opcode];
    // Of a command that nobody knows memcached checks the length of the key first.
    let key_bytes_end = if opcode <= KNOWN_MAX { 260 } else { 251 };
    header.extend((random.below(key_bytes_end) as u16).to_be_bytes());
    header.push(one_of(random, &[0, 0, 4, 8, 20, 255]));
    header.push(0);
    header.extend([0, 0]);
    header.extend((body.len() as u32).to_be_bytes());
    header.extend(opaque.to_be_bytes());
    header.extend([0; 8]);
    header.extend(body);
    Command::raw(header)
}

/// The last opcode that means something (GATKQ).
const KNOWN_MAX: u8 = 0x24;

const FLAGS: &[u32] = &[0, 0, 1, 65_536, u32::MAX];

fn one_of(random: &mut Random, among: &[u8]) -> u8 {
    among[random.below(among.len())]
}

fn four(random: &mut Random, among: &[u32]) -> Vec<u8> {
    among[random.below(among.len())].to_be_bytes().to_vec()
}

fn number(random: &mut Random) -> u64 {
    let text = String::from_utf8_lossy(keys::number(random)).into_owned();
    text.trim().parse().unwrap_or(1)
}

fn maybe_cas(random: &mut Random, key: KeyId) -> Option<Piece> {
    random.once_in(3).then(|| Piece::CasBinary(key, if random.once_in(4) { OTHER } else { 0 }))
}

fn frame(
    opaque: u32,
    opcode: u8,
    extras: &[u8],
    key: Option<KeyId>,
    value: &[u8],
    cas: Option<Piece>,
) -> Command {
    let key_bytes = key.map_or(0, |key| PREFIX_BYTES + suffix(key).len());
    let body_bytes = extras.len() + key_bytes + value.len();
    let mut command = Command::default();
    command.push([0x80, opcode]);
    command.push((key_bytes as u16).to_be_bytes());
    command.push([extras.len() as u8, 0, 0, 0]);
    command.push((body_bytes as u32).to_be_bytes());
    command.push(opaque.to_be_bytes());
    match cas {
        Some(cas) => command.pieces.push(cas),
        None => command.push([0; 8]),
    }
    command.push(extras);
    if let Some(key) = key {
        command.key(key);
    }
    command.push(value);
    command.key = key;
    command
}
