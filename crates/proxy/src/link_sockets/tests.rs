//! How much is read from a link at once, over a real socket.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use wire::data::frame::Seal;

use super::{End, LinkSocket, READ_BYTES};
use crate::clients::Clients;
use crate::link_usage::LinkUsage;
use crate::links::{LinkId, LinkSettings, Links};
use crate::session::tests::MapLink;
use crate::transport::Transport;

/// Whatever else the machine does.
const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn a_link_on_which_much_comes_is_read_in_portions_to_its_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let much = vec![7; 20 * READ_BYTES + 1];
    let length = much.len();
    let sender = thread::spawn(move || {
        let mut peer = TcpStream::connect(address).expect("it listens");
        peer.write_all(&much).expect("it is read");
    });
    let (socket, _) = listener.accept().expect("one comes");
    socket.set_nonblocking(true).expect("a socket can be told");
    let usage = Arc::<LinkUsage>::default();
    let mut links = Links::new(LinkSettings::default(), Seal::Checksum, usage, 0);
    let mut clients = Clients::<MapLink>::new();
    let mut socket = LinkSocket {
        id: LinkId::NOBODYS,
        transport: Transport::plain(mio::net::TcpStream::from_std(socket)),
        is_connected: true,
        is_readable: false,
        is_ended: false,
        input: Vec::new(),
    };
    let mut scratch = vec![0; READ_BYTES];
    let (mut read, mut portions) = (0, 0);
    let began = Instant::now();
    let end = loop {
        assert!(began.elapsed() < DEADLINE, "{read} of {length} bytes were read");
        // As the kernel says it, here without an edge.
        socket.is_readable = true;
        match socket.read(&mut scratch, &mut links, 0, &mut clients) {
            Ok(bytes) => {
                assert!(bytes <= READ_BYTES, "{bytes} bytes at once");
                assert!(bytes < READ_BYTES || socket.is_readable, "there may be more");
                read += bytes;
                portions += usize::from(0 < bytes);
            }
            Err(end) => break end,
        }
    };
    assert!(matches!(end, End::Io(_)), "the end of the stream");
    assert!(read == length && 20 < portions, "{read} bytes in {portions} portions");
    sender.join().expect("it has sent all");
}
