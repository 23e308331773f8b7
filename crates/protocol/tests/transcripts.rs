//! Plays every transcript against the codec, with a map behind it.
#![expect(clippy::wildcard_enum_match_arm, reason = "the model names what it heeds")]

mod model;

use std::fs;
use std::path::{Path, PathBuf};

use model::{Connection, Items, PASSWORD, USERNAME};
use protocol::command::COMMANDS;
use protocol::transcript::{Case, Names, Witness, parse, run};

#[test]
fn the_codec_says_what_the_transcripts_say() {
    // A whole request at once; byte by byte; and a stride that is no divisor of anything.
    for stride in [usize::MAX, 1, 7] {
        let mut items = Items::default();
        for (path, case) in cases() {
            if !case.holds_for(Witness::Codec) {
                continue;
            }
            let mut connection = Connection::new(&mut items, case.locked, stride);
            let names = Names::of_credential(USERNAME, PASSWORD);
            if let Err(failure) = run(&case, &mut connection, &names) {
                panic!("{}: {}: {failure} (stride {stride})", path.display(), case.name);
            }
        }
    }
}

#[test]
fn every_command_of_the_table_is_said_in_a_transcript() {
    let texts: Vec<String> = files().iter().map(|path| read(path)).collect();
    let says = |name: &str| {
        let said = |line: &str| {
            line.strip_prefix("> ").is_some_and(|said| said.split(' ').next() == Some(name))
        };
        texts.iter().flat_map(|text| text.lines()).any(said)
    };
    let unsaid: Vec<_> = COMMANDS.iter().map(|row| row.name).filter(|name| !says(name)).collect();
    assert!(unsaid.is_empty(), "no transcript says {unsaid:?}");
}

fn cases() -> Vec<(PathBuf, Case)> {
    let cases: Vec<_> = files()
        .into_iter()
        .flat_map(|path| {
            let cases = parse(&read(&path))
                .unwrap_or_else(|mistake| panic!("{}: {mistake}", path.display()));
            cases.into_iter().map(move |case| (path.clone(), case))
        })
        .collect();
    assert!(!cases.is_empty(), "there are transcripts");
    cases
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../transcripts");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the transcripts are in the repository")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("transcripts are text")
}
