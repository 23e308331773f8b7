//! What goes wrong between the processes of a cluster, and what clients notice of it: laws only. With
//! figures, and with more faults: `cargo xtask faults`, whose short ones CI runs as well.

use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use testbed::connection::Connection;
use testbed::eventually::{DEADLINE, eventually};
use testbed::faults::views::{PUBLIC, WRONG, held_back_view, misplaced_node};
use testbed::fleet::{Cluster, SETTLED_TIME_MAX};
use testbed::keys;
use testbed::larder::{DataDir, program};
use testbed::process::Process;

#[test]
fn a_view_that_is_held_back_is_never_stale_and_is_named() {
    assert!(held_back_view(Duration::ZERO).seen.reads > 0);
}

#[test]
fn a_node_at_a_public_address_is_named_and_nobody_connects_to_it() {
    assert!(misplaced_node(PUBLIC, Duration::ZERO).seen.reads > 0);
}

#[test]
fn a_node_at_a_wrong_private_address_is_named_and_owns_nothing() {
    assert!(misplaced_node(WRONG, Duration::ZERO).seen.reads > 0);
}

#[test]
fn another_machine_takes_the_place_of_a_node_and_no_slot_moves() {
    // Nobody shall be given up meanwhile.
    let mut cluster = Cluster::start_with(3, 1, &[("hold_down_seconds", "3600")]);
    let login = cluster.create_cache("shop", "dev");
    let count = 600;
    keys::set(&mut cluster.connect(0, &login), 0..count);
    let slots = |status: &serde_json::Value| {
        let members = status["members"].as_array().expect("a list of members").clone();
        members.into_iter().map(|it| (it["name"].clone(), it["share"].clone())).collect::<Vec<_>>()
    };
    let before = slots(&cluster.status());
    cluster.kill(1);
    cluster.replace(1);
    cluster.wait_until_settled(3);
    assert_eq!(slots(&cluster.status()), before);
    let mut client = cluster.connect(0, &login);
    let found = eventually("every key can be asked for again", DEADLINE, || {
        let found = keys::get(&mut client, 0..count).expect("it answers");
        (found.failures == 0).then_some(found)
    });
    let lost = found.misses as f64 / count as f64;
    assert!((lost - 1.0 / 3.0).abs() < 0.1, "its share is lost and nothing else: {found:?}");
    keys::set(&mut client, 0..count);
}

#[test]
fn a_node_that_was_given_up_and_comes_back_without_control_asks_the_others() {
    let mut cluster = Cluster::start_with(3, 1, &[("hold_down_seconds", "1")]);
    let login = cluster.create_cache("shop", "dev");
    // It has the credential on its disk.
    drop(cluster.connect(2, &login));
    cluster.kill(2);
    cluster.wait_until_settled(2);
    // A third of these is in slots that were its own.
    let count = 600;
    let mut before = cluster.connect(0, &login);
    keys::set(&mut before, 0..count);
    cluster.control.signal(Signal::KILL);
    cluster.control.wait_for_end(DEADLINE);

    cluster.restart(2);
    let mut back = cluster.connect(2, &login);
    let all = |client: &mut Connection, numbers: Range<u64>| {
        eventually("every key can be asked for", DEADLINE, || {
            let found = keys::get(client, numbers.clone()).expect("it answers");
            assert_eq!(found.misses, 0, "the others serve what it once did: {found:?}");
            (found.failures == 0).then_some(())
        });
    };
    all(&mut back, 0..count);
    // What is written through it is where the others read it.
    keys::set(&mut back, count..2 * count);
    all(&mut before, count..2 * count);

    cluster.restart_control();
    cluster.wait_until_settled(3);
    keys::set(&mut back, 0..count);
}

#[test]
fn a_killed_process_of_a_cluster_that_up_has_started_is_started_again() {
    let dir = DataDir::new();
    let mut command = Command::new(program());
    command.args(["up", "--nodes", "2", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
    command.args(["--memory", "128MiB", "--threads", "2", "--data"]).arg(dir.path());
    let mut up = Process::start(&mut command);
    up.wait_for_line("LARDER_CONTROL=");
    let is_whole = |status: &serde_json::Value| {
        let nodes = status["nodes"].as_array().expect("a list of nodes");
        status["settled_epoch"] == status["epoch"]
            && nodes.iter().filter(|it| it["connected"] == true && it["links"] == 2).count() == 2
    };
    let status = || {
        let output = dir.try_run(&["cluster", "status"]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()
    };
    eventually("all nodes are there", SETTLED_TIME_MAX, || status().filter(is_whole));
    // A node first, then control: each is killed and must be another process afterwards.
    for role in ["node", "control"] {
        let before = children(up.id(), role);
        let victim = *before.first().expect("it has such a child");
        let pid = rustix::process::Pid::from_raw(victim as i32).expect("a process has a number");
        rustix::process::kill_process(pid, Signal::KILL).expect("it is our child's child");
        eventually("it is started again", SETTLED_TIME_MAX, || {
            let now = children(up.id(), role);
            (now.len() == before.len() && !now.contains(&victim)).then_some(())
        });
        eventually("all nodes are there again", SETTLED_TIME_MAX, || status().filter(is_whole));
    }
    up.signal(Signal::TERM);
    assert!(up.wait_for_end(SETTLED_TIME_MAX).success());
}

/// Children of a process that run this command of ours.
fn children(of: u32, command: &str) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).expect("it runs");
    let lists = tasks
        .filter_map(Result::ok)
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let mut found: Vec<u32> = lists
        .flat_map(|list| list.split(' ').filter_map(|it| it.parse().ok()).collect::<Vec<u32>>())
        .filter(|child| {
            let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            line.split(|&byte| byte == 0).nth(1) == Some(command.as_bytes())
        })
        .collect();
    found.sort_unstable();
    found
}
