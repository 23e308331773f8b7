//! Every transcript of `transcripts/`, played against a running Larder, with and without passwords,
//! and against the distribution's memcached: the same answers.
//!
//! Where a case does not hold for memcached, the transcript itself says so and why.

use protocol::transcript::{Case, Names, Witness, parse, run};
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use testbed::connection::{Connection, Login};
use testbed::larder::Larder;
use testbed::memcached::Memcached;

#[test]
fn hold_for_a_larder_without_passwords() {
    let larder = Larder::start_without_auth();
    let played = check(|_, case| (!case.locked).then_some(Part { addr: larder.addr, login: None }));
    assert!(played >= 100, "only {played} cases were played");
}

#[test]
fn hold_for_a_larder_that_let_us_in() {
    let larder = Larder::start();
    check(|_, case| {
        let login = (!case.locked).then(|| larder.login.clone());
        login.map(|login| Part { addr: larder.addr, login: Some(login) })
    });
}

#[test]
fn of_logging_in_hold_for_a_larder() {
    let larder = Larder::start();
    let names = names(&larder.login);
    let played = check_with(&names, |_, case| {
        case.locked.then_some(Part { addr: larder.addr, login: None })
    });
    assert!(played >= 10, "only {played} cases were played");
}

#[test]
fn hold_for_memcached() {
    let memcached = Memcached::start();
    let witness = Witness::Memcached { version: Memcached::version() };
    let played = check(|_, case| {
        let part = Part { addr: memcached.addr, login: None };
        (!case.locked && case.holds_for(witness)).then_some(part)
    });
    assert!(played >= 100, "only {played} cases were played");
}

#[test]
fn of_logging_in_hold_for_memcached() {
    let login = Login { username: "somebody".into(), password: "a-password".into() };
    let text = Memcached::start_with_password(&login);
    let (binary, sasl_login) = Memcached::start_with_sasl(&login);
    let witness = Witness::Memcached { version: Memcached::version() };
    let part = |addr| Part { addr, login: None };
    check_with(&names(&login), |file, case| {
        let here = case.locked && case.holds_for(witness) && !is_binary(file);
        here.then(|| part(text.addr))
    });
    check_with(&names(&sasl_login), |file, case| {
        let here = case.locked && case.holds_for(witness) && is_binary(file);
        here.then(|| part(binary.addr))
    });
}

/// Where a case is played.
struct Part {
    addr: SocketAddr,
    /// Logs in before the case begins.
    login: Option<Login>,
}

fn check(part: impl Fn(&Path, &Case) -> Option<Part>) -> usize {
    check_with(&names(&Login::default()), part)
}

/// Plays every case that has a part and returns how many; reports all failures at once.
#[track_caller]
fn check_with(names: &Names, part: impl Fn(&Path, &Case) -> Option<Part>) -> usize {
    let mut played = 0;
    let mut failures = String::new();
    for file in files() {
        let text = fs::read_to_string(&file).expect("a file that was listed can be read");
        let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let cases = parse(&text)
            .unwrap_or_else(|mistake| panic!("{name}:{}: {}", mistake.line, mistake.problem));
        for case in &cases {
            let Some(part) = part(&file, case) else { continue };
            played += 1;
            let mut connection = Connection::open(part.addr);
            match &part.login {
                Some(login) if is_binary(&file) => connection.log_in_binary(login),
                Some(login) => connection.ask(&login.text(), "STORED\r\n"),
                None => {}
            }
            if let Err(failure) = run(case, &mut connection, names) {
                // Writing to a string cannot fail.
                _ = writeln!(
                    failures,
                    "{name}:{}: {}: {}",
                    failure.line, case.name, failure.problem
                );
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    played
}

fn names(login: &Login) -> Names {
    Names::of_credential(&login.username, &login.password)
}

fn is_binary(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().contains("binary"))
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../transcripts"));
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the transcripts are in the repository")
        .map(|entry| entry.expect("a listed file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}
