//! `/v1/rules`: what is refused until it is insisted on, and who may ask at all.

use super::*;
use tenancy::id::CacheId;
use tenancy::rules::Open;

fn wish(network: &str, more: Value) -> Option<Value> {
    let mut wish = json!({ "network": network, "reason": "a test" });
    for (name, value) in more.as_object().expect("an object") {
        wish[name] = value.clone();
    }
    Some(wish)
}

#[test]
fn a_rule_is_made_listed_and_removed() {
    let served = Served::new();
    served.create("shop");
    let (status, made) = served.ask("POST", "/v1/rules", wish("192.0.2.7/24", json!({})));
    assert_eq!(status, 201, "{made}");
    assert_eq!((text(&made, "network"), text(&made, "ruling")), ("192.0.2.0/24", "block"));
    assert_eq!((text(&made, "made_by"), made.get("cache")), ("operator", None));
    let lasts = made["expires_at"].as_u64().zip(made["made_at"].as_u64());
    assert_eq!(lasts.map(|(end, made)| end - made), Some(3_600), "an hour when nobody says");

    let month = json!({ "cache": "shop", "ruling": "allow", "seconds": 30 * 86_400 });
    let (status, of_shop) = served.ask("POST", "/v1/rules", wish("192.0.2.7", month));
    assert_eq!((status, text(&of_shop, "cache_name")), (201, "shop"), "{of_shop}");

    let (_, page) = served.ask("GET", "/v1/rules?limit=1", None);
    assert_eq!((page["rules"][0].clone(), page["next_after"].clone()), (made.clone(), json!(1)));
    let (_, page) = served.ask("GET", "/v1/rules?after=1", None);
    assert_eq!(page, json!({ "rules": [of_shop] }));

    assert_eq!(served.ask("DELETE", "/v1/rules/1", None).0, 204);
    let again = served.send("DELETE", "/v1/rules/1", Some(&served.token), None);
    check_refused(again, 404, "unknown-rule");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let served = Served::new();
    served.create("shop");
    for (network, more, what) in [
        ("host.example", json!({}), "a network is an address"),
        ("192.0.2.1", json!({ "ruling": "perhaps" }), "block or allow"),
        ("192.0.2.1", json!({ "seconds": 3_601 }), "1 to 3600 seconds"),
        ("192.0.2.1", json!({ "reason": "" }), "a reason has"),
        ("192.0.2.1", json!({ "cache": "shop", "cluster": "default" }), "not both"),
        ("192.0.2.1", json!({ "until": 7 }), "unknown field"),
    ] {
        let wish = wish(network, more);
        for path in ["/v1/rules", "/v1/rules/preview"] {
            let refused = served.send("POST", path, Some(&served.token), wish.clone());
            let problem = check_refused(refused, 400, "bad-request");
            assert!(text(&problem, "detail").contains(what), "{problem}");
        }
    }
    let nowhere = wish("192.0.2.1", json!({ "cache": "nowhere" }));
    let refused = served.send("POST", "/v1/rules", Some(&served.token), nowhere);
    check_refused(refused, 404, "unknown-cache");
    assert_eq!(served.ask("GET", "/v1/rules", None).1, json!({ "rules": [] }));
}

#[test]
fn what_would_cut_somebody_off_is_shown_and_needs_force() {
    let served = Served::new();
    let shop = served.create("shop");
    let id = shop["id"].as_u64().expect("a number");
    let address = "198.51.100.7".parse().expect("an address");
    let open = Open { cache: Some(CacheId::new(id)), address, connections: 3 };
    served.installation.data_plane.connect(vec![open]);
    let block = wish("198.51.100.0/24", json!({}));

    let (status, preview) = served.ask("POST", "/v1/rules/preview", block.clone());
    assert_eq!(status, 200, "{preview}");
    assert_eq!((preview["connections"].clone(), preview["nodes"].clone()), (json!(3), json!(1)));
    assert_eq!(preview["caches"], json!([{ "cache": id, "name": "shop", "connections": 3 }]));
    let client = json!([{ "address": "198.51.100.7", "cache": id, "connections": 3 }]);
    assert_eq!(preview["clients"], client);
    assert!(text(&preview, "objection").contains("3 open connections"), "{preview}");
    let refused = served.send("POST", "/v1/rules", Some(&served.token), block);
    check_refused(refused, 409, "rule-cuts");
    let everyone = wish("0.0.0.0/0", json!({}));
    let refused = served.send("POST", "/v1/rules", Some(&served.token), everyone);
    check_refused(refused, 409, "rule-too-wide");
    assert_eq!(served.ask("GET", "/v1/rules", None).1, json!({ "rules": [] }));

    // Insisted on; then an exception is made, and whom it would cut off to take that back is known.
    for (network, more) in
        [("198.51.100.7", json!({ "ruling": "allow" })), ("0.0.0.0/0", json!({ "force": true }))]
    {
        let (status, made) = served.ask("POST", "/v1/rules", wish(network, more));
        assert_eq!(status, 201, "{made}");
    }
    let (_, preview) = served.ask("GET", "/v1/rules/1/preview", None);
    assert_eq!(preview["connections"], 3, "{preview}");
    let (_, preview) = served.ask("GET", "/v1/rules/2/preview", None);
    assert_eq!(preview["connections"], 0, "{preview}");
}
