//! What the pages do, asked of the routes themselves as a browser would; and, in `attacks`, as an attacker
//! would.

mod attacks;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use axum::http::{Method, Request, Response, StatusCode};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;

use super::*;
use crate::api::{ApiSettings, REQUEST_TIME_MAX, REQUESTS_MAX, router_with};
use crate::model::{Actor, Cache, CacheName, CacheRef, ClusterId, Issued, OperatorName};
use crate::password::Password;
use crate::pretend::{Engine, Installation};
use tenancy::capability::{Capabilities, Capability};
use tenancy::plan::Plan;
use tenancy::rules::Open;

/// More than any page has.
const PAGE_BYTES_MAX: usize = 1 << 20;
const PASSWORD: &str = "correct horse battery";

/// An installation whose pages can be asked for.
struct Pages {
    installation: Installation,
    router: Router,
    runtime: Runtime,
}

/// What a browser got.
struct Got {
    status: StatusCode,
    location: String,
    cookie: Option<String>,
    headers: axum::http::HeaderMap,
    text: String,
}

/// A browser with one session.
#[derive(Clone)]
struct Browser {
    cookie: String,
    token: String,
}

const PUBLIC_URL: &str = "http://dash.example";

impl Pages {
    fn new() -> Self {
        Pages::at(PUBLIC_URL)
    }

    fn at(public_url: &str) -> Self {
        Pages::on(&Engine::Sqlite, public_url)
    }

    fn on(engine: &Engine, public_url: &str) -> Self {
        let installation = Installation::on(engine);
        let settings = ApiSettings {
            servers: vec!["cache.example:11211".to_owned()],
            public_url: public_url.to_owned(),
            ..ApiSettings::default()
        };
        let control = Arc::clone(&installation.control);
        let router = router_with(control, settings, REQUESTS_MAX, REQUEST_TIME_MAX);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Pages { installation, router, runtime: runtime.expect("a runtime") }
    }

    fn control(&self) -> &Control {
        &self.installation.control
    }

    fn create(&self, name: &str) -> (Cache, Issued) {
        let name = CacheName::parse(name).expect("a good name");
        let plan = Plan::named("100").expect("in the table");
        let made =
            self.control().create_cache(Actor::Operator, ClusterId::DEFAULT, Some(name), plan);
        made.expect("nothing is in the way").value
    }

    fn send(&self, request: Request<Body>) -> Got {
        let service = TowerToHyperService::new(self.router.clone());
        self.runtime.block_on(async {
            let response: Response<Body> = service.call(request).await.expect("infallible");
            let (parts, body) = response.into_parts();
            let bytes = to_bytes(body, PAGE_BYTES_MAX).await.expect("a whole body");
            let header = |name| {
                parts.headers.get(name).map(|value: &axum::http::HeaderValue| {
                    value.to_str().expect("ASCII").to_owned()
                })
            };
            Got {
                status: parts.status,
                location: header(LOCATION).unwrap_or_default(),
                cookie: header(SET_COOKIE),
                text: String::from_utf8(bytes.to_vec()).expect("UTF-8"),
                headers: parts.headers,
            }
        })
    }

    fn get(&self, path: &str, cookie: &str) -> Got {
        let request = Request::builder().uri(path).header(COOKIE, cookie).body(Body::empty());
        self.send(request.expect("a good request"))
    }

    fn post(&self, path: &str, cookie: &str, fields: &[(&str, &str)]) -> Got {
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(COOKIE, cookie)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(pairs.join("&")));
        self.send(request.expect("a good request"))
    }

    /// Sends a form as a page of this session does.
    fn submit(&self, browser: &Browser, path: &str, fields: &[(&str, &str)]) -> Got {
        let fields = [&[("token", browser.token.as_str())], fields].concat();
        self.post(path, &browser.cookie, &fields)
    }

    fn sso_path(&self, cache: &Cache) -> String {
        let (_, secret) =
            self.control().dashboard_secret(&CacheRef::Id(cache.id)).expect("it is there");
        format!("/sso/{}/{}", cache.id, secret.reveal())
    }

    /// Opens a cache's dashboard by its URL.
    fn owner(&self, cache: &Cache) -> Browser {
        let entered = self.get(&self.sso_path(cache), "");
        assert_eq!(entered.status, StatusCode::SEE_OTHER, "{}", entered.text);
        assert_eq!(entered.location, format!("/dashboard/{}", cache.id));
        self.browser(entered, &format!("/dashboard/{}", cache.id))
    }

    fn browser(&self, entered: Got, page: &str) -> Browser {
        let cookie = entered.cookie.expect("a session began");
        let cookie = cookie.split(';').next().expect("a pair").to_owned();
        let page = self.get(page, &cookie);
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let token = page.text.split("name=\"token\" value=\"").nth(1).expect("a form");
        let token = token.split('"').next().expect("an end").to_owned();
        Browser { cookie, token }
    }

    fn add_operator(&self, name: &str) {
        let name = OperatorName::parse(name).expect("a good name");
        let password = Password::parse(PASSWORD).expect("long enough");
        self.control().put_operator(Actor::Operator, &name, &password).expect("added");
    }

    fn operator(&self, name: &str) -> Browser {
        let entered = self.log_in(name, PASSWORD);
        assert_eq!(entered.status, StatusCode::SEE_OTHER, "{}", entered.text);
        self.browser(entered, "/operator/caches")
    }

    fn log_in(&self, name: &str, password: &str) -> Got {
        self.post("/operator/login", "", &[("name", name), ("password", password)])
    }
}

