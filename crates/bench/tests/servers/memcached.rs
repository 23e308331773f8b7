//! The load generator against the distribution's memcached.

use crate::support::{Memcached, bench, bench_observed};
use bench::{BenchError, Moment};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use tempfile::TempDir;

const DIALECTS: [&str; 3] = ["text", "meta", "binary"];

#[test]
fn every_act_in_every_dialect_is_answered_rightly() {
    let memcached = Memcached::start();
    for dialect in DIALECTS {
        let words = format!(
            "--dialect {dialect} --mix get=5,set=3,delete=1,incr=1,touch=1 --keys 500 -n 5000 \
             --value-size lognormal:200,1.5 --key-size 10..60 --in-flight 8 -c 5"
        );
        let report = bench(memcached.addr, &words).expect("memcached serves");
        assert!(report.is_clean(), "{dialect}: {report}");
        assert_eq!(report.requests, 5000, "{dialect}");
        assert_eq!(report.acts.len(), 5, "{dialect}: {report}");
        assert!(report.hits > 0 && report.misses > 0, "{dialect}: {report}");
    }
}

#[test]
fn gets_of_many_keys_find_all_of_them() {
    let memcached = Memcached::start();
    for dialect in DIALECTS {
        let words = format!("--dialect {dialect} --mix get --multiget 30 --keys 1000 -n 400 -i 3");
        let report = bench(memcached.addr, &words).expect("memcached serves");
        assert!(report.is_clean(), "{dialect}: {report}");
        assert_eq!((report.requests, report.hits, report.misses), (400, 12_000, 0), "{dialect}");
    }
}

#[test]
fn without_a_fill_everything_is_missing() {
    let memcached = Memcached::start();
    for dialect in DIALECTS {
        let words = format!("--dialect {dialect} --mix get --no-fill --multiget 7 -n 100");
        let report = bench(memcached.addr, &words).expect("memcached serves");
        assert_eq!((report.hits, report.misses), (0, 700), "{dialect}");
    }
}

#[test]
fn large_values_come_back_whole() {
    let memcached = Memcached::start();
    let words = "--value-size 100k..900k --keys 20 --mix get=1,set=1 -n 200 -c 4 -i 4";
    let report = bench(memcached.addr, words).expect("memcached serves");
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.misses, 0);
}

#[test]
fn several_threads_share_the_requests() {
    let memcached = Memcached::start();
    let report = bench(memcached.addr, "-n 1003 -t 3 -c 7").expect("memcached serves");
    assert_eq!((report.requests, report.generator.threads), (1003, 3));
    assert!(report.is_clean(), "{report}");
}

#[test]
fn idle_connections_stay_open_beside_the_load() {
    let memcached = Memcached::start();
    let mut open = 0;
    let report = bench_observed(memcached.addr, "-c 10 --idle 300 -n 1000", |moment| {
        if moment == Moment::Measuring {
            open = memcached.stat("curr_connections");
        }
    })
    .expect("memcached serves");
    assert!(open >= 310, "{open}");
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_fixed_rate_is_kept() {
    let memcached = Memcached::start();
    let words = "--rate 2000 --poisson --duration 500ms -c 20 -i 64";
    let report = bench(memcached.addr, words).expect("memcached serves");
    // The times are decided by the seed; a slow machine may not come to send all in time.
    assert!((850..1150).contains(&(report.requests + report.unsent)), "{report}");
    assert!(report.lateness_us.is_some());
}

#[test]
fn a_password_is_shown_and_a_wrong_one_refused() {
    let dir = TempDir::new().expect("the temporary folder is writable");
    let file = dir.path().join("passwords");
    fs::write(&file, "me:secret\n").expect("the temporary folder is writable");
    let memcached = Memcached::start_in(dir, &["-Y", &file.display().to_string()]);
    let login = "--auth memcached --username me --password";

    let report = bench(memcached.addr, &format!("{login} secret -n 100")).expect("let in");
    assert!(report.is_clean(), "{report}");

    let handshakes = format!("{login} secret --handshakes connect -n 50 -c 5");
    assert_eq!(bench(memcached.addr, &handshakes).expect("let in").requests, 50);

    match bench(memcached.addr, &format!("{login} wrong -n 100")) {
        Err(BenchError::LoginRefused { said, .. }) => {
            assert_eq!(said, "CLIENT_ERROR authentication failure");
        }
        other => panic!("wanted a refusal, got {other:?}"),
    }
}

#[test]
fn tls_is_spoken_with_those_we_trust_only() {
    let dir = TempDir::new().expect("the temporary folder is writable");
    let [authority, chain, key] = certificates(&dir);
    let options = format!("ssl_chain_cert={chain},ssl_key={key}");
    let memcached = Memcached::start_in(dir, &["-Z", "-o", &options]);

    // One set at a time: memcached before 1.6.39 can forget one that it has read along with the
    // set before it, when both came over TLS.
    for load in ["--mix get -i 4 --value-size 40k", "--mix set --value-size 900k"] {
        let words = format!("--tls --ca {authority} {load} -n 300 -c 5 --keys 10");
        let report = bench(memcached.addr, &words).expect("the certificate is trusted");
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.requests, 300);
    }

    let report = bench(memcached.addr, "--tls --insecure -n 50").expect("anyone is trusted");
    assert_eq!(report.requests, 50);

    let other = TempDir::new().expect("the temporary folder is writable");
    let [stranger, ..] = certificates(&other);
    let refused = bench(memcached.addr, &format!("--tls --ca {stranger} -n 50"));
    let text = refused.expect_err("nobody vouches for it").to_string();
    assert!(text.contains("--insecure"), "{text}");
}

/// Files in `dir`: an authority, a certificate of it for this machine, and its key.
fn certificates(dir: &TempDir) -> [String; 3] {
    let authority_key = KeyPair::generate().expect("there is chance");
    let mut params = CertificateParams::new(Vec::new()).expect("no name is a good name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).expect("it can sign itself");
    let issuer = Issuer::new(params, authority_key);
    let key = KeyPair::generate().expect("there is chance");
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
        .and_then(|params| params.signed_by(&key, &issuer))
        .expect("the authority can sign");
    let files = [("ca", authority.pem()), ("chain", leaf.pem()), ("key", key.serialize_pem())];
    files.map(|(name, pem)| {
        let path = dir.path().join(name);
        fs::write(&path, pem).expect("the temporary folder is writable");
        path.display().to_string()
    })
}
