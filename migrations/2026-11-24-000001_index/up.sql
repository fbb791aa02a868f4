-- The index: what a registry holds, as of every revision that is kept.

CREATE EXTENSION IF NOT EXISTS pg_trgm;

CREATE TABLE state (
    id            boolean     NOT NULL DEFAULT true,
    era           bigint      NOT NULL,
    n             bigint      NOT NULL DEFAULT 0,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    epoch         bigint      NOT NULL DEFAULT 0,
    history_n     bigint      NOT NULL DEFAULT 0,
    history_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    incarnation   text,
    registry_url  text,
    CONSTRAINT state_pkey PRIMARY KEY (id),
    CONSTRAINT state_single_row CHECK (id),
    CONSTRAINT state_era_positive CHECK (era > 0),
    CONSTRAINT state_n_not_negative CHECK (n >= 0)
);
COMMENT ON TABLE state IS 'The present revision, and who may commit the next one; one row. Locking this row orders commits.';
COMMENT ON COLUMN state.id IS 'Always true: there is one row.';
COMMENT ON COLUMN state.era IS 'The unbroken line of commits that n belongs to: seconds since 1970 when it began, or more; only rises.';
COMMENT ON COLUMN state.n IS 'Number of the present revision within the era; rises by one with each committed change of visible data.';
COMMENT ON COLUMN state.at IS 'When revision n was committed; never decreases, whatever the clock does.';
COMMENT ON COLUMN state.epoch IS 'Epoch of the writer that may commit; every writing transaction compares it with its own.';
COMMENT ON COLUMN state.history_n IS 'Oldest revision that as_of may name.';
COMMENT ON COLUMN state.history_at IS 'When revision history_n was committed.';
COMMENT ON COLUMN state.incarnation IS 'Which physical database this is (system identifier, timeline, database, file); a different one begins a new era.';
COMMENT ON COLUMN state.registry_url IS 'The registry that is indexed; another one is refused unless adopted.';
INSERT INTO state (era) VALUES (extract(epoch FROM clock_timestamp())::bigint);

CREATE TABLE writer_lease (
    id                     boolean     NOT NULL DEFAULT true,
    holder                 text,
    epoch                  bigint      NOT NULL DEFAULT 0,
    expires_at             timestamptz NOT NULL DEFAULT '-infinity',
    scan_started_at        timestamptz,
    scan_completed_at      timestamptz,
    scan_repositories_done bigint      NOT NULL DEFAULT 0,
    scan_repositories      bigint      NOT NULL DEFAULT 0,
    CONSTRAINT writer_lease_pkey PRIMARY KEY (id),
    CONSTRAINT writer_lease_single_row CHECK (id)
);
COMMENT ON TABLE writer_lease IS 'Which indexer writes, until when, and how far its scan is; one row, renewed every 3 s.';
COMMENT ON COLUMN writer_lease.id IS 'Always true: there is one row.';
COMMENT ON COLUMN writer_lease.holder IS 'Name of the indexer process that holds the lease; null when it was released.';
COMMENT ON COLUMN writer_lease.epoch IS 'Raised each time the lease changes hands; equal to state.epoch while the lease is held.';
COMMENT ON COLUMN writer_lease.expires_at IS 'By the database''s clock; a lease that is past it may be taken.';
COMMENT ON COLUMN writer_lease.scan_started_at IS 'When the running or last full scan began.';
COMMENT ON COLUMN writer_lease.scan_completed_at IS 'When the last full scan that saw the whole catalog ended.';
COMMENT ON COLUMN writer_lease.scan_repositories_done IS 'Repositories that the running full scan has finished.';
COMMENT ON COLUMN writer_lease.scan_repositories IS 'Repositories that the running full scan knows of so far.';
INSERT INTO writer_lease DEFAULT VALUES;

