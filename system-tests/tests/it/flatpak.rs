//! The real flatpak client, through the proxy.

use std::path::{Path, PathBuf};

use flagstate_test_support::system::{Options, System};
use flagstate_test_support::{environment, wait};
use serde_json::json;

use crate::program;

const RUNTIME: &str = "org.flagstate.Platform";
const APP: &str = "org.flagstate.App";

/// How long the client may use an answer without asking. Seconds, for flatpak counts whole ones.
const MAX_AGE: u64 = 1;

/// Makes runtime and app as flatpak's own builder does.
struct Builder {
    folder: tempfile::TempDir,
}

impl Builder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let architecture = std::env::consts::ARCH;
        let write = |file: &str, content: &str| {
            let file = folder.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        };
        let runtime = format!("runtime={RUNTIME}/{architecture}/stable");
        write("runtime/metadata", &format!("[Runtime]\nname={RUNTIME}\n{runtime}\n"));
        write("runtime/usr/share/platform", "a runtime\n");
        std::fs::create_dir(folder.path().join("runtime/files")).unwrap();
        write("app/metadata", &format!("[Application]\nname={APP}\n{runtime}\n"));
        std::fs::create_dir(folder.path().join("app/export")).unwrap();
        std::fs::create_dir(folder.path().join("app/files")).unwrap();
        Self { folder }
    }

    /// Builds the runtime, and pushes it as `latest`.
    async fn push_runtime(&self, system: &System) {
        self.push(system, "runtime", RUNTIME, "runtimes/platform", &["--runtime"])
            .await;
    }

    /// Builds the app with this version in a file, and pushes it as `latest`.
    async fn push_app(&self, system: &System, version: &str) {
        std::fs::write(self.folder.path().join("app/files/version"), version).unwrap();
        self.push(system, "app", APP, "apps/app", &[]).await;
    }

    async fn push(&self, system: &System, folder: &str, name: &str, repository: &str, flags: &[&str]) {
        let path = self.folder.path();
        let export = [&["build-export"], flags, &["repo", folder, "stable"]].concat();
        program::run(path, "flatpak", &export).await;
        let layout = format!("{folder}.oci");
        std::fs::remove_dir_all(path.join(&layout)).ok();
        let bundle = [&["build-bundle", "--oci"], flags, &["repo", &layout, name, "stable"]].concat();
        program::run(path, "flatpak", &bundle).await;
        let registry = system.registry.as_ref().unwrap().address();
        let copy = [
            "--insecure-policy",
            "copy",
            "--dest-tls-verify=false",
            &format!("oci:{layout}"),
            &format!("docker://{registry}/{repository}:latest"),
        ];
        program::run(path, "skopeo", &copy).await;
    }
}

/// A user's flatpak, with a home of its own.
struct Client {
    folder: tempfile::TempDir,
}

impl Client {
    async fn run(&self, arguments: &[&str]) -> String {
        let arguments = [&["--", "flatpak", "--user"], arguments].concat();
        program::run(self.folder.path(), "dbus-run-session", &arguments).await
    }

    /// The file of the installed app that tells its version.
    fn app_version(&self) -> String {
        let file = "home/data/flatpak/app/org.flagstate.App/current/active/files/version";
        std::fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    async fn app_commit(&self) -> String {
        self.run(&["info", "--show-commit", APP]).await
    }
}

/// Status of each request for the index that flatpak made.
fn refreshes(system: &System) -> Vec<String> {
    let log = system.proxy.access_log().unwrap();
    let of_index = log
        .lines()
        .filter(|line| line.contains("\"GET /index/static?") && line.contains("flatpak"));
    of_index
        .map(|line| line.split('"').nth(2).unwrap().split_whitespace().next().unwrap().to_owned())
        .collect()
}

async fn is_answered(system: &System, query: &str, tagged: usize) -> String {
    let mut digest = String::new();
    wait::until(query, async || {
        let answer = system.index(query).await.unwrap();
        let images = answer["Results"][0]["Images"].as_array().cloned().unwrap_or_default();
        digest = images.first().map_or("", |image| image["Digest"].as_str().unwrap()).to_owned();
        if images.len() == tagged { Ok(()) } else { Err(answer) }
    })
    .await
    .unwrap();
    digest
}
