//! What a registry holds, read through its API by code that shares nothing with the indexer.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use flagstate_common::media_type::ACCEPT_MANIFESTS;
use reqwest::header::{ACCEPT, LINK};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use url::Url;

use crate::http;

/// Tags and the digests they point at, by repository; repositories without a tag are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryContents(BTreeMap<String, BTreeMap<String, String>>);

impl RegistryContents {
    /// Reads catalog, tags and digests of a registry that asks for no credentials.
    ///
    /// # Errors
    /// When the registry does not answer as it should.
    pub async fn read(registry: &Url) -> Result<Self> {
        let client = http::client()?;
        let mut contents = Self::default();
        for repository in pages(&client, registry.join("/v2/_catalog?n=1000")?, "repositories").await? {
            for tag in pages(&client, registry.join(&format!("/v2/{repository}/tags/list"))?, "tags").await? {
                let url = registry.join(&format!("/v2/{repository}/manifests/{tag}"))?;
                let answer = client.head(url).header(ACCEPT, ACCEPT_MANIFESTS).send().await?;
                ensure!(
                    answer.status().is_success(),
                    "{repository}:{tag} answers {}",
                    answer.status()
                );
                let digest = answer
                    .headers()
                    .get("docker-content-digest")
                    .context("a manifest without digest")?;
                contents.insert(&repository, &tag, digest.to_str()?);
            }
        }
        Ok(contents)
    }

    /// Notes that a tag points at a digest.
    pub fn insert(&mut self, repository: &str, tag: &str, digest: &str) {
        self.0
            .entry(repository.to_owned())
            .or_default()
            .insert(tag.to_owned(), digest.to_owned());
    }

    /// By repository, then by tag.
    #[must_use]
    pub fn repositories(&self) -> &BTreeMap<String, BTreeMap<String, String>> {
        &self.0
    }
}

/// The texts under `key` on all pages; none where the answer is 404, as for a repository without a tag.
async fn pages(client: &Client, first: Url, key: &str) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut next = Some(first);
    while let Some(url) = next {
        let answer = client.get(url.clone()).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            break;
        }
        ensure!(answer.status().is_success(), "{url} answers {}", answer.status());
        next = next_page(&url, &answer)?;
        let page: Value = serde_json::from_slice(&answer.bytes().await?)?;
        texts.extend(
            page[key]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|text| Some(text.as_str()?.to_owned())),
        );
    }
    Ok(texts)
}

fn next_page(url: &Url, answer: &Response) -> Result<Option<Url>> {
    let Some(link) = answer.headers().get(LINK) else {
        return Ok(None);
    };
    let target = link
        .to_str()?
        .split(['<', '>'])
        .nth(1)
        .context("a Link without a target")?;
    Ok(Some(url.join(target)?))
}
