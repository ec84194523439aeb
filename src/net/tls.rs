//! TLS towards an upstream: whom to trust, and the name the server must prove.
//!
//! The promise: a [`Tls`] that exists checks the server's certificate against its roots and its name, always. There
//! is no opportunistic mode.
//!
//! Read first: RFC 7858 section 4.2, RFC 8310 section 8.1.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use crate::plan;

/// How to speak TLS with the servers of one upstream. Cheap to clone; workers share what it holds.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Roots, versions and the memory of earlier sessions.
    pub config: Arc<ClientConfig>,
    /// Sent as SNI and demanded of the certificate.
    pub name: ServerName<'static>,
}

// === impl Tls ===

impl Tls {
    /// Reads what `upstream` says about TLS; `None` if it does not speak it.
    ///
    /// # Errors
    /// [`TlsError`]; a PEM file is read here and only here, so a reload reads it again.
    pub fn new(upstream: &plan::Upstream) -> Result<Option<Self>, TlsError> {
        if upstream.protocol != plan::Protocol::Tls {
            return Ok(None);
        }
        let name = upstream.tls_name.clone().ok_or(TlsError::NameMissing)?;
        let name = ServerName::try_from(name).map_err(TlsError::NameInvalid)?;
        let roots = match &upstream.tls_ca {
            Some(path) => roots_of(path)?,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has a cipher suite for TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(Self { config: Arc::new(config), name }))
    }
}

impl PartialEq for Tls {
    /// Whether a connection made for one may serve the other.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for Tls {}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let octets = std::fs::read(path).map_err(|error| TlsError::CaUnreadable(path.into(), error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&octets) {
        let certificate = certificate.map_err(|error| TlsError::CaNotPem(path.into(), error))?;
        roots.add(certificate).map_err(|error| TlsError::CaInvalid(path.into(), error))?;
    }
    if roots.is_empty() {
        return Err(TlsError::CaEmpty(path.into()));
    }
    Ok(roots)
}

/// Why an upstream cannot be asked over TLS.
#[derive(Debug)]
pub enum TlsError {
    /// The file holds no certificate.
    CaEmpty(PathBuf),
    /// A certificate in the file cannot be a root.
    CaInvalid(PathBuf, rustls::Error),
    /// The file is not PEM.
    CaNotPem(PathBuf, pem::Error),
    /// The file cannot be read.
    CaUnreadable(PathBuf, io::Error),
    /// `tls_name` is neither a host name nor an address.
    NameInvalid(InvalidDnsNameError),
    /// There is no `tls_name`.
    NameMissing,
}

// === impl TlsError ===

impl TlsError {
    /// A name for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::CaEmpty(_) => "ca_empty",
            Self::CaInvalid(..) => "ca_invalid",
            Self::CaNotPem(..) => "ca_not_pem",
            Self::CaUnreadable(..) => "ca_unreadable",
            Self::NameInvalid(_) => "name_invalid",
            Self::NameMissing => "name_missing",
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaEmpty(path) => write!(f, "{} holds no certificate", path.display()),
            Self::CaInvalid(path, error) => write!(f, "a certificate in {} cannot be a root: {error}", path.display()),
            Self::CaNotPem(path, error) => write!(f, "{} is not PEM: {error}", path.display()),
            Self::CaUnreadable(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            Self::NameInvalid(error) => write!(f, "tls_name is neither a host name nor an address: {error}"),
            Self::NameMissing => f.write_str("protocol tls needs a tls_name"),
        }
    }
}

impl std::error::Error for TlsError {}

#[cfg(test)]
mod tests;