fn escaped(value: &str) -> String {
    value.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every page of a cache.
fn owners_pages(cache: &Cache) -> Vec<String> {
    [
        "",
        "/live",
        "/credentials",
        "/introspection",
        "/introspection/live",
        "/alerts",
        "/connect",
        "/settings",
    ]
    .map(|page| format!("/dashboard/{}{page}", cache.id))
    .to_vec()
}

#[test]
fn the_persistent_url_opens_the_dashboard_again_and_again() {
    let pages = Pages::new();
    let (cache, _) = pages.create("shop");
    let path = pages.sso_path(&cache);
    assert_eq!(path, pages.sso_path(&cache), "it stays");
    for _ in 0..2 {
        assert_eq!(pages.get(&path, "").status, StatusCode::SEE_OTHER);
    }
    let browser = pages.owner(&cache);
    for page in owners_pages(&cache) {
        let got = pages.get(&page, &browser.cookie);
        assert_eq!(got.status, StatusCode::OK, "{page}: {}", got.text);
    }
}

#[test]
fn rotating_the_secret_ends_the_old_url_and_every_session() {
    let pages = Pages::new();
    let (cache, _) = pages.create("shop");
    let (other, _) = pages.create("other");
    let old = pages.sso_path(&cache);
    let (browser, bystander) = (pages.owner(&cache), pages.owner(&cache));
    let elsewhere = pages.owner(&other);
    let rotate = format!("/dashboard/{}/settings/rotate", cache.id);

    let asked = pages.submit(&browser, &rotate, &[]);
    assert_eq!(asked.status, StatusCode::OK, "asks first");
    assert_eq!(pages.sso_path(&cache), old);
    let rotated = pages.submit(&browser, &rotate, &[("confirmed", "yes")]);
    assert_eq!(rotated.status, StatusCode::SEE_OTHER);
    let new = pages.sso_path(&cache);
    assert_ne!(new, old);
    assert_eq!(rotated.location, format!("{new}?done=rotated"));

    assert_eq!(pages.get(&old, "").status, StatusCode::FORBIDDEN);
    assert_eq!(pages.get(&new, "").status, StatusCode::SEE_OTHER);
    for let_out in [browser, bystander] {
        let page = format!("/dashboard/{}", cache.id);
        assert_eq!(pages.get(&page, &let_out.cookie).status, StatusCode::FORBIDDEN);
    }
    let page = format!("/dashboard/{}", other.id);
    assert_eq!(pages.get(&page, &elsewhere.cookie).status, StatusCode::OK, "another cache's stay");
}

#[test]
fn leaving_ends_the_session_for_good() {
    let pages = Pages::new();
    let (cache, _) = pages.create("shop");
    let browser = pages.owner(&cache);
    let left = pages.submit(&browser, &format!("/dashboard/{}/leave", cache.id), &[]);
    assert!(left.cookie.expect("taken back").contains("larder_session=; "));
    let page = format!("/dashboard/{}", cache.id);
    assert_eq!(pages.get(&page, &browser.cookie).status, StatusCode::FORBIDDEN);
}

#[test]
fn an_operator_who_is_removed_or_gets_another_password_is_let_out() {
    let pages = Pages::new();
    for name in ["ann", "bob"] {
        pages.add_operator(name);
    }
    let (ann, bob) = (pages.operator("ann"), pages.operator("bob"));
    pages.add_operator("ann");
    let bobs = OperatorName::parse("bob").expect("a good name");
    pages.control().delete_operator(Actor::Operator, &bobs).expect("removed");
    for browser in [ann, bob] {
        assert_eq!(pages.get("/operator/caches", &browser.cookie).location, "/operator/login");
    }
    assert_eq!(pages.log_in("bob", PASSWORD).status, StatusCode::FORBIDDEN);
}

#[test]
fn an_operator_visits_a_cache_under_his_own_name() {
    let pages = Pages::new();
    pages.add_operator("ann");
    let (cache, _) = pages.create("shop");
    let ann = pages.operator("ann");
    let visit = format!("/operator/caches/{}/visit", cache.id);
    assert_eq!(pages.post(&visit, &ann.cookie, &[]).status, StatusCode::FORBIDDEN);
    let entered = pages.submit(&ann, &visit, &[]);
    let browser = pages.browser(entered, &format!("/dashboard/{}", cache.id));
    let flush = format!("/dashboard/{}/settings/flush", cache.id);
    pages.submit(&browser, &flush, &[("confirmed", "yes")]);
    let log = pages.get("/operator/log", &ann.cookie).text;
    assert!(log.contains("operator ann") && log.contains("cache flushed"), "{log}");
    // The visit is good for that cache only, and no operator's session.
    assert_eq!(pages.get("/operator/caches", &browser.cookie).location, "/operator/login");
}

#[test]
fn a_rule_is_shown_before_it_is_made_and_before_it_is_removed() {
    let pages = Pages::new();
    let (cache, _) = pages.create("shop");
    pages.add_operator("ann");
    let ann = pages.operator("ann");
    let address = "198.51.100.7".parse().expect("an address");
    let open = Open { cache: Some(cache.id), address, connections: 3 };
    pages.installation.data_plane.connect(vec![open]);
    let fields = [
        ("network", "198.51.100.0/24"),
        ("ruling", "block"),
        ("cache", "shop"),
        ("reason", "<b>a flood</b>"),
        ("seconds", "86400"),
    ];
    let rules = || pages.control().rules(0, 9).expect("readable");

    let asked = pages.submit(&ann, "/operator/rules", &fields);
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.text);
    for shown in ["cuts off 3 open connections", "198.51.100.7", ">shop</a>", "for 1 d"] {
        assert!(asked.text.contains(shown), "{shown}: {}", asked.text);
    }
    assert!(rules().is_empty(), "asks first");
    // A form of another page, or of nobody, does nothing.
    let confirmed = [&fields[..], &[("confirmed", "yes")]].concat();
    let forged = pages.post("/operator/rules", &ann.cookie, &confirmed);
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    assert!(rules().is_empty());

    let made = pages.submit(&ann, "/operator/rules", &confirmed);
    assert_eq!(made.location, "/operator/rules?done=ruled", "{}", made.text);
    let kept = rules();
    assert_eq!((kept.len(), kept[0].made_by.as_str()), (1, "operator ann"));
    let list = pages.get("/operator/rules?done=ruled", &ann.cookie).text;
    assert!(list.contains("198.51.100.0/24") && list.contains("The rule is made."), "{list}");
    assert!(list.contains("a flood") && !list.contains("<b>a flood"), "{list}");

    let remove = format!("/operator/rules/{}/remove", kept[0].rule.id);
    let asked = pages.submit(&ann, &remove, &[]);
    assert!(asked.text.contains("cuts off nobody"), "{}", asked.text);
    assert_eq!(rules().len(), 1);
    let removed = pages.submit(&ann, &remove, &[("confirmed", "yes")]);
    assert_eq!(removed.location, "/operator/rules?done=unruled", "{}", removed.text);
    assert!(rules().is_empty());

    let wrong = [("network", "everyone"), ("reason", "x"), ("seconds", "60")];
    let refused = pages.submit(&ann, "/operator/rules", &wrong);
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    // It is no owner's affair.
    let owner = pages.owner(&cache);
    assert_eq!(pages.get("/operator/rules", &owner.cookie).location, "/operator/login");
}

