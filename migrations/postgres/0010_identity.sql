-- The control plane's own CA, join tokens, and whose certificates are over; see ../README.md.

CREATE TABLE authorities (
    state       TEXT   PRIMARY KEY CHECK (state IN ('next', 'active', 'old')),
    id          BYTEA  NOT NULL CHECK (octet_length(id) = 32),
    certificate BYTEA  NOT NULL,
    cross_signed BYTEA,
    since_us    BIGINT NOT NULL,
    lifetime_us BIGINT NOT NULL,
    master      BYTEA  NOT NULL CHECK (octet_length(master) = 8),
    data_key    BYTEA  NOT NULL,
    private_key BYTEA  NOT NULL
);

CREATE TABLE join_tokens (
    name        TEXT   COLLATE "C" PRIMARY KEY,
    digest      BYTEA  NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    authority   BYTEA  NOT NULL CHECK (octet_length(authority) = 32),
    node_group  TEXT   NOT NULL,
    uses        BIGINT NOT NULL,
    used        BIGINT NOT NULL,
    created_us  BIGINT NOT NULL,
    expires_us  BIGINT NOT NULL,
    CHECK (used BETWEEN 0 AND uses)
);

CREATE TABLE enrolments (
    token       TEXT   COLLATE "C" NOT NULL REFERENCES join_tokens (name) ON DELETE CASCADE,
    key_digest  BYTEA  NOT NULL CHECK (octet_length(key_digest) = 32),
    node        TEXT   COLLATE "C" NOT NULL,
    at_us       BIGINT NOT NULL,
    PRIMARY KEY (token, key_digest)
);

CREATE TABLE revoked_nodes (
    node       TEXT   COLLATE "C" PRIMARY KEY,
    before_us  BIGINT NOT NULL
);
