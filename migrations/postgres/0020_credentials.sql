-- Credentials: outside revisions, with a counter of their own; see ../README.md for the rules and what the tables are for.

CREATE TABLE credential_version (
    singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
    version   BIGINT NOT NULL,
    trimmed   BIGINT NOT NULL
);
INSERT INTO credential_version (singleton, version, trimmed) VALUES (1, 0, 0);

CREATE TABLE credentials (
    namespace  TEXT   COLLATE "C" NOT NULL,
    name       TEXT   COLLATE "C" NOT NULL,
    consumer   TEXT   COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    body       BYTEA  NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);
CREATE INDEX credentials_by_consumer ON credentials (namespace, consumer);

CREATE TABLE credential_keys (
    digest    BYTEA  PRIMARY KEY CHECK (octet_length(digest) = 32),
    namespace TEXT   COLLATE "C" NOT NULL,
    name      TEXT   COLLATE "C" NOT NULL,
    consumer  TEXT   COLLATE "C" NOT NULL,
    expires   BIGINT NOT NULL
);
CREATE INDEX credential_keys_by_credential ON credential_keys (namespace, name);

CREATE TABLE credential_log (
    version BIGINT NOT NULL,
    digest  BYTEA  NOT NULL CHECK (octet_length(digest) = 32),
    PRIMARY KEY (version, digest)
);
