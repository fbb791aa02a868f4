//! Pushing to any registry (OCI distribution specification, "Push").

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use flagstate_common::digest::Digest;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use url::Url;

use crate::http;
use crate::images::{Blob, Manifest, SampleImages};

/// Pushes to one registry.
#[derive(Clone, Debug)]
pub struct Pusher {
    client: Client,
    registry: Url,
    credentials: Option<(String, String)>,
}

impl Pusher {
    /// `registry` is the URL without `/v2`.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn new(registry: Url) -> Result<Self> {
        Ok(Self {
            client: http::client()?,
            registry,
            credentials: None,
        })
    }

    /// Sends Basic credentials with each request.
    #[must_use]
    pub fn with_credentials(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some((username.to_owned(), password.to_owned()));
        self
    }

    /// Pushes a manifest with all it needs: under each tag, or by its digest when there is no tag.
    ///
    /// # Errors
    /// When the registry refuses a part of it.
    pub async fn push(&self, repository: &str, manifest: &Manifest, tags: &[&str]) -> Result<()> {
        for blob in &manifest.blobs {
            self.push_blob(repository, blob).await?;
        }
        for member in &manifest.members {
            Box::pin(self.push(repository, member, &[])).await?;
        }
        if tags.is_empty() {
            self.put_manifest(repository, &manifest.digest.to_string(), manifest)
                .await?;
        }
        for tag in tags {
            self.put_manifest(repository, tag, manifest).await?;
        }
        Ok(())
    }

    /// Pushes a set of images.
    ///
    /// # Errors
    /// When the registry refuses one.
    pub async fn push_samples(&self, samples: &SampleImages) -> Result<()> {
        for sample in samples.images() {
            let tags: Vec<_> = sample.tags.iter().map(|tag| tag.as_str()).collect();
            self.push(sample.repository.as_str(), &sample.manifest, &tags).await?;
        }
        Ok(())
    }

    /// Uploads a blob by POST and one PUT, whether or not the repository has it.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let start = self.url(repository, "blobs/uploads/")?;
        let started = expect(
            self.request(Method::POST, start.clone()).send().await?,
            StatusCode::ACCEPTED,
        )
        .await?;
        let location = started
            .headers()
            .get(LOCATION)
            .context("an upload without Location")?
            .to_str()?;
        let mut upload = start.join(location)?;
        upload.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let put = self
            .request(Method::PUT, upload)
            .header(CONTENT_TYPE, "application/octet-stream");
        expect(put.body(blob.bytes.clone()).send().await?, StatusCode::CREATED).await?;
        Ok(())
    }

    /// Puts a manifest alone under a tag or digest; what it needs must be there.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Manifest) -> Result<()> {
        self.put_manifest_body(repository, reference, &manifest.media_type, manifest.body.clone())
            .await
    }

    async fn put_manifest_body(&self, repository: &str, reference: &str, media_type: &str, body: Bytes) -> Result<()> {
        let url = self.url(repository, &format!("manifests/{reference}"))?;
        let put = self
            .request(Method::PUT, url)
            .header(CONTENT_TYPE, media_type)
            .body(body);
        expect(put.send().await?, StatusCode::CREATED).await?;
        Ok(())
    }

    /// Deletes a manifest, and with it all tags that point at it.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<()> {
        let url = self.url(repository, &format!("manifests/{digest}"))?;
        expect(self.request(Method::DELETE, url).send().await?, StatusCode::ACCEPTED).await?;
        Ok(())
    }

    fn url(&self, repository: &str, rest: &str) -> Result<Url> {
        Ok(self.registry.join(&format!("/v2/{repository}/{rest}"))?)
    }

    fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.credentials {
            Some((username, password)) => request.basic_auth(username, Some(password)),
            None => request,
        }
    }
}

async fn expect(response: Response, status: StatusCode) -> Result<Response> {
    if response.status() != status {
        bail!(
            "{} answered {}: {}",
            response.url().clone(),
            response.status(),
            response.text().await?
        );
    }
    Ok(response)
}
