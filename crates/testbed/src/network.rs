//! Places of their own for the nodes of a cluster, and a network between them that is as bad as a test
//! wants: packets that come late, come not, or come in one direction only.
//!
//! ```text
//!    this process: clients, control                  10.219.a.1 … 10.219.b.1
//!         │ veth, good                                    │ veth, good
//!    ┌────▼──── place 0 ────┐                      ┌──────▼── place 1 ────┐
//!    │ 10.219.a.2           │                      │ 10.219.b.2           │
//!    │ 10.220.c.1 ─── tun ──┼──▶ relay: late? ──▶──┼── tun ── 10.220.c.2  │   between nodes
//!    └──────────────────────┘        lost?         └──────────────────────┘
//! ```
//!
//! With [`Network::with_here`] this process is at such a place, too: what it reaches by a place's inside
//! address, or listens for at its own, is on the bad network as well.
//!
//! Network namespaces with real TCP at both ends (network_namespaces(7)); only what is between them is
//! pretended, packet by packet. So retransmissions, their timers and head-of-line blocking are the
//! kernel's own. Needs root, `ip` and `/dev/net/tun`; the kernel needs no module for bad networks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

/// What fits a third byte of an address, with room for other networks of this machine.
const PLACES_MAX: usize = 50;
/// Packets that are on their way, late: beyond them they are lost, as in a router that is full.
const LATE_MAX: usize = 100_000;
/// Read from one device before the others have their turn.
const BATCH: usize = 64;
/// How often the relay looks whether it shall end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Places with a network between them, taken down when dropped.
pub struct Network {
    places: Vec<Place>,
    shared: Arc<Shared>,
    relay: Option<JoinHandle<()>>,
}

/// Where one node is.
#[derive(Debug)]
pub struct Place {
    namespace: String,
    /// Where this process is, as seen from there.
    pub here: Ipv4Addr,
    /// Where clients reach it.
    pub outside: Ipv4Addr,
    /// Where the other places reach it.
    pub inside: Ipv4Addr,
}

/// What becomes of packets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weather {
    /// The part of them that comes late.
    pub late: f64,
    /// By how much, each by another time in between.
    pub by: Range<Duration>,
    /// The part that is lost.
    pub lost: f64,
}

struct Shared {
    /// By sender and receiver.
    weather: Mutex<Vec<Vec<Weather>>>,
    /// The third byte of every inside address.
    inside: u8,
    packets: AtomicU64,
    shall_end: AtomicBool,
}

impl Weather {
    pub const GOOD: Weather = Weather { late: 0.0, by: Duration::ZERO..Duration::ZERO, lost: 0.0 };
    /// Nothing arrives.
    pub const NONE: Weather = Weather { late: 0.0, by: Duration::ZERO..Duration::ZERO, lost: 1.0 };
    /// What a provider's network once did to all machines of a cluster for hours (F1).
    pub const STORM: Weather =
        Weather { late: 0.15, by: Duration::from_millis(5)..Duration::from_millis(15), lost: 0.01 };
}

impl Network {
    /// So many places, with good weather between all of them.
    ///
    /// # Errors
    /// When this machine does not permit it, in words.
    pub fn new(count: usize) -> Result<Network, String> {
        Network::make(count, false)
    }

    /// The same, and this process is at one more place of it: [`Network::here`].
    ///
    /// # Errors
    /// When this machine does not permit it, in words.
    pub fn with_here(count: usize) -> Result<Network, String> {
        Network::make(count, true)
    }

    fn make(count: usize, is_here: bool) -> Result<Network, String> {
        assert!(count < PLACES_MAX, "an address has no room for more");
        let all = count + usize::from(is_here);
        // Others of this machine may do the same at the same time; only what is here would be in the way.
        let inside = u8::try_from(std::process::id() % 250).expect("it is below 250");
        let shared = Shared {
            weather: Mutex::new(vec![vec![Weather::GOOD; all]; all]),
            inside,
            packets: AtomicU64::new(0),
            shall_end: AtomicBool::new(false),
        };
        let mut network = Network { places: Vec::new(), shared: Arc::new(shared), relay: None };
        let mut devices = Vec::new();
        for number in 0..count {
            devices.push(network.add_place(number)?);
        }
        if is_here {
            devices.push(network.join()?);
        }
        let shared = Arc::clone(&network.shared);
        network.relay = Some(thread::spawn(move || Relay::new(devices, shared).run()));
        Ok(network)
    }

