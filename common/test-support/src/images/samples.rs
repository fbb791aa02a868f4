//! The sample images: a dozen repositories, one for each kind of thing that Flagstate indexes.
//!
//! `cargo xtask up` pushes them, and tests do.

use flagstate_common::repository_name::RepositoryName;
use flagstate_common::tag::Tag;

use super::artifacts::{config_is_not_json, cosign_signature, flatpak_app, helm_chart, sbom_referrer, wasm_module};
use super::{ImageBuilder, IndexBuilder, Manifest};

/// A manifest and where it goes.
#[derive(Clone, Debug)]
pub struct SampleImage {
    /// The repository.
    pub repository: RepositoryName,
    /// Its tags; none for what is found through its subject.
    pub tags: Vec<Tag>,
    /// What is pushed.
    pub manifest: Manifest,
}

/// A set of images for a registry.
#[derive(Clone, Debug)]
pub struct SampleImages(Vec<SampleImage>);

impl SampleImages {
    /// All sample images; a real registry takes each of them.
    #[must_use]
    pub fn all() -> Self {
        let hello = ImageBuilder::new("hello")
            .label("org.opencontainers.image.title", "Hello")
            .build();
        Self(vec![
            sample("library/hello", &["latest", "1.0"], hello.clone()),
            sample(
                "library/hello",
                &["0.9"],
                ImageBuilder::new("hello-0.9").created("2023-05-01T08:30:00Z").build(),
            ),
            sample("library/debian", &["latest", "12", "bookworm"], debian().build()),
            sample("library/python", &["latest", "3.12"], python()),
            sample("apps/web", &["latest", "2.1.0"], web().attested().build()),
            sample(
                "apps/platform",
                &["latest"],
                IndexBuilder::new().member(web().build()).member(hello.clone()).build(),
            ),
            sample("apps/signed", &["latest"], hello.clone()),
            sample("apps/signed", &[&signature_tag(&hello)], cosign_signature(&hello)),
            sample("apps/signed", &[], sbom_referrer(&hello)),
            sample("charts/nginx", &["15.0.0", "latest"], helm_chart("nginx", "15.0.0")),
            sample("wasm/filter", &["latest"], wasm_module("filter")),
            sample(
                "flatpak/org.example.hello",
                &["latest"],
                flatpak_app("org.example.Hello", "amd64").build(),
            ),
            sample("flatpak/org.example.clock", &["latest"], clock()),
            sample(
                "legacy/untyped",
                &["latest"],
                ImageBuilder::new("untyped").without_media_type().build(),
            ),
            sample("odd/settings", &["latest"], config_is_not_json("settings")),
            sample("odd/annotated", &["latest"], annotated()),
        ])
    }

    /// The images, in the order in which they are to be pushed.
    #[must_use]
    pub fn images(&self) -> &[SampleImage] {
        &self.0
    }

    /// Repository and digest of what `os=..&architecture=..&tag=..` finds, by repository: images, and image indexes
    /// that lead to such an image.
    #[must_use]
    pub fn found(&self, os: &str, architecture: &str, tag: &str) -> Vec<(String, String)> {
        let runs_there = |image: &&Manifest| {
            image
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os == os && platform.architecture == architecture)
        };
        let mut found: Vec<_> = self
            .0
            .iter()
            .filter(|sample| sample.tags.iter().any(|name| name.as_str() == tag))
            .filter(|sample| sample.manifest.images().iter().any(runs_there))
            .map(|sample| {
                (
                    sample.repository.as_str().to_owned(),
                    sample.manifest.digest.to_string(),
                )
            })
            .collect();
        found.sort();
        found
    }
}

#[allow(
    clippy::expect_used,
    reason = "the names are constants of this file, and a test reads them all"
)]
fn sample(repository: &str, tags: &[&str], manifest: Manifest) -> SampleImage {
    SampleImage {
        repository: repository.parse().expect("a repository name"),
        tags: tags.iter().map(|tag| tag.parse().expect("a tag")).collect(),
        manifest,
    }
}

fn debian() -> ImageBuilder {
    ImageBuilder::new("debian")
        .docker()
        .layer("debian-base")
        .label("org.label-schema.name", "Debian")
}

/// Stands on Debian's layer, on two architectures.
fn python() -> Manifest {
    let python = |architecture: &str| {
        ImageBuilder::new("python")
            .docker()
            .platform("linux", architecture)
            .layer("debian-base")
            .layer("python")
    };
    IndexBuilder::new()
        .docker()
        .member(python("amd64").build())
        .member(python("arm64").variant("v8").build())
        .build()
}

fn web() -> IndexBuilder {
    let web = |architecture: &str| {
        ImageBuilder::new("web")
            .platform("linux", architecture)
            .layer("debian-base")
            .layer("web")
            .label("org.opencontainers.image.description", "A web application")
    };
    IndexBuilder::new()
        .annotation("org.opencontainers.image.source", "https://git.example.org/web")
        .member(web("amd64").build())
        .member(web("arm64").variant("v8").build())
}

fn clock() -> Manifest {
    ["amd64", "arm64"]
        .iter()
        .fold(IndexBuilder::new(), |index, architecture| {
            index.member(flatpak_app("org.example.Clock", architecture).build())
        })
        .build()
}

fn annotated() -> Manifest {
    ImageBuilder::new("annotated")
        .platform("windows", "amd64")
        .os_version("10.0.20348.2340")
        .annotation("org.opencontainers.image.title", "Annotated")
        .annotation("org.example.unicode", "grüße, 世界")
        .label("org.example.empty", "")
        .label("org.example:with:colons", "a:exists")
        .build()
}

fn signature_tag(of: &Manifest) -> String {
    format!("{}.sig", of.digest.to_string().replace(':', "-"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_a_dozen_repositories_and_most_run_on_amd64_linux() {
        let samples = SampleImages::all();
        let repositories: BTreeSet<_> = samples.images().iter().map(|sample| &sample.repository).collect();
        assert!(repositories.len() >= 12, "{repositories:?}");
        let found = samples.found("linux", "amd64", "latest");
        let names: Vec<_> = found.iter().map(|(repository, _)| repository.as_str()).collect();
        assert_eq!(
            names,
            [
                "apps/platform",
                "apps/signed",
                "apps/web",
                "flatpak/org.example.clock",
                "flatpak/org.example.hello",
                "legacy/untyped",
                "library/debian",
                "library/hello",
                "library/python",
            ]
        );
    }
}
