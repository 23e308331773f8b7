//! Three nodes with two backends each, in one process, over real sockets: what a client sees of a
//! cluster, whichever proxy it talks to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use backend::Backend;
use backend::peer::{PeerServer, PeerSettings};
use cluster::map::Epoch;
use cluster::member::{Incarnation, MemberName, Weight};
use cluster::ownership::Run;
use cluster::scheme::Scheme;
use cluster::slot::SLOTS;
use daemon::clock::Clock;
use daemon::networks::Networks;
use proxy::Proxy;
use proxy::cluster_handle::ClusterHandle;
use proxy::settings::{Access, LinkSettings, ProxySettings};
use proxy::usage::ProxyUsage;
use proxy::view::{ClusterView, ViewIdentity};
use tenancy::directory::Directory;
use tenancy::id::CacheId;
use tenancy::plan::Limits;
use tenancy::secret::SecretKey;
use wire::control::name::{ClusterId, NodeName};
use wire::control::topology::{MemberSet, Placement, Topology, TopologyMember};

use larder::local_link::LocalLink;

const NODES: usize = 3;
const BACKENDS: usize = 2;
const MEMBERS: usize = NODES * BACKENDS;
const CACHE: CacheId = CacheId::new(7);
const CLUSTER: ClusterId = ClusterId::new([1; 16]);
/// Nothing here takes long; a machine that is busy otherwise may.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn what_one_proxy_stores_the_others_read_and_a_dead_node_costs_its_share_only() {
    const KEYS: usize = 100_000;
    let mut cluster = Cluster::start();
    let mut first = cluster.client(0);
    first.set_all(KEYS);
    for proxy in 1..NODES {
        assert_eq!(cluster.client(proxy).count_found(KEYS), KEYS, "through proxy {proxy}");
    }
    let stats = cluster.client(2).stats();
    assert_eq!(stats["curr_items"], KEYS as u64, "each item counts once");
    assert_eq!(stats["cmd_set"], KEYS as u64);

    // The third node goes; its proxy too, so only the others are asked.
    let share = cluster.share_of_node(2);
    cluster.kill(2);
    for proxy in 0..2 {
        let found = cluster.client(proxy).count_found(KEYS);
        let lost = (KEYS - found) as f64 / KEYS as f64;
        assert!((lost - share).abs() < 0.005, "lost {lost}, its share is {share}");
    }

    let mut client = cluster.client(0);
    let answer = client.ask("flush_all\r\n");
    assert!(answer.starts_with("SERVER_ERROR not flushed everywhere"), "{answer}");
    assert_eq!(client.count_found(1_000), 0);
}

#[test]
fn a_flush_through_one_proxy_is_felt_through_all() {
    let cluster = Cluster::start();
    cluster.client(0).set_all(2_000);
    assert_eq!(cluster.client(1).ask("flush_all\r\n"), "OK\r\n");
    assert_eq!(cluster.client(2).count_found(2_000), 0);
}

