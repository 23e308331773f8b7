//! Random commands of the text dialect: mostly right, some at a boundary, some broken.

use crate::differential::command::{Command, Effect, OTHER, Piece};
use crate::differential::keys::{FLAGS, LONGEST, VALUE_BYTES_SMALL, number, text_key, value};
use crate::differential::random::{Random, Sizes};
use crate::differential::times;

/// A command that leaves the connection in step with its client.
pub fn command(random: &mut Random) -> Command {
    match random.below(40) {
        0..6 => get(random),
        6..12 => store(random, &["set", "add", "replace"]),
        12..16 => store(random, &["append", "prepend"]),
        16..20 => cas(random),
        20..26 => count(random),
        26..28 => touch(random),
        28..31 => get_and_touch(random),
        31..34 => delete(random),
        34 => Command::raw(format!("version{}", ending(random))),
        // Older versions then do not answer an `mn`.
        35 if random.newest() => {
            Command::raw(format!("verbosity {}\r\n", random.pick(&["0", "0 noreply", "noreply"])))
        }
        36 if random.once_in(4) => flush(random).unwrap_or_else(|| wrong(random)),
        _ => wrong(random),
    }
}

/// A command after which the stream means something else to the server than to its client.
pub fn broken(random: &mut Random) -> Command {
    if random.newest() && random.once_in(3) {
        let line = random.pick(WRONG_TO_NEWEST);
        return spelled(random, line);
    }
    let mut command = Command::default();
    let bytes = value(random);
    let claimed = match random.below(4) {
        0 => bytes.len() + 1 + random.below(10),
        1 => bytes.len().saturating_sub(1 + random.below(10)),
        2 => bytes.len() + 2,
        _ => bytes.len(),
    };
    command.push(random.pick(&["set ", "add ", "append ", "cas "]));
    command.key(text_key(random));
    command.push(format!(" 0 0 {claimed}{}\r\n", random.pick(&["", "", " noreply", " 5"])));
    command.push(bytes);
    command.push(random.pick(&["\r\n", "\r\n", "\n", "\r", "x\r\n", ""]));
    command
}

/// Ends the connection, so nothing may follow.
pub fn last(random: &mut Random) -> Command {
    // memcached throws away its answers when its client leaves within a value, so that is rare; else
    // empty lines fill up whatever value the server may be waiting for.
    if random.once_in(10) {
        return Command::raw(random.pick(&["get", "set a 0 0 10\r\nabc", ""]));
    }
    let filling = "\r\n".repeat(VALUE_BYTES_SMALL / 2 + 10);
    let last = random.pick(&["quit\r\n", "quit x\r\n", "quit noreply\r\n", "get", ""]);
    Command::raw(format!("{filling}{last}"))
}

fn ending(random: &mut Random) -> &'static str {
    random.pick(&["\r\n", "\r\n", "\r\n", "\r\n", "\n", " \r\n"])
}

fn noreply(random: &mut Random) -> &'static str {
    random.pick(&["", "", "", "", "", " noreply"])
}

fn get(random: &mut Random) -> Command {
    let mut command = Command::raw(random.pick(&["get", "gets", "gets"])).with(Effect::Reads);
    keys(random, &mut command);
    if random.sizes == Sizes::Any && random.once_in(100) {
        for _ in 0..random.below(800) {
            command.push(" nobodys-");
            command.push("k".repeat(random.below(240)));
        }
        keys(random, &mut command);
    }
    command.push(ending(random));
    command
}

fn keys(random: &mut Random, command: &mut Command) {
    // More than 24 words is where memcached's splitting of a line begins anew. From 2,048 bytes on it
    // depends on how a line was split what memcached says to one that is neither `get` nor `gets`.
    let many = random.once_in(20);
    let count = if many { 20 + random.below(40) } else { 1 + random.below(4) };
    for _ in 0..count {
        command.push(random.pick(&[" ", " ", " ", "  "]));
        let key = text_key(random);
        command.key(if many { key % LONGEST } else { key });
    }
}

fn store(random: &mut Random, names: &[&str]) -> Command {
    let mut command = Command::raw(format!("{} ", random.pick(names)));
    command.key(text_key(random));
    let bytes = value(random);
    command.push(format!(" {} ", random.pick(FLAGS)));
    times::any(random, &mut command);
    command.push(format!(" {}{}\r\n", bytes.len(), noreply(random)));
    command.push(bytes);
    command.push("\r\n");
    command
}