#[test]
fn checkboxes_say_all_that_a_credential_may_do() {
    let pages = Pages::new();
    let (cache, issued) = pages.create("shop");
    let owner = pages.owner(&cache);
    let username = issued.credential.username.to_string();
    let path = format!("/dashboard/{}/credentials/capabilities", cache.id);
    let set = |names: &[&str]| {
        let mut fields = vec![("username", username.as_str())];
        fields.extend(names.iter().map(|name| (*name, "on")));
        assert_eq!(pages.submit(&owner, &path, &fields).status, StatusCode::SEE_OTHER);
        pages.control().credential(&issued.credential.username).expect("there").1.capabilities
    };
    assert_eq!(set(&["flush"]), Capabilities::NONE.with(Capability::Flush));
    assert_eq!(set(&[]), Capabilities::NONE);
    assert_eq!(set(&["write", "flush", "api"]), Capabilities::ALL);
}

#[test]
fn caches_are_searched_and_paged() {
    let pages = Pages::new();
    pages.add_operator("ann");
    let ann = pages.operator("ann");
    let mut last = None;
    for number in 0..60 {
        last = Some(pages.create(&format!("Shop-{number}")));
    }
    let (cache, issued) = last.expect("sixty were made");
    let names = |path: &str| {
        let text = pages.get(path, &ann.cookie).text;
        (text.matches("Shop-").count(), text.contains("Next page"))
    };
    assert_eq!(names("/operator/caches"), (50, true));
    assert_eq!(names("/operator/caches?after=50"), (10, false));
    assert_eq!(names("/operator/caches?search=shop-1"), (11, false), "any case, any place");
    let by_id = format!("/operator/caches?search={}", cache.id);
    assert_eq!(names(&by_id), (1, false));
    let by_username = format!("/operator/caches?search={}", issued.credential.username);
    assert_eq!(names(&by_username), (1, false));
    assert_eq!(names("/operator/caches?search=%25"), (0, false), "no wildcard");
}
