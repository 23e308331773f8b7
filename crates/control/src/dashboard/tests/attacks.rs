//! Attacks, a test each: forged forms, planted sessions, guesses, other owners' caches, code in every field,
//! and secrets where they do not belong.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, StatusCode};
use tenancy::capability::Capabilities;
use tenancy::id::Username;
use tenancy::rules::{Network, RuleId, Ruling};
use tenancy::secret::Secret;
use wire::control::inquiry::{Popular, Popularity};

use super::{Browser, PASSWORD, Pages, assets, escaped, owners_pages};
use crate::alerts::{AlertWish, Trigger, Way};
use crate::model::{Actor, Cache, CacheRef, Issued};
use crate::rules::{RuleWish, Scope};

/// Every form of a cache's pages: where it goes, and with what it is accepted by the cache of [`Shop`].
const FORMS: &[(&str, &[(&str, &str)])] = &[
    ("credentials/add", &[]),
    ("credentials/capabilities", &[("username", USERNAME), ("write", "on")]),
    ("credentials/promote", &[("username", USERNAME)]),
    ("credentials/remove", &[("username", USERNAME), ("confirmed", "yes")]),
    ("introspection/watch", &[("prefix", "user:")]),
    ("introspection/unwatch", &[("id", PREFIX)]),
    ("alerts/put", ALERT),
    ("alerts/remove", &[("id", ALERT_ID), ("confirmed", "yes")]),
    ("alerts/test", &[("id", ALERT_ID)]),
    ("alerts/add-delivery", &[("email", "bob@example.org")]),
    (
        "alerts/add-delivery",
        &[("url", "https://hooks.slack.com/services/T1/B1/x"), ("channel", "#a")],
    ),
    ("alerts/remove-delivery", &[("id", FREE_DELIVERY)]),
    ("settings/enabled", &[("enable", "")]),
    ("settings/plan", &[("plan", "250")]),
    ("settings/flush", &[("confirmed", "yes")]),
    ("settings/rotate", &[("confirmed", "yes")]),
    ("leave", &[]),
];
const ALERT: &[(&str, &str)] = &[
    ("id", ALERT_ID),
    ("trigger", "hit_rate"),
    ("threshold", "50"),
    ("delivery", DELIVERY),
    ("description", "call Ann"),
    ("enabled", "on"),
];
/// Every form of the operators' pages, each accepted with what stands there.
const OPERATORS_FORMS: &[(&str, &[(&str, &str)])] = &[
    ("caches/<cache>/visit", &[]),
    // Shown, then made; shown, then removed.
    ("rules", RULE),
    ("rules", CONFIRMED_RULE),
    ("rules/<rule>/remove", &[]),
    ("rules/<rule>/remove", &[("confirmed", "yes")]),
    ("leave", &[]),
];
const RULE: &[(&str, &str)] = &[
    ("network", "203.0.113.0/24"),
    ("ruling", "block"),
    ("cache", CACHE_NAME),
    ("reason", "a flood"),
    ("seconds", "3600"),
];
const CONFIRMED_RULE: &[(&str, &str)] = &[
    ("network", "203.0.113.0/24"),
    ("ruling", "block"),
    ("cache", CACHE_NAME),
    ("reason", "a flood"),
    ("seconds", "3600"),
    ("confirmed", "yes"),
];
// Stand for what the cache has.
const CACHE_NAME: &str = "<cache name>";
const USERNAME: &str = "<second username>";
const PREFIX: &str = "<prefix>";
const ALERT_ID: &str = "<alert>";
const DELIVERY: &str = "<delivery>";
const FREE_DELIVERY: &str = "<free delivery>";

