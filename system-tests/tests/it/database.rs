//! What the index holds, and whether it fits together, by SQL that shares nothing with the services.

use flagstate_test_support::images::{ImageBuilder, IndexBuilder};
use flagstate_test_support::postgres::TestDatabase;
use flagstate_test_support::registry_contents::RegistryContents;
use flagstate_test_support::{system::System, wait};
use tokio_postgres::Client;

use crate::system_without_scans;

/// What each tag points at now.
pub(crate) async fn contents(database: &TestDatabase) -> RegistryContents {
    let client = database.client().await.unwrap();
    let rows = client
        .query(
            "SELECT r.name, t.name, encode(substr(m.digest, 2), 'hex')
             FROM tag t JOIN repository r ON r.id = repository_id JOIN manifest m ON m.id = manifest_id
             WHERE to_n IS NULL",
            &[],
        )
        .await
        .unwrap();
    let mut contents = RegistryContents::default();
    for row in rows {
        contents.insert(row.get(0), row.get(1), &format!("sha256:{}", row.get::<_, String>(2)));
    }
    contents
}

/// Waits until the index shows what the registry shows now.
pub(crate) async fn equals_registry(system: &System) {
    let registry = system.registry.as_ref().unwrap().contents().await.unwrap();
    wait::until("index = registry", async || {
        let index = contents(&system.database).await;
        if index == registry { Ok(()) } else { Err(index) }
    })
    .await
    .unwrap();
}

/// Waits until no accepted work is left.
pub(crate) async fn queue_is_empty(database: &TestDatabase) {
    wait::until("the queue is empty", async || {
        match rows(database, "SELECT to_jsonb(q)::text FROM scan_queue q").await {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        }
    })
    .await
    .unwrap();
}

/// The texts that a query finds.
pub(crate) async fn rows(database: &TestDatabase, query: &str) -> Vec<String> {
    texts(&database.client().await.unwrap(), query).await
}

async fn texts(client: &Client, query: &str) -> Vec<String> {
    let found = client.query(query, &[]).await.unwrap();
    found.iter().map(|row| row.get(0)).collect()
}

