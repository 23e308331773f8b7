//! Random attempts to log in, with commands before, between and after them.
//!
//! Each server knows one user, and each another, so what they are told differs by that.

use crate::connection::Login;
use crate::differential::command::{Command, Piece};
use crate::differential::random::Random;
use crate::differential::{binary, text};

/// Who memcached and Larder let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins {
    pub memcached: Login,
    pub larder: Login,
}

impl Logins {
    /// What `of` makes of either login.
    fn each(&self, of: impl Fn(&Login) -> Vec<u8>) -> Command {
        let pieces = vec![Piece::Each([of(&self.memcached), of(&self.larder)])];
        Command { pieces, ..Command::default() }
    }
}

/// All that one text connection says: either it logs in and goes on, or it is refused once. Of several
/// refusals that it writes at once memcached drops the earlier ones.
pub fn in_text(random: &mut Random, logins: &Logins) -> Vec<Command> {
    let line = random.pick(&["set x 0 0", "set somebody 5 100", "set x  0 0", "set x flags never"]);
    if random.once_in(3) {
        return vec![refused(random, logins, line)];
    }
    let login = logins.each(|login| said(line, &pair(login)));
    let after = 1 + random.below(COMMANDS_MAX);
    std::iter::once(login).chain((0..after).map(|_| text::command(random))).collect()
}

/// After a login that is right.
const COMMANDS_MAX: usize = 12;

fn refused(random: &mut Random, logins: &Logins, line: &str) -> Command {
    // Older versions take a password with anything behind it.
    let wrong_logins = if random.newest() { 5 } else { 2 };
    let which = random.below(2 * wrong_logins);
    if wrong_logins <= which {
        return Command::raw(random.pick(STRANGERS_WORDS));
    }
    logins.each(|Login { username, password }| {
        let value = match which {
            0 => format!("{username} wrong"),
            1 => format!("nobody {password}"),
            2 => format!("{username} {password} "),
            3 => format!("{username}  {password}"),
            _ => format!("{username} {password}x"),
        };
        said(line, &value)
    })
}

/// None asks for silence, which memcached does not give a stranger.
const STRANGERS_WORDS: &[&str] = &[
    "version\r\n",
    "verbosity 0\r\n",
    "no-such-command\r\n",
    "flush_all\r\n",
    "stats\r\n",
    "mg nobody v\r\n",
    "ma nobody\r\n",
    "get nobody\r\n",
    "gets nobody and nobody\r\n",
    "gat 0 nobody\r\n",
    "touch nobody 0\r\n",
    "incr nobody 1\r\n",
];

fn pair(login: &Login) -> String {
    format!("{} {}", login.username, login.password)
}

fn said(line: &str, value: &str) -> Vec<u8> {
    format!("{line} {}\r\n{value}\r\n", value.len()).into_bytes()
}

/// All that one binary connection says: what a stranger may say, one attempt, and what follows. The
/// opaques are counted from `opaque`.
pub fn in_binary(random: &mut Random, logins: &Logins, mut opaque: u32) -> Vec<Command> {
    const VERSION: u8 = 0x0b;
    const LIST: u8 = 0x20;
    let mut commands = Vec::new();
    let mut next = |command: &mut dyn FnMut(u32) -> Command| {
        commands.push(command(opaque));
        opaque += 1;
    };
    for _ in 0..random.below(3) {
        let opcode = if random.once_in(2) { LIST } else { VERSION };
        next(&mut |opaque| Command::raw(binary::nameless(opaque, opcode, b"", b"")));
    }
    if random.once_in(6) {
        // A stranger's command instead of a login.
        next(&mut |opaque| binary::command(random, opaque));
    }
    next(&mut |opaque| attempt(random, logins, opaque));
    for _ in 0..random.below(COMMANDS_MAX) {
        next(&mut |opaque| binary::command(random, opaque));
    }
    next(&mut |opaque| Command::raw(binary::nameless(opaque, LIST, b"", b"")));
    commands
}

fn attempt(random: &mut Random, logins: &Logins, opaque: u32) -> Command {
    const START: u8 = 0x21;
    const OTHER_MECHANISMS: &[&str] = &["PLAI", "PLAINX", "CRAM-MD5", "SCRAM-SHA-1", "P", "LOGIN"];
    let (mechanism, attempt) = if random.once_in(8) {
        (random.pick(OTHER_MECHANISMS), &Attempt::Right)
    } else {
        ("PLAIN", random.pick(ATTEMPTS))
    };
    logins.each(|login| {
        binary::nameless(opaque, START, mechanism.as_bytes(), &attempt.message(login))
    })
}

#[derive(Debug, Clone, Copy)]
enum Attempt {
    Right,
    ForOneself,
    WrongPassword,
    WrongUser,
    WithoutPassword,
    WithoutZeros,
    PasswordBeginning,
    MoreBehind,
}

const ATTEMPTS: &[&Attempt] = &[
    &Attempt::Right,
    &Attempt::Right,
    &Attempt::Right,
    &Attempt::ForOneself,
    &Attempt::WrongPassword,
    &Attempt::WrongUser,
    &Attempt::WithoutPassword,
    &Attempt::WithoutZeros,
    &Attempt::PasswordBeginning,
    &Attempt::MoreBehind,
];

impl Attempt {
    /// The message of RFC 4616: whom to act for, who one is, the password.
    fn message(self, login: &Login) -> Vec<u8> {
        let Login { username, password } = login;
        match self {
            Attempt::Right => format!("\0{username}\0{password}"),
            Attempt::ForOneself => format!("{username}\0{username}\0{password}"),
            Attempt::WrongPassword => format!("\0{username}\0wrong"),
            Attempt::WrongUser => format!("\0nobody\0{password}"),
            Attempt::WithoutPassword => format!("\0{username}\0"),
            Attempt::WithoutZeros => format!("{username}{password}"),
            Attempt::PasswordBeginning => {
                format!("\0{username}\0{}", &password[..password.len() - 1])
            }
            Attempt::MoreBehind => format!("\0{username}\0{password}x"),
        }
        .into_bytes()
    }
}