/// Pages that do what a query or a path says: `{cache}` is the cache's number, `{}` what is tried.
const QUESTIONS: &[&str] = &[
    "/dashboard/{cache}?range={}",
    "/dashboard/{cache}?done={}",
    "/dashboard/{cache}/live?range={}",
    "/dashboard/{cache}/credentials?show={}",
    "/dashboard/{cache}/introspection?key={}",
    "/dashboard/{cache}/alerts?change={}",
    "/dashboard/{cache}/connect?client={}",
    "/dashboard/{}",
    "/dashboard/{cache}/{}",
    "/sso/{cache}/{}",
    "/sso/{}/x",
];
const OPERATORS_QUESTIONS: &[&str] = &[
    "/operator/caches?search={}",
    "/operator/caches?after={}",
    "/operator/caches?search={}&after=1",
    "/operator/caches/{}",
    "/operator/log?before={}",
    "/operator/rules?after={}",
    "/operator/rules?cache={}",
    "/operator/rules?done={}",
    "/operator/{}",
];
const OPERATORS_PAGES: &[&str] =
    &["caches", "caches/<cache>", "top", "nodes", "rules", "log", "login"];

const HTML: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'";

/// What attackers write where a word or a number belongs.
const BAD: &[&str] = &[
    HTML,
    "'; DROP TABLE caches; --",
    "' OR '1'='1",
    "1 OR 1=1",
    "1); DELETE FROM credentials; --",
    "\\'; SELECT 1; --",
    "$1",
    "%",
    "\0",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "x\r\nSet-Cookie: larder_session=planted",
];

/// A cache with one of everything, and its owner's browser.
struct Shop {
    cache: Cache,
    issued: Issued,
    second: Username,
    prefix: u64,
    alert: u64,
    delivery: u64,
    free_delivery: u64,
    /// A rule for addresses of its clients.
    rule: RuleId,
    owner: Browser,
}

const SLACK_URL: &str = "https://hooks.slack.com/services/T00/B00/quitesecretindeed";

impl Shop {
    fn open(pages: &Pages, name: &str) -> Self {
        let (cache, issued) = pages.create(name);
        let (control, which) = (pages.control(), CacheRef::Id(cache.id));
        let second = control.add_credential(Actor::Owner, &which, Capabilities::ALL);
        let second = second.expect("there is room").value.1.credential.username;
        let delivery = |way| control.add_delivery(Actor::Owner, &which, way).expect("room").id;
        let free_delivery = delivery(Way::Email { address: "ann@example.org".to_owned() });
        let url = Secret::parse(SLACK_URL).expect("printable");
        let delivery = delivery(Way::Slack { url, channel: String::new() });
        let wish = AlertWish {
            trigger: Trigger::MemoryUsage,
            threshold: 80,
            delivery,
            description: String::new(),
            enabled: true,
        };
        let alert = control.put_alert(Actor::Owner, &which, None, wish).expect("room").id;
        let prefix = control.watch_prefix(Actor::Owner, &which, "page:").expect("room");
        let one = |text: &str| Popularity { text: text.into(), hits: 9, misses: 9, writes: 9 };
        let popular = Popular {
            keys: vec![one("user:1"), one(HTML)],
            prefixes: vec![one("user:"), one(HTML)],
            ..Popular::default()
        };
        pages.installation.data_plane.ask_for(cache.id, popular);
        let rule = RuleWish {
            scope: Scope::Cache(which.clone()),
            network: Network::parse("198.51.100.0/24").expect("a network"),
            ruling: Ruling::Block,
            reason: "a flood before".to_owned(),
            seconds: 3_600,
        };
        let rule = control.put_rule(Actor::Operator, &rule).expect("room").value.rule.id;
        let owner = pages.owner(&cache);
        Shop { cache, issued, second, prefix, alert, delivery, free_delivery, rule, owner }
    }

    fn path(&self, act: &str) -> String {
        format!("/dashboard/{}/{act}", self.cache.id)
    }

    fn operators_path(&self, act: &str) -> String {
        let act = act.replace("<cache>", &self.cache.id.to_string());
        format!("/operator/{}", act.replace("<rule>", &self.rule.to_string()))
    }

