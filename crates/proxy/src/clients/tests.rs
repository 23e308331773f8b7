//! What becomes of connections whose clients hang up, over real sockets.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{CROWDED, Clients, HungUp, LINE_TIME_MAX};
use crate::connection::{After, Connection, STRANGERS, Scratch};
use crate::outbox::Outbox;
use crate::round::{ACCEPTS_CROWDED, ACCEPTS_MAX, Done, STRANGERS_WAITING_MAX};
use crate::session::Turn;
use crate::session::tests::{Bench, CACHE, LOGIN, MapLink, NOW};
use crate::settings::Access;
use crate::transport::Transport;

/// More than any line has that is only long.
const CROWD: usize = 120;

/// Whatever else the machine does.
const DEADLINE: Duration = Duration::from_secs(30);

/// A loop's clients without the loop.
struct Stage {
    bench: Bench,
    listener: TcpListener,
    clients: Clients<MapLink>,
    scratch: Scratch,
}

impl Stage {
    fn new() -> Stage {
        let bench = Bench::of(CROWD as u32 + 1);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        Stage { bench, listener, clients: Clients::new(), scratch: Scratch::new() }
    }

    /// Its place, and its client.
    fn stranger(&mut self) -> (usize, TcpStream) {
        let address = self.listener.local_addr().expect("it listens");
        let client = TcpStream::connect(address).expect("it listens");
        let (server, _) = self.listener.accept().expect("one comes");
        server.set_nonblocking(true).expect("a socket can be told");
        let permit = self.bench.usage.enter(usize::MAX, None).expect("there is room");
        let transport = Transport::plain(mio::net::TcpStream::from_std(server));
        let connection = Connection::new(transport, permit, 1, 0);
        (self.clients.connections.insert(connection), client)
    }

    fn member(&mut self) -> (usize, TcpStream) {
        let (key, mut client) = self.stranger();
        client.write_all(LOGIN).expect("the server is there");
        self.turns_until(key, false, |stage, _| !stage.clients.connections[key].is_stranger());
        (key, client)
    }

    /// Turns for a connection whose socket says that it can be read, until something is so.
    fn turns_until(&mut self, key: usize, is_ended: bool, is_so: impl Fn(&Stage, After) -> bool) {
        let began = Instant::now();
        loop {
            let connection = &mut self.clients.connections[key];
            connection.became_readable(is_ended);
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
            let after = connection.turn(&mut self.scratch, &mut context, 0);
            if is_so(self, after) {
                return;
            }
            assert!(began.elapsed() < DEADLINE, "it does not come to that");
            std::thread::yield_now();
        }
    }
}

#[test]
fn who_hangs_up_in_a_line_that_stands_is_served_what_changes_something_and_a_stranger_nothing() {
    let mut stage = Stage::new();
    let (first, mut client) = stage.member();
    let mut others: Vec<_> = (1..CROWD).map(|_| stage.member()).collect();
    let (stranger, _stranger_client) = stage.stranger();
    client.write_all(b"set a 0 0 1\r\nx\r\n").expect("the server is there");
    stage.turns_until(first, false, |stage, _| !stage.bench.link.items().is_empty());

    // There is so much to do that they must wait.
    stage.clients.round.charge_bytes(u64::from(u32::MAX));
    let mut all = others.iter().map(|(key, _)| *key);
    assert!(!stage.clients.may_go(first, 0) && all.all(|key| !stage.clients.may_go(key, 0)));
    client.write_all(b"get a\r\ndelete a noreply\r\n").expect("the server is there");
    drop(client);

    let before = LINE_TIME_MAX - 1;
    assert_eq!(stage.clients.hung_up(first, before), HungUp::Serve, "they are only many");
    assert_eq!(stage.clients.hung_up(stranger, LINE_TIME_MAX), HungUp::Serve);
    assert_eq!(stage.clients.hung_up(first, LINE_TIME_MAX), HungUp::InVain(CACHE));
    assert_eq!(stage.clients.hung_up(first, LINE_TIME_MAX), HungUp::Serve, "it waits no more");
    stage.turns_until(first, true, |_, after| after == After::Close);
    assert!(stage.bench.link.items().is_empty(), "it wanted it to be gone");

    stage.clients.round.begin();
    let (last, _client) = others.pop().expect("there are many");
    assert_eq!(stage.clients.next_late(LINE_TIME_MAX), Some((CACHE, last)));
    let then = LINE_TIME_MAX + CROWDED;
    assert_eq!(stage.clients.hung_up(stranger, then - 1), HungUp::Close);
    assert_eq!(stage.clients.hung_up(stranger, then), HungUp::Serve);
}

#[test]
fn strangers_go_behind_those_named_beside_them_and_two_in_a_round() {
    let mut stage = Stage::new();
    let strangers: Vec<_> = (0..5).map(|_| stage.stranger()).collect();
    let (member, _client) = stage.member();
    let login = Done { late: None, was_stranger: true, operations: 0, bytes: 64 };
    let mut left = strangers.iter().map(|(key, _)| *key).collect::<Vec<_>>();
    left.iter().for_each(|&key| assert!(!stage.clients.may_go(key, 0)));
    assert!(stage.clients.may_go(member, 0), "nobody of its cache waits");
    let mut rounds = 0;
    while stage.clients.are_late() {
        rounds += 1;
        stage.clients.round.begin();
        let mut logins = 0;
        while let Some((cache, key)) = stage.clients.next_late(0) {
            assert_eq!(key, left.remove(0), "in order");
            stage.clients.charge(Done { late: Some(cache), ..login });
            logins += 1;
        }
        assert!((1..=2).contains(&logins), "{logins} logins");
        stage.clients.round.begin();
        assert!(stage.clients.may_go(member, 0), "a line of strangers is none of its business");
    }
    assert_eq!((rounds, left.len()), (3, 0));
}

#[test]
fn while_a_line_stands_no_more_are_let_in_than_have_their_turn() {
    let mut stage = Stage::new();
    let strangers: Vec<_> = (0..2 * STRANGERS_WAITING_MAX).map(|_| stage.stranger()).collect();
    let members: Vec<_> = (0..CROWD).map(|_| stage.member()).collect();
    strangers.iter().for_each(|(key, _)| assert!(!stage.clients.may_go(*key, 0)));
    stage.clients.round.charge_bytes(u64::from(u32::MAX));
    members.iter().for_each(|(key, _)| assert!(!stage.clients.may_go(*key, 0)));

    let now = LINE_TIME_MAX;
    assert_eq!(stage.clients.accepts_max(now), ACCEPTS_MAX, "none was served out of order yet");
    let mut waiting = strangers.len();
    let mut was_shut = false;
    while 0 < waiting {
        stage.clients.round.begin();
        while let Some((cache, _)) = stage.clients.next_late(now) {
            let was_stranger = cache == STRANGERS;
            waiting -= usize::from(was_stranger);
            let late = Some(cache);
            stage.clients.charge(Done { late, was_stranger, operations: 1, bytes: 64 });
            if stage.clients.are_crowded(now) {
                let most = stage.clients.accepts_max(now);
                let are_many = STRANGERS_WAITING_MAX <= waiting;
                assert_eq!(most, if are_many { 0 } else { ACCEPTS_CROWDED }, "{waiting} wait");
                was_shut |= are_many;
            }
            let then = now + CROWDED;
            assert_eq!(stage.clients.accepts_max(then), ACCEPTS_MAX, "that was long ago");
        }
    }
    assert!(was_shut);
}
