-- Prefixes of keys that owners watch.
CREATE TABLE watched_prefixes (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    cache_id INTEGER NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    name     TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 250),
    UNIQUE (cache_id, name)
) STRICT;
