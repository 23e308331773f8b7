//! Calls against a real HTTP server that fails, hangs, and recovers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use tenancy::plan::Plan;

use super::*;
use crate::database::CallState;
use crate::model::{Actor, CacheName, CacheRef, ClusterId};
use crate::pretend::Installation;

/// Nothing here takes this long; a test that waits for it has failed.
const TOO_LONG: Duration = Duration::from_secs(20);

const HASTE: Patience = Patience {
    call: Duration::from_millis(300),
    attempts_max: 4,
    backoff: Duration::from_millis(1),
    backoff_max: Duration::from_millis(8),
};

/// What a receiver does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Answers with this status.
    Answers(u16),
    /// Takes the call and never answers.
    Hangs,
}

/// A receiver of calls on this machine.
struct Receiver {
    url: String,
    state: Arc<Mutex<State>>,
}

struct State {
    mood: Mood,
    calls: Vec<Heard>,
    /// Kept open, so that whoever called goes on waiting.
    hanging: Vec<TcpStream>,
}

/// A call as it arrived: its headers by lowercase name, and its body.
#[derive(Debug, Clone)]
struct Heard {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Receiver {
    fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
        let state = State { mood, calls: Vec::new(), hanging: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || receive(stream.expect("a connection"), &shared));
            }
        });
        Receiver { url, state }
    }

    fn be(&self, mood: Mood) {
        let mut state = self.lock();
        state.mood = mood;
        state.hanging.clear();
    }

    fn calls(&self) -> Vec<Heard> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the lock")
    }
}

