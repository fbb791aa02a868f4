//! The only place that knows ETag, If-None-Match, Cache-Control, Vary, Accept-Encoding and content coding.
//!
//! A [`Document`] is a text in every coding, each with its entity tag, and depends on nothing but that text: it may be
//! kept and given to any number of clients, and answering from it neither hashes nor encodes. The entity tag is strong and is the SHA-256 of the encoded
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

use content_coding::AcceptedCodings;
pub(crate) use content_coding::{Coding, Encoder};

/// Longer documents are streamed: they have no entity tag and are not kept by anybody.
pub(crate) const MAX_WHOLE_BODY: usize = 8 * 1024 * 1024;

/// The content type of programmatic answers.
pub(crate) const JSON: &str = "application/json";

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
#[derive(Debug)]
struct Representation {
    body: Bytes,
    coding: Coding,
    entity_tag: String,
}

/// A text with all its representations.
#[derive(Debug)]
pub(crate) struct Document {
    content_type: &'static str,
    identity: Representation,
    gzip: Representation,
    brotli: Representation,
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

/// Puts a document's pieces together; `None` when they make more than [`MAX_WHOLE_BODY`] bytes.
///
/// # Errors
/// The first error of a piece.
pub(crate) fn assemble<I>(pieces: I) -> Result<Option<Vec<u8>>, RepresentError>
where
    I: Iterator<Item = Result<Vec<u8>, serde_json::Error>>,
{
    let mut text = Vec::new();
    for piece in pieces {
        text.append(&mut piece?);
        if text.len() > MAX_WHOLE_BODY {
            return Ok(None);
        }
    }
    Ok(Some(text))
}

impl Document {
    /// Encodes and hashes the text: takes as long as it is, so not for an async thread.
    ///
    /// # Errors
    /// The encoders'.
    pub(crate) fn encode(content_type: &'static str, text: Vec<u8>) -> Result<Self, RepresentError> {
        Ok(Self {
            content_type,
            gzip: Representation::encode(Coding::Gzip, &text)?,
            brotli: Representation::encode(Coding::Brotli, &text)?,
            identity: Representation::new(Coding::Identity, text),
        })
    }

    /// Whether it is of this text.
    pub(crate) fn is(&self, text: &[u8]) -> bool {
        self.identity.body == text
    }

    /// The bytes of all bodies.
    pub(crate) fn bytes(&self) -> usize {
        [&self.identity, &self.gzip, &self.brotli]
            .map(|representation| representation.body.len())
            .iter()
            .sum()
    }

    /// The answer to a request for it: 304 if the client says that it holds it, else 200.
    ///
    /// Both carry what a cache needs to refresh the record it holds.
    pub(crate) fn respond(&self, request: &HeaderMap, policy: &CachePolicy) -> HttpResponse {
        let Representation {
            body,
            coding,
            entity_tag,
        } = match accepted_codings(request).for_length(self.identity.body.len()) {
            Coding::Identity => &self.identity,
            Coding::Gzip => &self.gzip,
            Coding::Brotli => &self.brotli,
        };
        let held = if_none_match::names(lines(request, &header::IF_NONE_MATCH), entity_tag);
        let mut response = if held {
            HttpResponse::NotModified()
        } else {
            ok(self.content_type, *coding)
        };
        response
            .insert_header((header::ETAG, entity_tag.as_str()))
            .insert_header(policy.header())
            .insert_header(VARY);
        if held {
            response.finish()
        } else {
            response.body(body.clone())
        }
    }
}

impl Representation {
    fn encode(coding: Coding, text: &[u8]) -> Result<Self, RepresentError> {
        let mut encoder = Encoder::new(coding);
        let mut body = encoder.push(text)?;
        body.append(&mut encoder.finish()?);
        Ok(Self::new(coding, body))
    }

    fn new(coding: Coding, body: Vec<u8>) -> Self {
        Self {
            entity_tag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&body))),
            // Without what the vector has to spare: bodies are counted by their length.
            body: body.into_boxed_slice().into(),
            coding,
        }
    }
}

