-- The last set of endpoints of each upstream that discovers them; see ../README.md for the rules and what the tables are for.

CREATE TABLE endpoints (
    upstream TEXT COLLATE "C" PRIMARY KEY,
    query    BYTEA  NOT NULL,
    body     BYTEA  NOT NULL
);
