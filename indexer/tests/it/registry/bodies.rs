//! Manifests and configs: what is verified, and what is cut off.

use std::io::Write as _;
use std::time::Duration;

use flagstate_common::digest::Digest;
use flagstate_common::media_type::OCI_MANIFEST;
use flagstate_common::reference::Reference;
use flagstate_indexer::registry::{BadBody, RegistryError};
use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Kind, Rule};

use super::{Client, fill, name, tag};

const MIB: u64 = 1024 * 1024;

/// What a server can have produced and not got rid of: buffers of the kernel and of both sides.
const IN_BUFFERS: u64 = 16 * MIB;

async fn one_manifest() -> (FakeRegistry, Digest) {
    let registry = FakeRegistry::builder().start().await.unwrap();
    let digest = fill(&registry, 1).remove(0);
    (registry, digest)
}

#[tokio::test]
async fn heads_and_gets_by_tag_and_digest() {
    let (registry, digest) = one_manifest().await;
    let client = Client::new(&registry.url(), "");
    let media_type = Some(OCI_MANIFEST.parse().unwrap());
    for reference in [tag("t0000"), digest.clone().into()] {
        let head = client
            .head_manifest(&name("apps/a"), &reference)
            .await
            .unwrap()
            .unwrap();
        let manifest = client.get_manifest(&name("apps/a"), &reference).await.unwrap().unwrap();
        assert_eq!((&head.digest, &manifest.digest), (&Some(digest.clone()), &digest));
        assert_eq!((&head.media_type, &manifest.content_type), (&media_type, &media_type));
        assert_eq!(head.size, Some(manifest.body.len() as u64));
        assert!(digest.matches(&manifest.body));
    }
    for request in registry.requests() {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        assert!(request.header("accept").unwrap().contains(OCI_MANIFEST));
        assert!(request.header("user-agent").unwrap().starts_with("flagstate/"));
    }
    for reference in [tag("missing"), Digest::of(b"missing").into()] {
        assert_eq!(client.head_manifest(&name("apps/a"), &reference).await.unwrap(), None);
        assert_eq!(client.get_manifest(&name("apps/a"), &reference).await.unwrap(), None);
    }
    assert_eq!(client.get_config(&name("apps/a"), &digest, 2).await.unwrap(), None);
}

