DROP TABLE scan_queue, revision_change, revision, tag, repository_manifest, index_leaf, index_member, layer, manifest,
    document, repository, request, writer_lease, state;
DROP EXTENSION IF EXISTS pg_trgm;
