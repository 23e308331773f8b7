-- Prefixes of keys that owners watch.
CREATE TABLE watched_prefixes (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cache_id BIGINT NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    name     TEXT   NOT NULL CHECK (length(name) BETWEEN 1 AND 250),
    UNIQUE (cache_id, name)
);
