//! A way between two processes that a test can hold up: what is sent waits, as in a network that has
//! gone silent.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
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
    has_ended: AtomicBool,
}

impl Relay {
    #[track_caller]
    pub fn to(upstream: SocketAddr) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
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
                let (forth, back) = (Arc::clone(&shared), Arc::clone(&shared));
                thread::spawn(move || pass(client, server, &forth));
                thread::spawn(move || pass(server_again, client_again, &back));
            }
        });
        Relay { addr, state }
    }

    /// Lets nothing through any more, and closes nothing.
    pub fn hold(&self) {
        self.state.is_held.store(true, Relaxed);
    }

    /// Lets everything through again, what has waited first.
    pub fn release(&self) {
        self.state.is_held.store(false, Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Relaxed);
        // Wakes the listener, which then sees that it has ended.
        drop(TcpStream::connect(self.addr));
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut chunk = [0; 16 << 10];
    // So that the end is noticed although nobody says anything.
    if from.set_read_timeout(Some(LOOK_EVERY)).is_err() {
        return;
    }
    while !state.has_ended.load(Relaxed) {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                while state.is_held.load(Relaxed) && !state.has_ended.load(Relaxed) {
                    thread::sleep(LOOK_EVERY);
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
