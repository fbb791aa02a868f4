//! Manifests and configs, with the check that makes a body worth keeping: it has the digest it goes by.

use bytes::Bytes;
use flagstate_common::digest::Digest;
use flagstate_common::media_type::{ACCEPT_MANIFESTS, MediaType};
use flagstate_common::reference::Reference;
use flagstate_common::repository_name::RepositoryName;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode};

use super::auth::Access;
use super::client::RegistryClient;
use super::error::RegistryError;
use super::exchange::{Answer, Request};
use super::metrics::Operation;

const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";

/// What a registry says about a manifest without sending it. Nothing of it is verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestHead {
    /// `Docker-Content-Digest`; some registries leave it out.
    pub digest: Option<Digest>,
    /// `Content-Type`
    pub media_type: Option<MediaType>,
    /// `Content-Length`, bytes.
    pub size: Option<u64>,
}

/// A manifest whose body was checked against its digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedManifest {
    /// The digest that was asked for or promised, else the SHA-256 of the body.
    pub digest: Digest,
    /// `Content-Type`, which need not be what the document says of itself.
    pub content_type: Option<MediaType>,
    /// The document, byte for byte.
    pub body: Bytes,
}

impl RegistryClient {
    /// Asks which manifest a reference names; `None` when it names none.
    ///
    /// # Errors
    /// When the registry gives no usable answer.
    pub async fn head_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<ManifestHead>, RegistryError> {
        let request = self.manifest_request(Operation::HeadManifest, repository, reference);
        let access = Access::Pull(repository.clone());
        let interpret = |answer: Answer| match answer.status {
            StatusCode::OK => Ok(Some(ManifestHead {
                digest: header(&answer.headers, DOCKER_CONTENT_DIGEST),
                media_type: header(&answer.headers, CONTENT_TYPE.as_str()),
                size: header(&answer.headers, CONTENT_LENGTH.as_str()),
            })),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.error()),
        };
        self.call(&access, &request, interpret).await
    }

    /// Reads a manifest of at most `limits.manifest` bytes; `None` when there is none.
    ///
    /// By digest the body must have that digest, by tag the one that `Docker-Content-Digest` promises. A body
    /// that does not is asked for again before it is an error.
    ///
    /// # Errors
    /// When the registry gives no usable answer, or one that is too large or not what its digest says.
    pub async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<FetchedManifest>, RegistryError> {
        let request = self.manifest_request(Operation::GetManifest, repository, reference);
        let access = Access::Pull(repository.clone());
        let interpret = |answer: Answer| {
            if answer.is_absence() {
                return Ok(None);
            }
            let content_type = header(&answer.headers, CONTENT_TYPE.as_str());
            let expected = match reference {
                Reference::Digest(digest) => Some(digest.clone()),
                Reference::Tag(_) => header(&answer.headers, DOCKER_CONTENT_DIGEST),
            };
            let body = answer.into_body(request.limit)?;
            let digest = match expected {
                Some(expected) => verified(expected, &body)?,
                None => Digest::of(&body),
            };
            Ok(Some(FetchedManifest {
                digest,
                content_type,
                body,
            }))
        };
        let result = self.call(&access, &request, interpret).await;
        if let Err(RegistryError::TooLarge { .. }) = result {
            self.shared.exchange.metrics.limit_hit("manifest");
        }
        result
    }

    /// Reads an image config, whose descriptor says that it has `declared_size` bytes; `None` when there is none.
    ///
    /// A declared size over `limits.config` is refused without a request; a body that is larger than declared is
    /// not read further.
    ///
    /// # Errors
    /// When the registry gives no usable answer, or one that is not what the descriptor says.
    pub async fn get_config(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        declared_size: u64,
    ) -> Result<Option<Bytes>, RegistryError> {
        let exchange = &self.shared.exchange;
        let limit = exchange.limits.config;
        if declared_size > limit {
            exchange.metrics.limit_hit("config");
            return Err(RegistryError::TooLarge { limit });
        }
        let request = Request {
            operation: Operation::GetConfig,
            method: Method::GET,
            url: self.repository_url(repository, ["blobs", &digest.to_string()]),
            accept: "*/*",
            redirects: exchange.limits.registry_redirects,
            limit: declared_size,
        };
        let access = Access::Pull(repository.clone());
        let interpret = |answer: Answer| {
            if answer.is_absence() {
                return Ok(None);
            }
            let seen = answer.oversize.unwrap_or(answer.body.len() as u64);
            if answer.status == StatusCode::OK && seen != declared_size {
                return Err(RegistryError::SizeMismatch {
                    declared: declared_size,
                    found: seen,
                });
            }
            let body = answer.into_body(declared_size)?;
            verified(digest.clone(), &body)?;
            Ok(Some(body))
        };
        self.call(&access, &request, interpret).await
    }

    fn manifest_request(&self, operation: Operation, repository: &RepositoryName, reference: &Reference) -> Request {
        let limits = &self.shared.exchange.limits;
        Request {
            operation,
            method: match operation {
                Operation::HeadManifest => Method::HEAD,
                _ => Method::GET,
            },
            url: self.repository_url(repository, ["manifests", &reference.to_string()]),
            accept: ACCEPT_MANIFESTS,
            redirects: limits.registry_redirects,
            limit: limits.manifest,
        }
    }
}

/// A header that parses; what does not says nothing.
fn header<T: std::str::FromStr>(headers: &HeaderMap, name: &str) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn verified(expected: Digest, body: &[u8]) -> Result<Digest, RegistryError> {
    if expected.matches(body) {
        return Ok(expected);
    }
    Err(RegistryError::DigestMismatch {
        expected,
        found: Digest::of(body),
    })
}
