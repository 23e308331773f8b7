//! Who is let in and who is not, and what a page never says: asked of the routes themselves, as a browser
//! or an attacker would.

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
use crate::pretend::Installation;
use tenancy::capability::{Capabilities, Capability};
use tenancy::plan::Plan;

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

impl Pages {
    fn new() -> Self {
        Pages::at("http://dash.example")
    }

    fn at(public_url: &str) -> Self {
        let installation = Installation::new();
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
    ["", "/live", "/credentials", "/connect", "/settings"]
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
fn an_owner_reaches_no_other_cache_by_its_id() {
    let pages = Pages::new();
    let (mine, _) = pages.create("mine");
    let (theirs, issued) = pages.create("theirs");
    let browser = pages.owner(&mine);
    for page in owners_pages(&theirs) {
        let got = pages.get(&page, &browser.cookie);
        assert_eq!(got.status, StatusCode::FORBIDDEN, "{page}");
        assert!(!got.text.contains("theirs"), "{page}");
    }
    // A form for another cache, and one of mine that names another's credential.
    let username = issued.credential.username.to_string();
    let named = [("username", username.as_str()), ("confirmed", "yes")];
    for act in ["credentials/add", "credentials/remove", "settings/flush", "settings/rotate"] {
        let path = format!("/dashboard/{}/{act}", theirs.id);
        assert_eq!(pages.submit(&browser, &path, &named).status, StatusCode::FORBIDDEN, "{act}");
    }
    for act in ["promote", "remove", "capabilities"] {
        let path = format!("/dashboard/{}/credentials/{act}", mine.id);
        assert_eq!(pages.submit(&browser, &path, &named).status, StatusCode::NOT_FOUND, "{act}");
    }
    let kept = pages.control().issued(&CacheRef::Id(theirs.id)).expect("there").1;
    assert_eq!(kept, [issued]);
    // Nor the operators' pages, nor one that is not there.
    assert_eq!(pages.get("/operator/caches", &browser.cookie).location, "/operator/login");
    assert_eq!(pages.get("/dashboard/999", &browser.cookie).status, StatusCode::FORBIDDEN);
    assert_eq!(pages.get("/dashboard/mine", &browser.cookie).status, StatusCode::NOT_FOUND);
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
fn a_form_without_its_token_does_nothing() {
    let pages = Pages::new();
    let (cache, issued) = pages.create("shop");
    let (browser, other) = (pages.owner(&cache), pages.owner(&cache));
    let before = pages.control().audit(0, 100).expect("readable").len();
    for act in [
        "credentials/add",
        "credentials/capabilities",
        "credentials/promote",
        "credentials/remove",
        "settings/enabled",
        "settings/plan",
        "settings/flush",
        "settings/rotate",
        "leave",
    ] {
        let path = format!("/dashboard/{}/{act}", cache.id);
        let username = issued.credential.username.to_string();
        let fields = [("username", username.as_str()), ("confirmed", "yes"), ("plan", "250")];
        for token in [None, Some(""), Some("x"), Some(other.token.as_str())] {
            let token = token.map(|token| ("token", token));
            let fields: Vec<_> = fields.into_iter().chain(token).collect();
            let got = pages.post(&path, &browser.cookie, &fields);
            assert_eq!(got.status, StatusCode::FORBIDDEN, "{act} with {token:?}");
        }
        assert_eq!(pages.get(&path, &browser.cookie).status, StatusCode::METHOD_NOT_ALLOWED);
    }
    assert_eq!(pages.control().audit(0, 100).expect("readable").len(), before);
    let page = format!("/dashboard/{}", cache.id);
    assert_eq!(pages.get(&page, &browser.cookie).status, StatusCode::OK, "and is still there");
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
fn what_people_write_is_text_wherever_it_is_shown() {
    let pages = Pages::new();
    pages.add_operator("ann");
    let ann = pages.operator("ann");
    let (cache, _) = pages.create("shop");
    let owner = pages.owner(&cache);
    let bad = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'";
    let id = cache.id;
    let asked = escaped(bad);
    let mut got = vec![
        pages.get(&format!("/operator/caches?search={asked}&after=1"), &ann.cookie),
        pages.get(&format!("/operator/log?before={asked}"), &ann.cookie),
        pages.get(&format!("/operator/{asked}"), &ann.cookie),
        pages.get(&format!("/dashboard/{id}?done={asked}"), &owner.cookie),
        pages.get(&format!("/dashboard/{id}/credentials?show={asked}"), &owner.cookie),
        pages.get(&format!("/dashboard/{id}/connect?client={asked}"), &owner.cookie),
        pages.get(&format!("/sso/{id}/{asked}"), ""),
        pages.log_in(bad, bad),
    ];
    for (act, field) in [
        ("credentials/remove", "username"),
        ("credentials/promote", "username"),
        ("credentials/capabilities", "username"),
        ("settings/plan", "plan"),
    ] {
        let path = format!("/dashboard/{id}/{act}");
        got.push(pages.submit(&owner, &path, &[(field, bad)]));
    }
    for got in got {
        assert!(
            !got.text.contains("<script>alert") && !got.text.contains("<img src=x"),
            "{}",
            got.text
        );
        assert!(!got.status.is_server_error(), "{}", got.text);
    }
    let search = "' OR 1=1; DROP TABLE caches; --";
    let found = pages.get(&format!("/operator/caches?search={}", escaped(search)), &ann.cookie);
    assert!(found.text.contains("No cache has"), "{}", found.text);
    assert!(pages.control().cache(&CacheRef::Id(id)).is_ok());
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
    let (cache, issued) = pages.create("shop");
    let owner = pages.owner(&cache);
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
        for hidden in [password, secret, sessions[0], sessions[1]] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
    let shown =
        pages.get(&format!("/dashboard/{}/credentials?show={username}", cache.id), &owner.cookie);
    assert!(shown.text.contains(password));
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
