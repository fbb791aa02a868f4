//! What images and image indexes are found as (defects 4, 5, 7, 8, 11, 13, 14, 15, 17 and 32).

use flagstate_common::image::RepositoryImages;
use flagstate_test_support::fake_registry::{Fault, Kind, Rule};
use flagstate_test_support::images::{self, ImageBuilder, IndexBuilder, Manifest};
use serde_json::json;

use super::{Scene, fill, post, pushed, until, value};

fn image(seed: &str) -> ImageBuilder {
    ImageBuilder::new(seed).label("seed", seed)
}

/// `repository image tags` and `repository index tags: members` of what was found, by the label `seed`.
fn told(found: &[RepositoryImages]) -> Vec<String> {
    let seed = |image: &flagstate_common::image::Image| image.labels.get("seed").cloned().unwrap_or_default();
    let tags = |tags: &[flagstate_common::tag::Tag]| tags.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut lines = Vec::new();
    for repository in found {
        for found in &repository.images {
            lines.push(format!(
                "{} {} {}",
                repository.name,
                seed(&found.image),
                tags(&found.tags)
            ));
        }
        for found in &repository.image_indexes {
            let members: Vec<_> = found.images.iter().map(seed).collect();
            lines.push(format!(
                "{} {} [{}]",
                repository.name,
                tags(&found.tags),
                members.join(" ")
            ));
        }
    }
    lines
}

impl Scene {
    fn fill(&self, repository: &str, manifest: &Manifest, tags: &[&str]) {
        fill(&self.registry, repository, manifest, tags);
    }

