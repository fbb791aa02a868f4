//! The HTTP client underneath: TLS, proxies, the connection pool, and which host is spoken to how.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flagstate_common::config;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Method, NoProxy, Proxy};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use super::error::{BuildClientError, RegistryError};
use super::resolver::AddressGuard;

const USER_AGENT: &str = concat!("flagstate/", env!("CARGO_PKG_VERSION"));

/// Idle connections are closed before the usual server or load balancer closes them.
const POOL_IDLE: Duration = Duration::from_secs(50);

/// Two HTTP clients: one for the registry's own host, one for hosts that the registry names.
///
/// Only the first shows the client certificate and may connect anywhere. Neither follows redirects, decompresses,
/// or reads a proxy from the environment: that is all decided here and in the files above.
#[derive(Clone)]
pub(super) struct Transport {
    registry: Arc<Url>,
    own: reqwest::Client,
    foreign: reqwest::Client,
    guard: AddressGuard,
}

impl Transport {
    pub(super) fn new(config: &config::Registry) -> Result<Self, BuildClientError> {
        let is_http = matches!(config.url.scheme(), "http" | "https") && config.url.has_host();
        if !is_http {
            return Err(BuildClientError::Url);
        }
        let proxy = proxy_url(config)?;
        let guard = AddressGuard::new(&config.url, proxy.as_ref());
        let roots = trust_roots(config.ca_file.as_deref())?;
        let builder = |tls: rustls::ClientConfig| -> Result<_, BuildClientError> {
            let builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .user_agent(USER_AGENT)
                .default_headers(identity_only())
                .pool_idle_timeout(POOL_IDLE)
                .no_proxy();
            Ok(match &proxy {
                Some(url) => builder.proxy(https_proxy(url, config.no_proxy.as_deref())?),
                None => builder,
            })
        };
        Ok(Self {
            registry: Arc::new(config.url.clone()),
            own: builder(tls(&roots, config.client_identity.as_ref())?)?.build()?,
            foreign: builder(tls(&roots, None)?)?.dns_resolver(guard.clone()).build()?,
            guard,
        })
    }

    /// Sends one request without a body and returns when the answer's headers are there.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<reqwest::Response, RegistryError> {
        let client = if url.host() == self.registry.host() {
            &self.own
        } else {
            self.guard.check_literal(url).await?;
            &self.foreign
        };
        let request = client.request(method.clone(), url.clone()).headers(headers);
        Ok(request.send().await?)
    }

    /// Whether the URL is on the registry's own origin: scheme, host and port.
    pub(super) fn is_registry(&self, url: &Url) -> bool {
        url.origin() == self.registry.origin()
    }
}

/// The clients would print the proxy, and with it its password.
impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut transport = formatter.debug_struct("Transport");
        transport.field("registry", &self.registry.as_str());
        transport.finish_non_exhaustive()
    }
}

/// A manifest's bytes are what its digest covers; a transfer encoding would only be a way to send a bomb.
fn identity_only() -> HeaderMap {
    HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))])
}

fn proxy_url(config: &config::Registry) -> Result<Option<Url>, BuildClientError> {
    let Some(secret) = &config.https_proxy else {
        return Ok(None);
    };
    let url: Url = secret.expose().parse().or(Err(BuildClientError::Proxy))?;
    Ok(Some(url))
}

fn https_proxy(url: &Url, no_proxy: Option<&str>) -> Result<Proxy, BuildClientError> {
    let proxy = Proxy::https(url.clone()).or(Err(BuildClientError::Proxy))?;
    Ok(proxy.no_proxy(no_proxy.and_then(NoProxy::from_string)))
}

fn trust_roots(ca_file: Option<&Path>) -> Result<RootCertStore, BuildClientError> {
    let mut roots = RootCertStore::empty();
    // Certificates of the system that cannot be read are certificates that are not trusted.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            roots.add(certificate).or_else(|_| no_certificate(path))?;
        }
    }
    Ok(roots)
}

fn tls(
    roots: &RootCertStore,
    identity: Option<&config::ClientIdentity>,
) -> Result<rustls::ClientConfig, BuildClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone());
    let mut tls = match identity {
        Some(identity) => builder.with_client_auth_cert(
            certificates(&identity.certificate_file)?,
            private_key(&identity.key_file)?,
        )?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BuildClientError> {
    let pem = read(path)?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => no_certificate(path),
    }
}

fn no_certificate<T>(path: &Path) -> Result<T, BuildClientError> {
    Err(BuildClientError::NoCertificate { path: path.to_owned() })
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, BuildClientError> {
    let pem = read(path)?;
    let Ok(key) = PrivateKeyDer::from_pem_slice(&pem) else {
        return Err(BuildClientError::NoKey { path: path.to_owned() });
    };
    Ok(key)
}

fn read(path: &Path) -> Result<Vec<u8>, BuildClientError> {
    std::fs::read(path).map_err(|source| BuildClientError::ReadFile {
        path: path.to_owned(),
        source,
    })
}
