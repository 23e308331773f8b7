-- What caches did over time: see `series.rs`.

CREATE TABLE series (
    -- Seconds that a row stands for.
    step     BIGINT NOT NULL CHECK (step IN (60, 600, 3600, 86400)),
    -- Unix time at which they begin.
    at       BIGINT NOT NULL CHECK (at >= 0 AND at % step = 0),
    cache_id BIGINT NOT NULL,
    -- 0 for the cache as a whole.
    server   BIGINT NOT NULL,
    -- Pairs of a figure's number and its value: see `series/sample.rs`.
    sample   BYTEA  NOT NULL CHECK (length(sample) <= 1024),
    -- Time first: rows are written and forgotten in its order, a minute of all caches at once.
    PRIMARY KEY (step, at, cache_id, server)
);

-- Until when the rows of a step are summed up from finer ones.
CREATE TABLE series_rolled (
    step     BIGINT PRIMARY KEY,
    until    BIGINT NOT NULL
);

CREATE TABLE series_servers (
    id   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name TEXT   NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64)
);
