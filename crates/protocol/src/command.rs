//! The table of commands of all dialects, and how a command is found in it.
//!
//! Lookup, capability checks, names for metrics and the list of transcripts are read from here, so
//! none of them can forget a command.

use crate::operation::{Direction, StoreMode};

/// One way of saying one thing: a row of [`COMMANDS`].
#[derive(Debug)]
pub struct CommandSpec {
    /// Unique in the table. Text and meta commands as they are written on the wire; binary ones
    /// with `bin_` before the name of their opcode.
    pub name: &'static str,
    pub wire: Wire,
    /// What the plain form needs. A request may need more ([`crate::request::Request::needs`]): an
    /// `mg` that touches is a write.
    pub needs: Needs,
    /// Whether a value follows the command.
    pub has_value: bool,
    /// Whether a session that has not authenticated may send it.
    pub before_authentication: bool,
    /// Place in the table, for arrays of counters.
    pub index: usize,
    pub(crate) grammar: Grammar,
}

/// How a command is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Text,
    Meta,
    Binary {
        opcode: u8,
        /// Says nothing when all went well; a get says nothing on a miss.
        quiet: bool,
        /// Repeats the key in its answer.
        with_key: bool,
    },
}

/// What a request asks of a credential's capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Allowed for any authenticated session.
    Nothing,
    Read,
    Write,
    Flush,
}

/// How the words (or the frame) after the command are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grammar {
    /// `<key>*`; the flag is whether items are answered with their CAS value.
    Get {
        with_cas: bool,
    },
    /// `<exptime> <key>*`.
    GetAndTouch {
        with_cas: bool,
    },
    /// `<key> <flags> <exptime> <bytes>`.
    Store(StoreMode),
    /// `<key> <flags> <exptime> <bytes> <cas>`.
    CompareAndStore,
    Arithmetic(Direction),
    Delete,
    Touch,
    Flush,
    Stats,
    Version,
    Verbosity,
    Noop,
    Quit,
    MetaGet,
    MetaSet,
    MetaDelete,
    MetaArithmetic,
    MetaDebug,
    SaslList,
    SaslStart,
    SaslStep,
    NotOffered,
}

/// Which of the two framings a connection speaks; meta lines are part of [`Dialect::Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Text,
    Binary,
}

impl Dialect {
    /// A connection speaks the binary dialect if its first byte is the magic of a binary request.
    #[inline]
    pub fn detect(first_byte: u8) -> Dialect {
        if first_byte == BINARY_REQUEST_MAGIC { Dialect::Binary } else { Dialect::Text }
    }
}

/// First byte of every binary request (memcached `doc/protocol-binary.txt`, "Magic Byte").
pub const BINARY_REQUEST_MAGIC: u8 = 0x80;

const fn text(name: &'static str, needs: Needs, grammar: Grammar) -> CommandSpec {
    row(name, Wire::Text, needs, grammar)
}

const fn meta(name: &'static str, needs: Needs, grammar: Grammar) -> CommandSpec {
    row(name, Wire::Meta, needs, grammar)
}

const fn binary(
    opcode: u8,
    name: &'static str,
    quiet: Quiet,
    needs: Needs,
    grammar: Grammar,
) -> CommandSpec {
    row(
        name,
        Wire::Binary { opcode, quiet: matches!(quiet, Quiet::Yes), with_key: false },
        needs,
        grammar,
    )
}

#[derive(Clone, Copy)]
enum Quiet {
    No,
    Yes,
}

const fn row(name: &'static str, wire: Wire, needs: Needs, grammar: Grammar) -> CommandSpec {
    let has_value = matches!(
        grammar,
        Grammar::Store(_)
            | Grammar::CompareAndStore
            | Grammar::MetaSet
            | Grammar::SaslStart
            | Grammar::SaslStep
    );
    CommandSpec { name, wire, needs, has_value, before_authentication: false, index: 0, grammar }
}

/// How many rows [`COMMANDS`] has.
pub const COMMANDS_LEN: usize = 71;

