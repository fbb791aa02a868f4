//! Documents that say what the code says, compared with it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tokio_postgres::Client;

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

/// Where the tables are documented.
#[must_use]
pub fn schema_file() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SCHEMA.md")
}

/// `docs/SCHEMA.md` as it should be: tables, columns and indexes of a migrated database, with their comments.
///
/// # Errors
/// When the database cannot be asked.
pub async fn schema(client: &Client) -> Result<String> {
    let mut text = "# Tables\n\n\
        Made by `cargo xtask schema` from a migrated database; a test compares. The same texts stand in the database as\n\
        comments: `\\d+ tag` in psql shows them.\n"
        .to_owned();
    let tables = "SELECT c.oid, c.relname, coalesce(obj_description(c.oid, 'pg_class'), '') FROM pg_class c
                  WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname NOT LIKE '\\_\\_diesel%'
                  ORDER BY c.relname COLLATE \"C\"";
    let columns = "SELECT attname, format_type(atttypid, atttypmod), attnotnull,
                       coalesce(pg_get_expr(d.adbin, d.adrelid), ''), coalesce(col_description(attrelid, attnum), '')
                   FROM pg_attribute LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
                   WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let indexes =
        "SELECT regexp_replace(pg_get_indexdef(indexrelid), '^CREATE (UNIQUE )?INDEX (\\S+) ON \\S+ ', '\\2: \\1')
                   FROM pg_index WHERE indrelid = $1 ORDER BY pg_get_indexdef(indexrelid) COLLATE \"C\"";
    for table in client.query(tables, &[]).await? {
        let (oid, name, comment): (u32, String, String) = (table.get(0), table.get(1), table.get(2));
        ensure!(!comment.is_empty(), "table {name} has no comment");
        text += &format!("\n## `{name}`\n\n{comment}\n\n| column | type | default | meaning |\n|---|---|---|---|\n");
        for column in client.query(columns, &[&oid]).await? {
            let (kind, not_null): (String, bool) = (column.get(1), column.get(2));
            let (default, comment): (String, String) = (column.get(3), column.get(4));
            let column: String = column.get(0);
            ensure!(!comment.is_empty(), "column {name}.{column} has no comment");
            let null = if not_null { "" } else { ", null" };
            let default = if default.is_empty() {
                default
            } else {
                format!("`{default}`")
            };
            text += &format!("| `{column}` | {kind}{null} | {default} | {comment} |\n");
        }
        text += "\nIndexes:\n\n";
        for index in client.query(indexes, &[&oid]).await? {
            text += &format!("- `{}`\n", index.get::<_, String>(0));
        }
    }
    Ok(text)
}
