-- Some of the API names credentials by number. A number is never given twice.
ALTER TABLE credentials ADD COLUMN id BIGINT GENERATED ALWAYS AS IDENTITY;
ALTER TABLE credentials ADD UNIQUE (id);
