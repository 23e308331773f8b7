//! The server for other nodes' proxies in a simulation: the same loop, its kernel played by others.

use std::io;
use std::sync::Arc;

use daemon::clock::{Clock, Now};
use daemon::memory_stream::MemoryStream;

use crate::Backend;
use crate::peer::event_loop::EventLoop;
use crate::peer::{PeerSettings, PeerUsage, Shared};

/// One loop that serves links of memory.
pub struct SimulatedServer {
    event_loop: EventLoop,
    usage: Arc<PeerUsage>,
}

/// One link of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedLink((usize, u64));

impl SimulatedServer {
    /// # Errors
    /// The system refuses a poller (which is never asked anything).
    pub fn new(
        settings: PeerSettings,
        members: Vec<Arc<Backend>>,
        clock: Clock,
    ) -> io::Result<Self> {
        let usage = Arc::<PeerUsage>::default();
        let (stopping, counts) = (Arc::default(), Arc::clone(&usage));
        let shared = Shared { settings, members, usage: counts, clock, stopping };
        Ok(SimulatedServer { event_loop: EventLoop::simulated(Arc::new(shared))?, usage })
    }

    pub fn usage(&self) -> &PeerUsage {
        &self.usage
    }

    pub fn accept(&mut self, stream: MemoryStream) -> ServedLink {
        ServedLink(self.event_loop.bring(stream))
    }

    /// Bytes, or the end, have come on a link.
    pub fn note_readable(&mut self, link: ServedLink, is_ended: bool) {
        self.event_loop.note_readable(link.0, is_ended);
    }

    /// Serves what there is. `now_ms` is the loop's own time; `sweep` looks at every link for
    /// time-outs. Says after how many milliseconds another turn must follow even if nothing comes.
    pub fn turn(&mut self, now: Now, now_ms: u64, sweep: bool) -> Option<u64> {
        self.event_loop.turn_at(now, now_ms, sweep)
    }
}