#[test]
fn no_client_reads_an_old_value_while_slots_move_and_proxies_hear_of_it_late() {
    let cluster = Arc::new(Cluster::start());
    let stop = Arc::new(AtomicBool::new(false));
    let (writes, misses) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // Each writer has keys of its own, writes through one proxy and reads through another.
    let writers = (0..4).map(|writer| {
        let cluster = Arc::clone(&cluster);
        let (stop, writes, misses) = (Arc::clone(&stop), Arc::clone(&writes), Arc::clone(&misses));
        std::thread::spawn(move || {
            let mut through: Vec<Client> = (0..NODES).map(|proxy| cluster.client(proxy)).collect();
            let mut number = 0_u64;
            while !stop.load(Relaxed) {
                for key in 0..50 {
                    number += 1;
                    let writing = (number % 3) as usize;
                    let set = format!("set w{writer}.{key} 0 0 20\r\n{number:020}\r\n");
                    let stored = through[writing].ask(&set);
                    assert_eq!(stored, "STORED\r\n", "a planned move fails nothing");
                    for reader in &mut through {
                        match reader.get(&format!("w{writer}.{key}")) {
                            Some(value) => assert_eq!(value, format!("{number:020}"), "stale"),
                            None => {
                                misses.fetch_add(1, Relaxed);
                            }
                        }
                    }
                    writes.fetch_add(1, Relaxed);
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let progress = |count: u64| {
        let until = writes.load(Relaxed) + count;
        eventually("the writers go on", || {
            until <= writes.load(Relaxed) || writers.iter().any(|writer| writer.is_finished())
        });
    };
    progress(200);
    for epoch in 2..8 {
        // Every slot goes to the next member; the backends hear of it one by one, in an order that
        // changes, and the proxies later than the backends.
        let owners = (0..SLOTS).map(|slot| ((slot as usize + epoch) % MEMBERS) as u16).collect();
        let topology = cluster.topology(epoch as u64, Placement::Owners(owners));
        let settled = Epoch::new(epoch as u64 - 1);
        cluster.backends().for_each(|backend| backend.slots().prepare(&topology));
        for turn in 0..MEMBERS {
            let member = (turn * 5 + epoch) % MEMBERS;
            let backend = &cluster.nodes[member / BACKENDS].backends[member % BACKENDS];
            backend.slots().commit(&topology, settled);
            progress(20);
        }
        // The third proxy keeps the view of the first epoch all the time, so that it meets backends
        // that have forgotten to whom they gave a slot.
        for node in &cluster.nodes[..2] {
            node.follow(&topology);
            progress(20);
        }
        cluster.backends().for_each(|backend| backend.slots().settle(Epoch::new(epoch as u64)));
    }
    stop.store(true, Relaxed);
    for writer in writers {
        writer.join().expect("no value was stale and no request failed");
    }
    // Slots arrive empty, so there are misses; but most of the time the value is there.
    let (misses, reads) = (misses.load(Relaxed), 3 * writes.load(Relaxed));
    assert!(misses * 2 < reads, "{misses} of {reads} reads found nothing");
}

struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    name: NodeName,
    backends: Vec<Arc<Backend>>,
    /// Taken away when the node is killed.
    running: Option<(PeerServer, Proxy)>,
    peer_address: SocketAddr,
    proxy_address: SocketAddr,
    handle: ClusterHandle,
}

impl Cluster {
    /// Every proxy is connected to every backend when it returns.
    fn start() -> Self {
        let cluster = Cluster { nodes: (0..NODES).map(Node::start).collect() };
        let topology = cluster.topology(1, Placement::Scheme(Scheme::Maglev));
        for node in &cluster.nodes {
            for backend in &node.backends {
                backend.slots().commit(&topology, Epoch::new(1));
            }
            node.follow(&topology);
        }
        for node in &cluster.nodes {
            eventually("every member is reached", || {
                node.handle.reached(&topology, &node.identity()) == MemberSet::first(MEMBERS)
            });
        }
        cluster
    }

    fn topology(&self, epoch: u64, placement: Placement) -> Topology {
        let members = self.nodes.iter().flat_map(|node| {
            (0..BACKENDS).map(|number| TopologyMember {
                name: member_name(&node.name, number),
                node: node.name.clone(),
                incarnation: Incarnation::new(1),
                address: node.peer_address,
                weight: Weight::new(1),
            })
        });
        Topology::new(Epoch::new(epoch), [3; 16], members.collect(), placement)
            .expect("six good members")
    }

    fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.nodes.iter().flat_map(|node| &node.backends)
    }

    fn share_of_node(&self, node: usize) -> f64 {
        let topology = self.topology(1, Placement::Scheme(Scheme::Maglev));
        let shares = topology.map().table().shares();
        shares[node * BACKENDS..][..BACKENDS].iter().sum()
    }

    fn client(&self, proxy: usize) -> Client {
        let socket = TcpStream::connect(self.nodes[proxy].proxy_address).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        socket.set_nodelay(true).expect("a socket has this option");
        let reader = BufReader::new(socket.try_clone().expect("a descriptor is free"));
        Client { socket, reader }
    }

    fn kill(&mut self, node: usize) {
        let (server, proxy) = self.nodes[node].running.take().expect("it lives");
        server.drain();
        proxy.stopper().drain();
        server.join();
        proxy.join();
    }
}

impl Node {
    fn start(number: usize) -> Self {
        let name = NodeName::parse(&format!("node-{number}")).expect("a good name");
        let clock = Clock::start();
        let limits = Limits {
            memory_bytes: 64 << 20,
            item_bytes_max: 1 << 20,
            connections_max: 99,
            rates: tenancy::plan::Rates::UNLIMITED,
        };
        let backends: Vec<_> = (0..BACKENDS)
            .map(|number| {
                let run =
                    Run { name: member_name(&name, number), incarnation: Incarnation::new(1) };
                let backend = Arc::new(Backend::member(128 << 20, 5, run));
                backend.create_cache(CACHE, limits).expect("there is room");
                backend
            })
            .collect();
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = PeerSettings {
            listen: any_port,
            threads: 1,
            cluster: CLUSTER,
            tls: None,
            drain_timeout: Duration::ZERO,
        };
        let server = PeerServer::start(settings, backends.clone(), clock).expect("a free port");
        let directory = Directory::new(SecretKey::new([3; 32]));
        directory.put_cache(CACHE, limits, true);
        let handle = ClusterHandle::default();
        let proxy = Proxy::start(
            ProxySettings {
                listen: Some(any_port),
                tls_listen: None,
                threads: 1,
                spin: Duration::ZERO,
                access: Access::Everyone(CACHE),
                authentication_timeout: PATIENCE,
                request_timeout: PATIENCE,
                idle_timeout: None,
                drain_timeout: Duration::ZERO,
                connections_max: 100,
                output_bytes_max: 4 << 20,
                input_bytes_max: 64 << 20,
                links: LinkSettings {
                    // A machine that is busy otherwise is not a silent backend.
                    request_timeout: PATIENCE,
                    silence: PATIENCE,
                    ..LinkSettings::default()
                },
            },
            None,
            Arc::new(directory),
            Arc::new(LocalLink(backends.clone())),
            Arc::new(ProxyUsage::default()),
            clock,
            handle.clone(),
        )
        .expect("a free port");
        Node {
            name,
            backends,
            peer_address: server.address(),
            proxy_address: proxy.plain_address().expect("it was asked for"),
            running: Some((server, proxy)),
            handle,
        }
    }

    fn identity(&self) -> ViewIdentity {
        ViewIdentity {
            cluster: CLUSTER,
            node: self.name.clone(),
            incarnation: Incarnation::new(1),
            backends: BACKENDS,
        }
    }

    fn follow(&self, topology: &Topology) {
        let networks = Networks::private();
        let view = ClusterView::of_topologies(&self.identity(), Some(topology), None, &networks);
        self.handle.set_view(view.expect("there is a topology"));
    }
}

/// A client of the text dialect.
struct Client {
    socket: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Sends one command and reads one line.
    fn ask(&mut self, command: &str) -> String {
        self.socket.write_all(command.as_bytes()).expect("the proxy reads");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("the proxy answers");
        line
    }

    fn get(&mut self, key: &str) -> Option<String> {
        let first = self.ask(&format!("get {key}\r\n"));
        if first == "END\r\n" {
            return None;
        }
        assert!(first.starts_with("VALUE "), "{first}");
        let value = self.line();
        assert_eq!(self.line(), "END\r\n");
        Some(value.trim_end().to_owned())
    }

    fn set_all(&mut self, keys: usize) {
        let mut socket = self.socket.try_clone().expect("a descriptor is free");
        let writer = std::thread::spawn(move || {
            for number in 0..keys {
                let set = format!("set key{number} 0 0 9\r\n{number:09}\r\n");
                socket.write_all(set.as_bytes()).expect("the proxy reads");
            }
        });
        for number in 0..keys {
            assert_eq!(self.line(), "STORED\r\n", "key {number}");
        }
        writer.join().expect("it wrote");
    }

    /// Reads all keys, a hundred per command, and checks every value.
    fn count_found(&mut self, keys: usize) -> usize {
        let mut found = 0;
        for hundred in (0..keys).step_by(100) {
            let names: Vec<_> =
                (hundred..keys.min(hundred + 100)).map(|number| format!("key{number}")).collect();
            let mut line = self.ask(&format!("get {}\r\n", names.join(" ")));
            while line != "END\r\n" {
                let key = line.split(' ').nth(1).expect("VALUE <key> <flags> <bytes>").to_owned();
                let mut value = [0; 11];
                self.reader.read_exact(&mut value).expect("the value comes");
                let number: usize = key[3..].parse().expect("keyN");
                assert_eq!(value, *format!("{number:09}\r\n").as_bytes());
                found += 1;
                line = self.line();
            }
        }
        found
    }

    fn stats(&mut self) -> HashMap<String, u64> {
        let mut stats = HashMap::new();
        let mut line = self.ask("stats\r\n");
        while line != "END\r\n" {
            let mut words = line.split_whitespace().skip(1);
            let (Some(name), Some(value)) = (words.next(), words.next()) else { panic!("{line}") };
            if let Ok(value) = value.parse() {
                assert_eq!(stats.insert(name.to_owned(), value), None, "{name} is there twice");
            }
            line = self.line();
        }
        stats
    }
}

fn member_name(node: &NodeName, number: usize) -> MemberName {
    MemberName::parse(&format!("{}.b{number}", node.as_str())).expect("a good name")
}

#[track_caller]
fn eventually(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::yield_now();
    }
}
