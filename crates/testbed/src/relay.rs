//! A way between two processes that a test can hold up: what is sent waits, as in a network that has
//! gone silent.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// How often a held-up or an ended way is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Passes connections on to one address, until it is dropped.
pub struct Relay {
    pub addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_held: AtomicBool,
    /// The process whose connections are held; 0 is none.
    held_caller: AtomicU32,
    /// Connections that were made before the last reset end.
    resets: AtomicU32,
    /// One bit of the next bytes shall be flipped.
    shall_damage: AtomicBool,
    has_ended: AtomicBool,
}

impl Relay {
    #[track_caller]
    pub fn to(upstream: SocketAddr) -> Relay {
        Relay::at((Ipv4Addr::LOCALHOST, 0).into(), upstream)
    }

    /// The same at this address, such as the upstream's port at another loopback address.
    #[track_caller]
    pub fn at(listen: SocketAddr, upstream: SocketAddr) -> Relay {
        let listener = TcpListener::bind(listen).expect("the address is free");
        let addr = listener.local_addr().expect("it is bound");
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.has_ended.load(Relaxed) {
                    return;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(upstream)) else {
                    continue;
                };
                let ends = (client.try_clone(), server.try_clone());
                let (Ok(client_again), Ok(server_again)) = ends else { continue };
                let Ok(accepted) = client.try_clone() else { continue };
                let caller = Arc::new(Caller { accepted, process: OnceLock::new() });
                let (forth, back) = (Arc::clone(&shared), Arc::clone(&shared));
                let caller_again = Arc::clone(&caller);
                thread::spawn(move || pass(client, server, &caller, &forth));
                thread::spawn(move || pass(server_again, client_again, &caller_again, &back));
            }
        });
        Relay { addr, state }
    }

    /// Lets nothing through any more, and closes nothing.
    pub fn hold(&self) {
        self.state.is_held.store(true, Relaxed);
    }

    /// The same for connections that this process makes, and no others.
    pub fn hold_from(&self, process: u32) {
        self.state.held_caller.store(process, Relaxed);
    }

    /// Ends all connections there are; new ones are passed on.
    pub fn reset(&self) {
        self.state.resets.fetch_add(1, Relaxed);
    }

    /// Flips one bit of what is passed on next.
    pub fn damage(&self) {
        self.state.shall_damage.store(true, Relaxed);
    }

    /// Lets everything through again, what has waited first.
    pub fn release(&self) {
        self.state.is_held.store(false, Relaxed);
        self.state.held_caller.store(0, Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Relaxed);
        // Wakes the listener, which then sees that it has ended.
        drop(TcpStream::connect(self.addr));
    }
}

impl State {
    fn holds(&self, caller: &Caller) -> bool {
        let held_caller = self.held_caller.load(Relaxed);
        self.is_held.load(Relaxed) || (held_caller != 0 && caller.process() == Some(held_caller))
    }
}

/// Who made a connection: looked for only when somebody is held, because that takes a look at every
/// descriptor of this machine.
struct Caller {
    accepted: TcpStream,
    process: OnceLock<Option<u32>>,
}

impl Caller {
    fn process(&self) -> Option<u32> {
        *self.process.get_or_init(|| caller(&self.accepted))
    }
}

/// The process at the other end of a connection on this machine: whose descriptors have the socket that
/// the kernel lists under its two addresses (proc(5), `/proc/net/tcp`). Both, because one port of a
/// caller serves many connections to different places.
fn caller(accepted: &TcpStream) -> Option<u32> {
    let ends = [listed(accepted.peer_addr().ok()?)?, listed(accepted.local_addr().ok()?)?];
    let list = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = list.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let found = [words.next()?, words.next()?] == ends;
        found.then(|| words.nth(6).map(str::to_owned))?
    })?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut numbers = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|number| {
        let open = fs::read_dir(format!("/proc/{number}/fd"));
        let mut open = open.into_iter().flatten().filter_map(Result::ok);
        open.any(|it| fs::read_link(it.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    })
}

/// An address as `/proc/net/tcp` has it: IPv4 as a word in the machine's own order, both in hexadecimal.
fn listed(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let word = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{word:08X}:{:04X}", address.port()))
}

fn pass(mut from: TcpStream, mut to: TcpStream, caller: &Caller, state: &State) {
    let mut chunk = [0; 16 << 10];
    // So that the end is noticed although nobody says anything.
    if from.set_read_timeout(Some(LOOK_EVERY)).is_err() {
        return;
    }
    let resets = state.resets.load(Relaxed);
    let is_over = || state.has_ended.load(Relaxed) || state.resets.load(Relaxed) != resets;
    while !is_over() {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                while state.holds(caller) && !is_over() {
                    thread::sleep(LOOK_EVERY);
                }
                if state.shall_damage.swap(false, Relaxed) {
                    chunk[count / 2] ^= 1;
                }
                if to.write_all(&chunk[..count]).is_err() {
                    break;
                }
            }
            Err(error) if is_timeout(&error) => (),
            Err(_) => break,
        }
    }
    for stream in [from, to] {
        // Whoever is left hears that it is over.
        drop(stream.shutdown(Shutdown::Both));
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
