//! A certificate for development, so that `larder up --tls-listen` works without any files.
//!
//! An authority of one's own signs a certificate for `localhost`, the loopback addresses and this
//! machine's name. Clients are told to trust the authority; nobody else should.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use proxy::tls::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// The files of a development certificate.
pub(crate) struct DevelopmentTls {
    /// What clients must trust.
    pub(crate) authority: PathBuf,
    pub(crate) files: TlsFiles,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DevelopmentTlsError {
    #[error("cannot make a development certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// Finds the development certificate under `directory`, or makes one.
///
/// # Errors
/// The files cannot be written.
pub(crate) fn find_or_make(
    directory: &Path,
    client_authorities: Option<PathBuf>,
) -> Result<DevelopmentTls, DevelopmentTlsError> {
    let authority = directory.join("ca.pem");
    let certificate = directory.join("certificate.pem");
    let key = directory.join("key.pem");
    if !(authority.exists() && certificate.exists() && key.exists()) {
        let written =
            |path: &Path, source| DevelopmentTlsError::Write { path: path.into(), source };
        fs::create_dir_all(directory).map_err(|source| written(directory, source))?;
        let made = make()?;
        for (path, pem) in
            [(&authority, made.authority), (&key, made.key), (&certificate, made.certificate)]
        {
            write_private(path, &pem).map_err(|source| written(path, source))?;
        }
    }
    Ok(DevelopmentTls { authority, files: TlsFiles { certificate, key, client_authorities } })
}

struct Made {
    authority: String,
    certificate: String,
    key: String,
}

fn make() -> Result<Made, rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, "Larder development authority");
    let authority_certificate = authority.self_signed(&authority_key)?;
    // The authority's key ends here: nothing more can ever be signed with it.
    let issuer = Issuer::new(authority, authority_key);

    let mut names = vec!["localhost".to_owned()];
    names.extend(host_name());
    let mut params = CertificateParams::new(names)?;
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        params.subject_alt_names.push(rcgen::SanType::IpAddress(address));
    }
    params.distinguished_name.push(DnType::CommonName, "Larder development");
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Made {
        authority: authority_certificate.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name != "localhost").then(|| name.to_owned())
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
