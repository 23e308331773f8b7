//! The dashboard in a browser: every panel and button, against a running Larder, and an accessibility
//! checker on every page. And the code that it offers, run as it stands there.
//!
//! What the browser does is in `clients/dashboard/pages.js`. To keep pictures of all pages as well:
//! `LARDER_PICTURES=docs/images cargo test -p testbed --test dashboard`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testbed::client_scripts::{self, installed, script};
use testbed::connection::Login;
use testbed::fleet::{Cluster, PATIENT};
use testbed::larder::Larder;
use testbed::process::Process;

const FACTS: &[&str] = &[
    "the-url-opens-the-dashboard",
    "charts-tell-the-past",
    "figures-are-those-of-stats",
    "credentials-are-added-and-shown",
    "a-checkbox-holds-on-an-open-connection",
    "a-deleted-credential-ends-its-connection",
    "everything-can-be-done-by-keyboard",
    "keys-and-prefixes-are-told",
    "alerts-are-added-tried-and-deleted",
    "snippets-are-filled-in",
    "the-up-arrow-promotes",
    "the-plan-is-changed",
    "the-cache-is-disabled-and-enabled",
    "flushing-asks-and-forgets",
    "rotating-takes-one-to-the-new-url",
    "it-works-without-script",
    "the-policy-stops-what-no-page-should-do",
    "operators-log-in-and-look",
    "a-rule-is-shown-before-it-is-made",
    "an-operator-visits-a-cache",
    "nothing-from-elsewhere",
];

/// Of a cluster.
const FACTS_OF_CLUSTER: &[&str] = &[
    "commands-of-every-proxy-are-told",
    "nodes-are-told-and-one-that-is-gone-is-named",
    "nothing-from-elsewhere",
];

/// Of all that a program does: of the browser some ten seconds, and far more on a machine that has much
/// else to do; nextest ends a test after 300.
const PROGRAM_TIME_MAX: Duration = Duration::from_secs(240);
/// Cookies, passwords and URLs that the browser has seen and that no log may have.
const SECRETS_MIN: usize = 5;

/// A cache of a plan whose owner may do everything, and what its owner was told.
struct Shop {
    larder: Larder,
    /// The cache's number.
    id: u64,
    dashboard: String,
    username: String,
    password: String,
}

impl Shop {
    fn open() -> Self {
        // Its webhooks are on this machine, and whatever it can say goes into its log.
        let options = Larder::options().setting("slack_prefix", "http://127.0.0.1:");
        let larder = options.setting("log_level", "debug").start();
        let made = larder.run(&["cache", "create", "shop", "--plan", "100"]);
        let credential = &made["credentials"][0];
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        Shop {
            id: made["id"].as_u64().expect("a number"),
            dashboard: text(&made["dashboard_url"]),
            username: text(&credential["username"]),
            password: text(&credential["password"]),
            larder,
        }
    }
}

/// Gives the cache a past, for its charts.
fn remember(shop: &Shop) {
    let status = Command::new(client_scripts::python())
        .arg(script("dashboard/history.py"))
        .arg(shop.larder.dir().path().join("control.sqlite"))
        .arg(shop.id.to_string())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "history.py failed");
}

#[test]
fn every_panel_and_button_does_what_it_says() {
    let shop = Shop::open();
    remember(&shop);
    let operator = shop.larder.run(&["operator", "add", "ann"]);
    let operators_password = operator["password"].as_str().expect("one was made");
    let said = browse(
        Command::new("node")
            .env("LARDER_DASHBOARD", &shop.dashboard)
            .env("LARDER_SERVER", shop.larder.addr.to_string())
            .env("LARDER_USERNAME", &shop.username)
            .env("LARDER_PASSWORD", &shop.password)
            .env("LARDER_OPERATOR", "ann")
            .env("LARDER_OPERATOR_PASSWORD", operators_password)
            .env_remove("LARDER_NODE_PIDS"),
        FACTS,
    );
    // What the server wrote meanwhile tells no secret: those it gave out, and those that were typed in.
    let log = shop.larder.process.log();
    assert!(log.contains("LARDER_CONTROL="), "there is no log");
    let from_browser: Vec<&str> =
        said.lines().filter_map(|line| line.strip_prefix("secret ")).collect();
    assert!(from_browser.len() >= SECRETS_MIN, "{from_browser:?}");
    let of_cache = [shop.dashboard.rsplit('/').next().expect("a secret"), &shop.password];
    for secret in from_browser.into_iter().chain(of_cache).chain([operators_password]) {
        assert!(!log.contains(secret), "a secret is in the log:\n{log}");
    }
}

