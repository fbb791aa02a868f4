//! The migrated database that test databases are copied from, and the way there.

use anyhow::{Result, anyhow};
use diesel_async::{AsyncConnection as _, AsyncMigrationHarness, AsyncPgConnection};
use diesel_migrations::MigrationHarness as _;
use flagstate_common::digest::Digest;
use flagstate_migrations::{MIGRATIONS, reader_grants};
use tokio_postgres::Client;

use super::server::{READER_ROLE, ServerUrl, connect};

/// Of the lock that one of many test processes takes while it makes the template.
const LOCK: i64 = 0x666c_6167;

/// Which schema changes to go through.
#[derive(Clone, Copy)]
enum Way {
    Up,
    UpDownUp,
}

/// Makes sure that the server has a migrated template, whoever comes first, and tells its name.
pub(super) async fn ensure(server: &ServerUrl) -> Result<String> {
    let name = format!("flagstate_template_{}", fingerprint()?);
    let client = connect(&server.owner("postgres")).await?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let exists = "SELECT FROM pg_database WHERE datname = $1 AND datistemplate";
    if client.query_opt(exists, &[&name]).await?.is_none() {
        server.create_reader_role().await?;
        create(&client, server, &name).await?;
    }
    Ok(name)
}

async fn create(client: &Client, server: &ServerUrl, name: &str) -> Result<()> {
    client
        .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        .await?;
    client.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    migrate(server.owner(name), Way::Up).await?;
    let database = connect(&server.owner(name)).await?;
    database.batch_execute(&reader_grants(READER_ROLE).join(";")).await?;
    drop(database);
    // A template cannot be copied while somebody is connected to it.
    client
        .batch_execute(&format!(
            "ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true"
        ))
        .await?;
    client
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            &[&name],
        )
        .await?;
    Ok(())
}

/// Makes a database of this name with all schema changes applied, and tells its URL.
///
/// # Errors
/// When the server refuses, or a change cannot be applied.
pub async fn migrated(server: &ServerUrl, name: &str) -> Result<String> {
    migrated_by(server, name, Way::Up).await
}

/// [`migrated`], and then all changes reverted and applied again.
///
/// # Errors
/// When the server refuses, or a change cannot be applied or reverted.
pub async fn migrated_up_down_up(server: &ServerUrl, name: &str) -> Result<String> {
    migrated_by(server, name, Way::UpDownUp).await
}

async fn migrated_by(server: &ServerUrl, name: &str, way: Way) -> Result<String> {
    let client = connect(&server.owner("postgres")).await?;
    client.batch_execute(&format!("CREATE DATABASE {name}")).await?;
    let url = server.owner(name);
    migrate(url.clone(), way).await?;
    Ok(url)
}

/// Runs on a thread of its own: the harness blocks, and must not block a test's only thread.
async fn migrate(url: String, way: Way) -> Result<()> {
    let (sender, outcome) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || drop(sender.send(migrate_blocking(&url, way))));
    outcome.await?
}

fn migrate_blocking(url: &str, way: Way) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut harness = AsyncMigrationHarness::new(AsyncPgConnection::establish(url).await?);
        harness
            .run_pending_migrations(MIGRATIONS)
            .map_err(|error| anyhow!(error))?;
        if let Way::UpDownUp = way {
            harness
                .revert_all_migrations(MIGRATIONS)
                .map_err(|error| anyhow!(error))?;
            harness
                .run_pending_migrations(MIGRATIONS)
                .map_err(|error| anyhow!(error))?;
        }
        Ok(())
    })
}

/// Changes with the schema changes, so that a server which outlives a test run serves no stale template.
fn fingerprint() -> Result<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");
    let mut changes: Vec<_> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path().join("up.sql"))
        .filter(|file| file.is_file())
        .collect();
    changes.sort();
    let texts = changes.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
    Ok(hex::encode(&Digest::of(&texts.concat()).to_bytes()[1..9]))
}
