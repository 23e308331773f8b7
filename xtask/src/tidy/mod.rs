//! Checks what no compiler checks, so that what the documents promise stays true.
//!
//! What one crate can check alone is a test of that crate: that each command is said in a transcript
//! (`protocol`), that the documented settings are the real ones (`daemon`).

mod arrows;
mod documents;
mod sources;

use std::path::{Path, PathBuf};

use crate::step::command;

/// Everything that is wrong, a line each.
pub(crate) fn problems(root: &Path) -> Vec<String> {
    let mut problems = arrows::problems();
    match tracked(root) {
        Ok(files) => {
            problems.extend(sources::problems(root, &files));
            problems.extend(documents::problems(root, &files));
        }
        Err(why) => problems.push(why),
    }
    problems
}

/// A text file of the repository.
struct File {
    /// Relative to the root.
    path: PathBuf,
    text: String,
}

impl File {
    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|it| it == extension)
    }
}

/// All text files that git tracks. What is deleted but not yet committed is left out.
fn tracked(root: &Path) -> Result<Vec<File>, String> {
    // A checkout in a container often belongs to another user, which git would refuse.
    let listed = command("git", &["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("could not start git: {error}"))?;
    if !listed.status.success() {
        let why = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        return Err(format!("git could not list the files: {why}"));
    }
    let names = String::from_utf8_lossy(&listed.stdout);
    Ok(names
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter_map(|path| {
            Some(File { text: std::fs::read_to_string(root.join(&path)).ok()?, path })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::problems;

    #[test]
    fn the_repository_is_tidy() {
        let problems = problems(&crate::root());
        assert!(problems.is_empty(), "\n{}", problems.join("\n"));
    }
}
