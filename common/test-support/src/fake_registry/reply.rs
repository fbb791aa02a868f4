//! What a friendly registry answers (OCI distribution specification, and docker-registry where that is silent).

use bytes::Bytes;
use serde_json::json;
use url::form_urlencoded;

use super::State;
use super::content::Repository;

/// An answer, before faults.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            body: body.into(),
        }
    }

    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    /// The specification's error document.
    pub(super) fn error(status: u16, code: &str) -> Self {
        let entry = json!({"code": code, "message": "by order of the test", "detail": null});
        Self::json(status, &json!({"errors": [entry]}))
    }

    /// Sets a header in place of any of that name.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
    }
}

/// Answers a GET or HEAD below `/v2/`.
pub(super) fn read(state: &State, path: &str, query: &str) -> Reply {
    if path == "/v2/" || path == "/v2" {
        return Reply::json(200, &json!({}));
    }
    if path == "/v2/_catalog" {
        let names = state.content.names();
        return page(state, path, query, names, |names| json!({"repositories": names}));
    }
    let Some(rest) = path.strip_prefix("/v2/") else {
        return Reply::new(404, "text/plain", "no such page");
    };
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return match state.content.repository(name) {
            Some(repository) if !repository.manifests.is_empty() || !repository.tags.is_empty() => {
                tags(state, path, query, name, repository)
            }
            Some(_) | None => Reply::error(404, "NAME_UNKNOWN"),
        };
    }
    if let Some((name, reference)) = rest.rsplit_once("/manifests/") {
        let repository = state.content.repository(name);
        return match repository.and_then(|repository| repository.manifest(reference)) {
            Some((digest, manifest)) => Reply::new(200, &manifest.media_type, manifest.body.clone())
                .with("Docker-Content-Digest", &digest.to_string()),
            None => Reply::error(404, "MANIFEST_UNKNOWN"),
        };
    }
    if let Some((name, digest)) = rest.rsplit_once("/blobs/") {
        let repository = state.content.repository(name);
        let digest = digest.parse().ok();
        return match repository.zip(digest).and_then(|(repository, digest)| {
            let body = repository.blobs.get(&digest)?;
            Some((digest, body))
        }) {
            Some((digest, body)) => Reply::new(200, "application/octet-stream", body.clone())
                .with("Docker-Content-Digest", &digest.to_string()),
            None => Reply::error(404, "BLOB_UNKNOWN"),
        };
    }
    Reply::new(404, "text/plain", "no such page")
}

fn tags(state: &State, path: &str, query: &str, name: &str, repository: &Repository) -> Reply {
    let tags: Vec<String> = repository.tags.keys().cloned().collect();
    if tags.is_empty() {
        return Reply::json(200, &json!({"name": name, "tags": null}));
    }
    if state.page_size.is_none() {
        return Reply::json(200, &json!({"name": name, "tags": tags}));
    }
    page(state, path, query, tags, |tags| json!({"name": name, "tags": tags}))
}

/// The entries after `last`, at most `n`, with a link if there are more.
fn page(
    state: &State,
    path: &str,
    query: &str,
    mut entries: Vec<String>,
    document: impl Fn(&[String]) -> serde_json::Value,
) -> Reply {
    let (mut last, mut asked) = (None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "last" => last = Some(value.into_owned()),
            "n" => asked = Some(value.parse::<usize>().unwrap_or(usize::MAX)),
            _ => {}
        }
    }
    if asked.is_some_and(|asked| asked > state.max_page_size) {
        return Reply::error(400, "PAGINATION_NUMBER_INVALID");
    }
    let size = asked
        .unwrap_or(usize::MAX)
        .min(state.page_size.unwrap_or(state.max_page_size));
    if let Some(last) = last {
        entries.retain(|entry| *entry > last);
    }
    let has_more = entries.len() > size;
    entries.truncate(size);
    let reply = Reply::json(200, &document(&entries));
    match entries.last() {
        Some(last) if has_more => {
            let query = form_urlencoded::Serializer::new(String::new())
                .append_pair("last", last)
                .append_pair("n", &size.to_string())
                .finish();
            reply.with("Link", &format!("<{path}?{query}>; rel=\"next\""))
        }
        Some(_) | None => reply,
    }
}
