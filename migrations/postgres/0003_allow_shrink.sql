-- The history for which an operator has said that data planes may drop most of what they held in another.

ALTER TABLE meta ADD COLUMN shrink_epoch UUID;
