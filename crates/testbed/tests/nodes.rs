//! A control plane and its nodes as real processes: what one node is told all have, and nothing that
//! serves needs the control plane.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use testbed::cluster::{ControlPlane, Node};
use testbed::connection::{Connection, Login};
use testbed::eventually::{DEADLINE, eventually};
use testbed::kill_control::api::Api;
use testbed::oracle::Oracle;

#[test]
fn what_is_committed_is_served_everywhere_and_goes_on_without_control() {
    let mut control = ControlPlane::start();
    let first = Node::join(&control, "n1");
    let mut second = Node::join(&control, "n2");
    let shop = control.create_cache("shop");
    control.wait_until_settled(4);

    // Every key is one item, whichever node is asked.
    let mut one = first.connect(&shop);
    let mut two = second.connect(&shop);
    for key in 0..64 {
        one.ask(&format!("set key{key} 0 0 2\r\n{key:02}\r\n"), "STORED\r\n");
        two.ask(
            &format!("get key{key}\r\n"),
            &format!("VALUE key{key} 0 2\r\n{key:02}\r\nEND\r\n"),
        );
    }

    // A new credential is let in everywhere; how soon: `cargo xtask faults changes`.
    let made = Login::told(&control.run(&["credential", "add", "shop"]));
    for node in [&first, &second] {
        wait_until_let_in(node, &made);
    }

    // Control is killed: connections go on, new ones are let in, other nodes are asked.
    control.process.signal(Signal::KILL);
    control.process.wait_for_end(DEADLINE);
    for (node, open) in [(&first, &mut one), (&second, &mut two)] {
        open.ask("get key7\r\n", "VALUE key7 0 2\r\n07\r\nEND\r\n");
        node.connect(&made).ask("get key8\r\n", "VALUE key8 0 2\r\n08\r\nEND\r\n");
    }

    // A node that restarts meanwhile serves from disk: its own part is empty, the other's is not.
    second.process.signal(Signal::TERM);
    second.process.wait_for_end(DEADLINE);
    let second = second.start_again();
    let mut two = second.connect(&made);
    let mut found = 0;
    for key in 0..64 {
        let want = format!("VALUE key{key} 0 2\r\n{key:02}\r\nEND\r\n");
        let answer = eventually("the node answered for every key", DEADLINE, || {
            two.send(format!("get key{key}\r\n").as_bytes());
            let mut answer = two.line();
            if answer.starts_with("VALUE") {
                answer += &two.line();
                answer += &two.line();
            }
            // Until the links to the other node are up again.
            (!answer.starts_with("SERVER_ERROR")).then_some(answer)
        });
        assert!(answer == want || answer == "END\r\n", "key{key}: {answer:?}");
        found += usize::from(answer == want);
    }
    assert!(0 < found && found < 64, "{found} of 64 keys were left");
    two.ask("set after 0 0 1\r\n1\r\n", "STORED\r\n");

    // Control is back where it was: everything is the same again, and changes arrive.
    let control = control.start_again();
    let status = control.wait_until_settled(4);
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(2));
    let late = Login::told(&control.run(&["credential", "add", "shop"]));
    for node in [&first, &second] {
        wait_until_let_in(node, &late);
    }
}

#[test]
fn a_node_without_a_good_token_is_refused_with_the_reason() {
    let control = ControlPlane::start();
    let elsewhere = ControlPlane::start();
    let refusals = [
        ("nonsense".to_owned(), "this is not a join token"),
        (elsewhere.token(), "UnknownIssuer"),
        (tampered(&control.token()), "wrong token"),
    ];
    for (token, reason) in refusals {
        let said = Node::refused(&control.nodes, &["--join", &token, "--name", "n1"]);
        assert!(said.contains(reason), "{reason:?} is not in:\n{said}");
    }
    let said = Node::refused(&control.nodes, &["--name", "n1"]);
    assert!(said.contains("has not joined yet"), "{said}");

    // A name that is taken stays with who has it.
    let _first = Node::join(&control, "n1");
    let said = Node::refused(&control.nodes, &["--join", &control.token(), "--name", "n1"]);
    assert!(said.contains("name taken"), "{said}");
}

#[track_caller]
fn wait_until_let_in(node: &Node, login: &Login) {
    eventually("a new credential is let in", DEADLINE, || {
        let mut connection = Connection::open(node.addr);
        connection.send(login.text().as_bytes());
        (connection.line() == "STORED\r\n").then_some(())
    });
}

/// The token with one character of its mac changed.
fn tampered(token: &str) -> String {
    let (rest, _) = token.split_at(token.len() - 4);
    let end = if token.ends_with("AAAA") { "BBBB" } else { "AAAA" };
    format!("{rest}{end}")
}

/// How often a node tries to write again, and some time for a busy machine.
const WRITTEN_AGAIN_MAX: Duration = Duration::from_secs(20);

#[test]
fn a_node_whose_disk_is_full_serves_by_what_it_hears_and_says_so() {
    let control = ControlPlane::start();
    let node = Node::join_on_disk(&control, "n1", 256);
    let shop = control.create_cache("shop");
    control.wait_until_settled(1);
    let oracle = Oracle::on(node.connect(&shop));
    let disk = node.disk().expect("it was given one");
    disk.fill().expect("it has a limit");

    // More than fits the rest of the page that the file ends in.
    let url = control.process.line_after("LARDER_CONTROL=").expect("it is written first");
    let api = Api::new(&url, control.folder());
    let mut made = Vec::new();
    for number in 0..60 {
        let key = format!("key-{number}");
        let answer = api.change("POST", "/v1/caches/shop/credentials", &key, &Value::Null);
        made.push(Login::told(&answer.expect("it answers").body));
    }
    wait_until_let_in(&node, &made[59]);
    let alarms = |control: &ControlPlane| {
        let status = control.run(&["cluster", "status"]);
        let alarms = status["nodes"][0]["alarms"].as_array().expect("a list").clone();
        let words: Vec<String> =
            alarms.iter().map(|it| it.as_str().expect("a word").to_owned()).collect();
        words
    };
    eventually("the full disk is named", DEADLINE, || {
        let alarms = alarms(&control);
        let is_told = alarms.iter().any(|it| it.contains("not written"));
        (is_told && alarms.contains(&"disk".to_owned())).then_some(())
    });
    assert!(node.process.log().contains("could not be written; serving goes on from memory"));

    disk.empty().expect("it was filled");
    eventually("all is written", WRITTEN_AGAIN_MAX, || alarms(&control).is_empty().then_some(()));
    let status = control.wait_until_settled(1);
    assert_eq!(status["nodes"][0]["revision"], status["revision"], "acknowledged from disk");
    oracle.finish();
}
