//! Tokens: what a token endpoint answers, and how long it is believed.

use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::error::BadBody;

/// What the token specification says for an answer that does not say.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// No token is believed for longer than this.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A token is renewed when this part of its life is left, or [`MAX_MARGIN`], whichever is shorter.
const MARGIN: u32 = 5;
const MAX_MARGIN: Duration = Duration::from_secs(30);

/// A token, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// `Bearer <token>`, marked as sensitive.
    pub(super) header: HeaderValue,
    renew_at: Instant,
}

#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Value,
}

impl Token {
    /// Reads a token endpoint's answer to a request that was sent at `asked`.
    ///
    /// The life is counted from then: an answer may be long on its way.
    pub(super) fn parse(body: &[u8], asked: Instant) -> Result<Self, BadBody> {
        let response: TokenResponse = serde_json::from_slice(body).or(Err(BadBody::NotJson))?;
        let token = [response.token, response.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty())
            .ok_or(BadBody::NoToken)?;
        let mut header: HeaderValue = format!("Bearer {token}").parse().or(Err(BadBody::NoToken))?;
        header.set_sensitive(true);
        let lifetime = lifetime(&response.expires_in);
        let margin = (lifetime / MARGIN).min(MAX_MARGIN);
        Ok(Self {
            header,
            renew_at: asked + (lifetime - margin),
        })
    }

    /// Whether it can be sent without being renewed first.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now < self.renew_at
    }
}

/// Seconds as a number of any kind; what is missing, nonsense or not in the future is [`DEFAULT_LIFETIME`].
fn lifetime(expires_in: &Value) -> Duration {
    match expires_in.as_f64() {
        Some(seconds) if seconds >= 1.0 => {
            Duration::try_from_secs_f64(seconds).map_or(MAX_LIFETIME, |life| life.min(MAX_LIFETIME))
        }
        Some(_) | None => DEFAULT_LIFETIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamps_lifetimes() {
        for (text, seconds) in [
            ("null", 60),
            ("0", 60),
            ("-1", 60),
            ("0.5", 60),
            (r#""300""#, 60),
            ("5", 5),
            ("300", 300),
            ("300.0", 300),
            ("1e18", 86_400),
            ("18446744073709551615", 86_400),
            ("1e300", 86_400),
        ] {
            let value: Value = serde_json::from_str(text).expect("valid");
            assert_eq!(lifetime(&value), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn takes_either_name_and_refuses_what_is_no_token() {
        let now = Instant::now();
        let parse = |body: &str| Token::parse(body.as_bytes(), now).map(|token| token.header);
        assert_eq!(parse(r#"{"token":"a"}"#), Ok(HeaderValue::from_static("Bearer a")));
        assert_eq!(
            parse(r#"{"token":"","access_token":"b","expires_in":9}"#),
            Ok(HeaderValue::from_static("Bearer b"))
        );
        assert_eq!(parse("{}"), Err(BadBody::NoToken));
        assert_eq!(parse(r#"{"token":"a\r\nX: y"}"#), Err(BadBody::NoToken));
        assert_eq!(parse("<html>"), Err(BadBody::NotJson));
        assert_eq!(parse(r#"{"token":7}"#), Err(BadBody::NotJson));
    }

    #[test]
    fn is_renewed_a_little_early() {
        let now = Instant::now();
        let token = Token::parse(br#"{"token":"a","expires_in":5}"#, now).expect("valid");
        assert!(token.is_fresh(now + Duration::from_millis(3_900)));
        assert!(!token.is_fresh(now + Duration::from_millis(4_100)));
        let token = Token::parse(br#"{"token":"a","expires_in":3600}"#, now).expect("valid");
        assert!(token.is_fresh(now + Duration::from_secs(3_560)));
        assert!(!token.is_fresh(now + Duration::from_secs(3_571)));
    }
}