/// The coding of a body that is longer than [`MAX_WHOLE_BODY`].
pub(crate) fn coding_for_long(request: &HeaderMap) -> Coding {
    accepted_codings(request).for_length(MAX_WHOLE_BODY + 1)
}

/// The answer whose body is streamed: there is nothing to validate it by, so nobody keeps it.
pub(crate) fn respond_long<S>(content_type: &'static str, coding: Coding, body: S) -> HttpResponse
where
    S: Stream<Item = io::Result<Bytes>> + 'static,
{
    ok(content_type, coding)
        .insert_header(NO_STORE)
        .insert_header(VARY)
        .streaming(body)
}

fn accepted_codings(request: &HeaderMap) -> AcceptedCodings {
    AcceptedCodings::parse(lines(request, &header::ACCEPT_ENCODING))
}

fn ok(content_type: &'static str, coding: Coding) -> HttpResponseBuilder {
    let mut response = HttpResponse::Ok();
    response.content_type(content_type);
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

    fn document(length: usize) -> Document {
        let text = assemble(pieces(length)).expect("a text").expect("a short one");
        Document::encode(JSON, text).expect("encodable")
    }

    fn request(headers: &[(HeaderName, &str)]) -> HeaderMap {
        headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::try_from(*value).expect("header")))
            .collect()
    }

    fn policy() -> CachePolicy {
        CachePolicy::Public(HeaderValue::from_static("public, max-age=5"))
    }

    #[test]
    fn the_tag_is_the_hash_of_the_encoded_bytes() {
        let (one, other) = (document(2048), document(2048));
        let mut tags = std::collections::BTreeSet::new();
        for (representation, again) in [
            (&one.identity, &other.identity),
            (&one.gzip, &other.gzip),
            (&one.brotli, &other.brotli),
        ] {
            let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(&representation.body));
            assert_eq!(representation.entity_tag, format!("\"{hash}\""));
            assert_eq!(representation.entity_tag, again.entity_tag);
            tags.insert(&representation.entity_tag);
        }
        assert_eq!(tags.len(), 3, "one tag an encoding");
    }

    #[test]
    fn a_document_knows_its_text_and_its_size() {
        let document = document(2048);
        assert!(document.is(&[b'x'; 2048]));
        assert!(!document.is(&[b'x'; 2047]));
        assert!(!document.is(&[b'y'; 2048]));
        let encoded = document.gzip.body.len() + document.brotli.body.len();
        assert!(encoded > 0);
        assert_eq!(document.bytes(), 2048 + encoded);
    }

    #[test]
    fn a_304_repeats_what_caches_need_and_has_no_body() {
        let document = document(2048);
        let weak = format!("W/{}", document.gzip.entity_tag);
        let fresh = document.respond(&request(&[(header::ACCEPT_ENCODING, "gzip")]), &policy());
        let held = document.respond(
            &request(&[(header::ACCEPT_ENCODING, "gzip"), (header::IF_NONE_MATCH, &weak)]),
            &policy(),
        );
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
        let document = document(2048);
        let headers = [
            (header::ACCEPT_ENCODING, "gzip"),
            (header::IF_NONE_MATCH, document.identity.entity_tag.as_str()),
        ];
        assert_eq!(document.respond(&request(&headers), &policy()).status(), StatusCode::OK);
    }

    #[test]
    fn documents_up_to_eight_mebibytes_are_whole() {
        let whole = assemble(pieces(MAX_WHOLE_BODY)).expect("a text");
        assert_eq!(whole.map(|text| text.len()), Some(MAX_WHOLE_BODY));
        assert_eq!(assemble(pieces(MAX_WHOLE_BODY + 1)).expect("a text"), None);
        let coding = coding_for_long(&request(&[(header::ACCEPT_ENCODING, "gzip")]));
        assert_eq!(coding, Coding::Gzip);
        let answer = respond_long(JSON, coding, futures::stream::empty());
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
