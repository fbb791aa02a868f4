//! Which build this is: what `--version` prints and `flagstate_build_info` carries.

use std::sync::LazyLock;

/// Version of the release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit that it was built from; `unknown` unless the build set `FLAGSTATE_COMMIT`.
pub const COMMIT: &str = match option_env!("FLAGSTATE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// When it was built; `unknown` unless the build set `FLAGSTATE_BUILD_TIME`.
pub const BUILT: &str = match option_env!("FLAGSTATE_BUILD_TIME") {
    Some(time) => time,
    None => "unknown",
};

/// All three on one line, for `--version`.
#[must_use]
pub fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| format!("{VERSION} (commit {COMMIT}, built {BUILT})"));
    &TEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_version_commit_and_time() {
        let line = long_version();
        for part in [VERSION, COMMIT, BUILT] {
            assert!(!part.is_empty() && line.contains(part), "{line}");
        }
    }
}