CREATE TABLE request (
    id           bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    kind         text        COLLATE "C" NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at   timestamptz,
    finished_at  timestamptz,
    outcome      text,
    CONSTRAINT request_pkey PRIMARY KEY (id),
    CONSTRAINT request_kind_known CHECK (kind IN ('scan', 'gc'))
);
COMMENT ON TABLE request IS 'What people asked for by command while another process was the writer, and the scan that a new era needs.';
COMMENT ON COLUMN request.id IS 'Order of the requests.';
COMMENT ON COLUMN request.kind IS 'scan for a full scan, gc for a collection.';
COMMENT ON COLUMN request.requested_at IS 'When it was asked for.';
COMMENT ON COLUMN request.started_at IS 'When the writer took it up; null until then.';
COMMENT ON COLUMN request.finished_at IS 'When the writer was done with it; null until then.';
COMMENT ON COLUMN request.outcome IS 'One sentence on how it ended.';

CREATE TABLE repository (
    id         bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    name       text        COLLATE "C" NOT NULL,
    hidden     boolean     NOT NULL DEFAULT false,
    first_seen timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT repository_pkey PRIMARY KEY (id),
    CONSTRAINT repository_name_key UNIQUE (name)
);
CREATE INDEX repository_name_trgm_idx ON repository USING gin (name gin_trgm_ops);
COMMENT ON TABLE repository IS 'Repositories that were ever seen; which of them exist now follows from their tags.';
COMMENT ON COLUMN repository.id IS 'Key for joins.';
COMMENT ON COLUMN repository.name IS 'Name within the registry, in byte order.';
COMMENT ON COLUMN repository.hidden IS 'Excluded by configuration: shown nowhere, at no revision.';
COMMENT ON COLUMN repository.first_seen IS 'When Flagstate first saw it.';

CREATE TABLE document (
    digest bytea  NOT NULL,
    size   bigint NOT NULL,
    raw    bytea  NOT NULL,
    CONSTRAINT document_pkey PRIMARY KEY (digest),
    CONSTRAINT document_size_not_negative CHECK (size >= 0)
);
ALTER TABLE document ALTER COLUMN raw SET STORAGE EXTERNAL;
COMMENT ON TABLE document IS 'Raw bytes of manifests and configs, each verified against its digest before it came here.';
COMMENT ON COLUMN document.digest IS 'One byte for the algorithm (1 sha256, 2 sha512), then the hash.';
COMMENT ON COLUMN document.size IS 'Bytes before compression.';
COMMENT ON COLUMN document.raw IS 'The bytes, compressed (zlib format, RFC 1950).';

