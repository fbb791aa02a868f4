//! What can go wrong when a registry is read.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flagstate_common::digest::Digest;
use thiserror::Error;

use super::resolver::AddressRefused;

/// Why a call to the registry brought nothing usable.
///
/// Cheap to clone: callers that wait for one token share its failure. No variant holds a URL's query, a header or a
/// body, so that printing one cannot leak a secret.
#[derive(Clone, Debug, Error)]
pub enum RegistryError {
    /// The whole exchange (connection, headers, redirects, body) took longer than `registry.timeout`.
    #[error("no complete answer within {after:?}")]
    Timeout {
        /// The deadline.
        after: Duration,
    },
    /// No connection: name, address, TCP, TLS or proxy.
    #[error("no connection")]
    Connect {
        /// What the HTTP client says.
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// The connection broke, or what came over it was not HTTP.
    #[error("the connection failed before the answer was complete")]
    Interrupted {
        /// What the HTTP client says.
        #[source]
        source: Arc<reqwest::Error>,
    },
    /// The registry sent us to an address that it may not send us to.
    #[error("refused to connect to {host}, an inner address that the registry named")]
    AddressRefused {
        /// The foreign host.
        host: String,
    },
    /// A redirect that is not followed.
    #[error("refused a redirect")]
    Redirect(#[from] RedirectRefusal),
    /// A status that has no meaning of its own here.
    #[error("status {status}")]
    Status {
        /// The HTTP status code.
        status: u16,
    },
    /// The registry, or its token endpoint, refused our credentials, or we have none that it may see.
    #[error(
        "not authenticated{}",
        withheld_from.as_ref().map(|host| format!(
            "; the token endpoint on {host} was not sent the credentials, for it is not among registry.token_realms"
        )).unwrap_or_default()
    )]
    Unauthorized {
        /// The token endpoint's host, when it may not see the credentials.
        withheld_from: Option<String>,
    },
    /// Authenticated, and not allowed.
    #[error("not allowed")]
    Forbidden,
    /// The registry asked for a pause (429, or 503 with `Retry-After`); the whole client makes one.
    #[error("the registry asked for a pause of {pause:?}")]
    RateLimited {
        /// How long nothing is sent.
        pause: Duration,
    },
    /// A token endpoint that is never asked.
    #[error("refused the token endpoint of the challenge")]
    Realm(#[from] RealmRefusal),
    /// The token endpoint failed.
    #[error("no token from {host}")]
    Token {
        /// The token endpoint's host.
        host: String,
        /// What happened there.
        #[source]
        source: Box<RegistryError>,
    },
    /// The answer, or the size declared for it, is over its limit.
    #[error("larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A config is not as large as its descriptor says.
    #[error("declared as {declared} bytes, found {found} or more")]
    SizeMismatch {
        /// Bytes, by the descriptor.
        declared: u64,
        /// Bytes seen when reading stopped.
        found: u64,
    },
    /// A body is not what its digest says.
    #[error("expected content of {expected}, found {found}")]
    DigestMismatch {
        /// What was asked for, or what the header promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The answer cannot be understood.
    #[error("unusable answer")]
    BadBody(#[from] BadBody),
}

/// Why an answer cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BadBody {
    /// Compressed, though `Accept-Encoding: identity` was asked.
    #[error("it is encoded, and identity was asked for")]
    Encoded,
    /// Not the JSON document that the specification promises.
    #[error("it is not the JSON document that the specification promises")]
    NotJson,
    /// A token response without a token that fits into a header.
    #[error("it holds no usable token")]
    NoToken,
}

/// Why a redirect is not followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RedirectRefusal {
    /// More than `limits.registry_redirects`.
    #[error("it is one too many")]
    TooMany,
    /// From `https` to `http`.
    #[error("it leads from https to http")]
    Downgrade,
    /// Neither `http` nor `https`.
    #[error("it leads to another scheme than http or https")]
    Scheme,
    /// `Location` is missing or no URL.
    #[error("it does not say where it leads")]
    NoLocation,
    /// The target's URL has a user or a password in it.
    #[error("its target brings credentials")]
    Credentials,
}

/// Why a token endpoint is never asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RealmRefusal {
    /// The challenge's realm is no URL with a host.
    #[error("its realm is not a URL")]
    NotUrl,
    /// Neither `http` nor `https`, or it brings credentials of its own.
    #[error("its realm is not a plain http or https URL")]
    NotPlain,
    /// `http`, though the registry is `https`.
    #[error("its realm is http, and the registry is https")]
    Downgrade,
}

