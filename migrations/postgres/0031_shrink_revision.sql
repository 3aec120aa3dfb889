-- The revision from which on data planes may drop most of what they held in another history: what was published before
-- it, an empty store above all, must not be taken for what an operator has allowed.

ALTER TABLE meta ADD COLUMN shrink_revision BIGINT NOT NULL DEFAULT 0;
