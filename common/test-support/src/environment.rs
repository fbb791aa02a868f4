//! What tests and xtask take from the environment: programs and the addresses of shared servers.

use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

/// Names a PostgreSQL server that several test processes share: `cargo xtask test` sets it.
pub const SHARED_POSTGRES: &str = "FLAGSTATE_TEST_POSTGRES_URL";

/// Folders that an ordinary user's `PATH` may lack although daemons live there.
const DAEMON_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The value of an environment variable; `None` when it is unset, empty or not UTF-8.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "tests and xtask have no configuration file")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where a program is, by `PATH` and the folders of daemons.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    path.split(':')
        .chain(DAEMON_FOLDERS)
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| candidate.is_file())
}

/// Who runs a server that had better not run as root, the first of these users that is there: `None` when we are an
/// ordinary user ourselves.
#[must_use]
pub fn unprivileged_user(names: &[&str]) -> Option<User> {
    if !Uid::effective().is_root() {
        return None;
    }
    names.iter().find_map(|name| User::from_name(name).ok().flatten())
}