impl RegistryError {
    /// Whether the same request may succeed when it is sent again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout { .. }
            | Self::Connect { .. }
            | Self::Interrupted { .. }
            | Self::RateLimited { .. }
            | Self::DigestMismatch { .. } => true,
            Self::Status { status } => matches!(status, 408 | 500..=599),
            Self::Token { source, .. } => source.is_retryable(),
            Self::AddressRefused { .. }
            | Self::Redirect(_)
            | Self::Unauthorized { .. }
            | Self::Forbidden
            | Self::Realm(_)
            | Self::TooLarge { .. }
            | Self::SizeMismatch { .. }
            | Self::BadBody(_) => false,
        }
    }

    /// Whether the failure says that the registry has more work than it can do.
    pub(super) fn is_overload(&self) -> bool {
        match self {
            Self::Timeout { .. } | Self::RateLimited { .. } => true,
            Self::Status { status } => *status == 503,
            Self::Token { source, .. } => source.is_overload(),
            Self::Connect { .. }
            | Self::Interrupted { .. }
            | Self::AddressRefused { .. }
            | Self::Redirect(_)
            | Self::Unauthorized { .. }
            | Self::Forbidden
            | Self::Realm(_)
            | Self::TooLarge { .. }
            | Self::SizeMismatch { .. }
            | Self::DigestMismatch { .. }
            | Self::BadBody(_) => false,
        }
    }

    /// The failure as a metric label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Connect { .. } => "connect",
            Self::Interrupted { .. } => "interrupted",
            Self::AddressRefused { .. } | Self::Redirect(_) | Self::Realm(_) => "refused",
            Self::Status { .. } => "status",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RateLimited { .. } => "rate_limited",
            Self::Token { .. } => "token",
            Self::TooLarge { .. } | Self::SizeMismatch { .. } => "size",
            Self::DigestMismatch { .. } => "digest_mismatch",
            Self::BadBody(_) => "bad_body",
        }
    }
}

impl From<reqwest::Error> for RegistryError {
    fn from(error: reqwest::Error) -> Self {
        // The URL of a redirect to storage holds a signature.
        let error = error.without_url();
        let mut cause = error.source();
        while let Some(source) = cause {
            if let Some(refused) = source.downcast_ref::<AddressRefused>() {
                return refused.clone().into();
            }
            cause = source.source();
        }
        let is_connect = error.is_connect();
        let source = Arc::new(error);
        if is_connect {
            Self::Connect { source }
        } else {
            Self::Interrupted { source }
        }
    }
}

impl From<AddressRefused> for RegistryError {
    fn from(refused: AddressRefused) -> Self {
        Self::AddressRefused { host: refused.host }
    }
}

/// Why a client cannot be built from the configuration.
#[derive(Debug, Error)]
pub enum BuildClientError {
    /// `registry.url` is not `http` or `https` with a host.
    #[error("registry.url is not an http or https URL with a host")]
    Url,
    /// A file of the configuration cannot be read.
    #[error("cannot read {path}")]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that should hold PEM certificates does not.
    #[error("{path} holds no PEM certificate that can be used")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file that should hold a PEM private key does not.
    #[error("{path} holds no PEM private key")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key of the client do not fit, or TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// `HTTPS_PROXY` is not a proxy's URL.
    #[error("HTTPS_PROXY is not the URL of a proxy")]
    Proxy,
    /// The HTTP client refuses its options.
    #[error("the HTTP client cannot be set up")]
    Http(#[from] reqwest::Error),
}
