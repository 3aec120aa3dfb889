-- Keys that were good once and are not to be again unless somebody says so; how many credentials there are.

CREATE TABLE spent_keys (
    digest  BYTEA PRIMARY KEY CHECK (length(digest) = 32),
    version BIGINT NOT NULL
);

ALTER TABLE credential_version ADD COLUMN amount BIGINT NOT NULL DEFAULT 0;
UPDATE credential_version SET amount = (SELECT count(*) FROM credentials);
