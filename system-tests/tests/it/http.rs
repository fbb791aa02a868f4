//! Requests with the headers that a test wants, and answers as they came.

use std::io::Read as _;

use flagstate_test_support::http;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

/// An answer, its content coding not undone.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first value of a header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body without its content coding.
    pub(crate) fn decoded(&self) -> Vec<u8> {
        let mut decoded = Vec::new();
        let body = self.body.as_slice();
        match self.header("content-encoding") {
            "" => decoded.extend(body),
            "gzip" => drop(flate2::read::GzDecoder::new(body).read_to_end(&mut decoded).unwrap()),
            "br" => drop(brotli::Decompressor::new(body, 4096).read_to_end(&mut decoded).unwrap()),
            other => panic!("an unknown content coding: {other}"),
        }
        decoded
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.decoded()).unwrap()
    }
}

/// A request with these headers.
pub(crate) async fn request(method: Method, url: Url, headers: &[(&str, &str)], body: String) -> Answer {
    let mut request = http::client().unwrap().request(method, url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    Answer {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap().into(),
    }
}

/// GET with these headers.
pub(crate) async fn get(base: &Url, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(Method::GET, base.join(path).unwrap(), headers, String::new()).await
}
