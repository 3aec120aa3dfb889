-- Secrets, sealed; see ../README.md for the rules and what the tables are for.

CREATE TABLE master (
    singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
    id        BYTEA  NOT NULL CHECK (octet_length(id) = 8),
    tag_key   BYTEA  NOT NULL
);

CREATE TABLE secrets (
    kind      TEXT   COLLATE "C" NOT NULL,
    namespace TEXT   COLLATE "C" NOT NULL,
    name      TEXT   COLLATE "C" NOT NULL,
    field     TEXT   COLLATE "C" NOT NULL,
    revision  BIGINT NOT NULL REFERENCES revisions (revision),
    master    BYTEA  NOT NULL CHECK (octet_length(master) = 8),
    data_key  BYTEA  NOT NULL,
    value     BYTEA  NOT NULL,
    PRIMARY KEY (kind, namespace, name, field, revision)
);
