//! TLS to PostgreSQL, verified as far as `sslmode` and `sslrootcert` ask (PostgreSQL documentation, "SSL Support").
//!
//! As in libpq, a root certificate file turns verification on in every mode that uses TLS. Two things are stricter:
//! a file that was named must be there, and a host name must be among the certificate's alternative names.
//! One is kinder: `verify-ca` and `verify-full` without a file trust the system's authorities.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use thiserror::Error;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::conninfo::{Conninfo, RootCertificates, SslMode};

/// What direct TLS, without PostgreSQL's own negotiation, asks for.
const ALPN: &[u8] = b"postgresql";

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    #[error("sslrootcert {} cannot be read", path.display())]
    UnreadableRoots { path: PathBuf, source: io::Error },
    #[error("sslrootcert {} is no PEM file of certificates", path.display())]
    NotPem { path: PathBuf, source: pem::Error },
    #[error("sslrootcert {} holds no usable certificate", path.display())]
    NoRoots { path: PathBuf },
    #[error("this system has no trusted certificate authorities; name some with sslrootcert")]
    NoSystemRoots,
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
    #[error("TLS verification cannot be set up")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// How far a server's certificate is looked at.
enum Verification {
    /// Not at all: protection from eavesdroppers, none from impostors.
    None,
    /// It must come from one of these authorities.
    Authority(RootCertStore),
    /// And it must be for the host.
    AuthorityAndHost(RootCertStore),
}

/// TLS as the connection asks for it; certificate files are read anew each time.
pub(super) fn connector(conninfo: &Conninfo) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match verification(conninfo)? {
        Verification::None => Arc::new(AnyHost::new(None, provider.clone())),
        Verification::Authority(roots) => Arc::new(AnyHost::new(Some(roots), provider.clone())),
        Verification::AuthorityAndHost(roots) => {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    if conninfo.settings.get_ssl_negotiation() == SslNegotiation::Direct {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(MakeRustlsConnect::new(config))
}

fn verification(conninfo: &Conninfo) -> Result<Verification, TlsError> {
    let roots = match &conninfo.root_certificates {
        RootCertificates::System => Some(system_roots()?),
        RootCertificates::Named(path) => Some(roots_in(path)?),
        RootCertificates::Default(Some(path)) if path.exists() => Some(roots_in(path)?),
        RootCertificates::Default(_) => None,
    };
    Ok(match (conninfo.ssl_mode, roots) {
        (SslMode::VerifyFull, Some(roots)) => Verification::AuthorityAndHost(roots),
        (SslMode::VerifyFull, None) => Verification::AuthorityAndHost(system_roots()?),
        (SslMode::VerifyCa, None) => Verification::Authority(system_roots()?),
        (_, Some(roots)) => Verification::Authority(roots),
        (SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require, None) => Verification::None,
    })
}

fn roots_in(path: &Path) -> Result<RootCertStore, TlsError> {
    let pem = std::fs::read(path).map_err(|source| TlsError::UnreadableRoots {
        path: path.to_owned(),
        source,
    })?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::NotPem {
            path: path.to_owned(),
            source,
        })?;
    let mut roots = RootCertStore::empty();
    let (usable, _unusable) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(TlsError::NoRoots { path: path.to_owned() });
    }
    Ok(roots)
}

/// Read once: it takes long, and they change with the system only.
fn system_roots() -> Result<RootCertStore, TlsError> {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(roots.clone())
}

/// Takes a certificate for whatever host it is, of the given authorities or of any. The server must still
/// prove that it holds the certificate's key.
#[derive(Debug)]
struct AnyHost {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl AnyHost {
    fn new(roots: Option<RootCertStore>, provider: Arc<CryptoProvider>) -> Self {
        Self { roots, provider }
    }
}

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
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
