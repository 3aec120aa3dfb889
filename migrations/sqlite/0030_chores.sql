-- Who does the chores, and how far back history reaches; see ../README.md for the rules and what the tables are for.

CREATE TABLE leader (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    fence     INTEGER NOT NULL
) STRICT;
INSERT INTO leader (singleton, fence) VALUES (1, 0);

-- The oldest revision whose content can be had; 0: all of them.
ALTER TABLE meta ADD COLUMN oldest INTEGER NOT NULL DEFAULT 0;

CREATE INDEX secrets_by_revision ON secrets (revision);
