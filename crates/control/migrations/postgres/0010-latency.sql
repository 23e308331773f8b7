-- How long requests took at each proxy; the same as in SQLite's step of this name.

CREATE TABLE latency (
    -- Seconds that a row stands for.
    step      BIGINT NOT NULL CHECK (step IN (20, 600, 3600, 86400)),
    -- Unix time at which they begin.
    at        BIGINT NOT NULL CHECK (at >= 0 AND at % step = 0),
    -- A number of `series_servers`.
    server    BIGINT NOT NULL,
    -- Ranges of time and their counts: `Histogram` of the crate `wire`.
    histogram BYTEA  NOT NULL CHECK (length(histogram) <= 2048),
    PRIMARY KEY (step, at, server)
);
