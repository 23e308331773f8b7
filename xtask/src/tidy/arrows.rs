//! Who may depend on whom, held against what cargo says.

use serde_json::Value;

use crate::metadata::metadata;

/// What a crate may use of ours.
enum May {
    Use(&'static [&'static str]),
    UseAll,
}

use May::{Use, UseAll};

/// The arrows of the architecture. What is absent matters most: a proxy holds no item, control
/// speaks no memcached, and nothing pure knows a program.
const ARROWS: &[(&str, May)] = &[
    // Pure: told the time, no sockets, no files.
    ("protocol", Use(&[])),
    ("tenancy", Use(&[])),
    ("cluster", Use(&["tenancy"])),
    ("store", Use(&["tenancy"])),
    ("wire", Use(&["protocol", "tenancy", "cluster"])),
    // Programs and what they share.
    ("daemon", Use(&[])),
    ("backend", Use(&["protocol", "tenancy", "cluster", "store", "wire", "daemon"])),
    ("proxy", Use(&["protocol", "tenancy", "cluster", "wire", "daemon"])),
    ("control", Use(&["tenancy", "cluster", "wire", "daemon"])),
    ("node", Use(&["tenancy", "cluster", "wire", "daemon"])),
    ("bench", Use(&["protocol", "daemon"])),
    (
        "larder",
        Use(&[
            "protocol", "tenancy", "cluster", "store", "wire", "daemon", "backend", "proxy",
            "control", "node", "bench",
        ]),
    ),
    // Tests and tasks: nothing uses them.
    ("simulator", UseAll),
    ("testbed", UseAll),
    ("xtask", UseAll),
];

pub(super) fn problems() -> Vec<String> {
    match metadata() {
        Ok(metadata) => against(&metadata),
        Err(why) => vec![why],
    }
}

fn against(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, may)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            problems.push(format!("crate {name} is not in the table of arrows"));
            continue;
        };
        let Use(allowed) = may else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            // Only ours have a path. A crate may name itself, to have a feature of its own in tests.
            if dependency["path"].is_string() && used != name && !allowed.contains(&used) {
                problems.push(format!("crate {name} uses {used}, which the arrows do not allow"));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::against;
    use serde_json::json;

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_told() {
        let metadata = json!({"packages": [
            {"name": "proxy", "dependencies": [
                {"name": "protocol", "path": "/p"}, {"name": "store", "path": "/s"},
                {"name": "mio", "path": null},
            ]},
            {"name": "util", "dependencies": []},
            {"name": "testbed", "dependencies": [{"name": "store", "path": "/s"}]},
        ]});
        assert_eq!(
            against(&metadata),
            [
                "crate proxy uses store, which the arrows do not allow",
                "crate util is not in the table of arrows",
            ]
        );
    }
}