    /// The fields of a form for this cache.
    fn filled(&self, fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, String)> {
        let fill = |(name, value): &(&'static str, &'static str)| {
            let value = match *value {
                USERNAME => self.second.to_string(),
                PREFIX => self.prefix.to_string(),
                ALERT_ID => self.alert.to_string(),
                DELIVERY => self.delivery.to_string(),
                FREE_DELIVERY => self.free_delivery.to_string(),
                CACHE_NAME => self.cache.name.to_string(),
                other => other.to_owned(),
            };
            (*name, value)
        };
        fields.iter().map(fill).collect()
    }

    /// All that the control plane has of this cache, but for its watched prefixes and audit lines.
    fn record(&self, pages: &Pages) -> String {
        let (control, which) = (pages.control(), CacheRef::Id(self.cache.id));
        let issued = control.issued(&which).expect("it is there");
        let (alerts, prefixes) = (control.alerts(&which), control.prefixes(&which));
        let rules = control.rules(0, 1_000).expect("readable");
        let rules = rules.iter().filter(|kept| kept.rule.cache == Some(self.cache.id));
        let rules: Vec<_> = rules.collect();
        format!("{issued:?} {alerts:?} {prefixes:?} {rules:?} {:?}", control.deliveries(&which))
    }
}

fn borrowed<'a>(fields: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    fields.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn the_table_has_every_form_and_they_are_accepted() {
    let mut acts = BTreeSet::new();
    for (act, fields) in FORMS {
        // Each of a fresh cache, since some of them end the session or take away what others need.
        let pages = Pages::new();
        let shop = Shop::open(&pages, "shop");
        if *act == "settings/enabled" {
            pages
                .control()
                .set_enabled(Actor::Owner, &CacheRef::Id(shop.cache.id), false)
                .expect("it is there");
        }
        for page in owners_pages(&shop.cache) {
            let text = pages.get(&page, &shop.owner.cookie).text;
            for form in text.split("<form ").skip(1).filter(|form| form.contains("\"post\"")) {
                let action = form.split("action=\"").nth(1).expect("a form goes somewhere");
                let action = action.split('"').next().expect("an end");
                let act = action.strip_prefix(&shop.path("")).expect("to its own cache");
                acts.insert(act.to_owned());
            }
        }
        let fields = shop.filled(fields);
        let got = pages.submit(&shop.owner, &shop.path(act), &borrowed(&fields));
        assert_eq!(got.status, StatusCode::SEE_OTHER, "{act}: {}", got.text);
    }
    assert_eq!(acts, FORMS.iter().map(|(act, _)| (*act).to_owned()).collect());
}

#[test]
fn the_table_has_every_form_of_operators_and_they_are_accepted() {
    let mut acts = BTreeSet::new();
    for (act, fields) in OPERATORS_FORMS {
        let pages = Pages::new();
        pages.add_operator("ann");
        let (shop, ann) = (Shop::open(&pages, "shop"), pages.operator("ann"));
        for page in OPERATORS_PAGES {
            let text = pages.get(&shop.operators_path(page), &ann.cookie).text;
            for form in text.split("<form ").skip(1).filter(|form| form.contains("\"post\"")) {
                let action = form.split("action=\"").nth(1).expect("a form goes somewhere");
                let action = action.split('"').next().expect("an end");
                let known =
                    OPERATORS_FORMS.iter().find(|(act, _)| shop.operators_path(act) == action);
                // That of the login has no session, and so no token.
                acts.insert(known.map_or(action.to_owned(), |(act, _)| (*act).to_owned()));
            }
        }
        let fields = shop.filled(fields);
        let got = pages.submit(&ann, &shop.operators_path(act), &borrowed(&fields));
        let asks = act.starts_with("rules") && !fields.iter().any(|(name, _)| *name == "confirmed");
        let wanted = if asks { StatusCode::OK } else { StatusCode::SEE_OTHER };
        assert_eq!(got.status, wanted, "{act}: {}", got.text);
    }
    let known = OPERATORS_FORMS.iter().map(|(act, _)| (*act).to_owned());
    assert_eq!(acts, known.chain(["/operator/login".to_owned()]).collect());
}

