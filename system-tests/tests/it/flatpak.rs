//! The real flatpak client, through the proxy.

use std::time::Duration;

use flagstate_test_support::system::{Options, System};
use serde_json::json;

use crate::{database, program};

const RUNTIME: &str = "org.flagstate.Platform";
const APP: &str = "org.flagstate.App";

/// After it client and proxy have to ask again, for they may use an answer for one second, by clocks of whole seconds.
const LONGER_THAN_MAX_AGE: Duration = Duration::from_millis(2_100);

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
        .map(|line| {
            line.split('"')
                .nth(2)
                .unwrap()
                .split_whitespace()
                .next()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn flatpak_lists_installs_updates_and_refreshes() {
    let system = System::start(&Options::beside_this_test().unwrap().configure(&json!({
        "interval": {"fetch_all": "0"},
        "cache": {"max_age_index": "1s", "stale_while_revalidate": "0s"},
    })))
    .await
    .unwrap();
    let builder = Builder::new();
    builder.push_runtime(&system).await;
    builder.push_app(&system, "one").await;
    database::equals_registry(&system).await;

    let client = Client {
        folder: tempfile::tempdir().unwrap(),
    };
    let remote = format!("oci+{}", system.proxy.url());
    client.run(&["remote-add", "flagstate", &remote]).await;
    let listed = client.run(&["remote-ls", "flagstate", "--columns=application"]).await;
    let offered: Vec<_> = listed
        .lines()
        .filter(|line| line.starts_with("org.flagstate."))
        .collect();
    assert_eq!(offered, [APP, RUNTIME], "{listed}");

    client.run(&["install", "--noninteractive", "flagstate", APP]).await;
    assert_eq!(client.app_version(), "one");
    let installed = client.run(&["list", "--columns=application,origin"]).await;
    for name in [APP, RUNTIME] {
        assert!(installed.contains(&format!("{name}\tflagstate")), "{installed}");
    }
    let first = client.app_commit().await;

    tokio::time::sleep(LONGER_THAN_MAX_AGE).await;
    let before = refreshes(&system);
    assert_eq!(before.first().map(String::as_str), Some("200"));
    client.run(&["remote-ls", "flagstate"]).await;
    let after = refreshes(&system);
    let refreshed = &after[before.len()..];
    assert!(
        !refreshed.is_empty() && refreshed.iter().all(|status| status == "304"),
        "{refreshed:?}"
    );

    builder.push_app(&system, "two").await;
    database::equals_registry(&system).await;
    tokio::time::sleep(LONGER_THAN_MAX_AGE).await;
    client.run(&["update", "--noninteractive"]).await;
    assert_eq!(client.app_version(), "two");
    assert_ne!(client.app_commit().await, first);
    assert_eq!(refreshes(&system)[after.len()], "200");
}
