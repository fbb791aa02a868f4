//! The only place that knows ETag, If-None-Match, Cache-Control, Vary, Accept-Encoding and content coding.
//!
//! A [`Representation`] is one encoded body with its entity tag, and depends on nothing but the document's text and the
//! coding: it may be kept and given to any number of clients. The entity tag is strong and is the SHA-256 of the encoded
//! bytes, so the same tag means the same bytes for ever, and a change elsewhere in the index leaves it as it is.
//! Nothing here depends on the clock, the revision, the host or the order of parameters. (RFC 9110, 8 and 13; RFC 9111)

mod content_coding;
mod if_none_match;

use std::io;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flagstate_common::config;
use futures::Stream;
use sha2::{Digest as _, Sha256};

pub(crate) use content_coding::{AcceptedCodings, Coding, Encoder};

/// Longer documents are streamed: they have no entity tag and are not kept by anybody.
pub(crate) const MAX_WHOLE_BODY: usize = 8 * 1024 * 1024;

/// `Cache-Control: no-store`, of errors and of everything that is not for caches.
pub(crate) const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

const VARY: (HeaderName, HeaderValue) = (header::VARY, HeaderValue::from_static("accept-encoding"));

/// What `Cache-Control` says about an answer.
#[derive(Clone, Debug)]
pub(crate) enum CachePolicy {
    /// Any cache may keep it for a while.
    Public(HeaderValue),
    /// No cache may keep it; a client that did can still revalidate it.
    NoStore,
}

impl CachePolicy {
    /// The policy of programmatic answers for everybody.
    pub(crate) fn public(cache: &config::Cache) -> Self {
        let directives = format!(
            "public, max-age={}, stale-while-revalidate={}, stale-if-error={}",
            cache.max_age_index.as_secs(),
            cache.stale_while_revalidate.as_secs(),
            cache.stale_if_error.as_secs(),
        );
        HeaderValue::try_from(directives).map_or(Self::NoStore, Self::Public)
    }

    fn header(&self) -> (HeaderName, HeaderValue) {
        match self {
            Self::Public(directives) => (header::CACHE_CONTROL, directives.clone()),
            Self::NoStore => NO_STORE,
        }
    }
}

/// One encoded body and its entity tag.
#[derive(Clone, Debug)]
pub(crate) struct Representation {
    body: Bytes,
    coding: Coding,
    entity_tag: String,
}

/// Why a document could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepresentError {
    /// Its text could not be made.
    #[error("the document could not be serialised")]
    Serialise(#[from] serde_json::Error),
    /// Its text could not be encoded.
    #[error("the document could not be encoded")]
    Encode(#[from] io::Error),
}

/// A document as it is sent.
pub(crate) enum Represented<I> {
    /// At most [`MAX_WHOLE_BODY`] bytes, before encoding.
    Whole(Representation),
    /// More than that: its beginning, the pieces that follow, and the coding that is asked for.
    Long { start: Vec<u8>, rest: I, coding: Coding },
}

/// Puts a document's pieces together and encodes it, unless it is too long for that.
///
/// Takes as long as the document is: not for an async thread.
///
/// # Errors
/// The first error of a piece, or of the encoder.
pub(crate) fn represent<I>(mut pieces: I, accepted: AcceptedCodings) -> Result<Represented<I>, RepresentError>
where
    I: Iterator<Item = Result<Vec<u8>, serde_json::Error>>,
{
    let mut text = Vec::new();
    while text.len() <= MAX_WHOLE_BODY {
        match pieces.next() {
            Some(piece) => text.append(&mut piece?),
            None => return Ok(Represented::Whole(Representation::encode(text, accepted)?)),
        }
    }
    Ok(Represented::Long {
        coding: accepted.for_length(text.len()),
        start: text,
        rest: pieces,
    })
}

impl Representation {
    fn encode(text: Vec<u8>, accepted: AcceptedCodings) -> Result<Self, RepresentError> {
        let coding = accepted.for_length(text.len());
        let mut encoder = Encoder::new(coding);
        let mut body = encoder.push(&text)?;
        body.append(&mut encoder.finish()?);
        Ok(Self {
            entity_tag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&body))),
            body: body.into(),
            coding,
        })
    }

    /// The answer to a request for this representation: 304 if the client says that it holds it, else 200.
    ///
    /// Both carry what a cache needs to refresh the record it holds.
    pub(crate) fn respond(&self, request: &HeaderMap, policy: &CachePolicy) -> HttpResponse {
        let held = if_none_match::names(lines(request, &header::IF_NONE_MATCH), &self.entity_tag);
        let mut response = if held {
            HttpResponse::NotModified()
        } else {
            ok(self.coding)
        };
        response
            .insert_header((header::ETAG, self.entity_tag.as_str()))
            .insert_header(policy.header())
            .insert_header(VARY);
        if held {
            response.finish()
        } else {
            response.body(self.body.clone())
        }
    }
}

