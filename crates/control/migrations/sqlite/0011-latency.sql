-- How long requests took at each proxy, all caches together: see `control/latency.rs`.

CREATE TABLE latency (
    -- Seconds that a row stands for.
    step      INTEGER NOT NULL CHECK (step IN (20, 600, 3600, 86400)),
    -- Unix time at which they begin.
    at        INTEGER NOT NULL CHECK (at >= 0 AND at % step = 0),
    -- A number of `series_servers`.
    server    INTEGER NOT NULL,
    -- Ranges of time and their counts: `Histogram` of the crate `wire`.
    histogram BLOB    NOT NULL CHECK (length(histogram) <= 2048),
    PRIMARY KEY (step, at, server)
) STRICT, WITHOUT ROWID;