/// Answers requests on one connection for as long as there are any.
fn receive(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
    loop {
        let mut headers = BTreeMap::new();
        let mut line = String::new();
        // The request line; nothing when the caller has hung up.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        loop {
            line.clear();
            reader.read_line(&mut line).expect("whole headers");
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers["content-length"].parse().expect("a number");
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a whole body");
        let mut state = state.lock().expect("no test panics while it holds the lock");
        let body = String::from_utf8(body).expect("JSON is text");
        state.calls.push(Heard { headers, body });
        match state.mood {
            Mood::Hangs => {
                state.hanging.push(stream);
                return;
            }
            Mood::Answers(status) => {
                let answer = format!("HTTP/1.1 {status} Word\r\nContent-Length: 0\r\n\r\n");
                if (&stream).write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        }
    }
}

fn create(installation: &Installation, name: &str) {
    let name = CacheName::parse(name).expect("a good name");
    let (by, cluster) = (Actor::Operator, ClusterId::DEFAULT);
    let made = installation.control.create_cache(by, cluster, Some(name), Plan::DEVELOPMENT);
    made.expect("nothing is in the way");
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TOO_LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn count(installation: &Installation, state: CallState) -> usize {
    installation.control.calls(state, 1_000).expect("readable").len()
}

#[test]
fn a_change_is_told_once_and_signed() {
    let installation = Installation::new();
    let receiver = Receiver::start(Mood::Answers(204));
    let control = &installation.control;
    create(&installation, "before");
    let (_, secret) = control.put_webhook(Actor::Operator, &receiver.url).expect("there is room");
    let couriers = Couriers::start(control, HASTE).expect("threads");
    for name in ["one", "two", "three"] {
        create(&installation, name);
    }
    let one = CacheRef::parse("one").expect("a good name");
    control.flush_cache(Actor::Operator, &one).expect("it is there");
    eventually("all are told", || count(&installation, CallState::Sent) == 4);
    drop(couriers);
    let calls = receiver.calls();
    let kinds: Vec<String> = calls
        .iter()
        .map(|call| {
            let body: serde_json::Value = serde_json::from_str(&call.body).expect("JSON");
            format!("{} {} {}", body["revision"], body["type"], body["cache"]["name"])
        })
        .collect();
    let created = |revision: u64, name: &str| format!(r#"{revision} "cache created" "{name}""#);
    let flushed = r#"5 "cache flushed" "one""#.to_owned();
    // In order, because nothing failed; and nothing of what was before the webhook.
    let expected = [created(2, "one"), created(3, "two"), created(4, "three"), flushed];
    assert_eq!(kinds, expected);
    for call in &calls {
        let id = &call.headers["webhook-id"];
        assert_eq!(id, &call.headers["idempotency-key"]);
        let timestamp = call.headers["webhook-timestamp"].parse().expect("a number");
        let expected = signature(secret.reveal(), id, timestamp, &call.body);
        assert_eq!(call.headers["webhook-signature"], expected);
        assert!(!call.body.contains(secret.reveal()));
    }
}

/// The example of the specification "Standard Webhooks", section "Signature scheme".
#[test]
fn signatures_are_those_of_the_specification() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let body = r#"{"test": 2432232314}"#;
    let signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
    assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_receiver_that_recovers_hears_everything() {
    let installation = Installation::new();
    let receiver = Receiver::start(Mood::Answers(500));
    let control = &installation.control;
    control.put_webhook(Actor::Operator, &receiver.url).expect("there is room");
    let patience = Patience { attempts_max: u32::MAX, ..HASTE };
    let couriers = Couriers::start(control, patience).expect("threads");
    create(&installation, "one");
    create(&installation, "two");
    eventually("it is tried again", || receiver.calls().len() >= 6);
    receiver.be(Mood::Hangs);
    let before = receiver.calls().len();
    eventually("it is tried again after hanging", || receiver.calls().len() >= before + 2);
    receiver.be(Mood::Answers(200));
    eventually("both arrive", || count(&installation, CallState::Sent) == 2);
    drop(couriers);
    // However often it was called, it can tell that these were two calls.
    let mut keys: Vec<String> =
        receiver.calls().iter().map(|call| call.headers["webhook-id"].clone()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys, ["larder-1-1-1", "larder-1-1-2"]);
}

#[test]
fn a_receiver_that_hangs_holds_up_nobody_else() {
    let installation = Installation::new();
    let (deaf, good) = (Receiver::start(Mood::Hangs), Receiver::start(Mood::Answers(200)));
    let control = &installation.control;
    for receiver in [&deaf, &good] {
        control.put_webhook(Actor::Operator, &receiver.url).expect("there is room");
    }
    let patience = Patience { call: TOO_LONG, ..HASTE };
    let couriers = Couriers::start(control, patience).expect("threads");
    for number in 0..5 {
        create(&installation, &format!("cache-{number}"));
    }
    eventually("the good one hears all", || good.calls().len() == 5);
    assert_eq!(deaf.calls().len(), 1, "one call at a time");
    drop(couriers);
    deaf.be(Mood::Answers(200));
}

#[test]
fn a_call_is_given_up_and_can_be_revived() {
    let installation = Installation::new();
    let receiver = Receiver::start(Mood::Answers(503));
    let control = &installation.control;
    control.put_webhook(Actor::Operator, &receiver.url).expect("there is room");
    let couriers = Couriers::start(control, HASTE).expect("threads");
    create(&installation, "one");
    eventually("it is given up", || count(&installation, CallState::Dead) == 1);
    assert_eq!(receiver.calls().len(), 4, "as often as is allowed");
    let dead = control.calls(CallState::Dead, 9).expect("readable").remove(0);
    assert_eq!(
        (dead.attempts, dead.problem.as_deref()),
        (4, Some("it answered 503 Service Unavailable"))
    );
    receiver.be(Mood::Answers(200));
    control.revive_call(Actor::Operator, dead.id).expect("it was given up");
    eventually("it arrives", || count(&installation, CallState::Sent) == 1);
    let again = control.revive_call(Actor::Operator, dead.id);
    assert!(matches!(again, Err(ControlError::UnknownCall(_))), "{again:?}");
    receiver.be(Mood::Answers(410));
    create(&installation, "two");
    eventually("a receiver that is gone is believed", || {
        count(&installation, CallState::Dead) == 1
    });
    drop(couriers);
}

#[test]
fn waits_are_spread_and_bounded() {
    let patience = Patience::default();
    assert_eq!(patience.wait(1, 0), Duration::ZERO);
    assert_eq!(patience.wait(1, 5_000), Duration::from_secs(5));
    assert_eq!(patience.wait(3, 20_000), Duration::from_secs(20));
    for attempts in [11, 14, 40, u32::MAX] {
        assert_eq!(patience.wait(attempts, 3_600_000), patience.backoff_max, "{attempts}");
        assert_eq!(patience.wait(attempts, 3_600_001), Duration::ZERO, "{attempts}");
    }
}

#[test]
fn a_receiver_with_tls_must_be_who_it_says_it_is() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a good name");
    let certificate = made.cert.der().clone();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("ring speaks them")
    .with_no_client_auth()
    .with_single_cert(vec![certificate.clone()], key.expect("just made"))
    .expect("they belong together");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}/hook", listener.local_addr().expect("bound"));
    let config = Arc::new(config);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut tls = rustls::StreamOwned::new(session, stream.expect("a connection"));
            // Whoever does not believe us hangs up in the middle of this.
            let mut request = [0; 1_024];
            if tls.read(&mut request).is_ok() {
                drop(tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n"));
                drop(tls.flush());
            }
        }
    });
    let known = vec![Certificate::from_der(&certificate).to_owned()];
    let answer = agent(TOO_LONG, known).post(&url).send("{}").expect("it is who it says it is");
    assert_eq!(answer.status().as_u16(), 204);
    let refused = agent(TOO_LONG, Vec::new()).post(&url).send("{}");
    assert!(refused.is_err(), "nobody vouches for it");
}

