//! Every path that a document names exists.

use std::path::Path;

use super::File;

/// Documents that tell where things are.
const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

pub(super) fn problems(root: &Path, files: &[File]) -> Vec<String> {
    let documents =
        files.iter().filter(|file| DOCUMENTS.iter().any(|name| file.path == Path::new(name)));
    documents
        .flat_map(|document| {
            paths(&document.text)
                .filter(|path| !exists(root, path))
                .map(|path| format!("{}: `{path}` does not exist", document.path.display()))
        })
        .collect()
}

/// Paths in backticks: at least two parts, relative, and not made by a build.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| {
        let is_path =
            word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
        let is_elsewhere =
            word.starts_with('/') || word.starts_with("target/") || word.contains("..");
        is_path && word.contains('/') && !is_elsewhere
    })
}

/// Crates are often named without their folder.
fn exists(root: &Path, path: &str) -> bool {
    root.join(path).exists() || root.join("crates").join(path).exists()
}

#[cfg(test)]
mod tests {
    use super::{File, paths, problems};

    #[test]
    fn only_paths_in_backticks_are_paths() {
        let text = "see `a/b.rs` and `c`, not x/y, `cargo run a/b`, `/etc/x`, `../d` or `target/e`";
        assert_eq!(paths(text).collect::<Vec<_>>(), ["a/b.rs"]);
    }

    #[test]
    fn a_path_that_is_gone_is_told() {
        let root = tempfile::tempdir().expect("a folder can be made");
        std::fs::create_dir_all(root.path().join("crates/store/src")).expect("folders can be made");
        let text = "`store/src` and `crates/store` exist, `store/gone.rs` does not";
        let file = |path: &str| File { path: path.into(), text: text.to_owned() };
        assert_eq!(
            problems(root.path(), &[file("README.md"), file("docs/notes.md")]),
            ["README.md: `store/gone.rs` does not exist"]
        );
    }
}
