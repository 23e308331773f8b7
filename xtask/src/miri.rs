//! Watches the store's `unsafe` code at work: under Miri, which knows the rules of references, and
//! under the address sanitizer, which is fast enough for all tests.

use crate::step::{Outcome, Step, carry_out, command, is_there};

/// Where the sanitizer is known to work with Rust; it must be named, or build scripts are
/// sanitized too.
const SANITIZED_TARGET: &str = "x86_64-unknown-linux-gnu";

/// No integer becomes a pointer, else Miri must guess what memory it may reach. proptest looks for
/// files of failures. The arena leaks a mapping of which a block is out, on purpose.
const FLAGS: &str = "-Zmiri-strict-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks";
/// The other proposed rules of references; code should obey both until they are decided.
const TREE: &str = "-Zmiri-tree-borrows";
/// So few because each takes a minute.
const ORDERS: &str = "-Zmiri-many-seeds=0..8";

/// All tests of the store by both rules of references, and those with threads in more orders.
pub(crate) fn miri() -> Vec<Step> {
    vec![
        interpreted("miri, stacked borrows", "", &["--tests"]),
        interpreted("miri, tree borrows", TREE, &["--tests"]),
        interpreted("miri, orders of threads", ORDERS, &["--test", "threads"]),
    ]
}

fn interpreted(name: &str, rules: &'static str, which: &'static [&str]) -> Step {
    Step::new(name, move || {
        // The toolchain in use may have one; the newest nightly usually has.
        let toolchains: [&[&str]; 2] = [&[], &["+nightly"]];
        let has_miri = |toolchain: &&[&str]| {
            is_there("cargo", &[toolchain, &["miri", "--version"][..]].concat())
        };
        let Some(toolchain) = toolchains.into_iter().find(has_miri) else {
            let why = "Miri is missing: rustup +nightly component add miri rust-src, or see \
                       docs/decisions/0049-the-store-runs-under-miri.md";
            return Outcome::Failed(why.to_owned());
        };
        let arguments = [toolchain, &["miri", "test", "-p", "store"], which].concat();
        let mut tests = command("cargo", &arguments);
        let more = std::env::var("MIRIFLAGS").unwrap_or_default();
        tests.env("MIRIFLAGS", format!("{FLAGS} {rules} {more}"));
        carry_out(tests)
    })
}

pub(crate) fn sanitize() -> Step {
    Step::new("address sanitizer", || {
        let arguments = ["test", "-p", "store", "--tests", "--target", SANITIZED_TARGET];
        let mut tests = command("cargo", &arguments);
        // The sanitizer is a feature of nightly that the stable compiler has, but does not promise.
        tests.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
        // Everything is compiled differently, so beside the rest.
        tests.env("CARGO_TARGET_DIR", "target/sanitize");
        carry_out(tests)
    })
}