CREATE TABLE manifest (
    id             bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    digest         bytea       NOT NULL,
    verified       boolean     NOT NULL,
    kind           smallint    NOT NULL,
    media_type     text        COLLATE "C" NOT NULL,
    artifact_type  text        COLLATE "C" NOT NULL DEFAULT '',
    size           bigint      NOT NULL DEFAULT 0,
    config_digest  bytea,
    subject_digest bytea,
    created        timestamptz,
    os             text        COLLATE "C" NOT NULL DEFAULT '',
    architecture   text        COLLATE "C" NOT NULL DEFAULT '',
    variant        text        COLLATE "C" NOT NULL DEFAULT '',
    os_version     text        COLLATE "C" NOT NULL DEFAULT '',
    os_features    text[]      NOT NULL DEFAULT '{}',
    annotations    jsonb       NOT NULL DEFAULT '{}',
    labels         jsonb       NOT NULL DEFAULT '{}',
    history        jsonb       NOT NULL DEFAULT '[]',
    title          text,
    description    text,
    layers_size    bigint      NOT NULL DEFAULT 0,
    terms          bigint[]    NOT NULL DEFAULT '{}',
    problems       jsonb       NOT NULL DEFAULT '[]',
    healable       boolean     NOT NULL DEFAULT false,
    sanitised      boolean     NOT NULL DEFAULT false,
    first_seen     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT manifest_pkey PRIMARY KEY (id),
    CONSTRAINT manifest_digest_key UNIQUE (digest),
    CONSTRAINT manifest_kind_known CHECK (kind BETWEEN 0 AND 2)
);
CREATE INDEX manifest_terms_idx ON manifest USING gin (terms) WITH (fastupdate = off);
CREATE INDEX manifest_config_digest_idx ON manifest (config_digest) WHERE config_digest IS NOT NULL;
CREATE INDEX manifest_subject_digest_idx ON manifest (subject_digest) WHERE subject_digest IS NOT NULL;
CREATE INDEX manifest_healable_idx ON manifest (id) WHERE healable;
COMMENT ON TABLE manifest IS 'Manifests by digest, with what is read from them and from their configs.';
COMMENT ON COLUMN manifest.id IS 'Key for joins.';
COMMENT ON COLUMN manifest.digest IS 'One byte for the algorithm (1 sha256, 2 sha512), then the hash.';
COMMENT ON COLUMN manifest.verified IS 'Whether the body was read, matched the digest and has one clear reading; if not, the row only carries problems and is not shown.';
COMMENT ON COLUMN manifest.kind IS '0 image manifest, 1 image index, 2 anything else that is stored as a manifest.';
COMMENT ON COLUMN manifest.media_type IS 'From the document, else from the Content-Type it came with.';
COMMENT ON COLUMN manifest.artifact_type IS 'The manifest''s artifactType, else its config''s media type; empty when neither is there.';
COMMENT ON COLUMN manifest.size IS 'Bytes of the manifest itself.';
COMMENT ON COLUMN manifest.config_digest IS 'Digest of the config, if the manifest names one.';
COMMENT ON COLUMN manifest.subject_digest IS 'Digest of the manifest that this one refers to, if it does.';
COMMENT ON COLUMN manifest.created IS 'When the image was built, by its config.';
COMMENT ON COLUMN manifest.os IS 'Operating system by the config; empty when it does not tell.';
COMMENT ON COLUMN manifest.architecture IS 'Architecture by the config; empty when it does not tell.';
COMMENT ON COLUMN manifest.variant IS 'Variant of the architecture by the config; empty when it does not tell.';
COMMENT ON COLUMN manifest.os_version IS 'Version of the operating system by the config; empty when it does not tell.';
COMMENT ON COLUMN manifest.os_features IS 'Needed features of the operating system by the config.';
COMMENT ON COLUMN manifest.annotations IS 'Annotations of the manifest, an object of texts.';
COMMENT ON COLUMN manifest.labels IS 'Labels of the config, an object of texts.';
COMMENT ON COLUMN manifest.history IS 'Build history of the config, as it stands there.';
COMMENT ON COLUMN manifest.title IS 'Human name of the image, by the first of the known labels and annotations.';
COMMENT ON COLUMN manifest.description IS 'Description of the image, by the first of the known labels and annotations.';
COMMENT ON COLUMN manifest.layers_size IS 'Bytes of the distinct layers and the config, as the manifest declares them.';
COMMENT ON COLUMN manifest.terms IS 'Hashes of what filters ask for: kind and key, kind and key and value. Every hit is checked on the value.';
COMMENT ON COLUMN manifest.problems IS 'What could not be read, an array of {code, detail}.';
COMMENT ON COLUMN manifest.healable IS 'Whether a later scan may solve a problem by reading again.';
COMMENT ON COLUMN manifest.sanitised IS 'Whether some text held U+0000, lone surrogates or invalid UTF-8, now U+FFFD; the raw bytes keep them.';
COMMENT ON COLUMN manifest.first_seen IS 'When Flagstate first saw this digest.';

CREATE TABLE layer (
    manifest_id bigint  NOT NULL,
    position    integer NOT NULL,
    digest      bytea   NOT NULL,
    size        bigint  NOT NULL,
    media_type  text    COLLATE "C" NOT NULL,
    diff_id     bytea,
    chain_id    bytea,
    CONSTRAINT layer_pkey PRIMARY KEY (manifest_id, position),
    CONSTRAINT layer_manifest_fkey FOREIGN KEY (manifest_id) REFERENCES manifest (id) ON DELETE CASCADE
);
CREATE INDEX layer_digest_idx ON layer (digest);
CREATE INDEX layer_chain_id_idx ON layer (chain_id) WHERE chain_id IS NOT NULL;
COMMENT ON TABLE layer IS 'Layers of image manifests, lowest first.';
COMMENT ON COLUMN layer.manifest_id IS 'The image manifest.';
COMMENT ON COLUMN layer.position IS 'From 0, the lowest layer.';
COMMENT ON COLUMN layer.digest IS 'Digest of the blob: one byte for the algorithm, then the hash.';
COMMENT ON COLUMN layer.size IS 'Bytes of the blob, as the manifest declares them.';
COMMENT ON COLUMN layer.media_type IS 'Media type of the blob.';
COMMENT ON COLUMN layer.diff_id IS 'Digest of the uncompressed layer, by the config.';
COMMENT ON COLUMN layer.chain_id IS 'ChainID of the layers up to this one (OCI image specification, "Layer ChainID").';

