//! The API that owners' scripts know, row by row of its documentation, with curl against a real `larder up`:
//! `golden/analytics-v2.json` has what is asked, the status, and what the answer looks like.
//!
//! ```text
//!   "<number>", "<text>", "<truth>", "<time>", "<number or null>"   anything of this kind
//!   "<text:second>"         the same, and `{second}` stands for it from then on
//!   "<cache>"               the number of the cache that is asked about
//!   ["<each>", pattern]     a list of such, of one at least
//!   all else                exactly this: an object has these fields and no other
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};
use testbed::connection::{Connection, Login};
use testbed::larder::Larder;
use testbed::owner::Owner;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/analytics-v2.json");

/// What stands for `{name}` from now on.
type Names = BTreeMap<String, String>;

#[test]
fn every_row_of_the_documentation_is_answered_as_it_says() {
    let golden = fs::read_to_string(GOLDEN).expect("it is there");
    let cases: Vec<Value> = serde_json::from_str(&golden).expect("it is JSON");
    let rows: BTreeSet<&str> = cases.iter().filter_map(|case| case["row"].as_str()).collect();
    for row in 1..=24 {
        assert!(rows.contains(format!("J{row:02}").as_str()), "no case of J{row:02}");
    }
    let larder = Larder::start();
    let control = larder.process.line_after("LARDER_CONTROL=").expect("it was printed");
    let owner = Owner::of(&larder.run(&["cache", "create", "shop", "--plan", "100"]), &control);
    let dev = Owner::of(&larder.run(&["cache", "create", "try", "--plan", "dev"]), &control);
    let wrong = Login { password: "wrong".to_owned(), ..owner.login.clone() };
    let stranger = owner.with(wrong);

    let mut names = Names::from([
        ("cache".to_owned(), owner.cache.to_string()),
        ("username".to_owned(), owner.login.username.clone()),
        ("server".to_owned(), larder.addr.to_string()),
    ]);
    let mut client = Connection::open_as(larder.addr, &owner.login);
    for case in &cases {
        let case = filled(case, &names);
        if case["row"] == "J18" {
            // Whoever asks begins to record and to watch: then there is something to tell.
            owner.curl("GET", "introspection/recent_logs", "");
            owner.curl("GET", "introspection/popular_items", "");
        }
        if case["row"] == "J15" || case["row"] == "J18" {
            play(&mut client);
        }
        let who = match case["who"].as_str() {
            None => &owner,
            Some("dev") => &dev,
            Some("stranger") => &stranger,
            Some(other) => panic!("nobody is called {other}"),
        };
        let (method, path) =
            case["ask"].as_str().and_then(|it| it.split_once(' ')).expect("two words");
        let url = if path.starts_with('/') { format!("{control}{path}") } else { who.url(path) };
        let body = case.get("body").map_or_else(String::new, Value::to_string);
        let (status, answer) = who.curl_at(method, &url, &body);
        assert_eq!(case["status"], status, "{} {method} {path}: {answer}", case["row"]);
        let mut problems = Vec::new();
        let cache = who.cache;
        compare("answer", &case["answer"], &answer, cache, &mut names, &mut problems);
        assert!(problems.is_empty(), "{} {method} {path}: {problems:#?}\n{answer}", case["row"]);
    }
}

/// Requests of every kind that is popular: enough that some are sampled, whatever chance does.
fn play(client: &mut Connection) {
    client.ask("set hit 0 0 5\r\nvalue\r\n", "STORED\r\n");
    for number in 0..200 {
        client.ask("get hit\r\n", "VALUE hit 0 5\r\nvalue\r\nEND\r\n");
        client.ask("get p:gone\r\n", "END\r\n");
        client.ask(&format!("set made 0 0 1\r\n{}\r\n", number % 10), "STORED\r\n");
    }
}