/// The answer whose body is streamed: there is nothing to validate it by, so nobody keeps it.
pub(crate) fn respond_long<S>(coding: Coding, body: S) -> HttpResponse
where
    S: Stream<Item = io::Result<Bytes>> + 'static,
{
    ok(coding).insert_header(NO_STORE).insert_header(VARY).streaming(body)
}

/// The codings that a request accepts.
pub(crate) fn accepted_codings(request: &HeaderMap) -> AcceptedCodings {
    AcceptedCodings::parse(lines(request, &header::ACCEPT_ENCODING))
}

fn ok(coding: Coding) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.content_type("application/json");
    if let Some(name) = coding.name() {
        response.insert_header((header::CONTENT_ENCODING, name));
    }
    response
}

fn lines<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::StatusCode;

    fn pieces(length: usize) -> impl Iterator<Item = Result<Vec<u8>, serde_json::Error>> {
        let text = vec![b'x'; length];
        text.chunks(MAX_WHOLE_BODY / 8 + 1)
            .map(|piece| Ok(piece.to_vec()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn whole(length: usize, accept: &str) -> Representation {
        match represent(pieces(length), codings(accept)) {
            Ok(Represented::Whole(representation)) => representation,
            Ok(Represented::Long { .. }) => panic!("{length} bytes are not long"),
            Err(error) => panic!("{error}"),
        }
    }

    fn codings(accept: &str) -> AcceptedCodings {
        AcceptedCodings::parse(std::iter::once(accept.as_bytes()))
    }

    fn request(if_none_match: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::IF_NONE_MATCH,
            HeaderValue::try_from(if_none_match).expect("header"),
        );
        headers
    }

    fn policy() -> CachePolicy {
        CachePolicy::Public(HeaderValue::from_static("public, max-age=5"))
    }

    #[test]
    fn the_tag_is_the_hash_of_the_encoded_bytes() {
        let mut tags = std::collections::BTreeSet::new();
        for accept in ["", "gzip", "br"] {
            let representation = whole(2048, accept);
            let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(&representation.body));
            assert_eq!(representation.entity_tag, format!("\"{hash}\""), "{accept}");
            assert_eq!(whole(2048, accept).entity_tag, representation.entity_tag, "{accept}");
            tags.insert(representation.entity_tag);
        }
        assert_eq!(tags.len(), 3, "one tag an encoding");
    }

    #[test]
    fn a_304_repeats_what_caches_need_and_has_no_body() {
        let representation = whole(2048, "gzip");
        let tag = representation.entity_tag.clone();
        let fresh = representation.respond(&HeaderMap::new(), &policy());
        let held = representation.respond(&request(&format!("W/{tag}")), &policy());
        assert_eq!(fresh.status(), StatusCode::OK);
        assert_eq!(held.status(), StatusCode::NOT_MODIFIED);
        for name in [header::ETAG, header::CACHE_CONTROL, header::VARY] {
            assert!(fresh.headers().contains_key(&name), "{name}");
            assert_eq!(fresh.headers().get(&name), held.headers().get(&name), "{name}");
        }
        assert_eq!(
            fresh.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes),
            Some(&b"gzip"[..])
        );
        assert!(!held.headers().contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn a_tag_of_another_encoding_is_not_held() {
        let identity_tag = whole(2048, "").entity_tag;
        let answer = whole(2048, "gzip").respond(&request(&identity_tag), &policy());
        assert_eq!(answer.status(), StatusCode::OK);
    }

    #[test]
    fn documents_up_to_eight_mebibytes_are_whole() {
        assert_eq!(whole(MAX_WHOLE_BODY, "").body.len(), MAX_WHOLE_BODY);
        let Ok(Represented::Long { start, rest, coding }) = represent(pieces(MAX_WHOLE_BODY + 1), codings("gzip"))
        else {
            panic!("one byte more is long");
        };
        assert_eq!(coding, Coding::Gzip);
        let rest: usize = rest.map(|piece| piece.expect("piece").len()).sum();
        assert_eq!(start.len() + rest, MAX_WHOLE_BODY + 1);
        let answer = respond_long(coding, futures::stream::empty());
        assert!(!answer.headers().contains_key(header::ETAG));
        assert_eq!(answer.headers().get(header::CACHE_CONTROL), Some(&NO_STORE.1));
    }

    #[test]
    fn public_answers_say_how_long_they_are_good() {
        use std::time::Duration;
        let policy = CachePolicy::public(&config::Cache {
            max_age_index: Duration::from_secs(5),
            max_age_html: Duration::from_secs(7),
            stale_while_revalidate: Duration::from_secs(30),
            stale_if_error: Duration::from_secs(86_400),
            memory: 0,
        });
        assert_eq!(
            policy.header().1,
            "public, max-age=5, stale-while-revalidate=30, stale-if-error=86400"
        );
        assert_eq!(CachePolicy::NoStore.header().1, "no-store");
    }
}