/// Every command of every dialect.
pub static COMMANDS: [CommandSpec; COMMANDS_LEN] = numbered({
    use Direction::{Decrement, Increment};
    use Grammar as G;
    use Needs::{Flush, Nothing, Read, Write};
    use Quiet::{No, Yes};
    use StoreMode::{Add, Append, Prepend, Replace, Set};
    [
        // Text, by frequency of use.
        text("get", Read, G::Get { with_cas: false }),
        text("gets", Read, G::Get { with_cas: true }),
        text("set", Write, G::Store(Set)).before_authentication(),
        text("add", Write, G::Store(Add)),
        text("replace", Write, G::Store(Replace)),
        text("append", Write, G::Store(Append)),
        text("prepend", Write, G::Store(Prepend)),
        text("cas", Write, G::CompareAndStore),
        text("delete", Write, G::Delete),
        text("incr", Write, G::Arithmetic(Increment)),
        text("decr", Write, G::Arithmetic(Decrement)),
        text("touch", Write, G::Touch),
        text("gat", Write, G::GetAndTouch { with_cas: false }),
        text("gats", Write, G::GetAndTouch { with_cas: true }),
        text("flush_all", Flush, G::Flush),
        text("stats", Read, G::Stats),
        text("version", Nothing, G::Version),
        text("verbosity", Nothing, G::Verbosity),
        text("quit", Nothing, G::Quit).before_authentication(),
        // Meta.
        meta("mg", Read, G::MetaGet),
        meta("ms", Write, G::MetaSet),
        meta("md", Write, G::MetaDelete),
        meta("ma", Write, G::MetaArithmetic),
        meta("me", Read, G::MetaDebug),
        meta("mn", Nothing, G::Noop),
        // Text that administers a whole memcached process.
        text("slabs", Nothing, G::NotOffered),
        text("lru", Nothing, G::NotOffered),
        text("lru_crawler", Nothing, G::NotOffered),
        text("watch", Nothing, G::NotOffered),
        text("cache_memlimit", Nothing, G::NotOffered),
        text("extstore", Nothing, G::NotOffered),
        text("misbehave", Nothing, G::NotOffered),
        text("debugtime", Nothing, G::NotOffered),
        text("shutdown", Nothing, G::NotOffered),
        text("refresh_certs", Nothing, G::NotOffered),
        // Binary.
        binary(0x00, "bin_get", No, Read, G::Get { with_cas: true }),
        binary(0x01, "bin_set", No, Write, G::Store(Set)),
        binary(0x02, "bin_add", No, Write, G::Store(Add)),
        binary(0x03, "bin_replace", No, Write, G::Store(Replace)),
        binary(0x04, "bin_delete", No, Write, G::Delete),
        binary(0x05, "bin_increment", No, Write, G::Arithmetic(Increment)),
        binary(0x06, "bin_decrement", No, Write, G::Arithmetic(Decrement)),
        binary(0x07, "bin_quit", No, Nothing, G::Quit).before_authentication(),
        binary(0x08, "bin_flush", No, Flush, G::Flush),
        binary(0x09, "bin_getq", Yes, Read, G::Get { with_cas: true }),
        binary(0x0a, "bin_noop", No, Nothing, G::Noop),
        binary(0x0b, "bin_version", No, Nothing, G::Version).before_authentication(),
        binary(0x0c, "bin_getk", No, Read, G::Get { with_cas: true }).with_key(),
        binary(0x0d, "bin_getkq", Yes, Read, G::Get { with_cas: true }).with_key(),
        binary(0x0e, "bin_append", No, Write, G::Store(Append)),
        binary(0x0f, "bin_prepend", No, Write, G::Store(Prepend)),
        binary(0x10, "bin_stat", No, Read, G::Stats),
        binary(0x11, "bin_setq", Yes, Write, G::Store(Set)),
        binary(0x12, "bin_addq", Yes, Write, G::Store(Add)),
        binary(0x13, "bin_replaceq", Yes, Write, G::Store(Replace)),
        binary(0x14, "bin_deleteq", Yes, Write, G::Delete),
        binary(0x15, "bin_incrementq", Yes, Write, G::Arithmetic(Increment)),
        binary(0x16, "bin_decrementq", Yes, Write, G::Arithmetic(Decrement)),
        binary(0x17, "bin_quitq", Yes, Nothing, G::Quit).before_authentication(),
        binary(0x18, "bin_flushq", Yes, Flush, G::Flush),
        binary(0x19, "bin_appendq", Yes, Write, G::Store(Append)),
        binary(0x1a, "bin_prependq", Yes, Write, G::Store(Prepend)),
        binary(0x1b, "bin_verbosity", No, Nothing, G::Verbosity),
        binary(0x1c, "bin_touch", No, Write, G::Touch),
        binary(0x1d, "bin_gat", No, Write, G::GetAndTouch { with_cas: true }),
        binary(0x1e, "bin_gatq", Yes, Write, G::GetAndTouch { with_cas: true }),
        binary(0x20, "bin_sasl_list", No, Nothing, G::SaslList).before_authentication(),
        binary(0x21, "bin_sasl_start", No, Nothing, G::SaslStart).before_authentication(),
        binary(0x22, "bin_sasl_step", No, Nothing, G::SaslStep).before_authentication(),
        binary(0x23, "bin_gatk", No, Write, G::GetAndTouch { with_cas: true }).with_key(),
        binary(0x24, "bin_gatkq", Yes, Write, G::GetAndTouch { with_cas: true }).with_key(),
    ]
});

impl CommandSpec {
    const fn before_authentication(mut self) -> Self {
        self.before_authentication = true;
        self
    }

    const fn with_key(mut self) -> Self {
        if let Wire::Binary { with_key, .. } = &mut self.wire {
            *with_key = true;
        }
        self
    }
}