CREATE TABLE index_member (
    image_index_id bigint   NOT NULL,
    position       integer  NOT NULL,
    digest         bytea    NOT NULL,
    media_type     text     COLLATE "C" NOT NULL,
    artifact_type  text     COLLATE "C" NOT NULL DEFAULT '',
    size           bigint   NOT NULL,
    os             text     COLLATE "C" NOT NULL DEFAULT '',
    architecture   text     COLLATE "C" NOT NULL DEFAULT '',
    variant        text     COLLATE "C" NOT NULL DEFAULT '',
    os_version     text     COLLATE "C" NOT NULL DEFAULT '',
    os_features    text[]   NOT NULL DEFAULT '{}',
    annotations    jsonb    NOT NULL DEFAULT '{}',
    attestation    boolean  NOT NULL,
    CONSTRAINT index_member_pkey PRIMARY KEY (image_index_id, position),
    CONSTRAINT index_member_image_index_fkey FOREIGN KEY (image_index_id) REFERENCES manifest (id) ON DELETE CASCADE
);
CREATE INDEX index_member_digest_idx ON index_member (digest);
COMMENT ON TABLE index_member IS 'Members of image indexes, in the order of the document, whether or not they could be read.';
COMMENT ON COLUMN index_member.image_index_id IS 'The image index.';
COMMENT ON COLUMN index_member.position IS 'From 0, the order of the document.';
COMMENT ON COLUMN index_member.digest IS 'Digest of the member: one byte for the algorithm, then the hash.';
COMMENT ON COLUMN index_member.media_type IS 'Media type by the descriptor.';
COMMENT ON COLUMN index_member.artifact_type IS 'Artifact type by the descriptor; empty when it does not tell.';
COMMENT ON COLUMN index_member.size IS 'Bytes of the member, by the descriptor.';
COMMENT ON COLUMN index_member.os IS 'Operating system by the descriptor; empty when it does not tell.';
COMMENT ON COLUMN index_member.architecture IS 'Architecture by the descriptor; empty when it does not tell.';
COMMENT ON COLUMN index_member.variant IS 'Variant of the architecture by the descriptor.';
COMMENT ON COLUMN index_member.os_version IS 'Version of the operating system by the descriptor.';
COMMENT ON COLUMN index_member.os_features IS 'Needed features of the operating system by the descriptor.';
COMMENT ON COLUMN index_member.annotations IS 'Annotations of the descriptor.';
COMMENT ON COLUMN index_member.attestation IS 'Whether it is a statement about another member, and no image.';

CREATE TABLE index_leaf (
    image_index_id bigint   NOT NULL,
    position       integer  NOT NULL,
    manifest_id    bigint   NOT NULL,
    os             text     COLLATE "C" NOT NULL,
    architecture   text     COLLATE "C" NOT NULL,
    via            bigint[] NOT NULL,
    terms          bigint[] NOT NULL,
    CONSTRAINT index_leaf_pkey PRIMARY KEY (image_index_id, position),
    CONSTRAINT index_leaf_image_index_fkey FOREIGN KEY (image_index_id) REFERENCES manifest (id) ON DELETE CASCADE,
    CONSTRAINT index_leaf_manifest_fkey FOREIGN KEY (manifest_id) REFERENCES manifest (id) ON DELETE CASCADE
);
CREATE INDEX index_leaf_manifest_idx ON index_leaf (manifest_id);
CREATE INDEX index_leaf_terms_idx ON index_leaf USING gin (terms) WITH (fastupdate = off);
COMMENT ON TABLE index_leaf IS 'The images that an image index leads to, through nested ones too; follows from index_member and manifest.';
COMMENT ON COLUMN index_leaf.image_index_id IS 'The image index at the top.';
COMMENT ON COLUMN index_leaf.position IS 'From 0, depth first in the order of the documents.';
COMMENT ON COLUMN index_leaf.manifest_id IS 'The image.';
COMMENT ON COLUMN index_leaf.os IS 'Operating system by the config, else by the descriptor.';
COMMENT ON COLUMN index_leaf.architecture IS 'Architecture by the config, else by the descriptor.';
COMMENT ON COLUMN index_leaf.via IS 'The image indexes on the way, the top one first.';
COMMENT ON COLUMN index_leaf.terms IS 'The image''s terms, and the digest and annotation terms of the image indexes on the way.';

