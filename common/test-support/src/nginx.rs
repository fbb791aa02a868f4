//! The caching proxy: nginx with the configuration of `deploy/nginx`, in a folder of its own.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::unistd::User;
use url::Url;

use crate::process::{OnLine, Process, Program};
use crate::{environment, ports};

const TEMPLATE: &str = include_str!("../../../deploy/nginx/flagstate.conf.template");

/// What the proxy stands in front of.
#[derive(Clone, Debug)]
pub struct Upstreams {
    /// The registry, without a path.
    pub registry: Url,
    /// Whether the registry is sent its own name as Host, and not the one that the client asked for.
    pub registry_is_elsewhere: bool,
    /// The indexer's `/events`.
    pub indexer: SocketAddr,
    /// query-api.
    pub query_api: SocketAddr,
}

/// A running nginx; it ends with this value.
pub struct Nginx {
    process: Process,
    address: SocketAddr,
}

impl Nginx {
    /// Starts the proxy at an address. As root it runs as a user who may do nothing.
    ///
    /// # Errors
    /// When nginx is not installed or does not start.
    pub async fn start(address: SocketAddr, upstreams: &Upstreams, on_line: Option<OnLine>) -> Result<Self> {
        let path = environment::find_program("nginx").context("nginx is not installed")?;
        let folder = tempfile::Builder::new().prefix("flagstate-nginx-").tempdir()?;
        let user = environment::unprivileged_user(&["www-data", "nobody"]);
        give(folder.path(), user.as_ref())?;
        std::fs::write(
            folder.path().join("flagstate.conf"),
            site(address, folder.path(), upstreams),
        )?;
        std::fs::write(folder.path().join("nginx.conf"), main_configuration(folder.path()))?;
        let folder = folder.keep();
        let process = Program::new("proxy", path)
            .args(["-e", "stderr", "-p"])
            .arg(&folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .run_as(user)
            .remove_at_end(&folder)
            .on_line(on_line)
            .start()?;
        let mut nginx = Self { process, address };
        nginx.becomes_ready().await?;
        Ok(nginx)
    }

    /// Its base URL.
    ///
    /// # Panics
    /// Never: every socket address makes a URL.
    #[must_use]
    #[allow(clippy::expect_used, reason = "every socket address makes a URL")]
    pub fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.address)).expect("a URL")
    }

    /// Its process, to stop, kill or watch it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn becomes_ready(&mut self) -> Result<()> {
        for _ in 0..400 {
            if self.process.ended().is_some() {
                break;
            }
            if ports::is_open(self.address).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("nginx does not start:\n{}", self.process.log())
    }
}

fn give(folder: &Path, user: Option<&User>) -> Result<()> {
    if let Some(user) = user {
        chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    Ok(())
}

fn site(address: SocketAddr, folder: &Path, upstreams: &Upstreams) -> String {
    let registry = upstreams.registry.as_str().trim_end_matches('/');
    let host = if upstreams.registry_is_elsewhere {
        "$proxy_host"
    } else {
        "$http_host"
    };
    TEMPLATE
        .replace("${FLAGSTATE_PROXY_LISTEN}", &address.to_string())
        .replace("${FLAGSTATE_PROXY_CACHE}", &folder.join("cache").display().to_string())
        .replace("${FLAGSTATE_REGISTRY_URL}", registry)
        .replace("${FLAGSTATE_REGISTRY_HOST}", host)
        .replace("${FLAGSTATE_INDEXER}", &upstreams.indexer.to_string())
        .replace("${FLAGSTATE_QUERY_API}", &upstreams.query_api.to_string())
}

/// What a container image of nginx brings along; here everything that nginx writes lies in the folder.
fn main_configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/client-body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/flagstate.conf;
}}
"
    )
}
