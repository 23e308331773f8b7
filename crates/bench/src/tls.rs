//! Which certificates to trust.

use crate::args::BenchArgs;
use crate::error::BenchError;
use crate::transport::Transport;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// How to encrypt, shared by all connections.
#[derive(Debug, Clone)]
pub(crate) struct TlsPlan {
    config: Arc<ClientConfig>,
    /// The name that the certificate must bear; by default the host of each server.
    name: Option<String>,
}

impl TlsPlan {
    /// Begins TLS on a socket that is being connected to `host`.
    pub(crate) fn start(&self, socket: mio::net::TcpStream, host: &str) -> io::Result<Transport> {
        let name = self.name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        Transport::tls(socket, Arc::clone(&self.config), name)
    }
}

/// Where Debian, Ubuntu, Alpine and Arch keep the certificates they trust.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(crate) fn plan(args: &BenchArgs) -> Result<Option<TlsPlan>, BenchError> {
    if !args.tls {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring knows the suites of both versions");
    let config = if args.insecure {
        let verifier = Arc::new(TrustAnyone { provider });
        versions.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    } else {
        let path = args.ca.as_deref().unwrap_or(Path::new(SYSTEM_CERTIFICATES));
        versions.with_root_certificates(roots(path)?).with_no_client_auth()
    };
    Ok(Some(TlsPlan { config: Arc::new(config), name: args.tls_name.clone() }))
}

fn roots(path: &Path) -> Result<RootCertStore, BenchError> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| BenchError::CaFile {
        path: path.display().to_string(),
        source,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(e.into()))? {
        let certificate = certificate.map_err(|e| unreadable(e.into()))?;
        roots.add(certificate).map_err(|e| unreadable(e.into()))?;
    }
    if roots.is_empty() {
        return Err(unreadable("there is no certificate in it".into()));
    }
    Ok(roots)
}

/// Accepts whatever certificate a test server shows; the signatures must still be right.
#[derive(Debug)]
struct TrustAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