    /// The number of the place of this process, if it was made with one.
    pub fn here(&self) -> usize {
        self.places.len()
    }

    /// Where this process is on the bad network, if it is there.
    pub fn here_inside(&self) -> Ipv4Addr {
        self.inside_of(self.here())
    }

    fn inside_of(&self, number: usize) -> Ipv4Addr {
        let last = u8::try_from(number + 1).expect("there are few places");
        Ipv4Addr::new(10, 220, self.shared.inside, last)
    }

    /// Gives this process a device of its own. It goes when it is closed.
    fn join(&self) -> Result<SyncDevice, String> {
        let name = format!("lt{}here", std::process::id());
        let device = tun(&name)?;
        ip(&format!("address add {}/24 dev {name}", self.here_inside()))?;
        ip(&format!("link set {name} up"))?;
        Ok(device)
    }

    pub fn place(&self, number: usize) -> &Place {
        &self.places[number]
    }

    /// From now on this becomes of packets from one place to another.
    pub fn set(&self, from: usize, to: usize, weather: &Weather) {
        self.weather()[from][to] = weather.clone();
    }

    /// The same between all places.
    pub fn set_all(&self, weather: &Weather) {
        for row in self.weather().iter_mut() {
            row.fill(weather.clone());
        }
    }

    /// Packets that went from place to place so far.
    pub fn packets(&self) -> u64 {
        self.shared.packets.load(Relaxed)
    }

    fn weather(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Weather>>> {
        self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_place(&mut self, number: usize) -> Result<SyncDevice, String> {
        let own = std::process::id();
        // Others of this machine may do the same at the same time.
        let third = (own as usize * PLACES_MAX + number) % 250;
        let byte = |number: usize| u8::try_from(number).expect("it is below 256");
        let place = Place {
            namespace: format!("larder-{own}-{number}"),
            here: Ipv4Addr::new(10, 219, byte(third), 1),
            outside: Ipv4Addr::new(10, 219, byte(third), 2),
            inside: self.inside_of(number),
        };
        let Place { namespace, here, outside, inside } = &place;
        let (near, far, name) =
            (format!("lv{own}n{number}"), format!("lv{own}f{number}"), format!("lt{own}n{number}"));
        ip(&format!("netns add {namespace}"))?;
        // From here on it is taken down again, whatever fails.
        let at = |words: &str| ip(&format!("-netns {namespace} {words}"));
        let make = || -> Result<SyncDevice, String> {
            ip(&format!("link add {near} type veth peer name {far}"))?;
            ip(&format!("link set {far} netns {namespace}"))?;
            ip(&format!("address add {here}/30 dev {near}"))?;
            ip(&format!("link set {near} up"))?;
            at("link set lo up")?;
            at(&format!("address add {outside}/30 dev {far}"))?;
            at(&format!("link set {far} up"))?;
            let device = tun(&name)?;
            ip(&format!("link set {name} netns {namespace}"))?;
            at(&format!("address add {inside}/24 dev {name}"))?;
            at(&format!("link set {name} up"))?;
            Ok(device)
        };
        let made = make();
        self.places.push(place);
        made
    }
}

impl Place {
    /// Words before a program's name that run it there.
    pub fn under(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace].map(str::to_owned).to_vec()
    }

    /// Sets a parameter of the kernel there, such as `net.ipv4.tcp_rto_min_us`.
    ///
    /// # Errors
    /// When the kernel has no such parameter for a namespace, in words.
    pub fn set_kernel(&self, parameter: &str, value: &str) -> Result<(), String> {
        let file = format!("/proc/sys/{}", parameter.replace('.', "/"));
        let write = format!("echo {value} > {file}");
        let mut command = Command::new("ip");
        done(command.args(["netns", "exec", &self.namespace, "sh", "-c", &write]))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.shall_end.store(true, Relaxed);
        if let Some(relay) = self.relay.take() {
            // It panics only by a mistake of ours, which it has told.
            drop(relay.join());
        }
        for Place { namespace, .. } in &self.places {
            // Its devices go with it.
            drop(ip(&format!("netns delete {namespace}")));
        }
    }
}

/// A device whose packets the relay takes and gives.
fn tun(name: &str) -> Result<SyncDevice, String> {
    let device = DeviceBuilder::new()
        .name(name)
        .inherit_enable_state()
        .build_sync()
        .map_err(|error| format!("no tun device: {error}"))?;
    device.set_nonblocking(true).map_err(|error| error.to_string())?;
    Ok(device)
}

fn ip(words: &str) -> Result<(), String> {
    done(Command::new("ip").args(words.split(' ')))
}

fn done(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}

/// Passes packets on from device to device.
struct Relay {
    devices: Vec<SyncDevice>,
    shared: Arc<Shared>,
    late: BinaryHeap<Reverse<Late>>,
    chance: Chance,
    count: u64,
}

/// A packet on its way; ordered by when it is due, then by when it came.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    due: Instant,
    number: u64,
    to: usize,
    packet: Vec<u8>,
}

