//! The control API against its own OpenAPI document: schemathesis asks what it likes, and every answer
//! must be one that the document has; none may be a fault of ours.
//!
//! Some 1,000 requests of it to either document belong to the tests. For longer:
//! `LARDER_OPENAPI_EXAMPLES=200 cargo test -p testbed --test openapi`.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use testbed::client_scripts::python;
use testbed::fleet::Cluster;
use testbed::larder::Larder;
use testbed::owner::{Owner, login};

/// Requests that are made up for each operation, beside those at the edges of every parameter.
const EXAMPLES: &str = "2";

/// Has every operation of a document asked for, by someone who proves himself with these arguments.
#[track_caller]
fn check(document: &str, proof: [&str; 2], settings: &str) {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    fs::write(folder.path().join("schemathesis.toml"), settings).expect("the folder is ours");
    let examples = env::var("LARDER_OPENAPI_EXAMPLES").unwrap_or_else(|_| EXAMPLES.to_owned());
    let output = Command::new(python().with_file_name("schemathesis"))
        .args(["--no-color", "run", document])
        .args(proof)
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", &examples])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        .args(["--checks", "content_type_conformance,response_schema_conformance"])
        .args(["--generation-deterministic", "--continue-on-failure", "--output-sanitize", "true"])
        // Wrong logins, of which ten are enough to be held up, are asked for elsewhere.
        .args(["--generation-with-security-parameters", "false"])
        .current_dir(folder.path())
        .env("NO_PROXY", "*")
        .output()
        .expect("clients/install.sh brings it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("API Operations"), "it tested nothing:\n{said}");
}

/// As operators do. `folder` is the control plane's data directory.
#[track_caller]
fn check_as_operator(control: &str, folder: &Path) {
    let token = fs::read_to_string(folder.join("control.token")).expect("the token is there");
    let header = format!("Authorization: Bearer {}", token.trim());
    check(&format!("{control}/v1/openapi.json"), ["--header", &header], "");
}

#[test]
fn every_answer_to_operators_is_one_that_the_document_has() {
    let larder = Larder::start();
    larder.run(&["cache", "create", "shop", "--plan", "100"]);
    let control = larder.process.line_after("LARDER_CONTROL=").expect("it was printed");
    check_as_operator(&control, larder.dir().path());
}

#[test]
fn every_answer_to_owners_is_one_that_the_document_has() {
    let larder = Larder::start();
    let control = larder.process.line_after("LARDER_CONTROL=").expect("it was printed");
    let owner = Owner::of(&larder.run(&["cache", "create", "shop", "--plan", "100"]), &control);
    // Of their own cache: of another's they get one answer only. And they change and remove another
    // credential than they use.
    let (status, second) = owner.curl("POST", "credentials", "");
    assert_eq!(status, 201, "{second}");
    let (cache, username) = (owner.cache, login(&second).username);
    let settings =
        format!("[parameters]\n\"path.cache\" = {cache}\n\"path.username\" = \"{username}\"\n");
    let user = format!("{}:{}", owner.login.username, owner.login.password);
    check(&format!("{control}/api/v2/openapi.json"), ["--auth", &user], &settings);
    assert_eq!(owner.curl("GET", "info", "").0, 200, "it was let in to the end");
}

#[test]
fn every_answer_of_a_cluster_is_one_that_the_document_has() {
    let cluster = Cluster::start(2, 1);
    cluster.run(&["cache", "create", "shop", "--plan", "100"]);
    let control = cluster.control.line_after("LARDER_CONTROL=").expect("it was printed");
    check_as_operator(&control, &cluster.control_folder());
}
