//! The push to nodes: real sockets, TLS, disks and engines, all in this one process; the database and
//! the data plane are pretended. `cargo xtask bench-control` plays a large fleet, for figures.

use std::error::Error;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::map::Epoch;
use control::push::authority::NODE_CERTIFICATE_LIFE;
use control::push::diagnosis::Fault;
use node::identity::Identity;
use rustls_pki_types::ServerName;
use testbed::eventually::{DEADLINE, eventually};
use testbed::push::measure::{Plan, run};
use testbed::push::pretend::{Pretend, credential};
use testbed::push::{Control, Manner, Node, empty_directory, node_name, unix_now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::control::digest::SetDigest;
use wire::control::message::{
    FromControl, FromNode, Hello, MESSAGE_BYTES_MAX, NodeAddresses, Reason, VERSIONS, Versions,
};
use wire::control::name::NodeName;
use wire::control::record::Revision;
use wire::frame::{Decoded, decode};

/// Introduces itself and then says nothing more.
async fn be_deaf(identity: Identity, address: SocketAddr) {
    let mut stream = connect(&identity, address).await.expect("the certificate is good");
    let hello = FromNode::Hello(hello_of(&identity));
    let mut bytes = Vec::new();
    hello.encode(VERSIONS.max, &mut bytes);
    stream.write_all(&bytes).await.expect("sent");
    stream.flush().await.expect("sent");
    let mut sink = vec![0; 64 * 1024];
    while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {}
}

/// Of a node that has nothing yet.
fn hello_of(identity: &Identity) -> Hello {
    Hello {
        versions: VERSIONS,
        cluster: identity.cluster,
        node: identity.node.clone(),
        incarnation: identity.incarnation,
        revision: Revision::ZERO,
        digest: SetDigest::EMPTY,
        has_copy: false,
        epoch: Epoch::new(0),
        addresses: NodeAddresses::default(),
        backends_mib: Vec::new(),
        software: String::new(),
    }
}

async fn connect(identity: &Identity, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let config = identity.client_config().expect("it has a certificate");
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("control.larder.internal").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

const NODES: usize = 3;

#[test]
fn a_fleet_has_every_commit_and_names_who_has_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let control = Control::start(Arc::new(Pretend::new(50, 10)), dir.path(), unix_now());
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let at = dir.path().join(format!("n{number}"));
        control.join(&at, &format!("n{number}"));
        nodes.push(Node::start(&control.address.to_string(), &at, empty_directory()));
    }
    for number in 0..50 {
        control.commit_and_wait(&format!("new-{number}"));
    }
    assert!(nodes.iter().all(|node| node.lets_in("u1-0") && node.lets_in("new-0")));

    // A flipped bit: the node comes back with it and is found out, named and healed.
    drop(nodes.pop());
    let name = format!("n{}", NODES - 1);
    let at = dir.path().join(&name);
    eventually("the node is away", DEADLINE, || {
        (control.troubles(&name) == ["disconnected"]).then_some(())
    });
    let address = control.address.to_string();
    let manner = Manner { damage: true, ..Manner::default() };
    let damaged = Node::start_as(&address, &at, empty_directory(), manner);
    eventually("the node is back", DEADLINE, || {
        (control.troubles(&name) != ["disconnected"]).then_some(())
    });
    eventually("the flipped bit is named", DEADLINE, || {
        let troubles = control.troubles(&name);
        troubles.iter().any(|it| it.starts_with("digest differs")).then_some(())
    });
    eventually("the copy is healed", DEADLINE, || control.troubles(&name).is_empty().then_some(()));
    control.commit_and_wait("after-healing");

    // A deaf node is named, and holds nobody up.
    let deaf = control.join(&dir.path().join("deaf"), "deaf");
    let task = control.runtime.spawn(be_deaf(deaf, control.address));
    eventually("the deaf node is named", DEADLINE, || {
        control.troubles("deaf").iter().any(|it| it == "deaf").then_some(())
    });
    let revision = control.source.commit(vec![credential("past-the-deaf", 1)]);
    all_have_it_but(&control, revision, "deaf");
    task.abort();

    // Control goes; what a node has on disk is enough.
    drop(damaged);
    let alone = Node::start("127.0.0.1:1", &at, empty_directory());
    assert!(alone.lets_in("past-the-deaf"));
}