#[test]
fn a_form_without_its_token_does_nothing() {
    let pages = Pages::new();
    pages.add_operator("ann");
    let (ann, bob) = (pages.operator("ann"), pages.operator("ann"));
    let shop = Shop::open(&pages, "shop");
    let other = pages.owner(&shop.cache);
    let before = (pages.control().audit(0, 1_000).expect("readable").len(), shop.record(&pages));
    let mut forms: Vec<_> =
        FORMS.iter().map(|(act, fields)| (shop.path(act), shop.filled(fields))).collect();
    let owners = forms.len();
    let operators = OPERATORS_FORMS.iter();
    forms.extend(operators.map(|(act, fields)| (shop.operators_path(act), shop.filled(fields))));
    for (at, (path, fields)) in forms.iter().enumerate() {
        let (browser, stranger) = if at < owners { (&shop.owner, &other) } else { (&ann, &bob) };
        for token in [None, Some(""), Some("x"), Some(stranger.token.as_str())] {
            let token = token.map(|token| ("token", token));
            let fields: Vec<_> = borrowed(fields).into_iter().chain(token).collect();
            let got = pages.post(path, &browser.cookie, &fields);
            assert_eq!(got.status, StatusCode::FORBIDDEN, "{path} with {token:?}");
            assert!(got.cookie.is_none(), "{path}");
        }
        // What reads changes nothing.
        let got = pages.get(&format!("{path}?confirmed=yes"), &browser.cookie);
        let is_page = path == "/operator/rules";
        let wanted = if is_page { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED };
        assert_eq!(got.status, wanted, "{path}");
    }
    let after = (pages.control().audit(0, 1_000).expect("readable").len(), shop.record(&pages));
    assert_eq!(after, before);
    assert_eq!(pages.get(&shop.path("alerts"), &shop.owner.cookie).status, StatusCode::OK);
    assert_eq!(pages.get("/operator/caches", &ann.cookie).status, StatusCode::OK);
}

#[test]
fn another_sites_login_form_is_refused() {
    let pages = Pages::new();
    pages.add_operator("ann");
    let request = Request::builder()
        .method(Method::POST)
        .uri("/operator/login")
        .header("sec-fetch-site", "cross-site")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(format!("name=ann&password={}", escaped(PASSWORD))));
    let got = pages.send(request.expect("a good request"));
    assert_eq!(got.status, StatusCode::FORBIDDEN);
    assert!(got.cookie.is_none());
}

#[test]
fn a_session_cannot_be_chosen_by_someone_else() {
    let pages = Pages::new();
    pages.add_operator("ann");
    let (cache, _) = pages.create("shop");
    let planted = "larder_session=0123456789abcdefghjkmnpqrstvwxyz";
    let entered = pages.get(&pages.sso_path(&cache), planted);
    let cookie = entered.cookie.expect("a session began");
    assert!(!cookie.contains("0123456789abcdefghjkmnpqrstvwxyz"), "{cookie}");
    let page = format!("/dashboard/{}", cache.id);
    assert_eq!(pages.get(&page, planted).status, StatusCode::FORBIDDEN);
    let fields = [("name", "ann"), ("password", PASSWORD)];
    let entered = pages.post("/operator/login", planted, &fields);
    assert!(!entered.cookie.expect("a session began").contains("0123456789abcdefghjkmnpqrstvwxyz"));
    assert_eq!(pages.get("/operator/caches", planted).location, "/operator/login");
}

#[test]
fn cookies_are_closed_to_scripts_and_to_other_sites() {
    let cookie = |url: &str| {
        let pages = Pages::at(url);
        let (cache, _) = pages.create("shop");
        pages.get(&pages.sso_path(&cache), "").cookie.expect("a session began")
    };
    let plain = cookie("http://dash.example");
    for part in ["; HttpOnly", "; SameSite=Lax", "; Path=/dashboard/1", "; Max-Age=86400"] {
        assert!(plain.contains(part), "{plain}");
    }
    assert!(!plain.contains("Secure"));
    assert!(cookie("https://dash.example").contains("; Secure"));
}