/// Each finds rows that do not fit to others, as text. Foreign keys are PostgreSQL's to keep; these are relations that
/// it does not know.
const CONTRADICTIONS: [(&str, &str); 9] = [
    (
        "tags that began or ended at a revision that is not there",
        "SELECT to_jsonb(t)::text FROM tag t
         WHERE NOT EXISTS (SELECT FROM revision WHERE n = from_n)
            OR to_n IS NOT NULL AND NOT EXISTS (SELECT FROM revision WHERE n = to_n)",
    ),
    (
        "tags whose beginning or end the change feed does not tell",
        "SELECT to_jsonb(t)::text FROM tag t
         WHERE NOT EXISTS (SELECT FROM revision_change c WHERE c.n = from_n AND c.repository_id = t.repository_id
                               AND c.tag = t.name AND c.new_manifest_id = t.manifest_id)
            OR to_n IS NOT NULL AND NOT EXISTS (
                   SELECT FROM revision_change c WHERE c.n = to_n AND c.repository_id = t.repository_id
                       AND c.tag = t.name AND c.old_manifest_id = t.manifest_id)",
    ),
    (
        "tags that point at two manifests at one revision",
        "SELECT to_jsonb(a)::text FROM tag a JOIN tag b USING (repository_id, name)
         WHERE a.from_n < b.from_n AND coalesce(a.to_n, b.from_n + 1) > b.from_n",
    ),
    (
        "revisions that are missing or beyond the present one",
        "SELECT coalesce(r.n, expected)::text
         FROM revision r FULL JOIN (SELECT generate_series(1, n) AS expected FROM state) s ON s.expected = r.n
         WHERE r.n IS NULL OR expected IS NULL",
    ),
    (
        "changes of manifests that are not there",
        "SELECT to_jsonb(c)::text FROM revision_change c
         WHERE EXISTS (SELECT FROM unnest(ARRAY[old_manifest_id, new_manifest_id]) AS named
                       WHERE named IS NOT NULL AND named NOT IN (SELECT id FROM manifest))",
    ),
    (
        "tagged manifests that their repository does not hold",
        "SELECT to_jsonb(t)::text FROM tag t
         WHERE NOT EXISTS (SELECT FROM repository_manifest h
                           WHERE h.repository_id = t.repository_id AND h.manifest_id = t.manifest_id)",
    ),
    (
        "verified manifests without their own or their config's bytes",
        "SELECT encode(digest, 'hex') FROM manifest m
         WHERE verified AND (NOT EXISTS (SELECT FROM document d WHERE d.digest = m.digest)
                             OR config_digest IS NOT NULL AND problems = '[]'
                                AND NOT EXISTS (SELECT FROM document d WHERE d.digest = m.config_digest))",
    ),
    (
        "members that are neither there nor a problem",
        "SELECT encode(i.digest, 'hex') FROM index_member i JOIN manifest above ON above.id = image_index_id
         WHERE above.problems = '[]' AND NOT EXISTS (SELECT FROM manifest m WHERE m.digest = i.digest)",
    ),
    (
        "leaves that do not follow from the members",
        "WITH RECURSIVE walk AS (
             SELECT t.id AS top, i.digest, ARRAY[i.position] AS path, ARRAY[t.id] AS via, i.os, i.architecture
             FROM manifest t JOIN index_member i ON i.image_index_id = t.id
             WHERE t.kind = 1 AND NOT i.attestation
             UNION ALL
             SELECT w.top, i.digest, w.path || i.position, w.via || m.id, i.os, i.architecture
             FROM walk w JOIN manifest m USING (digest) JOIN index_member i ON i.image_index_id = m.id
             WHERE m.kind = 1 AND NOT i.attestation AND m.id <> ALL(w.via)
         ), expected AS (
             SELECT w.top, row_number() OVER (PARTITION BY w.top ORDER BY w.path) - 1, m.id,
                    coalesce(nullif(m.os, ''), w.os), coalesce(nullif(m.architecture, ''), w.architecture), w.via,
                    ARRAY(SELECT DISTINCT term FROM manifest named, unnest(named.terms) AS term
                          WHERE named.id = m.id OR named.id = ANY(w.via) ORDER BY term)
             FROM walk w JOIN manifest m USING (digest)
             WHERE m.kind <> 1 AND m.verified
         ), stored AS (
             SELECT image_index_id, position, manifest_id, os, architecture, via,
                    ARRAY(SELECT DISTINCT term FROM unnest(terms) AS term ORDER BY term)
             FROM index_leaf
         )
         SELECT 'missing ' || to_jsonb(e)::text FROM (TABLE expected EXCEPT TABLE stored) e
         UNION ALL
         SELECT 'too much ' || to_jsonb(s)::text FROM (TABLE stored EXCEPT TABLE expected) s",
    ),
];

/// Panics when rows do not fit together.
pub(crate) async fn fits_together(database: &TestDatabase) {
    let client = database.client().await.unwrap();
    for (what, query) in CONTRADICTIONS {
        assert_eq!(texts(&client, query).await, [""; 0], "{what}");
    }
}

#[tokio::test]
async fn each_contradiction_is_found() {
    let system = system_without_scans().await;
    let pusher = system.pusher().unwrap();
    let (old, image) = (ImageBuilder::new("old").build(), ImageBuilder::new("new").build());
    let new = IndexBuilder::new().member(image).attested().build();
    for manifest in [old, new] {
        pusher.push("apps/a", &manifest, &["latest"]).await.unwrap();
        equals_registry(&system).await;
    }
    fits_together(&system.database).await;
    let client = system.database.client().await.unwrap();
    client
        .batch_execute("SET session_replication_role = replica")
        .await
        .unwrap();
    let damages = [
        "DELETE FROM revision",
        "DELETE FROM revision_change",
        "UPDATE tag SET to_n = to_n + 1 WHERE to_n IS NOT NULL",
        "UPDATE state SET n = n + 1",
        "UPDATE revision_change SET new_manifest_id = 0",
        "DELETE FROM repository_manifest",
        "DELETE FROM document",
        "DELETE FROM manifest WHERE kind = 0",
        "UPDATE index_leaf SET os = 'other'",
    ];
    for (damage, (what, query)) in damages.into_iter().zip(CONTRADICTIONS) {
        client.batch_execute(&format!("BEGIN; {damage}")).await.unwrap();
        assert!(!texts(&client, query).await.is_empty(), "{damage}: {what}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}