/// Has the browser look at everything; what it says.
#[track_caller]
fn browse(command: &mut Command, facts: &[&str]) -> String {
    command
        .arg(script("dashboard/pages.js"))
        .env("NODE_PATH", installed().join("node/node_modules"))
        .env_remove("LARDER_PICTURES");
    if let Some(folder) = std::env::var_os("LARDER_PICTURES") {
        // Relative to the repository, where whoever says so is.
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        command.env("LARDER_PICTURES", root.join(folder));
    }
    let mut browser = Process::start(command);
    browser.wait_for_end(PROGRAM_TIME_MAX);
    let said = browser.whole_log();
    let got: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    assert!(got == facts, "wanted {facts:?}\n   got {got:?}\n{said}");
    said
}

#[test]
fn the_pages_of_a_cluster_tell_of_every_node() {
    let cluster = Cluster::start_with(3, 1, PATIENT);
    let cache = cluster.run(&["cache", "create", "shop", "--plan", "100"]);
    let operator = cluster.run(&["operator", "add", "ann"]);
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let credential = &cache["credentials"][0];
    let login =
        Login { username: text(&credential["username"]), password: text(&credential["password"]) };
    // Every node knows the credential.
    (0..3).for_each(|node| drop(cluster.connect(node, &login)));
    let nodes = || cluster.nodes.iter();
    let joined = |all: Vec<String>| all.join(",");
    browse(
        Command::new("node")
            .env("LARDER_DASHBOARD", text(&cache["dashboard_url"]))
            .env("LARDER_SERVER", joined(nodes().map(|node| node.addr.to_string()).collect()))
            .env("LARDER_USERNAME", &login.username)
            .env("LARDER_PASSWORD", &login.password)
            .env("LARDER_OPERATOR", "ann")
            .env("LARDER_OPERATOR_PASSWORD", text(&operator["password"]))
            .env(
                "LARDER_NODE_PIDS",
                joined(nodes().map(|it| it.process.id().to_string()).collect()),
            ),
        FACTS_OF_CLUSTER,
    );
}

/// The code of one client, as the page says it, with what ran it.
#[track_caller]
fn check_snippet(shop: &Shop, client: &str, program: &[&str], file: &str) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .build()
        .into();
    let entered = agent.get(&shop.dashboard).call().expect("it answers");
    let header = |name: &str| entered.headers()[name].to_str().expect("ASCII").to_owned();
    let (cookie, page) = (header("set-cookie"), header("location"));
    let cookie = cookie.split(';').next().expect("a pair");
    let origin = shop.dashboard.split("/sso/").next().expect("an origin");
    let mut answer = agent
        .get(format!("{origin}{page}/connect?client={client}"))
        .header("cookie", cookie)
        .call()
        .expect("it answers");
    let html = answer.body_mut().read_to_string().expect("a page");
    let code = html.split("<code id=\"snippet\">").nth(1).expect("there is code");
    let code = unescaped(code.split("</code>").next().expect("it ends"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join(file);
    fs::write(&file, &code).expect("it can be written");
    let (program, arguments) = program.split_first().expect("a program");
    let mut process = Process::start(
        Command::new(program)
            .args(arguments)
            .arg(&file)
            .env("MEMCACHIER_PASSWORD", &shop.password)
            .env("NODE_PATH", installed().join("node/node_modules"))
            .env("SASL_PATH", "/usr/lib/x86_64-linux-gnu/sasl2:/usr/lib/aarch64-linux-gnu/sasl2"),
    );
    process.wait_for_end(PROGRAM_TIME_MAX);
    let said = process.whole_log();
    // Some clients say more.
    assert!(said.lines().any(|line| line == "hello"), "said\n{said}\nof\n{code}");
}

fn unescaped(html: &str) -> String {
    let pairs = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    pairs.into_iter().fold(html.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[test]
fn the_code_for_python_works() {
    let python = client_scripts::python();
    let python = python.to_str().expect("UTF-8");
    let shop = Shop::open();
    check_snippet(&shop, "pylibmc", &[python], "greeting.py");
    check_snippet(&shop, "pymemcache", &[python], "greeting.py");
    check_snippet(&shop, "django", &[python, &within("django.py")], "settings.py");
}

#[test]
fn the_code_for_ruby_node_and_php_works() {
    let shop = Shop::open();
    check_snippet(&shop, "dalli", &["ruby"], "greeting.rb");
    check_snippet(&shop, "memjs", &["node"], "greeting.js");
    check_snippet(&shop, "php", &["php"], "greeting.php");
}

#[test]
fn the_code_for_rails_laravel_and_java_works() {
    let shop = Shop::open();
    check_snippet(&shop, "rails", &["ruby", &within("rails.rb")], "production.rb");
    check_snippet(&shop, "laravel", &["php", &within("laravel.php")], "cache.php");
    let jar = "/usr/share/java/spymemcached.jar";
    check_snippet(&shop, "spymemcached", &["java", "-cp", jar], "Greeting.java");
}

/// The program that stands for an application in which the code is.
fn within(name: &str) -> String {
    let program = script("snippets").join(name);
    program.to_str().expect("UTF-8").to_owned()
}
