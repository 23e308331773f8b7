//! Watches the store's `unsafe` code at work: under Miri, which knows the rules of references, and
//! under the address sanitizer, which is fast enough for all tests.

use crate::step::{Outcome, Step, carry_out, command, is_there};

/// Where the sanitizer is known to work with Rust; it must be named, or build scripts are
/// sanitized too.
const SANITIZED_TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn miri() -> Step {
    Step::new("miri", || {
        if !is_there("cargo", &["+nightly", "miri", "--version"]) {
            let why = "Miri is missing: rustup +nightly component add miri";
            return Outcome::Failed(why.to_owned());
        }
        carry_out(command("cargo", &["+nightly", "miri", "test", "-p", "store", "--lib"]))
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