#[test]
fn guessing_a_password_soon_has_to_wait() {
    let pages = Pages::new();
    pages.add_operator("ann");
    for name in ["ann", "nobody", "ann<script>"] {
        let got = pages.log_in(name, "wrong");
        assert_eq!(got.status, StatusCode::FORBIDDEN, "{name}");
        assert!(got.cookie.is_none() && !got.text.contains(name), "{name}");
    }
    for _ in 0..9 {
        assert_eq!(pages.log_in("ann", "wrong").status, StatusCode::FORBIDDEN);
    }
    let refused = pages.log_in("ann", PASSWORD);
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "even the right one");
    assert!(refused.headers.contains_key("retry-after"));
    pages.add_operator("bob");
    assert_eq!(pages.log_in("bob", PASSWORD).status, StatusCode::SEE_OTHER, "others are let in");
}

#[test]
fn a_wrong_secret_tells_nothing_about_what_there_is() {
    let pages = Pages::new();
    let (cache, _) = pages.create("shop");
    let (other, _) = pages.create("other");
    let others = pages.sso_path(&other);
    let others_secret = others.rsplit('/').next().expect("a secret");
    let there = pages.get(&format!("/sso/{}/{others_secret}", cache.id), "");
    let not_there = pages.get(&format!("/sso/999/{others_secret}"), "");
    for got in [&there, &not_there] {
        assert_eq!(got.status, StatusCode::FORBIDDEN);
        assert!(got.cookie.is_none());
    }
    assert_eq!(there.text, not_there.text);
    for path in [format!("/sso/{}/x", cache.id), "/sso/x/y".to_owned()] {
        assert_eq!(pages.get(&path, "").status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[test]
fn an_owner_reaches_no_other_cache_by_its_id() {
    let pages = Pages::new();
    let (mine, theirs) = (Shop::open(&pages, "mine"), Shop::open(&pages, "theirs"));
    let before = theirs.record(&pages);
    for page in owners_pages(&theirs.cache) {
        let got = pages.get(&page, &mine.owner.cookie);
        assert_eq!(got.status, StatusCode::FORBIDDEN, "{page}");
        assert!(!got.text.contains("theirs"), "{page}");
    }
    for (act, fields) in FORMS {
        let fields = theirs.filled(fields);
        // A form for the other cache.
        let got = pages.submit(&mine.owner, &theirs.path(act), &borrowed(&fields));
        assert_eq!(got.status, StatusCode::FORBIDDEN, "{act}");
        // And one for mine, which names what the other has.
        if fields.iter().any(|(name, _)| ["username", "id"].contains(name)) {
            let got = pages.submit(&mine.owner, &mine.path(act), &borrowed(&fields));
            assert_eq!(got.status, StatusCode::NOT_FOUND, "{act}");
        }
    }
    let deliver_there = mine.filled(ALERT).into_iter().map(|(name, value)| {
        let value = if name == "delivery" { theirs.delivery.to_string() } else { value };
        (name, value)
    });
    let deliver_there: Vec<_> = deliver_there.collect();
    let got = pages.submit(&mine.owner, &mine.path("alerts/put"), &borrowed(&deliver_there));
    assert_eq!(got.status, StatusCode::NOT_FOUND);
    assert_eq!(theirs.record(&pages), before);
    // Nor the operators' pages and forms, not for his own cache either; nor one that is not there.
    let cookie = &mine.owner.cookie;
    let own = mine.record(&pages);
    for (act, fields) in OPERATORS_FORMS {
        for shop in [&mine, &theirs] {
            let fields = shop.filled(fields);
            let got = pages.submit(&mine.owner, &shop.operators_path(act), &borrowed(&fields));
            assert_eq!(got.location, "/operator/login", "{act}: {} {}", got.status, got.text);
        }
    }
    assert_eq!((mine.record(&pages), theirs.record(&pages)), (own, before));
    for page in OPERATORS_PAGES.iter().filter(|page| **page != "login") {
        assert_eq!(pages.get(&theirs.operators_path(page), cookie).location, "/operator/login");
    }
    assert_eq!(pages.get("/operator/caches", cookie).location, "/operator/login");
    assert_eq!(pages.get("/dashboard/999", cookie).status, StatusCode::FORBIDDEN);
    assert_eq!(pages.get("/dashboard/mine", cookie).status, StatusCode::NOT_FOUND);
}

/// Writes what is bad into every field there is.
fn code_in_every_field_is_only_text(pages: &Pages) {
    pages.add_operator("ann");
    let ann = pages.operator("ann");
    let (shop, bystander) = (Shop::open(pages, "shop"), Shop::open(pages, "bystander"));
    let before = bystander.record(pages);
    let harmless = |what: &str, got: &super::Got| {
        assert!(!got.status.is_server_error(), "{what}: {} {}", got.status, got.text);
        for raw in ["<script>alert", "<img src=x"] {
            assert!(!got.text.contains(raw), "{what}: {}", got.text);
        }
        assert!(got.cookie.as_ref().is_none_or(|it| !it.contains("planted")), "{what}");
    };
    for &bad in BAD {
        for (act, fields) in FORMS {
            let fields = [shop.filled(fields), vec![("token", shop.owner.token.clone())]].concat();
            let tried = fields.iter().filter(|(name, _)| *name != "confirmed");
            for (tried, _) in tried {
                let mut fields = borrowed(&fields);
                let field = fields.iter_mut().find(|(name, _)| name == tried);
                field.expect("it is one of them").1 = bad;
                let got = pages.post(&shop.path(act), &shop.owner.cookie, &fields);
                harmless(&format!("{bad:?} as {tried} of {act}"), &got);
            }
        }
        for (act, fields) in OPERATORS_FORMS {
            let fields = [shop.filled(fields), vec![("token", ann.token.clone())]].concat();
            let tried = fields.iter().filter(|(name, _)| *name != "confirmed");
            for (tried, _) in tried {
                let mut fields = borrowed(&fields);
                let field = fields.iter_mut().find(|(name, _)| name == tried);
                field.expect("it is one of them").1 = bad;
                let got = pages.post(&shop.operators_path(act), &ann.cookie, &fields);
                harmless(&format!("{bad:?} as {tried} of {act}"), &got);
            }
        }
        let path = format!("/operator/rules/{}/remove", escaped(bad));
        harmless(&path, &pages.submit(&ann, &path, &[("confirmed", "yes")]));
        let ask = |questions: &[&str], browser: &Browser| {
            for question in questions {
                let path = question.replace("{cache}", &shop.cache.id.to_string());
                let path = path.replace("{}", &escaped(bad));
                harmless(&path, &pages.get(&path, &browser.cookie));
            }
        };
        ask(QUESTIONS, &shop.owner);
        ask(OPERATORS_QUESTIONS, &ann);
        harmless(bad, &pages.log_in(bad, bad));
    }
    // What was accepted is kept as it was written, and shown as text.
    let which = CacheRef::Id(shop.cache.id);
    let kept = pages.control().prefixes(&which).expect("readable");
    for text in [HTML, "' OR '1'='1", "$1"] {
        assert!(kept.iter().any(|(_, name)| name == text), "{text} in {kept:?}");
    }
    for page in owners_pages(&shop.cache) {
        harmless(&page, &pages.get(&page, &shop.owner.cookie));
    }
    let shown = pages.get(&shop.path("introspection"), &shop.owner.cookie).text;
    assert!(shown.contains("&#60;script&#62;alert"), "{shown}");
    let mut rule = shop.filled(CONFIRMED_RULE);
    rule.iter_mut().find(|(name, _)| *name == "reason").expect("it has one").1 = HTML.to_owned();
    let made = pages.submit(&ann, "/operator/rules", &borrowed(&rule));
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.text);
    for page in OPERATORS_PAGES {
        harmless(page, &pages.get(&shop.operators_path(page), &ann.cookie));
    }
    let shown = pages.get("/operator/rules", &ann.cookie).text;
    assert!(shown.contains("&#60;script&#62;alert"), "{shown}");
    // And nobody else has noticed.
    assert_eq!(bystander.record(pages), before);
    assert_eq!(pages.control().count_caches().expect("readable"), 2);
}

#[test]
fn code_in_every_field_is_only_text_with_sqlite() {
    code_in_every_field_is_only_text(&Pages::new());
}

#[cfg(feature = "postgres")]
#[test]
fn code_in_every_field_is_only_text_with_postgres() {
    let server = super::Engine::Postgres(crate::pretend::PostgresServer::start());
    code_in_every_field_is_only_text(&Pages::on(&server, super::PUBLIC_URL));
}

#[test]
fn every_page_forbids_what_it_does_not_need() {
    let pages = Pages::new();
    let (cache, _) = pages.create("shop");
    let owner = pages.owner(&cache);
    let mut paths = owners_pages(&cache);
    paths.extend(["/", "/operator/login", "/operator/nowhere", "/sso/1/x"].map(str::to_owned));
    for path in paths {
        let got = pages.get(&path, &owner.cookie);
        let policy = got.headers["content-security-policy"].to_str().expect("ASCII");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(got.headers["referrer-policy"], "no-referrer", "{path}");
        assert_eq!(got.headers["cache-control"], "no-store", "{path}");
        assert_eq!(got.headers["x-frame-options"], "DENY", "{path}");
        // Nothing that the policy would have to allow.
        for wrong in ["<script>", " style=", "onclick", "<style", "javascript:"] {
            assert!(!got.text.contains(wrong), "{path} has {wrong}");
        }
        for elsewhere in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
            assert!(!got.text.contains(elsewhere), "{path} has {elsewhere}");
        }
    }
    let style = pages.get(&format!("/assets/{}/larder.css", assets::version()), "");
    assert_eq!(style.headers["content-type"], "text/css; charset=utf-8");
    assert!(style.headers["cache-control"].to_str().expect("ASCII").contains("immutable"));
    assert_eq!(pages.get("/assets/x/nothing", "").status, StatusCode::NOT_FOUND);
}

#[test]
fn passwords_and_secrets_stand_only_where_they_were_asked_for() {
    let pages = Pages::new();
    pages.add_operator("ann");
    let ann = pages.operator("ann");
    let Shop { cache, issued, owner, .. } = Shop::open(&pages, "shop");
    let password = issued.secret.reveal();
    let sso = pages.sso_path(&cache);
    let secret = sso.rsplit('/').next().expect("a secret");
    let username = issued.credential.username.to_string();
    let mut paths = owners_pages(&cache);
    paths.push(format!("/dashboard/{}/credentials?show=ANOTHER", cache.id));
    let operators = ["/operator/caches".to_owned(), format!("/operator/caches/{}", cache.id)];
    let mut texts: Vec<String> =
        paths.iter().map(|path| pages.get(path, &owner.cookie).text).collect();
    texts.extend(operators.iter().map(|path| pages.get(path, &ann.cookie).text));
    texts.push(pages.get("/operator/log", &ann.cookie).text);
    for text in texts {
        let sessions =
            [&owner.cookie, &ann.cookie].map(|cookie| &cookie["larder_session=".len()..]);
        for hidden in [password, secret, sessions[0], sessions[1], SLACK_URL] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
    let shown =
        pages.get(&format!("/dashboard/{}/credentials?show={username}", cache.id), &owner.cookie);
    assert!(shown.text.contains(password));
}
