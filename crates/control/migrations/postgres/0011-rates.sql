-- How fast a cache may be used at each proxy; 0 is no limit.

ALTER TABLE caches ADD COLUMN operations_per_second BIGINT NOT NULL DEFAULT 0
    CHECK (operations_per_second >= 0);
ALTER TABLE caches ADD COLUMN bytes_per_second BIGINT NOT NULL DEFAULT 0
    CHECK (bytes_per_second >= 0);
