-- The store's first schema; see ../README.md for the rules and what the tables are for.

CREATE TABLE meta (
    singleton  INTEGER PRIMARY KEY CHECK (singleton = 1),
    epoch      BLOB    NOT NULL CHECK (length(epoch) = 16),
    revision   INTEGER NOT NULL CHECK (revision >= 0),
    root_hash  BLOB    NOT NULL CHECK (length(root_hash) = 16),
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE revisions (
    revision  INTEGER PRIMARY KEY,
    parent    INTEGER NOT NULL,
    at_us     INTEGER NOT NULL,
    author    TEXT    NOT NULL,
    message   TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    updated   INTEGER NOT NULL,
    deleted   INTEGER NOT NULL,
    root_hash BLOB    NOT NULL CHECK (length(root_hash) = 16)
) STRICT;

CREATE TABLE resources (
    kind       TEXT    NOT NULL,
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    revision   INTEGER NOT NULL REFERENCES revisions (revision),
    labels     TEXT    NOT NULL CHECK (json_valid(labels)),
    body       BLOB    NOT NULL,
    hash       BLOB    NOT NULL CHECK (length(hash) = 16),
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) STRICT;
CREATE INDEX resources_by_revision ON resources (revision);

CREATE TABLE changelog (
    revision  INTEGER NOT NULL REFERENCES revisions (revision),
    seq       INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    op        TEXT    NOT NULL CHECK (op IN ('put', 'delete')),
    hash      BLOB    CHECK (length(hash) = 16),
    body      BLOB,
    PRIMARY KEY (revision, seq),
    CHECK ((op = 'put') = (body IS NOT NULL AND hash IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX changelog_by_object ON changelog (kind, namespace, name, revision);

CREATE TABLE token_version (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    version   INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    name       TEXT    PRIMARY KEY,
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),
    role       TEXT    NOT NULL CHECK (role IN ('viewer', 'editor', 'admin')),
    namespaces TEXT    NOT NULL,
    created_us INTEGER NOT NULL,
    expires_us INTEGER
) STRICT;

CREATE TABLE audit (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at_us    INTEGER NOT NULL,
    who      TEXT    NOT NULL,
    source   TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    object   TEXT    NOT NULL,
    status   INTEGER NOT NULL,
    revision INTEGER
) STRICT;

CREATE TABLE nodes (
    node      TEXT    PRIMARY KEY,
    replica   BLOB    NOT NULL CHECK (length(replica) = 16),
    opened_us INTEGER NOT NULL,
    seen_us   INTEGER NOT NULL,
    connected INTEGER NOT NULL CHECK (connected IN (0, 1)),
    revision  INTEGER NOT NULL,
    report    TEXT    NOT NULL
) STRICT;
