//! TLS of a proxy: the certificate it shows to clients and how it is changed while connections are open,
//! and what its links to other nodes need.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Where the certificate and its key are kept, as PEM files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain, the proxy's own first.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities whose client certificates are required; `None` asks clients for none.
    pub client_authorities: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} from {path}")]
    Read { what: &'static str, path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{path} holds no {what}")]
    Empty { what: &'static str, path: PathBuf },
    #[error("the certificate in {certificate} and the key in {key} cannot be used together")]
    Unusable { certificate: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("the client authorities in {path} cannot be used")]
    Authorities { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

/// TLS as the proxy's listeners use it: settings that stay, and a certificate that can be replaced.
#[derive(Debug, Clone)]
pub struct Tls {
    files: TlsFiles,
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads certificate, key and authorities.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it should; the text names the file.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(RwLock::new(Arc::new(read_certified_key(&files)?))));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the default versions are supported by the default provider");
        let builder = match &files.client_authorities {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(client_verifier(path)?),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&current) as _);
        // Sessions are resumed from tickets only: a cache of sessions would cost memory per client.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 1;
        Ok(Tls { files, current, config: Arc::new(config) })
    }

    /// Reads certificate and key again. New connections see the new one; open ones keep theirs.
    ///
    /// # Errors
    /// As [`load`](Self::load); the certificate in use stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(read_certified_key(&self.files)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// How links to the backends of other nodes are secured.
#[derive(Debug, Clone)]
pub struct LinkTls {
    /// Trusts the cluster's authority only, and shows this node's certificate as it is now.
    pub config: Arc<ClientConfig>,
    /// A member that does not speak TLS is not spoken to. Otherwise every other attempt goes without,
    /// while a cluster changes over.
    pub is_required: bool,
}

struct Current(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(certificate)") // Never the key.
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read_certified_key(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain = read_certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Read {
        what: "a private key",
        path: files.key.clone(),
        source,
    })?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|source| TlsError::Unusable {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const WHAT: &str = "certificate";
    let read = |source| TlsError::Read { what: WHAT, path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(read)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { what: WHAT, path: path.to_owned() });
    }
    Ok(certificates)
}

fn client_verifier(
    path: &Path,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|source| TlsError::Authorities {
            path: path.to_owned(),
            source: source.into(),
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|source| TlsError::Authorities { path: path.to_owned(), source: source.into() })
}
