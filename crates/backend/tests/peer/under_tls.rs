//! Links under TLS: whoever cannot prove to be the node it says it is, is not spoken to.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use backend::peer::PeerTls;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use wire::control::name::NodeName;
use wire::data::handshake::{Greeting, Refused};

use super::{CACHE, Caller, Change, Node, PATIENCE, dial, get, hello, node_with, set, told};

/// Of the server; callers are `other`, as [`hello`] says.
const SERVER: &str = "n";

#[test]
fn a_node_of_the_cluster_is_served_as_without_tls() {
    let ours = Authority::new("ours");
    let node = node_with(Some(ours.server(true)));
    let mut caller = Caller::over(ours.call(&node, Some("other"))).be_welcomed("a");
    assert_eq!(caller.ask(get("k")), "miss");
    assert_eq!(caller.ask(set("k", b"value")), "stored");
    // Beyond one record, and beyond what TLS takes at once; and many small ones in one write.
    let large = vec![b'x'; 900_000];
    let mut bytes = caller.frame(CACHE, set("large", &large), Change::default());
    bytes.extend(caller.frame(CACHE, get("large"), Change::default()));
    for _ in 0..5_000 {
        bytes.extend(caller.frame(CACHE, get("k"), Change::default()));
    }
    caller.send(&bytes);
    assert_eq!(caller.reply(|reply| told(&reply.answer)), "stored");
    assert_eq!(caller.reply(|reply| told(&reply.answer)).len(), large.len());
    for _ in 0..5_000 {
        assert_eq!(caller.reply(|reply| told(&reply.answer)), "value");
    }
}

#[test]
fn whoever_cannot_prove_who_it_is_is_refused() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let node = node_with(Some(ours.server(true)));
    assert!(is_shut_out(dial(&node)), "without TLS");
    assert!(is_shut_out(ours.call(&node, None)), "without a certificate");
    assert!(is_shut_out(theirs.call_trusting(&ours, &node, Some("other"))), "a stranger");
    let mut third = Caller::over(ours.call(&node, Some("third")));
    assert_eq!(third.greeted(&hello("a")), Greeting::Refused(Refused::Certificate));
    let refused = || node.server.usage().links_refused_total.load(Relaxed);
    let began = Instant::now();
    while refused() < 4 && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
    assert_eq!(refused(), 4, "each is counted");
}

#[test]
fn a_cluster_that_changes_over_takes_both() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let node = node_with(Some(ours.server(false)));
    let mut plain = Caller::welcomed(&node, "a");
    assert_eq!(plain.ask(set("k", b"value")), "stored");
    let mut secured = Caller::over(ours.call(&node, Some("other"))).be_welcomed("a");
    assert_eq!(secured.ask(get("k")), "value");
    assert!(is_shut_out(theirs.call_trusting(&ours, &node, Some("other"))), "a stranger");
}

/// Whether the server closes without a greeting.
fn is_shut_out(mut socket: impl Read + Write) -> bool {
    let mut out = Vec::new();
    hello("a").encode(&mut out);
    // It may have closed already.
    drop(socket.write_all(&out));
    let mut heard = Vec::new();
    let ended = socket.read_to_end(&mut heard);
    let waits =
        ended.is_err_and(|it| matches!(it.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    !waits && !matches!(Greeting::decode(&heard), Ok(Some(_)))
}

/// A cluster's certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    fn certify(&self, node: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let name = NodeName::parse(node).expect("a good name").certificate_name();
        let params = CertificateParams::new(vec![name]).expect("a name of a host");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key as rustls wants it");
        (vec![made.der().clone()], key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("an authority");
        roots
    }

    fn server(&self, is_required: bool) -> PeerTls {
        let (chain, key) = self.certify(SERVER);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_client_cert_verifier(verifier.build().expect("there is one root"))
            .with_single_cert(chain, key)
            .expect("they were made for each other");
        PeerTls { config: Arc::new(config), is_required }
    }

    /// A connection of this node, or of one without a certificate.
    fn call(&self, node: &Node, name: Option<&str>) -> StreamOwned<ClientConnection, TcpStream> {
        self.call_trusting(self, node, name)
    }

    /// The same, to a node of another authority.
    fn call_trusting(
        &self,
        trusted: &Authority,
        node: &Node,
        name: Option<&str>,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("ring speaks TLS 1.3")
            .with_root_certificates(trusted.roots());
        let config = match name {
            None => config.with_no_client_auth(),
            Some(name) => {
                let (chain, key) = self.certify(name);
                config.with_client_auth_cert(chain, key).expect("they were made for each other")
            }
        };
        let to = NodeName::parse(SERVER).expect("a good name").certificate_name();
        let to = ServerName::try_from(to).expect("a name of a host");
        let session = ClientConnection::new(Arc::new(config), to).expect("good settings");
        StreamOwned::new(session, dial(node))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
