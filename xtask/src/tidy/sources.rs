//! What must not stand in a file, and what must.

use std::path::{Component, Path};

use super::File;

pub(super) fn problems(root: &Path, files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files {
        if is_source(file) && !file.text.starts_with("//!") {
            problems.push(format!("{}:1: begins with no `//!` on what it is for", show(file)));
        }
        for (number, line) in file.text.lines().enumerate() {
            for found in wrong_in(line, file, root) {
                problems.push(format!("{}:{}: {found}", show(file), number + 1));
            }
        }
        problems.extend(clocks(file));
    }
    problems
}

fn show(file: &File) -> String {
    file.path.display().to_string()
}

/// Whether it is a source file of a crate, not a test of one.
fn is_source(file: &File) -> bool {
    let mut parts = file.path.components().map(Component::as_os_str);
    let first = parts.next().unwrap_or_default();
    file.has_extension("rs")
        && (first == "crates" || first == "xtask")
        && parts.any(|part| part == "src")
}

// In two pieces, so that this file does not find itself.
const FIX_ME: &str = concat!("FIX", "ME");
const MACROS: &[&str] =
    &[concat!("dbg", "!("), concat!("todo", "!("), concat!("unimplemented", "!(")];
const BARE_IGNORE: &str = concat!("#[", "ignore]");

/// All that is wrong with one line, wherever it stands in the file.
fn wrong_in(line: &str, file: &File, root: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    if line.contains(FIX_ME) && !file.has_extension("md") {
        wrong.push(format!("leftover {FIX_ME}"));
    }
    if file.has_extension("rs") {
        let leftovers = MACROS.iter().filter(|name| line.contains(**name));
        wrong.extend(leftovers.map(|name| format!("leftover {name})")));
        if line.trim() == BARE_IGNORE {
            wrong.push("a test that does not run says why: #[ignore = \"…\"]".to_owned());
        }
    }
    if names_folder(line, root) {
        wrong.push("names the folder of this checkout".to_owned());
    }
    if let Some(problem) = names_a_host(line, file) {
        wrong.push(problem.to_owned());
    }
    wrong
}

/// Whether a line holds the path of the checkout; a path of one part is a word like any other.
fn names_folder(line: &str, root: &Path) -> bool {
    let is_telling = 2 < root.components().count();
    is_telling && root.to_str().is_some_and(|root| line.contains(root))
}

/// Lock files and lists of packages say what and which version, never where: so they work behind
/// any mirror.
fn names_a_host(line: &str, file: &File) -> Option<&'static str> {
    let line = line.trim();
    match file.name() {
        "Cargo.lock" => {
            let is_foreign = line.starts_with("source = ")
                && line != r#"source = "registry+https://github.com/rust-lang/crates.io-index""#;
            is_foreign.then_some("a crate from elsewhere than the public registry")
        }
        "config.toml" => {
            let is_host = line.starts_with("[source") || line.starts_with("[registries");
            is_host.then_some("a registry is each machine's own setting")
        }
        "package-lock.json" => line
            .starts_with("\"resolved\": \"http")
            .then_some("a host in a lock file: npm install --omit-lockfile-registry-resolved"),
        "requirements.txt" => {
            let is_host = line.starts_with("-i ") || line.contains("-index-url");
            is_host.then_some("an index is each machine's own setting")
        }
        ".npmrc" => {
            line.contains("registry=").then_some("a registry is each machine's own setting")
        }
        _ => None,
    }
}

/// Crates that are told the time, and touch nothing outside themselves.
const PURE: &[&str] = &["protocol", "tenancy", "store", "cluster", "wire"];
const OUTSIDE: &[&str] = &["Instant::now", "SystemTime::now", "std::net", "std::fs"];

fn clocks(file: &File) -> Vec<String> {
    let is_pure =
        PURE.iter().any(|name| file.path.starts_with(Path::new("crates").join(name).join("src")));
    // A program beside a library may measure it.
    let is_program = file.path.components().any(|part| part.as_os_str() == "bin");
    if !is_pure || is_program || !file.has_extension("rs") {
        return Vec::new();
    }
    let code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut problems = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if let Some(found) = OUTSIDE.iter().find(|outside| code.contains(**outside)) {
            problems.push(format!("{}:{}: {found} in a pure crate", show(file), number + 1));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{BARE_IGNORE, FIX_ME, File, MACROS, problems};
    use std::path::Path;

    #[test]
    fn a_source_begins_with_its_purpose() {
        check("crates/x/src/a.rs", "//! Why.\n", &[]);
        check("crates/x/tests/a.rs", "fn a() {}\n", &[]);
        check("crates/x/src/a.rs", "fn a() {}\n", &["begins with no `//!` on what it is for"]);
    }

    #[test]
    fn leftovers_are_told() {
        check("a.rs", &format!("// {FIX_ME}\n"), &[&format!("leftover {FIX_ME}")]);
        check("a.md", &format!("no {FIX_ME} here\n"), &[]);
        for name in MACROS {
            check("a.rs", &format!("{name})\n"), &[&format!("leftover {name})")]);
        }
        check("a.rs", BARE_IGNORE, &["a test that does not run says why: #[ignore = \"…\"]"]);
    }

    #[test]
    fn the_folder_of_the_checkout_is_nobodys_business() {
        check("a.md", "see /some/checkout/a\n", &["names the folder of this checkout"]);
    }

    #[test]
    fn hosts_of_packages_are_told() {
        let resolved = "  \"resolved\": \"https://host/x.tgz\",\n";
        check(
            "clients/x/package-lock.json",
            resolved,
            &["a host in a lock file: npm install --omit-lockfile-registry-resolved"],
        );
        check(
            "requirements.txt",
            "--index-url https://host\n",
            &["an index is each machine's own setting"],
        );
        check(
            "Cargo.lock",
            "source = \"git+https://host/x\"\n",
            &["a crate from elsewhere than the public registry"],
        );
        let ours = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n";
        check("Cargo.lock", ours, &[]);
    }

    #[test]
    fn a_pure_crate_looks_at_no_clock() {
        let reads = "//! Why.\n// Instant::now is fine here\nlet now = Instant::now();\n";
        check("crates/store/src/a.rs", reads, &["Instant::now in a pure crate"]);
        check("crates/proxy/src/a.rs", reads, &[]);
        check("crates/store/src/bin/a.rs", reads, &[]);
        let tests = "//! Why.\n#[cfg(test)]\nmod tests { fn a() { Instant::now(); } }\n";
        check("crates/store/src/a.rs", tests, &[]);
    }

    /// The problems of one file, without their places.
    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        let file = File { path: path.into(), text: text.to_owned() };
        let found = problems(Path::new("/some/checkout"), &[file]);
        let found: Vec<_> =
            found.iter().map(|line| line.split_once(": ").expect("a place, a problem").1).collect();
        assert_eq!(found, expected);
    }
}
