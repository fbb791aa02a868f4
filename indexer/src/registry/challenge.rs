//! What a `401` asks for (RFC 9110, 11.6.1, and the distribution project's token specification).

use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// One way in that a registry offers and we know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Challenge {
    /// A token from an endpoint.
    Bearer {
        /// The endpoint's URL as written.
        realm: String,
        /// Whom the token is for.
        service: Option<String>,
        /// What it must allow; several scopes are separated by spaces.
        scope: Option<String>,
    },
    /// Name and password with each request.
    Basic,
}

/// All challenges in all `WWW-Authenticate` headers that we can meet, in their order.
///
/// A header that breaks the grammar loses the challenges behind the break, not those in other headers.
pub(super) fn parse(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| ChallengeParser::new(text).map_while(Result::ok))
        .filter_map(|challenge| known(&challenge))
        .collect()
}

fn known(challenge: &ChallengeRef<'_>) -> Option<Challenge> {
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !challenge.scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameter = |name: &str| {
        let (_, value) = challenge
            .params
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        let value = value.to_unescaped();
        (!value.is_empty()).then_some(value)
    };
    Some(Challenge::Bearer {
        realm: parameter("realm")?,
        service: parameter("service"),
        scope: parameter("scope"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn reads_challenges_however_they_are_written() {
        let usual = bearer("https://a/t", Some("r"), Some("repository:x/y:pull,push"));
        for (values, expected) in [
            (
                vec![r#"Bearer realm="https://a/t",service="r",scope="repository:x/y:pull,push""#],
                vec![usual.clone()],
            ),
            (
                vec![r#"bEARER Scope="repository:x/y:pull,push" , SERVICE=r, realm="https://a/t""#],
                vec![usual.clone()],
            ),
            (
                vec![r#"Negotiate, Basic realm="a \"quoted, b\"", Bearer realm="https://a/t", Digest qop="auth""#],
                vec![Challenge::Basic, bearer("https://a/t", None, None)],
            ),
            (
                vec!["Negotiate abc==, Basic realm=x", "basic", "Bearer realm=t"],
                vec![Challenge::Basic, bearer("t", None, None)],
            ),
            (
                vec![r#"Bearer realm="a\\b",scope="""#],
                vec![bearer(r"a\b", None, None)],
            ),
            (vec![r#"Bearer service="no realm""#], vec![]),
            (vec![r#"Bearer realm="unclosed"#], vec![]),
            (vec!["", ",,,", "="], vec![]),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(WWW_AUTHENTICATE, value.parse().expect("valid"));
            }
            assert_eq!(parse(&headers), expected, "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn ends_on_any_input(text in "[ -~]{0,80}") {
            let mut headers = HeaderMap::new();
            headers.insert(WWW_AUTHENTICATE, text.parse().expect("visible"));
            prop_assert!(parse(&headers).len() <= text.len());
        }
    }
}
