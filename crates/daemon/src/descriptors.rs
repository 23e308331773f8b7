//! How many descriptors the process may have, and so how many connections.

use std::fs::File;
use std::io;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept from clients: listeners, epoll, certificates, the database, the control API's
/// own connections. The last are the most, and are bounded well below this.
pub const RESERVED: u64 = 256;

/// For so many descriptors at most the kernel is made to have room ahead; its table takes eight bytes
/// for each. Where the limit is a million or more, few processes come near it.
const AHEAD_MAX: u64 = 1 << 17;

/// Raises the soft limit on descriptors to the hard one, as any process may, has the kernel make room
/// for as many, and tells the limit.
///
/// Where the kernel refuses (some sandboxes do), the limit that holds is told. Call it before there are
/// other threads: then it takes no time.
///
/// Room is made because the kernel doubles its table of a process's descriptors when it is full, and in
/// a process of several threads waits each time until no processor reads the old one any more
/// (`expand_fdtable` in Linux's `fs/file.c`), which takes some ten milliseconds. An event loop that
/// accepts ten thousand clients would have held up all the others for seven times as long.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let holds = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let holds = holds.unwrap_or(u64::MAX);
    // Without it all is as well, only slower.
    make_room(holds.min(AHEAD_MAX)).ok();
    holds
}

/// The table is as large as its highest descriptor was once.
fn make_room(descriptors: u64) -> io::Result<()> {
    let highest = i32::try_from(descriptors.saturating_sub(1)).map_err(io::Error::other)?;
    let any = File::open("/dev/null")?;
    drop(fcntl_dupfd_cloexec(&any, highest)?);
    Ok(())
}

/// How many clients may be connected at the same time: as many as asked for, or, with `None`, as
/// many as `limit` descriptors allow.
pub fn connections_max(asked: Option<u32>, limit: u64) -> Result<u32, TooFewDescriptors> {
    let possible = u32::try_from(limit.saturating_sub(RESERVED)).unwrap_or(u32::MAX);
    let wanted = asked.unwrap_or(possible.max(1));
    if possible < wanted { Err(TooFewDescriptors { wanted, limit }) } else { Ok(wanted) }
}

/// More connections are asked for than there may be descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} connections need {} descriptors (with {RESERVED} for everything else), but the \
     process may have {limit}: raise `ulimit -n` (systemd: LimitNOFILE=) or lower connections_max",
    u64::from(*.wanted) + RESERVED
)]
pub struct TooFewDescriptors {
    pub wanted: u32,
    pub limit: u64,
}

#[cfg(test)]
mod tests {
    use super::{AHEAD_MAX, RESERVED, TooFewDescriptors, connections_max, raise};
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn raising_reaches_the_hard_limit() {
        let told = raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(told, limit.maximum.unwrap_or(u64::MAX));
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let room: u64 = size.and_then(|size| size.trim().parse().ok()).expect("a number");
        assert!(told.min(AHEAD_MAX) <= room, "there is room for {room} of {told}");
    }

    #[test]
    fn connections_leave_the_reserve() {
        assert_eq!(connections_max(None, 20_000), Ok(20_000 - 256));
        assert_eq!(connections_max(Some(100), 20_000), Ok(100));
        assert_eq!(connections_max(Some(19_744), 20_000), Ok(19_744));
        assert_eq!(connections_max(None, u64::MAX), Ok(u32::MAX));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_a_remedy() {
        let refused = connections_max(Some(1_000), 1_024).expect_err("1,256 are needed");
        assert_eq!(refused, TooFewDescriptors { wanted: 1_000, limit: 1_024 });
        assert_eq!(
            refused.to_string(),
            "1000 connections need 1256 descriptors (with 256 for everything else), but the \
             process may have 1024: raise `ulimit -n` (systemd: LimitNOFILE=) or lower \
             connections_max"
        );
        assert!(connections_max(None, RESERVED).is_err());
    }
}
