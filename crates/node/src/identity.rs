//! Who this node is: its name, key and certificate, and whom it trusts. Got once, by joining.
//!
//! The private key is made here and never leaves. All of it stands in one file, readable by its owner
//! only, and changed as a whole; the key of password hashes is in it, too.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cluster::member::Incarnation;
use rcgen::KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tenancy::secret::SecretKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use wire::control::message::{
    Certificate, FromControl, FromNode, MESSAGE_BYTES_MAX, Refusal, VERSIONS,
};
use wire::control::name::{CONTROL_CERTIFICATE_NAME, ClusterId, InvalidNodeName, NodeName};
use wire::control::token::{InvalidToken, JoinToken};
use wire::frame::{self, Decoded};

const IDENTITY_FILE: &str = "identity.json";

/// To connect, to shake hands, and to hear the answer.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Everything a node needs to be let in and to serve.
#[derive(Debug)]
pub struct Identity {
    path: PathBuf,
    pub cluster: ClusterId,
    pub node: NodeName,
    /// Drawn when the node joined. It stays over restarts, because a restarted node may go on owning
    /// what it owned: the topology it had is on disk before anyone else may serve by a newer one.
    pub incarnation: Incarnation,
    key: KeyPair,
    certificate: Certificate,
    /// The same as TLS wants it, shared with all that was made of this identity.
    shown: Arc<Shown>,
    authority: CertificateDer<'static>,
    secret_key: [u8; 32],
}

