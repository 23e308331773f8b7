//! Two control planes on one PostgreSQL server: the one that leads is killed, the other takes over; one
//! that the nodes would not believe never does.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;
use testbed::eventually::DEADLINE;
use testbed::kill_control::api::Api;
use testbed::larder::program;
use testbed::postgres::Postgres;
use testbed::process::Process;

fn control(data: &Path, postgres: &Postgres) -> Process {
    let mut command = Command::new(program());
    command.args(["control", "--listen", "127.0.0.1:0", "--nodes-listen", "127.0.0.1:0"]);
    command.args(["--postgres", &postgres.url, "--data"]).arg(data);
    // Browsers know one address, whoever leads; without it each answers with its own.
    command.env("LARDER_DASHBOARD_URL", "https://larder.example");
    Process::start(&mut command)
}

#[test]
fn a_control_plane_takes_over_from_one_that_was_killed() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().expect("the temporary folder is writable");
    let data = ["first", "second"].map(|name| dir.path().join(name));
    let mut first = control(&data[0], &postgres);
    let api = Api::new(&first.wait_for_line("LARDER_CONTROL="), &data[0]);
    copy(&data[0], &data[1]);
    let mut second = control(&data[1], &postgres);
    let shop = json!({ "name": "shop" });
    let create = |api: &Api| {
        let answer = api.change("POST", "/v1/caches", "key-1", &shop).expect("an answer");
        assert_eq!((answer.status, answer.revision), (201, Some(1)), "{}", answer.body);
        answer.body
    };
    let made = create(&api);
    assert!(second.line_after("LARDER_CONTROL=").is_none(), "two lead at once");
    first.signal(Signal::KILL);
    first.wait_for_end(DEADLINE);

    let api = Api::new(&second.wait_for_line("LARDER_CONTROL="), &data[1]);
    // The client of the first one did not hear its answer and asks the second one again.
    assert_eq!(create(&api), made, "not done twice, and answered as before");
    let answer = api.change("POST", "/v1/caches/shop/flush", "key-2", &json!({}));
    assert_eq!(answer.expect("an answer").revision, Some(2), "no gap");

    // The first one comes back, and stands by.
    let first = control(&data[0], &postgres);
    second.signal(Signal::TERM);
    assert!(second.wait_for_end(DEADLINE).success());
    let mut first = first;
    let api = Api::new(&first.wait_for_line("LARDER_CONTROL="), &data[0]);
    assert_eq!(api.get("/v1/caches/shop")["name"], "shop");
}

/// A control plane that was given the key of passwords, and not the authority that the nodes trust: they
/// would refuse it, so it must not lead them.
#[test]
fn a_standby_with_an_authority_of_its_own_is_refused() {
    let postgres = Postgres::start();
    let dir = tempfile::tempdir().expect("the temporary folder is writable");
    let data = ["first", "second"].map(|name| dir.path().join(name));
    let mut first = control(&data[0], &postgres);
    first.wait_for_line("LARDER_CONTROL=");
    copy(&data[0], &data[1]);
    for file in ["authority.key", "authority.pem"] {
        std::fs::remove_file(data[1].join(file)).expect("it was copied");
    }
    let mut second = control(&data[1], &postgres);
    assert!(!second.wait_for_end(DEADLINE).success());
    let said = second.whole_log();
    assert!(said.contains("copy authority.key and authority.pem"), "{said}");
    assert!(!first.has_ended(), "the one that leads goes on");
}

/// Copies a data directory's files: keys, token, the cluster's authority.
fn copy(from: &Path, to: &PathBuf) {
    std::fs::create_dir(to).expect("a new folder");
    let status = Command::new("cp").arg("-rp").arg(from.join(".")).arg(to).status();
    assert!(status.expect("cp is there").success());
}
