//! Schema changes up, down and up again lead to the schema of up alone.

use anyhow::{Result, ensure};
use flagstate_test_support::postgres::{Server, migrated, migrated_up_down_up};
use tokio::process::Command;

/// # Errors
/// When a change cannot be reverted or applied again, or the schemas differ.
pub(crate) async fn check(postgres: &Server) -> Result<()> {
    let once = dump(postgres, &migrated(postgres.url(), "schema_up").await?).await?;
    let again = dump(
        postgres,
        &migrated_up_down_up(postgres.url(), "schema_up_down_up").await?,
    )
    .await?;
    ensure!(once.contains("CREATE TABLE"), "nothing was dumped:\n{once}");
    if once != again {
        let (gone, new) = (lines_without(&once, &again), lines_without(&again, &once));
        anyhow::bail!("up, down, up is not up alone. Only in up:\n{gone}\nOnly in up, down, up:\n{new}");
    }
    Ok(())
}

/// The schema as SQL; newer versions of `pg_dump` print a random key, which is no part of it.
async fn dump(postgres: &Server, url: &str) -> Result<String> {
    let mut pg_dump = Command::new(postgres.binaries().join("pg_dump"));
    let output = pg_dump.args(["--schema-only", "--dbname", url]).output().await?;
    ensure!(
        output.status.success(),
        "pg_dump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let kept = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    Ok(text.lines().filter(kept).flat_map(|line| [line, "\n"]).collect())
}

fn lines_without(text: &str, other: &str) -> String {
    let others: Vec<_> = other.lines().collect();
    text.lines()
        .filter(|line| !others.contains(line))
        .flat_map(|line| [line, "\n"])
        .collect()
}