impl Relay {
    fn new(devices: Vec<SyncDevice>, shared: Arc<Shared>) -> Relay {
        Relay {
            devices,
            shared,
            late: BinaryHeap::new(),
            chance: Chance(0x9e37_79b9_7f4a_7c15),
            count: 0,
        }
    }

    fn run(mut self) {
        let mut packet = vec![0; 1 << 16];
        while !self.shared.shall_end.load(Relaxed) {
            self.send_due();
            self.wait();
            for from in 0..self.devices.len() {
                for _ in 0..BATCH {
                    // Nothing more is there, or the namespace is gone.
                    let Ok(bytes) = self.devices[from].recv(&mut packet) else { break };
                    self.pass(from, &packet[..bytes]);
                }
            }
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while self.late.peek().is_some_and(|Reverse(late)| late.due <= now) {
            let Some(Reverse(Late { to, packet, .. })) = self.late.pop() else { return };
            self.send(to, &packet);
        }
    }

    /// Until a packet comes, one is due, or it is time to look around.
    fn wait(&self) {
        let next = self.late.peek().map(|Reverse(late)| late.due);
        let next = next.map_or(LOOK_EVERY, |due| due.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(next.min(LOOK_EVERY)).expect("it is short");
        let mut all: Vec<PollFd<'_>> =
            self.devices.iter().map(|device| PollFd::new(device, PollFlags::IN)).collect();
        // Interrupted is as good as over.
        poll(&mut all, Some(&timeout)).ok();
    }

    fn pass(&mut self, from: usize, packet: &[u8]) {
        // An IPv4 header has its destination there (RFC 791); the last byte is the number of the place.
        // What else the kernel says to its neighbours, nobody needs.
        let Some(&[10, 220, third, last]) = packet.get(16..20) else { return };
        let to = usize::from(last).wrapping_sub(1);
        let is_ours = packet[0] >> 4 == 4 && third == self.shared.inside;
        if !is_ours || self.devices.len() <= to {
            return;
        }
        self.shared.packets.fetch_add(1, Relaxed);
        let weather = {
            let all = self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner);
            all[from][to].clone()
        };
        if self.chance.is(weather.lost) || LATE_MAX <= self.late.len() {
            return;
        }
        if self.chance.is(weather.late) {
            let more = (weather.by.end - weather.by.start).mul_f64(self.chance.part());
            let due = Instant::now() + weather.by.start + more;
            self.count += 1;
            let late = Late { due, number: self.count, to, packet: packet.to_vec() };
            self.late.push(Reverse(late));
        } else {
            self.send(to, packet);
        }
    }

    fn send(&self, to: usize, packet: &[u8]) {
        // A device that takes nothing loses it, as networks do.
        drop(self.devices[to].send(packet));
    }
}

/// xorshift64 (Marsaglia 2003): the same packets are late in every run, as far as they are the same.
struct Chance(u64);

impl Chance {
    /// From 0 up to 1.
    fn part(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn is(&mut self, part: f64) -> bool {
        0.0 < part && self.part() < part
    }
}