CREATE TABLE repository_manifest (
    repository_id bigint      NOT NULL,
    manifest_id   bigint      NOT NULL,
    first_seen    timestamptz NOT NULL DEFAULT clock_timestamp(),
    pushed_at     timestamptz,
    CONSTRAINT repository_manifest_pkey PRIMARY KEY (repository_id, manifest_id),
    CONSTRAINT repository_manifest_repository_fkey FOREIGN KEY (repository_id) REFERENCES repository (id),
    CONSTRAINT repository_manifest_manifest_fkey FOREIGN KEY (manifest_id) REFERENCES manifest (id)
);
CREATE INDEX repository_manifest_manifest_idx ON repository_manifest (manifest_id);
COMMENT ON TABLE repository_manifest IS 'Which repository holds, or held within the kept history, which manifest: tagged, member or referrer.';
COMMENT ON COLUMN repository_manifest.repository_id IS 'The repository.';
COMMENT ON COLUMN repository_manifest.manifest_id IS 'The manifest.';
COMMENT ON COLUMN repository_manifest.first_seen IS 'When Flagstate first saw it there.';
COMMENT ON COLUMN repository_manifest.pushed_at IS 'When the registry last said that it was pushed there.';

CREATE TABLE tag (
    repository_id bigint      NOT NULL,
    name          text        COLLATE "C" NOT NULL,
    manifest_id   bigint      NOT NULL,
    from_n        bigint      NOT NULL,
    to_n          bigint,
    first_seen    timestamptz NOT NULL DEFAULT clock_timestamp(),
    pushed_at     timestamptz,
    CONSTRAINT tag_pkey PRIMARY KEY (repository_id, name, from_n),
    CONSTRAINT tag_repository_fkey FOREIGN KEY (repository_id) REFERENCES repository (id),
    CONSTRAINT tag_manifest_fkey FOREIGN KEY (manifest_id) REFERENCES manifest (id),
    CONSTRAINT tag_ends_after_it_begins CHECK (to_n > from_n)
);
CREATE UNIQUE INDEX tag_present_key ON tag (repository_id, name) WHERE to_n IS NULL;
CREATE INDEX tag_manifest_idx ON tag (manifest_id, repository_id);
CREATE INDEX tag_present_name_idx ON tag (name, repository_id) WHERE to_n IS NULL;
CREATE INDEX tag_name_idx ON tag (name, from_n);
CREATE INDEX tag_name_trgm_idx ON tag USING gin (name gin_trgm_ops);
CREATE INDEX tag_ended_idx ON tag (to_n) WHERE to_n IS NOT NULL;
COMMENT ON TABLE tag IS 'What each tag pointed at, and from which revision to which: the present, the past and as_of in one table.';
COMMENT ON COLUMN tag.repository_id IS 'The repository.';
COMMENT ON COLUMN tag.name IS 'The tag, in byte order.';
COMMENT ON COLUMN tag.manifest_id IS 'What it pointed at.';
COMMENT ON COLUMN tag.from_n IS 'The revision that made it so.';
COMMENT ON COLUMN tag.to_n IS 'The revision that ended it, at which it no longer holds; null while it holds.';
COMMENT ON COLUMN tag.first_seen IS 'When Flagstate first saw the tag point there.';
COMMENT ON COLUMN tag.pushed_at IS 'When the registry said that the tag was pushed; null when only a scan saw it.';

