//! A database that a test writes as the indexer would: one committed revision a change.

use flagstate_common::digest::Digest;
use flagstate_common::revision::Revision;
use flagstate_common::terms::Term;
use flagstate_test_support::postgres::TestDatabase;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};

/// The index of one test.
pub(crate) struct Index {
    pub(crate) database: TestDatabase,
    pub(crate) client: Client,
}

/// Labels of an image.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Index {
    pub(crate) async fn create() -> Self {
        let database = TestDatabase::create().await.expect("a database");
        let client = database.client().await.expect("a connection");
        Self { database, client }
    }

    /// Points a tag at an image of its own, with these labels.
    pub(crate) async fn push(&mut self, repository: &str, tag: &str, labels: Labels<'_>) -> Revision {
        let change = self.client.transaction().await.expect("a transaction");
        let revision = next_revision(&change).await;
        let manifest = write_image(&change, &format!("{repository} {tag} {labels:?}"), labels).await;
        point(&change, repository, tag, manifest, revision.n).await;
        change.commit().await.expect("committed");
        revision
    }

    /// Points a tag at an image index of its own with one image.
    pub(crate) async fn push_index(&mut self, repository: &str, tag: &str) -> Revision {
        let change = self.client.transaction().await.expect("a transaction");
        let revision = next_revision(&change).await;
        let image = write_image(&change, "member", &[]).await;
        let image_index = write_manifest(&change, &format!("{repository} {tag} index"), 1, &[]).await;
        let leaf = "INSERT INTO index_leaf (image_index_id, position, manifest_id, os, architecture, via, terms) \
                    VALUES ($1::bigint, 0, $2, 'linux', 'amd64', ARRAY[$1::bigint], '{}') ON CONFLICT DO NOTHING";
        change.execute(leaf, &[&image_index, &image]).await.expect("a leaf");
        hold(&change, repository, image).await;
        point(&change, repository, tag, image_index, revision.n).await;
        change.commit().await.expect("committed");
        revision
    }

    /// Sets the present revision, as a standby that lags would show it.
    pub(crate) async fn set_revision(&self, revision: Revision) {
        self.client
            .execute("UPDATE state SET era = $1, n = $2", &[&revision.era, &revision.n])
            .await
            .expect("a revision");
    }
}

async fn next_revision(change: &Transaction<'_>) -> Revision {
    let row = change
        .query_one(
            "UPDATE state SET n = n + 1, at = clock_timestamp() RETURNING era, n, at",
            &[],
        )
        .await
        .expect("a revision");
    let revision = Revision {
        era: row.get(0),
        n: row.get(1),
    };
    let at: chrono::DateTime<chrono::Utc> = row.get(2);
    change
        .execute(
            "INSERT INTO revision (n, era, at) VALUES ($1, $2, $3)",
            &[&revision.n, &revision.era, &at],
        )
        .await
        .expect("a logged revision");
    revision
}

async fn write_image(change: &Transaction<'_>, content: &str, labels: Labels<'_>) -> i64 {
    write_manifest(change, content, 0, labels).await
}

async fn write_manifest(change: &Transaction<'_>, content: &str, kind: i16, labels: Labels<'_>) -> i64 {
    let digest = Digest::of(content.as_bytes());
    let terms: Vec<i64> = labels
        .iter()
        .flat_map(|(key, value)| [Term::LabelExists(key), Term::Label(key, value)])
        .chain([Term::Digest(&digest)])
        .map(|term| term.hash())
        .collect();
    let labels: serde_json::Map<_, _> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).into()))
        .collect();
    let media_type = match kind {
        1 => flagstate_common::media_type::OCI_INDEX,
        _ => flagstate_common::media_type::OCI_MANIFEST,
    };
    let row = change
        .query_one(
            "INSERT INTO manifest (digest, verified, kind, media_type, os, architecture, labels, terms) \
             VALUES ($1, true, $2, $3, 'linux', 'amd64', $4::text::jsonb, $5) \
             ON CONFLICT (digest) DO UPDATE SET verified = true RETURNING id",
            &[
                &digest.to_bytes(),
                &kind,
                &media_type,
                &serde_json::Value::from(labels).to_string(),
                &terms,
            ],
        )
        .await
        .expect("a manifest");
    row.get(0)
}

async fn point(change: &Transaction<'_>, repository: &str, tag: &str, manifest: i64, n: i64) {
    let repository = hold(change, repository, manifest).await;
    let ends = "UPDATE tag SET to_n = $3 WHERE repository_id = $1 AND name = $2 AND to_n IS NULL";
    change
        .execute(ends, &[&repository, &tag, &n])
        .await
        .expect("an ended tag");
    let begins = "INSERT INTO tag (repository_id, name, manifest_id, from_n) VALUES ($1, $2, $3, $4)";
    let parameters: [&(dyn ToSql + Sync); 4] = [&repository, &tag, &manifest, &n];
    change.execute(begins, &parameters).await.expect("a tag");
}

/// Notes that the repository holds the manifest; gives the repository's key.
async fn hold(change: &Transaction<'_>, repository: &str, manifest: i64) -> i64 {
    let row = change
        .query_one(
            "INSERT INTO repository (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET hidden = false RETURNING id",
            &[&repository],
        )
        .await
        .expect("a repository");
    let repository: i64 = row.get(0);
    let holds = "INSERT INTO repository_manifest (repository_id, manifest_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    change
        .execute(holds, &[&repository, &manifest])
        .await
        .expect("a held manifest");
    repository
}
