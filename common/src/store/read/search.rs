//! The search: two statements, one that finds and one that fetches what is shown of what was found.
//!
//! Finding deals in narrow rows only, one for each manifest in each repository; a manifest's texts are then fetched
//! once, however many repositories, tags and image indexes lead to it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::result::Error;
use diesel_async::AsyncPgConnection;

use super::conditions::{Columns, Conditions};
use super::statement::{Bind, Binds};
use crate::config::RepositoryFilter;
use crate::image::{Image, RepositoryImages, TaggedImage, TaggedImageIndex};
use crate::search_query::SearchQuery;
use crate::store::rows::{FoundRow, ManifestRow};

/// What matches at revision `n`, or at present.
pub(super) async fn search(
    connection: &mut AsyncPgConnection,
    query: &SearchQuery,
    n: Option<i64>,
    visible: &RepositoryFilter,
) -> Result<Vec<RepositoryImages>, Error> {
    let mut binds = Binds::default();
    let text = find_statement(query, n, &mut binds);
    let mut found: Vec<FoundRow> = binds.load(text, connection).await?;
    found.retain(|row| visible.allows(&row.name));
    let manifests = fetch_manifests(connection, &found).await?;
    assemble(found, &manifests)
}

/// Finds manifests in repositories: images, image indexes by their matching leaves, and image indexes without leaves,
/// which stand for themselves as images without labels and platform would.
///
/// Leaves that could not be verified, or that the repository does not hold, are not there for it.
fn find_statement(query: &SearchQuery, n: Option<i64>, binds: &mut Binds) -> String {
    let conditions = Conditions::new(query, binds);
    let n = n.map(|n| binds.push(Bind::Number(n)));
    let tagged = tagged(&conditions, |tag| match &n {
        None => format!("{tag}.to_n IS NULL"),
        Some(n) => format!("{tag}.from_n <= {n} AND ({tag}.to_n IS NULL OR {tag}.to_n > {n})"),
    });
    let on_image = conditions.on_image(&Columns {
        manifest: "m",
        image: "m",
        via: None,
    });
    let on_leaf = conditions.on_image(&Columns {
        manifest: "m",
        image: "l",
        via: Some("l.via"),
    });
    let leads_to_terms = match conditions.on_terms("l.terms") {
        none if none.is_empty() => String::new(),
        on_terms => format!(" AND m.id IN (SELECT l.image_index_id FROM index_leaf l WHERE true{on_terms})"),
    };
    let itself = "SELECT r.name, array_agg(t.name ORDER BY t.name) AS tags, t.manifest_id, \
         m.kind = 1 AS is_image_index, '{}'::bigint[] AS leaf_ids, \
         '{}'::text[] AS leaf_os, '{}'::text[] AS leaf_architectures";
    let leaf_of_index = shown_leaf("i");
    let leaf_of_tagged = shown_leaf("t");
    format!(
        "WITH image_index AS ( \
             SELECT r.name, t.repository_id, t.manifest_id, array_agg(t.name ORDER BY t.name) AS tags \
             {tagged} AND m.kind = 1{leads_to_terms} \
             GROUP BY r.name, t.repository_id, t.manifest_id \
         ), found_leaves AS ( \
             SELECT i.repository_id, i.manifest_id, \
                 array_agg(l.manifest_id ORDER BY l.position) AS ids, \
                 array_agg(l.os ORDER BY l.position) AS os, \
                 array_agg(l.architecture ORDER BY l.position) AS architectures \
             FROM image_index i CROSS JOIN {leaf_of_index}{on_leaf} \
             GROUP BY i.repository_id, i.manifest_id \
         ) \
         {itself} {tagged} AND m.kind <> 1{on_image} \
         GROUP BY r.name, t.repository_id, t.manifest_id, m.kind \
         UNION ALL \
         {itself} {tagged} AND m.kind = 1{on_image} AND NOT EXISTS (SELECT FROM {leaf_of_tagged}) \
         GROUP BY r.name, t.repository_id, t.manifest_id, m.kind \
         UNION ALL \
         SELECT i.name, i.tags, i.manifest_id, true, f.ids, f.os, f.architectures \
         FROM image_index i JOIN found_leaves f \
             ON f.repository_id = i.repository_id AND f.manifest_id = i.manifest_id"
    )
}

