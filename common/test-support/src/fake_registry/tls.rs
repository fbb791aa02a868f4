//! A CA of its own, the server's certificate, and certificates for clients.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;

/// The keys of one registry.
#[derive(Debug)]
pub(super) struct Tls {
    ca: CertifiedIssuer<'static, KeyPair>,
    ca_pem: String,
    requires_client: bool,
}

/// A certificate for a client, and its key, in PEM.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Tls {
    pub(super) fn new(requires_client: bool) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca_pem = ca.pem();
        Ok(Self {
            ca,
            ca_pem,
            requires_client,
        })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(super) fn server_config(&self) -> anyhow::Result<rustls::ServerConfig> {
        let names = ["127.0.0.1", "::1", "localhost"].map(str::to_owned);
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(names.to_vec())?.signed_by(&key, &self.ca)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = if self.requires_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.der().clone())?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .context("the server's certificate")
    }

    pub(super) fn client_certificate(&self) -> anyhow::Result<ClientCertificate> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["client.example".to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(ClientCertificate {
            certificate: params.signed_by(&key, &self.ca)?.pem(),
            key: key.serialize_pem(),
        })
    }
}
