//! The steps of `cargo xtask test`, in their order.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use flagstate_test_support::environment::SHARED_POSTGRES;
use flagstate_test_support::postgres::Server;

use super::schema;
use crate::cargo;

/// One step; cheap ones that find much come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Source is formatted.
    Format,
    /// No lint complains, in any target.
    Clippy,
    /// The documentation builds without a warning.
    Doc,
    /// Everything builds, the services' binaries among it, which system tests run.
    Build,
    /// All tests of the workspace.
    Tests,
    /// Schema changes can be reverted, and applied again to the same schema.
    Schema,
}

impl Step {
    /// The step's name on the command line and in the table.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Clippy => "clippy",
            Self::Doc => "doc",
            Self::Build => "build",
            Self::Tests => "tests",
            Self::Schema => "schema",
        }
    }

    /// # Errors
    /// When the step fails.
    pub(crate) async fn run(self, postgres: &Server) -> Result<()> {
        match self {
            Self::Format => cargo::run(cargo::command(&["fmt", "--all", "--check"])).await,
            Self::Clippy => {
                let clippy = [
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--locked",
                    "--",
                    "--deny",
                    "warnings",
                ];
                cargo::run(cargo::command(&clippy)).await
            }
            Self::Doc => {
                let mut doc = cargo::command(&["doc", "--workspace", "--no-deps", "--locked"]);
                doc.env("RUSTDOCFLAGS", "--deny warnings");
                cargo::run(doc).await
            }
            Self::Build => cargo::run(cargo::command(&["build", "--workspace", "--all-targets", "--locked"])).await,
            Self::Tests => {
                let mut test = cargo::command(&["test", "--workspace", "--no-fail-fast", "--locked"]);
                test.env(SHARED_POSTGRES, postgres.url().to_string());
                cargo::run(test).await
            }
            Self::Schema => schema::check(postgres).await.context("the schema changes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_what_only_takes() {
        for step in Step::value_variants() {
            assert_eq!(Step::from_str(step.title(), false), Ok(*step));
        }
    }
}
