//! The cluster's own certificate authority, and the tokens with which nodes join.
//!
//! | file in the data directory | content |
//! |---|---|
//! | `authority.key` | the authority's private key, PEM; readable by its owner only |
//! | `authority.pem` | its certificate |
//!
//! The cluster is named by its authority: [`ClusterId`] is the beginning of the SHA-256 of the
//! authority's public key. A node sends its public key and a token, and gets a certificate that says
//! its name. That is less than a PKCS #10 request, of which nothing but the key would be used; the
//! certificate is worth nothing without the private key, which never leaves the node.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hmac::{Hmac, Mac};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wire::control::message::{Certificate, Reason, Refusal};
use wire::control::name::{CONTROL_CERTIFICATE_NAME, ClusterId, NodeName};
use wire::control::token::{JoinToken, MAC_BYTES};

const KEY_FILE: &str = "authority.key";
const CERTIFICATE_FILE: &str = "authority.pem";

/// How long a node's certificate is good. A node renews it when a third of that is left, so a control
/// plane may be away for ten days before any certificate ends.
pub const NODE_CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// How long a token is good unless told otherwise: time to set up a machine.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3_600);
/// Clocks of machines differ; certificates begin this much earlier.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(3_600);
/// The control plane's own certificate is made at each start and its key is never written down.
const CONTROL_CERTIFICATE_LIFE: Duration = Duration::from_secs(10 * 366 * 86_400);
/// An uncompressed point of P-256: `4`, x, y.
const PUBLIC_KEY_BYTES: usize = 65;

/// Signs nodes' certificates and tokens.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    cluster: ClusterId,
    mac_key: [u8; 32],
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("could not use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} can be read by others; run: chmod 600 {path}")]
    TooOpen { path: PathBuf },
    #[error("{path} holds no key or certificate of an authority")]
    NotOurs { path: PathBuf },
    #[error("could not make a certificate")]
    Make(#[from] rcgen::Error),
}

impl Authority {
    /// Reads the authority from the data directory, or makes one at the first start.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let key_path = directory.join(KEY_FILE);
        let certificate_path = directory.join(CERTIFICATE_FILE);
        let key = match read_private(&key_path)? {
            Some(pem) => KeyPair::from_pem(&pem)
                .map_err(|_| AuthorityError::NotOurs { path: key_path.clone() })?,
            None => {
                let key = KeyPair::generate()?;
                write_private(&key_path, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let cluster = cluster_of(&key);
        let params = authority_params(cluster);
        if !certificate_path.exists() {
            let made = params.self_signed(&key)?;
            write_private(&certificate_path, made.pem().as_bytes())?;
        }
        let certificate = CertificateDer::from_pem_file(&certificate_path)
            .map_err(|_| AuthorityError::NotOurs { path: certificate_path })?;
        let mac_key = <Hmac<Sha256> as Mac>::new_from_slice(key.serialized_der())
            .expect("HMAC takes a key of any length")
            .chain_update(b"larder 1: join tokens")
            .finalize()
            .into_bytes()
            .into();
        Ok(Authority { issuer: Issuer::new(params, key), certificate, cluster, mac_key })
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What nodes trust, and what a token names by its SHA-256.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The SHA-256 of the certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }

    /// Makes a token that lets a node in until `expires_at` (Unix seconds); any that is not there
    /// yet, or only the one named, also again.
    pub fn token(&self, expires_at: u64, node: Option<NodeName>, nonce: [u8; 8]) -> JoinToken {
        let authority = self.fingerprint();
        let mut token = JoinToken { expires_at, nonce, authority, node, mac: [0; MAC_BYTES] };
        token.mac = self.mac(&token);
        token
    }

    /// Whether this node may join with this token now.
    pub fn check_token(&self, text: &str, node: &NodeName, now: u64) -> Result<JoinToken, Refusal> {
        let wrong = |detail: &str| Refusal::new(Reason::WrongToken, detail);
        let token = JoinToken::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if !bool::from(self.mac(&token).ct_eq(&token.mac)) {
            return Err(wrong("it was not made by this control plane"));
        }
        if token.expires_at <= now {
            let detail = format!("it ended {} s ago; make another", now - token.expires_at);
            return Err(Refusal::new(Reason::TokenExpired, detail));
        }
        if token.node.as_ref().is_some_and(|only| only != node) {
            return Err(wrong("it is for another node"));
        }
        Ok(token)
    }

    fn mac(&self, token: &JoinToken) -> [u8; MAC_BYTES] {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.mac_key)
            .expect("HMAC takes a key of any length");
        let whole: [u8; 32] = mac.chain_update(token.signed_bytes()).finalize().into_bytes().into();
        *whole.first_chunk().expect("32 bytes have a beginning of 16")
    }

    /// A certificate for a node's public key, good for `life` from `now` (Unix seconds) on.
    pub fn certify(
        &self,
        node: &NodeName,
        public_key: &[u8],
        now: u64,
        life: Duration,
    ) -> Result<Certificate, Refusal> {
        if public_key.len() != PUBLIC_KEY_BYTES || public_key[0] != 4 {
            return Err(Refusal::new(Reason::Garbage, "the public key is no point of P-256"));
        }
        let not_after = now.saturating_add(life.as_secs());
        let der = self
            .sign(&node.certificate_name(), &NodeKey(public_key), now, not_after)
            .map_err(|error| Refusal::new(Reason::Garbage, error.to_string()))?;
        Ok(Certificate { der: der.to_vec(), not_after })
    }

    /// A certificate and key for the control plane itself, kept in memory only.
    pub fn certify_control(
        &self,
        now: u64,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), AuthorityError> {
        let key = KeyPair::generate()?;
        let not_after = now.saturating_add(CONTROL_CERTIFICATE_LIFE.as_secs());
        let certificate = self.sign(CONTROL_CERTIFICATE_NAME, &key, now, not_after)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
        Ok((certificate, key))
    }

    fn sign(
        &self,
        name: &str,
        key: &impl PublicKeyData,
        now: u64,
        not_after: u64,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let epoch = date_time_ymd(1970, 1, 1);
        let not_before = now.saturating_sub(CLOCK_DIFFERENCE.as_secs());
        params.not_before = epoch + Duration::from_secs(not_before);
        params.not_after = epoch + Duration::from_secs(not_after);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Nodes are clients of the control plane, and both of one another.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }
}

/// The digest by which a node's key is remembered.
pub fn key_digest(public_key: &[u8]) -> [u8; 32] {
    Sha256::digest(public_key).into()
}

fn cluster_of(key: &KeyPair) -> ClusterId {
    let hash: [u8; 32] = Sha256::digest(key.public_key_raw()).into();
    ClusterId::new(*hash.first_chunk().expect("32 bytes have a beginning of 16"))
}

fn authority_params(cluster: ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let name = format!("Larder cluster {cluster:.12}");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

struct NodeKey<'a>(&'a [u8]);

impl PublicKeyData for NodeKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn read_private(path: &Path) -> Result<Option<String>, AuthorityError> {
    use std::os::unix::fs::MetadataExt;
    let file = |source| AuthorityError::File { path: path.to_owned(), source };
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file(error)),
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            return Err(AuthorityError::TooOpen { path: path.to_owned() });
        }
        Ok(_) => (),
    }
    fs::read_to_string(path).map(Some).map_err(file)
}

