-- The last set of endpoints of each upstream that discovers them; see ../README.md for the rules and what the tables are for.

CREATE TABLE endpoints (
    upstream TEXT PRIMARY KEY,
    query    BLOB NOT NULL,
    body     BLOB NOT NULL
) STRICT;