    async fn told(&self, query: &str) -> Vec<String> {
        told(&self.search(query).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_04_labels_are_found_as_labels_and_not_as_annotations() {
    let scene = Scene::create().await;
    let flatpak = image("flatpak").label("org.flatpak.ref", "app/org.example.App/x86_64/stable");
    scene.fill("apps/a", &flatpak.build(), &["latest"]);
    let annotated = image("annotated")
        .annotation("org.flatpak.ref", "x")
        .annotation("label:org.flatpak.ref", "x");
    scene.fill("apps/b", &annotated.build(), &["latest"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let flatpak_client = "label%3Aorg.flatpak.ref%3Aexists=1&architecture=amd64&os=linux&tag=latest";
    assert_eq!(scene.told(flatpak_client).await, ["apps/a flatpak latest"]);
    assert_eq!(
        scene
            .told("label:org.flatpak.ref=app/org.example.App/x86_64/stable")
            .await,
        ["apps/a flatpak latest"]
    );
    assert_eq!(
        scene.told("annotation:org.flatpak.ref:exists=1").await,
        ["apps/b annotated latest"]
    );
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_05_matches_takes_the_pattern_that_it_is_given() {
    let scene = Scene::create().await;
    for (repository, value) in [("apps/a", "1.2.3"), ("apps/b", "1.3"), ("apps/c", "1")] {
        let image = image(value).label("version", value).annotation("version", value);
        scene.fill(repository, &image.build(), &["latest", value]);
    }
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    for key in ["label:version:matches", "annotation:version:matches", "tag:matches"] {
        assert_eq!(
            scene.told(&format!("{key}=1.2.*")).await,
            ["apps/a 1.2.3 1.2.3,latest"],
            "{key}"
        );
        assert_eq!(
            scene.told(&format!("{key}=1.?")).await,
            ["apps/b 1.3 1.3,latest"],
            "{key}"
        );
        assert_eq!(scene.told(&format!("{key}=1")).await, ["apps/c 1 1,latest"], "{key}");
    }
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_07_tags_of_an_image_are_those_of_its_repository() {
    let scene = Scene::create().await;
    let image = image("shared").build();
    scene.fill("repo/a", &image, &["one", "two"]);
    scene.fill("repo/b", &image, &["other"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let all = ["repo/a shared one,two", "repo/b shared other"];
    assert_eq!(scene.told("").await, all);
    assert_eq!(scene.told("tag=one").await, [all[0]]);
    assert_eq!(scene.told("tag=other").await, [all[1]]);
    assert_eq!(scene.told("repository=repo/a&tag=other").await, [""; 0]);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_08_tags_of_an_image_index_are_those_of_its_repository() {
    let scene = Scene::create().await;
    let index = IndexBuilder::new().member(image("member").build()).build();
    scene.fill("repo/a", &index, &["one", "two"]);
    scene.fill("repo/b", &index, &["other"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let all = ["repo/a one,two [member]", "repo/b other [member]"];
    assert_eq!(scene.told("").await, all);
    assert_eq!(scene.told("tag=one").await, [all[0]]);
    assert_eq!(scene.told("tag=other").await, [all[1]]);
    assert_eq!(scene.told("repository=repo/a&tag=other").await, [""; 0]);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_11_what_is_no_image_does_not_hold_its_repository_back() {
    let scene = Scene::create().await;
    let good = image("good").build();
    scene.fill("apps/a", &images::helm_chart("chart", "1.0.0"), &["helm"]);
    scene.fill("apps/a", &images::cosign_signature(&good), &["signature"]);
    scene.fill("apps/a", &images::config_is_not_json("text"), &["text"]);
    scene.fill("apps/a", &images::image_of_unknown_media_type("type"), &["type"]);
    scene.fill("apps/a", &good, &["latest"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let tags = "SELECT string_agg(name, ',' ORDER BY name) FROM tag WHERE to_n IS NULL";
    let found: String = value(&scene.database, tags).await;
    assert_eq!(found, "helm,latest,signature,text,type");
    assert_eq!(scene.told("tag=latest").await, ["apps/a good latest"]);
    let newer = image("newer").build();
    scene.fill("apps/a", &newer, &["latest"]);
    let outcome = indexer.scan().await;
    assert!(outcome.contains("1 changed, 0 failed"), "{outcome}");
    assert_eq!(scene.told("tag=latest").await, ["apps/a newer latest"]);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_13_images_of_nested_indexes_are_found_in_order() {
    let scene = Scene::create().await;
    let inner = IndexBuilder::new()
        .member(image("c").build())
        .member(image("b").build());
    let outer = IndexBuilder::new()
        .member(image("d").build())
        .member(inner.build())
        .member(image("a").build());
    scene.fill("apps/a", &outer.build(), &["nested"]);
    let (indexer, _) = scene.start("", "");
    let outcome = indexer.scan().await;
    assert!(outcome.contains("0 failed"), "{outcome}");
    assert_eq!(scene.told("").await, ["apps/a nested [d c b a]"]);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_13_an_unreadable_member_hides_no_other() {
    let scene = Scene::create().await;
    let bad = image("bad").build();
    let index = IndexBuilder::new().member(bad.clone()).member(image("good").build());
    scene.fill("apps/a", &index.build(), &["latest"]);
    scene.fill("apps/a", &image("other").build(), &["other"]);
    let path = format!("/v2/apps/a/manifests/{}", bad.digest);
    scene.registry.add(Rule::on(&path, Fault::WrongByte));
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    assert_eq!(scene.told("").await, ["apps/a other other", "apps/a latest [good]"]);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_13_annotations_of_an_image_index_are_kept() {
    let scene = Scene::create().await;
    let index = IndexBuilder::new()
        .annotation("org.opencontainers.image.title", "All of it")
        .member(image("member").build());
    scene.fill("apps/a", &index.build(), &["latest"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let found = scene.search("").await;
    let annotations = &found[0].image_indexes[0].annotations;
    assert_eq!(annotations.get("org.opencontainers.image.title").unwrap(), "All of it");
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_13_platforms_are_kept_whole() {
    let scene = Scene::create().await;
    let arm = image("arm").platform("linux", "arm64").variant("v8").build();
    let windows = image("windows")
        .platform("windows", "amd64")
        .os_version("10.0.20348")
        .build();
    let mut descriptor = windows.descriptor();
    descriptor["platform"] = json!({
        "os": "windows", "architecture": "amd64", "os.version": "10.0.20348", "os.features": ["win32k"],
    });
    let index = IndexBuilder::new().member(arm).described_member(descriptor, windows);
    scene.fill("apps/a", &index.build(), &["latest"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let members = "SELECT string_agg(concat_ws(' ', os, architecture, variant, os_version, os_features::text), ', '
                       ORDER BY position) FROM index_member";
    assert_eq!(
        value::<String>(&scene.database, members).await,
        "linux arm64 v8  {}, windows amd64  10.0.20348 {win32k}"
    );
    let configs = "SELECT string_agg(concat_ws(' ', os, architecture, variant, os_version), ', ' ORDER BY os)
                   FROM manifest WHERE kind = 0";
    assert_eq!(
        value::<String>(&scene.database, configs).await,
        "linux arm64 v8 , windows amd64  10.0.20348"
    );
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_13_attestations_are_no_images() {
    let scene = Scene::create().await;
    let index = IndexBuilder::new()
        .member(image("a").build())
        .member(image("b").platform("linux", "arm64").build())
        .attested();
    scene.fill("apps/a", &index.build(), &["latest"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    assert_eq!(scene.told("").await, ["apps/a latest [a b]"]);
    assert_eq!(scene.told("os=unknown").await, [""; 0]);
    let kept = "SELECT count(*) FROM index_member i JOIN manifest m USING (digest) WHERE attestation AND verified";
    assert_eq!(value::<i64>(&scene.database, kept).await, 2, "what they say is kept");
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_14_a_document_without_media_type_has_one() {
    let scene = Scene::create().await;
    let bare = image("bare").without_media_type().build();
    let index = IndexBuilder::new().without_media_type().member(bare.clone()).build();
    scene.fill("apps/a", &bare, &["image"]);
    scene.fill("apps/a", &index, &["index"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let found = scene.search("").await;
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    assert_eq!(found[0].images[0].image.media_type.as_str(), manifest);
    assert_eq!(found[0].image_indexes[0].images[0].media_type.as_str(), manifest);
    assert_eq!(
        found[0].image_indexes[0].media_type.as_str(),
        "application/vnd.oci.image.index.v1+json"
    );
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_15_an_image_index_without_images_is_shown_and_its_annotations_are_asked() {
    let scene = Scene::create().await;
    let empty = IndexBuilder::new().annotation("kind", "empty").build();
    let full = IndexBuilder::new()
        .annotation("kind", "full")
        .member(image("member").annotation("own", "x").build());
    scene.fill("apps/empty", &empty, &["latest"]);
    scene.fill("apps/full", &full.build(), &["latest"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    let (empty, full) = ("apps/empty latest []", "apps/full latest [member]");
    assert_eq!(scene.told("").await, [empty, full]);
    assert_eq!(scene.told("annotation:kind:exists=1").await, [empty, full]);
    assert_eq!(scene.told("annotation:kind=empty").await, [empty]);
    assert_eq!(scene.told("annotation:kind=full&annotation:own=x").await, [full]);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_15_members_keep_the_order_of_the_image_index() {
    let scene = Scene::create().await;
    let seeds = ["m", "z", "a", "q", "b", "y", "c", "x"];
    let forwards = seeds
        .iter()
        .fold(IndexBuilder::new(), |index, seed| index.member(image(seed).build()));
    let backwards = seeds
        .iter()
        .rev()
        .fold(IndexBuilder::new(), |index, seed| index.member(image(seed).build()));
    scene.fill("apps/a", &forwards.build(), &["forwards"]);
    scene.fill("apps/a", &backwards.build(), &["backwards"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    assert_eq!(
        scene.told("").await,
        [
            "apps/a backwards [x c y b q a z m]",
            "apps/a forwards [m z a q b y c x]"
        ]
    );
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_17_an_image_index_whose_members_were_missing_is_repaired() {
    let scene = Scene::create().await;
    let (here, late) = (image("here").build(), image("late").build());
    let index = IndexBuilder::new().member(late.clone()).member(here.clone()).build();
    scene.fill("apps/a", &here, &[]);
    let alone = Manifest {
        members: Vec::new(),
        ..index
    };
    scene.fill("apps/a", &alone, &["latest"]);
    let (indexer, _) = scene.start("", "");
    indexer.scan().await;
    assert_eq!(scene.told("").await, ["apps/a latest [here]"]);
    let revision = scene.revision().await;
    indexer.scan().await;
    assert_eq!(scene.revision().await, revision, "the same problem again is no change");
    scene.fill("apps/a", &late, &[]);
    indexer.scan().await;
    assert_eq!(scene.told("").await, ["apps/a latest [late here]"]);
    assert_eq!(scene.revision().await, revision + 1);
    indexer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_32_what_is_known_is_not_fetched_again_for_another_repository() {
    let scene = Scene::create().await;
    let index = IndexBuilder::new()
        .member(image("a").build())
        .member(image("b").platform("linux", "arm64").build())
        .build();
    scene.fill("apps/first", &index, &["latest"]);
    let (indexer, events) = scene.start("", "");
    indexer.scan().await;
    assert_eq!(scene.registry.count(Kind::Blob), 2);
    scene.registry.clear_log();
    scene.fill("apps/second", &index, &["latest"]);
    scene.fill("apps/third", &index, &["latest"]);
    indexer.scan().await;
    assert_eq!(scene.told("").await.len(), 3);
    assert_eq!(scene.registry.count(Kind::Blob), 0, "configs are known");
    assert_eq!(
        scene.registry.count(Kind::GetManifest),
        2,
        "one GET a new tag, none for members"
    );
    scene.registry.clear_log();
    scene.fill("apps/fourth", &index, &["latest"]);
    assert_eq!(
        post(&events, pushed("apps/fourth", "latest", &index).to_string()).await,
        202
    );
    until("the fourth one is found", async || {
        let found = scene.told("repository=apps/fourth").await;
        if found == ["apps/fourth latest [a b]"] {
            Ok(())
        } else {
            Err(found)
        }
    })
    .await;
    assert_eq!(scene.registry.count(Kind::Blob), 0);
    assert_eq!(scene.registry.count(Kind::GetManifest), 0);
    // Another manifest with a config that is known.
    let annotated = image("a").annotation("another", "manifest").build();
    scene.fill("apps/fifth", &annotated, &["latest"]);
    indexer.scan().await;
    assert_eq!(scene.told("repository=apps/fifth").await, ["apps/fifth a latest"]);
    assert_eq!(scene.registry.count(Kind::Blob), 0);
    assert_eq!(scene.registry.count(Kind::GetManifest), 1);
    indexer.stop().await;
}
