//! Writes the outcome of an experiment to where it was asked for.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::{Common, Outcome, SimulateError};

pub(super) fn write(outcome: &Outcome, common: &Common) -> Result<(), SimulateError> {
    if let Some(path) = &common.csv {
        file(path, outcome.csv.as_bytes())?;
    }
    if let Some(path) = &common.svg {
        file(path, outcome.picture.svg().as_bytes())?;
    }
    if let Some(path) = &common.png {
        let png = outcome.picture.png().map_err(|reason| SimulateError::Draw { reason })?;
        file(path, &png)?;
    }
    let text = if common.json { format!("{:#}\n", outcome.json) } else { outcome.text.clone() };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads only the beginning, as `head` does, wanted no more.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => ended.map_err(SimulateError::Print),
    }
}

fn file(path: &Path, bytes: &[u8]) -> Result<(), SimulateError> {
    fs::write(path, bytes).map_err(|source| SimulateError::File { path: path.to_owned(), source })
}