/// A mail server on this machine: takes every message and keeps it.
struct MailServer {
    url: String,
    mails: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("smtp://{}", listener.local_addr().expect("bound"));
        let mails = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&mails);
        thread::spawn(move || {
            for stream in listener.incoming() {
                take_mails(stream.expect("a connection"), &kept);
            }
        });
        MailServer { url, mails }
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().expect("no test panics while it holds the lock").clone()
    }
}

/// As much of SMTP (RFC 5321) as a client needs to hand over a message.
fn take_mails(stream: TcpStream, mails: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
    let say = |line: &str| (&stream).write_all(format!("{line}\r\n").as_bytes());
    say("220 sink").expect("it listens");
    let (mut line, mut envelope) = (String::new(), String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let command = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer = match command.as_str() {
            "EHLO" | "HELO" => "250 sink",
            "DATA" => {
                say("354 go on").expect("it listens");
                let mut mail = std::mem::take(&mut envelope);
                loop {
                    line.clear();
                    reader.read_line(&mut line).expect("a whole message");
                    if line == ".\r\n" {
                        break;
                    }
                    mail.push_str(&line);
                }
                mails.lock().expect("no test panics while it holds the lock").push(mail);
                "250 taken"
            }
            "QUIT" => "221 bye",
            _ => {
                envelope.push_str(&line);
                "250 well"
            }
        };
        say(answer).expect("it listens");
    }
}

/// An alert of the cache's memory usage from 80 % on.
fn alert(installation: &Installation, cache: &CacheRef, way: Way) -> crate::alerts::Alert {
    let control = &installation.control;
    let delivery = control.add_delivery(Actor::Owner, cache, way).expect("there is room").id;
    let wish = crate::alerts::AlertWish {
        trigger: crate::alerts::Trigger::MemoryUsage,
        threshold: 80,
        delivery,
        description: "call Ann".to_owned(),
        enabled: true,
    };
    control.put_alert(Actor::Owner, cache, None, wish).expect("there is room")
}

#[test]
fn an_alert_arrives_once_by_mail_and_in_slack() {
    let installation = Installation::new();
    let control = &installation.control;
    create(&installation, "shop");
    let cache = CacheRef::parse("shop").expect("a name");
    let id = control.cache(&cache).expect("made").id;
    let (mail, slack) = (MailServer::start(), Receiver::start(Mood::Answers(200)));
    let url = tenancy::secret::Secret::parse(&slack.url).expect("printable");
    alert(&installation, &cache, Way::Email { address: "ann@example.org".to_owned() });
    let tried = alert(&installation, &cache, Way::Slack { url, channel: "#alerts".to_owned() });
    let mailer = Mailer::new(&mail.url, "Larder <larder@example.org>").expect("a good address");
    let couriers = Couriers::start_with(control, HASTE, Some(mailer)).expect("threads");

    // 79 %, then 80 %, then more, of 25 MiB.
    for bytes in [20_700_000, 20_971_520, 25_000_000] {
        installation.data_plane.count(id, "bytes", bytes);
        control.sample().expect("sampled");
    }
    eventually("both", || mail.mails().len() == 1 && slack.calls().len() == 1);
    let text = "Larder: memory usage of cache shop is 80.0 %";
    let sent = &mail.mails()[0];
    for part in [text, "RCPT TO:<ann@example.org>", "call Ann", "Message-ID: <larder-alert-1-"] {
        assert!(sent.contains(part), "no {part:?} in {sent}");
    }
    let heard = &slack.calls()[0];
    let body: serde_json::Value = serde_json::from_str(&heard.body).expect("JSON");
    assert_eq!(body["channel"], "#alerts");
    assert!(body["text"].as_str().is_some_and(|it| it.starts_with(text)), "{body}");
    assert!(!heard.headers.contains_key("webhook-signature"), "it is no webhook of ours");

    // The test button, whatever the value is.
    control.try_alert(Actor::Owner, &cache, tried.id).expect("it is there");
    eventually("the try", || slack.calls().len() == 2);
    eventually("all are marked", || count(&installation, CallState::Sent) == 3);
    // Nothing that lists calls shows where they went.
    let listed = format!("{:?}", control.calls(CallState::Sent, 10).expect("readable"));
    assert!(!listed.contains("127.0.0.1") && !listed.contains("ann@"), "{listed}");
    drop(couriers);
}

#[test]
fn without_a_mail_server_a_mail_is_given_up_and_says_why() {
    let installation = Installation::new();
    let control = &installation.control;
    create(&installation, "shop");
    let cache = CacheRef::parse("shop").expect("a name");
    let alert = alert(&installation, &cache, Way::Email { address: "ann@example.org".to_owned() });
    control.try_alert(Actor::Owner, &cache, alert.id).expect("it is there");
    let couriers = Couriers::start(control, HASTE).expect("threads");
    eventually("given up", || count(&installation, CallState::Dead) == 1);
    let problem = control.calls(CallState::Dead, 1).expect("readable")[0].problem.clone();
    assert!(problem.is_some_and(|it| it.contains("no mail server")));
    drop(couriers);
}
