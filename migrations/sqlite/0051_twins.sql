-- Where another process of a data plane's name was last refused, and when.

ALTER TABLE nodes ADD COLUMN twin TEXT;
ALTER TABLE nodes ADD COLUMN twin_us INTEGER;