fn cas(random: &mut Random) -> Command {
    let key = text_key(random);
    let mut command = Command::raw("cas ");
    command.key(key);
    let bytes = value(random);
    command.push(format!(" {} ", random.pick(FLAGS)));
    times::any(random, &mut command);
    command.push(format!(" {} ", bytes.len()));
    command.pieces.push(Piece::CasText(key, if random.once_in(4) { OTHER } else { 0 }));
    command.push(noreply(random));
    command.push("\r\n");
    command.push(bytes);
    command.push("\r\n");
    command
}

fn count(random: &mut Random) -> Command {
    let mut command = Command::raw(random.pick(&["incr ", "decr "])).with(Effect::Counts);
    command.key(text_key(random));
    command.push(" ");
    command.push(number(random));
    command.push(noreply(random));
    command.push(ending(random));
    command
}

fn touch(random: &mut Random) -> Command {
    let mut command = Command::raw("touch ");
    command.key(text_key(random));
    command.push(" ");
    times::any(random, &mut command);
    command.push(format!("{}{}", noreply(random), ending(random)));
    command
}

fn get_and_touch(random: &mut Random) -> Command {
    let mut command = Command::raw(random.pick(&["gat ", "gats "])).with(Effect::Reads);
    times::any(random, &mut command);
    keys(random, &mut command);
    command.push(ending(random));
    command
}

fn delete(random: &mut Random) -> Command {
    let mut command = Command::raw("delete ");
    command.key(text_key(random));
    // To another word the newest memcached says nothing, so that it fails libmemcached's judge, which
    // Larder and older versions do not.
    let after: &[&str] = if random.newest() {
        &["", "", "", " noreply", " 0", " 0 noreply"]
    } else {
        &["", "", "", " noreply", " 0", " 0 noreply", " 1", " x"]
    };
    command.push(random.pick(after));
    command.push(ending(random));
    command
}

fn flush(random: &mut Random) -> Option<Command> {
    let words = times::flush_words(random)?;
    Some(Command::raw(format!("flush_all{words}\r\n")))
}

/// A line that is no right command, and brings no data block with it.
fn wrong(random: &mut Random) -> Command {
    let newer = random.newest() && random.once_in(2);
    let line = random.pick(if newer { WRONG_IN_NEWER_WORDS } else { WRONG });
    spelled(random, line)
}

fn spelled(random: &mut Random, line: &str) -> Command {
    // Some are carried out all the same.
    let effect = match line.get(..3) {
        Some("inc" | "dec") => Effect::Counts,
        Some("get" | "gat") => Effect::Reads,
        _ => Effect::Other,
    };
    let mut command = Command::default().with(effect);
    for part in line.split_inclusive('K') {
        match part.strip_suffix('K') {
            Some(before) => {
                command.push(before);
                command.key(text_key(random));
            }
            None => command.push(part),
        }
    }
    command.push(random.pick(&["\r\n", "\r\n", "\r\n", "\n"]));
    command
}

/// `K` stands for a key.
const WRONG: &[&str] = &[
    "foo",
    "foo K",
    "GET K",
    "Set K 0 0 1",
    "getK",
    "get\tK",
    "set K 0 0 x",
    "set K 0 0 -1",
    "set K 0 0 1x",
    "incr K x",
    "incr K -1",
    "decr K 1x",
    "touch K x",
    "gat x K",
    "version x",
    "mn x",
    "gat 0 K x",
    "set K 0 0 99999999999999999999",
    "incr K 1 2",
    "decr K noreply",
    "touch K 0 0",
    "verbosity x",
    " flush_all x",
    "flush_all x noreply",
    "me",
    "me missing",
    "incr KK 1",
    "touch KK 0",
    "delete KKK",
];

/// What memcached 1.6.45 says to these differs from what its older versions say.
const WRONG_IN_NEWER_WORDS: &[&str] = &[
    "",
    " ",
    "get",
    "gets",
    "get ",
    " get K",
    "gat",
    "gat 0",
    "gats K",
    "set",
    "set K",
    "set K 0",
    "set K 0 0",
    "append K 0 0",
    "incr",
    "incr K",
    "decr K",
    "touch",
    "touch K",
    "delete",
    "delete noreply",
    "verbosity",
    "verbosity 0 0 0",
    " verbosity 0 0 0",
    "  verbosity",
    " version",
    " mn",
    " set K 0 0 1",
    "me K x",
];

/// After these the newest memcached throws away as many bytes as the value would have had; older ones
/// do not.
const WRONG_TO_NEWEST: &[&str] = &[
    "cas K 0 0 1",
    "set KK 0 0 1",
    "set K 0 0 0 noreply x",
    "cas K 0 0 1 -1",
    "cas K 0 0 1 x",
    "set K 0 0 4294967296",
    "set K x 0 1",
    "set K -1 0 1",
    "set K 0 x 1",
    "set K 0 99999999999999999999 1",
    "cas K x 0 1 1",
];
