//! Documents that say what the code says, compared with it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Compares the table between `<!-- name -->` and `<!-- end -->` of `docs/METRICS.md` with names and helps from the code.
///
/// # Errors
/// When they differ; the error holds the table as it should be.
pub fn metrics(name: &str, metrics: &[(&str, &str)]) -> Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let (_, rest) = text
        .split_once(&format!("<!-- {name} -->\n"))
        .with_context(|| format!("no section {name}"))?;
    let (found, _) = rest.split_once("<!-- end -->").context("a section without end")?;
    let mut sorted = metrics.to_vec();
    sorted.sort_unstable();
    let mut table = "| metric | meaning |\n|---|---|\n".to_owned();
    for (metric, help) in sorted {
        table += &format!("| `{metric}` | {help} |\n");
    }
    ensure!(found == table, "docs/METRICS.md, section {name}, should be:\n{table}");
    Ok(())
}
