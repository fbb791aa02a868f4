//! A real registry: Docker's own (`distribution`), as Debian packages it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::process::{OnLine, Process, Program};
use crate::push::Pusher;
use crate::registry_contents::RegistryContents;
use crate::{environment, ports};

/// The program's name, which is that of its Debian package too.
pub const PROGRAM: &str = "docker-registry";

/// Where a registry sends its notifications.
#[derive(Clone, Debug)]
pub struct Notifications {
    /// The indexer's `/events`.
    pub url: Url,
    /// Sent as bearer token.
    pub token: Option<String>,
}

/// How a registry is started.
#[derive(Clone, Default)]
pub struct Options {
    /// None are sent when there is nothing here.
    pub notifications: Option<Notifications>,
    /// Gets each line of the registry's log.
    pub on_line: Option<OnLine>,
}

/// A registry with its storage in a temporary folder, deletion enabled; it ends with this value.
pub struct DockerRegistry {
    process: Process,
    address: SocketAddr,
    folder: TempDir,
    options: Options,
}

impl DockerRegistry {
    /// Starts an empty registry on a free loopback port.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub async fn start(options: Options) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("flagstate-registry-").tempdir()?;
        std::fs::create_dir(folder.path().join("storage"))?;
        let address = ports::free()?;
        let configuration = configuration(address, &folder, options.notifications.as_ref());
        std::fs::write(folder.path().join("config.yml"), configuration.to_string())?;
        let process = spawn(&folder, &options)?;
        let mut registry = Self {
            process,
            address,
            folder,
            options,
        };
        registry.becomes_ready().await?;
        Ok(registry)
    }

    /// Its base URL, without `/v2`.
    ///
    /// # Panics
    /// Never: every socket address makes a URL.
    #[must_use]
    #[allow(clippy::expect_used, reason = "every socket address makes a URL")]
    pub fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.address)).expect("a URL")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pushes to it.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn pusher(&self) -> Result<Pusher> {
        Pusher::new(self.url())
    }

    /// All that it holds under a tag, by its own API.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn contents(&self) -> Result<RegistryContents> {
        RegistryContents::read(&self.url()).await
    }

    /// Its process, to pause, kill or watch it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Stops it; address and storage stay for [`DockerRegistry::start_again`]. Notifications it has not sent are lost.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await?;
        Ok(())
    }

    /// Starts it at the same address with the same storage.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.folder, &self.options)?;
        self.becomes_ready().await
    }

    /// Takes the storage away under the running registry, which then looks healthy and empty.
    ///
    /// # Errors
    /// When the folder cannot be renamed.
    pub fn take_storage_away(&self) -> Result<()> {
        let storage = self.storage();
        std::fs::rename(&storage, self.folder.path().join("storage-away"))?;
        std::fs::create_dir(storage)?;
        Ok(())
    }

    /// Brings back the storage that was taken away.
    ///
    /// # Errors
    /// When it was not taken away.
    pub fn bring_storage_back(&self) -> Result<()> {
        let storage = self.storage();
        std::fs::remove_dir_all(&storage)?;
        std::fs::rename(self.folder.path().join("storage-away"), storage)?;
        Ok(())
    }

    /// The folder in which it keeps everything.
    #[must_use]
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("storage")
    }

    async fn becomes_ready(&mut self) -> Result<()> {
        for _ in 0..600 {
            if ports::is_open(self.address).await {
                return Ok(());
            }
            if self.process.ended().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("{PROGRAM} does not start:\n{}", self.process.log())
    }
}

fn spawn(folder: &TempDir, options: &Options) -> Result<Process> {
    let path = environment::find_program(PROGRAM).context("docker-registry is not installed")?;
    Program::new("registry", path)
        .arg("serve")
        .arg(folder.path().join("config.yml"))
        // Release 3 looks for a collector otherwise.
        .env("OTEL_TRACES_EXPORTER", "none")
        .on_line(options.on_line.clone())
        .start()
}

/// JSON is YAML, and needs no quoting rules of ours.
fn configuration(address: SocketAddr, folder: &TempDir, notifications: Option<&Notifications>) -> Value {
    let mut configuration = json!({
        "version": "0.1",
        "log": {"level": "warn", "formatter": "text", "accesslog": {"disabled": true}},
        "storage": {
            "filesystem": {"rootdirectory": folder.path().join("storage")},
            "delete": {"enabled": true},
        },
        "http": {"addr": address.to_string(), "secret": "only for tests"},
    });
    if let Some(notifications) = notifications {
        configuration["notifications"] = json!({
            "events": {"includereferences": true},
            "endpoints": [endpoint(notifications)],
        });
    }
    configuration
}

fn endpoint(notifications: &Notifications) -> Value {
    let mut endpoint = json!({
        "name": "flagstate",
        "url": notifications.url,
        "timeout": "1s",
        "threshold": 3,
        "backoff": "1s",
        "ignore": {"mediatypes": ["application/octet-stream"], "actions": ["pull"]},
    });
    if let Some(token) = &notifications.token {
        endpoint["headers"] = json!({"Authorization": [format!("Bearer {token}")]});
    }
    endpoint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{ImageBuilder, SampleImages};

    #[tokio::test]
    async fn takes_every_sample_image_and_shows_its_tags() {
        let registry = DockerRegistry::start(Options::default()).await.unwrap();
        let samples = SampleImages::all();
        registry.pusher().unwrap().push_samples(&samples).await.unwrap();
        let contents = registry.contents().await.unwrap();
        let mut pushed = RegistryContents::default();
        for image in samples.images() {
            for tag in &image.tags {
                pushed.insert(
                    image.repository.as_str(),
                    tag.as_str(),
                    &image.manifest.digest.to_string(),
                );
            }
        }
        assert_eq!(contents, pushed);
    }

    #[tokio::test]
    async fn keeps_its_storage_over_a_restart_and_can_lose_it() {
        let mut registry = DockerRegistry::start(Options::default()).await.unwrap();
        let pusher = registry.pusher().unwrap();
        let (kept, deleted) = (ImageBuilder::new("kept").build(), ImageBuilder::new("deleted").build());
        pusher.push("a/kept", &kept, &["latest"]).await.unwrap();
        pusher.push("a/deleted", &deleted, &["latest"]).await.unwrap();
        pusher.delete_manifest("a/deleted", &deleted.digest).await.unwrap();
        let mut expected = RegistryContents::default();
        expected.insert("a/kept", "latest", &kept.digest.to_string());

        registry.stop().await.unwrap();
        registry.start_again().await.unwrap();
        assert_eq!(registry.contents().await.unwrap(), expected);
        registry.take_storage_away().unwrap();
        assert_eq!(registry.contents().await.unwrap(), RegistryContents::default());
        registry.bring_storage_back().unwrap();
        assert_eq!(registry.contents().await.unwrap(), expected);
    }
}
