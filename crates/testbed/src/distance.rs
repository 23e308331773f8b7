//! A way between two places that are far apart: everything that is sent arrives, later.
//!
//! ```text
//!   node ──▶ read ──▶ queue of (due, bytes) ──▶ write ──▶ control     and the same back
//! ```
//!
//! Bandwidth is not limited, but what is on its way is ([`CHUNKS_MAX`]), as on a long fat pipe. The
//! handshake of TCP itself takes no longer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Read at once.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// On their way in one direction of one connection: 8 MB, which at 75 ms are 100 MB per second.
const CHUNKS_MAX: usize = 128;

/// Passes connections on to one address, until it is dropped.
pub struct Distance {
    address: SocketAddr,
    _runtime: Option<Runtime>,
}

impl Distance {
    /// Everything takes this long in each direction; no time, and nothing is in between.
    ///
    /// # Panics
    /// When there is no free port.
    #[track_caller]
    pub fn to(upstream: SocketAddr, one_way: Duration) -> Distance {
        if one_way.is_zero() {
            return Distance { address: upstream, _runtime: None };
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(upstream).await else { continue };
                // Without it Nagle would add to the distance.
                if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
                    continue;
                }
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                pass(near_read, far_write, one_way);
                pass(far_read, near_write, one_way);
            }
        });
        Distance { address, _runtime: Some(runtime) }
    }

    /// Where to connect instead.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_MAX);
    tokio::spawn(async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES_MAX);
            match from.read_buf(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(_) => (),
            }
            chunk.shrink_to_fit();
            if send.send((Instant::now() + one_way, chunk)).await.is_err() {
                return;
            }
        }
    });
    // Ends when the reader has, and closes the other end by that.
    tokio::spawn(async move {
        while let Some((due, chunk)) = receive.recv().await {
            sleep_until(due).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    });
}