/// With what `{…}` stands for in every text; a text that is only that becomes a number where it is one.
fn filled(pattern: &Value, names: &Names) -> Value {
    match pattern {
        Value::String(text) => {
            let whole = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
            let number = whole.and_then(|name| names.get(name)?.parse::<u64>().ok());
            match number {
                Some(number) => json!(number),
                None => Value::String(replaced(text, names)),
            }
        }
        Value::Array(all) => all.iter().map(|one| filled(one, names)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, it)| (replaced(name, names), filled(it, names))).collect()
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other.clone(),
    }
}

fn replaced(text: &str, names: &Names) -> String {
    names.iter().fold(text.to_owned(), |text, (name, it)| text.replace(&format!("{{{name}}}"), it))
}

/// Says where an answer is not what its pattern wants.
fn compare(
    at: &str,
    pattern: &Value,
    answer: &Value,
    cache: u64,
    names: &mut Names,
    problems: &mut Vec<String>,
) {
    match (pattern, answer) {
        (Value::Object(wanted), Value::Object(found)) => {
            for name in wanted.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
                match (wanted.get(name), found.get(name)) {
                    (Some(wanted), Some(found)) => {
                        compare(&format!("{at}.{name}"), wanted, found, cache, names, problems);
                    }
                    (Some(_), None) => problems.push(format!("{at} lacks {name}")),
                    (None, _) => problems.push(format!("{at} has {name}")),
                }
            }
        }
        (Value::Array(wanted), Value::Array(found)) => {
            if let [each, wanted] = &wanted[..]
                && each == "<each>"
            {
                if found.is_empty() {
                    problems.push(format!("{at} is empty"));
                }
                for (index, found) in found.iter().enumerate() {
                    compare(&format!("{at}[{index}]"), wanted, found, cache, names, problems);
                }
            } else if wanted.len() == found.len() {
                for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                    compare(&format!("{at}[{index}]"), wanted, found, cache, names, problems);
                }
            } else {
                problems.push(format!("{at} has {} and not {}", found.len(), wanted.len()));
            }
        }
        (Value::String(wanted), found) if wanted.starts_with('<') => {
            let kind = wanted.trim_matches(['<', '>']);
            let (kind, name) =
                kind.split_once(':').map_or((kind, None), |(kind, it)| (kind, Some(it)));
            let fits = match kind {
                "number" => found.is_number(),
                "number or null" => found.is_number() || found.is_null(),
                "text" => found.is_string(),
                "truth" => found.is_boolean(),
                "time" => found.as_str().is_some_and(is_time),
                "cache" => found.as_u64() == Some(cache),
                _ => panic!("{wanted} is no pattern"),
            };
            if !fits {
                problems.push(format!("{at} is {found} and not {wanted}"));
            }
            if let Some(name) = name {
                let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                names.insert(name.to_owned(), text);
            }
        }
        (wanted, found) => {
            if wanted != found {
                problems.push(format!("{at} is {found} and not {wanted}"));
            }
        }
    }
}

/// As `2023-01-08T15:20:00Z`.
fn is_time(text: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:ddZ";
    let fits = |(form, found): (char, char)| match form {
        'd' => found.is_ascii_digit(),
        other => found == other,
    };
    text.len() == form.len() && form.chars().zip(text.chars()).all(fits)
}

#[test]
fn a_pattern_that_does_not_fit_is_found_out() {
    let golden =
        json!({ "id": "<number>", "list": ["<each>", { "name": "<text:it>" }], "at": "<time>" });
    let good = json!({ "id": 5, "list": [{ "name": "x" }], "at": "2023-01-08T15:20:00Z" });
    let check = |answer: &Value| {
        let (mut names, mut problems) = (Names::new(), Vec::new());
        compare("answer", &golden, answer, 1, &mut names, &mut problems);
        (names, problems.len())
    };
    assert_eq!(check(&good), (Names::from([("it".to_owned(), "x".to_owned())]), 0));
    for (field, wrong) in [
        ("id", json!("5")),
        ("list", json!([])),
        ("list", json!([{ "name": 5 }])),
        ("at", json!("yesterday")),
        ("more", json!(1)),
    ] {
        let mut answer = good.clone();
        answer[field] = wrong;
        assert_ne!(check(&answer).1, 0, "{answer}");
    }
}