CREATE TABLE revision (
    n   bigint      NOT NULL,
    era bigint      NOT NULL,
    at  timestamptz NOT NULL,
    CONSTRAINT revision_pkey PRIMARY KEY (n)
);
CREATE INDEX revision_at_idx ON revision (at, n);
COMMENT ON TABLE revision IS 'When each revision was committed.';
COMMENT ON COLUMN revision.n IS 'Number of the revision.';
COMMENT ON COLUMN revision.era IS 'Era in which it was committed.';
COMMENT ON COLUMN revision.at IS 'When it was committed; never decreases.';

CREATE TABLE revision_change (
    n               bigint  NOT NULL,
    ordinal         integer NOT NULL,
    repository_id   bigint  NOT NULL,
    tag             text    COLLATE "C",
    old_manifest_id bigint,
    new_manifest_id bigint,
    cause           text    COLLATE "C" NOT NULL,
    CONSTRAINT revision_change_pkey PRIMARY KEY (n, ordinal),
    CONSTRAINT revision_change_revision_fkey FOREIGN KEY (n) REFERENCES revision (n) ON DELETE CASCADE,
    CONSTRAINT revision_change_repository_fkey FOREIGN KEY (repository_id) REFERENCES repository (id),
    CONSTRAINT revision_change_cause_known CHECK (cause IN ('notification', 'scan', 'exclusion'))
);
CREATE INDEX revision_change_repository_idx ON revision_change (repository_id, tag, n);
COMMENT ON TABLE revision_change IS 'What each revision changed, in order: the change feed.';
COMMENT ON COLUMN revision_change.n IS 'The revision.';
COMMENT ON COLUMN revision_change.ordinal IS 'From 0, the order within the revision.';
COMMENT ON COLUMN revision_change.repository_id IS 'The repository that changed.';
COMMENT ON COLUMN revision_change.tag IS 'The tag that changed; null when something else about the repository or the manifest did.';
COMMENT ON COLUMN revision_change.old_manifest_id IS 'What the tag pointed at before; null when it was new.';
COMMENT ON COLUMN revision_change.new_manifest_id IS 'What the tag points at since; null when it was removed.';
COMMENT ON COLUMN revision_change.cause IS 'Why we looked: notification, scan or exclusion.';

CREATE TABLE scan_queue (
    repository  text        COLLATE "C" NOT NULL,
    generation  bigint      NOT NULL DEFAULT 1,
    whole       boolean     NOT NULL,
    hints       jsonb       NOT NULL DEFAULT '{}',
    not_before  timestamptz NOT NULL DEFAULT clock_timestamp(),
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    whole_at    timestamptz,
    attempts    integer     NOT NULL DEFAULT 0,
    last_error  text,
    CONSTRAINT scan_queue_pkey PRIMARY KEY (repository),
    CONSTRAINT scan_queue_attempts_not_negative CHECK (attempts >= 0)
);
CREATE INDEX scan_queue_not_before_idx ON scan_queue (not_before);
COMMENT ON TABLE scan_queue IS 'Accepted work, one row a repository: what notifications told, and scans that failed.';
COMMENT ON COLUMN scan_queue.repository IS 'Name of the repository, which need not be known yet.';
COMMENT ON COLUMN scan_queue.generation IS 'Raised by each arrival: work that was read at an older generation leaves the row in place.';
COMMENT ON COLUMN scan_queue.whole IS 'Whether the whole repository is to be scanned, and not only what the hints name.';
COMMENT ON COLUMN scan_queue.hints IS 'What notifications named, one entry for each tag and digest, bounded in number.';
COMMENT ON COLUMN scan_queue.not_before IS 'When to look next: now for new work, later for a second look or after a failure.';
COMMENT ON COLUMN scan_queue.enqueued_at IS 'When the oldest work in the row arrived.';
COMMENT ON COLUMN scan_queue.whole_at IS 'When a notification last asked for the whole: a scan of it counts only well after that; null when none asked.';
COMMENT ON COLUMN scan_queue.attempts IS 'Failures in a row; 8 and more are quarantine.';
COMMENT ON COLUMN scan_queue.last_error IS 'What the last failure was.';
