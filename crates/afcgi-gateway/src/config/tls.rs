//! TLS, by rustls.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::ConfigError;
use super::settings::Tls;

/// Reads a certificate, with those that lead to its issuer, and its key.
pub(super) fn load(tls: &Tls) -> Result<Arc<ServerConfig>, ConfigError> {
    let failed = |path: &Path, what: &str, error: &dyn std::fmt::Display| {
        ConfigError::new(format!(
            "{}: {error}: expected {what} in PEM",
            path.display()
        ))
    };
    let (cert, key) = (&tls.cert, &tls.key);
    let what = "a certificate, and behind it those of its issuers,";
    let certs = CertificateDer::pem_file_iter(cert).map_err(|error| failed(cert, what, &error))?;
    let certs = certs
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(cert, what, &error))?;
    if certs.is_empty() {
        return Err(failed(cert, what, &"it holds no certificate"));
    }
    let what = "the private key of the certificate";
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, what, &error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(certs, private)
        })
        .map_err(|error| failed(key, what, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