/// The file as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    cluster: String,
    node: String,
    incarnation: u64,
    /// PEM.
    key: String,
    certificate: String,
    /// Unix time in seconds.
    certificate_not_after: u64,
    authority: String,
    /// Under which password hashes are made.
    secret_key: String,
}

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("could not use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others; run: chmod 600 {path}")]
    TooOpen { path: PathBuf },
    #[error("{path} is not what a node wrote")]
    NotOurs { path: PathBuf },
    #[error(transparent)]
    Token(#[from] InvalidToken),
    #[error(transparent)]
    Name(#[from] InvalidNodeName),
    #[error("could not make a key")]
    Key(#[from] rcgen::Error),
    #[error("the certificate cannot be used")]
    Tls(#[from] rustls::Error),
    #[error("no control plane answered at {address}")]
    Unreachable { address: String, source: io::Error },
    #[error("the control plane at {address} refused")]
    Refused { address: String, source: Refused },
    #[error("what answers at {address} is no control plane of ours: {what}")]
    Strange { address: String, what: &'static str },
}

/// A refusal as the cause of an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub Refusal);

impl Identity {
    /// Reads the identity of the data directory; `None` when the node never joined.
    pub fn read(directory: &Path) -> Result<Option<Self>, IdentityError> {
        let path = directory.join(IDENTITY_FILE);
        let file = |source| IdentityError::File { path: path.clone(), source };
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file(error)),
            Ok(metadata) if metadata.mode() & 0o077 != 0 => {
                return Err(IdentityError::TooOpen { path });
            }
            Ok(_) => (),
        }
        let text = fs::read_to_string(&path).map_err(file)?;
        let identity = Identity::from_json(&text, path.clone());
        identity.map(Some).ok_or(IdentityError::NotOurs { path })
    }

    fn from_json(text: &str, path: PathBuf) -> Option<Self> {
        let file: IdentityFile = serde_json::from_str(text).ok()?;
        let key = KeyPair::from_pem(&file.key).ok()?;
        let der = from_hex(&file.certificate)?;
        let certificate = Certificate { der, not_after: file.certificate_not_after };
        Some(Identity {
            path,
            cluster: ClusterId::new(from_hex(&file.cluster)?.try_into().ok()?),
            node: NodeName::parse(&file.node).ok()?,
            incarnation: Incarnation::new(file.incarnation),
            shown: Arc::new(Shown::of(&certificate, &key).ok()?),
            key,
            certificate,
            authority: CertificateDer::from(from_hex(&file.authority)?),
            secret_key: from_hex(&file.secret_key)?.try_into().ok()?,
        })
    }

    fn write(&self) -> io::Result<()> {
        let file = IdentityFile {
            cluster: to_hex(self.cluster.bytes()),
            node: self.node.to_string(),
            incarnation: self.incarnation.get(),
            key: self.key.serialize_pem(),
            certificate: to_hex(&self.certificate.der),
            certificate_not_after: self.certificate.not_after,
            authority: to_hex(&self.authority),
            secret_key: to_hex(&self.secret_key),
        };
        let json = serde_json::to_string_pretty(&file).expect("texts and a number");
        let draft = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        out.write_all(json.as_bytes())?;
        out.sync_all()?;
        fs::rename(&draft, &self.path)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }

    /// Joins the cluster of the token under this name, and writes down what it was given. A node
    /// that was of this cluster under this name stays who it was: it keeps its key and its
    /// incarnation, as the topology on its disk knows it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a new message is no answer to JOIN either")]
    pub async fn join(
        directory: &Path,
        token: &str,
        address: &str,
        node: NodeName,
    ) -> Result<Self, IdentityError> {
        let token = token.trim();
        let parsed = JoinToken::parse(token)?;
        let path = directory.join(IDENTITY_FILE);
        let file = |source| IdentityError::File { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(file)?;
        let before = Identity::read(directory)?.filter(|before| {
            before.node == node && digest_of(&before.authority) == parsed.authority
        });
        let (key, incarnation) = match before {
            Some(before) => (before.key, before.incarnation),
            None => {
                let random = getrandom::u64().map_err(|error| file(io::Error::other(error)))?;
                (KeyPair::generate()?, Incarnation::new(random))
            }
        };
        let config = joining_config(parsed.authority);
        let stream = connect(address, config).await;
        let mut stream = stream
            .map_err(|source| IdentityError::Unreachable { address: address.to_owned(), source })?;
        let wish = FromNode::Join {
            versions: VERSIONS,
            token: token.to_owned(),
            node: node.clone(),
            public_key: key.public_key_raw().to_vec(),
        };
        let answer = timeout(ANSWER_TIME_MAX, ask(&mut stream, &wish)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let answer = answer
            .map_err(|source| IdentityError::Unreachable { address: address.to_owned(), source })?;
        let strange = |what| IdentityError::Strange { address: address.to_owned(), what };
        let (cluster, certificate, authority, secret_key) = match answer {
            FromControl::Joined { cluster, certificate, authority, secret_key } => {
                (cluster, certificate, authority, secret_key)
            }
            FromControl::Refused(refusal) => {
                let source = Refused(refusal);
                return Err(IdentityError::Refused { address: address.to_owned(), source });
            }
            _ => return Err(strange("it answers JOIN with something else")),
        };
        let authority = CertificateDer::from(authority);
        if digest_of(&authority) != parsed.authority {
            return Err(strange("its authority is not the token's"));
        }
        let identity = Identity {
            path: path.clone(),
            cluster,
            node,
            incarnation,
            shown: Arc::new(Shown::of(&certificate, &key)?),
            key,
            certificate,
            authority,
            secret_key,
        };
        identity.write().map_err(file)?;
        Ok(identity)
    }

    /// The key under which password hashes are made.
    pub fn secret_key(&self) -> SecretKey {
        SecretKey::new(self.secret_key)
    }

    /// Unix time in seconds at which the certificate ends.
    pub fn not_after(&self) -> u64 {
        self.certificate.not_after
    }

    /// Whether the certificate is of no use any more at this Unix time, in seconds: the node must join
    /// again.
    pub fn has_ended(&self, unix_now: i64) -> bool {
        u64::try_from(unix_now).is_ok_and(|now| self.not_after() <= now)
    }

    pub(crate) fn public_key(&self) -> Vec<u8> {
        self.key.public_key_raw().to_vec()
    }

    /// Takes a newer certificate into use and writes it down. New connections show it, those that are
    /// open go on.
    pub(crate) fn renew(&mut self, certificate: Certificate) -> io::Result<()> {
        let renewed = Shown::of(&certificate, &self.key).map_err(io::Error::other)?;
        self.shown.0.store(renewed.0.load_full());
        self.certificate = certificate;
        self.write()
    }

    /// TLS towards others of the cluster: they must have a certificate of our authority. What is made of
    /// it shows the certificate that is in force at the time.
    pub fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_client_cert_resolver(Arc::clone(&self.shown) as _);
        // Each connection proves anew who is who: a session that is resumed would show what was renewed
        // since, or has ended.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// TLS for others of the cluster that connect to this node: they must have a certificate of our
    /// authority, whose name says which node they are. As for [`Identity::client_config`].
    pub fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.shown) as _);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone())?;
        Ok(roots)
    }
}

