-- Keys that were good once and are not to be again unless somebody says so; how many credentials there are.

CREATE TABLE spent_keys (
    digest  BLOB PRIMARY KEY CHECK (length(digest) = 32),
    version INTEGER NOT NULL
) STRICT;

ALTER TABLE credential_version ADD COLUMN amount INTEGER NOT NULL DEFAULT 0;
UPDATE credential_version SET amount = (SELECT count(*) FROM credentials);
