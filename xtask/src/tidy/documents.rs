//! Every path that a document names exists.

use std::path::Path;

use super::File;

/// Documents that tell where things are, with paths in backticks.
const MAPS: &[&str] = &["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];

pub(super) fn problems(root: &Path, files: &[File]) -> Vec<String> {
    let mut problems = Vec::new();
    for document in files.iter().filter(|file| file.has_extension("md")) {
        let folder = root.join(document.path.parent().unwrap_or(Path::new("")));
        let is_map = MAPS.iter().any(|name| document.path == Path::new(name));
        let gone_links = links(&document.text).filter(|link| !folder.join(link).exists());
        let gone_paths = paths(&document.text).filter(|path| is_map && !exists(root, path));
        for gone in gone_links.chain(gone_paths) {
            problems.push(format!("{}: {gone} does not exist", document.path.display()));
        }
    }
    problems
}

/// Where links lead that stay in the repository: `[text](path#heading)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let (target, _) = rest.split_once(')')?;
        let path = target.split('#').next()?;
        (!path.is_empty() && !path.contains(':')).then_some(path)
    })
}

/// Paths in backticks: at least two parts, relative, and not made by a build. What begins with `./`
/// is in the reader's folder.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| {
        let is_path =
            word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
        let is_elsewhere = word.contains("..")
            || ["/", "./", "target/"].iter().any(|start| word.starts_with(start));
        is_path && word.contains('/') && !is_elsewhere
    })
}

/// Crates are often named without their folder.
fn exists(root: &Path, path: &str) -> bool {
    root.join(path).exists() || root.join("crates").join(path).exists()
}

#[cfg(test)]
mod tests {
    use super::{File, links, paths, problems};

    #[test]
    fn only_paths_in_backticks_are_paths() {
        let text =
            "see `a/b.rs` and `c`, not x/y, `cargo run a/b`, `/etc/x`, `../d`, `./e` or `target/f`";
        assert_eq!(paths(text).collect::<Vec<_>>(), ["a/b.rs"]);
    }

    #[test]
    fn links_to_elsewhere_are_left_alone() {
        let text = "[a](docs/a.md#top) [b](#here) [c](https://c) [d](mailto:d) f(x)[y](z";
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md"]);
    }

    #[test]
    fn a_path_that_is_gone_is_told() {
        let root = tempfile::tempdir().expect("a folder can be made");
        std::fs::create_dir_all(root.path().join("crates/store/src")).expect("folders can be made");
        std::fs::create_dir(root.path().join("docs")).expect("folders can be made");
        let text = "`store/src` and `crates/store` exist, `store/gone.rs` and [x](gone.md) do not; \
                    [y](../crates) is seen from docs only";
        let file = |path: &str| File { path: path.into(), text: text.to_owned() };
        assert_eq!(
            problems(root.path(), &[file("README.md"), file("docs/notes.md")]),
            [
                "README.md: gone.md does not exist",
                "README.md: ../crates does not exist",
                "README.md: store/gone.rs does not exist",
                "docs/notes.md: gone.md does not exist",
            ]
        );
    }
}
