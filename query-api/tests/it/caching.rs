//! Entity tags, revalidation, encodings and what caches are told (defects 2 and 24).

use std::io::Read as _;

use crate::index::Index;
use crate::service::Service;

const QUERY: &str = "/index/static?label:kind:exists=1";

/// An index whose answer to [`QUERY`] is worth encoding.
async fn index() -> Index {
    let mut index = Index::create().await;
    for number in 0..10 {
        index.push("apps/a", &format!("v{number}"), &[("kind", "app")]).await;
    }
    index
}

async fn tag_of(service: &Service, target: &str, accept: &str) -> String {
    let answer = service.get_with(target, &[("Accept-Encoding", accept)]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("etag").expect("an entity tag").to_owned()
}

#[tokio::test]
async fn a_client_that_holds_the_answer_gets_304_with_what_its_cache_needs() {
    let index = index().await;
    let service = Service::start(&index);
    for accept in ["identity", "gzip", "br"] {
        let fresh = service.get_with(QUERY, &[("Accept-Encoding", accept)]).await;
        let tag = fresh.header("etag").expect("an entity tag");
        let huge = format!("{}{tag}", "\"xxxxxxxxxxxxxx\", ".repeat(5_000));
        for (if_none_match, status) in [
            (tag, 304),
            (&format!("W/{tag}"), 304),
            (&format!("\"other\", {tag}"), 304),
            (&format!("\"a,b\",W/{tag} , \"c\""), 304),
            ("*", 304),
            (&huge, 304),
            ("\"other\"", 200),
            ("", 200),
            (tag.trim_matches('"'), 200),
            (&format!("{tag} {tag}"), 200),
            (&format!("*, {tag}"), 200),
            (&format!("w/{tag}"), 200),
        ] {
            let headers = [("Accept-Encoding", accept), ("If-None-Match", if_none_match)];
            let answer = service.get_with(QUERY, &headers).await;
            assert_eq!(answer.status, status, "{accept} {if_none_match:.60}");
            for name in [
                "etag",
                "cache-control",
                "vary",
                "flagstate-revision",
                "x-content-type-options",
            ] {
                assert!(answer.header(name).is_some(), "{name} {if_none_match:.60}");
                assert_eq!(answer.header(name), fresh.header(name), "{name} {if_none_match:.60}");
            }
            if status == 200 {
                assert!(answer.body == fresh.body, "{if_none_match:.60}");
            }
        }
        let lines = [
            ("Accept-Encoding", accept),
            ("If-None-Match", "\"other\""),
            ("If-None-Match", tag),
        ];
        assert_eq!(
            service.get_with(QUERY, &lines).await.status,
            304,
            "several header lines"
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn each_encoding_is_the_same_document_under_a_tag_of_its_own() {
    let index = index().await;
    let service = Service::start(&index);
    let plain = service.get(QUERY).await;
    assert_eq!(plain.header("content-encoding"), None);
    let mut tags = vec![plain.header("etag").expect("an entity tag").to_owned()];
    for (accept, coding) in [
        ("gzip", "gzip"),
        ("gzip, deflate, br", "br"),
        ("br;q=0.1, gzip;q=0.2", "gzip"),
    ] {
        let answer = service.get_with(QUERY, &[("Accept-Encoding", accept)]).await;
        assert_eq!(answer.header("content-encoding"), Some(coding), "{accept}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{accept}");
        let mut decoded = Vec::new();
        match coding {
            "br" => brotli::Decompressor::new(answer.body.as_slice(), 4096).read_to_end(&mut decoded),
            _ => flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_end(&mut decoded),
        }
        .expect("well encoded");
        assert!(
            decoded == plain.body && answer.body.len() < plain.body.len(),
            "{accept}"
        );
        tags.push(answer.header("etag").expect("an entity tag").to_owned());
    }
    assert_eq!(tags[1], tags[3], "the same encoding");
    tags.pop();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 3, "one tag an encoding");
    // Nothing is gained by encoding little.
    let small = service
        .get_with("/index/static?tag=none", &[("Accept-Encoding", "gzip")])
        .await;
    assert_eq!((small.status, small.header("content-encoding")), (200, None));
    assert_eq!(small.header("vary"), Some("accept-encoding"));
    service.stop().await;
}

#[tokio::test]
async fn a_tag_outlives_the_process_and_is_the_same_on_every_replica() {
    let index = index().await;
    let (one, other) = (Service::start(&index), Service::start(&index));
    for accept in ["identity", "gzip", "br"] {
        assert_eq!(
            tag_of(&one, QUERY, accept).await,
            tag_of(&other, QUERY, accept).await,
            "{accept}"
        );
    }
    let before = tag_of(&one, QUERY, "gzip").await;
    tokio::join!(one.stop(), other.stop());
    let restarted = Service::start(&index);
    let headers = [("Accept-Encoding", "gzip"), ("If-None-Match", before.as_str())];
    assert_eq!(restarted.get_with(QUERY, &headers).await.status, 304);
    restarted.stop().await;
}

#[tokio::test]
async fn defect_02_a_push_changes_the_tags_of_the_answers_that_it_changes_and_no_others() {
    let mut index = index().await;
    let service = Service::start(&index);
    let before = tag_of(&service, QUERY, "gzip").await;

    let unrelated = index.push("apps/b", "v1", &[("other", "x")]).await;
    let headers = [("Accept-Encoding", "gzip"), ("If-None-Match", before.as_str())];
    let answer = service.get_since(QUERY, unrelated, &headers).await;
    assert_eq!(answer.status, 304);
    assert_eq!(
        answer.header("flagstate-revision"),
        Some(unrelated.to_string().as_str())
    );

    let related = index.push("apps/b", "v2", &[("kind", "app")]).await;
    let answer = service.get_since(QUERY, related, &headers).await;
    assert_eq!(answer.status, 200);
    assert_ne!(answer.header("etag"), Some(before.as_str()));
    service.stop().await;
}

#[tokio::test]
async fn defect_24_proxies_may_weaken_a_tag_and_errors_are_never_stored() {
    let index = index().await;
    let service = Service::start(&index);
    let tag = tag_of(&service, QUERY, "identity").await;
    // What nginx makes of it when it compresses by itself.
    let weakened = format!("W/{tag}");
    assert_eq!(
        service.get_with(QUERY, &[("If-None-Match", &weakened)]).await.status,
        304
    );
    assert_eq!(
        service
            .get_with(QUERY, &[("If-None-Match", "not an entity tag")])
            .await
            .status,
        200
    );

    let answer = service.get(QUERY).await;
    assert_eq!(
        answer.header("cache-control"),
        Some("public, max-age=5, stale-while-revalidate=30, stale-if-error=86400")
    );
    let dynamic = service.get("/index/dynamic?label:kind:exists=1").await;
    assert_eq!(dynamic.header("cache-control"), Some("no-store"));
    assert!(dynamic.header("etag").is_some());
    assert!(dynamic.body == answer.body);

    for (method, target, status) in [
        ("GET", "/index/static?label:a:exists=2", 400),
        ("GET", "/index/static?tag=%zz", 400),
        ("GET", "/nowhere", 404),
        ("POST", "/index/static", 405),
        ("GET", "/index/static?as_of=1.0", 410),
    ] {
        let answer = service.request(method, target, &[("If-None-Match", "*")], "").await;
        assert_eq!(answer.status, status, "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{target}");
        assert_eq!(answer.header("etag"), None, "{target}");
    }
    service.stop().await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let index = index().await;
    let service = Service::start(&index);
    for accept in ["identity", "gzip"] {
        let get = service.get_with(QUERY, &[("Accept-Encoding", accept)]).await;
        let head = service.request("HEAD", QUERY, &[("Accept-Encoding", accept)], "").await;
        assert_eq!(head.status, 200);
        for name in [
            "content-length",
            "content-type",
            "content-encoding",
            "etag",
            "cache-control",
            "vary",
            "flagstate-revision",
        ] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
        assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()));
        let tag = get.header("etag").expect("an entity tag");
        let held = [("Accept-Encoding", accept), ("If-None-Match", tag)];
        assert_eq!(service.request("HEAD", QUERY, &held, "").await.status, 304);
    }
    service.stop().await;
}

#[tokio::test]
async fn an_answer_depends_on_the_canonical_query_and_the_encoding_only() {
    let index = index().await;
    let service = Service::start(&index);
    let canonical = "/index/static?architecture=amd64&label%3Akind%3Aexists=1&os=linux&tag=v1&tag=v2";
    let expected = service.get(canonical).await;
    assert_eq!(expected.tags(), ["v1", "v2"]);
    for target in [
        "/index/static?tag=v2&tag=v1&os=linux&label:kind:exists=1&architecture=amd64",
        "/index/static?tag=v%31&os=linux&tag=v1&label%3akind%3aexists=1&architecture=amd64&tag=v2&utm=1",
        "/index/static?&&os=linux&os=linux&tag=v2&tag=v1&architecture=amd64&label:kind:exists=1&x",
    ] {
        assert!(service.get(target).await.body == expected.body, "{target}");
    }
    for headers in [
        &[("Host", "evil.example.com")] as &[(&str, &str)],
        &[("X-Forwarded-Host", "evil.example.com"), ("X-Forwarded-Proto", "http")],
        &[
            ("Forwarded", "host=evil.example.com"),
            ("X-Original-URL", "/index/dynamic"),
        ],
        &[
            ("Accept", "text/html"),
            ("Cookie", "a=b"),
            ("Range", "bytes=0-1"),
            ("Accept-Language", "de"),
        ],
    ] {
        let answer = service.get_with(canonical, headers).await;
        assert_eq!(answer.status, 200, "{headers:?}");
        assert!(answer.body == expected.body, "{headers:?}");
        assert_eq!(answer.header("etag"), expected.header("etag"), "{headers:?}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{headers:?}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_too_long_to_keep_is_streamed() {
    let mut index = Index::create().await;
    let text = "flagstate ".repeat(40_000);
    for number in 0..23 {
        index
            .push(&format!("apps/{number}"), "latest", &[("text", &text)])
            .await;
    }
    let service = Service::start(&index);
    let plain = service.get("/index/static").await;
    assert_eq!(plain.status, 200);
    assert!(plain.body.len() > 8 * 1024 * 1024);
    assert_eq!(plain.tags().len(), 23);
    for (name, expected) in [
        ("etag", None),
        ("content-length", None),
        ("cache-control", Some("no-store")),
        ("vary", Some("accept-encoding")),
    ] {
        assert_eq!(plain.header(name), expected, "{name}");
    }
    assert!(plain.header("flagstate-revision").is_some());

    let encoded = service.get_with("/index/static", &[("Accept-Encoding", "gzip")]).await;
    let mut decoded = Vec::new();
    flate2::read::GzDecoder::new(encoded.body.as_slice())
        .read_to_end(&mut decoded)
        .expect("well encoded");
    assert!(decoded == plain.body);

    let head = service.request("HEAD", "/index/static", &[], "").await;
    assert_eq!((head.status, head.header("etag")), (200, None));
    service.stop().await;
}
