//! Random commands of the meta dialect.

use crate::differential::command::{Command, Effect, OTHER, Piece};
use crate::differential::keys::{BINARY, FLAGS, KeyId, LONGEST, any_key, number, text_key, value};
use crate::differential::random::Random;
use crate::differential::{text, times};

/// A command that leaves the connection in step with its client. Now and then one of the text dialect,
/// for both are spoken on one connection.
pub fn command(random: &mut Random) -> Command {
    match random.below(40) {
        0..12 => get(random),
        12..22 => set(random),
        22..27 => delete(random),
        27..33 => arithmetic(random),
        33 => Command::raw("mn\r\n"),
        34 if random.newest() => debug(random),
        35 | 36 => wrong(random),
        _ => text::command(random),
    }
}

/// A command after which the stream means something else to the server than to its client.
pub fn broken(random: &mut Random) -> Command {
    if random.once_in(3) {
        return text::broken(random);
    }
    let bytes = value(random);
    let claimed = random
        .pick(&[
            (bytes.len() + 1).to_string().as_str(),
            bytes.len().saturating_sub(1).to_string().as_str(),
            "x",
            "-1",
            "4294967296",
            "",
        ])
        .to_owned();
    let mut command = Command::raw("ms ");
    command.key(text_key(random));
    command.push(format!(" {claimed}{}\r\n", random.pick(&["", " q", " c", " S5", " MZ", " b"])));
    command.push(bytes);
    command.push("\r\n");
    command
}

/// The key, as it is or as base64 with the flag that says so.
fn key(random: &mut Random, command: &mut Command, at: KeyId, encoded: bool) {
    command.push(" ");
    if encoded {
        command.pieces.push(Piece::KeyBase64(at));
    } else {
        command.key(at);
    }
    // Two spaces in a row separate as well as one.
    if random.once_in(60) {
        command.push(" ");
    }
}

fn choose_key(random: &mut Random) -> (KeyId, bool) {
    if !random.once_in(4) {
        return (text_key(random), false);
    }
    let key = any_key(random);
    // Older versions measure a key before they decode it.
    let fits = key != LONGEST || random.newest();
    (if fits { key } else { 0 }, true)
}

/// Adds some of `among`, sometimes one twice, and the flags that keep an answer tied to its request.
fn flags(random: &mut Random, command: &mut Command, among: &[&str], at: KeyId, encoded: bool) {
    if encoded {
        command.push(" b");
    }
    // Older versions say other words to a flag of a delete that comes twice, and do not know some.
    let deletes = matches!(&command.pieces[0], Piece::Bytes(bytes) if bytes.starts_with(b"md"));
    let once = deletes && !random.newest();
    let mut chosen: Vec<&str> = Vec::new();
    for _ in 0..random.below(6) {
        let flag = random.pick(among);
        // A key of any bytes memcached may tell as it is, once its item has been made anew.
        if at == BINARY && *flag == *"k" {
            continue;
        }
        let twice = chosen.iter().any(|before| before[..1] == flag[..1]);
        let unknown = !random.newest() && UNKNOWN_TO_OLDER.contains(&flag);
        if !(unknown || twice && once) {
            chosen.push(flag);
        }
    }
    // In memcached each of these sees what those before it did. In Larder a recache is decided by the
    // old time, and the new one is told.
    chosen.sort_by_key(|flag| match *flag {
        "R" => 0,
        "t" => 2,
        _ => 1,
    });
    for flag in chosen {
        one_flag(random, command, flag, at);
    }
}

/// A flag with its token, if it has one.
fn one_flag(random: &mut Random, command: &mut Command, flag: &str, at: KeyId) {
    match flag {
        "T" | "N" => {
            command.push(format!(" {flag}"));
            times::ahead(random, command);
        }
        "TE" => {
            command.push(" T");
            times::any(random, command);
        }
        "R" => command.push(format!(" R{}", random.pick(&["0", "30", "200", "-1"]))),
        "F" => command.push(format!(" F{}", random.pick(FLAGS))),
        "E" => command.push(format!(" E{}", random.pick(OWN_TOKENS))),
        "O" => command.push(format!(" O{}", random.pick(&["x", "123", "opaque-of-a-client", "0"]))),
        "C" => {
            command.push(" C");
            if random.once_in(4) {
                command.push(random.pick(OWN_TOKENS));
            } else {
                command.pieces.push(Piece::CasText(at, if random.once_in(4) { OTHER } else { 0 }));
            }
        }
        "M" => mode(random, command, &["S", "A", "R", "E", "P", "s", "append"]),
        "MA" => mode(random, command, &["I", "D", "i", "d", "+", "-", "incr"]),
        "J" => {
            command.push(" J");
            command.push(number(random));
        }
        "D" => {
            command.push(" D");
            command.push(number(random));
        }
        flag => command.push(format!(" {flag}")),
    }
}

/// The last of the modes is a word that only newer versions know.
fn mode(random: &mut Random, command: &mut Command, among: &[&str]) {
    let known = if random.newest() { among.len() } else { among.len() - 1 };
    command.push(format!(" M{}", among[random.below(known)]));
}