/// Leaves `l`, which are manifests `m`, of an image index in a repository.
fn shown_leaf(of: &str) -> String {
    format!(
        "index_leaf l JOIN manifest m ON m.id = l.manifest_id \
         JOIN repository_manifest h ON h.manifest_id = l.manifest_id \
         WHERE m.verified AND l.image_index_id = {of}.manifest_id AND h.repository_id = {of}.repository_id"
    )
}

/// Tags `t` of repositories `r` that point at manifests `m`: of each manifest all tags, if one of them is asked for.
fn tagged(conditions: &Conditions, pointing: impl Fn(&str) -> String) -> String {
    let on_repository = conditions.on_repository("r.name");
    let has_tag = match conditions.on_tag("w.name") {
        none if none.is_empty() => String::new(),
        on_tag => format!(
            " AND (t.repository_id, t.manifest_id) IN \
             (SELECT w.repository_id, w.manifest_id FROM tag w WHERE {}{on_tag})",
            pointing("w"),
        ),
    };
    format!(
        "FROM tag t JOIN repository r ON r.id = t.repository_id JOIN manifest m ON m.id = t.manifest_id \
         WHERE {} AND NOT r.hidden AND m.verified{on_repository}{has_tag}",
        pointing("t"),
    )
}

async fn fetch_manifests(
    connection: &mut AsyncPgConnection,
    found: &[FoundRow],
) -> Result<HashMap<i64, ManifestRow>, Error> {
    let ids: BTreeSet<i64> = found
        .iter()
        .flat_map(|row| std::iter::once(row.manifest_id).chain(row.leaf_ids.iter().copied()))
        .collect();
    let mut binds = Binds::default();
    let ids = binds.push(Bind::Numbers(ids.into_iter().collect()));
    let text = format!(
        "SELECT m.id, m.digest, m.media_type, m.os, m.architecture, m.annotations, m.labels \
         FROM unnest({ids}) AS wanted (id) JOIN manifest m ON m.id = wanted.id"
    );
    let rows: Vec<ManifestRow> = binds.load(text, connection).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Puts together what was found, in the contract's order.
fn assemble(found: Vec<FoundRow>, manifests: &HashMap<i64, ManifestRow>) -> Result<Vec<RepositoryImages>, Error> {
    let manifest = |id: i64| manifests.get(&id).ok_or_else(vanished);
    let mut repositories = BTreeMap::new();
    for row in found {
        let (images, image_indexes) = repositories.entry(row.name).or_insert_with(|| (Vec::new(), Vec::new()));
        let shown = manifest(row.manifest_id)?;
        if !row.is_image_index {
            let image = shown.image(shown.os.clone(), shown.architecture.clone());
            images.push(TaggedImage { image, tags: row.tags });
            continue;
        }
        let platforms = row.leaf_os.into_iter().zip(row.leaf_architectures);
        let leaves = row
            .leaf_ids
            .into_iter()
            .zip(platforms)
            .map(|(id, (os, architecture))| Ok(manifest(id)?.image(os, architecture)));
        image_indexes.push(TaggedImageIndex {
            digest: shown.digest.clone(),
            media_type: shown.media_type.clone(),
            annotations: shown.annotations.0.clone(),
            images: leaves.collect::<Result<_, Error>>()?,
            tags: row.tags,
        });
    }
    let sorted = repositories.into_iter().map(|(name, (mut images, mut image_indexes))| {
        images.sort_by(|one: &TaggedImage, other| {
            (one.tags.first(), &one.image.digest).cmp(&(other.tags.first(), &other.image.digest))
        });
        image_indexes.sort_by(|one: &TaggedImageIndex, other| {
            (one.tags.first(), &one.digest).cmp(&(other.tags.first(), &other.digest))
        });
        RepositoryImages {
            name,
            images,
            image_indexes,
        }
    });
    Ok(sorted.collect())
}

/// Both statements see one snapshot, so what was found is there to be fetched.
fn vanished() -> Error {
    let error: Box<dyn std::error::Error + Send + Sync> = "a manifest vanished within a snapshot".into();
    Error::DeserializationError(error)
}

impl ManifestRow {
    fn image(&self, os: String, architecture: String) -> Image {
        Image {
            digest: self.digest.clone(),
            media_type: self.media_type.clone(),
            os,
            architecture,
            annotations: self.annotations.0.clone(),
            labels: self.labels.0.clone(),
        }
    }
}