const fn numbered<const N: usize>(mut rows: [CommandSpec; N]) -> [CommandSpec; N] {
    let mut index = 0;
    while index < N {
        rows[index].index = index;
        index += 1;
    }
    rows
}

/// The row of a text or meta command, by its first word.
#[inline]
pub fn find_word(word: &[u8]) -> Option<&'static CommandSpec> {
    let (Some(&first), Some(&second), Some(&last)) = (word.first(), word.get(1), word.last())
    else {
        return None;
    };
    let slot = slot(SPREAD, pack(first, second, last, word.len()));
    let row = COMMANDS.get(usize::from(WORD_SLOTS[slot]))?;
    (row.name.as_bytes() == word).then_some(row)
}

/// The row of a binary command.
#[inline]
pub fn find_opcode(opcode: u8) -> Option<&'static CommandSpec> {
    COMMANDS.get(usize::from(OPCODE_SLOTS[usize::from(opcode)]))
}

/// The row with this name, for code that is about one command. Fails to compile if there is none.
pub(crate) const fn named(name: &str) -> &'static CommandSpec {
    let mut index = 0;
    while index < COMMANDS.len() {
        if equal(COMMANDS[index].name.as_bytes(), name.as_bytes()) {
            return &COMMANDS[index];
        }
        index += 1;
    }
    panic!("no row of that name")
}

const fn equal(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

// The lookups are arrays that the compiler fills from the table: opcodes index theirs directly;
// words are spread over theirs by a multiplier that the compiler searches until no two share a slot.

/// In a slot without a row. Past the end of the table, so that looking it up finds nothing.
const NO_ROW: u8 = u8::MAX;
const _: () = assert!(COMMANDS_LEN <= NO_ROW as usize);

const SLOT_BITS: u32 = 8;

/// What tells the words of the table apart (a clash would not compile).
const fn pack(first: u8, second: u8, last: u8, length: usize) -> u32 {
    u32::from_le_bytes([first, second, last, length as u8])
}

const fn slot(spread: u32, packed: u32) -> usize {
    (packed.wrapping_mul(spread) >> (u32::BITS - SLOT_BITS)) as usize
}

const SPREAD: u32 = {
    let mut spread = 0x9e37_79b1; // 2^32 / golden ratio: a good place to begin to search
    while word_slots(spread).is_none() {
        spread += 2;
    }
    spread
};

static WORD_SLOTS: [u8; 1 << SLOT_BITS] = word_slots(SPREAD).expect("searched until there were");

/// Where each word of the table goes under this multiplier; `None` if two would share a slot.
const fn word_slots(spread: u32) -> Option<[u8; 1 << SLOT_BITS]> {
    let mut slots = [NO_ROW; 1 << SLOT_BITS];
    let mut index = 0;
    while index < COMMANDS.len() {
        let name = COMMANDS[index].name.as_bytes();
        if !matches!(COMMANDS[index].wire, Wire::Binary { .. }) {
            let slot = slot(spread, pack(name[0], name[1], name[name.len() - 1], name.len()));
            if slots[slot] != NO_ROW {
                return None;
            }
            slots[slot] = index as u8;
        }
        index += 1;
    }
    Some(slots)
}

static OPCODE_SLOTS: [u8; 256] = {
    let mut slots = [NO_ROW; 256];
    let mut index = 0;
    while index < COMMANDS.len() {
        if let Wire::Binary { opcode, .. } = COMMANDS[index].wire {
            assert!(slots[opcode as usize] == NO_ROW, "two rows for one opcode");
            slots[opcode as usize] = index as u8;
        }
        index += 1;
    }
    slots
};

#[cfg(test)]
mod tests {
    use super::{COMMANDS, Wire, find_opcode, find_word};
    use std::collections::HashSet;

    #[test]
    fn every_row_is_found_by_what_is_on_the_wire() {
        for row in &COMMANDS {
            let found = match row.wire {
                Wire::Text | Wire::Meta => find_word(row.name.as_bytes()),
                Wire::Binary { opcode, .. } => find_opcode(opcode),
            };
            assert_eq!(found.map(|found| found.name), Some(row.name));
        }
    }

    #[test]
    fn names_and_places_are_unique() {
        let names: HashSet<_> = COMMANDS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), COMMANDS.len());
        assert!(COMMANDS.iter().enumerate().all(|(place, row)| row.index == place));
    }

    #[test]
    fn what_is_not_in_the_table_is_not_found() {
        for word in ["", "g", "GET", "gex", "get ", "bin_get", "flush_alx", "unknown"] {
            assert!(find_word(word.as_bytes()).is_none(), "{word:?}");
        }
        for opcode in [0x1f, 0x25, 0x30, 0x3c, 0xff] {
            assert!(find_opcode(opcode).is_none(), "{opcode:#x}");
        }
    }
}
