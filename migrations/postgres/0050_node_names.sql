-- Whose a name of a data plane is: its group's, for as long as a certificate with it is good; see ../README.md.

CREATE TABLE node_names (
    node       TEXT   COLLATE "C" PRIMARY KEY,
    node_group TEXT   COLLATE "C" NOT NULL,
    until_us   BIGINT NOT NULL
);
