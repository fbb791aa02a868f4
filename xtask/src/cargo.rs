//! Running Cargo from within Cargo.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use flagstate_test_support::environment;
use tokio::process::Command;

/// A Cargo command in the workspace; it is killed when it is dropped.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let cargo = environment::variable("CARGO").unwrap_or_else(|| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(workspace()).kill_on_drop(true);
    command
}

/// Runs a command whose output people see; it must succeed.
pub(crate) async fn run(mut command: Command) -> Result<()> {
    let status = command.status().await.context("cannot be started")?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where Cargo puts binaries of the dev profile.
pub(crate) fn binaries() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(workspace())
        .no_deps()
        .exec()?;
    Ok(metadata.target_directory.join("debug").into())
}