/// Waits until every node but this one has said that it has a revision.
#[track_caller]
fn all_have_it_but(control: &Control, revision: Revision, name: &str) {
    eventually("all the others have the commit", DEADLINE, || {
        let applied = control.push.fleet.wait_applied(revision, Duration::from_millis(100));
        let missing = control.runtime.block_on(applied).missing;
        (missing.iter().map(NodeName::as_str).eq([name])).then_some(())
    });
}

#[test]
fn a_commit_arrives_over_a_long_distance() {
    let plan = Plan {
        nodes: 3,
        caches: 20,
        credentials_of_each: 2,
        commits: 5,
        round_trip: Duration::from_millis(150),
        check_all_within: Duration::from_secs(1),
        disks: None,
    };
    let report = run(&plan);
    let fastest = report.commits[0];
    assert!(plan.round_trip <= fastest, "{report}");
    // Within a second, as bench-control measures; a machine that stands still may take longer.
    assert!(report.commit_permille(1_000) < DEADLINE, "{report}");
}

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Gives a node that has joined a certificate for 30 days that began so many seconds ago. Returns it
/// as the node's file says it.
fn recertify(control: &Control, at: &Path, seconds_ago: u64) -> String {
    let path = at.join("identity.json");
    let text = fs::read_to_string(&path).expect("it has joined");
    let mut file: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let word = |name: &str| file[name].as_str().expect("names and keys are text").to_owned();
    let key = rcgen::KeyPair::from_pem(&word("key")).expect("it is a key");
    let made = control.push.authority.certify(
        &node_name(&word("node")),
        key.public_key_raw(),
        unix_now() - seconds_ago,
        NODE_CERTIFICATE_LIFE,
    );
    let made = made.expect("it is the node's key");
    let hex: String = made.der.iter().map(|byte| format!("{byte:02x}")).collect();
    file["certificate"] = hex.clone().into();
    file["certificate_not_after"] = made.not_after.into();
    fs::write(&path, file.to_string()).expect("it is ours");
    hex
}

/// The certificate of a node's file, and when it ends.
fn certificate(at: &Path) -> (String, u64) {
    let text = fs::read_to_string(at.join("identity.json")).expect("it has joined");
    let file: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let hex = file["certificate"].as_str().expect("it is text").to_owned();
    (hex, file["certificate_not_after"].as_u64().expect("it is a time"))
}

#[test]
fn a_certificate_that_has_ended_is_refused_and_serving_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = Arc::new(Pretend::new(5, 2));
    let control = Control::start(Arc::clone(&source), dir.path(), unix_now());
    let address = control.address.to_string();
    let (at, other) = (dir.path().join("late"), dir.path().join("other"));
    control.join(&at, "late");
    control.join(&other, "other");
    drop(Node::start(&address, &at, empty_directory()));
    let other = Node::start(&address, &other, empty_directory());
    // The first copy.
    {
        let _late = Node::start(&address, &at, empty_directory());
        control.commit_and_wait("before");
    }
    recertify(&control, &at, 31 * DAY);

    let identity = Identity::read(&at).expect("readable").expect("it has joined");
    let said = control.runtime.block_on(refusal_of_tls(&identity, control.address));
    assert!(said.contains("CertificateExpired"), "{said}");

    let late = Node::start(&address, &at, empty_directory());
    let revision = source.commit(vec![credential("after", 1)]);
    eventually("the other node has the commit", DEADLINE, || other.lets_in("after").then_some(()));
    all_have_it_but(&control, revision, "late");
    assert_eq!(control.troubles("late"), ["disconnected"]);
    assert!(late.lets_in("before") && !late.lets_in("after"));

    // What its log advises: a token that names it lets it join again.
    drop(late);
    let token = control.push.token(Some(node_name("late")), None).expect("chance is pretended");
    let again = Identity::join(&at, &token.0, &address, node_name("late"));
    control.runtime.block_on(again).expect("the token is for this node");
    let late = Node::start(&address, &at, empty_directory());
    eventually("it has the commit", DEADLINE, || late.lets_in("after").then_some(()));
}