/// The certificate that others are shown, and its key; another one when it was renewed.
struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    fn of(certificate: &Certificate, key: &KeyPair) -> Result<Self, rustls::Error> {
        let chain = vec![CertificateDer::from(certificate.der.clone())];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        Ok(Shown(ArcSwap::from_pointee(certified)))
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(certificate)") // Never the key.
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The fingerprint by which a token names an authority.
fn digest_of(authority: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(authority).into()
}

/// Connects and shakes hands.
pub(crate) async fn connect(
    address: &str,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(CONTROL_CERTIFICATE_NAME).expect("a constant DNS name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    timeout(ANSWER_TIME_MAX, connect)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

async fn ask(stream: &mut TlsStream<TcpStream>, wish: &FromNode) -> io::Result<FromControl> {
    let mut bytes = Vec::new();
    wish.encode(VERSIONS.max, &mut bytes);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    let mut inbox = Vec::new();
    loop {
        match frame::decode(&inbox, MESSAGE_BYTES_MAX).map_err(io::Error::other)? {
            Decoded::Frame { frame, .. } => {
                return FromControl::decode(&frame).map_err(io::Error::other);
            }
            Decoded::NeedMore { .. } => {
                if stream.read_buf(&mut inbox).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// For the first connection, when only the fingerprint of the authority is known: from the token.
fn joining_config(authority: [u8; 32]) -> ClientConfig {
    let verifier = Arc::new(ByFingerprint { authority, provider: provider() });
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// Trusts whom the authority with this fingerprint has certified, and nobody else. The server sends
/// the authority's certificate along; everything else is checked as always.
#[derive(Debug)]
struct ByFingerprint {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_it = |one: &&CertificateDer<'_>| digest_of(one) == self.authority;
        let authority = intermediates.iter().find(is_it);
        let authority = authority
            .ok_or(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer};
    use rustls::{CertificateError, ClientConnection, Error, ServerConnection};

    #[test]
    fn nodes_of_one_authority_meet_by_their_names_and_a_renewed_certificate_is_shown_at_once() {
        let authority = Authority::new();
        let dir = tempfile::tempdir().expect("a folder");
        let (a, mut b) = (authority.identity("a", dir.path()), authority.identity("b", dir.path()));
        let (client, server) = configs(&a, &b);
        let (of_a, of_b) = (a.certificate.der.clone(), b.certificate.der.clone());
        let met = meet(&client, &server, "b").expect("both are the cluster's");
        assert_eq!(met, (of_b.clone(), of_a.clone()));
        assert_eq!(
            meet(&client, &server, "c").map_err(is_other_name),
            Err(true),
            "b cannot answer for c"
        );
        // The settings were made before.
        let renewed = authority.certificate("b", &b.key);
        b.renew(renewed.clone()).expect("a good certificate");
        assert_ne!(renewed.der, of_b);
        assert_eq!(meet(&client, &server, "b").expect("still"), (renewed.der.clone(), of_a));
        let found = Identity::read(dir.path()).expect("it was written").expect("it is there");
        assert_eq!(found.certificate, renewed);
    }

    #[test]
    fn whoever_is_of_another_authority_is_refused_by_either_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let (ours, theirs) = (Authority::new(), Authority::new());
        let (a, b) = (ours.identity("a", dir.path()), ours.identity("b", dir.path()));
        let stranger = theirs.identity("a", dir.path());
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let (client, server) = configs(&a, &stranger);
        assert_eq!(meet(&client, &server, "a"), Err(unknown.clone()), "a stranger answers");
        // The stranger trusts our authority, and is refused all the same.
        let mut config = stranger.client_config().expect("it has a certificate");
        config.dangerous().set_certificate_verifier(
            WebPkiServerVerifier::builder_with_provider(
                Arc::new(b.roots().expect("one root")),
                provider(),
            )
            .build()
            .expect("one root"),
        );
        let (_, server) = configs(&a, &b);
        assert_eq!(meet(&Arc::new(config), &server, "b"), Err(unknown), "a stranger calls");
    }

    #[test]
    fn a_certificate_for_another_key_is_not_taken_into_use() {
        let authority = Authority::new();
        let dir = tempfile::tempdir().expect("a folder");
        let mut a = authority.identity("a", dir.path());
        let other = KeyPair::generate().expect("a key");
        assert!(a.renew(authority.certificate("a", &other)).is_err());
    }

    fn is_other_name(error: Error) -> bool {
        matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            )
        )
    }

    fn configs(client: &Identity, server: &Identity) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let client = client.client_config().expect("it has a certificate");
        let server = server.server_config().expect("it has a certificate");
        (Arc::new(client), Arc::new(server))
    }

    /// Shakes hands; gives what the client and the server were shown.
    fn meet(
        client: &Arc<ClientConfig>,
        server: &Arc<ServerConfig>,
        name: &str,
    ) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let name = node(name).certificate_name();
        let name = ServerName::try_from(name).expect("nodes have names of hosts");
        let mut client = ClientConnection::new(Arc::clone(client), name)?;
        let mut server = ServerConnection::new(Arc::clone(server))?;
        while client.wants_write() || server.wants_write() {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).expect("memory takes all");
            }
            server.read_tls(&mut &flight[..]).expect("it fits");
            server.process_new_packets()?;
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).expect("memory takes all");
            }
            client.read_tls(&mut &flight[..]).expect("it fits");
            client.process_new_packets()?;
        }
        let shown = |chain: Option<&[CertificateDer<'_>]>| {
            chain.and_then(<[_]>::first).map(|first| first.to_vec()).expect("each shows one")
        };
        Ok((shown(client.peer_certificates()), shown(server.peer_certificates())))
    }

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        certificate: CertificateDer<'static>,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            // As with the real ones, no two have the same.
            let name = to_hex(key.public_key_raw());
            params.distinguished_name.push(DnType::CommonName, &name[..32]);
            let certificate = params.self_signed(&key).expect("a certificate").der().clone();
            Authority { issuer: Issuer::new(params, key), certificate }
        }

        fn certificate(&self, name: &str, key: &KeyPair) -> Certificate {
            let names = vec![node(name).certificate_name()];
            let params = CertificateParams::new(names).expect("a good name");
            let made = params.signed_by(key, &self.issuer).expect("a certificate");
            Certificate { der: made.der().to_vec(), not_after: u64::MAX }
        }

        fn identity(&self, name: &str, directory: &Path) -> Identity {
            let key = KeyPair::generate().expect("a key");
            let certificate = self.certificate(name, &key);
            Identity {
                path: directory.join(IDENTITY_FILE),
                cluster: ClusterId::new([1; 16]),
                node: node(name),
                incarnation: Incarnation::new(1),
                shown: Arc::new(Shown::of(&certificate, &key).expect("made for each other")),
                key,
                certificate,
                authority: self.certificate.clone(),
                secret_key: [2; 32],
            }
        }
    }

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a good name")
    }
}
