//! Odd and hostile images: the problem is recorded, the repository's other images are indexed.

use flagstate_common::digest::Digest;
use flagstate_test_support::fake_registry::{FakeRegistry, Fault, Rule};
use flagstate_test_support::images::{self, ImageBuilder, Manifest, hostile};
use flagstate_test_support::postgres::TestDatabase;

use super::harness::{Indexer, config, fill, index_contents, listener, until, value};

/// What is recorded of a digest: whether it is shown, and the codes of its problems.
async fn recorded(database: &TestDatabase, digest: &Digest) -> Option<(bool, Vec<String>, bool)> {
    let client = database.client().await.unwrap();
    let row = client
        .query_opt(
            "SELECT verified, ARRAY(SELECT DISTINCT p ->> 'code' FROM jsonb_array_elements(problems) p ORDER BY 1), sanitised
             FROM manifest WHERE digest = $1",
            &[&digest.to_bytes()],
        )
        .await
        .unwrap()?;
    Some((row.get(0), row.get(1), row.get(2)))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_images_are_recorded_and_hide_nothing_else() {
    let database = TestDatabase::create().await.unwrap();
    let registry = FakeRegistry::builder().start().await.unwrap();
    let repository = "apps/odd";
    let good = ImageBuilder::new("good").label("good", "yes").build();
    fill(&registry, repository, &good, &["good"]);
    let cases: Vec<(&str, Manifest, bool, Vec<&str>)> = vec![
        ("helm", images::helm_chart("chart", "1.0.0"), true, vec![]),
        ("wasm", images::wasm_module("wasm"), true, vec![]),
        ("cosign", images::cosign_signature(&good), true, vec![]),
        ("sbom", images::sbom_referrer(&good), true, vec![]),
        (
            "config-is-no-json",
            images::config_is_not_json("text"),
            true,
            vec!["config_not_json"],
        ),
        (
            "unknown-type",
            images::image_of_unknown_media_type("type"),
            true,
            vec![],
        ),
        (
            "no-media-type",
            ImageBuilder::new("bare").without_media_type().build(),
            true,
            vec![],
        ),
        ("nul", hostile::nul_in_label("nul"), true, vec![]),
        ("surrogate", hostile::lone_surrogate_in_label("surrogate"), true, vec![]),
        ("utf8", hostile::invalid_utf8_in_label("utf8"), true, vec![]),
        ("thousand-labels", hostile::many_labels("thousand", 1000), true, vec![]),
        ("many-labels", hostile::many_labels("many", 1500), true, vec!["limit"]),
        (
            "huge-label",
            hostile::huge_label("huge", 600 * 1024),
            true,
            vec!["limit"],
        ),
        (
            "huge-manifest",
            hostile::huge_manifest("huge", 5 * 1024 * 1024),
            false,
            vec!["too_large"],
        ),
        (
            "deep-config",
            hostile::deeply_nested_config("deep", 1000),
            true,
            vec!["limit"],
        ),
        (
            "config-lies",
            hostile::config_size_lie("lie", 10),
            true,
            vec!["unreadable"],
        ),
        (
            "config-claims-much",
            hostile::config_size_lie("much", 5 << 30),
            true,
            vec!["too_large"],
        ),
        ("truncated", hostile::truncated_manifest("cut"), true, vec!["not_json"]),
        ("array", hostile::manifest_is_an_array("array"), true, vec!["not_json"]),
        ("wrong-types", hostile::manifest_of_wrong_types("types"), true, vec![]),
        (
            "many-members",
            hostile::index_of_many("members", 1200),
            true,
            vec!["limit"],
        ),
        ("deep-index", hostile::index_of_depth("depth", 8), true, vec![]),
        (
            "missing-member",
            hostile::index_with_missing_member("member"),
            true,
            vec!["member_missing"],
        ),
    ];
    let mut digests = Vec::new();
    for (tag, manifest, ..) in &cases {
        fill(&registry, repository, manifest, &[tag]);
        digests.push(manifest.digest.clone());
    }
    // The registry serves another byte than the digest says.
    let wrong = ImageBuilder::new("wrong byte").build();
    fill(&registry, repository, &wrong, &["wrong-byte"]);
    registry.add(Rule::on(
        &format!("/v2/{repository}/manifests/{}", wrong.digest),
        Fault::WrongByte,
    ));
    registry.add(Rule::on(&format!("/v2/{repository}/manifests/wrong-byte"), Fault::WrongByte).method("GET"));
    let indexer = Indexer::start(config(&registry.url(), &database, ""), listener().0);
    until("the good image is indexed", async || {
        let index = index_contents(&database).await;
        let found = index
            .repositories()
            .get(repository)
            .is_some_and(|tags| tags.contains_key("good"));
        if found { Ok(()) } else { Err(index) }
    })
    .await;
    let index = index_contents(&database).await;
    let tags = &index.repositories()[repository];
    let mut wrong_ones = Vec::new();
    for (tag, manifest, verified, problems) in &cases {
        let state = recorded(&database, &manifest.digest).await;
        let is_right = state
            .as_ref()
            .is_some_and(|(shown, codes, _)| shown == verified && (problems.is_empty() || codes == problems));
        if !is_right || tags.get(*tag) != Some(&manifest.digest.to_string()) {
            wrong_ones.push((tag, state, tags.get(*tag)));
        }
    }
    assert!(wrong_ones.is_empty(), "{wrong_ones:#?}");
    for tag in ["nul", "surrogate", "utf8"] {
        let (_, manifest, ..) = cases.iter().find(|(name, ..)| *name == tag).unwrap();
        assert!(
            recorded(&database, &manifest.digest).await.unwrap().2,
            "{tag} is flagged"
        );
    }
    assert_eq!(
        recorded(&database, &wrong.digest).await,
        Some((false, vec!["digest_mismatch".to_owned()], false))
    );
    let nul: i64 = value(
        &database,
        "SELECT count(*) FROM manifest WHERE labels::text LIKE '%\u{fffd}%'",
    )
    .await;
    assert_eq!(nul, 3);
    indexer.stop().await;
}
