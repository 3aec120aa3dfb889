-- The store's first schema; see ../README.md for the rules and what the tables are for.
-- Names are COLLATE "C": they sort by byte, whatever the database's locale.

CREATE TABLE meta (
    singleton  BIGINT PRIMARY KEY CHECK (singleton = 1),
    epoch      UUID   NOT NULL,
    revision   BIGINT NOT NULL CHECK (revision >= 0),
    root_hash  BYTEA  NOT NULL CHECK (octet_length(root_hash) = 16),
    created_us BIGINT NOT NULL
);

CREATE TABLE revisions (
    revision  BIGINT PRIMARY KEY,
    parent    BIGINT NOT NULL,
    at_us     BIGINT NOT NULL,
    author    TEXT   NOT NULL,
    message   TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    updated   BIGINT NOT NULL,
    deleted   BIGINT NOT NULL,
    root_hash BYTEA  NOT NULL CHECK (octet_length(root_hash) = 16)
);

CREATE TABLE resources (
    kind       TEXT   COLLATE "C" NOT NULL,
    namespace  TEXT   COLLATE "C" NOT NULL,
    name       TEXT   COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    revision   BIGINT NOT NULL REFERENCES revisions (revision),
    labels     JSONB  NOT NULL,
    body       BYTEA  NOT NULL,
    hash       BYTEA  NOT NULL CHECK (octet_length(hash) = 16),
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
);
CREATE INDEX resources_by_revision ON resources (revision);

CREATE TABLE changelog (
    revision  BIGINT NOT NULL REFERENCES revisions (revision),
    seq       BIGINT NOT NULL,
    kind      TEXT   COLLATE "C" NOT NULL,
    namespace TEXT   COLLATE "C" NOT NULL,
    name      TEXT   COLLATE "C" NOT NULL,
    op        TEXT   NOT NULL CHECK (op IN ('put', 'delete')),
    hash      BYTEA  CHECK (octet_length(hash) = 16),
    body      BYTEA,
    PRIMARY KEY (revision, seq),
    CHECK ((op = 'put') = (body IS NOT NULL AND hash IS NOT NULL))
);
CREATE UNIQUE INDEX changelog_by_object ON changelog (kind, namespace, name, revision);

CREATE TABLE token_version (
    singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
    version   BIGINT NOT NULL
);

CREATE TABLE tokens (
    name       TEXT   COLLATE "C" PRIMARY KEY,
    digest     BYTEA  NOT NULL CHECK (octet_length(digest) = 32),
    role       TEXT   NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    namespaces TEXT   NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT
);

CREATE TABLE audit (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_us    BIGINT NOT NULL,
    who      TEXT   NOT NULL,
    source   TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    object   TEXT   NOT NULL,
    status   BIGINT NOT NULL,
    revision BIGINT
);

CREATE TABLE nodes (
    node      TEXT    COLLATE "C" PRIMARY KEY,
    replica   UUID    NOT NULL,
    opened_us BIGINT  NOT NULL,
    seen_us   BIGINT  NOT NULL,
    connected BOOLEAN NOT NULL,
    revision  BIGINT  NOT NULL,
    report    TEXT    NOT NULL
);
