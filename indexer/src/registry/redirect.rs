//! Where a redirect may lead.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LOCATION};
use url::Url;

use super::error::RedirectRefusal;

/// The target of a redirect: `None` when the answer is none.
///
/// Only `http` and `https` are followed, never from `https` to `http`, and no target that brings credentials of
/// its own. Whether the target's address may be connected to is decided when it is.
pub(super) fn target(from: &Url, status: StatusCode, headers: &HeaderMap) -> Result<Option<Url>, RedirectRefusal> {
    let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !is_redirect {
        return Ok(None);
    }
    let location = headers.get(LOCATION).ok_or(RedirectRefusal::NoLocation)?;
    let location = location.to_str().or(Err(RedirectRefusal::NoLocation))?;
    let to = from.join(location).or(Err(RedirectRefusal::NoLocation))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => {}
        (_, "http") => return Err(RedirectRefusal::Downgrade),
        _ => return Err(RedirectRefusal::Scheme),
    }
    if !to.username().is_empty() || to.password().is_some() {
        return Err(RedirectRefusal::Credentials);
    }
    Ok(Some(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(from: &str, location: &str) -> Result<Option<String>, RedirectRefusal> {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().expect("valid"));
        let from = from.parse().expect("valid");
        target(&from, StatusCode::TEMPORARY_REDIRECT, &headers).map(|url| url.map(Into::into))
    }

    #[test]
    fn follows_http_and_https_and_never_downwards() {
        for (from, location, expected) in [
            ("https://a/v2/x", "/y", Ok("https://a/y")),
            ("https://a/v2/x", "//b/y", Ok("https://b/y")),
            ("http://a/v2/x", "https://b/y?z=1", Ok("https://b/y?z=1")),
            ("http://a/v2/x", "http://b/y", Ok("http://b/y")),
            ("https://a/", "http://a/", Err(RedirectRefusal::Downgrade)),
            ("https://a/", "file:///etc/passwd", Err(RedirectRefusal::Scheme)),
            ("https://a/", "ftp://a/", Err(RedirectRefusal::Scheme)),
            ("https://a/", "data:,x", Err(RedirectRefusal::Scheme)),
            ("https://a/", "https://", Err(RedirectRefusal::NoLocation)),
            ("https://a/", "https://u:p@b/", Err(RedirectRefusal::Credentials)),
        ] {
            assert_eq!(
                follow(from, location),
                expected.map(|url| Some(url.to_owned())),
                "{from} to {location}"
            );
        }
    }

    #[test]
    fn only_redirects_redirect() {
        let url = "https://a/".parse().expect("valid");
        for (status, expected) in [
            (StatusCode::OK, Ok(None)),
            (StatusCode::NOT_MODIFIED, Ok(None)),
            (StatusCode::FOUND, Err(RedirectRefusal::NoLocation)),
        ] {
            assert_eq!(target(&url, status, &HeaderMap::new()), expected);
        }
    }
}
