//! Who may post notifications (RFC 6750, bearer tokens).

use flagstate_common::config::{Events, Secret};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// The tokens that are accepted.
#[derive(Clone, Debug)]
pub struct Tokens {
    accepted: Vec<Secret>,
}

impl Tokens {
    /// The configured tokens; none leaves the endpoint open.
    #[must_use]
    pub fn new(events: &Events) -> Self {
        Self {
            accepted: events.token.iter().chain(&events.previous_token).cloned().collect(),
        }
    }

    /// Whether anybody may post.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.accepted.is_empty()
    }

    /// Whether the `Authorization` header, as bytes, carries one of the tokens.
    ///
    /// Hashes are compared, all of them, whatever the first say: the time tells nothing about a token, not even its
    /// length.
    #[must_use]
    pub fn accept(&self, authorization: Option<&[u8]>) -> bool {
        if self.is_open() {
            return true;
        }
        let Some(token) = authorization.and_then(bearer_token) else {
            return false;
        };
        let given = Sha256::digest(token);
        let matches = self.accepted.iter().map(|accepted| {
            let accepted = Sha256::digest(accepted.expose().as_bytes());
            accepted.as_slice().ct_eq(given.as_slice())
        });
        matches.fold(Choice::from(0), |any, this| any | this).into()
    }
}

/// The token of `Bearer <token>`, the scheme in any case.
fn bearer_token(header: &[u8]) -> Option<&[u8]> {
    let header = header.trim_ascii();
    let (scheme, rest) = header.split_at_checked(b"bearer".len())?;
    let token = rest.trim_ascii_start();
    let is_separated = token.len() < rest.len();
    (scheme.eq_ignore_ascii_case(b"bearer") && is_separated && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(token: &str, previous: Option<&str>) -> Tokens {
        Tokens::new(&Events {
            token: Some(Secret::from_value(token)),
            previous_token: previous.map(Secret::from_value),
        })
    }

    #[test]
    fn accepts_both_tokens_and_the_scheme_in_any_case() {
        let tokens = tokens("new", Some("old"));
        for header in [
            "Bearer new",
            "bearer old",
            "BEARER   new",
            " Bearer new ",
            "Bearer\tnew",
        ] {
            assert!(tokens.accept(Some(header.as_bytes())), "{header}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let tokens = tokens("new", None);
        for header in [
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Bearernew",
            "new",
            "Basic new",
            "Bearer new old",
            "Bearer ne",
            "Bearer newer",
            "Bearer NEW",
            "Token new",
            "Bearer: new",
            "Bearer old",
            ",",
            "Bearer,new",
            "Bearer \"new\"",
            "bearer bearer new",
        ] {
            assert!(!tokens.accept(Some(header.as_bytes())), "{header}");
        }
        assert!(!tokens.accept(Some(b"Bearer \xff\xfe")));
        assert!(!tokens.accept(None));
    }

    #[test]
    fn without_tokens_everybody_may_post() {
        let open = Tokens::new(&Events {
            token: None,
            previous_token: None,
        });
        assert!(open.is_open() && open.accept(None));
    }
}
