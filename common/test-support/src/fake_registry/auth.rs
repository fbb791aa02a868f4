//! Authentication: none, Basic, or Bearer tokens from `/token` of this registry or of another fake one.
//!
//! A token says itself what it allows and until when, so that any fake registry can be another's token endpoint.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::form_urlencoded;

use super::log::LoggedRequest;
use super::reply::Reply;

/// What is required of a client.
#[derive(Clone, Debug)]
pub(super) enum Auth {
    None,
    Basic(Login),
    Bearer(Bearer),
}

/// A name and its password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Login {
    username: String,
    password: String,
}

/// Bearer tokens: where they come from, and how long they live.
#[derive(Clone, Debug)]
pub struct Bearer {
    realm: Option<String>,
    login: Option<Login>,
    lifetime: Duration,
    not_before: Duration,
}

#[derive(Serialize, Deserialize)]
struct Token {
    scopes: Vec<String>,
    /// Since 1970.
    issued: Duration,
    ends: Duration,
    /// No two tokens are the same.
    number: u64,
}

impl Bearer {
    /// Tokens of this lifetime for anybody who asks this registry's own `/token`.
    #[must_use]
    pub fn living(lifetime: Duration) -> Self {
        Self {
            realm: None,
            login: None,
            lifetime,
            not_before: Duration::ZERO,
        }
    }

    /// The token endpoint of this registry is in the challenge under this URL.
    #[must_use]
    pub fn from_realm(mut self, realm: &str) -> Self {
        self.realm = Some(realm.to_owned());
        self
    }

    /// The token endpoint wants these credentials.
    #[must_use]
    pub fn for_user(mut self, username: &str, password: &str) -> Self {
        self.login = Some(Login::new(username, password));
        self
    }
}

impl Login {
    fn new(username: &str, password: &str) -> Self {
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    fn is_in(&self, request: &LoggedRequest) -> bool {
        let expected = format!("{}:{}", self.username, self.password);
        request
            .header("authorization")
            .and_then(|header| header.strip_prefix("Basic "))
            .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
            .is_some_and(|decoded| decoded == expected.as_bytes())
    }
}

impl Auth {
    pub(super) fn basic(username: &str, password: &str) -> Self {
        Self::Basic(Login::new(username, password))
    }

    pub(super) fn set_credentials(&mut self, username: &str, password: &str) {
        let login = Login::new(username, password);
        match self {
            Self::None => {}
            Self::Basic(current) => *current = login,
            Self::Bearer(bearer) => bearer.login = Some(login),
        }
    }

    pub(super) fn revoke_tokens(&mut self) {
        if let Self::Bearer(bearer) = self {
            bearer.not_before = now();
        }
    }

    /// The 401 that a request below `/v2/` gets, if it gets one.
    pub(super) fn refuse(&self, request: &LoggedRequest, own_url: &str) -> Option<Reply> {
        let challenge = match self {
            Self::None => return None,
            Self::Basic(login) if login.is_in(request) => return None,
            Self::Basic(_) => "Basic realm=\"fake\"".to_owned(),
            Self::Bearer(bearer) => {
                let scope = scope(request);
                if bearer.accepts(request, &scope) {
                    return None;
                }
                let realm = match &bearer.realm {
                    Some(realm) => realm.clone(),
                    None => format!("{own_url}/token"),
                };
                format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"{scope}\"")
            }
        };
        let reply = Reply::error(401, "UNAUTHORIZED");
        Some(reply.with("WWW-Authenticate", &challenge))
    }

    /// Answers `GET /token`.
    pub(super) fn token(&self, request: &LoggedRequest, number: u64) -> Reply {
        let (login, lifetime) = match self {
            Self::Bearer(bearer) => (bearer.login.as_ref(), bearer.lifetime),
            Self::None | Self::Basic(_) => (None, Duration::from_secs(60)),
        };
        if login.is_some_and(|login| !login.is_in(request)) {
            return Reply::error(401, "UNAUTHORIZED");
        }
        let scopes = form_urlencoded::parse(request.query.as_bytes())
            .filter(|(key, _)| key == "scope")
            .map(|(_, scope)| scope.into_owned())
            .collect();
        let issued = now();
        let token = json!(Token {
            scopes,
            issued,
            ends: issued + lifetime,
            number,
        });
        let token = BASE64_STANDARD.encode(token.to_string());
        Reply::json(200, &json!({"token": token, "expires_in": lifetime.as_secs_f64()}))
    }
}

impl Bearer {
    fn accepts(&self, request: &LoggedRequest, scope: &str) -> bool {
        request
            .header("authorization")
            .and_then(|header| header.strip_prefix("Bearer "))
            .and_then(|encoded| BASE64_STANDARD.decode(encoded).ok())
            .and_then(|json| serde_json::from_slice::<Token>(&json).ok())
            .is_some_and(|token| {
                token.ends > now()
                    && token.issued >= self.not_before
                    && token.scopes.iter().any(|allowed| allowed == scope)
            })
    }
}

/// The scope that a request needs.
fn scope(request: &LoggedRequest) -> String {
    let rest = request.path.strip_prefix("/v2/").unwrap_or_default();
    let ends = ["/tags/", "/manifests/", "/blobs/"];
    match ends.iter().find_map(|end| rest.split_once(end)) {
        Some((name, _)) => format!("repository:{name}:pull"),
        None => "registry:catalog:*".to_owned(),
    }
}

fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}
