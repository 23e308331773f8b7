-- Requests that changed something which is no cache's: a cluster, a webhook, a call. Each is carried out
-- once under its idempotency key, as those in idempotency_keys are.

CREATE TABLE installation_requests (
    key            TEXT NOT NULL PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 255),
    -- SHA-256 of the request: the same key for another request is a mistake.
    request_digest BYTEA NOT NULL CHECK (length(request_digest) = 32),
    at             BIGINT NOT NULL CHECK (at >= 0),
    -- The id of what it made or changed.
    made           BIGINT NOT NULL
);
CREATE INDEX installation_requests_by_time ON installation_requests (at);
