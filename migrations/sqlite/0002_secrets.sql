-- Secrets, sealed; see ../README.md for the rules and what the tables are for.

CREATE TABLE master (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    id        BLOB    NOT NULL CHECK (length(id) = 8),
    tag_key   BLOB    NOT NULL
) STRICT;

CREATE TABLE secrets (
    kind      TEXT    NOT NULL,
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    field     TEXT    NOT NULL,
    revision  INTEGER NOT NULL REFERENCES revisions (revision),
    master    BLOB    NOT NULL CHECK (length(master) = 8),
    data_key  BLOB    NOT NULL,
    value     BLOB    NOT NULL,
    PRIMARY KEY (kind, namespace, name, field, revision)
) STRICT;
