//! The database of a control plane: killed under load, and reached over TLS.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use testbed::eventually::DEADLINE;
use testbed::kill_control::kill_database;
use testbed::larder::program;
use testbed::postgres::Postgres;
use testbed::process::Process;

/// Short absences, and one that outlasts the lease.
#[test]
fn a_database_that_is_killed_under_load_loses_and_doubles_nothing() {
    let short = Duration::from_millis(20);
    let report = kill_database(1, 4, &[short, short, short, Duration::from_millis(6_500)]);
    assert!(report.changes > 20, "{report}");
}

#[test]
fn the_connection_is_encrypted_and_the_server_must_prove_who_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let (ours, others) = (dir.path().join("ca.pem"), dir.path().join("other.pem"));
    certify(dir.path(), &ours);
    certify(tempfile::tempdir().expect("a folder").path(), &others);
    let (_postgres, url) = Postgres::start_with_tls(dir.path());
    let data = dir.path().join("control");
    let start = |url: &str, authority: Option<&Path>| {
        let mut command = Command::new(program());
        command.args(["control", "--listen", "127.0.0.1:0", "--nodes-listen", "127.0.0.1:0"]);
        command.arg("--data").arg(&data).args(["--postgres", url]);
        if let Some(authority) = authority {
            command.arg("--postgres-ca").arg(authority);
        }
        Process::start(&mut command)
    };
    let by_address = url.replace("localhost", "127.0.0.1");
    let required = format!("{url}&sslmode=require");
    for (what, url, authority, why) in [
        ("another authority", &url, Some(&others), "invalid peer certificate"),
        ("a name that is not the certificate's", &by_address, Some(&ours), "not valid for name"),
        ("no TLS where the server wants it", &url, None, "no encryption"),
        ("TLS without an authority", &required, None, "--postgres-ca"),
        ("a file without an authority", &url, Some(&dir.path().join("server.key")), "holds no"),
    ] {
        let mut refused = start(url, authority.map(AsRef::as_ref));
        assert!(!refused.wait_for_end(DEADLINE).success(), "{what}");
        let said = refused.whole_log();
        assert!(said.contains(why), "{what}: {said}");
    }
    let mut control = start(&url, Some(&ours));
    control.wait_for_line("LARDER_CONTROL=");
    assert!(!control.log().contains("not encrypted"));
}

/// Makes an authority, and with it `server.crt` and `server.key` for localhost in the folder.
fn certify(folder: &Path, authority: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["database authority".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let made = params.self_signed(&key).expect("it signs itself");
    fs::write(authority, made.pem()).expect("writable");
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &issuer).expect("the authority signs");
    fs::write(folder.join("server.crt"), certificate.pem()).expect("writable");
    fs::write(folder.join("server.key"), key.serialize_pem()).expect("writable");
}
