//! A database that belongs to one test.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use super::server::{Server, ServerUrl, connect};
use super::template;
use crate::environment;

static TEMPLATE: OnceCell<Template> = OnceCell::const_new();
static COUNTER: AtomicU32 = AtomicU32::new(0);

struct Template {
    server: ServerUrl,
    name: String,
    /// Kept until this process ends.
    _own_server: Option<Server>,
}

impl Template {
    async fn prepare() -> Result<Self> {
        let (server, own_server) = match environment::variable(environment::SHARED_POSTGRES) {
            Some(url) => (ServerUrl::parse(&url)?, None),
            None => {
                let own = Server::start(None).await?;
                (own.url().clone(), Some(own))
            }
        };
        let name = template::ensure(&server).await?;
        Ok(Self {
            server,
            name,
            _own_server: own_server,
        })
    }
}

/// A database, dropped with this value whoever is still connected.
#[derive(Debug)]
pub struct TestDatabase {
    server: ServerUrl,
    name: String,
}

impl TestDatabase {
    /// A migrated database without content: copies the template of the shared server, or of one that this process starts.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or refuses.
    pub async fn create() -> Result<Self> {
        let template = TEMPLATE.get_or_try_init(Template::prepare).await?;
        Self::create_like(&template.server, &template.name).await
    }

    /// A database without a schema, on this server or the shared one; the role that may only read is there, and may
    /// read nothing yet.
    ///
    /// # Errors
    /// As [`TestDatabase::create`].
    pub async fn create_empty(server: Option<&ServerUrl>) -> Result<Self> {
        let server = match server {
            Some(server) => server,
            None => &TEMPLATE.get_or_try_init(Template::prepare).await?.server,
        };
        server.create_reader_role().await?;
        Self::create_like(server, "template1").await
    }

    async fn create_like(server: &ServerUrl, template: &str) -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("flagstate_{}_{number}", std::process::id());
        let client = connect(&server.owner("postgres")).await?;
        client
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await?;
        client
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await?;
        // Part of the reader's grants, but privileges on a database are not copied with it.
        client
            .batch_execute(&format!("REVOKE CREATE, TEMPORARY ON DATABASE {name} FROM PUBLIC"))
            .await?;
        Ok(Self {
            server: server.clone(),
            name,
        })
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// URL as the owner.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.owner(&self.name)
    }

    /// URL as the role that may only read.
    #[must_use]
    pub fn reader_url(&self) -> String {
        self.server.reader(&self.name)
    }

    /// URL of the server's maintenance database as its superuser, for what a test does to the server.
    #[must_use]
    pub fn maintenance_url(&self) -> String {
        self.server.owner("postgres")
    }

    /// A connection as the owner.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.url()).await
    }

    /// A connection as the role that may only read.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn reader_client(&self) -> Result<Client> {
        connect(&self.reader_url()).await
    }
}

impl Drop for TestDatabase {
    /// On a thread of its own, for a test's runtime may be at its end.
    fn drop(&mut self) {
        let (url, name) = (self.server.owner("postgres"), self.name.clone());
        let dropped = std::thread::spawn(move || drop_database(&url, &name)).join();
        match dropped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("database {} stays behind: {error:#}", self.name),
            Err(_) => eprintln!("database {} stays behind", self.name),
        }
    }
}

fn drop_database(url: &str, name: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = connect(url).await?;
        client
            .batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"))
            .await?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_test_has_a_migrated_database_of_its_own_that_goes_with_it() {
        let (one, other) = (
            TestDatabase::create().await.unwrap(),
            TestDatabase::create().await.unwrap(),
        );
        let client = one.client().await.unwrap();
        client
            .execute("INSERT INTO repository (name) VALUES ('a')", &[])
            .await
            .unwrap();
        let count = "SELECT count(*) FROM repository";
        let in_other: i64 = other
            .client()
            .await
            .unwrap()
            .query_one(count, &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(in_other, 0);

        let (maintenance, name) = (other.maintenance_url(), one.name().to_owned());
        drop(one);
        let left = connect(&maintenance).await.unwrap();
        let left = left
            .query("SELECT FROM pg_database WHERE datname = $1", &[&name])
            .await
            .unwrap();
        assert!(left.is_empty());
    }

    #[tokio::test]
    async fn databases_without_a_schema_can_be_made_at_the_same_time() {
        let made = futures::future::join_all((0..16).map(|_| TestDatabase::create_empty(None))).await;
        for database in made {
            database.unwrap().reader_client().await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_reader_reads_and_cannot_write_even_when_it_asks_to() {
        let database = TestDatabase::create().await.unwrap();
        let reader = database.reader_client().await.unwrap();
        reader.query_one("SELECT n FROM state", &[]).await.unwrap();
        for statement in [
            "INSERT INTO repository (name) VALUES ('a')",
            "SET default_transaction_read_only = off; INSERT INTO repository (name) VALUES ('a')",
            "SET default_transaction_read_only = off; CREATE TABLE mine ()",
        ] {
            assert!(reader.batch_execute(statement).await.is_err(), "{statement}");
        }
    }
}
