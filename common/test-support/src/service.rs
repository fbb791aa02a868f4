//! The two services as people run them: a binary, a configuration file, and two ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use url::Url;

use crate::process::{OnLine, Process, Program, describe};
use crate::{http, wait};

/// Name of the indexer's binary.
pub const INDEXER: &str = "flagstate-indexer";
/// Name of query-api's binary.
pub const QUERY_API: &str = "flagstate-query-api";

/// A service that can be started, stopped and started again with the same configuration.
pub struct Service {
    name: &'static str,
    binary: PathBuf,
    configuration: PathBuf,
    address: SocketAddr,
    admin: SocketAddr,
    on_line: Option<OnLine>,
    process: Option<Process>,
}

impl Service {
    /// Writes the configuration into the folder; nothing runs yet.
    ///
    /// # Errors
    /// When the binary was not built, or the configuration does not say where to listen.
    pub fn new(
        name: &'static str,
        binaries: &Path,
        folder: &Path,
        configuration: &Value,
        on_line: Option<OnLine>,
    ) -> Result<Self> {
        let binary = binaries.join(name);
        ensure!(
            binary.is_file(),
            "{} is not built: cargo build --workspace",
            binary.display()
        );
        let key = if name == INDEXER { "indexer" } else { "query_api" };
        let listen = |key: &str| configuration["listen"][key].as_str().unwrap_or_default().parse();
        let (address, admin) = (listen(key)?, listen(&format!("{key}_admin"))?);
        let file = folder.join(format!("{name}.yaml"));
        // JSON is YAML, and needs no quoting rules of ours.
        std::fs::write(&file, format!("{configuration:#}\n"))?;
        Ok(Self {
            name,
            binary,
            configuration: file,
            address,
            admin,
            on_line,
            process: None,
        })
    }

    /// Where it serves the public.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where probes and metrics are.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Base URL of the public port.
    ///
    /// # Errors
    /// Never in practice: every socket address makes a URL.
    pub fn url(&self) -> Result<Url> {
        Ok(Url::parse(&format!("http://{}", self.address))?)
    }

    /// Starts it, and waits until `/livez` answers.
    ///
    /// # Errors
    /// When it ends instead.
    pub async fn start(&mut self) -> Result<()> {
        let process = Program::new(self.name, &self.binary)
            .arg("--config")
            .arg(&self.configuration)
            .arg("run")
            .on_line(self.on_line.clone())
            .start()?;
        let process = self.process.insert(process);
        let client = http::client()?;
        let livez = format!("http://{}/livez", self.admin);
        let name = self.name;
        let ended = wait::until(&format!("{name} answers"), async || {
            if let Some(status) = process.ended() {
                return Ok(Some(status));
            }
            let answer = client.get(&livez).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() {
                Ok(None)
            } else {
                Err(answer.status().to_string())
            }
        })
        .await?;
        if let Some(status) = ended {
            bail!("{name} does not start, {}:\n{}", describe(status), process.log());
        }
        Ok(())
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn becomes_ready(&self) -> Result<()> {
        let client = http::client()?;
        let readyz = format!("http://{}/readyz", self.admin);
        wait::until(&format!("{} is ready", self.name), async || {
            let answer = client.get(&readyz).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() {
                return Ok(());
            }
            Err(answer.text().await.unwrap_or_default())
        })
        .await
    }

    /// Runs another command of the binary with the same configuration, and waits for its end.
    ///
    /// # Errors
    /// When it fails.
    pub async fn command(&self, arguments: &[&str]) -> Result<Output> {
        let output = tokio::process::Command::new(&self.binary)
            .arg("--config")
            .arg(&self.configuration)
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await?;
        let printed = || String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "{} {arguments:?}, {}:\n{}",
            self.name,
            describe(output.status),
            printed()
        );
        Ok(output)
    }

    /// What `/metrics` answers.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn metrics(&self) -> Result<String> {
        Ok(http::client()?
            .get(format!("http://{}/metrics", self.admin))
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?)
    }

    /// Sum of a metric over all its labels; 0 when there is none of that name.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        Ok(sum_of(&self.metrics().await?, name))
    }

    /// Its process while it runs, to pause or watch it.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Stops it as a supervisor does, with SIGTERM; it must end well.
    ///
    /// # Errors
    /// When it ends with an error, or has to be killed.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            let status = process.stop().await?;
            ensure!(
                status.success(),
                "{} {}:\n{}",
                self.name,
                describe(status),
                process.log()
            );
        }
        Ok(())
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }
}

/// Sum of a metric in Prometheus's text form.
fn sum_of(metrics: &str, name: &str) -> f64 {
    let samples = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        rest.starts_with(['{', ' '])
            .then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .flatten()
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_longer_names() {
        let text = "# TYPE a counter\na{x=\"1 2\"} 3\na{x=\"b\"} 4\na_b 100\n";
        assert_eq!(sum_of(text, "a"), 7.0);
        assert_eq!(sum_of(text, "c"), 0.0);
    }
}
