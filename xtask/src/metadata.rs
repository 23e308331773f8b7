//! What cargo says about the workspace.

use serde_json::Value;

use crate::step::command;

/// Our crates and their dependencies, without looking for those elsewhere.
pub(crate) fn metadata() -> Result<Value, String> {
    let output = command("cargo", &["metadata", "--no-deps", "--format-version=1", "--offline"])
        .output()
        .map_err(|error| format!("could not start cargo: {error}"))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        format!("cargo could not tell of the workspace: {why}")
    })
}
