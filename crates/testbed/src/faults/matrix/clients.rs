//! What can happen to clients and to their ways to a node: others notice nothing, and whoever is cut off
//! reads nothing old when it is back.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Bed, Cell, Done, LATE, VICTIM, lost};
use crate::connection::Login;
use crate::freshness::Freshness;
use crate::larder::program;
use crate::network::Weather;
use crate::relay::Relay;

pub(super) const CELLS: &[Cell] = &[
    Cell {
        victim: "client link",
        fault: "reset each 1 s",
        act: |bed, time| bed.reset_clients(time),
    },
    Cell { victim: "client link", fault: "held up", act: |bed, time| bed.hold_clients(time) },
    Cell {
        victim: "client link",
        fault: "15 % of packets 5 to 15 ms late",
        act: |bed, time| bed.client_links(&LATE, &LATE, time),
    },
    Cell {
        victim: "client link",
        fault: "1 % of packets lost",
        act: |bed, time| bed.client_links(&lost(0.01), &lost(0.01), time),
    },
    Cell {
        victim: "client link",
        fault: "5 % of packets lost",
        act: |bed, time| bed.client_links(&lost(0.05), &lost(0.05), time),
    },
    Cell {
        victim: "client link",
        fault: "requests cut off",
        act: |bed, time| bed.client_links(&Weather::NONE, &Weather::GOOD, time),
    },
    Cell {
        victim: "client link",
        fault: "answers cut off",
        act: |bed, time| bed.client_links(&Weather::GOOD, &Weather::NONE, time),
    },
    Cell {
        victim: "client link",
        fault: "cut both ways",
        act: |bed, time| bed.client_links(&Weather::NONE, &Weather::NONE, time),
    },
    Cell { victim: "client", fault: "SIGKILL", act: |bed, time| bed.stray(Signal::KILL, time) },
    Cell { victim: "client", fault: "SIGSTOP", act: |bed, time| bed.stray(Signal::STOP, time) },
];

impl Bed {
    fn reset_clients(&self, time: Duration) -> Result<Done, String> {
        self.beside(time, |relay| {
            relay.reset();
            thread::sleep(Duration::from_secs(1));
        })
    }

    fn hold_clients(&self, time: Duration) -> Result<Done, String> {
        self.beside(time, |relay| {
            relay.hold();
            thread::sleep(Duration::from_secs(1));
            relay.release();
            thread::sleep(Duration::from_secs(1));
        })
    }

    /// More clients, whose way to the victim is disturbed again and again. They must not see anything
    /// old either.
    fn beside(&self, time: Duration, disturb: impl Fn(&Relay)) -> Result<Done, String> {
        let relay = Relay::to(self.cluster.nodes[VICTIM].addr);
        let theirs = Freshness::start(&[relay.addr, self.cluster.nodes[0].addr], &self.login, 1);
        let end = Instant::now() + time;
        while Instant::now() < end {
            disturb(&relay);
        }
        relay.release();
        Ok(Done { theirs: Some(theirs), relay: Some(relay), ..Done::default() })
    }

    /// More clients, between whom and the victim the weather is bad.
    fn client_links(
        &self,
        forth: &Weather,
        back: &Weather,
        time: Duration,
    ) -> Result<Done, String> {
        let proxies = [VICTIM, 0].map(|node| self.cluster.nodes[node].addr);
        let theirs = Freshness::start(&proxies, &self.login, 1);
        let here = self.network.here();
        self.network.set(here, VICTIM, forth);
        self.network.set(VICTIM, here, back);
        thread::sleep(time);
        self.network.set_all(&Weather::GOOD);
        Ok(Done { theirs: Some(theirs), ..Done::default() })
    }

    /// A client in the midst of many requests ends, or stands and reads nothing any more.
    fn stray(&self, signal: Signal, time: Duration) -> Result<Done, String> {
        let Login { username, password } = &self.login;
        let client = Command::new(program())
            .args(["bench", "--no-fill", "--connections", "50", "--in-flight", "64"])
            .args(["--value-size", "10000", "--duration", "10m"])
            .env("MEMCACHIER_SERVERS", self.cluster.nodes[0].addr.to_string())
            .envs([("MEMCACHIER_USERNAME", username), ("MEMCACHIER_PASSWORD", password)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut client = client.map_err(|error| error.to_string())?;
        thread::sleep(Duration::from_secs(1));
        let pid = rustix::process::Pid::from_child(&client);
        let sent = rustix::process::kill_process(pid, signal);
        thread::sleep(time);
        drop(client.kill());
        drop(client.wait());
        sent.map_err(|error| error.to_string())?;
        Ok(Done::default())
    }
}
