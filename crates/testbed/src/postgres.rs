//! A PostgreSQL server that a test has for itself, and may kill.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running server; stops when it is dropped.
pub struct Postgres {
    script: Child,
    wishes: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// By way of a socket in its folder.
    pub url: String,
}

impl Postgres {
    /// # Panics
    /// When there is no PostgreSQL; `clients/install.sh` installs it.
    #[track_caller]
    pub fn start() -> Postgres {
        Postgres::run(Command::new("sh"))
    }

    /// One that takes encrypted connections, too, with `server.crt` and `server.key` of this folder.
    /// Returns the URL for these, whose host is `localhost`.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[track_caller]
    pub fn start_with_tls(certificate: &Path) -> (Postgres, String) {
        let mut shell = Command::new("sh");
        shell.env("LARDER_POSTGRES_TLS", certificate);
        let mut postgres = Postgres::run(shell);
        let encrypted = postgres.answer();
        (postgres, encrypted)
    }

    #[track_caller]
    fn run(mut shell: Command) -> Postgres {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/postgres.sh");
        let mut script = shell
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell is there");
        let wishes = script.stdin.take();
        let answers = BufReader::new(script.stdout.take().expect("it is piped"));
        let mut postgres = Postgres { script, wishes, answers, url: String::new() };
        postgres.url = postgres.answer();
        assert!(postgres.url.starts_with("postgresql:"), "no PostgreSQL: see clients/install.sh");
        postgres
    }

    /// Kills it as a crash does. What was committed is kept.
    pub fn kill(&mut self) {
        self.wish("kill");
    }

    /// Starts it again, and returns when it can be asked.
    pub fn start_again(&mut self) {
        self.wish("start");
    }

    fn wish(&mut self, wish: &str) {
        let wishes = self.wishes.as_mut().expect("it is taken when this is dropped");
        writeln!(wishes, "{wish}").expect("the script listens");
        let done = self.answer();
        assert!(done.starts_with(wish), "{done}");
    }

    #[track_caller]
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the script writes text");
        line.trim().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The script ends, and stops the server, when its input ends.
        drop(self.wishes.take());
        drop(self.script.wait());
    }
}
