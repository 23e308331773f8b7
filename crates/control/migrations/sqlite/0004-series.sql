-- What caches did over time: see `series.rs`.

CREATE TABLE series (
    -- Seconds that a row stands for.
    step     INTEGER NOT NULL CHECK (step IN (60, 600, 3600, 86400)),
    -- Unix time at which they begin.
    at       INTEGER NOT NULL CHECK (at >= 0 AND at % step = 0),
    cache_id INTEGER NOT NULL,
    -- 0 for the cache as a whole.
    server   INTEGER NOT NULL,
    -- Pairs of a figure's number and its value: see `series/sample.rs`.
    sample   BLOB    NOT NULL CHECK (length(sample) <= 1024),
    -- Time first: rows are written and forgotten in its order, a minute of all caches at once.
    PRIMARY KEY (step, at, cache_id, server)
) STRICT, WITHOUT ROWID;

-- Until when the rows of a step are summed up from finer ones.
CREATE TABLE series_rolled (
    step     INTEGER PRIMARY KEY,
    until    INTEGER NOT NULL
) STRICT;

CREATE TABLE series_servers (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64)
) STRICT;
