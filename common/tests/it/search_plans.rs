//! Selective searches are answered by indexes: none reads a large table from end to end.

use chrono::Utc;
use flagstate_common::config::{Limits, RepositoryFilter};
use flagstate_common::digest::Digest;
use flagstate_common::search_query::SearchQuery;
use flagstate_common::store::read::ReadStore;
use flagstate_common::terms::Term;
use flagstate_test_support::postgres::TestDatabase;
use tokio_postgres::Client;

use crate::pools;

/// 10,000 repositories with 10 tags each, half of them image indexes of three images; everything was retagged once.
///
/// The images 1 to 40 and those of the image indexes 1 to 40 are rare ones.
async fn fill(client: &Client) {
    let common = [Term::LabelExists("common"), Term::Label("common", "x")].map(|term| term.hash());
    let rare = [
        Term::LabelExists("rare"),
        Term::Label("rare", "v1"),
        Term::AnnotationExists("rare"),
        Term::Annotation("rare", "v1"),
        Term::ArtifactType("text/rare"),
        Term::Digest(&digest()),
    ]
    .map(|term| term.hash());
    let sql = format!(
        r#"
        INSERT INTO repository (name) SELECT 'group/repository-' || i FROM generate_series(1, 10000) i;
        INSERT INTO manifest (digest, verified, kind, media_type, os, architecture, labels, terms)
            SELECT '\x01'::bytea || sha256(i::text::bytea), true, CASE WHEN i <= 50000 THEN 1 ELSE 0 END,
                'application/vnd.oci.image.manifest.v1+json', 'linux', 'amd64',
                jsonb_build_object('common', 'x', 'id', i::text), ARRAY[i, {common}]
            FROM generate_series(1, 250000) i;
        UPDATE manifest SET labels = labels || '{{"rare": "v1"}}', annotations = '{{"rare": "v1"}}',
                artifact_type = 'text/rare', terms = terms || ARRAY[{rare}]
            WHERE id BETWEEN 50001 AND 50040 OR id BETWEEN 100001 AND 100120;
        INSERT INTO index_leaf (image_index_id, position, manifest_id, os, architecture, via, terms)
            SELECT i, p, m.id, m.os, m.architecture, ARRAY[i], m.terms
            FROM generate_series(1, 50000) i CROSS JOIN generate_series(0, 2) p
            JOIN manifest m ON m.id = 100001 + (i - 1) * 3 + p;
        INSERT INTO repository_manifest (repository_id, manifest_id)
            SELECT 1 + i % 10000, i FROM generate_series(1, 100000) i
            UNION ALL SELECT 1 + l.image_index_id % 10000, l.manifest_id FROM index_leaf l;
        INSERT INTO tag (repository_id, name, manifest_id, from_n, to_n)
            SELECT 1 + i % 10000, CASE WHEN i / 10000 = 9 THEN 'latest' ELSE 'v' || i END,
                CASE WHEN n = 1 THEN 100001 - i ELSE i END, n, CASE WHEN n = 1 THEN 2 END
            FROM generate_series(1, 100000) i CROSS JOIN generate_series(1, 2) n;
        INSERT INTO revision (n, era, at) SELECT g, era, now() FROM state, generate_series(1, 2) g;
        UPDATE state SET n = 2;
        "#,
        common = common.map(|hash| hash.to_string()).join(", "),
        rare = rare.map(|hash| hash.to_string()).join(", "),
    );
    client.batch_execute(&sql).await.expect("rows");
    client.batch_execute("VACUUM ANALYZE").await.expect("statistics");
}

/// The digest of image 50,020.
fn digest() -> Digest {
    Digest::of(b"50020")
}

/// Rows of large tables that were read by scans from end to end, in ended sessions.
async fn rows_read_by_scans(client: &Client) -> i64 {
    let sessions = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while !client.query(sessions, &[]).await.expect("sessions").is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let sum = "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables \
        WHERE relname IN ('tag', 'manifest', 'index_leaf', 'repository', 'repository_manifest')";
    client.query_one(sum, &[]).await.expect("statistics").get(0)
}

#[tokio::test]
async fn selective_searches_read_no_table_from_end_to_end() {
    let database = TestDatabase::create().await.expect("a database");
    let client = database.client().await.expect("a connection");
    fill(&client).await;
    let limits = Limits::default();
    let digest = format!("digest={}", digest());
    let now = format!("&as_of={}", Utc::now().to_rfc3339());
    for (query_string, images) in [
        ("label:rare=v1", 160),
        ("label:rare:exists=1&os=linux&architecture=amd64", 160),
        ("label:rare:matches=v?&label:common=x", 160),
        ("label:rare:exists=1&tag:matches=v*", 160),
        ("annotation:rare=v1", 160),
        ("annotation:rare:matches=*1", 160),
        ("artifact_type=text/rare", 160),
        (&digest, 1),
        ("tag=v50020", 1),
        ("tag:matches=v5002*&os=linux", 13),
        ("tag:matches=*v5002*", 13),
        ("tag=v50020&label:common:exists=1", 1),
        ("tag=latest&repository=group/repository-77", 1),
        ("repository=group/repository-77", 20),
        ("repository:matches=*repository-777*", 11 * 20),
        ("label:common=x&repository=group/repository-77", 20),
    ] {
        for as_of in ["", &now] {
            let query_string = format!("{query_string}{as_of}");
            let query = SearchQuery::parse_strict(&query_string, &limits, &[]).expect("a query");
            let before = rows_read_by_scans(&client).await;
            let store = ReadStore::new(pools::reader(&database.reader_url()), RepositoryFilter::default());
            let found = store.search(&query).await.expect("an answer").value;
            drop(store);
            let found: usize = found
                .iter()
                .map(|repository| {
                    let leaves = repository.image_indexes.iter().map(|found| found.images.len());
                    repository.images.len() + leaves.sum::<usize>()
                })
                .sum();
            assert_eq!(found, images, "{query_string}");
            let scanned = rows_read_by_scans(&client).await - before;
            assert_eq!(scanned, 0, "{query_string}");
        }
    }
}
