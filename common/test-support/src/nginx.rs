//! The caching proxy: nginx with the configuration of `deploy/nginx`, in a folder of its own.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
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

/// How a proxy is started.
#[derive(Clone)]
pub struct Options {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it stands in front of.
    pub upstreams: Upstreams,
    /// Directives for the http context, beside ours.
    pub directives: String,
    /// Gets each line that it prints.
    pub on_line: Option<OnLine>,
}

/// A running nginx; it ends with this value.
pub struct Nginx {
    process: Process,
    folder: PathBuf,
    options: Options,
}

impl Nginx {
    /// Starts the proxy. As root it runs as a user who may do nothing.
    ///
    /// # Errors
    /// When nginx is not installed or does not start.
    pub async fn start(options: Options) -> Result<Self> {
        let (process, folder) = spawn(&options)?;
        let mut nginx = Self {
            process,
            folder,
            options,
        };
        nginx.becomes_ready().await?;
        Ok(nginx)
    }

    /// Stops it and starts it again at the same address, with an empty cache.
    ///
    /// # Errors
    /// When it does not stop, or does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.stop().await?;
        (self.process, self.folder) = spawn(&self.options)?;
        self.becomes_ready().await
    }

    /// The lines of its access log so far, in nginx's format `combined`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn access_log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.join("access.log"))?)
    }

    /// Its base URL.
    ///
    /// # Panics
    /// Never: every socket address makes a URL.
    #[must_use]
    #[allow(clippy::expect_used, reason = "every socket address makes a URL")]
    pub fn url(&self) -> Url {
        Url::parse(&format!("http://{}", self.options.address)).expect("a URL")
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
            if ports::is_open(self.options.address).await {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        bail!("nginx does not start:\n{}", self.process.log())
    }
}

fn spawn(options: &Options) -> Result<(Process, PathBuf)> {
    let path = environment::find_program("nginx").context("nginx is not installed")?;
    let folder = tempfile::Builder::new().prefix("flagstate-nginx-").tempdir()?;
    let user = environment::unprivileged_user(&["www-data", "nobody"]);
    give(folder.path(), user.as_ref())?;
    let files = [
        ("flagstate.conf", site(folder.path(), options)),
        ("nginx.conf", main_configuration(folder.path(), &options.directives)),
    ];
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::write(&file, text)?;
        give(&file, user.as_ref())?;
    }
    let folder = folder.keep();
    let process = Program::new("proxy", path)
        .args(["-e", "stderr", "-p"])
        .arg(&folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .run_as(user)
        .remove_at_end(&folder)
        .on_line(options.on_line.clone())
        .start()?;
    Ok((process, folder))
}

/// Whatever the umask says, nginx must be able to read it.
fn give(path: &Path, user: Option<&User>) -> Result<()> {
    if let Some(user) = user {
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    Ok(())
}

fn site(folder: &Path, options: &Options) -> String {
    let Options { address, upstreams, .. } = options;
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
fn main_configuration(folder: &Path, directives: &str) -> String {
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
    {directives}
    include {folder}/flagstate.conf;
}}
"
    )
}
