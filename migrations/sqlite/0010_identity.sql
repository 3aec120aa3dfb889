-- The control plane's own CA, join tokens, and whose certificates are over; see ../README.md.

CREATE TABLE authorities (
    state       TEXT   PRIMARY KEY CHECK (state IN ('next', 'active', 'old')),
    id          BLOB   NOT NULL CHECK (length(id) = 32),
    certificate BLOB   NOT NULL,
    cross_signed BLOB,
    since_us    INTEGER NOT NULL,
    lifetime_us INTEGER NOT NULL,
    master      BLOB   NOT NULL CHECK (length(master) = 8),
    data_key    BLOB   NOT NULL,
    private_key BLOB   NOT NULL
) STRICT;

CREATE TABLE join_tokens (
    name        TEXT   PRIMARY KEY,
    digest      BLOB   NOT NULL UNIQUE CHECK (length(digest) = 32),
    authority   BLOB   NOT NULL CHECK (length(authority) = 32),
    node_group  TEXT   NOT NULL,
    uses        INTEGER NOT NULL,
    used        INTEGER NOT NULL,
    created_us  INTEGER NOT NULL,
    expires_us  INTEGER NOT NULL,
    CHECK (used BETWEEN 0 AND uses)
) STRICT;

CREATE TABLE enrolments (
    token       TEXT   NOT NULL REFERENCES join_tokens (name) ON DELETE CASCADE,
    key_digest  BLOB   NOT NULL CHECK (length(key_digest) = 32),
    node        TEXT   NOT NULL,
    at_us       INTEGER NOT NULL,
    PRIMARY KEY (token, key_digest)
) STRICT;

CREATE TABLE revoked_nodes (
    node       TEXT   PRIMARY KEY,
    before_us  INTEGER NOT NULL
) STRICT;
