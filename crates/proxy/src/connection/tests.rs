//! How much one turn of a connection does, over real sockets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::{After, BYTES_PER_TURN, Connection, OPERATIONS_PER_TURN, Scratch, WRITE_BYTES};
use crate::outbox::Outbox;
use crate::session::Turn;
use crate::session::tests::{Bench, LOGIN, MapLink, NOW};
use crate::settings::Access;
use crate::transport::Transport;

/// Whatever else the machine does.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a turn came to.
struct Done {
    after: After,
    operations: u64,
    bytes: u64,
}

struct Stage {
    bench: Bench,
    connection: Connection<MapLink>,
    scratch: Scratch,
}

impl Stage {
    /// With a client that says this and nothing more, then listens to the end and returns what it heard.
    fn with_client(says: Vec<u8>) -> (Stage, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        let client = thread::spawn(move || {
            let mut client = TcpStream::connect(address).expect("it listens");
            client.write_all(&says).expect("it is read");
            client.shutdown(Shutdown::Write).expect("it is connected");
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).expect("the server says when it ends");
            heard
        });
        let (server, _) = listener.accept().expect("one comes");
        server.set_nonblocking(true).expect("a socket can be told");
        // Room for more than a turn's worth, however slow the client is.
        let room = 4 * WRITE_BYTES;
        SockRef::from(&server).set_send_buffer_size(room).expect("a socket can be told");
        let bench = Bench::of(1);
        let permit = bench.usage.enter(usize::MAX, None).expect("there is room");
        let transport = Transport::plain(mio::net::TcpStream::from_std(server));
        let connection = Connection::new(transport, permit, 1, 0);
        (Stage { bench, connection, scratch: Scratch::new() }, client)
    }

    fn turn(&mut self) -> Done {
        let mut context = Turn {
            link: &self.bench.link,
            directory: &self.bench.directory,
            usage: &self.bench.usage,
            access: Access::Credentials,
            from: None,
            now: NOW,
            output_bytes_max: usize::MAX,
            routing: None,
            outbox: &mut Outbox::default(),
            now_us: 0,
            nobody_listens: false,
            operations: 0,
            bytes: 0,
        };
        self.connection.became_readable(true);
        let after = self.connection.turn(&mut self.scratch, &mut context, 0);
        Done { after, operations: context.operations, bytes: context.bytes }
    }

    /// Turns until the connection is closed; `check` sees each.
    fn turns(&mut self, mut check: impl FnMut(&Done)) {
        let began = Instant::now();
        loop {
            let done = self.turn();
            check(&done);
            if done.after == After::Close {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "it does not come to an end");
            thread::yield_now();
        }
    }
}

#[test]
fn a_client_that_asks_for_much_and_then_ends_has_all_its_answers_in_short_turns() {
    let asks = 3_000;
    let gets: String = (0..asks).map(|number| format!("get no-{number}\r\n")).collect();
    let (mut stage, client) = Stage::with_client([LOGIN, gets.as_bytes()].concat());
    let (mut operations, mut again) = (0, 0);
    stage.turns(|done| {
        assert!(done.operations <= OPERATIONS_PER_TURN, "{} at once", done.operations);
        operations += done.operations;
        again += u64::from(done.after == After::Again);
    });
    assert_eq!(operations, asks);
    assert!(asks / OPERATIONS_PER_TURN <= again, "others had their turn {again} times");
    let heard = client.join().expect("it heard the end");
    let answers = heard.strip_prefix(b"STORED\r\n").expect("it is let in");
    assert!(answers == b"END\r\n".repeat(asks as usize), "{} bytes", heard.len());
}

#[test]
fn answers_that_have_piled_up_are_written_in_short_turns() {
    let (mut stage, client) = Stage::with_client(Vec::new());
    let much: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 251) as u8).collect();
    stage.connection.output = much.clone();
    let mut again = 0;
    stage.turns(|done| {
        let most = BYTES_PER_TURN + WRITE_BYTES as u64;
        assert!(done.bytes <= most, "{} bytes at once", done.bytes);
        again += u64::from(done.after == After::Again);
    });
    assert!(0 < again, "others have their turn between");
    assert!(client.join().expect("it heard the end") == much, "something else was heard");
}
