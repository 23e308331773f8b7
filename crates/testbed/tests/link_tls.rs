//! Links between nodes under TLS, with real processes: a cluster serves as without, and neither
//! strangers nor nodes in the place of others are spoken to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::push::authority::Authority;
use node::identity::Identity;
use rcgen::KeyPair;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use testbed::connection::{Connection, Login};
use testbed::eventually::{DEADLINE, eventually};
use testbed::fleet::{Cluster, SETTLED_TIME_MAX};
use testbed::keys;
use testbed::larder::{DataDir, program, resolve};
use testbed::process::Process;
use wire::control::name::NodeName;

#[test]
fn a_cluster_under_tls_serves_through_every_proxy_and_lets_no_stranger_in() {
    const KEYS: u64 = 1_000;
    let dir = DataDir::new();
    let mut command = Command::new(program());
    command.args(["up", "--nodes", "2", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"]);
    command.args(["--memory", "128MiB", "--threads", "2", "--data"]).arg(dir.path());
    let mut up = Process::start(command.env("LARDER_LINK_TLS", "only"));
    up.wait_for_line("LARDER_CONTROL=");
    let line = |prefix| up.line_after(prefix).expect("it is written before");
    let login =
        Login { username: line("MEMCACHIER_USERNAME="), password: line("MEMCACHIER_PASSWORD=") };
    let servers = line("MEMCACHIER_SERVERS=");
    let mut through: Vec<Connection> =
        servers.split(',').map(|server| Connection::open_as(resolve(server), &login)).collect();
    keys::set(&mut through[0], 0..KEYS);
    // An answer that came too late on a busy machine is no loss, and is asked for again.
    eventually("all are read through the other proxy", SETTLED_TIME_MAX, || {
        let found = keys::get(&mut through[1], 0..KEYS).expect("it answers");
        assert_eq!(found.misses, 0, "{found:?}");
        (found.hits == KEYS).then_some(())
    });

    let status = Command::new(program())
        .args(["cluster", "status", "--json", "--data"])
        .arg(dir.path())
        .output()
        .expect("the program that serves can also be run as a command");
    let status: Value = serde_json::from_slice(&status.stdout).expect("it prints JSON");
    let peers: SocketAddr = resolve(status["nodes"][1]["peers"].as_str().expect("it listens"));
    assert!(is_shut_out(dial(peers)), "without TLS");
    let name = NodeName::parse("node-1").expect("a good name").certificate_name();
    let name = ServerName::try_from(name).expect("a name of a host");
    let session = ClientConnection::new(stranger(dir.path()), name).expect("good settings");
    assert!(is_shut_out(StreamOwned::new(session, dial(peers))), "of another authority");
    eventually("the log tells of both", DEADLINE, || {
        let log = up.log();
        (log.matches("link refused: no TLS with a node of this cluster").count() == 2).then_some(())
    });
}

#[test]
fn a_node_in_the_place_of_another_is_not_spoken_to() {
    // Nobody takes n1's slots meanwhile, so n0 looks for it all the time.
    let settings = [("link_tls", "only"), ("hold_down_seconds", "3600")];
    let mut cluster = Cluster::start_with(2, 1, &settings);
    let peers = cluster.nodes[1].process.line_after("LARDER_PEERS=").expect("it listens");
    cluster.kill(1);
    let listener = TcpListener::bind(resolve(&peers)).expect("n1 has ended");
    listener.set_nonblocking(true).expect("a socket has this option");
    let (socket, _) = eventually("n0 connects", DEADLINE, || listener.accept().ok());
    socket.set_nonblocking(false).expect("a socket has this option");
    socket.set_read_timeout(Some(DEADLINE)).expect("it is no zero");
    // A certificate of the cluster, but n0's own.
    let n0 = Identity::read(&cluster.data_of("n0")).expect("it can be read").expect("it joined");
    let config = n0.server_config().expect("it has a certificate");
    let session = ServerConnection::new(Arc::new(config)).expect("good settings");
    assert!(is_shut_out(StreamOwned::new(session, socket)), "n0 spoke to it");
    eventually("the log tells", DEADLINE, || {
        let log = cluster.nodes[0].process.log();
        log.contains("link refused: no TLS with the node of this member").then_some(())
    });
}

#[test]
fn a_running_cluster_changes_over_node_by_node() {
    let mut cluster = Cluster::start(2, 1);
    let login = cluster.create_cache("shop", "dev");
    // By the way, each kind meets each other one that it may meet.
    for (node, link_tls) in [(0, "either"), (1, "either"), (0, "only")] {
        cluster.set("link_tls", link_tls);
        cluster.kill(node);
        cluster.restart(node);
        eventually("each proxy finds what the other one stored", SETTLED_TIME_MAX, || {
            find_each_others(&cluster, &login)
        });
    }
}

/// `None` as long as anything fails.
fn find_each_others(cluster: &Cluster, login: &Login) -> Option<()> {
    for (writer, reader) in [(0, 1), (1, 0)] {
        let mut writer = cluster.connect(writer, login);
        let mut reader = cluster.connect(reader, login);
        for number in 0..30 {
            writer.send(format!("set k{number} 0 0 1\r\n{}\r\n", number % 10).as_bytes());
            (writer.try_line().ok()? == "STORED\r\n").then_some(())?;
            reader.send(format!("get k{number}\r\n").as_bytes());
            (reader.try_line().ok()? == format!("VALUE k{number} 0 1\r\n")).then_some(())?;
            reader.expect(format!("{}\r\nEND\r\n", number % 10).as_bytes());
        }
    }
    Some(())
}

fn dial(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("it is no zero");
    socket
}

/// Whether the other end closes without a word.
fn is_shut_out(mut socket: impl Read + Write) -> bool {
    // It may have closed already.
    drop(socket.write_all(b"whatever is no greeting of ours, it gets no answer"));
    let mut first = [0];
    match socket.read(&mut first) {
        Ok(read) => read == 0 || first == ALERT,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// How TLS tells in the clear that it was not understood (RFC 8446, 5.1).
const ALERT: [u8; 1] = [21];

/// What trusts the cluster and shows a certificate of another one.
fn stranger(cluster: &Path) -> Arc<ClientConfig> {
    let elsewhere = DataDir::new();
    let theirs = Authority::open(elsewhere.path()).expect("it is made");
    let ours = Authority::open(cluster).expect("control has made it");
    let key = KeyPair::generate().expect("a key");
    let name = NodeName::parse("node-0").expect("a good name");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let hour = Duration::from_secs(3_600);
    let made = theirs.certify(&name, key.public_key_raw(), now, hour).expect("a good key");
    let mut roots = RootCertStore::empty();
    roots.add(ours.certificate().clone()).expect("an authority");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key as rustls wants it");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![CertificateDer::from(made.der)], key)
        .expect("they were made for each other");
    Arc::new(config)
}
