//! Which `Authorization` a call carries: none, Basic, or a Bearer token for its scope.
//!
//! What the registry asks for is learned from its first challenge; from then on headers are sent without waiting to
//! be asked. Tokens are kept for each (realm, service, scope), renewed before they end, and fetched by one caller
//! while the others wait. Credentials are read when they are used, so that a rotated password works at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flagstate_common::config;
use flagstate_common::repository_name::RepositoryName;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use tracing::warn;

use super::challenge::{self, Challenge};
use super::error::{BadBody, RegistryError};
use super::exchange::{Answer, Exchange, Request};
use super::metrics::Operation;
use super::realm::{Realm, RealmRule};
use super::token::Token;

/// Bytes of a token endpoint's answer.
const TOKEN_RESPONSE: u64 = 64 * 1024;

/// Tokens and scopes in memory before those of no more use are dropped.
const KEPT: usize = 4_096;

/// What a call wants to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Access {
    /// List the repositories.
    Catalog,
    /// Read a repository.
    Pull(RepositoryName),
}

impl Access {
    /// The scope that the token specification gives it.
    fn scope(&self) -> String {
        match self {
            Self::Catalog => "registry:catalog:*".to_owned(),
            Self::Pull(repository) => format!("repository:{repository}:pull"),
        }
    }
}

/// What a token is good for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct TokenKey {
    realm: Realm,
    service: Option<String>,
    scope: String,
}

/// What the registry asks for.
#[derive(Clone, Debug)]
enum Scheme {
    Basic,
    Bearer { realm: Realm, service: Option<String> },
}

#[derive(Debug, Default)]
struct Learned {
    scheme: Option<Scheme>,
    /// Scopes that the registry asked for and [`Access::scope`] would not have guessed.
    scopes: HashMap<Access, String>,
}

/// One token; locked while it is fetched, so that one caller does it.
#[derive(Debug, Default)]
struct Cell {
    token: Option<Token>,
    /// The last failure, for those who waited while it happened.
    failure: Option<(Instant, RegistryError)>,
}

type SharedCell = Arc<tokio::sync::Mutex<Cell>>;

/// Knows the credentials, the tokens, and what the registry asks for.
#[derive(Debug)]
pub(super) struct Authenticator {
    credentials: Option<config::Credentials>,
    realms: RealmRule,
    learned: Mutex<Learned>,
    cells: Mutex<HashMap<TokenKey, SharedCell>>,
}

impl Authenticator {
    pub(super) fn new(config: &config::Registry) -> Self {
        Self {
            credentials: config.credentials.clone(),
            realms: RealmRule::new(config),
            learned: Mutex::default(),
            cells: Mutex::default(),
        }
    }

    /// The header to send without having been asked; `None` until the registry asked once.
    pub(super) async fn authorization(
        &self,
        access: &Access,
        exchange: &Exchange,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let key = {
            let learned = lock(&self.learned);
            match &learned.scheme {
                None => return Ok(None),
                Some(Scheme::Basic) => return Ok(self.basic()),
                Some(Scheme::Bearer { realm, service }) => TokenKey {
                    realm: realm.clone(),
                    service: service.clone(),
                    scope: match learned.scopes.get(access) {
                        Some(scope) => scope.clone(),
                        None => access.scope(),
                    },
                },
            }
        };
        self.token(key, None, exchange).await.map(Some)
    }

    /// The header that answers a 401 to a request that carried `rejected`.
    ///
    /// # Errors
    /// When nothing other than `rejected` can be sent, or no token can be had.
    pub(super) async fn answer_challenge(
        &self,
        access: &Access,
        headers: &HeaderMap,
        rejected: Option<&HeaderValue>,
        exchange: &Exchange,
    ) -> Result<HeaderValue, RegistryError> {
        let challenges = challenge::parse(headers);
        let mut refusal = RegistryError::Unauthorized { withheld_from: None };
        for challenge in &challenges {
            let Challenge::Bearer { realm, service, scope } = challenge else {
                continue;
            };
            match self.realms.judge(realm) {
                Ok(realm) => {
                    let key = TokenKey {
                        realm,
                        service: service.clone(),
                        scope: scope.clone().unwrap_or_else(|| access.scope()),
                    };
                    self.learn_bearer(access, &key);
                    return self.token(key, rejected, exchange).await;
                }
                Err(refused) => refusal = refused.into(),
            }
        }
        let basic = self.basic().filter(|basic| Some(basic) != rejected);
        match basic {
            Some(basic) if challenges.contains(&Challenge::Basic) => {
                lock(&self.learned).scheme = Some(Scheme::Basic);
                Ok(basic)
            }
            Some(_) | None => Err(refusal),
        }
    }

