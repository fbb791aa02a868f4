//! Debian packages that are installed when a program is missing.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use flagstate_test_support::{environment, postgres};
use nix::unistd::Uid;
use tokio::process::Command;

/// Installs packages without starting the services in them: our own are private.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if ! [ -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet --quiet
apt-get install --quiet --yes --no-install-recommends "$@"
"#;

/// A program and the package that brings it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    program: &'static str,
}

pub(crate) const POSTGRESQL: Package = Package {
    name: "postgresql",
    program: "initdb",
};
pub(crate) const NGINX: Package = Package {
    name: "nginx-light",
    program: "nginx",
};
pub(crate) const REGISTRY: Package = Package {
    name: "docker-registry",
    program: "docker-registry",
};
pub(crate) const SKOPEO: Package = Package {
    name: "skopeo",
    program: "skopeo",
};
pub(crate) const FLATPAK: Package = Package {
    name: "flatpak",
    program: "flatpak",
};
pub(crate) const OSTREE: Package = Package {
    name: "ostree",
    program: "ostree",
};
pub(crate) const DBUS: Package = Package {
    name: "dbus",
    program: "dbus-run-session",
};

impl Package {
    /// PostgreSQL's programs stand outside of `PATH`.
    fn is_installed(self) -> bool {
        match self {
            POSTGRESQL => postgres::find_binaries().is_some(),
            Self { program, .. } => environment::find_program(program).is_some(),
        }
    }
}

/// Installs what is missing, as root or with `sudo` where it asks for no password.
///
/// # Errors
/// When something stays missing; the error then names the command that installs it.
pub(crate) async fn ensure_installed(packages: &[Package]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let by_hand = format!("sudo apt-get update && sudo apt-get install --no-install-recommends {names}");
    if environment::find_program("apt-get").is_none() {
        bail!("missing, and this is no Debian to install it on: {names}");
    }
    let Some(mut install) = as_root().await else {
        bail!("missing: {names}. Install it with\n\n    {by_hand}\n");
    };
    println!("installing {names}");
    let status = install.args(["sh", "-c", INSTALL, "sh"]).args(&missing).status().await;
    let status = status.context("cannot start the installation")?;
    let still = self::missing(packages);
    if !still.is_empty() {
        bail!(
            "could not install {} ({status}). Try\n\n    {by_hand}\n",
            still.join(" ")
        );
    }
    Ok(())
}

/// Names of those that are not installed.
pub(crate) fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages
        .iter()
        .filter(|package| !package.is_installed())
        .map(|package| package.name)
        .collect()
}

/// Runs its arguments as root; `None` when nobody lets us.
async fn as_root() -> Option<Command> {
    if Uid::effective().is_root() {
        return Some(Command::new("env"));
    }
    let sudo = environment::find_program("sudo")?;
    let mut probe = Command::new(&sudo);
    probe.args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status().await.is_ok_and(|status| status.success()) {
        return None;
    }
    let mut command = Command::new(sudo);
    command.arg("-n");
    Some(command)
}
