//! One call: a place in the gate, authentication, and tries until it is answered or given up.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use flagstate_common::config::{self, Limits};
use flagstate_common::repository_name::RepositoryName;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use tokio::time::sleep;
use url::Url;

use super::auth::{Access, Authenticator};
use super::error::{BuildClientError, RegistryError};
use super::exchange::{Answer, Exchange, Request};
use super::gate::Gate;
use super::metrics::RegistryMetrics;
use super::paging::FIRST_PAGE_SIZE;
use super::retry;
use super::transport::Transport;

/// How often one call is tried.
pub const MAX_TRIES: u32 = 3;

/// Reads one registry. A clone shares connections, tokens, pauses and the concurrency level.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    base: Url,
    pub(super) exchange: Exchange,
    authenticator: Authenticator,
    gate: Arc<Gate>,
    /// Entries asked for on one page; less than at first once the registry refused that.
    pub(super) page_size: AtomicUsize,
}

impl RegistryClient {
    /// A client for the configured registry; sends nothing yet.
    ///
    /// # Errors
    /// When the URL, a certificate, a key or the proxy cannot be used.
    pub fn new(config: &config::Registry, limits: &Limits, metrics: RegistryMetrics) -> Result<Self, BuildClientError> {
        let transport = Transport::new(config)?;
        let gate = Gate::new(config.concurrency, metrics.concurrency.clone());
        Ok(Self {
            shared: Arc::new(Shared {
                base: config.url.clone(),
                exchange: Exchange::new(transport, metrics, limits, config.timeout),
                authenticator: Authenticator::new(config),
                gate,
                page_size: AtomicUsize::new(FIRST_PAGE_SIZE),
            }),
        })
    }

    /// The URL of something in a repository, such as `["tags", "list"]`.
    pub(super) fn repository_url(&self, repository: &RepositoryName, what: [&str; 2]) -> Url {
        self.url(repository.as_str().split('/').chain(what))
    }

    /// `/v2/<segments>` below the registry's URL.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.shared.base.clone();
        url.set_query(None);
        url.set_fragment(None);
        // An http URL always has segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v2").extend(segments);
        }
        url
    }

    /// Performs a request until `interpret` accepts its answer.
    ///
    /// Failures that may pass are tried [`MAX_TRIES`] times, with growing, jittered waits between.
    pub(super) async fn call<T>(
        &self,
        access: &Access,
        request: &Request,
        interpret: impl Fn(Answer) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut tries = 1;
        loop {
            let result = self.try_once(access, request).await.and_then(&interpret);
            match result {
                Err(error) if error.is_retryable() && tries < MAX_TRIES => {
                    self.shared.exchange.metrics.retried(request.operation);
                    sleep(retry::backoff(tries)).await;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_once(&self, access: &Access, request: &Request) -> Result<Answer, RegistryError> {
        let slot = self.shared.gate.enter().await;
        let sent = Instant::now();
        let result = self.authenticated(access, request).await;
        match &result {
            Err(error) if error.is_overload() => slot.overloaded(sent),
            Ok(answer) if answer.error().is_overload() => slot.overloaded(sent),
            Ok(_) | Err(_) => slot.answered(),
        }
        result
    }

    /// The request with what the registry is known to ask for, and once more if it asks for something else.
    async fn authenticated(&self, access: &Access, request: &Request) -> Result<Answer, RegistryError> {
        let Shared {
            exchange,
            authenticator,
            ..
        } = &*self.shared;
        let sent: Option<HeaderValue> = authenticator.authorization(access, exchange).await?;
        let answer = exchange.perform(request, sent.as_ref()).await?;
        if answer.status != StatusCode::UNAUTHORIZED || !answer.is_at_origin {
            return Ok(answer);
        }
        let header = authenticator
            .answer_challenge(access, &answer.headers, sent.as_ref(), exchange)
            .await?;
        let answer = exchange.perform(request, Some(&header)).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            return Err(authenticator.refused());
        }
        Ok(answer)
    }

    /// Parses what a list holds; what is outside the grammar is counted and goes no further.
    pub(super) fn in_grammar<T: FromStr>(&self, entries: &[String]) -> (Vec<T>, usize) {
        let parsed: Vec<T> = entries.iter().filter_map(|entry| entry.parse().ok()).collect();
        let dropped = entries.len() - parsed.len();
        self.shared.exchange.metrics.names_dropped(dropped);
        (parsed, dropped)
    }

    pub(super) fn page_size(&self) -> usize {
        self.shared.page_size.load(Ordering::Relaxed)
    }
}