    /// The error for a request that was refused with the header that was to answer the challenge.
    pub(super) fn refused(&self) -> RegistryError {
        let withheld_from = match &lock(&self.learned).scheme {
            Some(Scheme::Bearer { realm, .. }) if self.is_withheld_from(realm) => {
                realm.url.host_str().map(str::to_owned)
            }
            Some(Scheme::Bearer { .. } | Scheme::Basic) | None => None,
        };
        RegistryError::Unauthorized { withheld_from }
    }

    fn is_withheld_from(&self, realm: &Realm) -> bool {
        self.credentials.is_some() && !realm.is_trusted
    }

    fn learn_bearer(&self, access: &Access, key: &TokenKey) {
        let mut learned = lock(&self.learned);
        let is_known = matches!(
            &learned.scheme,
            Some(Scheme::Bearer { realm, service }) if *realm == key.realm && *service == key.service
        );
        if !is_known {
            if self.is_withheld_from(&key.realm) {
                warn!(
                    realm.host = key.realm.url.host_str(),
                    "the registry's token endpoint is not in registry.token_realms and gets no credentials"
                );
            }
            learned.scheme = Some(Scheme::Bearer {
                realm: key.realm.clone(),
                service: key.service.clone(),
            });
        }
        if key.scope != access.scope() {
            if learned.scopes.len() >= KEPT {
                learned.scopes.clear();
            }
            learned.scopes.insert(access.clone(), key.scope.clone());
        }
    }

    /// A fresh token that is not `rejected`, from memory or from the endpoint.
    async fn token(
        &self,
        key: TokenKey,
        rejected: Option<&HeaderValue>,
        exchange: &Exchange,
    ) -> Result<HeaderValue, RegistryError> {
        let asked = Instant::now();
        let cell = self.cell(&key);
        let mut cell = cell.lock().await;
        if let Some(token) = &cell.token
            && token.is_fresh(Instant::now())
            && Some(&token.header) != rejected
        {
            return Ok(token.header.clone());
        }
        if let Some((failed, error)) = &cell.failure
            && *failed >= asked
        {
            return Err(error.clone());
        }
        match self.fetch(&key, exchange).await {
            Ok(token) => {
                let header = token.header.clone();
                *cell = Cell {
                    token: Some(token),
                    failure: None,
                };
                Ok(header)
            }
            Err(error) => {
                cell.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn cell(&self, key: &TokenKey) -> SharedCell {
        let mut cells = lock(&self.cells);
        if cells.len() >= KEPT && !cells.contains_key(key) {
            let now = Instant::now();
            let is_fresh = |cell: &Cell| cell.token.as_ref().is_some_and(|token| token.is_fresh(now));
            cells.retain(|_, cell| cell.try_lock().map_or(true, |cell| is_fresh(&cell)));
        }
        Arc::clone(cells.entry(key.clone()).or_default())
    }

    /// `GET realm?service&scope&client_id&account`, with the credentials if the realm may see them.
    async fn fetch(&self, key: &TokenKey, exchange: &Exchange) -> Result<Token, RegistryError> {
        let credentials = self.credentials.as_ref().filter(|_| key.realm.is_trusted);
        let mut url = key.realm.url.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &key.service {
                query.append_pair("service", service);
            }
            for scope in key.scope.split_ascii_whitespace() {
                query.append_pair("scope", scope);
            }
            query.append_pair("client_id", "flagstate");
            if let Some(credentials) = credentials {
                query.append_pair("account", &credentials.username);
            }
        }
        let request = Request {
            operation: Operation::Token,
            method: Method::GET,
            url,
            accept: "application/json",
            redirects: 0,
            limit: TOKEN_RESPONSE,
        };
        let asked = Instant::now();
        let basic = credentials.and_then(|_| self.basic());
        let result = exchange
            .perform(&request, basic.as_ref())
            .await
            .and_then(|answer| read_token(answer, asked));
        result.map_err(|error| match error {
            RegistryError::Unauthorized { .. } => RegistryError::Unauthorized {
                withheld_from: (self.is_withheld_from(&key.realm))
                    .then(|| key.realm.url.host_str().unwrap_or_default().to_owned()),
            },
            error => RegistryError::Token {
                host: key.realm.url.host_str().unwrap_or_default().to_owned(),
                source: Box::new(error),
            },
        })
    }

    /// `Basic` with the credentials as they are now.
    fn basic(&self) -> Option<HeaderValue> {
        let credentials = self.credentials.as_ref()?;
        let pair = format!("{}:{}", credentials.username, credentials.password.expose());
        let mut header: HeaderValue = format!("Basic {}", BASE64_STANDARD.encode(pair)).parse().ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

fn read_token(answer: Answer, asked: Instant) -> Result<Token, RegistryError> {
    if answer.status == StatusCode::OK && answer.oversize.is_some() {
        return Err(BadBody::NoToken.into());
    }
    Ok(Token::parse(&answer.into_body(TOKEN_RESPONSE)?, asked)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