/// `E` of every command, `x` of a delete; `s` of a store is not answered.
const UNKNOWN_TO_OLDER: [&str; 3] = ["E", "x", "s"];

/// Tokens that clients choose, far from those that a server makes, so that the two can be told apart.
const OWN_TOKENS: &[&str] = &["9000000000000000001", "9000000000000000002", "9000000000000000003"];

fn get(random: &mut Random) -> Command {
    let (at, encoded) = choose_key(random);
    let mut command = Command::raw("mg").with(Effect::Reads);
    key(random, &mut command, at, encoded);
    // What memcached vivifies by an encoded key it would name with the key's bare bytes.
    let vivify = if encoded { "s" } else { "N" };
    // A token is learned from an answer that names its key.
    if at != BINARY {
        command.push(random.pick(&["", "", " c k", " c k"]));
    }
    flags(
        random,
        &mut command,
        &["v", "v", "v", "f", "s", "c", "k", "t", "h", "l", "O", "q", vivify, "R", "T", "E"],
        at,
        encoded,
    );
    command.push("\r\n");
    command
}

fn set(random: &mut Random) -> Command {
    let (at, encoded) = choose_key(random);
    let bytes = value(random);
    let mut command = Command::raw("ms");
    key(random, &mut command, at, encoded);
    // Older versions do not compare the token of what is stale or vivified.
    let (vivify, invalidate) = if random.newest() { ("N", "I") } else { ("k", "k") };
    command.push(format!(" {}", bytes.len()));
    flags(
        random,
        &mut command,
        &["F", "TE", "M", "M", "C", "E", invalidate, "O", "k", "c", "q", vivify, "s"],
        at,
        encoded,
    );
    command.push("\r\n");
    command.push(bytes);
    command.push("\r\n");
    command
}

fn delete(random: &mut Random) -> Command {
    let (at, encoded) = choose_key(random);
    let mut command = Command::raw("md");
    key(random, &mut command, at, encoded);
    flags(random, &mut command, &["C", "E", "I", "I", "T", "O", "k", "q", "x"], at, encoded);
    command.push("\r\n");
    command
}

fn arithmetic(random: &mut Random) -> Command {
    let (at, encoded) = choose_key(random);
    let mut command = Command::raw("ma").with(Effect::Counts);
    key(random, &mut command, at, encoded);
    let vivify = if encoded { "v" } else { "N" };
    // Older versions are not quiet when they make a counter, and do not always compare its token.
    let (quiet, compare) = if random.newest() { ("q", "C") } else { ("k", "k") };
    // A new time or token memcached forgets when a number gets longer, so they come where it does not.
    let (mode, time, token) = if random.once_in(3) {
        command.push(" MD");
        ("v", "T", "E")
    } else {
        ("MA", "MA", "MA")
    };
    flags(
        random,
        &mut command,
        &[mode, time, token, "D", "J", vivify, vivify, compare, "O", "k", "c", "t", "v", quiet],
        at,
        encoded,
    );
    command.push("\r\n");
    command
}

fn debug(random: &mut Random) -> Command {
    let mut command = Command::raw("me");
    let at = text_key(random);
    key(random, &mut command, at, false);
    command.push("\r\n");
    command
}

/// A line that is no right command, and brings no data block with it.
fn wrong(random: &mut Random) -> Command {
    let newer = random.newest() && random.once_in(2);
    let among = if newer { WRONG_IN_NEWER_WORDS } else { WRONG };
    let (before, after) = among[random.below(among.len())];
    // Some are carried out all the same, such as a get with an empty opaque.
    let effect = match before {
        "mg " => Effect::Reads,
        "ma " => Effect::Counts,
        _ => Effect::Other,
    };
    let mut command = Command::raw(before).with(effect);
    if before.ends_with(' ') {
        command.key(text_key(random));
    }
    command.push(after);
    command.push("\r\n");
    command
}

/// What comes before a key, if one is wanted, and after it.
const WRONG: &[(&str, &str)] = &[
    ("mg ", " v v"),
    ("mg ", " Tx"),
    ("mg ", " T"),
    ("mg ", " N"),
    ("mg ", " Rx"),
    ("mg ", " O"),
    ("mg ", " S"),
    ("mg ", " b"),
    ("mg bad=== b v", ""),
    // Of nobody's key, because memcached counts this as a read before it refuses.
    ("mg nobody O123456789012345678901234567890123", ""),
    ("mg ", " v 1"),
    ("ma ", " Dx"),
    ("ma ", " D-1"),
    ("ma ", " Jx N0"),
    ("ma ", " MX"),
    ("mn ", ""),
    ("me", ""),
    ("mx ", ""),
];

/// What memcached 1.6.45 says to these differs from what its older versions say.
const WRONG_IN_NEWER_WORDS: &[(&str, &str)] = &[
    ("mg", ""),
    ("mg ", " !"),
    ("md", ""),
    ("md ", " Cx"),
    ("md ", " C"),
    ("md ", " q q"),
    ("md ", " Z"),
    ("ma", ""),
    ("ma ", " M"),
    ("ms", ""),
    ("me ", " v"),
    ("m", ""),
];
