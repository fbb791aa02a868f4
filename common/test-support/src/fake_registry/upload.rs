//! The side that writes: what `skopeo`, `docker push` and tests over HTTP need, and no more.

use bytes::Bytes;
use flagstate_common::digest::Digest;
use url::form_urlencoded;

use super::State;
use super::reply::Reply;

/// Answers a POST, PUT, PATCH or DELETE below `/v2/`.
///
/// Uploads are monolithic, or a PATCH of everything followed by a PUT without a body.
pub(super) fn write(state: &mut State, method: &str, path: &str, query: &str, media_type: &str, body: Bytes) -> Reply {
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    if let Some((name, upload)) = rest.rsplit_once("/blobs/uploads/") {
        return self::upload(state, method, name, upload, query, body);
    }
    let Some((name, reference)) = rest.rsplit_once("/manifests/") else {
        return Reply::error(405, "UNSUPPORTED");
    };
    let digest = reference.parse::<Digest>();
    match method {
        "PUT" => {
            let stored = state.content.put_manifest(name, media_type, body);
            match digest {
                Ok(digest) if digest != stored => return Reply::error(400, "DIGEST_INVALID"),
                Ok(_) => {}
                Err(_) => state.content.tag(name, reference, &stored),
            }
            Reply::new(201, "text/plain", "")
                .with("Location", &format!("/v2/{name}/manifests/{stored}"))
                .with("Docker-Content-Digest", &stored.to_string())
        }
        "DELETE" => {
            let was_there = match digest {
                Ok(digest) => state.content.delete_manifest(name, &digest),
                Err(_) => state.content.delete_tag(name, reference),
            };
            if was_there {
                Reply::new(202, "text/plain", "")
            } else {
                Reply::error(404, "MANIFEST_UNKNOWN")
            }
        }
        _ => Reply::error(405, "UNSUPPORTED"),
    }
}

fn upload(state: &mut State, method: &str, name: &str, upload: &str, query: &str, body: Bytes) -> Reply {
    let digest = form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "digest")
        .and_then(|(_, digest)| digest.parse::<Digest>().ok());
    match (method, digest) {
        ("POST" | "PUT", Some(digest)) => {
            // What a PATCH brought is stored already, under its digest.
            let stored = if body.is_empty() && method == "PUT" {
                let repository = state.content.repository(name);
                repository
                    .is_some_and(|repository| repository.blobs.contains_key(&digest))
                    .then(|| digest.clone())
            } else {
                Some(state.content.put_blob(name, body))
            };
            if stored.as_ref() != Some(&digest) {
                return Reply::error(400, "DIGEST_INVALID");
            }
            Reply::new(201, "text/plain", "")
                .with("Location", &format!("/v2/{name}/blobs/{digest}"))
                .with("Docker-Content-Digest", &digest.to_string())
        }
        ("POST", None) => accepted(name, "0", 0),
        ("PATCH", None) => {
            let length = body.len();
            state.content.put_blob(name, body);
            accepted(name, upload, length)
        }
        _ => Reply::error(405, "UNSUPPORTED"),
    }
}

fn accepted(name: &str, upload: &str, length: usize) -> Reply {
    Reply::new(202, "text/plain", "")
        .with("Location", &format!("/v2/{name}/blobs/uploads/{upload}"))
        .with("Docker-Upload-UUID", upload)
        .with("Range", &format!("0-{}", length.saturating_sub(1)))
}
