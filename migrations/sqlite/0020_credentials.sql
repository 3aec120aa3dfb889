-- Credentials: outside revisions, with a counter of their own; see ../README.md for the rules and what the tables are for.

CREATE TABLE credential_version (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    version   INTEGER NOT NULL,
    trimmed   INTEGER NOT NULL
) STRICT;
INSERT INTO credential_version (singleton, version, trimmed) VALUES (1, 0, 0);

CREATE TABLE credentials (
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    consumer   TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    body       BLOB    NOT NULL,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT;
CREATE INDEX credentials_by_consumer ON credentials (namespace, consumer);

CREATE TABLE credential_keys (
    digest    BLOB    PRIMARY KEY CHECK (length(digest) = 32),
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    consumer  TEXT    NOT NULL,
    expires   INTEGER NOT NULL
) STRICT;
CREATE INDEX credential_keys_by_credential ON credential_keys (namespace, name);

CREATE TABLE credential_log (
    version INTEGER NOT NULL,
    digest  BLOB    NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (version, digest)
) STRICT;