/// What a TLS handshake with this identity comes to.
async fn refusal_of_tls(identity: &Identity, address: SocketAddr) -> String {
    let mut stream = match connect(identity, address).await {
        Ok(stream) => stream,
        Err(error) => return error.to_string(),
    };
    // TLS 1.3: the server's judgement of our certificate comes after our side of the handshake.
    match stream.read(&mut [0]).await {
        Ok(count) => format!("{count} bytes"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_certificate_is_renewed_before_it_ends() {
    let dir = tempfile::tempdir().expect("a folder");
    let control = Control::start(Arc::new(Pretend::new(5, 2)), dir.path(), unix_now());
    let at = dir.path().join("n0");
    control.join(&at, "n0");
    // 20 days and an hour of its 30 are over: a third is left, less an hour.
    let old = recertify(&control, &at, 20 * DAY + 3_600);
    let node = Node::start(&control.address.to_string(), &at, empty_directory());
    let not_after = eventually("the certificate is renewed", DEADLINE, || {
        let (hex, not_after) = certificate(&at);
        (hex != old).then_some(not_after)
    });
    assert!(unix_now() + 29 * DAY < not_after);
    control.commit_and_wait("with-the-connection-it-had");
    drop(node);
    let _again = Node::start(&control.address.to_string(), &at, empty_directory());
    control.commit_and_wait("with-the-new-certificate");

    // With more than a third left it is kept.
    let other = dir.path().join("n1");
    control.join(&other, "n1");
    let kept = recertify(&control, &other, 19 * DAY);
    let _other = Node::start(&control.address.to_string(), &other, empty_directory());
    control.commit_and_wait("one");
    // A report later it would have asked.
    let reported = || {
        let nodes = control.push.fleet.nodes();
        nodes[&node_name("n1")].report.is_some_and(|it| it.revision > Revision::new(1))
    };
    eventually("it has told how it is", DEADLINE, || reported().then_some(()));
    assert_eq!(certificate(&other).0, kept);
}

#[test]
fn who_has_no_good_token_is_refused_and_told_why() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = Arc::new(Pretend::new(5, 2));
    let yesterday = Control::start(Arc::clone(&source), dir.path(), unix_now() - DAY);
    let late = yesterday.push.token(None, None).expect("chance is pretended").0;
    drop(yesterday);
    let control = Control::start(source, dir.path(), unix_now());
    let elsewhere_dir = tempfile::tempdir().expect("a folder");
    let elsewhere = Control::start(Arc::new(Pretend::new(1, 1)), elsewhere_dir.path(), unix_now());
    let token = |of: &Control, name| of.push.token(name, None).expect("chance is pretended").0;
    let good = token(&control, None);
    let mut forged = good.clone();
    let last = forged.pop().expect("it has letters");
    forged.push(if last == 'A' { 'B' } else { 'A' });
    let at = dir.path().join("n0");
    control.join(&at, "n0");
    let first = Node::start(&control.address.to_string(), &at, empty_directory());
    control.commit_and_wait("before");

    let cases = [
        (late.as_str(), "n1", "ended 82800 s ago"),
        (&forged, "n1", ""),
        (&token(&control, Some(node_name("n2"))), "n1", "another node"),
        (&token(&elsewhere, None), "n1", "UnknownIssuer"),
        (&good, "n0", "there is such a node"),
        ("larder1_", "n1", ""),
        ("", "n1", ""),
    ];
    for (number, (token, name, why)) in cases.into_iter().enumerate() {
        let at = dir.path().join(format!("refused-{number}"));
        let address = control.address.to_string();
        let joined = Identity::join(&at, token, &address, node_name(name));
        let error = control.runtime.block_on(joined).expect_err("it must not join");
        let chain = std::iter::successors(Some(&error as &dyn Error), |&error| error.source());
        let told: Vec<String> = chain.map(ToString::to_string).collect();
        assert!(told.join(": ").contains(why), "{why}: {told:?}");
        assert!(!at.join("identity.json").exists(), "{why}");
    }
    control.commit_and_wait("after");
    assert!(first.lets_in("after"));
}

#[test]
fn garbage_from_strangers_and_nodes_ends_their_own_connections_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let control = Control::start(Arc::new(Pretend::new(5, 2)), dir.path(), unix_now());
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    control.join(&good, "good");
    let bad = control.join(&bad, "bad");
    let node = Node::start(&control.address.to_string(), &good, empty_directory());
    let hello = hello_of(&bad);
    let mut foreign = hello.clone();
    foreign.node = node_name("good");
    let mut future = hello.clone();
    future.versions = Versions { min: 200, max: 201 };
    let encode = |hello: Hello| {
        let mut bytes = Vec::new();
        FromNode::Hello(hello).encode(VERSIONS.max, &mut bytes);
        bytes
    };
    let mut twice = encode(hello.clone());
    twice.extend(encode(hello));
    let mut endless = u32::MAX.to_le_bytes().to_vec();
    endless.extend([0; 100]);

    for (what, bytes, refused) in [
        ("garbage", b"GET / HTTP/1.1\r\n\r\n".to_vec(), None),
        ("a frame without end", endless, None),
        ("another node's name", encode(foreign), Some(Reason::WrongName)),
        ("HELLO twice", twice, Some(Reason::Unexpected)),
        ("no common version", encode(future), Some(Reason::Version)),
    ] {
        let answers = control.runtime.block_on(async {
            let mut stream = connect(&bad, control.address).await.expect("the certificate is good");
            stream.write_all(&bytes).await.expect("sent");
            stream.flush().await.expect("sent");
            let mut answers = Vec::new();
            // However it closes, it is closed.
            drop(timeout(DEADLINE, stream.read_to_end(&mut answers)).await.expect("it is closed"));
            answers
        });
        assert_eq!(last_refusal(&answers), refused, "{what}");
    }
    let found = control.push.diagnose();
    let named = found.iter().find(|it| it.fault == Fault::OtherVersion);
    assert_eq!(named.map(|it| it.node.as_str()), Some("bad"), "{found:?}");
    // A stranger without TLS.
    control.runtime.block_on(async {
        let mut stream = TcpStream::connect(control.address).await.expect("control listens");
        stream.write_all(b"larder, let me in\r\n").await.expect("sent");
        let mut answer = Vec::new();
        drop(timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it is closed"));
    });
    let revision = control.source.commit(vec![credential("after", 1)]);
    eventually("the good node goes on", DEADLINE, || node.lets_in("after").then_some(()));
    assert!(control.troubles("good").is_empty());
    assert_eq!(control.push.publisher.head().0, revision);
}

/// Why the control plane refused, as it said last of all it said.
fn last_refusal(mut answers: &[u8]) -> Option<Reason> {
    let mut last = None;
    while let Ok(Decoded::Frame { frame, consumed }) = decode(answers, MESSAGE_BYTES_MAX) {
        let message = FromControl::decode(&frame).expect("control sends messages");
        last =
            if let FromControl::Refused(refusal) = message { Some(refusal.reason) } else { None };
        answers = &answers[consumed..];
    }
    last
}