#[tokio::test]
async fn a_body_without_its_digest_is_asked_for_three_times() {
    let (registry, digest) = one_manifest().await;
    let client = Client::new(&registry.url(), "");
    let lie = Digest::of(b"something else").to_string();
    for (reference, fault) in [
        (tag("t0000"), Fault::WrongByte),
        (digest.clone().into(), Fault::WrongByte),
        (tag("t0000"), Fault::header("Docker-Content-Digest", &lie)),
    ] {
        registry.behave();
        registry.clear_log();
        registry.add(Rule::on("*", fault));
        let error = client.get_manifest(&name("apps/a"), &reference).await.unwrap_err();
        assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
        assert_eq!(registry.count(Kind::GetManifest), 3);
    }
    registry.behave();
    registry.add(Rule::on("*", Fault::WrongByte).times(2));
    let manifest = client
        .get_manifest(&name("apps/a"), &tag("t0000"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(manifest.digest, digest);
}

#[tokio::test]
async fn without_a_header_the_digest_is_that_of_the_body() {
    let (registry, digest) = one_manifest().await;
    let client = Client::new(&registry.url(), "");
    for fault in [
        Fault::NoHeader("Docker-Content-Digest".to_owned()),
        Fault::header("Docker-Content-Digest", "md5:x"),
    ] {
        registry.behave();
        registry.add(Rule::on("*", fault));
        let head = client
            .head_manifest(&name("apps/a"), &tag("t0000"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(head.digest, None);
        let manifest = client
            .get_manifest(&name("apps/a"), &tag("t0000"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(manifest.digest, digest);
    }
    // By digest the header has no say.
    registry.behave();
    let lie = Digest::of(b"something else").to_string();
    registry.add(Rule::on("*", Fault::header("Docker-Content-Digest", &lie)));
    let reference = Reference::Digest(digest.clone());
    let manifest = client.get_manifest(&name("apps/a"), &reference).await.unwrap().unwrap();
    assert_eq!(manifest.digest, digest);
}

#[tokio::test]
async fn a_manifest_over_the_limit_is_cut_off() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    let client = Client::new(&registry.url(), "");
    let limit = 4 * MIB;
    for (size, fits) in [(limit, true), (limit + 1, false)] {
        let body = vec![b'x'; usize::try_from(size).unwrap()];
        let digest = registry.put_manifest("apps/a", OCI_MANIFEST, body);
        let result = client.get_manifest(&name("apps/a"), &digest.into()).await;
        match result {
            Ok(Some(manifest)) => assert!(fits && manifest.body.len() as u64 == limit),
            Ok(None) => panic!("it is there"),
            Err(error) => assert!(!fits && matches!(error, RegistryError::TooLarge { limit: found } if found == limit)),
        }
    }
    let reference = registry.put_manifest("apps/a", OCI_MANIFEST, "{}").into();
    for fault in [Fault::Declared(10 * 1024 * MIB), Fault::Endless] {
        registry.behave();
        registry.clear_log();
        registry.add(Rule::on("*", fault));
        let before = registry.produced_bytes();
        let error = client.get_manifest(&name("apps/a"), &reference).await.unwrap_err();
        assert!(matches!(error, RegistryError::TooLarge { .. }), "{error:?}");
        assert_eq!(registry.count(Kind::GetManifest), 1);
        assert!(registry.produced_bytes() - before <= limit + IN_BUFFERS);
    }
    assert_eq!(client.limit_hits("manifest"), 3);
}

#[tokio::test]
async fn a_config_is_as_large_as_its_descriptor_says() {
    let registry = FakeRegistry::builder().start().await.unwrap();
    let body = vec![b'x'; 1_000];
    let digest = registry.put_blob("apps/a", body.clone());
    let client = Client::new(&registry.url(), "");
    let config = client
        .get_config(&name("apps/a"), &digest, 1_000)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(config, body);

    registry.clear_log();
    for declared in [8 * MIB + 1, 5 * 1024 * MIB, u64::MAX] {
        let error = client.get_config(&name("apps/a"), &digest, declared).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::TooLarge { limit } if limit == 8 * MIB),
            "{error:?}"
        );
    }
    assert_eq!(registry.requests().len(), 0);
    assert_eq!(client.limit_hits("config"), 3);

    for declared in [0, 999, 1_001] {
        let error = client.get_config(&name("apps/a"), &digest, declared).await.unwrap_err();
        assert!(
            matches!(error, RegistryError::SizeMismatch { declared: found, .. } if found == declared),
            "{error:?}"
        );
    }
    registry.add(Rule::on("*", Fault::WrongByte));
    let error = client.get_config(&name("apps/a"), &digest, 1_000).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    for fault in [Fault::Declared(5 * 1024 * MIB), Fault::Endless] {
        registry.behave();
        registry.add(Rule::on("*", fault));
        let before = registry.produced_bytes();
        let error = client.get_config(&name("apps/a"), &digest, 1_000).await.unwrap_err();
        assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{error:?}");
        assert!(registry.produced_bytes() - before <= IN_BUFFERS);
    }
}

#[tokio::test]
async fn an_encoded_answer_is_rejected_whatever_is_in_it() {
    let (registry, digest) = one_manifest().await;
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..128 {
        bomb.write_all(&vec![b' '; 1024 * 1024]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let client = Client::new(&registry.url(), "");
    for encoding in ["gzip", "zstd", "br", "deflate", "identity, gzip", "GZIP"] {
        registry.behave();
        registry.add(Rule::on(
            "*",
            Fault::reply(200, ("Content-Encoding", encoding), bomb.clone()),
        ));
        let error = client
            .get_manifest(&name("apps/a"), &digest.clone().into())
            .await
            .unwrap_err();
        assert!(
            matches!(error, RegistryError::BadBody(BadBody::Encoded)),
            "{encoding}: {error:?}"
        );
    }
    registry.behave();
    registry.add(Rule::on("*", Fault::header("Content-Encoding", "identity")));
    client
        .get_manifest(&name("apps/a"), &digest.into())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_body_that_drips_ends_with_the_deadline_and_delays_nobody() {
    let (registry, digest) = one_manifest().await;
    fill(&registry, 20);
    let slow = Fault::Drip {
        bytes: 1,
        every: Duration::from_millis(200),
    };
    registry.add(Rule::on(&format!("/v2/apps/a/manifests/{digest}"), slow));
    registry.add(Rule::on(
        "/v2/apps/a/manifests/t0001",
        Fault::Delay(Duration::from_secs(3_600)),
    ));
    let client = Client::new(&registry.url(), "timeout: 500ms");
    let apps = name("apps/a");
    let (dripping, silent) = (digest.into(), tag("t0001"));
    let (dripped, nothing, good) = tokio::join!(
        client.get_manifest(&apps, &dripping),
        client.get_manifest(&apps, &silent),
        async {
            for number in 2..20 {
                let reference = tag(&format!("t{number:04}"));
                client.get_manifest(&apps, &reference).await.unwrap().unwrap();
            }
            registry.count(Kind::GetManifest)
        }
    );
    for error in [dripped.unwrap_err(), nothing.unwrap_err()] {
        let after = Duration::from_millis(500);
        assert!(
            matches!(error, RegistryError::Timeout { after: found } if found == after),
            "{error:?}"
        );
    }
    assert!(good >= 18);
    let timeouts = [("operation", "get_manifest"), ("outcome", "timeout")];
    assert_eq!(client.counted("flagstate_registry_requests_total", &timeouts), 6);
}
