//! From what is written to settings as used, with every problem found on the way.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::kind::Kind;
use super::{RELATIONS, Settings, TABLE};

/// A settings file is a few pages; what is larger is another file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A setting given on the command line.
#[derive(Debug, Clone, Copy)]
pub struct Flag<'a> {
    /// The setting's name in the table.
    pub setting: &'a str,
    /// What the user typed, as in `--listen`.
    pub flag: &'a str,
    pub value: &'a str,
}

/// Reads the file and this process's environment, and checks them together with the flags.
///
/// A flag beats the environment, which beats the file, which beats the default.
pub fn load(file: Option<&Path>, flags: &[Flag<'_>]) -> Result<Settings, SettingsError> {
    let text = file.map(|path| read_file(path).map(|text| (path, text))).transpose()?;
    let file = text.as_ref().map(|(path, text)| (*path, text.as_str()));
    check(file, std::env::vars_os(), flags).map_err(SettingsError::Wrong)
}

fn read_file(path: &Path) -> Result<String, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if FILE_BYTES_MAX < bytes {
        return Err(unreadable(io::Error::other(format!(
            "{bytes} bytes is more than a settings file has ({FILE_BYTES_MAX})"
        ))));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Checks what is written in all places and makes settings of it; pure.
///
/// Of the environment only variables that begin with `LARDER_` are looked at. Those that are no
/// setting are left alone, since the command line has its own, unless they look like a misspelt one.
pub fn check(
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[Flag<'_>],
) -> Result<Settings, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut given = Vec::new();
    if let Some((path, text)) = file {
        from_file(path, text, &mut given, &mut problems);
    }
    from_environment(environment, &mut given, &mut problems);
    given.extend(flags.iter().map(from_flag));

    let mut reader = Reader::new(&given, &mut problems);
    let settings = Settings::from_written(&mut reader);
    let wrong = reader.wrong;
    relate(&settings, &given, &wrong, &mut problems);
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("could not read the settings file {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// Every problem there is, in the order of the places; never empty.
    #[error("{}", list(.0))]
    Wrong(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Something that is wrong, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Where something is written. In the order of precedence: the later wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: the default.
    Default,
    /// Line and column count from 1; the column counts characters.
    File { path: PathBuf, line: usize, column: usize },
    /// The name of the variable.
    Environment(String),
    /// The flag as typed.
    Flag(String),
}

impl Place {
    fn is_on_line_of(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::File { line: a, .. }, Place::File { line: b, .. }) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Place::Environment(variable) => write!(f, "environment variable {variable}"),
            Place::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// A value as somebody wrote it.
#[derive(Debug, Clone, PartialEq)]
pub enum Written {
    /// A text of the file.
    Text(String),
    /// A whole number of the file.
    Integer(i64),
    /// A word of the environment or the command line, which have no types.
    Word(String),
    /// Something of the file that no setting is; its TOML type, with an article.
    Other(&'static str),
}

impl Written {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Written::Text(text) | Written::Word(text) => Some(text),
            Written::Integer(_) | Written::Other(_) => None,
        }
    }

    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Written::Integer(integer) => Some(*integer),
            Written::Word(word) => word.parse().ok(),
            Written::Text(_) | Written::Other(_) => None,
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Written::Text(text) | Written::Word(text) => write!(f, "\"{}\"", shown(text)),
            Written::Integer(integer) => write!(f, "{integer}"),
            Written::Other(kind) => f.write_str(kind),
        }
    }
}

/// A text as a message shows it: on one line, and not all of it if it is long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text[..end].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

/// Longer than any setting's name, and enough to recognise a value.
const SHOWN_CHARACTERS_MAX: usize = 64;

/// One value in one place.
pub(super) struct Given {
    setting: String,
    place: Place,
    written: Written,
}

/// Hands out each setting by name.
pub(super) struct Reader<'a> {
    /// In the order of precedence: the last fitting one wins.
    given: &'a [Given],
    problems: &'a mut Vec<Problem>,
    /// Settings of which some value did not fit.
    wrong: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(given: &'a [Given], problems: &'a mut Vec<Problem>) -> Self {
        Reader { given, problems, wrong: BTreeSet::new() }
    }

    /// The value of a setting. Every place is checked, also one that another place overrides.
    pub(super) fn take<K: Kind>(&mut self, name: &'static str, default: &str, kind: &K) -> K::Used {
        let mut used = kind
            .used(&Written::Word(default.to_owned()))
            .expect("each default fits its kind: a test reads them all");
        for given in self.given.iter().filter(|given| given.setting == name) {
            match kind.used(&given.written) {
                Some(fitting) => used = fitting,
                None => {
                    self.wrong.insert(name);
                    self.problems.push(Problem {
                        place: given.place.clone(),
                        message: format!(
                            "{name} must be {}, not {}",
                            kind.expects(),
                            given.written
                        ),
                    });
                }
            }
        }
        used
    }
}

fn from_file(path: &Path, text: &str, given: &mut Vec<Given>, problems: &mut Vec<Problem>) {
    let place = |offset| place_in(path, text, offset);
    let (table, mut errors) = DeTable::parse_recoverable(text);
    errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
    for error in errors {
        let place = place(error.span().map_or(0, |span| span.start));
        // What follows a mistake on the same line is mostly an echo of it.
        if problems.last().is_none_or(|last: &Problem| !last.place.is_on_line_of(&place)) {
            problems.push(Problem { place, message: format!("not TOML: {}", error.message()) });
        }
    }
    for (key, value) in table.get_ref() {
        let name = key.get_ref().as_ref();
        if is_known(name) {
            given.push(Given {
                setting: name.to_owned(),
                place: place(value.span().start),
                written: written(value.get_ref()),
            });
        } else {
            problems.push(Problem {
                place: place(key.span().start),
                message: unknown(name, value.get_ref()),
            });
        }
    }
}

/// Turns a byte offset into what an editor shows.
fn place_in(path: &Path, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place::File {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

fn written(value: &DeValue<'_>) -> Written {
    match value {
        DeValue::String(text) => Written::Text(text.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Written::Other("so large a number"), Written::Integer),
        DeValue::Float(_) => Written::Other("a number with a fraction"),
        DeValue::Boolean(_) => Written::Other("a true or false"),
        DeValue::Datetime(_) => Written::Other("a date or time"),
        DeValue::Array(_) => Written::Other("a list"),
        DeValue::Table(_) => Written::Other("a table"),
    }
}

fn unknown(name: &str, value: &DeValue<'_>) -> String {
    let advice = match (nearest(name), value) {
        (Some(near), _) => format!("did you mean {near}?"),
        (None, DeValue::Table(_)) => "settings stand in no [table]".to_owned(),
        (None, _) => "`larder settings` prints all there are".to_owned(),
    };
    format!("unknown setting {}; {advice}", shown(name))
}

fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    given: &mut Vec<Given>,
    problems: &mut Vec<Problem>,
) {
    let first = given.len();
    for (variable, value) in environment {
        let Some(variable) = variable.to_str() else { continue };
        let Some(name) = variable.strip_prefix("LARDER_").map(str::to_lowercase) else { continue };
        let place = Place::Environment(variable.to_owned());
        if is_known(&name) {
            let written = Written::Word(value.to_string_lossy().into_owned());
            given.push(Given { setting: name, place, written });
        } else if let Some(near) = nearest(&name) {
            let near = near.to_uppercase();
            let message = format!("unknown setting; did you mean LARDER_{near}?");
            problems.push(Problem { place, message });
        }
    }
    given[first..].sort_by(|a, b| a.place.cmp(&b.place));
}

fn from_flag(flag: &Flag<'_>) -> Given {
    debug_assert!(
        is_known(flag.setting),
        "{} gives {}, which is no setting",
        flag.flag,
        flag.setting
    );
    Given {
        setting: flag.setting.to_owned(),
        place: Place::Flag(flag.flag.to_owned()),
        written: Written::Word(flag.value.to_owned()),
    }
}

/// Checks the rules between settings, except where one of the two is wrong by itself already.
fn relate(
    settings: &Settings,
    given: &[Given],
    wrong: &BTreeSet<&'static str>,
    problems: &mut Vec<Problem>,
) {
    for relation in RELATIONS {
        if relation.names.iter().any(|name| wrong.contains(name)) || !(relation.is_broken)(settings)
        {
            continue;
        }
        let written_at = |name: &&str| {
            given.iter().rev().find(|given| given.setting == *name).map(|given| given.place.clone())
        };
        let place = relation.names.iter().find_map(written_at).unwrap_or(Place::Default);
        problems.push(Problem { place, message: relation.message.to_owned() });
    }
}

fn is_known(name: &str) -> bool {
    TABLE.iter().any(|setting| setting.name == name)
}

/// The setting whose name is most like this one, if it is like any.
fn nearest(name: &str) -> Option<&'static str> {
    TABLE
        .iter()
        .map(|setting| (distance(name, setting.name), setting.name))
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .min()
        .map(|(_, known)| known)
}

/// How many characters must be put in, taken out or replaced to make `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