/// A crash leaves nothing or the whole file.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AuthorityError> {
    let draft = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Authority::open(dir.path()).expect("made");
        let again = Authority::open(dir.path()).expect("found");
        assert_eq!(first.cluster(), again.cluster());
        assert_eq!(first.certificate(), again.certificate());
        let token = first.token(100, None, [1; 8]).to_text();
        again.check_token(&token, &node("a"), 99).expect("the same key");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        drop(Authority::open(dir.path()).expect("made"));
        let path = dir.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        assert!(matches!(Authority::open(dir.path()), Err(AuthorityError::TooOpen { .. })));
    }

    #[test]
    fn a_token_is_refused_when_it_is_late_changed_or_anothers() {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = Authority::open(dir.path()).expect("made");
        let good = authority.token(100, Some(node("a")), [1; 8]);
        let check = |text: &str, name: &str, now| {
            authority.check_token(text, &node(name), now).map(drop).map_err(|it| it.reason)
        };
        assert_eq!(check(&good.to_text(), "a", 99), Ok(()));
        assert_eq!(check(&good.to_text(), "a", 100), Err(Reason::TokenExpired));
        assert_eq!(check(&good.to_text(), "b", 99), Err(Reason::WrongToken));
        let longer = JoinToken { expires_at: 1_000, ..good.clone() };
        assert_eq!(check(&longer.to_text(), "a", 99), Err(Reason::WrongToken));
        let anyones = JoinToken { node: None, ..good };
        assert_eq!(check(&anyones.to_text(), "b", 99), Err(Reason::WrongToken));
        assert_eq!(check("larder1_", "a", 99), Err(Reason::WrongToken));
        let elsewhere = tempfile::tempdir().expect("a folder");
        let elsewhere = Authority::open(elsewhere.path()).expect("made");
        let foreign = elsewhere.token(100, None, [1; 8]).to_text();
        assert_eq!(check(&foreign, "a", 99), Err(Reason::WrongToken));
    }

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).expect("a good name")
    }
}
